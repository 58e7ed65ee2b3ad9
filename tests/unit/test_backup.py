"""Backup and restore: one moment of a home at work, whole or not at all, and nothing damaged is let in."""

from __future__ import annotations

import asyncio
import io
import os
import stat
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.kernel.world import World, by_turn, call, calls, says

import mains
from mains import backup
from mains.errors import BackupError, MainsError
from mains.home import Home
from mains.kernel import audit, reckon
from mains.kernel.ports import Reply, Request


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def opened(folder: Path, *devices: Any) -> Any:
    engine = mains.ScriptedEngine.of(by_turn(calls(call("ping")), says("end")))
    return mains.open(folder, engines=[engine], devices=devices)


def rewritten(file: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    """The backup with other contents."""
    with tarfile.open(file) as tar:
        members = {header.name: read.read() for header in tar if (read := tar.extractfile(header))}
    change(members)
    with tarfile.open(file, "w") as tar:
        for name, data in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))


async def a_home(world: World) -> Home:
    async with world.open(lambda r: says("well")) as kernel:
        await kernel.wait(await kernel.spawn(world.program("p"), key="k"))
    home = Home(world.folder / "home")
    home.config.write_text("[settings]\nturns_max = 7\n")
    (home.workspaces / "1" / "deep").mkdir(parents=True)
    (home.workspaces / "1" / "deep" / "note.txt").write_text("a note")
    (home.workspaces / "1" / "run.sh").write_text("#!/bin/sh\n")
    (home.workspaces / "1" / "run.sh").chmod(0o755)
    (home.workspaces / "1" / "link").symlink_to("/etc/passwd")
    return home


