"""Homes that older versions wrote are opened by this one, verify, and their processes run to their end.

A new schema version: keep the old `vN.db.gz`, and add one that the code before the change has made.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from tests.golden.homes.make_home import ENGINE, answer, ping
from tests.unit.kernel.exactness import faults, read_back

import mains
from mains.kernel import audit, reckon
from mains.kernel.desk import Desk
from mains.kernel.ports import Request
from mains.kernel.schema import SCHEMA_VERSION
from mains.testing import FakeClock, ScriptedEngine

HOMES = Path(__file__).parent / "homes"
LATER_MS = 3_600_000


def unpack(name: str, folder: Path) -> Path:
    """A copy of a golden home; its database."""
    (folder / "home").mkdir(parents=True)
    database = folder / "home" / "mains.db"
    database.write_bytes(gzip.decompress((HOMES / f"{name}.db.gz").read_bytes()))
    return database


def open_home(folder: Path, clock: FakeClock) -> Any:
    engine = ScriptedEngine.of(lambda request: answer(request, hang=False), name=ENGINE)
    return mains.open(folder / "home", engines=[engine], devices=[ping()], clock=clock)


async def stands(kernel: Desk, pid: int, state: str, reason: str) -> None:
    outcome = await kernel.outcome(pid)
    for _ in range(20_000):
        if outcome.state == state and outcome.reason.startswith(reason):
            return
        await asyncio.sleep(0)
        outcome = await kernel.outcome(pid)
    raise AssertionError(f"process {pid} does not come to stand {state} ({reason}): {outcome}")


async def act(kernel: Desk, pid: int, what: str, clock: FakeClock) -> None:
    """What a person does so that a process can end."""
    match what:
        case "retry":
            await kernel.answer(pid, "retry")
        case "done":
            await kernel.answer(pid, 'done="seen"')
        case "answer":
            await kernel.answer(pid, "yes")
        case "send":
            await kernel.send(pid, "hello")
        case "later":
            clock.advance(LATER_MS)
        case "kill":
            await kernel.signal(pid, mains.Signal.KILL)
        case "resume":
            await kernel.signal(pid, mains.Signal.CONT)


def holds(kernel: Desk) -> None:
    assert audit.verify(kernel.journal) == []
    assert reckon.verify(kernel.journal) == []


@pytest.mark.parametrize("name", sorted(file.name.removesuffix(".db.gz") for file in HOMES.glob("v*.db.gz")))
async def test_an_old_home_is_brought_forward_and_its_processes_end(tmp_path: Path, name: str) -> None:
    database = unpack(name, tmp_path)
    expected = {int(pid): told for pid, told in json.loads((HOMES / f"{name}.json").read_text()).items()}
    clock = FakeClock()
    async with open_home(tmp_path, clock) as kernel:
        holds(kernel)
        assert {p.pid: p.program for p in await kernel.ps(every=True)} == {p: t["program"] for p, t in expected.items()}
        for pid, told in expected.items():
            await stands(kernel, pid, *told["stands"])
            shown = await kernel.show(pid)
            assert shown["key"] == told.get("key", "")
            assert shown["unread"] == told.get("unread", 0)
            assert shown["children"][: len(told.get("children", []))] == told.get("children", [])
        assert await kernel.spawn(tmp_path / "say.md", {"word": "hello"}, key="once") == 2
        for pid, told in expected.items():
            await act(kernel, pid, told.get("do", ""), clock)
        for pid, told in expected.items():
            outcome = await kernel.wait(pid, timeout_s=20)
            code, result = told["ends"]
            assert outcome.exit_code == code, outcome
            assert result is None or outcome.result == result
        holds(kernel)
    async with open_home(tmp_path, clock) as kernel:
        holds(kernel)
    with sqlite3.connect(database) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    connection.close()


@pytest.mark.parametrize("name", sorted(file.name.removesuffix(".db.gz") for file in HOMES.glob("v*.db.gz")))
async def test_processes_of_an_old_home_evict_and_are_forked(tmp_path: Path, name: str) -> None:
    unpack(name, tmp_path)
    settings, asked, clock = mains.Settings(frame_tokens_max=2_400), list[Request](), FakeClock()

    def answered(request: Request) -> Any:
        asked.append(request)
        return answer(request, hang=False)

    engine = ScriptedEngine.of(answered, name=ENGINE)
    async with mains.open(
        tmp_path / "home", engines=[engine], devices=[ping()], clock=clock, settings=settings
    ) as kernel:
        expected = json.loads((HOMES / f"{name}.json").read_text())
        for pid, told in expected.items():
            with contextlib.suppress(mains.MainsError):
                for n in range(6):
                    await kernel.send(int(pid), f"message {n}: " + "a word " * (100 if n % 3 else 1_000))
            with contextlib.suppress(mains.MainsError):
                await kernel.answer(int(pid), "a long answer " * 1_000)
            with contextlib.suppress(mains.MainsError):
                await act(kernel, int(pid), told.get("do", ""), clock)
        forks = [await kernel.fork(int(pid)) for pid in expected if (await kernel.outcome(int(pid))).state == "EXITED"]
        for pid in forks:
            await kernel.wait(pid, timeout_s=1)
        kinds = {message.kind for request in asked for message in request.messages}
        assert "stub" in kinds and forks
        assert faults(kernel.journal, settings, asked) == []
        for p in kernel.journal.processes("process_all"):
            assert await read_back(kernel.journal, settings, p.pid) == []


@pytest.fixture(autouse=True)
def programs(tmp_path: Path) -> None:
    """The one program that is started again, by its key."""
    (tmp_path / "say.md").write_text("---\nname: say\ndescription: say\ninputs: {word: text}\n---\nSay {{word}}.\n")
