"""The grinder: random valid and invalid syscalls and orders. Only clean errors come out, and the rules hold."""

from __future__ import annotations

import pytest

from mains.testing import RuleBroken, Simulation
from mains.testing.plan import plan_of
from mains.testing.shrink import shrunk

CHUNK = 10
SEEDS = 60


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_junk_comes_back_as_clean_errors(first: int, pytestconfig: pytest.Config) -> None:
    seeds = CHUNK * (20 if pytestconfig.option.torture else 1)
    for number in range(seeds):
        seed = pytestconfig.option.seed + first * 100 + number
        try:
            Simulation(seed, plan_of(seed, grind=True)).run()
        except RuleBroken as broken:
            pytest.fail(shrunk(broken).told(), pytrace=False)


def test_the_grinder_grinds() -> None:
    """Most of what it asks for is refused, and the model is told so."""
    simulation = Simulation(5, plan_of(5, grind=True))
    story = simulation.run()
    refused = [line for line in story.lines if "Error: " in line]
    assert len(refused) > 20
    assert {line.split("): ")[1].split(":")[0] for line in refused if "): " in line} >= {"NotFoundError", "UsageError"}
