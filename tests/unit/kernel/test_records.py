"""The process table as a fold of events: every walk keeps to the transition table, and what cannot happen panics."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mains.errors import KernelPanic
from mains.kernel.event import (
    Answered,
    AnyEvent,
    Asked,
    AskFailed,
    Called,
    Doubted,
    Exited,
    Faulted,
    Noted,
    Refused,
    Replied,
    Rerouted,
    Returned,
    Sent,
    Signalled,
    Spawned,
    Woken,
    apply,
)
from mains.kernel.process import TRANSITIONS, Asking, Call, CallState, Process, Route, State, replace, rest

NEWBORN = Process(
    pid=7, name="p", program="a", tree="b", inputs="c", tools="d", accounts=(7, 0), output_tokens_max=100,
    created_ms=1, length=2, whole_length=2, engine="a", model="m", routes=(Route("a", "m"), Route("b", "n")),
)  # fmt: skip
BIRTH = Spawned(process=NEWBORN, context=("s", "u"))
READY = apply(None, BIRTH)


def _asking(hold: int = 1, attempt: int = 1) -> Asked:
    return Asked(asking=Asking(hold, 50, 40, "scripted", attempt))


def _call(number: int, state: CallState, on: str = "", *, parallel: bool = False) -> Call:
    return Call(f"call_{number}", "tool", number, state, on=on, parallel=parallel, page="r" if state == "done" else "")


CALLS = st.lists(
    st.sampled_from([(CallState.PENDING, ""), (CallState.WAITING, "timer"), (CallState.WAITING, "child"),
                     (CallState.WAITING, "message"), (CallState.WAITING, "human"), (CallState.DONE, "")]),
    max_size=4,
)  # fmt: skip


def _ids(p: Process, *states: CallState) -> list[str]:
    return [c.id for c in p.calls if c.state in states]


def _possible(p: Process) -> list[st.SearchStrategy[AnyEvent]]:
    """The events that the kernel might record of this process next."""
    always: list[st.SearchStrategy[AnyEvent]] = [
        st.builds(Sent, message=st.integers(1, 9), page=st.just("m"), sender=st.just("a person"))
    ]
    if p.state is State.EXITED:
        return always
    always += [
        st.builds(Signalled, signal=st.sampled_from(["STOP", "CONT", "TERM"])),
        st.builds(Exited, code=st.integers(0, 255), result=st.sampled_from(["", "r"])),
        st.builds(Woken),
    ]
    if p.asking is not None:
        replied = st.builds(
            lambda made, mended: Replied(
                hold=p.asking.hold if p.asking else 0, posted=9, page="reply", tokens=3, mended=mended,
                calls=tuple(_call(n, state, on) for n, (state, on) in enumerate(made)), input_tokens=5, output_tokens=4,
            ),
            CALLS,
            st.booleans(),
        )  # fmt: skip
        failed = st.builds(
            AskFailed, hold=st.just(p.asking.hold), posted=st.integers(0, 50), reason=st.just("why"),
            retry_ms=st.sampled_from([0, 5]), crashed=st.booleans(),
        )  # fmt: skip
        return [*always, replied, replied, failed]
    always.append(st.builds(Faulted, detail=st.just("broken")))
    if not p.calls:
        always.append(st.builds(Rerouted, index=st.sampled_from([0, 1]), engine=st.just("b"), reason=st.just("down")))
    if pending := _ids(p, CallState.PENDING):
        if p.state in (State.READY, State.RUNNING):
            always.append(st.just(Called(calls=tuple(pending[:1]))))
    elif p.state is State.READY and not p.calls:
        always += [st.just(_asking(p.turn + 1, p.attempts + 1))] * 3
        always.append(st.builds(Refused, quota=st.sampled_from([-1, 0, 7]), wanted=st.just(60), detail=st.just("no")))
    if flying := _ids(p, CallState.IN_FLIGHT):
        always.append(st.just(Doubted(calls=tuple(flying))))
    if doubtful := _ids(p, CallState.IN_DOUBT):
        always.append(st.just(Answered(calls=tuple(doubtful), by="a person")))
    if open_calls := _ids(p, CallState.IN_FLIGHT, CallState.WAITING, CallState.IN_DOUBT):
        always.append(st.builds(Returned, call=st.sampled_from(open_calls), page=st.just("r"), tokens=st.just(2)))
    return always


@st.composite
def walks(draw: st.DrawFn) -> list[AnyEvent]:
    events: list[AnyEvent] = [BIRTH]
    p = READY
    for _ in range(draw(st.integers(0, 25))):
        event = draw(st.one_of(_possible(p)))
        events.append(event)
        p = apply(p, event)
    return events


def _fold(events: list[AnyEvent]) -> list[Process]:
    seen: list[Process] = []
    for event in events:
        seen.append(apply(seen[-1] if seen else None, event))
    return seen


LONG = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@LONG
@given(walks())
def test_every_walk_keeps_to_the_transition_table(events: list[AnyEvent]) -> None:
    before = State.NEW
    for p in _fold(events):
        assert p.state is before or p.state in TRANSITIONS[before]
        assert (p.state, p.reason) == rest(p), "the state is not what the rest of the record says"
        before = p.state


@LONG
@given(walks())
def test_a_walk_folded_twice_and_from_its_json_gives_the_same_records(events: list[AnyEvent]) -> None:
    once = _fold(events)
    written = [msgspec.json.encode(event) for event in events]
    again = _fold([msgspec.json.decode(body, type=AnyEvent) for body in written])
    assert once == again
    assert [msgspec.json.decode(msgspec.json.encode(p), type=Process) for p in once] == once


@LONG
@given(walks())
def test_a_closed_turn_leaves_no_call_and_counts_all_its_results(events: list[AnyEvent]) -> None:
    opened = 0
    before: Process | None = None
    for event, p in zip(events, _fold(events), strict=True):
        if isinstance(event, Replied):
            opened = len(event.calls)
        if isinstance(event, Returned):
            assert before is not None
            assert (p.length - before.length) in (0, opened), "a part of a turn's results joined the context"
            assert (p.length == before.length) == bool(p.calls)
        if p.state is not State.EXITED and p.calls:
            assert p.reply, "open calls, but nothing says which reply made them"
        before = p


@LONG
@given(walks(), st.data())
def test_who_has_exited_never_changes(events: list[AnyEvent], data: st.DataObject) -> None:
    p = apply(_fold(events)[-1], Exited(code=0)) if _fold(events)[-1].state is not State.EXITED else _fold(events)[-1]
    assert p.calls == ()
    assert p.asking is None
    event = data.draw(st.one_of(_possible(READY)))
    if isinstance(event, Sent):
        assert apply(p, event) == p
    else:
        with pytest.raises(KernelPanic, match="exited"):
            apply(p, event)


RUNNING = apply(READY, _asking())
WITH_CALLS = apply(
    RUNNING,
    Replied(
        hold=1, posted=1, page="reply", tokens=1,
        calls=(_call(1, CallState.PENDING), _call(2, CallState.WAITING, "human"), _call(3, CallState.DONE)),
    ),
)  # fmt: skip
IN_FLIGHT = apply(WITH_CALLS, Called(calls=("call_1",)))

IMPOSSIBLE: list[tuple[str, Process | None, AnyEvent]] = [
    ("anything before it was spawned", None, _asking()),
    ("a second birth", READY, BIRTH),
    ("a note about the home", READY, Noted(text="boot")),
    ("a signal that does not exist", READY, Signalled(signal="HUP")),
    ("KILL, which is an exit", READY, Signalled(signal="KILL")),
    ("a second model call beside the first", RUNNING, _asking(2)),
    ("a model call while calls are open", WITH_CALLS, _asking(2)),
    ("a model call of one who is paused", apply(READY, Signalled(signal="STOP")), _asking()),
    ("a model call of one who waits", apply(READY, Refused(quota=0, wanted=1, detail="")), _asking()),
    ("a reply that nobody asked for", READY, Replied(hold=1, posted=1, page="x", tokens=1)),
    ("a reply under another hold", RUNNING, Replied(hold=2, posted=1, page="x", tokens=1)),
    ("a failure of a call that nobody made", READY, AskFailed(hold=1, posted=0, reason="")),
    ("a failure under another hold", RUNNING, AskFailed(hold=2, posted=0, reason="")),
    ("another engine while the call is in flight", RUNNING, Rerouted(index=1, engine="b")),
    ("an engine that is not among its own", READY, Rerouted(index=2, engine="c")),
    ("a device call that the model never made", WITH_CALLS, Called(calls=("call_9",))),
    ("a device call that is in flight already", IN_FLIGHT, Called(calls=("call_1",))),
    ("a device call that waits for a person", WITH_CALLS, Called(calls=("call_2",))),
    ("a result of a call that was never made", WITH_CALLS, Returned(call="call_9", page="x", tokens=1)),
    ("a second result", WITH_CALLS, Returned(call="call_3", page="x", tokens=1)),
    ("a result of a call that was not issued", WITH_CALLS, Returned(call="call_1", page="x", tokens=1)),
    ("a doubt about a call that was not issued", WITH_CALLS, Doubted(calls=("call_1",))),
    ("an answer where there is no doubt", IN_FLIGHT, Answered(calls=("call_1",), by="x")),
]


@pytest.mark.parametrize(("p", "event"), [case[1:] for case in IMPOSSIBLE], ids=[case[0] for case in IMPOSSIBLE])
def test_what_cannot_happen_panics(p: Process | None, event: AnyEvent) -> None:
    with pytest.raises(KernelPanic):
        apply(p, event)


def test_the_table_knows_every_state_and_nothing_leaves_the_last() -> None:
    assert set(TRANSITIONS) == set(State)
    assert TRANSITIONS[State.EXITED] == set()
    assert not any(State.NEW in after for after in TRANSITIONS.values())
    assert [s for s in State if State.RUNNING in TRANSITIONS[s] and s is not State.RUNNING] == [State.READY]


def test_what_stops_a_process_speaks_before_what_it_waits_for() -> None:
    waiting = replace(READY, calls=(_call(1, CallState.WAITING, "human"),))
    assert rest(waiting) == (State.WAITING, "human")
    assert rest(replace(waiting, fault="breaker")) == (State.STOPPED, "breaker")
    doubt = replace(waiting, fault="error", calls=(*waiting.calls, _call(2, CallState.IN_DOUBT)))
    assert rest(doubt) == (State.STOPPED, "in doubt")
    assert rest(replace(doubt, paused=True)) == (State.STOPPED, "paused")
    flying = replace(doubt, paused=True, calls=(*doubt.calls, _call(3, CallState.IN_FLIGHT)))
    assert rest(flying) == (State.RUNNING, "pausing")
    assert rest(replace(flying, exit_code=0)) == (State.EXITED, "")


def test_resuming_after_an_error_gives_a_fresh_retry_budget_and_after_a_pause_it_does_not() -> None:
    tired = replace(READY, failures=3, mends=2, fault="error", detail="why", state=State.STOPPED, reason="error")
    fresh = apply(tired, Signalled(signal="CONT"))
    assert (fresh.failures, fresh.mends, fresh.fault, fresh.state) == (0, 0, "", State.READY)
    paused = replace(READY, failures=3, paused=True, state=State.STOPPED, reason="paused")
    assert apply(paused, Signalled(signal="CONT")).failures == 3
