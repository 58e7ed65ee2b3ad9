"""Events: what happens to a process. The journal is a list of them, and the process table is their fold. Pure.

`apply(process, event)` gives the process after an event, and nothing else changes one. An event that cannot happen
to a process in its state is a KernelPanic: it would be our bug.
"""

from __future__ import annotations

import msgspec

from mains.errors import KernelPanic
from mains.kernel.process import TRANSITIONS, Asking, Call, CallState, GivenUp, Process, State, replace, rest


class Event(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind"):
    """Something that happened. Events are the truth; the process table is their fold."""


class Spawned(Event, tag="spawned", frozen=True):
    """A process was made (by spawn or fork); `context` are its first pages, in order."""

    process: Process
    context: tuple[str, ...]
    forked: bool = False


class Asked(Event, tag="asked", frozen=True):
    """The intent of a model call, with its hold. `pages` are messages read from the mailbox for this frame."""

    asking: Asking
    pages: tuple[str, ...] = ()
    tokens: int = 0
    messages: tuple[int, ...] = ()


class Replied(Event, tag="replied", frozen=True):
    """The result of a model call. `calls` as they stand after everything that the kernel could do at once;
    `after` are pages that follow the reply without a call (a mend), `closed` the results of a turn that is over."""

    hold: int
    posted: int
    page: str
    tokens: int
    calls: tuple[Call, ...] = ()
    after: tuple[str, ...] = ()
    messages: tuple[int, ...] = ()
    mended: bool = False
    spawned: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0


class AskFailed(Event, tag="ask_failed", frozen=True):
    """A model call failed. `posted` tokens were charged; it is made again at `retry_ms` (0: not, or at once).

    `crashed`: it was our own end that cut it off, which does not count against the retry budget.
    """

    hold: int
    posted: int
    reason: str
    retry_ms: int = 0
    crashed: bool = False


class Rerouted(Event, tag="rerouted", frozen=True):
    """The process takes another of its routes: `index`, which is `engine`. `reason`: why the one in use could not
    serve; empty when the first route is tried again, which happens after `return_ms`."""

    index: int
    engine: str
    reason: str = ""
    return_ms: int = 0


class Called(Event, tag="called", frozen=True):
    """The intent of device calls: these are now in flight."""

    calls: tuple[str, ...]


class Returned(Event, tag="returned", frozen=True):
    """A call has its result. `messages` are what a `receive` consumed."""

    call: str
    page: str
    tokens: int
    messages: tuple[int, ...] = ()


class Doubted(Event, tag="doubted", frozen=True):
    """Calls that were in flight when the kernel died: nobody knows whether they happened."""

    calls: tuple[str, ...]


class Answered(Event, tag="answered", frozen=True):
    """A call in doubt, or one that failed to say, is to be issued again (`retry`)."""

    calls: tuple[str, ...]
    by: str


class Signalled(Event, tag="signalled", frozen=True):
    """A signal changed the process (TERM and KILL end it with an Exited of their own)."""

    signal: str


class Refused(Event, tag="refused", frozen=True):
    """The hold was refused: others hold the room of account `quota` (wait), or the breaker is open (-1: stop)."""

    quota: int
    wanted: int
    detail: str


class Faulted(Event, tag="faulted", frozen=True):
    """The process cannot go on by itself: STOPPED (error) until somebody resumes or ends it."""

    detail: str


class Woken(Event, tag="woken", frozen=True):
    """A retry is due, or room may have come free."""


class Sent(Event, tag="sent", frozen=True):
    """A message was put into the mailbox of the process."""

    message: int
    page: str
    sender: str


class Slotted(Event, tag="slot", frozen=True):
    """A slot of a schedule has come: the process `run` was started for it, or (0) it was skipped for a `reason`.

    `count` slots, from `slot_ms` on, were skipped together. The next one is at `next_ms`.
    """

    slot_ms: int
    next_ms: int
    run: int = 0
    reason: str = ""
    count: int = 1


class Rested(Event, tag="rested", frozen=True):
    """The turn of a conversation is over: it waits for the next message. `detail`: why, when that is no answer."""

    detail: str = ""


class Exited(Event, tag="exited", frozen=True):
    """The end."""

    code: int
    result: str = ""
    detail: str = ""


class Noted(Event, tag="noted", frozen=True):
    """Something about the home, not about a process (pid 0): boot, halt, recovery."""

    text: str


AnyEvent = (
    Spawned | Asked | Replied | AskFailed | Rerouted | Called | Returned | Doubted | Answered
    | Signalled | Refused | Faulted | Woken | Sent | Slotted | Rested | Exited | Noted
)  # fmt: skip


def named(event: AnyEvent) -> list[str]:
    """The pages that an event names: they are kept as long as the event is."""
    match event:
        case Spawned(process=p):
            pages = [p.program, p.tree, p.inputs, p.tools, *event.context]
        case Asked():
            return list(event.pages)
        case Replied():
            pages = [event.page, *event.after, *[call.page for call in event.calls]]
        case Returned() | Sent():
            return [event.page]
        case Exited():
            pages = [event.result]
        case _:
            return []
    return [page for page in pages if page]


def apply(process: Process | None, event: AnyEvent) -> Process:
    """The process after `event`. Raises KernelPanic for an event that cannot happen to it."""
    if process is None:
        if not isinstance(event, Spawned):
            raise KernelPanic(f"{type(event).__name__} for a process that was never spawned")
        process = event.process
        return _moved(process, process)
    if process.state is State.EXITED:
        if isinstance(event, Sent | Noted):
            return process
        raise KernelPanic(f"process {process.pid} has exited and cannot change: {type(event).__name__}")
    return _moved(process, _changed(process, event))


def _moved(before: Process, after: Process) -> Process:
    state, reason = rest(after)
    if state is not before.state and state not in TRANSITIONS[before.state]:
        raise KernelPanic(f"process {before.pid}: no transition from {before.state} to {state}")
    if state is after.state and reason == after.reason:
        return after
    return replace(after, state=state, reason=reason)


def _changed(p: Process, event: AnyEvent) -> Process:
    match event:
        case Asked():
            return _asked(p, event)
        case Replied():
            return _replied(p, event)
        case AskFailed():
            _require(p, p.asking is not None and p.asking.hold == event.hold, event)
            return replace(
                p, asking=None, retry_ms=event.retry_ms, detail=event.reason,
                failures=p.failures + (not event.crashed),
                failures_here=p.failures_here + (not event.crashed), output_tokens=p.output_tokens + event.posted,
            )  # fmt: skip
        case Rerouted():
            return _rerouted(p, event)
        case Called():
            return _calls_to(p, event, event.calls, CallState.PENDING, CallState.IN_FLIGHT)
        case Returned():
            return _returned(p, event)
        case Doubted():
            return _calls_to(p, event, event.calls, CallState.IN_FLIGHT, CallState.IN_DOUBT)
        case Answered():
            return _calls_to(p, event, event.calls, CallState.IN_DOUBT, CallState.PENDING)
        case Signalled():
            return _signalled(p, event.signal)
        case Refused() if event.quota >= 0:
            return replace(p, quota=event.quota, wanted=event.wanted, detail=event.detail)
        case Refused():
            return replace(p, fault="breaker", wanted=event.wanted, detail=event.detail)
        case Faulted():
            return replace(p, fault="error", detail=event.detail)
        case Woken():
            return replace(p, retry_ms=0, quota=-1, detail="")
        case Sent():
            return replace(p, mail=p.mail + 1, idle=False, detail="" if p.idle else p.detail)
        case Slotted():
            _require(p, p.schedule is not None and 0 < event.slot_ms == p.slot_ms, event)
            return replace(p, slot_ms=event.next_ms, run=event.run or p.run, detail=event.reason)
        case Rested():
            return _rested(p, event)
        case Exited():
            return replace(
                p, asking=None, calls=(), quota=-1, exit_code=event.code, result=event.result, detail=event.detail,
            )  # fmt: skip
        case Spawned() | Noted():
            raise KernelPanic(f"process {p.pid}: {type(event).__name__} cannot happen to a live process")


def _require(p: Process, holds: bool, event: AnyEvent) -> None:
    if not holds:
        raise KernelPanic(f"process {p.pid} is {p.state}: {type(event).__name__} cannot happen to it")


def _asked(p: Process, event: Asked) -> Process:
    _require(p, p.state is State.READY and not p.calls, event)
    added = len(event.pages)
    return replace(
        p,
        asking=event.asking,
        attempts=event.asking.attempt,
        retry_ms=0,
        detail="",
        length=p.length + added,
        frame_tokens=p.frame_tokens + event.tokens,
        whole_length=p.length + added,
        whole_tokens=p.frame_tokens + event.tokens,
        whole_turn=p.turn,
        mail=p.mail - len(event.messages),
    )


def _rerouted(p: Process, event: Rerouted) -> Process:
    _require(p, 0 <= event.index < len(p.routes) and p.asking is None and not p.calls, event)
    route = p.routes[event.index]
    gone = (GivenUp(p.route, event.reason),) if event.reason else ()
    return replace(
        p, engine=route.engine, model=route.model, route=event.index, return_ms=event.return_ms, failures_here=0,
        given_up=(*p.given_up, *gone),
    )  # fmt: skip


def _replied(p: Process, event: Replied) -> Process:
    _require(p, p.asking is not None and p.asking.hold == event.hold, event)
    p = replace(
        p,
        asking=None,
        attempts=0,
        failures=0,
        failures_here=0,
        given_up=(),
        turn=p.turn + 1,
        length=p.length + 1 + len(event.after),
        frame_tokens=p.frame_tokens + event.tokens,
        mends=p.mends + 1 if event.mended else 0,
        mail=p.mail - len(event.messages),
        children=p.children + event.spawned,
        input_tokens=p.input_tokens + event.input_tokens,
        cached_tokens=p.cached_tokens + event.cached_tokens,
        output_tokens=p.output_tokens + event.output_tokens,
        reply=event.page,
        calls=event.calls,
    )
    return _closed(p)


def _rested(p: Process, event: Rested) -> Process:
    _require(p, p.conversation and p.asking is None and not p.calls, event)
    return replace(
        p, idle=p.interrupted or not p.mail, idle_turn=p.turn, interrupted=False, detail=event.detail,
        attempts=0, failures=0, failures_here=0, given_up=(), retry_ms=0, quota=-1, mends=0,
    )  # fmt: skip


_RETURNS = (CallState.IN_FLIGHT, CallState.WAITING, CallState.IN_DOUBT)


def _returned(p: Process, event: Returned) -> Process:
    returns = (*_RETURNS, CallState.PENDING) if p.interrupted else _RETURNS
    _require(p, any(c.id == event.call and c.state in returns for c in p.calls), event)
    calls = tuple(
        replace(c, state=CallState.DONE, page=event.page, on="", due_ms=0) if c.id == event.call else c for c in p.calls
    )
    p = replace(p, calls=calls, frame_tokens=p.frame_tokens + event.tokens, mail=p.mail - len(event.messages))
    return _closed(p)


def _closed(p: Process) -> Process:
    """A turn whose calls are all done is over: their results join the context, in the order of the calls."""
    if not p.calls or any(c.state is not CallState.DONE for c in p.calls):
        return p
    return replace(p, calls=(), reply="", length=p.length + len(p.calls))


def _calls_to(p: Process, event: AnyEvent, ids: tuple[str, ...], before: CallState, after: CallState) -> Process:
    _require(p, sum(c.id in ids and c.state is before for c in p.calls) == len(ids), event)
    step = 1 if after is CallState.IN_FLIGHT else 0
    calls = tuple(replace(c, state=after, attempt=c.attempt + step) if c.id in ids else c for c in p.calls)
    return replace(p, calls=calls)


def _signalled(p: Process, signal: str) -> Process:
    match signal:
        case "STOP":
            return replace(p, paused=True)
        case "CONT":
            retry = p.fault == "error"
            return replace(
                p, paused=False, fault="", detail="" if p.fault else p.detail,
                failures=0 if retry else p.failures, failures_here=0 if retry else p.failures_here,
                given_up=() if retry else p.given_up, mends=0 if retry else p.mends,
            )  # fmt: skip
        case "TERM":
            return replace(p, ending=True)
        case "INT":
            return replace(p, interrupted=True)
        case _:
            raise KernelPanic(f"process {p.pid}: signal {signal} has no event")
