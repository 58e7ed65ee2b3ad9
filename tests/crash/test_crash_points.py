"""Every crash point, found by scan: die there, boot again, and end with the same result."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.crash.scenario import KILLED, RESULT, Traces, finish, run, write_programs

pytestmark = pytest.mark.crash


def _folder(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    write_programs(folder)
    return folder


@pytest.mark.timeout(600)  # a hundred kernels that die: a busy machine takes its time
def test_every_crash_point_is_survived(tmp_path: Path) -> None:
    whole = _folder(tmp_path, "whole")
    code, points = run(whole, -1)
    assert code == 0
    kinds = set(points)
    for act in ("model.before", "model.after", "device.before", "device.after"):
        assert act in kinds
    for commit in ("spawn", "begin", "replied", "returned", "answer", "fire", "boot"):
        assert {f"{commit}.commit.before", f"{commit}.commit.after"} <= kinds
    doubts = 0
    for target in range(len(points)):
        folder = _folder(tmp_path, str(target))
        code, _ = run(folder, target)
        if code == 0:
            continue  # this run took a shorter way: fewer batches, fewer points
        assert code == KILLED
        outcome = asyncio.run(finish(folder))
        where = points[target]
        assert (outcome.exit_code, outcome.result) == (0, RESULT), where
        doubts += len(Traces(folder).lines("doubt"))
        looks = Traces(folder).lines("look")
        assert len(looks) <= 4, where
    assert doubts >= 4, "the calls that may have happened were never in doubt"


def test_a_crash_in_the_recovery_is_survived(tmp_path: Path) -> None:
    _, points = run(_folder(tmp_path, "whole"), -1)
    in_flight = points.index("device.before")
    second = 0
    while True:
        folder = _folder(tmp_path, f"again{second}")
        assert run(folder, in_flight)[0] == KILLED
        code, _ = run(folder, second)
        outcome = asyncio.run(finish(folder))
        assert (outcome.exit_code, outcome.result) == (0, RESULT)
        second += 3
        if code == 0 or second > 30:
            break
