"""The past: how a process stood at an earlier event, and what its model was shown then. Readers of the journal.

    past(journal, pid, seq)     the record and the context after event `seq`, from the events alone
    shown(journal, pid, seq)    what its model was shown in its last call until then
    frames(journal, pid)        the same of every call
    hashes(journal, pid)        only the hash of each of those frames, as it was noted and made anew

Nothing of it is kept anywhere else: the events name the pages, and the fold is the one that made the process table. It
goes back as far as the events do (`retention_days`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile

import msgspec

from mains.errors import NotFoundError, UsageError
from mains.kernel.context import joined
from mains.kernel.cover import Cover, Span, chain, layout, seed
from mains.kernel.event import AnyEvent, Asked, Evicted, Execed, Reminded, Spawned
from mains.kernel.fold import apply
from mains.kernel.journal import Journal
from mains.kernel.process import Process
from mains.kernel.tx import decode_event

_READ = 1_000  # events at once
_LAST = 2**62  # above every event


class Past(msgspec.Struct, frozen=True):
    """A process after event `seq`: its record, the pages of its opening and of what grew behind it, and its covers."""

    seq: int
    process: Process
    opening: tuple[str, ...]
    grown: tuple[str, ...]
    covers: tuple[Cover, ...]

    def frame(self) -> list[tuple[int, str]]:
        """What stands in the frame: (position, page) in order."""
        p = self.process
        opening = [(position - p.opening, page) for position, page in enumerate(self.opening)]
        return [*opening, *_standing(self.grown, self.covers, 0, p.length - p.opening)]

    def frame_hash(self) -> str:
        """The hash of the frame, made anew from the names of its pages."""
        return chain(seed(self.process.program, self.process.tools), [page for _, page in self.frame()])


def _standing(grown: Sequence[str], covers: Sequence[Cover], start: int, until: int) -> Iterator[tuple[int, str]]:
    """What stands for the positions from `start` to below `until`, when none of these covers begins before `start`."""
    for part in layout(covers, until):
        if isinstance(part, Span):
            yield from ((position, grown[position]) for position in range(max(start, part.first), part.until))
        else:
            yield from ((part.first, page) for page in part.pages)


class Shown(msgspec.Struct, frozen=True):
    """What a model was shown in the call whose intent is event `past.seq`; `journalled` is the hash that the event has
    (empty: an older Mains)."""

    past: Past
    journalled: str


def past(journal: Journal, pid: int, seq: int) -> Past:
    """How a process stood after event `seq` (its own last one until then). Raises NotFoundError."""
    with journal.snapshot():
        return _until(journal, pid, seq).past()


def shown(journal: Journal, pid: int, seq: int) -> Shown:
    """The last model call of a process until event `seq`. Raises NotFoundError, UsageError (none until then)."""
    with journal.snapshot():
        found = _until(journal, pid, seq).shown()
        if found is None:
            raise UsageError(f"process {pid} had made no model call until event {seq}")
        return found


def frames(journal: Journal, pid: int) -> Iterator[Shown]:
    """Every model call of a process, the oldest first."""
    walk = _Walk(journal, pid)
    for _ in walk.steps(_LAST):
        if walk.asked is not None and walk.asked.seq == walk.seq and (found := walk.shown()):
            yield found


def hashes(journal: Journal, pid: int) -> Iterator[tuple[int, str, str]]:
    """Of every model call whose intent has the hash of its frame: the intent's event, that hash, and the one of the
    frame made anew. Where nothing left the frame since the last one it is rolled on, so that all are one walk."""
    walk, last, made = _Walk(journal, pid), None, ""
    for _ in walk.steps(_LAST):
        if walk.asked is not None and walk.asked.seq == walk.seq and walk.asked.frame:
            last, made = walk.asked, walk.hash_of(walk.asked, last, made)
            yield last.seq, last.frame, made


def _until(journal: Journal, pid: int, seq: int) -> _Walk:
    walk = _Walk(journal, pid)
    for _ in walk.steps(seq):
        pass
    if walk.process is None:
        raise NotFoundError(f"process {pid} has no event until {seq}", hint="`mains ps --all` lists every process")
    return walk


class _Mark(msgspec.Struct, frozen=True):
    """Where a walk was when a model was called: what had grown by then is so long."""

    seq: int
    process: Process
    opening: tuple[str, ...]
    grown: int
    covers: tuple[Cover, ...]
    frame: str


def _seed_of(mark: _Mark) -> tuple[str, str]:
    return mark.process.program, mark.process.tools


class _Walk:
    """The events of one process, folded one by one. What grew is kept once: a past is a length of it."""

    def __init__(self, journal: Journal, pid: int) -> None:
        self._journal = journal
        self._pid = pid
        self._opening: tuple[str, ...] = ()
        self._grown: list[str] = []
        self._covers: tuple[Cover, ...] = ()  # without those that a later one covers
        self.seq = 0
        self.process: Process | None = None
        self.asked: _Mark | None = None  # the last model call

    def past(self) -> Past:
        """As it stands."""
        assert self.process is not None
        return Past(self.seq, self.process, self._opening, tuple(self._grown), self._covers)

    def shown(self) -> Shown | None:
        """The last model call."""
        if (at := self.asked) is None:
            return None
        return Shown(Past(at.seq, at.process, at.opening, tuple(self._grown[: at.grown]), at.covers), at.frame)

    def hash_of(self, at: _Mark, last: _Mark | None, made: str) -> str:
        """The hash of the frame of a call; `made`: that of the call before it (`last`)."""
        if last is not None and (at.opening, *_seed_of(at)) == (last.opening, *_seed_of(last)):
            new = [*takewhile(lambda cover: cover.seq > last.seq, reversed(at.covers))][::-1]
            if all(cover.first >= last.grown for cover in new):  # what was shown then stands as it stood
                return chain(made, [page for _, page in _standing(self._grown, new, last.grown, at.grown)])
        frame = [*at.opening, *[page for _, page in _standing(self._grown, at.covers, 0, at.grown)]]
        return chain(seed(*_seed_of(at)), frame)

    def steps(self, until: int) -> Iterator[int]:
        """Go on to event `until`; the number of each event on the way."""
        while rows := self._journal.rows("event_of", self._pid, self.seq, _READ):
            for seq, _, _, _, body in rows:
                if seq > until:
                    return
                self._step(seq, decode_event(body))
                yield seq

    def _step(self, seq: int, event: AnyEvent) -> None:
        before, self.seq = self.process, seq
        self.process = apply(before, event)
        match event:
            case Spawned():
                self._born(event)
            case Execed() if before is not None and before.next is not None:
                self._opening = before.next.opening
            case Reminded():
                self._opening = event.opening or self._opening
            case Evicted():
                new = [Cover(seq, each.first, each.until, each.pages) for each in event.covers]
                self._covers = (*[cover for cover in self._covers if not _is_within(cover, new)], *new)
            case _:
                self._grown += joined(before, event)
        if isinstance(event, Asked):
            self.asked = _Mark(seq, self.process, self._opening, len(self._grown), self._covers, event.frame)

    def _born(self, event: Spawned) -> None:
        """A fork begins with what it maps: the last of its maps is its source, which has those of all before."""
        p = event.process
        self._opening, self._grown = event.context[: p.opening], list(event.context[p.opening :])
        for each in p.maps[-1:]:
            source = _until(self._journal, each.pid, each.seq)
            self._grown = source._grown[: each.until]
            self._covers = tuple(cover for cover in source._covers if cover.until <= each.until)


def _is_within(cover: Cover, later: list[Cover]) -> bool:
    return any(each.first <= cover.first and cover.until <= each.until for each in later)
