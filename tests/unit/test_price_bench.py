"""What recorded runs cost under each policy: small runs by hand, and the real planner on some of the recorded ones."""

from __future__ import annotations

import pytest
from bench import price
from bench.remedies import OUTPUT, Everything, Mains, Placeholder, Sliding, Summarise
from bench.replay import CALL, INSTRUCTION, Bill, Frame, Item, Policy, Run, Step, replay, runs

from mains.kernel.eviction import DEFAULT

WIDE = 1_000_000


def life(*results: int, opening: int = 100) -> Run:
    return Run(opening, 0, (Step(0, 0, 20), *(Step(20, tokens, 20) for tokens in results)))


def billed(run: Run, policy: Policy) -> Bill:
    bill = Bill()
    replay(bill, run, policy)
    return bill


def test_a_full_history_by_hand() -> None:
    """100 read; then 100 kept and 70 read; then 170 kept and 70 read. Each turn 20 tokens are written."""
    bill = billed(life(50, 50), Everything(life(), WIDE))
    assert (bill.sent, bill.read, bill.turns) == (100 + 170 + 240, 240, 3)
    assert (bill.input, bill.output) == (270 + 10 * 240, 3 * 20 * 50)
    assert bill.stability == 1.0


def test_what_changed_and_all_behind_it_is_read_again() -> None:
    before = [Item(-1, "opening", 100), Item(1, "result", 50), Item(2, "reply", 20)]
    after = [before[0], Item(1, "stub", 30), before[2]]
    bill = Bill()
    bill.turn(life(), before, Frame(after), 0)
    assert (bill.sent, bill.read, bill.stability) == (150, 50, 0.0)


def test_a_call_that_does_not_extend_the_last_one_begins_a_run() -> None:
    assert sum(len(run.steps) for run in runs("miniswe")) == 402
    assert len(runs("miniswe")) == 20
    assert len(runs("magagent")) == 25 + 404
    for run in runs("taubench"):
        assert all(step.reply >= 0 and step.result >= 0 for step in run.steps)


def test_the_rivals_do_what_they_are_called() -> None:
    run = life(*[300] * 12)
    for make in (Sliding, Summarise):
        policy = make(run, OUTPUT + 1_500)
        bill = billed(run, policy)
        assert bill.misfits == 0
        assert bill.stability < 1.0
    assert billed(run, Everything(run, OUTPUT + 1_500)).misfits > 0
    line = Placeholder(run, WIDE)
    billed(run, line)
    assert [result.form for _, result in line.steps] == ["line"] * 7 + ["result"] * 5
    summarised = billed(run, Summarise(run, OUTPUT + 1_500))
    assert summarised.summaries > 0


def test_a_summary_is_billed() -> None:
    run = life(*[300] * 4)
    bill = billed(run, Summarise(run, OUTPUT + 1_600))
    frames = 100 + 420 + 740 + 1_060 + (100 + 400 + 640)
    call = 100 + 640 + INSTRUCTION
    assert bill.summaries == 1
    assert bill.sent == frames + call
    assert bill.output == (5 * 20 + 400) * 50


def test_a_first_view_bounds_what_enters() -> None:
    full, bounded = (billed(life(2_000, 2_000), Everything(life(), WIDE, view)) for view in (0, 500))
    assert full.read - bounded.read == 2 * (2_000 - 560)


def test_what_was_evicted_or_hidden_can_be_read_back() -> None:
    run = life(*[2_000] * 12)
    policy = DEFAULT._replace(share=1.0)
    hidden = billed(run, Mains(run, WIDE, policy, view=500, back=1.0))
    assert hidden.faults == 11  # what the last turn shows is not missed before the end
    assert hidden.turns == 13 + 11
    assert hidden.sent > billed(run, Mains(run, WIDE, policy, view=500)).sent
    evicted = billed(run, Mains(run, OUTPUT + 8_000, policy, back=1.0))
    assert evicted.faults > 0
    assert evicted.misfits == 0
    written = 13 * 20 + evicted.faults * CALL + evicted.summaries * policy.summary_tokens
    assert evicted.output == written * 50


def test_the_planner_is_cheaper_than_the_full_history_and_keeps_the_prefix() -> None:
    """Some of the recorded runs; the whole of them is `python -m bench price`."""
    chosen = runs("miniswe")[:8]
    full = price.bill(chosen, WIDE, price.RIVALS["full history"])
    mains = price.bill(chosen, price.MIDDLE, price.mains(price.VIEW))
    assert mains.input < 0.9 * full.input
    assert mains.stability > 0.93
    assert mains.misfits == 0


@pytest.mark.parametrize("back", [0.0, 0.3])
def test_the_same_seed_gives_the_same_bill(back: float) -> None:
    chosen = runs("miniswe")[:8]
    one, other = (price.bill(chosen, 8_000, price.mains(price.VIEW, back, seed=3)) for _ in range(2))
    assert vars(one) == vars(other)
