"""The gate of a lane: calls a minute, tokens a minute, what a backend says, concurrency, and the circuit breaker."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mains import Settings
from mains.kernel.ratelimits import RateLimits
from mains.kernel.rates import MINUTE_MS, Rates
from mains.kernel.waiting import Waiting

SETTINGS = Settings(breaker_failures=3, breaker_open_ms=1_000, breaker_open_ceiling_ms=4_000)


def ask(pid: int, tokens: int = 100) -> Waiting:
    return Waiting(pid, 1, "normal", pid, tokens, 0)


def rates(slots: int = 8, rpm: int = 0, tpm: int = 0) -> Rates:
    return Rates(slots, rpm, tpm, SETTINGS)


@given(
    steps=st.lists(st.tuples(st.integers(0, 30_000), st.integers(1, 700)), max_size=60),
    rpm=st.integers(1, 6),
    tpm=st.integers(100, 2_000),
)
def test_no_minute_has_more_than_its_calls_and_tokens(steps: list[tuple[int, int]], rpm: int, tpm: int) -> None:
    gate, now_ms, sent = rates(1_000, rpm, tpm), 0, list[tuple[int, int]]()
    for pid, (wait_ms, tokens) in enumerate(steps):
        now_ms += wait_ms
        call = ask(pid, tokens)
        if gate.allows(call, now_ms):
            gate.dispatched(call, now_ms)
            sent.append((now_ms, tokens))
        else:
            at_ms = gate.next_ms(call, now_ms)
            assert at_ms > now_ms
            assert gate.allows(call, at_ms), "when it said that it may leave, it may"
    for start_ms, _ in sent:
        minute = [tokens for at_ms, tokens in sent if start_ms <= at_ms < start_ms + MINUTE_MS]
        assert len(minute) <= rpm
        assert len(minute) == 1 or sum(minute) <= tpm


@given(outcomes=st.lists(st.sampled_from(["answer", "refuse", "fail"]), max_size=200), slots=st.integers(1, 16))
def test_concurrency_stays_between_one_and_the_slots(outcomes: list[str], slots: int) -> None:
    gate = rates(slots)
    for now_ms, outcome in enumerate(outcomes):
        gate.dispatched(ask(now_ms), now_ms)
        match outcome:
            case "answer":
                gate.answered(None, now_ms)
            case "refuse":
                gate.refused(now_ms, None, now_ms)
            case _:
                gate.failed(now_ms)
        gate.ended(now_ms, made=True)
        assert 1 <= gate.concurrency <= slots


def test_calls_that_were_refused_together_halve_it_once_and_answers_bring_it_back() -> None:
    gate = rates(8)
    for pid in range(8):
        gate.dispatched(ask(pid), 0)
    for pid in range(8):
        gate.refused(pid, None, 10)
        gate.ended(pid, made=True)
    assert gate.concurrency == 4
    gate.dispatched(ask(9), 20)
    gate.refused(9, None, 30)
    gate.ended(9, made=True)
    assert gate.concurrency == 2
    for now_ms in range(40, 100):
        gate.answered(None, now_ms)
    assert gate.concurrency == 8


def test_a_call_that_was_never_made_has_not_left() -> None:
    gate = rates(8, rpm=1)
    gate.dispatched(ask(1), 0)
    assert not gate.allows(ask(2), 1)
    gate.ended(1, made=False)
    assert gate.allows(ask(2), 1)


def test_what_a_backend_says_is_left_counts_until_it_is_whole() -> None:
    gate = rates()
    gate.answered(RateLimits(requests_left=1, requests_reset_ms=500), 0)
    assert gate.allows(ask(1), 0)
    gate.dispatched(ask(1), 0)
    assert not gate.allows(ask(2), 0)
    assert gate.next_ms(ask(2), 0) == 500
    assert gate.allows(ask(2), 500)
    gate.answered(RateLimits(tokens_max=1_000, tokens_left=50, tokens_reset_ms=2_000), 1_000)
    assert gate.allows(ask(3, 50), 1_000)
    assert gate.next_ms(ask(3, 51), 1_000) == 3_000


def test_the_breaker_opens_lets_one_probe_through_and_doubles_its_time() -> None:
    gate = rates(8)
    for now_ms in range(3):
        gate.failed(now_ms)
    assert gate.is_open
    assert gate.next_ms(ask(1), 2) == 1_002
    assert gate.allows(ask(1), 1_002)
    gate.dispatched(ask(1), 1_002)
    assert not gate.allows(ask(2), 1_002), "one probe, and no more"
    gate.failed(1_100)
    gate.ended(1, made=True)
    assert gate.open_until_ms == 3_100
    for _ in range(5):
        gate.failed(4_000)
    assert gate.open_until_ms == 8_000, "the time has a ceiling"
    gate.answered(None, 9_000)
    assert [gate.is_open, gate.allows(ask(2), 9_000)] == [False, True]
