"""Crash points of removal and of the daily prune: die at each, boot again, and all is erased or all is there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from pathlib import Path

import pytest
from tests.crash.scenario import KILLED

import mains
from mains.kernel import audit, reckon, retention
from mains.kernel.care import DAY_MS
from mains.kernel.desk import Desk
from mains.kernel.ports import Reply, Usage
from mains.testing import CrashProbe, FakeClock, ScriptedEngine

pytestmark = pytest.mark.crash
PROGRAM = "---\nname: say\ndescription: says\ninputs: {doc: file, w: text}\n---\nSay {{w}}.\n"
_LIMIT_S = 60  # a loaded disk may take seconds for one commit
SETTINGS = mains.Settings(erase_rows_max=3, checkpoint_events=7)


def prepare(folder: Path) -> None:
    folder.mkdir()
    (folder / "say.md").write_text(PROGRAM)
    (folder / "doc.txt").write_text("shared by all")


def open_home(folder: Path, clock: FakeClock, probe: CrashProbe | None = None) -> object:
    engine = ScriptedEngine.of(lambda request: Reply(request.messages[0].text, usage=Usage(10, 0, 5)))
    return mains.open(folder / "home", engines=[engine], settings=SETTINGS, clock=clock, probe=probe)


async def live(folder: Path, probe: CrashProbe | None) -> None:
    """Four processes, two of them a fork and its source; two are removed by hand, the rest by the daily prune."""
    clock = FakeClock()
    async with open_home(folder, clock, probe) as kernel:  # type: ignore[attr-defined]
        pids = [
            await kernel.spawn(folder / "say.md", {"doc": str(folder / "doc.txt"), "w": word}, key=f"{at}")
            for at, word in enumerate(("same", "same", "other"))
        ]
        for pid in pids:
            await kernel.wait(pid)
        await kernel.wait(await kernel.fork(pids[0]))
        await kernel.remove([pids[0]])
        await kernel.prune(0)
        await until_pruned(kernel, clock)


async def until_pruned(kernel: Desk, clock: FakeClock) -> None:
    """Let days pass until nobody is left and all is erased."""
    clock.advance((SETTINGS.retention_days + 1) * DAY_MS)
    async with asyncio.timeout(_LIMIT_S):
        while await kernel.ps(every=True) or kernel.journal.rows("removed_next"):
            clock.advance(20)
            await asyncio.sleep(0)


def run(folder: Path, target: int) -> tuple[int, list[str]]:
    """A life in a child that dies at a crash point; its exit code, and the points it passed."""
    points = folder / "points"
    if (child := os.fork()) == 0:
        code = 1
        try:
            probe = CrashProbe(target, lambda _: os._exit(KILLED))
            asyncio.run(live(folder, probe))
            points.write_text("\n".join(probe.passed))
            code = 0
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, points.read_text().split("\n") if points.exists() else []


def holds(kernel: Desk) -> None:
    assert audit.verify(kernel.journal) == []
    assert reckon.verify(kernel.journal) == []
    assert retention.orphaned(kernel.journal) == []


async def look_and_finish(folder: Path) -> None:
    """Every process is there whole, or is gone; then everything goes, and nothing is left behind."""
    with contextlib.closing(sqlite3.connect(folder / "home" / "mains.db")) as connection:
        query = "SELECT max(max(at_ms), (SELECT value FROM counter WHERE name = 'pruned_ms')) FROM event"
        [[last_ms]] = connection.execute(query).fetchall()
    clock = FakeClock(last_ms)  # no prune is due at the boot
    async with open_home(folder, clock) as kernel:  # type: ignore[attr-defined]
        holds(kernel)
        for view in await kernel.ps(every=True):
            outcome = await kernel.wait(view.pid, 10)
            assert outcome.result in ("Say same.", "Say other.")
            shown = await kernel.show(view.pid)
            assert len(shown["messages"]) == 3
        await until_pruned(kernel, clock)
        holds(kernel)
        for table in ("page", "page_use", "page_part", "context", "hold", "entry", "message", "process_key", "process"):
            assert kernel.journal._reader().execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table


@pytest.mark.timeout(600)
def test_every_crash_point_of_a_removal_is_survived(tmp_path: Path) -> None:
    prepare(tmp_path / "whole")
    code, points = run(tmp_path / "whole", -1)
    assert code == 0
    for commit in ("rm", "erase", "prune"):
        assert {f"{commit}.commit.before", f"{commit}.commit.after"} <= set(points)
    first = next(at for at, point in enumerate(points) if point.startswith("rm."))
    for target in range(first, len(points), 2 if len(points) - first > 80 else 1):
        folder = tmp_path / str(target)
        prepare(folder)
        code, _ = run(folder, target)
        if code == 0:
            continue  # this run took a shorter way
        assert code == KILLED
        asyncio.run(look_and_finish(folder))
