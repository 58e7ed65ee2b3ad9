"""Devices that are added, removed, restarted and ended all at once, and told to stop at every step: nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sys
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import pytest
from tests.unit.bus.rig import LIMIT_S, Rig, is_alive

from mains.bounded_log import BoundedLog
from mains.bus.child import Child, Limits
from mains.bus.spec import DeviceSpec, write_device
from mains.errors import ConfigError, DeviceError, LimitError, MainsError
from mains.kernel.ports import Failed

SERVER = Path(__file__).parent / "attacks" / "raw_server.py"
OLD: Literal["2025-11-25"] = "2025-11-25"


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """A hub, closed at the end: no process of ours is left."""
    rig = Rig(tmp_path, device_start_s=3.0)
    yield rig
    await rig.close()
    assert children() == []


def entry(attack: str = "well", **more: Any) -> dict[str, Any]:
    """A server of few words, as a device."""
    return {"command": sys.executable, "args": ["-S", str(SERVER), attack], "protocol": OLD, **more}


def children() -> list[int]:
    """The processes that we have started and that have not ended."""
    found = []
    for each in Path("/proc").iterdir():
        if each.name.isdecimal() and is_alive(int(each.name)):
            try:
                line = (each / "stat").read_text()
                command = (each / "cmdline").read_text()
            except OSError:
                continue
            parent = int(line.rpartition(")")[2].split()[1])
            if parent == os.getpid() and "supervisor.py" in command:
                found.append(int(each.name))
    return found


def descriptors() -> int:
    """How many are open."""
    return len([*Path("/proc/self/fd").iterdir()])


async def while_passing(seconds: float) -> None:
    """Let the others work for a while."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.get_running_loop().create_future()


async def test_two_adds_of_one_name_leave_one_device(rig: Rig) -> None:
    await asyncio.gather(*(rig.hub.add("box", entry(read_only=[f"t{n}"])) for n in range(4)))
    assert len(children()) == 1
    assert tomllib.loads(rig.home.config.read_text())["devices"]["box"]["read_only"] == ["t3"]
    assert rig.hub._devices["box"].spec.read_only == ("t3",)


async def test_adds_at_once_never_become_too_many(tmp_path: Path) -> None:
    rig = Rig(tmp_path, devices_max=2)
    done = await asyncio.gather(*(rig.hub.add(f"d{n}", entry()) for n in range(6)), return_exceptions=True)
    assert sum(isinstance(each, LimitError) for each in done) == 4
    assert len(rig.hub.states()) == len(tomllib.loads(rig.home.config.read_text())["devices"]) == 2
    await rig.close()


async def test_two_restarts_after_a_change_leave_one_device(rig: Rig) -> None:
    await rig.hub.add("box", entry())
    changed = DeviceSpec(name="box", command=sys.executable, args=("-S", str(SERVER), "other"), protocol=OLD)
    write_device(rig.home.config, changed)
    await asyncio.gather(*(rig.hub.restart("box") for _ in range(4)))
    assert len(children()) == 1


@pytest.mark.parametrize("steps", [0, 1, 3, 10, 40])
async def test_a_removal_meets_an_add_and_a_restart(rig: Rig, steps: int) -> None:
    adding = asyncio.create_task(rig.hub.add("box", entry()))
    for _ in range(steps):
        await while_passing(0)
    await asyncio.gather(rig.hub.remove("box"), rig.hub.restart("box"), adding, return_exceptions=True)
    written = "box" in tomllib.loads(rig.home.config.read_text()).get("devices", {})
    assert written == ("box" in rig.hub._devices) == bool(children())


@pytest.mark.parametrize("steps", [0, 1, 2, 5, 20, 60, 150, 400])
async def test_an_add_that_is_cancelled_at_any_step_leaves_nothing(rig: Rig, steps: int) -> None:
    adding = asyncio.create_task(rig.hub.add("box", entry()))
    for _ in range(steps):
        await while_passing(0)
    adding.cancel()
    await asyncio.wait({adding}, timeout=LIMIT_S)
    written = "box" in tomllib.loads(rig.home.config.read_text() if rig.home.config.exists() else "").get("devices", {})
    assert written == ("box" in rig.hub._devices)
    if not written:
        assert children() == []


async def test_the_end_of_the_hub_meets_an_add(rig: Rig) -> None:
    adding = asyncio.create_task(rig.hub.add("box", entry("start-silent")))
    late = asyncio.create_task(rig.hub.add("box", entry()))
    while not children():
        await while_passing(0.01)
    async with asyncio.timeout(10):
        await rig.hub.close()
    done = await asyncio.gather(adding, late, return_exceptions=True)
    assert all(isinstance(each, MainsError) for each in done)
    assert children() == []


