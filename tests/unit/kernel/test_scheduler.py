"""The scheduler against a simple reference, and its promises."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mains.kernel.scheduler import BANDS, Lane

_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 20), st.sampled_from(BANDS)),
        st.tuples(st.just("discard"), st.integers(0, 20), st.just("")),
        st.tuples(st.just("choose"), st.just(0), st.just("")),
        st.tuples(st.just("release"), st.just(0), st.just("")),
    ),
    max_size=120,
)


@given(_STEPS, st.integers(1, 4))
def test_the_lane_does_what_the_reference_does(steps: list[tuple[str, int, str]], slots: int) -> None:
    lane = Lane(slots)
    queue: list[tuple[int, str]] = []  # (pid, band), in the order of arrival
    busy, choices = 0, 0
    for what, pid, band in steps:
        if what == "add":
            lane.add(pid, band)
            if pid not in [each for each, _ in queue]:
                queue.append((pid, band))
        elif what == "discard":
            lane.discard(pid)
            queue = [each for each in queue if each[0] != pid]
        elif what == "release" and busy:
            lane.release()
            busy -= 1
        elif what == "choose":
            wanted = None
            if queue and busy < slots:
                choices += 1
                best = queue[0] if choices % 8 == 0 else min(queue, key=lambda each: BANDS.index(each[1]))
                queue.remove(best)
                busy += 1
                wanted = best[0]
            assert lane.choose(0) == wanted
        assert len(lane) == len(queue)


def test_batch_work_never_starves() -> None:
    lane = Lane(1)
    lane.add(0, "batch")
    for pid in range(1, 20):
        lane.add(pid, "interactive")
        if lane.choose(0) == 0:
            return
        lane.release()
    raise AssertionError("batch never came up")


def test_a_closed_lane_chooses_nobody_until_its_time() -> None:
    lane = Lane(1)
    lane.add(1, "normal")
    lane.closed_until_ms = 500
    assert lane.choose(499) is None
    assert lane.choose(500) == 1
