"""Seeds: the whole kernel against everything that can go wrong, and the rules hold."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mains.testing import RuleBroken, Simulation
from mains.testing.shrink import shrunk

CHUNK = 25
"""Seeds of one test: small enough that two workers end together."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`--seeds N` seeds from `--seed S` on, in chunks."""
    if "first" in metafunc.fixturenames:
        start, seeds = metafunc.config.option.seed, metafunc.config.option.seeds
        metafunc.parametrize("first", range(start, start + seeds, CHUNK))


def check(seed: int) -> Simulation:
    """Run a seed; when a rule breaks, fail with the shortest story that breaks it."""
    simulation = Simulation(seed)
    try:
        simulation.run()
    except RuleBroken as broken:
        pytest.fail(shrunk(broken).told(), pytrace=False)
    return simulation


@pytest.mark.timeout(600)
def test_the_rules_hold(first: int, pytestconfig: pytest.Config) -> None:
    end = pytestconfig.option.seed + pytestconfig.option.seeds
    for seed in range(first, min(first + CHUNK, end)):
        check(seed)


def test_a_seed_has_processes_steps_and_crashes() -> None:
    ran = [check(seed) for seed in range(20)]
    assert min(simulation.processes for simulation in ran) >= 5
    assert min(len(simulation.plan.actions) for simulation in ran) >= 200
    assert min(simulation.crashes for simulation in ran) >= 2


_HASH = "from mains.testing import Simulation; print(*[Simulation(seed).run().hash for seed in range(4)])"


def test_a_seed_tells_the_same_story_in_any_process() -> None:
    """Also where strings have other hashes, and objects lie elsewhere in memory."""
    told = {" ".join(Simulation(seed).run().hash for seed in range(4))}
    for number in ("0", "1"):
        ran = subprocess.run(
            [sys.executable, "-c", _HASH],
            env=os.environ | {"PYTHONHASHSEED": number, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        told.add(ran.stdout.strip())
    assert len(told) == 1