async def in_thread(work: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    return await asyncio.to_thread(work, *arguments, **options)


async def test_there_and_back(world: World) -> None:
    home = await a_home(world)
    file, new = world.folder / "backup.tar", Home(world.folder / "new")
    made = await in_thread(backup.write, home, file, workspaces=True)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sorted(made.files) == ["mains.db", "mains.toml", "workspaces/1/deep/note.txt", "workspaces/1/run.sh"]
    assert made.skipped == 1
    assert await in_thread(backup.restore, file, new) == made
    assert stat.S_IMODE(new.path.stat().st_mode) == 0o700
    assert stat.S_IMODE((new.path / "mains.db").stat().st_mode) == 0o600
    assert (new.workspaces / "1" / "deep" / "note.txt").read_text() == "a note"
    assert os.access(new.workspaces / "1" / "run.sh", os.X_OK)
    assert new.settings().turns_max == 7
    async with opened(new.path) as kernel:
        assert (await kernel.outcome(1)).result == "well"
        assert await kernel.spawn(world.program("p"), key="k") == 1
    assert sorted(path.name for path in world.folder.iterdir() if path.name.startswith(".")) == []


async def test_without_workspaces(world: World) -> None:
    home = await a_home(world)
    made = await in_thread(backup.write, home, world.folder / "b.tar")
    assert sorted(made.files) == ["mains.db", "mains.toml"]


async def test_agents_work_while_it_is_made_and_what_was_at_work_is_in_doubt_after(world: World) -> None:
    called, go_on = asyncio.Event(), asyncio.Event()

    @mains.device
    async def ping() -> str:
        """An effect that must not happen twice."""
        called.set()
        await go_on.wait()
        return "pong"

    def answer(request: Request) -> Reply:
        if request.messages[0].text.startswith("Talk"):
            return calls(call("receive", timeout_s=0))
        return by_turn(calls(call("ping")), says("end"))(request)  # type: ignore[return-value] # never awaitable

    home = Home(world.folder / "home")
    talkers = world.program("talker", "tools: [receive]", "Talk.")
    async with world.open(answer, devices=[ping], turns_max=150) as kernel:
        pid = await kernel.spawn(world.program("p", "tools: [ping]"))
        await called.wait()
        busy = [await kernel.spawn(talkers) for _ in range(8)]
        made = await in_thread(backup.write, home, world.folder / "b.tar")
        assert [(await kernel.outcome(each)).turns > 0 for each in busy]
        go_on.set()
        assert (await kernel.wait(pid, 20)).result == "end"
        for each in busy:
            await kernel.wait(each, 60)
        assert kernel.journal.rows("event_last")[0][0] > made.events > 0
    await in_thread(backup.restore, world.folder / "b.tar", Home(world.folder / "new"))
    async with opened(world.folder / "new", ping) as kernel:
        assert (await kernel.wait(pid)).reason == "in doubt"
        await kernel.answer(pid, 'done="pong"')
        assert (await kernel.wait(pid, 20)).result == "end"
        assert audit.verify(kernel.journal) == []
        assert reckon.verify(kernel.journal) == []


async def test_no_file_and_no_home_is_overwritten(world: World) -> None:
    home = await a_home(world)
    file = world.folder / "b.tar"
    file.write_text("precious")
    with pytest.raises(MainsError, match="exists already"):
        await in_thread(backup.write, home, file)
    assert file.read_text() == "precious"
    await in_thread(backup.write, home, file, replace=True)
    with pytest.raises(MainsError, match="is not empty"):
        await in_thread(backup.restore, file, home)
    with pytest.raises(MainsError, match="is a folder"):
        await in_thread(backup.write, home, world.folder)
    with pytest.raises(MainsError, match="no such file"):
        await in_thread(backup.restore, world.folder / "gone.tar", Home(world.folder / "new"))
    with pytest.raises(MainsError, match="there is no journal yet"):
        await in_thread(backup.write, Home(world.folder / "nothing"), world.folder / "c.tar")


def _one_byte(name: str) -> Callable[[dict[str, bytes]], None]:
    def change(members: dict[str, bytes]) -> None:
        data = members[name]
        members[name] = data[:-1] + bytes([data[-1] ^ 1])

    return change


def _with(name: str) -> Callable[[dict[str, bytes]], None]:
    """An intruder, with a manifest that names it."""

    def change(members: dict[str, bytes]) -> None:
        data = members["mains.toml"]
        manifest = members.pop("manifest.json").replace(b'"mains.toml"', f'"{name}"'.encode())
        members[name] = data
        del members["mains.toml"]
        members["manifest.json"] = manifest

    return change


DAMAGES: dict[str, tuple[Callable[[dict[str, bytes]], Any], str]] = {
    "database": (_one_byte("mains.db"), r"mains\.db is not what the manifest says"),
    "config": (_one_byte("mains.toml"), r"mains\.toml is not what the manifest says"),
    "missing": (lambda members: members.pop("mains.toml"), r"mains\.toml is not what the manifest says"),
    "added": (lambda members: members.update({"workspaces/x": b"x"}), "workspaces/x is not what the manifest says"),
    "no manifest": (lambda members: members.pop("manifest.json"), "has no manifest"),
    "outside": (_with("../../evil"), "does not belong into a home"),
    "above": (_with("workspaces/../../evil"), "does not belong into a home"),
    "absolute": (_with("/evil"), "does not belong into a home"),
    "lock": (_with("token"), "does not belong into a home"),
    "format": (
        lambda members: members.update(
            {"manifest.json": members["manifest.json"].replace(b'"format": 1', b'"format": 2')}
        ),
        "format 2",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_backup_is_refused_and_leaves_nothing(world: World, damage: str) -> None:
    home, file = await a_home(world), world.folder / "b.tar"
    await in_thread(backup.write, home, file)
    change, told = DAMAGES[damage]
    rewritten(file, change)
    before = sorted(world.folder.rglob("*"))
    with pytest.raises(BackupError, match=told):
        await in_thread(backup.restore, file, Home(world.folder / "new"))
    assert sorted(world.folder.rglob("*")) == before


async def test_a_backup_that_was_cut_off_is_refused_wherever(world: World) -> None:
    home, file = await a_home(world), world.folder / "b.tar"
    await in_thread(backup.write, home, file)
    data = file.read_bytes()
    with tarfile.open(file) as tar:
        end = max(header.offset_data + header.size for header in tar)
    (world.folder / "new").mkdir()
    for length in [*range(0, end, max(1, end // 40)), end - 1]:
        file.write_bytes(data[:length])
        with pytest.raises(BackupError):
            await in_thread(backup.restore, file, Home(world.folder / "new"))
        assert list((world.folder / "new").iterdir()) == []
    file.write_bytes(data)
    await in_thread(backup.restore, file, Home(world.folder / "new"))  # an empty folder is as good as none


async def test_a_home_whose_journal_is_wrong_is_neither_backed_up_nor_restored(world: World) -> None:
    home, file = await a_home(world), world.folder / "b.tar"
    import sqlite3

    connection = sqlite3.connect(home.database)
    with connection:
        connection.execute("UPDATE account SET posted = posted + 1 WHERE id = 1")
    connection.close()
    with pytest.raises(BackupError, match="the journal has 1 faults: account 1"):
        await in_thread(backup.write, home, file)
    assert not file.exists()
    assert [path.name for path in world.folder.iterdir() if path.name.startswith(".mains")] == []


async def test_what_the_disk_says_is_one_sentence(world: World) -> None:
    home = await a_home(world)
    with pytest.raises(BackupError, match="No such file or directory") as refused:
        await in_thread(backup.write, home, world.folder / "nowhere" / "b.tar")
    assert "\n" not in str(refused.value)


async def test_two_backups_to_one_name_do_not_overwrite_each_other(world: World) -> None:
    home, file = await a_home(world), world.folder / "b.tar"
    refused: list[MainsError] = []

    def one() -> None:
        try:
            backup.write(home, file)
        except MainsError as error:
            refused.append(error)

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert len(refused) == 2
    await in_thread(backup.restore, file, Home(world.folder / "new"))
