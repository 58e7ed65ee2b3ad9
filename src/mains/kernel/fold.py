"""The fold: what each event makes of a process. The process table is the fold of the journal. Pure.

`apply(process, event)` gives the process after an event, and nothing else changes one. An event that cannot happen
to a process in its state is a KernelPanic: it would be our bug.
"""

from __future__ import annotations

from mains.errors import KernelPanic
from mains.kernel import inquired
from mains.kernel.cover import chain
from mains.kernel.event import (
    Answered,
    AnyEvent,
    Asked,
    AskFailed,
    Called,
    Deferred,
    Doubted,
    Evicted,
    Exec,
    Execed,
    Exited,
    Faulted,
    Forgotten,
    Joined,
    Limited,
    Noted,
    OfSegment,
    Opened,
    Refused,
    Remembered,
    Reminded,
    Removed,
    Replied,
    Rerouted,
    Rested,
    Returned,
    Sent,
    Signalled,
    Slotted,
    Spawned,
    Tidied,
    Warned,
    Woken,
)
from mains.kernel.inquired import OfInquiry
from mains.kernel.process import GRANT, TRANSITIONS, CallState, GivenUp, Mapped, Process, Rated, State, replace, rest


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
    after = inquired.kept(after)
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
        case Joined():
            return _joined(p, event)
        case Evicted():
            return _evicted(p, event)
        case AskFailed():
            return _ask_failed(p, event)
        case Tidied():
            _require(p, p.idle and p.tidy and p.asking is None, event)
            return replace(p, tidy=False, deferred=False)
        case Reminded():
            return _reminded(p, event)
        case Rerouted():
            return _rerouted(p, event)
        case Called():
            return _calls_to(p, event, event.calls, CallState.PENDING, CallState.IN_FLIGHT)
        case Returned():
            return _returned(p, event)
        case Doubted():
            return _calls_to(p, event, event.calls, CallState.IN_FLIGHT, CallState.IN_DOUBT)
        case Answered():
            return _answered(p, event)
        case Signalled():
            return _signalled(p, event.signal)
        case Refused():
            return _refused(p, event)
        case Deferred():
            return replace(p, retry_ms=event.until_ms, deferred=True, detail=event.detail)
        case Faulted():
            return replace(p, fault="error", detail=event.detail)
        case Woken():
            return replace(p, retry_ms=0, quota=-1, detail="")
        case Sent():
            return _sent(p, event.sender)
        case Exec():
            return replace(p, next=event.image)
        case Execed():
            return _execed(p, event)
        case Slotted():
            _require(p, p.schedule is not None and 0 < event.slot_ms == p.slot_ms, event)
            return replace(p, slot_ms=event.next_ms, run=event.run or p.run, detail=event.reason)
        case Rested():
            return _rested(p, event)
        case OfInquiry():
            return inquired.happened(p, event)
        case Exited():
            return replace(
                p, asking=None, calls=(), quota=-1, exit_code=event.code, result=event.result, detail=event.detail,
            )  # fmt: skip
        case (
            Spawned() | Removed() | Noted() | Opened() | Limited() | Warned() | Remembered() | Forgotten() | OfSegment()
        ):
            raise KernelPanic(f"process {p.pid}: {type(event).__name__} cannot happen to a live process")


def _require(p: Process, holds: bool, event: AnyEvent) -> None:
    if not holds:
        raise KernelPanic(f"process {p.pid} is {p.state}: {type(event).__name__} cannot happen to it")


def _asked(p: Process, event: Asked) -> Process:
    joined = not p.frame or chain(p.frame, event.pages) == event.frame
    _require(p, p.state is State.READY and not p.calls and joined, event)
    added = len(event.pages)
    return replace(
        p,
        asking=event.asking,
        attempts=event.asking.attempt,
        retry_ms=0,
        deferred=False,
        detail="",
        length=p.length + added,
        frame_tokens=p.frame_tokens + event.tokens,
        whole_length=p.length + added,
        whole_tokens=p.frame_tokens + event.tokens,
        whole_turn=p.turn,
        frame=event.frame,
        whole_frame=event.frame,
        mail=p.mail - len(event.messages),
        segments=tuple(each if each.whole == each.until else replace(each, whole=each.until) for each in p.segments),
    )


def _ask_failed(p: Process, event: AskFailed) -> Process:
    _require(p, p.asking is not None and p.asking.hold == event.hold, event)
    p = replace(p, asking=None, output_tokens=p.output_tokens + event.posted, cost_nano=p.cost_nano + event.cost_nano)
    if p.idle:
        return replace(p, tidy=False)  # it was no turn, and is not tried again
    return replace(
        p, retry_ms=event.retry_ms, detail=event.reason, refusals=p.refusals + event.refused,
        failures=p.failures + (not (event.crashed or event.refused)),
        failures_here=p.failures_here + (not event.crashed),
    )  # fmt: skip


