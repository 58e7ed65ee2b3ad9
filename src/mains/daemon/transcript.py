"""The transcript of a process, as an attached terminal shows it: what was said before, then what happens.

    transcript(journal, watched, pid, after_seq, back)    parts, until the process has ended

Order: the last `back` messages of the context (when `after_seq` is 0), the events after `after_seq`, and from then on
each event once, with the text that streams in between. After each event that changed it comes how the process stands.
Who lost the connection asks again with the last `seq` that it saw and gets everything after it once. A `delta` is
provisional: only those of the model call under way are given, and `said` has the whole text of the call.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

import msgspec

from mains.daemon import diary
from mains.errors import NotFoundError
from mains.kernel import event as ev
from mains.kernel import orders, pages, views
from mains.kernel.inquired import OfInquiry
from mains.kernel.journal import Journal
from mains.kernel.ports import Message, Notice, ToolCall
from mains.kernel.process import CallState, Process, State
from mains.kernel.tx import decode_event

_ROWS = 1_000  # events read at once


class Part(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing to show.

    kind: said (the model's reply: `text` and `calls`), heard (a message that it read; `name` of the sender), sent (one
    that waits in the mailbox), result (of the call `name`), mend, delta (`holed`: what came before it in its call may
    have been missed), failed (a model call; `again`: it will be
    made again), rested (the turn of a conversation is over; `text` says why, when it is no answer), note (a sentence),
    exited (`code`, `text` the result, `name` the reason).
    """

    kind: str
    seq: int = 0
    turn: int = 0
    attempt: int = 0
    text: str = ""
    name: str = ""
    calls: tuple[ToolCall, ...] = ()
    again: bool = False
    holed: bool = False
    code: int = 0


class Standing(msgspec.Struct, frozen=True):
    """How the process stands. `asks` are the open questions, `doubts` the calls in doubt; `asked` is the call that an
    answer is for."""

    program: str
    engine: str
    model: str
    conversation: bool
    state: str
    reason: str
    unread: int
    tokens: int
    budget: int | None
    asks: tuple[str, ...]
    doubts: tuple[str, ...]
    asked: str = ""
    seq: int = 0  # as of this event
    kind: str = "standing"


async def transcript(
    journal: Journal, watched: AsyncIterator[Notice], pid: int, after_seq: int, back: int
) -> AsyncGenerator[Any, None]:
    """See the module's header. `watched` must have begun. Gives lists of parts, and a delta by itself."""
    reading = _Reading(journal, pid, after_seq)
    yield await asyncio.to_thread(reading.begin, back)
    while True:
        while reading.behind:
            yield await asyncio.to_thread(reading.go_on)
        if reading.ended:
            return
        notice = await anext(watched, None)
        if notice is None or notice.kind in ("cut", "halt"):
            return  # too slow, or the end of the daemon: whoever reads asks again
        if notice.kind == "delta":
            if reading.is_under_way(notice):
                yield Part(
                    "delta", turn=notice.turn, attempt=notice.attempt, text=notice.text, holed=reading.is_holed(notice)
                )
        elif notice.kind == "progress":
            yield Part("note", text=notice.text)
        else:
            reading.behind = notice.seq > reading.seq


class _Reading:
    """Where a reader of one process stands. All of one step is of one moment of the journal."""

    def __init__(self, journal: Journal, pid: int, after_seq: int) -> None:
        self._journal = journal
        self._pid = pid
        self.seq = after_seq
        self.ended = False
        self.behind = False  # there are events that were not read yet
        self._process: Process | None = None
        self._holed = (0, 0)  # the model call that was in flight at the first look
        self._standing: Standing | None = None

    def begin(self, back: int) -> list[Any]:
        """What was said before, unless it is known; and how the process stands."""
        if self.seq:
            return self.go_on()
        with self._journal.snapshot():
            p = views.present(self._journal, self._pid)
            self.seq = self._journal.rows("event_last")[0][0]
            parts: list[Any] = [*_past(self._journal, p, back), *self._stand(p)]
            if self.ended:
                text = _text(self._journal, p.result)
                parts.append(Part("exited", self.seq, text=text, name=p.detail, code=p.exit_code or 0))
        return parts

    def go_on(self) -> list[Any]:
        """The next events, and, when these are all, how the process stands after them."""
        parts: list[Any] = []
        with self._journal.snapshot():
            rows = self._journal.rows("event_of", self._pid, self.seq, _ROWS)
            for seq, _, _, _, body in rows:
                parts += _parts(self._journal, seq, decode_event(body))
                self.seq = seq
            self.behind = len(rows) == _ROWS
            if not self.behind:
                parts += self._stand(views.present(self._journal, self._pid))
        return sorted(parts, key=_is_end)

    def _stand(self, p: Process) -> Iterator[Standing]:
        if self._process is None and p.asking:
            self._holed = (p.turn + 1, p.asking.attempt)
        self._process = p
        self.ended = p.state is State.EXITED
        standing = _standing(self._journal, p)
        if standing != self._standing:
            self._standing = standing
            yield msgspec.structs.replace(standing, seq=self.seq)

    def is_under_way(self, delta: Notice) -> bool:
        """Whether this text belongs to the model call that is in flight, as far as was read."""
        p = self._process
        asking = p.asking if p else None
        if p is None or asking is None or asking.summary is not None:  # a summary is nothing that is said
            return False
        return (delta.turn, delta.attempt) == (p.turn + 1, asking.attempt)

    def is_holed(self, delta: Notice) -> bool:
        """Whether text that came before this one, in its model call, may have been missed."""
        return (delta.turn, delta.attempt) == self._holed