async def test_a_file_that_others_keep_holds_up_nobody_else(rig: Rig) -> None:
    folder = os.open(rig.home.config.parent, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    try:
        adding = asyncio.create_task(rig.hub.add("box", entry(), untried=True))
        longest_s, loop = 0.0, asyncio.get_running_loop()
        for _ in range(20):
            begun_s = loop.time()
            await while_passing(0.01)
            longest_s = max(longest_s, loop.time() - begun_s)
        assert longest_s < 0.5
        assert not adding.done()
    finally:
        os.close(folder)
    assert (await adding).name == "box"


async def test_what_cannot_be_written_is_told_and_changes_nothing(rig: Rig) -> None:
    await rig.hub.add("box", entry())
    kept = (rig.home.devices / "box" / "tools.json").read_bytes()
    rig.home.config.write_text("no toml [")
    with pytest.raises(ConfigError, match="no toml"):
        await rig.hub.add("box", entry("many-tools"))
    assert [tool.name for tool in rig.hub.tools()] == ["box.t"]
    assert (rig.home.devices / "box" / "tools.json").read_bytes() == kept


async def test_an_untried_device_offers_nothing_of_the_one_before(rig: Rig) -> None:
    await rig.hub.add("box", entry())
    await rig.hub.add("box", entry("other"), untried=True)
    assert rig.hub.tools() == ()
    assert not (rig.home.devices / "box" / "tools.json").exists()


async def test_a_list_that_never_comes_has_an_end(tmp_path: Path) -> None:
    rig = Rig(tmp_path, device_start_s=0.5, device_calls=1)
    await rig.hub.add("box", entry("list-once"))
    async with asyncio.timeout(5):
        with pytest.raises(DeviceError, match=r"did not list its tools within 0.5 s"):
            await rig.hub.list_tools("box")
    await rig.close()


async def test_a_list_is_had_while_every_place_is_taken(tmp_path: Path) -> None:
    rig = Rig(tmp_path, device_start_s=5.0, device_calls=1)
    await rig.hub.add("box", entry("never"))
    calling = asyncio.create_task(rig.call("t"))
    while not rig.hub.state("box").busy:
        await while_passing(0.01)
    async with asyncio.timeout(2):
        assert len(await rig.hub.list_tools("box")) == 1
    calling.cancel()
    await asyncio.wait({calling})
    await rig.close()


async def test_tools_that_change_without_end_are_asked_for_now_and_then(rig: Rig) -> None:
    await rig.hub.add("box", entry("changes-each-time", idle_s=1.5))
    changes = 0
    for _ in range(6):
        rig.hub.offered.clear()
        await while_passing(0.1)
        changes += rig.hub.offered.is_set()
    assert changes <= 2
    async with asyncio.timeout(LIMIT_S):  # and they are no use of it: it becomes idle
        while rig.hub.state("box").health != "idle":
            await while_passing(0.05)


async def test_an_answer_of_any_kind_ends_a_row_of_failures(rig: Rig) -> None:
    await rig.hub.add("box", entry("error-refused"))
    os.kill(rig.hub.state("box").pid, 9)
    rig.hub._devices["box"].owner._pauses.failed("device box: it failed before")
    async with asyncio.timeout(LIMIT_S):
        while rig.hub.state("box").health == "up":
            await while_passing(0.01)
    answer = await rig.call("t")
    assert isinstance(answer, Failed)
    assert "no such thing" in answer.text
    assert (rig.hub.state("box").health, rig.hub.state("box").fault) == ("up", "")


@pytest.mark.parametrize("steps", range(12))
async def test_a_start_that_is_cancelled_at_any_step_leaves_no_process_and_no_descriptor(
    tmp_path: Path, steps: int
) -> None:
    async def start() -> None:
        log, limits = BoundedLog(tmp_path / "log", 1_000), Limits(1_000, 100, 100_000)
        child = Child("box", [sys.executable, "-S", str(SERVER), "well"], {}, tmp_path / "work", log, limits)
        async with child.streams():
            await asyncio.Event().wait()

    before = descriptors()
    starting = asyncio.create_task(start())
    for _ in range(steps):
        await while_passing(0)
    starting.cancel()
    await asyncio.wait({starting}, timeout=LIMIT_S)
    async with asyncio.timeout(LIMIT_S):
        while children() or descriptors() > before:
            await while_passing(0.02)
