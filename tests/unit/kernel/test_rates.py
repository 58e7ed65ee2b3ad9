"""Rates of a backend: budgets, what it says is left, concurrency, Retry-After."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mains import Settings
from mains.errors import Allowance, RateLimits
from mains.kernel.ports import Usage
from mains.kernel.rates import WINDOW_MS, Rates
from mains.kernel.waiting import Waiting

SETTINGS = Settings()


def waiting(pid: int = 1, input_tokens: int = 10, output_tokens: int = 5) -> Waiting:
    return Waiting(pid, 0, "normal", pid, input_tokens, output_tokens)


def rates(slots: int = 8, *, rpm: int = 0, tpm: int = 0) -> Rates:
    return Rates(slots, SETTINGS, rpm=rpm, tpm=tpm)


def send(lane: Rates, pid: int, now_ms: int, *, input_tokens: int = 10, output_tokens: int = 5) -> Waiting:
    call = waiting(pid, input_tokens, output_tokens)
    assert lane.allows(call, now_ms)
    lane.dispatched(call, now_ms)
    return call


# ---------------------------------------------------------------------------------------------------- budgets


@given(
    rpm=st.integers(1, 12),
    tpm=st.integers(1, 400),
    steps=st.lists(st.tuples(st.integers(0, 40_000), st.integers(1, 300), st.integers(0, 300)), max_size=80),
)
def test_no_minute_holds_more_than_the_budgets(rpm: int, tpm: int, steps: list[tuple[int, int, int]]) -> None:
    lane, now_ms = rates(rpm=rpm, tpm=tpm), 0
    sent: list[tuple[int, int]] = []
    for pid, (span_ms, tokens, used) in enumerate(steps):
        now_ms += span_ms
        call = waiting(pid, tokens, 0)
        if not lane.allows(call, now_ms):
            opens_ms = lane.next_ms(call, now_ms)
            assert opens_ms is not None
            assert opens_ms > now_ms
            assert not lane.allows(call, opens_ms - 1)
            assert lane.allows(call, opens_ms)
            now_ms = opens_ms
        lane.dispatched(call, now_ms)
        used = min(used, tokens)  # an engine that reports no more than the estimate
        lane.succeeded(pid, Usage(used, 0, 0), None, now_ms)
        sent.append((now_ms, min(used, tpm)))
    for at_ms, _ in sent:
        within = [tokens for then_ms, tokens in sent if at_ms <= then_ms < at_ms + WINDOW_MS]
        assert len(within) <= rpm
        assert sum(within) <= tpm


def test_an_estimate_is_corrected_by_what_was_used() -> None:
    lane = rates(tpm=100)
    send(lane, 1, 0, input_tokens=60, output_tokens=40)
    assert not lane.allows(waiting(2), 0)
    lane.succeeded(1, Usage(60, 0, 10), None, 5)
    assert lane.allows(waiting(2, 10, 20), 5)
    assert not lane.allows(waiting(2, 10, 21), 5)


def test_a_call_larger_than_the_whole_budget_waits_for_a_free_minute_and_goes() -> None:
    lane = rates(tpm=100)
    send(lane, 1, 0, input_tokens=10)
    lane.succeeded(1, Usage(10, 0, 0), None, 10)
    giant = waiting(2, 5_000, 1)
    assert not lane.allows(giant, 10)
    assert lane.next_ms(giant, 10) == WINDOW_MS
    assert lane.allows(giant, WINDOW_MS)


def test_a_call_that_was_not_made_costs_nothing() -> None:
    lane = rates(rpm=1, tpm=20)
    send(lane, 1, 0)
    lane.withdrawn(1, 0)
    send(lane, 2, 0)
    lane.gone(2)  # it was made, and nobody knows how it went
    lane.withdrawn(2, 0)
    assert not lane.allows(waiting(3), 0)


# ------------------------------------------------------------------------------------- what the backend says


def test_what_is_left_is_believed_and_fills_steadily() -> None:
    lane = rates()
    send(lane, 1, 0)
    lane.succeeded(1, None, RateLimits(requests=Allowance(60, 1, 59_000)), 1_000)
    send(lane, 2, 1_000)
    assert not lane.allows(waiting(3), 1_000)
    assert lane.next_ms(waiting(3), 1_000) == 2_000  # 59 in 59 s
    send(lane, 3, 2_000)
    assert not lane.allows(waiting(4), 2_500)


def test_a_fixed_window_gives_nothing_before_its_end() -> None:
    lane = rates()
    send(lane, 1, 0)
    lane.succeeded(1, None, RateLimits(requests=Allowance(50, 0, 30_000, steady=False)), 0)
    assert lane.next_ms(waiting(2), 10_000) == 30_000
    assert not lane.allows(waiting(2), 29_999)
    for pid in range(2, 10):
        send(lane, pid, 30_000)


def test_calls_that_left_after_an_answer_s_call_may_not_be_counted_in_it() -> None:
    lane = rates()
    send(lane, 1, 0)
    send(lane, 2, 1)
    lane.succeeded(1, None, RateLimits(requests=Allowance(10, 2, 60_000, steady=False)), 10)
    send(lane, 3, 10)  # two are left, and one of them is the call in flight
    assert not lane.allows(waiting(4), 10)


def test_a_long_answer_does_not_bring_back_what_was_left_when_it_began() -> None:
    """Its headers came with its first byte, before the others; it is over after them."""
    lane = rates()
    for pid in range(3):
        send(lane, pid, 0)
    for pid, left in ((1, 1), (2, 0)):
        lane.succeeded(pid, None, RateLimits(requests=Allowance(50, left, 60_000, steady=False)), 1_000)
    lane.succeeded(0, None, RateLimits(requests=Allowance(50, 49, 60_000, steady=False)), 40_000)
    assert not lane.allows(waiting(9), 40_000)
    assert lane.allows(waiting(9), 61_000)


def test_a_late_answer_that_says_less_is_believed() -> None:
    lane = rates()
    for pid in range(2):
        send(lane, pid, 0)
    lane.succeeded(1, None, RateLimits(requests=Allowance(50, 20, 60_000, steady=False)), 1_000)
    lane.succeeded(0, None, RateLimits(requests=Allowance(50, 0, 60_000, steady=False)), 2_000)
    assert not lane.allows(waiting(9), 3_000)


def test_input_and_output_have_allowances_of_their_own() -> None:
    lane = rates()
    send(lane, 1, 0)
    said = RateLimits(
        input_tokens=Allowance(1_000, 500, 60_000, steady=False), output_tokens=Allowance(100, 20, 60_000, steady=False)
    )
    lane.succeeded(1, None, said, 0)
    assert lane.allows(waiting(2, 500, 20), 0)
    assert not lane.allows(waiting(2, 501, 20), 0)
    assert not lane.allows(waiting(2, 500, 21), 0)
    assert lane.allows(waiting(2, 5, 5), 0)


@pytest.mark.parametrize(
    "allowance", [Allowance(0, 0, 0), Allowance(-1, -1, 0), Allowance(5, 9, 0), Allowance(5, 5, 0)]
)
def test_nonsense_and_fullness_hold_nobody_up(allowance: Allowance) -> None:
    lane = rates()
    send(lane, 1, 0)
    lane.succeeded(1, None, RateLimits(requests=allowance), 0)
    assert lane.allows(waiting(2), 0)


# ------------------------------------------------------------------------------------------------ concurrency


@given(
    slots=st.integers(1, 40),
    outcomes=st.lists(st.sampled_from(["served", "refused", "failed", "gone", "answered"]), max_size=200),
)
def test_concurrency_stays_between_one_and_the_slots(slots: int, outcomes: list[str]) -> None:
    lane, now_ms = rates(slots), 0
    for pid, outcome in enumerate(outcomes):
        call = waiting(pid)
        if not lane.allows(call, now_ms):
            opens_ms = lane.next_ms(call, now_ms)
            assert opens_ms is not None  # nothing is in flight: time alone opens it
            now_ms = opens_ms
        lane.dispatched(call, now_ms)
        match outcome:
            case "served":
                lane.succeeded(pid, Usage(10, 0, 5), None, now_ms)
            case "refused":
                lane.refused(pid, 0.0, None, now_ms)
            case "failed":
                lane.failed(pid, now_ms, "down", final=False)
            case "gone":
                lane.gone(pid)
            case _:
                lane.answered(pid, now_ms)
        assert 1 <= lane.slots_now <= slots


def test_one_overload_halves_once_however_many_were_in_flight() -> None:
    lane = rates(16)
    for pid in range(16):
        send(lane, pid, 0)
    for pid in range(16):
        lane.refused(pid, 0.0, None, 5)
    assert lane.slots_now == 8


@dataclass
class Upstream:
    """A backend that takes so many calls at once, and refuses the others without a word about when."""

    takes: int
    busy: int = 0
    refused: int = 0
    flying: list[tuple[int, bool]] = field(default_factory=list)  # pid, taken

    def ask(self, pid: int) -> None:
        taken = self.busy < self.takes
        self.busy += taken
        self.refused += not taken
        self.flying.append((pid, taken))


@pytest.mark.parametrize("takes", [1, 3, 6, 12])
def test_concurrency_converges_to_what_the_backend_takes(takes: int) -> None:
    lane, upstream, now_ms, pid = rates(24), Upstream(takes), 0, 0
    seen: list[int] = []
    for step in range(600):
        now_ms += 1_000
        while len(upstream.flying) < lane.slots_now and lane.allows(waiting(pid), now_ms):
            lane.dispatched(waiting(pid), now_ms)
            upstream.ask(pid)
            pid += 1
        if step >= 300:
            seen.append(lane.slots_now)
        flying, upstream.flying = upstream.flying, []
        for each, taken in flying:
            if taken:
                upstream.busy -= 1
                lane.succeeded(each, None, None, now_ms)
            else:
                lane.refused(each, 0.0, None, now_ms)
    assert max(seen) <= takes + 2
    assert sum(seen) / len(seen) >= max(1, takes / 2)
    assert upstream.refused / pid < 0.5


# ---------------------------------------------------------------------------------------------- Retry-After


@given(
    wishes=st.lists(st.tuples(st.floats(0.001, 900), st.integers(0, 5_000)), min_size=1, max_size=8),
    asks=st.lists(st.integers(0, 1_000_000), min_size=1, max_size=20),
)
def test_a_retry_after_is_respected(wishes: list[tuple[float, int]], asks: list[int]) -> None:
    lane = rates(16)
    for pid in range(len(wishes)):
        send(lane, pid, 0)
    now_ms, until_ms = 0, 0
    for pid, (wish_s, span_ms) in enumerate(wishes):
        now_ms += span_ms
        lane.refused(pid, wish_s, None, now_ms)
        until_ms = max(until_ms, now_ms + min(round(wish_s * 1_000), SETTINGS.retry_after_ceiling_ms))
    assert lane.closed_until_ms(now_ms) == until_ms
    for ask_ms in sorted(now_ms + ask for ask in asks):
        assert lane.allows(waiting(99), ask_ms) == (ask_ms >= until_ms)


def test_refusals_without_a_time_close_it_for_longer_and_longer() -> None:
    lane, now_ms, spans = rates(4), 0, []
    for pid in range(10):
        send(lane, pid, now_ms)
        lane.refused(pid, 0.0, None, now_ms)
        spans.append(lane.closed_until_ms(now_ms) - now_ms)
        now_ms += spans[-1]
    assert spans == [500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]
    send(lane, 99, now_ms)
    lane.succeeded(99, None, None, now_ms)
    send(lane, 100, now_ms)
    lane.refused(100, 0.0, None, now_ms)
    assert lane.closed_until_ms(now_ms) == now_ms + 500


def test_a_clock_that_goes_back_moves_the_times_with_it() -> None:
    lane, day_ms = rates(rpm=1), 86_400_000
    send(lane, 1, 10 * day_ms)
    lane.refused(1, 30.0, None, 10 * day_ms)
    assert lane.closed_until_ms(9 * day_ms) == 9 * day_ms + 30_000
    assert not lane.allows(waiting(2), 9 * day_ms + 30_000)
    assert lane.next_ms(waiting(2), 9 * day_ms + 30_000) == 9 * day_ms + WINDOW_MS
    assert lane.allows(waiting(2), 9 * day_ms + WINDOW_MS)


def test_health_says_for_how_long_a_limit_keeps_everybody_waiting() -> None:
    lane = rates(rpm=1)
    assert lane.health(0) == ""
    send(lane, 1, 0)
    assert lane.health(500) == "no call for 60 s: its rate limit"
    assert lane.health(WINDOW_MS) == ""
    lane = rates()
    send(lane, 1, 0)
    lane.succeeded(1, None, RateLimits(requests=Allowance(2, 0, 4_000)), 0)
    assert lane.health(0) == "no call for 2 s: its rate limit"
    assert lane.health(2_000) == ""