def _joined(p: Process, event: Joined) -> Process:
    upto, mapped = dict(event.segments), {each.segment: each.until for each in p.segments if each.live}
    further = all(mapped.get(segment, until) < until for segment, until in upto.items())
    _require(p, p.state is State.READY and not p.calls and further, event)
    return replace(
        p, length=p.length + len(event.pages), frame_tokens=p.frame_tokens + event.tokens,
        frame=_chained(p, event.pages), mail=p.mail - len(event.messages),
        segments=tuple(replace(each, until=upto.get(each.segment, each.until)) for each in p.segments),
        tainted=p.tainted or event.untrusted,
    )  # fmt: skip


def _evicted(p: Process, event: Evicted) -> Process:
    asked = p.asking.hold if p.asking and p.asking.summary else 0
    at_rest = p.state in (State.READY, State.STOPPED)  # it may have been paused while a summary was asked for
    _require(p, event.hold == asked and not p.calls and (asked > 0 or at_rest), event)
    settled = {"asking": None, "failures": 0, "failures_here": 0, "refusals": 0}  # attempts count on: they name calls
    tokens = p.frame_tokens + event.tokens
    whole = {"whole_length": p.length, "whole_tokens": tokens, "whole_frame": event.frame, "whole_turn": p.turn}
    if all(each.first >= p.whole_length - p.opening for each in event.covers):
        whole = {"whole_frame": p.whole_frame if event.unseen else ""}  # as long as it was; the tools may be others
    return replace(
        p, covers=p.covers + 1, breaks=p.breaks + (not event.unseen),
        tidy=p.tidy and not asked, frame_tokens=tokens, frame=event.frame,
        tools=event.tools or p.tools, reserve_tokens=event.reserve_tokens,
        input_tokens=p.input_tokens + event.input_tokens, cached_tokens=p.cached_tokens + event.cached_tokens,
        output_tokens=p.output_tokens + event.output_tokens, cost_nano=p.cost_nano + event.cost_nano,
        **(settled if asked else {}), **whole,
    )  # fmt: skip


def _refused(p: Process, event: Refused) -> Process:
    waits = event.quota >= 0
    fault = "breaker" if not waits else "" if p.fault == "breaker" else p.fault
    return replace(
        p, fault=fault, quota=event.quota if waits else -1, detail=event.detail, wanted=event.wanted,
        wanted_nano=event.wanted_nano,
    )  # fmt: skip


def _sent(p: Process, sender: str) -> Process:
    """What another process writes is in its mailbox, and taints it: it may be read at any time."""
    strange = sender not in ("a person", f"process {p.pid}")
    tainted = p.tainted or (f"a message from {sender}" if strange else "")
    p = replace(p, mail=p.mail + 1, tainted=tainted)
    if not p.idle:
        return p
    later = {"retry_ms": 0, "deferred": False} if p.tidy else {}  # what could wait does not hold up a turn
    return replace(p, idle=False, tidy=False, detail="", **later)


def _reminded(p: Process, event: Reminded) -> Process:
    _require(p, p.asking is None and not p.calls and p.next is None, event)
    p = replace(p, noted=event.upto, tainted=p.tainted or event.tainted)
    if not event.opening:
        return p
    more = len(event.opening) - p.opening
    return replace(
        p, notes_page=event.page, opening=len(event.opening), opening_tokens=p.opening_tokens + event.tokens,
        frame=event.frame, whole_frame="", breaks=p.breaks + 1,
        length=p.length + more, whole_length=p.whole_length + more,
        frame_tokens=p.frame_tokens + event.tokens, whole_tokens=p.whole_tokens + event.tokens,
    )  # fmt: skip


def _rerouted(p: Process, event: Rerouted) -> Process:
    _require(p, 0 <= event.index < len(p.routes) and p.asking is None and not p.calls, event)
    route = p.routes[event.index]
    gone = (GivenUp(p.route, event.reason),) if event.reason else ()
    return replace(
        p, engine=route.engine, model=route.model, route=event.index, return_ms=event.return_ms, failures_here=0,
        context_tokens=route.context_tokens,
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
        refusals=0,
        given_up=(),
        turn=p.turn + 1,
        length=p.length + 1 + len(event.after),
        frame_tokens=p.frame_tokens + event.tokens,
        frame=_chained(p, (event.page, *event.after)),
        mends=p.mends + 1 if event.mended else 0,
        mail=p.mail - len(event.messages),
        children=p.children + event.spawned,
        input_tokens=p.input_tokens + event.input_tokens,
        cached_tokens=p.cached_tokens + event.cached_tokens,
        output_tokens=p.output_tokens + event.output_tokens,
        cost_nano=p.cost_nano + event.cost_nano,
        reply=event.page,
        calls=event.calls,
        rated=_rated(p, event) if event.rated else p.rated,
        tainted=p.tainted or event.source,
    )
    return _closed(p)


def _rated(p: Process, event: Replied) -> tuple[Rated, ...]:
    now = {each.grant: each for each in (*p.rated, *event.rated)}
    return tuple(now.values())


