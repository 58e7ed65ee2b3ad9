"""Which engine of several a call goes to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mains.kernel.routing import Candidate, choose, score


def test_the_product_decides() -> None:
    busy, idle = Candidate(0, 1_000, 3_000, 1), Candidate(1, 1_000, 0, 5)
    assert (score(busy), score(idle)) == (8_000, 6_000)
    assert choose([busy, idle]).index == 1


def test_a_warm_prompt_keeps_a_process_where_it_is_until_the_queue_is_worse() -> None:
    def warm(queued: int) -> Candidate:
        return Candidate(0, 300, queued, 0)

    cold = Candidate(1, 1_000, 0, 0)
    assert choose([warm(0), cold]).index == 0
    assert choose([warm(699), cold]).index == 0
    assert choose([warm(701), cold]).index == 1


def test_nothing_to_read_is_still_a_call() -> None:
    assert choose([Candidate(0, 0, 0, 3), Candidate(1, 0, 0, 2)]).index == 1
    assert choose([Candidate(0, 0, 0, 1), Candidate(1, 30, 0, 0)]).index == 1, "a small prompt is soon read elsewhere"


def test_one_that_has_just_failed_this_call_is_taken_when_there_is_no_other() -> None:
    failed = Candidate(0, 1, 0, 0, failed=True)
    assert choose([failed, Candidate(1, 9_999, 0, 9)]).index == 1
    assert choose([failed, Candidate(1, 1, 0, 0, opens_ms=5)]).index == 0


def test_of_equals_the_first_whatever_the_order() -> None:
    assert choose([Candidate(2, 5, 5, 1), Candidate(1, 5, 5, 1)]).index == 1


def test_one_that_cannot_take_it_is_left_out_while_another_can() -> None:
    closed, full = Candidate(0, 1, 0, 0, opens_ms=5), Candidate(1, 9_999, 9_999, 9)
    assert choose([closed, full]).index == 1
    assert choose([Candidate(0, 1, 0, 0, down=True), full]).index == 1
    later = Candidate(1, 1, 0, 0, opens_ms=4)
    assert choose([closed, later]).index == 1
    assert choose([Candidate(0, 1, 0, 0, down=True), closed]).opens_ms == 5


def test_there_must_be_one() -> None:
    with pytest.raises(ValueError, match="empty"):
        choose([])


@given(st.lists(st.builds(Candidate, st.integers(0, 9), st.integers(0, 99), st.integers(0, 99), st.integers(0, 9)),
                min_size=1, max_size=8), st.randoms())  # fmt: skip
def test_the_order_in_which_they_are_named_means_nothing(candidates: list[Candidate], chance: object) -> None:
    shuffled = sorted(candidates, key=lambda _: chance.random())  # type: ignore[attr-defined]
    first, second = choose(candidates), choose(shuffled)
    assert (first.index, score(first)) == (second.index, score(second))
