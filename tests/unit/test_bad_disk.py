"""A disk that is full or read-only: every verb says so in one line, and nothing breaks.

A small tmpfs is mounted where that is allowed (root, as in CI). Elsewhere the same is asked of the doors where such an
error comes in: SQLite with a bound on its pages, and a folder that cannot be written.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.daemon_box import Box

from mains.errors import ConfigError, DiskFullError, JournalError
from mains.home import Home
from mains.kernel.schema import told

VERBS = [
    "run say.md prompt=x", "ps", "show 1", "logs 1", "wait 1", "send 1 x", "answer 1 x", "pause 1", "resume 1",
    "kill 1", "fork 1", "rm 1", "prune", "backup b.tar", "journal verify", "journal export", "ledger verify", "up",
    "engine add x --url http://127.0.0.1:9/v1 --model m",
]  # fmt: skip
READ_ONLY = "error: {home}: this home is on a read-only disk\n"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def box(disk: Path) -> Iterator[Box]:
    made = Box(disk, settings="wal_pages = 50")
    assert made.run("run", "say.md", "prompt=hello").stdout == "hello\n"
    daemon = made.json("down")["pid"]
    with contextlib.suppress(ChildProcessError):
        os.waitpid(daemon, 0)  # it keeps its log open to its end
    yield made
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    (disk / "fill").unlink(missing_ok=True)
    made.close()


def fill(disk: Path) -> None:
    """No byte is left."""
    with contextlib.suppress(OSError), (disk / "fill").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4_096))


def one_line(stderr: str) -> bool:
    lines = stderr.splitlines()
    return len(lines) in (1, 2) and lines[0].startswith("error: ") and all(line[:6] == "hint: " for line in lines[1:])


def test_a_read_only_home_says_so_for_every_verb(box: Box, disk: Path, tmp_path: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    for verb in VERBS:
        done = box.run(*verb.split())
        assert done.returncode == 1, (verb, done)
        if verb != "backup b.tar":
            assert done.stderr.startswith(READ_ONLY.format(home=box.home.path)), (verb, done.stderr)
        assert one_line(done.stderr), (verb, done.stderr)
    assert box.run("backup", "b.tar").stderr == "error: b.tar: Read-only file system\nhint: nothing was left behind\n"
    assert f"WRONG  home: {box.home.path} is read-only" in box.run("doctor", "--fix").stdout
    assert box.run("check", "say.md").returncode == 0
    assert box.run("backup", str(tmp_path / "b.tar")).returncode == 0, "what can be read can be saved"
    assert box.run("restore", str(tmp_path / "b.tar"), "--home", str(tmp_path / "new")).returncode == 0
    done = box.run("restore", str(tmp_path / "b.tar"), "--home", str(disk / "new"))
    assert (done.returncode, one_line(done.stderr)) == (1, True)


def test_a_full_disk_says_so_for_every_verb_and_all_goes_on_when_there_is_room(box: Box, disk: Path) -> None:
    fill(disk)
    for verb in VERBS:
        done = box.run(*verb.split())
        assert done.returncode == 1, (verb, done)
        assert one_line(done.stderr), (verb, done.stderr)
        assert "disk is full" in done.stderr or "No space left" in done.stderr, (verb, done.stderr)
    assert "WRONG  disk: 0.0 GB free: make room" in box.run("doctor").stdout
    (disk / "fill").unlink()
    assert box.run("wait", "1").stdout == "hello\n"
    assert box.run("journal", "verify").returncode == 0
    assert box.run("run", "say.md", "prompt=again").stdout == "again\n"


def test_a_disk_that_fills_while_the_daemon_works(box: Box, disk: Path) -> None:
    (disk / "long.txt").write_text("x" * 400_000)
    assert box.run("ps").returncode == 0
    fill(disk)
    done = box.run("run", "say.md", "prompt=" + "x" * 300_000)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {box.home.path}: the disk is full; nothing was written\n")
    assert box.run("wait", "1").stdout == "hello\n", "what is there can be read"
    (disk / "fill").unlink()
    assert box.run("run", "say.md", "prompt=again").stdout == "again\n", "and it goes on by itself"


@pytest.mark.parametrize(
    ("number", "kind", "text"),
    [
        (errno.EROFS, JournalError, "this home is on a read-only disk"),
        (errno.ENOSPC, DiskFullError, "the disk is full; nothing was written"),
        (errno.EACCES, ConfigError, "Permission denied"),
    ],
)
@pytest.mark.parametrize("door", ["prepare", "lock"])
def test_what_the_disk_says_at_the_door(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception], text: str, door: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    home = Home(tmp_path / "home")
    home.prepare()
    monkeypatch.setattr(Path, "chmod", refuse) if door == "prepare" else monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(kind, match=text):
        if door == "prepare":
            home.prepare()
        else:
            with home.lock():
                pass


def test_a_database_that_has_no_room_to_be_opened(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "x.db")) as connection:
        connection.execute("PRAGMA max_page_count = 1")
        with pytest.raises(sqlite3.OperationalError) as full:
            connection.execute("CREATE TABLE t (x)")
        assert isinstance(told(tmp_path / "x.db", full.value), DiskFullError)
    assert not isinstance(told(tmp_path / "x.db", sqlite3.OperationalError("other")), DiskFullError)