def _execed(p: Process, event: Execed) -> Process:
    i = p.next
    _require(p, i is not None and p.asking is None and not p.calls, event)
    assert i is not None
    more, tokens = len(i.opening) - p.opening, i.opening_tokens - p.opening_tokens
    routed = {} if p.engine_forced else {
        "engine": i.route.engine, "model": i.route.model, "routes": i.route.chain, "route": 0, "return_ms": 0,
        "context_tokens": i.route.context_tokens,
    }  # fmt: skip
    return replace(
        p, next=None, name=i.name, path=i.path, program=i.program, tree=i.tree, inputs=i.inputs, tools=i.tools,
        above=i.above, opening=len(i.opening), opening_tokens=i.opening_tokens, reads_mail=i.reads_mail,
        band=p.band if p.band_given else i.band,
        reserve_tokens=i.reserve_tokens, output_tokens_max=i.output_tokens_max, frame_tokens_max=i.frame_tokens_max,
        schedule=i.schedule, remembers=i.remembers, noted=0, notes_page="",
        segments=_remapped(p.segments, i.segments),
        slot_ms=event.slot_ms, frame=event.frame,
        whole_frame=event.frame if p.whole_length == p.length else "",
        length=p.length + more, whole_length=p.whole_length + more,
        frame_tokens=p.frame_tokens + tokens, whole_tokens=p.whole_tokens + tokens, failures_here=0, given_up=(),
        **routed,
    )  # fmt: skip


def _remapped(mapped: tuple[Mapped, ...], segments: tuple[int, ...]) -> tuple[Mapped, ...]:
    """What a process maps when its program maps these: what it has read of others is known, should they come back."""
    known = {each.segment for each in mapped}
    new = [Mapped(segment, program=True) for segment in segments if segment not in known]
    return (*[replace(each, program=each.segment in segments) for each in mapped], *new)


def _rested(p: Process, event: Rested) -> Process:
    _require(p, p.conversation and p.asking is None and not p.calls, event)
    return replace(
        p, idle=p.interrupted or event.unread or not p.mail, idle_turn=p.turn, tidy=event.tidy, interrupted=False,
        detail=event.detail, failures=0, failures_here=0, refusals=0, given_up=(), retry_ms=0, deferred=False,
        quota=-1, mends=0,
    )  # fmt: skip


_RETURNS = (CallState.IN_FLIGHT, CallState.WAITING, CallState.IN_DOUBT)


def _returned(p: Process, event: Returned) -> Process:
    returns = (*_RETURNS, CallState.PENDING) if p.interrupted else _RETURNS
    _require(p, any(c.id == event.call and c.state in returns for c in p.calls), event)
    calls = tuple(
        replace(c, state=CallState.DONE, page=event.page, on="", due_ms=0) if c.id == event.call else c for c in p.calls
    )
    tool = next(c.tool for c in p.calls if c.id == event.call)
    tainted = p.tainted or (f"a result of {tool}" if event.untrusted else "")
    tokens, mail = p.frame_tokens + event.tokens, p.mail - len(event.messages)
    return _closed(replace(p, calls=calls, frame_tokens=tokens, mail=mail, tainted=tainted))


def _closed(p: Process) -> Process:
    """A turn whose calls are all done is over: their results join the context, in the order of the calls."""
    if not p.calls or any(c.state is not CallState.DONE for c in p.calls):
        return p
    frame = _chained(p, tuple(c.page for c in p.calls))
    return replace(p, calls=(), reply="", length=p.length + len(p.calls), frame=frame)


def _chained(p: Process, pages: tuple[str, ...]) -> str:
    """The frame's hash after these pages have joined it; not known where it was not."""
    return chain(p.frame, pages) if p.frame else ""


def _calls_to(p: Process, event: AnyEvent, ids: tuple[str, ...], before: CallState, after: CallState) -> Process:
    _require(p, sum(c.id in ids and c.state is before for c in p.calls) == len(ids), event)
    step = 1 if after is CallState.IN_FLIGHT else 0
    calls = tuple(replace(c, state=after, attempt=c.attempt + step) if c.id in ids else c for c in p.calls)
    return replace(p, calls=calls)


def _answered(p: Process, event: Answered) -> Process:
    asked = any(c.id in event.calls and c.on == GRANT for c in p.calls)
    p = _calls_to(p, event, event.calls, CallState.WAITING if asked else CallState.IN_DOUBT, CallState.PENDING)
    if not asked:
        return p
    calls = tuple(replace(c, on="", by=event.by) if c.id in event.calls else c for c in p.calls)
    approved = (*p.approved, event.approved) if event.approved else p.approved
    return replace(p, calls=calls, approved=tuple(dict.fromkeys(approved)))


def _signalled(p: Process, signal: str) -> Process:
    match signal:
        case "STOP":
            return replace(p, paused=True)
        case "CONT":
            retry = p.fault == "error"
            return replace(
                p, paused=False, fault="", detail="" if p.fault else p.detail,
                failures=0 if retry else p.failures, failures_here=0 if retry else p.failures_here,
                refusals=0 if retry else p.refusals, mends=0 if retry else p.mends,
                given_up=() if retry else p.given_up,
            )  # fmt: skip
        case "TERM":
            return replace(p, ending=True)
        case "INT":
            return replace(p, interrupted=True)
        case _:
            raise KernelPanic(f"process {p.pid}: signal {signal} has no event")
