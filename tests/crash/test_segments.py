"""Crash points around segments: die at each, boot again; what was told is there, once, in its place, for everybody."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest
from tests.crash.scenario import KILLED, Traces

import mains
from mains.errors import NotFoundError
from mains.kernel import audit, past, reckon, retention
from mains.kernel.ports import Reply, Request, ToolCall, Usage
from mains.testing import CrashProbe, ScriptedEngine

pytestmark = pytest.mark.crash
WRITER = "---\nname: writer\ndescription: writes\ntools: [append(log)]\nsegments: [log]\n---\nWrite.\n"
READER = "---\nname: reader\ndescription: reads\nsegments: [log, brief]\n---\nRead.\n"
APPENDS = 2


def prepare(folder: Path) -> None:
    folder.mkdir()
    (folder / "writer.md").write_text(WRITER)
    (folder / "reader.md").write_text(READER)


def open_home(folder: Path, probe: CrashProbe | None = None) -> object:
    def answer(request: Request) -> Reply:
        turn = sum(message.role == "assistant" for message in request.messages)
        if request.messages[0].text == "Write." and turn < APPENDS:
            made = ToolCall("x", "append", json.dumps({"segment": "log", "text": f"{request.process}.{turn}"}))
            return Reply("", (made,), Usage(10, 0, 5))
        return Reply("done", usage=Usage(10, 0, 5))

    return mains.open(folder / "home", engines=[ScriptedEngine.of(answer, slots=1)], probe=probe)


async def live(folder: Path, probe: CrashProbe | None) -> None:
    """Segments are made, written by two processes and a person, read, and one is removed. What is told is noted."""
    traces = Traces(folder)
    async with open_home(folder, probe) as kernel:  # type: ignore[attr-defined]
        done = traces.lines("told")
        for name, text, append_only in (("log", "", True), ("brief", "to all\n" * 2_000, False), ("old", "x", True)):
            if name not in done and name not in [view.name for view in await kernel.segments()]:
                await kernel.segment_make(name, text, append_only=append_only)
                traces.note("told", name)
        pids = [await kernel.spawn(folder / "writer.md", key=f"w{n}") for n in range(2)]
        if "append" not in done:
            await kernel.segment_append("log", "by a person")
            traces.note("told", "append")
        for pid in pids:
            await kernel.wait(pid)
        await kernel.wait(await kernel.spawn(folder / "reader.md", key="r"))
        if "old" in [view.name for view in await kernel.segments()]:
            await kernel.segment_remove("old")
            traces.note("told", "removed")


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


async def look(folder: Path) -> None:
    """What was told is there; then the story goes on to its end, and everything holds."""
    told = Traces(folder).lines("told")
    async with open_home(folder) as kernel:  # type: ignore[attr-defined]
        names = [view.name for view in await kernel.segments()]
        assert ("log" in names or "log" not in told) and ("brief" in names or "brief" not in told)
        assert "old" not in names or "removed" not in told
        if "append" in told:
            assert [page.text for page in (await kernel.segment("log")).shown].count("by a person") == 1
    await live(folder, None)
    async with open_home(folder) as kernel:  # type: ignore[attr-defined]
        shown = (await kernel.segment("log")).shown
        texts = [page.text for page in shown]
        by_person = texts.count("by a person")
        assert by_person in ((1,) if "append" in told else (1, 2)), "the order whose answer was lost was given again"
        assert sorted(set(texts)) == sorted(["by a person", *[f"{pid}.{n}" for pid in (1, 2) for n in range(APPENDS)]])
        assert len(texts) == 2 * APPENDS + by_person, "what a process appends stands there once"
        assert [page.number for page in shown] == list(range(len(shown)))
        with pytest.raises(NotFoundError):
            await kernel.segment("old")
        journal = kernel.journal
        for pid in (1, 2, 3):
            assert all(each.past.frame_hash() == each.journalled for each in past.frames(journal, pid))
        assert await kernel._care.erase()
        assert audit.verify(journal) == [] and reckon.verify(journal) == [] and retention.orphaned(journal) == []


@pytest.mark.timeout(600)
def test_every_crash_point_of_segments_is_survived(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    prepare(whole)
    code, points = run(whole, -1)
    assert code == 0
    for commit in ("segment make", "segment append", "segment rm", "replied", "begin", "erase"):
        assert {f"{commit}.commit.before", f"{commit}.commit.after"} <= set(points)
    about = ("segment", "erase", "replied", "begin")
    targets = [at for at, point in enumerate(points) if point.startswith(about)]
    for target in targets[::2]:  # before a commit, and after the next one
        folder = tmp_path / str(target)
        prepare(folder)
        code, _ = run(folder, target)
        assert code in (KILLED, 0), points[target]
        asyncio.run(look(folder))
