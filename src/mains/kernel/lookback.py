"""Looking back: what a model was shown at an earlier event, byte for byte, and where a fork from there begins. Readers.

    seen(journal, pid, seq)         the frame of the last model call until event `seq`, with its tools
    fork_point(journal, pid, seq)   how the process stood then, for `birth.fork`

Both make it anew from the journal and the pages alone (`past.py`), so that the hash which the journal noted before the
call can be compared. It goes back as far as the history does: a removed process has none.
"""

from __future__ import annotations

from bisect import bisect_left

import msgspec

from mains.errors import NotFoundError, UsageError
from mains.kernel import pages, past, stubs, views
from mains.kernel.cover import chain, seed
from mains.kernel.journal import Journal
from mains.kernel.past import Past
from mains.kernel.process import Process

_END_OF_TURN = ("rested", "exited")


class Place(msgspec.Struct, frozen=True):
    """A page of a frame, and the (first) position that it stands for. What asks for a summary is no page (empty)."""

    position: int
    page: str


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What a model was shown. `messages` and `tools` are the bytes of their pages.

    `journalled` is the hash of the whole frame that the intent of the call has (empty: an older Mains), `made` the one
    that its bytes give; they `agree` when both are the same (None: nothing was noted).
    """

    pid: int
    seq: int  # of the intent of the call
    at: str
    turn: int
    attempt: int
    engine: str
    model: str
    program: str
    summary: bool  # it was asked for a summary of old turns, which is no turn
    journalled: str
    made: str
    agree: bool | None
    places: list[Place]
    messages: list[msgspec.Raw]
    tools: msgspec.Raw


def seen(journal: Journal, pid: int, seq: int) -> Seen:
    """See the module's header. Raises NotFoundError, UsageError (none until then)."""
    with journal.snapshot():
        _check(journal, pid, seq)
        shown = past.shown(journal, pid, seq)
        p, asking = shown.past.process, shown.past.process.asking
        assert asking is not None  # the event was the intent of a call
        frame = [Place(position, page) for position, page in shown.past.frame()]
        messages = [_bytes_of(journal, place.page) for place in frame]
        tools = _bytes_of(journal, p.tools)
        made = chain(seed(p.program, pages.name_of(tools)), map(pages.name_of, messages))
        if (old := asking.summary) is not None:  # it is shown what came before the end of that, and what is asked
            upto = bisect_left(frame, old.until, key=lambda place: place.position)
            asked = stubs.ask(old.first, old.until, asking.output_tokens_max)
            frame = [*frame[:upto], Place(old.until, "")]
            messages = [*messages[:upto], msgspec.json.encode(asked)]
        return Seen(
            pid=pid,
            seq=shown.past.seq,
            at=views.stamp(journal.rows("event_at", shown.past.seq)[0][0]),
            turn=p.turn + 1,
            attempt=asking.attempt,
            engine=asking.engine,
            model=p.model,
            program=p.name,
            summary=asking.summary is not None,
            journalled=shown.journalled,
            made=made,
            agree=made == shown.journalled if shown.journalled else None,
            places=frame,
            messages=[msgspec.Raw(message) for message in messages],
            tools=msgspec.Raw(tools),
        )


def fork_point(journal: Journal, pid: int, seq: int) -> Past:
    """How a process stood after event `seq`. Raises NotFoundError, UsageError.

    An answer and the end of its turn are one step, between which nobody ever saw it: after the answer is after both.
    """
    with journal.snapshot():
        _check(journal, pid, seq)
        found = past.past(journal, pid, seq)
        if _has_answered(journal, found):
            for after, kind in journal.rows("event_next", pid, found.seq):
                if kind in _END_OF_TURN:
                    return past.past(journal, pid, after)
        return found


def _has_answered(journal: Journal, found: Past) -> bool:
    """Whether the last thing that was said is a reply without calls."""
    p = found.process
    if not found.grown or p.idle or p.asking is not None or p.calls or p.exit_code is not None:
        return False
    message = msgspec.json.decode(_bytes_of(journal, found.grown[-1]))
    return bool(message["role"] == "assistant" and not message.get("calls"))


def _check(journal: Journal, pid: int, seq: int) -> Process:
    """The process as it is now. Raises NotFoundError, UsageError for an event that there is not."""
    p = journal.process(pid)
    if p is None and 0 < pid <= journal.rows("pid_last")[0][0]:
        raise NotFoundError(f"process {pid} was removed, and its history with it")
    p = views.present(journal, pid)
    last = journal.rows("event_last")[0][0]
    if seq > last:
        raise UsageError(f"there is no event {seq:,} yet: the last one is {last:,}")
    first = journal.rows("event_next", pid, 0)[0][0]
    if seq < first:
        raise UsageError(f"process {pid} was not there at event {seq:,}: it began with event {first:,}")
    return p


def _bytes_of(journal: Journal, page: str) -> bytes:
    try:
        return pages.read(journal, page)
    except NotFoundError as error:
        raise NotFoundError(f"a page of that frame was erased: {page}") from error
