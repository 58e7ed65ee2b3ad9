"""The scheduler against its slow reference, and its promises one by one."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.kernel.lane_reference import State, choose_reference

from mains.kernel.bands import BANDS
from mains.kernel.ports import Usage
from mains.kernel.scheduler import Lane
from mains.kernel.waiting import Waiting

PIDS = 12


def waiting(pid: int, tenant: int = 1, band: str = "normal", **others: object) -> Waiting:
    """A call of which a test says only what matters to it."""
    fields = {"program": pid, "input_tokens": 100, "output_tokens": 10, "prefix": ((pid, 100),), **others}
    return Waiting(pid=pid, tenant=tenant, band=band, **fields)  # type: ignore[arg-type]


_TOKENS = st.sampled_from([0, 1, 100, 255, 256, 700, 3_000, 9_000])
_WAITING = st.builds(
    Waiting,
    pid=st.integers(0, PIDS),
    tenant=st.integers(1, 3),
    band=st.sampled_from(BANDS),
    program=st.integers(0, 3),
    input_tokens=_TOKENS,
    output_tokens=st.sampled_from([0, 10, 500, 2_000]),
    prefix=st.lists(st.tuples(st.integers(0, 2), _TOKENS), max_size=4).map(tuple),
    deadline_ms=st.sampled_from([0, 0, 0, 9_000, 30_000, 60_000]),
)
_USAGE = st.none() | st.builds(
    Usage, input_tokens=_TOKENS, cached_tokens=st.just(0), output_tokens=st.sampled_from([0, 10, 500, 4_000])
)
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), _WAITING),
        st.tuples(st.just("add"), _WAITING),
        st.tuples(st.just("choose"), st.integers(0, 60_000)),
        st.tuples(st.just("choose"), st.integers(0, 60_000)),
        st.tuples(st.just("settle"), st.tuples(st.integers(0, PIDS), _USAGE)),
        st.tuples(st.just("end"), st.tuples(st.integers(0, PIDS), _USAGE)),
        st.tuples(st.just("discard"), st.integers(0, PIDS)),
    ),
    max_size=80,
)


def follow(steps: list[tuple[str, object]], lane: Lane, state: State) -> int:
    """Do the same with both; how many choices were made."""
    choices = 0
    for what, value in steps:
        if what == "add":
            assert isinstance(value, Waiting)
            if value.pid not in state.flights:
                lane.add(value)
                state.add(value)
        elif what == "discard":
            assert isinstance(value, int)
            lane.discard(value)
            state.discard(value)
        elif what == "choose":
            assert isinstance(value, int)
            wanted = choose_reference(state, value)
            assert lane.choose(value) == wanted
            if wanted is not None:
                state.take(wanted)
                choices += 1
        else:
            pid, usage = value  # type: ignore[misc]
            for each in (lane, state):
                each.settle(pid, usage)
                if what == "end":
                    each.release(pid)
        assert (len(lane), lane.busy) == (len(state.queue), len(state.flights))
    return choices


@settings(max_examples=400)
@given(
    _STEPS, st.integers(1, 3), st.sampled_from([1, 500, 8_192]), st.sampled_from([(500, 3), (8_000, 6), (10**9, 99)])
)
def test_the_lane_chooses_as_the_reference_does(
    steps: list[tuple[str, object]], slots: int, quantum: int, tree: tuple[int, int]
) -> None:
    lane = Lane(slots, quantum=quantum, prefix_tokens_max=tree[0], prefix_nodes_max=tree[1])
    follow(steps, lane, State(slots, quantum, *tree))
