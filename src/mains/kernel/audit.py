"""The audit: does the journal hold what it should? Readers; they change nothing.

    replay(journal)    from the last checkpoint: checksums, and the process table as the fold of the events
    verify(journal)    from the first event; contexts are folded too, and every page that an event names must be there

Both give every fault as a sentence; an empty list when all is well.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

import msgspec

from mains.errors import JournalError, KernelPanic
from mains.kernel import notes, pages, segments
from mains.kernel.context import StoredInput, joined
from mains.kernel.event import AnyEvent, Evicted, Exec, Execed, Reminded, Spawned, named
from mains.kernel.fold import apply
from mains.kernel.journal import Journal
from mains.kernel.past import hashes
from mains.kernel.process import Image, Process
from mains.kernel.tx import decode_event, decode_process, row_crc


def replay(journal: Journal) -> list[str]:
    """Faults since the last checkpoint. A kernel that was killed boots only when there are none."""
    start = journal.checkpoint_seq()
    return _Fold(journal, *_from(journal, start)).run()


def check(journal: Journal) -> None:
    """Raises JournalError when a replay finds a fault."""
    if faults := replay(journal):
        hint = "`mains journal verify` lists every fault"
        raise JournalError(f"{journal.path}: {faults[0]} ({len(faults)} faults)", hint=hint)


def verify(journal: Journal) -> list[str]:
    """Faults of the whole journal, of the page store and of the contexts."""
    with journal.snapshot():
        whole = _Whole(journal)
        faults = whole.run() + whole.check_contexts() + whole.check_frames() + whole.check_uses()
        return faults + pages.verify(journal) + notes.verify(journal) + segments.verify(journal)


_Part = tuple[int, int]  # how many pages, and the checksum of their names
_EMPTY: _Part = (0, 0)


def _from(journal: Journal, seq: int) -> tuple[int, int]:
    """Where the chain goes on after event `seq`, and the checksum there. Erased events changed no process."""
    for (crc,) in journal.rows("event_crc", seq):
        return seq, crc
    for _, last, crc in journal.rows("cut_until", seq):
        if last >= seq:
            return last, crc
    return seq, 0


class _Fold:
    """Folds the events after `start` over the checkpoint at `start`, and compares."""

    def __init__(self, journal: Journal, start: int, crc: int) -> None:
        self._journal = journal
        self._start = start
        self._crc = crc
        self._table: dict[int, Process | None] = {}
        self._last_seq: dict[int, int] = {}
        self._faults: list[str] = []
        self._removed = {pid for (pid,) in journal.rows("removed_all")}  # what is left of them is being erased
        self._cuts = 0

    def run(self) -> list[str]:
        last = self._start
        for seq, at_ms, pid, kind, body, stored in self._journal.scan("event_scan", self._start):
            if seq != last + 1:
                self._pass_cut(seq, last)
            crc = row_crc(self._crc, seq, at_ms, pid, kind, body)
            self._crc, last = stored, seq
            if crc != stored:
                self._faults.append(f"event {seq}: its checksum does not fit")
            elif pid > 0 and pid not in self._removed:
                self._apply(seq, pid, body)
            elif pid < 0 and pid not in self._removed:
                self.shared(seq, pid, body)
        self._compare()
        return self._faults

    def _pass_cut(self, seq: int, last: int) -> None:
        """Over a gap before event `seq`: events that were erased with their processes, or a fault."""
        found = self._journal.rows("cut_from", last + 1)
        if found and found[0][0] == seq - 1:
            self._crc = found[0][1]
            self._cuts += 1
        else:
            self._faults.append(f"event {seq}: follows {last}; {seq - last - 1} rows are missing")

    def _apply(self, seq: int, pid: int, body: bytes) -> None:
        if pid not in self._table:
            self._table[pid] = self._at_checkpoint(pid)
        self._last_seq[pid] = seq
        try:
            before, event = self._table[pid], decode_event(body)
            self._table[pid] = apply(before, event)
            self.folded(seq, before, event)
        except (JournalError, KernelPanic) as error:
            self._faults.append(f"event {seq}: {error}")

    def folded(self, seq: int, before: Process | None, event: AnyEvent) -> None:
        """An event was folded. The replay of a boot looks at nothing more."""

    def shared(self, seq: int, pid: int, body: bytes) -> None:
        """An event of a segment (-`pid`) was passed. The replay of a boot looks at nothing of it."""

    def _at_checkpoint(self, pid: int) -> Process | None:
        rows = self._journal.rows("checkpoint_get", pid) if self._start else []
        return decode_process(rows[0][0]) if rows else None

    def _compare(self) -> None:
        for pid, *columns, body in self._journal.scan("process_changed", self._start):
            p = self._table.pop(pid, None)
            if p is None or [*_columns(p), self._last_seq[pid]] != columns or _readable(body) != p:
                self._faults.append(f"process {pid}: the table does not agree with its events")
        self._faults += [f"process {pid}: has events, but the table does not know them" for pid in self._table]


def _columns(p: Process) -> list[str | int]:
    """What stands in columns of its own beside the record, for queries."""
    return [p.parent, p.spawned_by, p.state.value, p.reason, p.quota, p.group]


def _readable(body: bytes) -> Process | None:
    try:
        return decode_process(body)
    except msgspec.DecodeError:
        return None


class _Whole(_Fold):
    """The fold from the first event, with the contexts that it makes and the pages that it names."""

    def __init__(self, journal: Journal) -> None:
        super().__init__(journal, 0, 0)
        self._contexts: dict[int, tuple[_Part, _Part]] = {}  # pid -> its opening, and what grew behind it
        self._mapped: dict[int, int] = {}  # pid -> how many positions a fork has of its source
        self._covers: list[tuple[int, int, int, int, str]] = []  # as the events made them
        self._reminded: set[int] = set()
        self._seen: set[str] = set()
        self._uses: set[tuple[str, int]] = set()  # which process's events name which page, as far as that is on record
        self._indexed = sum(row[0] for row in journal.rows("counter_get", "uses_seq"))
        self._parts: set[tuple[str, str]] = set()  # which page names which

    def folded(self, seq: int, before: Process | None, event: AnyEvent) -> None:
        pid = event.process.pid if isinstance(event, Spawned) else before.pid if before else 0
        start, grown = self._contexts.get(pid, (_EMPTY, _EMPTY))
        added = joined(before, event)
        if isinstance(event, Spawned):
            opening, maps = event.process.opening, event.process.maps
            start, grown = _with(_EMPTY, added[:opening]), (maps[-1].until if maps else 0, 0)
            added, self._mapped[pid] = added[opening:], grown[0]
        elif isinstance(event, Execed) and before is not None and before.next is not None:
            start = _with(_EMPTY, before.next.opening)
        elif isinstance(event, Reminded) and event.opening:
            start = _with(_EMPTY, event.opening)
            self._reminded.add(pid)
        if isinstance(event, Evicted):
            self._covers += [(pid, seq, each.first, each.until, " ".join(each.pages)) for each in event.covers]
        self._contexts[pid] = start, _with(grown, added)
        for page in named(event):
            self._check_page(seq, page)
            if seq <= self._indexed:
                self._uses.add((page, pid))
        image = event.process if isinstance(event, Spawned) else event.image if isinstance(event, Exec) else None
        if image is not None:
            for page, whole in self._nested(image):
                self._check_page(seq, page)
                self._parts.add((page, whole))

    def shared(self, seq: int, pid: int, body: bytes) -> None:
        try:
            names = named(decode_event(body))
        except JournalError as error:
            self._faults.append(f"event {seq}: {error}")
            return
        for page in names:
            self._check_page(seq, page)
            if seq <= self._indexed:
                self._uses.add((page, pid))

    def _check_page(self, seq: int, page: str) -> None:
        if page not in self._seen:
            self._seen.add(page)
            if not self._journal.rows("page_known", page):
                self._faults.append(f"event {seq}: names page {page}, which does not exist")

    def _nested(self, p: Process | Image) -> Iterator[tuple[str, str]]:
        """The pages that a process's tree of programs and its inputs name, each with the page that names it."""
        try:
            for row in self._journal.rows("page_get", p.tree):
                for page in msgspec.json.decode(row[0], type=dict[str, str]).values():
                    yield page, p.tree
            for row in self._journal.rows("page_get", p.inputs):
                for stored in msgspec.json.decode(row[0], type=list[StoredInput]):
                    for page in stored.pages:
                        yield page, p.inputs
        except msgspec.DecodeError:
            return  # such a page is named among those with another hash

    def check_uses(self) -> list[str]:
        """What the tables say about who names a page, against what events and pages name; and the gaps in the chain."""
        uses = {(page, pid) for page, pid in self._journal.scan("page_use_scan") if pid not in self._removed}
        parts = {
            (page, whole)
            for page, whole in self._journal.scan("page_part_scan")
            if whole in self._seen or not self._removed
        }
        [[cuts]] = self._journal.rows("cut_count")
        wrong = [f"cut: {cuts} gaps are on record, {self._cuts} are in the journal"] if cuts != self._cuts else []
        wrong += [f"page {page}: whether process {pid} names it" for page, pid in sorted(uses ^ self._uses)]
        differing = [each for each in sorted(parts ^ self._parts) if each in self._parts or not self._mentions(*each)]
        return wrong + [f"page {page}: whether {whole} names it" for page, whole in differing]

    def _mentions(self, page: str, whole: str) -> bool:
        """Whether `whole` holds that name: a tree whose process was removed stays when a file has the same bytes."""
        return any(page.encode() in data for (data,) in self._journal.rows("page_get", whole))

    def check_contexts(self) -> list[str]:
        """What the page tables hold, against what the events made them hold."""
        found: dict[int, tuple[_Part, _Part]] = {}
        faults = []
        for pid, position, page in self._journal.scan("context_scan"):
            if pid in self._removed:
                continue
            opening = self._contexts.get(pid, (_EMPTY, _EMPTY))[0][0]
            start, grown = found.get(pid, (_EMPTY, (self._mapped.get(pid, 0), 0)))
            expected = start[0] - opening if position < 0 else grown[0]
            if position != expected:
                faults.append(f"process {pid}: position {expected} of its context is missing")
            found[pid] = (_with(start, (page,)), grown) if position < 0 else (start, _with(grown, (page,)))
        differing = sorted(pid for pid in found | self._contexts if found.get(pid) != self._contexts.get(pid))
        return faults + [f"process {pid}: its context is not what its events made" for pid in differing]

    def check_frames(self) -> list[str]:
        """What was evicted; and of who had something evicted, each frame that a model was shown, made anew."""
        stored = [row for row in self._journal.scan("cover_scan") if row[0] not in self._removed]
        faults = ["cover: the table is not what the events made"] if stored != sorted(self._covers) else []
        for pid in sorted((self._reminded | {row[0] for row in self._covers}) - self._removed):
            try:
                faults += [
                    f"event {seq}: process {pid}: the frame made anew has another hash"
                    for seq, noted, made in hashes(self._journal, pid)
                    if made != noted
                ]
            except (JournalError, KernelPanic) as error:
                faults.append(f"process {pid}: its frames cannot be made anew: {error}")
        return faults


def _with(part: _Part, pages: Iterable[str]) -> _Part:
    length, crc = part
    for page in pages:
        length, crc = length + 1, zlib.crc32(page.encode(), crc)
    return length, crc
