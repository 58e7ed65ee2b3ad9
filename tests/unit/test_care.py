"""The verbs that care for a home: rm, prune, backup, restore, doctor --fix. Each test has a home of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.golden.test_homes import unpack
from tests.unit.daemon_box import SRC, Box

from mains.cli import mend
from mains.cli.care import parse_age
from mains.errors import UsageError
from mains.kernel.pages import name_of


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    made.close()


def said(box: Box, *words: str) -> list[str]:
    """The lines of `doctor` that tell of something mended or to be mended."""
    return [line for line in box.run("doctor", *words).stdout.splitlines() if "mend" in line or "WRONG" in line]


def test_rm_and_prune(box: Box) -> None:
    for word in ("one", "two", "three"):
        assert box.run("run", "say.md", f"prompt={word}").stdout == f"{word}\n"
    alive = box.spawn("forever")
    done = box.run("rm", str(alive))
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: process {alive} has not ended: it is R")
    assert done.stderr.endswith(f"hint: `mains kill {alive}` first\n")
    assert box.run("rm", "1").stdout == "removed: 1\n"
    assert box.run("rm", "1").stderr.startswith("error: there is no process 1\n")
    assert box.run("show", "1").returncode == 2
    assert box.json("prune", "--older-than", "0s", "--dry-run") == {"pids": [3, 2], "erased": True, "dry_run": True}
    assert box.run("prune").stdout == "no process was removed\n"
    assert box.json("prune", "--older-than", "0s") == {"pids": [3, 2], "erased": True}
    assert [view["pid"] for view in box.json("ps", "--all")] == [alive]
    assert box.run("journal", "verify").returncode == box.run("ledger", "verify").returncode == 0
    assert box.run("prune", "--older-than", "soon").returncode == 2


@pytest.mark.parametrize(("text", "days"), [("30d", 30), ("12h", 0.5), ("1.5d", 1.5), ("90m", 0.0625), ("0s", 0)])
def test_an_age(text: str, days: float) -> None:
    assert parse_age(text) == pytest.approx(days)


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1w", "1e9d", "nan", "9999999999d"])
def test_no_age(text: str) -> None:
    with pytest.raises(UsageError, match="is no age"):
        parse_age(text)


def test_backup_and_restore(box: Box) -> None:
    assert box.run("backup", "b.tar").stderr.startswith(f"error: {box.home.database}: there is no journal yet")
    assert box.run("run", "say.md", "prompt=hello", "--key", "k").stdout == "hello\n"
    box.spawn("forever")
    done = box.run("backup", "b.tar")
    assert done.returncode == 0, done.stderr
    assert "b.tar: 2 files" in done.stdout
    assert box.run("backup", "b.tar").returncode == 2
    assert box.json("backup", "b.tar", "--force", "--workspaces")["events"] > 3
    assert box.run("restore", "b.tar").returncode == 2, "this home is not empty"
    new = box.folder / "new"
    done = box.run("restore", "b.tar", "--home", str(new))
    assert done.returncode == 0, done.stderr
    assert "the same processes. If both run, all happens twice" in done.stderr
    assert box.json("restore", "b.tar", "--home", str(box.folder / "newer"))["from"] == str(box.home.path)
    assert json.loads(box.run("journal", "verify", "--home", str(new), "--json").stdout) == {"ok": True, "faults": []}
    (box.folder / "b.tar").write_bytes((box.folder / "b.tar").read_bytes()[:9_000])
    done = box.run("restore", "b.tar", "--home", str(box.folder / "last"))
    assert (done.returncode, (box.folder / "last").exists()) == (1, False)
    assert done.stderr.startswith("error: b.tar: it cannot be read")


def test_doctor_fixes_what_a_crash_left(box: Box) -> None:
    box.spawn("forever")
    os.kill(box.json("status")["pid"], signal.SIGKILL)
    box.wait_until_free()
    home = box.home
    home.path.chmod(0o755)
    home.database.chmod(0o644)
    (home.logs / "daemon.log").chmod(0o644)
    old = [home.path / "mains.db.v1.bak.part", home.path / ".mains.toml.x", home.path / "mains.db.v1.bak"]
    new = home.path / ".mains.toml.y"
    for file in [*old, new]:
        file.touch(mode=0o600)
    for file in old:
        os.utime(file, (0, 0))
    for file in (home.path / "workspaces").iterdir():
        file.rmdir()
    home.workspaces.rmdir()
    assert home.socket.exists()
    found = said(box)
    assert [line[:5] for line in found].count("WRONG") == 1, "only the mode of the home does harm"
    assert said(box) == found, "it changes nothing"
    mended = said(box, "--fix")
    assert len(mended) == len(found) == 8, mended
    assert said(box) == []
    assert box.run("doctor").returncode == 0
    assert not any(file.exists() for file in old)
    assert new.exists(), "somebody may be writing it"
    for path in (home.path, home.workspaces, home.logs):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE(home.database.stat().st_mode) == 0o600
    assert box.json("status" if home.held() else "ps")


def test_doctor_erases_and_compacts_what_is_left_over(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    assert box.run("run", "say.md", "prompt=" + "x" * 300_000).returncode == 0
    assert box.run("run", "say.md", "prompt=hello").stdout == "hello\n"
    assert box.run("rm", "1").returncode == 0
    box.run("down")
    with contextlib.closing(sqlite3.connect(box.home.database)) as connection, connection:
        connection.execute("INSERT INTO page VALUES (?, 'message', x'61')", (name_of(b"a"),))
    monkeypatch.setattr(mend, "_FREE_BYTES_MIN", 4_096)
    before = box.home.database.stat().st_size
    found = said(box)
    assert ["pages" in line or "free" in line for line in found] == [True, True], found
    assert len(said(box, "--fix")) == 2
    assert box.home.database.stat().st_size < before
    assert said(box) == []
    assert box.run("wait", "2").stdout == "hello\n"


def test_doctor_never_touches_a_journal_that_does_not_verify(box: Box) -> None:
    assert box.run("run", "say.md", "prompt=hello").returncode == 0
    box.run("down")
    with contextlib.closing(sqlite3.connect(box.home.database)) as connection, connection:
        connection.execute("INSERT INTO page VALUES ('aa', 'message', x'61')")
    before = box.home.database.read_bytes()
    done = box.run("doctor", "--fix")
    assert done.returncode == 1
    assert "it is left as it is (restore a backup: mains restore FILE --home NEW)" in done.stdout
    assert box.home.database.read_bytes() == before


def test_a_long_reader_holds_up_the_write_ahead_log_and_doctor_says_so(box: Box) -> None:
    box.home.config.write_text(box.home.config.read_text().replace("[settings]", "[settings]\nwal_pages = 40"))
    wal, most = box.home.path / "mains.db-wal", 4 * 40 * 4_096
    for n in range(4):
        assert box.run("run", "say.md", f"prompt={n}" + "x" * 100_000).returncode == 0
    assert wal.stat().st_size < most, "it is moved into the database all the time"
    with contextlib.closing(sqlite3.connect(box.home.database, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM process").fetchone() == (4,)
        for n in range(4):
            assert box.run("run", "say.md", f"prompt={n}" + "y" * 100_000).returncode == 0
        assert wal.stat().st_size > most
        done = box.run("doctor", "--fix")
        assert done.returncode == 1
        assert "WRONG  write-ahead log" in done.stdout
        assert "`mains down`, then --fix again" in done.stdout
    box.run("down")
    assert box.run("doctor", "--fix").returncode == 0
    assert not wal.exists() or wal.stat().st_size == 0


def test_the_log_of_a_daemon_is_bounded_while_it_runs(box: Box) -> None:
    box.home.config.write_text(box.home.config.read_text().replace("[settings]", "[settings]\nlog_bytes_max = 400"))
    logs = box.home.logs
    for _ in range(4):
        assert box.run("ps").returncode == 0
        box.run("down")
    assert sorted(file.name for file in logs.iterdir()) == ["daemon.log", "daemon.log.1"]
    assert (logs / "daemon.log").stat().st_size < 800
    assert (logs / "daemon.log.1").stat().st_size < 800


def test_a_log_turns_over_at_half_of_its_bound(tmp_path: Path) -> None:
    """A process whose standard error is the log writes more than the bound: the newest of it is there, in two files."""
    log = tmp_path / "daemon.log"
    code = (
        "import logging; from pathlib import Path; from mains.daemon.logfile import BoundedStderr;"
        f"logging.basicConfig(handlers=[BoundedStderr(Path({str(log)!r}), 2_000)], format='%(message)s');"
        "[logging.warning('line %d', n) for n in range(1_000)]; raise SystemExit('last words')"
    )
    with log.open("ab") as file:
        done = subprocess.run([sys.executable, "-c", code], stderr=file, env=os.environ | {"PYTHONPATH": str(SRC)})
    assert done.returncode == 1
    lines = (log.with_name("daemon.log.1").read_text() + log.read_text()).splitlines()
    assert lines[-2:] == ["line 999", "last words"]
    assert lines[:-1] == [f"line {n}" for n in range(1_001 - len(lines), 1_000)]
    assert log.stat().st_size <= 1_100 >= log.with_name("daemon.log.1").stat().st_size
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_a_home_of_an_old_version_is_not_wrong_and_not_changed(box: Box) -> None:
    box.home.path.joinpath("mains.db").write_bytes(unpack("v1", box.folder / "golden").read_bytes())
    box.home.database.chmod(0o600)
    before = box.home.database.read_bytes()
    done = box.run("doctor")
    assert done.returncode == 0, done.stdout
    assert "schema: version 1: the next daemon brings it to 4, and keeps a copy" in done.stdout
    assert box.run("journal", "verify").stderr.endswith("hint: `mains up` brings it forward and keeps a copy\n")
    assert box.home.database.read_bytes() == before
    assert box.run("ps").returncode == 0
    assert (box.home.path / "mains.db.v1.bak").exists()
