"""Real `kill -9` of a kernel whose processes share a small account, at an engine that behaves badly: no overshoot."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from bench import overshoot
from bench.overshoot import FULL, Size

pytestmark = [pytest.mark.crash, pytest.mark.timeout(1_200)]
SHORT = Size(processes=6, calls=4, kills=2)


def test_an_empty_account_stops_everybody_and_a_topup_lets_them_go_on(tmp_path: Path) -> None:
    empty, ended = overshoot.one_account(tmp_path, Size(processes=6, calls=3, kills=0))
    for outcome in (empty, ended):
        assert outcome.faults == []
        assert outcome.told.wrong == []
    assert 0 < empty.engine["calls"] <= 3
    assert empty.told.ended < 6
    assert ended.told.ended == 6
    assert ended.told.rests > 0


def test_no_hold_above_a_limit_whenever_it_is_killed(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    size = FULL if request.config.getoption("--torture") else SHORT
    seed = request.config.getoption("--seed") or random.randrange(1 << 32)
    print(f"seed {seed}")
    outcome = overshoot.under_kills(tmp_path, size, seed)
    assert outcome.faults == []
    assert outcome.told.wrong == []
    assert outcome.kills == size.kills or size is FULL, "it took too long to kill so often"
    assert outcome.told.ended >= size.processes
    assert outcome.told.ended % size.processes == 0
    assert outcome.holds["overruns"] > 0 or size is SHORT
    assert outcome.engine["calls"] > 0
    print(f"{outcome.kills} kills: {outcome.holds}, the engine saw {outcome.engine}")