def _is_end(part: Part | Standing) -> bool:
    """The end comes last."""
    return part.kind == "exited"


def _past(journal: Journal, p: Process, back: int) -> Iterator[Part]:
    """The last messages of the context; of a turn that is open, also the reply (its results come as they come)."""
    found = [
        msgspec.json.decode(place.data, type=Message)
        for place in pages.history(journal.rows, p, max(0, p.length - back) if back else p.length)
    ]
    if p.calls:  # of a turn that is over, the reply is in the context
        found.append(_message(journal, p.reply))
    for message in found:
        match message.role:
            case "assistant":
                yield Part("said", text=message.text, calls=message.calls)
            case "user":
                yield _heard(0, message)
            case "tool":
                yield Part("result", text=message.text, name=message.name)


def _standing(journal: Journal, p: Process) -> Standing:
    open_calls = views.open_calls(journal, p) if p.state in (State.WAITING, State.STOPPED) or p.inquiries else []
    return Standing(
        program=p.name,
        engine=p.engine,
        model=p.model,
        conversation=p.conversation,
        state=p.state.value,
        reason=views.reason_of(p),
        unread=p.mail,
        tokens=p.tokens,
        budget=p.budget,
        asks=tuple(call["question"] for call in open_calls if call["question"]),
        doubts=tuple(
            f"{call['tool']} {msgspec.json.encode(call['arguments']).decode()}"
            for call in open_calls
            if call["state"] == CallState.IN_DOUBT.value
        ),
        asked=call.id if open_calls and (call := orders.asked(p)) else "",
    )


def _message(journal: Journal, page: str) -> Message:
    try:
        return msgspec.json.decode(pages.read(journal, page), type=Message)
    except NotFoundError:
        return Message(role="user", text="(erased)")


def _heard(seq: int, message: Message) -> Part:
    """What was read: a message, or something of memory, of which only the first line is told."""
    if message.kind:
        return Part("note", seq, text=f"reads {message.text.partition(chr(10))[0]}")
    return Part("heard", seq, text=message.text, name=message.name)


def _text(journal: Journal, page: str) -> str:
    try:
        return pages.read(journal, page).decode() if page else ""
    except NotFoundError:
        return "(erased)"


def _parts(journal: Journal, seq: int, event: ev.AnyEvent) -> Iterator[Part]:
    """What an event shows."""
    match event:
        case ev.Asked(pages=read) | ev.Joined(pages=read):
            for page in read:
                yield _heard(seq, _message(journal, page))
        case ev.Replied(page=page, after=after):
            message = _message(journal, page)
            yield Part("said", seq, text=message.text, calls=message.calls)
            for mend in after:
                yield Part("mend", seq, text=_message(journal, mend).text)
        case ev.AskFailed(reason=reason, retry_ms=retry_ms):
            yield Part("failed", seq, text=reason, again=bool(retry_ms))
        case ev.Returned(page=page):
            message = _message(journal, page)
            yield Part("result", seq, text=message.text, name=message.name)
        case ev.Sent(page=page, sender=sender):
            yield Part("sent", seq, text=_message(journal, page).text, name=sender)
        case ev.Rested(detail=detail):
            yield Part("rested", seq, text=detail)
        case ev.Exited(code=code, result=result, detail=detail):
            yield Part("exited", seq, text=_text(journal, result), name=detail, code=code)
        case _:
            yield from _notes(seq, event)


def _notes(seq: int, event: ev.AnyEvent) -> Iterator[Part]:
    match event:
        case ev.Spawned(forked=forked):
            yield Part("note", seq, text="forked" if forked else "started")
        case ev.Doubted(calls=calls):
            yield Part("note", seq, text=f"in doubt: {', '.join(calls)} may or may not have happened")
        case ev.Answered(by=by):
            yield Part("note", seq, text=f"made again: {by}")
        case ev.Refused(detail=detail) | ev.Faulted(detail=detail):
            yield Part("note", seq, text=f"stopped: {detail}" if isinstance(event, ev.Faulted) else detail)
        case ev.Rerouted() | ev.Exec() | ev.Execed() | ev.Slotted() | ev.Evicted() | OfInquiry():
            yield Part("note", seq, text=diary.tell(event, lambda _: "")[0])
        case ev.Signalled(signal=signal) if signal in ("STOP", "CONT", "TERM"):
            told = {"STOP": "paused", "CONT": "goes on", "TERM": "told to end"}
            yield Part("note", seq, text=told[signal])
        case _:
            return
