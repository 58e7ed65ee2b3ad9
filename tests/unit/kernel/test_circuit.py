"""The circuit of an engine: when it opens, and the one probe that closes it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mains.kernel.circuit import Circuit


def circuit(failures: int = 3, calls: int = 10, open_ms: int = 1_000, open_max_ms: int = 8_000) -> Circuit:
    return Circuit(failures=failures, calls=calls, failed_percent=50, open_ms=open_ms, open_max_ms=open_max_ms)


def fail(it: Circuit, pid: int, now_ms: int, *, final: bool = False) -> None:
    it.sent(pid)
    it.failed(pid, now_ms, "down", final=final)


def opened(*, final: bool = False) -> Circuit:
    it = circuit()
    for pid in range(3):
        fail(it, pid, 0, final=final)
    assert not it.closed
    return it


def test_failures_in_a_row_open_it_and_a_success_breaks_the_row() -> None:
    it = circuit()
    fail(it, 1, 0)
    fail(it, 2, 0)
    it.sent(3)
    it.succeeded(3)
    fail(it, 4, 0)
    fail(it, 5, 0)
    assert it.opens_ms() is None
    fail(it, 6, 0)
    assert not it.closed
    assert it.why == "down"


def test_half_of_the_last_calls_open_it_without_a_row() -> None:
    it = circuit(failures=99)
    for pid in range(0, 18, 2):
        it.sent(pid)
        it.succeeded(pid)
        fail(it, pid + 1, 0)
        assert it.closed == (pid < 8)
        if not it.closed:
            return


def test_the_open_time_doubles_up_to_its_bound_and_begins_anew() -> None:
    it, now_ms, spans = opened(), 0, []
    for _ in range(6):
        until_ms = it.opens_ms()
        assert until_ms is not None
        spans.append(until_ms - now_ms)
        assert not it.allows(until_ms - 1)
        assert it.allows(until_ms)
        now_ms = until_ms
        fail(it, 9, now_ms)
    assert spans == [1_000, 2_000, 4_000, 8_000, 8_000, 8_000]
    now_ms = it.opens_ms() or 0
    it.sent(10)
    it.succeeded(10)
    assert it.closed
    for pid in range(3):
        fail(it, pid, now_ms)
    assert it.opens_ms() == now_ms + 1_000


@given(
    st.lists(
        st.tuples(st.integers(0, 3_000), st.sampled_from(["ask", "served", "failed", "gone"]), st.integers(0, 5)),
        max_size=120,
    )
)
def test_a_circuit_that_is_not_closed_lets_one_probe_through(steps: list[tuple[int, str, int]]) -> None:
    """Whatever ends in whatever order: while it is not closed, at most one call that left since is in flight."""
    it, now_ms, pid = circuit(), 0, 100
    flying: list[int] = []
    probe: int | None = None
    for span_ms, what, which in steps:
        now_ms += span_ms
        if what == "ask":
            if not it.allows(now_ms):
                assert not it.closed
                assert it.down(now_ms)
                continue
            pid += 1
            if not it.closed:
                assert probe not in flying
                probe = pid
            it.sent(pid)
            flying.append(pid)
        elif flying:
            each = flying.pop(which % len(flying))
            was_closed = it.closed
            match what:
                case "served":
                    it.succeeded(each)
                    assert it.closed == (was_closed or each == probe)
                case "failed":
                    it.failed(each, now_ms, "down", final=False)
                    assert was_closed or not it.closed
                case _:
                    it.gone(each)
                    assert it.closed == was_closed


def test_a_probe_that_was_broken_off_makes_room_for_the_next() -> None:
    it = opened()
    it.sent(7)
    assert not it.allows(5_000)
    it.gone(7)
    assert it.allows(5_000)


def test_what_left_before_it_opened_says_nothing_of_now() -> None:
    it = circuit()
    for pid in range(5):
        it.sent(pid)
    for pid in range(3):
        it.failed(pid, 0, "down", final=False)
    it.succeeded(3)
    it.failed(4, 500, "down", final=False)
    assert it.opens_ms() == 1_000


def test_an_engine_that_waiting_does_not_mend_is_down_and_holds_nobody_back() -> None:
    it = opened(final=True)
    assert it.down(0)
    assert it.opens_ms() is None
    assert it.allows(0)
    it.sent(7)
    it.sent(8)
    it.succeeded(8)
    assert it.closed
