"""The simulation can fail: each of ten planted bugs breaks a rule, and the story is cut down to what matters."""

from __future__ import annotations

import pytest
from tests.sim.mutations import PLANTS, planted

from mains.testing import RuleBroken, Simulation
from mains.testing.shrink import shrunk

SEEDS_MAX = 1_000
"""Within so many seeds each must be caught; all ten are caught by one of the first three."""


def _caught() -> RuleBroken | None:
    for seed in range(SEEDS_MAX):
        try:
            Simulation(seed).run()
        except RuleBroken as broken:
            return broken
    return None


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_bug_is_caught(name: str) -> None:
    with planted(name):
        broken = _caught()
    assert broken is not None, f"{name}: no rule broke in {SEEDS_MAX} seeds"
    Simulation(broken.seed, broken.plan).run()  # the rule breaks because of the bug, and of nothing else


@pytest.mark.timeout(600)
def test_a_failing_seed_replays_exactly_and_shrinks_to_a_short_story() -> None:
    with planted("drop_a_message"):
        first, again = _caught(), _caught()
        assert first is not None and again is not None
        assert first.told(10_000) == again.told(10_000)
        small = shrunk(first)
        assert small.rule == first.rule
        assert len(small.plan.actions) <= 10
        assert len(small.story) <= 100
        told = small.told()
    assert told.startswith(f"seed {first.seed} breaks the rule: {first.rule}\n   1 ")
    assert told.splitlines()[-1].strip() == f"=> {small.rule}: {small.detail}"
