"""The schema: a migrated home is like a new one; nothing is changed by halves, nor of a home of a newer Mains."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from tests.golden.test_homes import unpack

from mains.errors import DiskFullError, JournalError
from mains.kernel import schema
from mains.kernel.event import AnyEvent, named
from mains.kernel.ports import NoProbe
from mains.kernel.schema import SCHEMA_VERSION, copies, prepare
from mains.kernel.tx import decode_event
from mains.testing import CrashProbe

POINTS = ["migrate.copied", "migrate.commit.before", "migrate.commit.after"]


def opened(path: Path) -> Any:
    connection = sqlite3.connect(path, isolation_level=None)
    return contextlib.closing(connection)


def contents(path: Path) -> list[Any]:
    """All that a database holds, and its version."""
    with opened(path) as connection:
        tables = [
            row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")
        ]
        rows = [[table, connection.execute(f"SELECT * FROM {table}").fetchall()] for table in tables]
        return [connection.execute("PRAGMA user_version").fetchone(), *rows]


def shape(connection: sqlite3.Connection) -> dict[str, Any]:
    """Tables with their columns, and indexes with theirs and their condition."""
    found: dict[str, Any] = {}
    for kind, name, sql in connection.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL"):
        if kind == "table":
            flags = connection.execute("SELECT wr, strict FROM pragma_table_list WHERE name = ?", (name,)).fetchone()
            found[name] = flags, connection.execute(f"PRAGMA table_info({name})").fetchall()
        else:
            found[name] = connection.execute(f"PRAGMA index_info({name})").fetchall(), sql.partition(" WHERE ")[2]
    return found


def migrate(path: Path, probe: Any = None) -> None:
    with opened(path) as connection:
        prepare(connection, path, probe or NoProbe(), migrate=True)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return unpack("v1", tmp_path)


def test_a_migrated_home_has_the_shape_of_a_new_one(old: Path, tmp_path: Path) -> None:
    migrate(old)
    with opened(old) as migrated, opened(tmp_path / "new.db") as new:
        prepare(new, tmp_path / "new.db", NoProbe(), migrate=True)
        assert shape(migrated) == shape(new)


def test_a_migrated_home_knows_who_names_each_page(old: Path) -> None:
    migrate(old)
    with opened(old) as connection:
        events: list[tuple[int, AnyEvent]] = [
            (pid, decode_event(body)) for pid, body in connection.execute("SELECT pid, body FROM event")
        ]
        uses = {(page, pid) for pid, event in events for page in named(event)}
        assert connection.execute("SELECT count(*) FROM page_use").fetchone() == (0,)  # noted when something is erased
        parts = {row[0] for row in connection.execute("SELECT page FROM page_part")}
        every = {row[0] for row in connection.execute("SELECT hash FROM page")}
        assert parts | {page for page, _ in uses} == every


def test_a_copy_of_the_old_home_is_kept_for_its_owner_only(old: Path) -> None:
    before = contents(old)
    old.with_name("mains.db.v0.bak").write_bytes(b"an older copy")
    migrate(old)
    assert [copy.name for copy in copies(old)] == ["mains.db.v1.bak"]
    assert contents(copies(old)[0]) == before
    assert stat.S_IMODE(copies(old)[0].stat().st_mode) == 0o600


@pytest.mark.parametrize("target", range(len(POINTS)))
def test_a_crash_in_a_migration_changes_nothing_or_all(old: Path, target: int) -> None:
    before = contents(old)
    if (child := os.fork()) == 0:
        try:
            migrate(old, CrashProbe(target, lambda _: os._exit(77)))
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 77
    after = contents(old)
    if POINTS[target] == "migrate.commit.after":
        assert after[0] == (SCHEMA_VERSION,)
    else:
        assert after == before
    migrate(old)
    assert contents(old)[0] == (SCHEMA_VERSION,)


def test_a_migration_passes_its_crash_points(old: Path) -> None:
    probe = CrashProbe(-1, lambda _: None)
    migrate(old, probe)
    assert probe.passed == POINTS


def test_a_migration_that_fails_changes_nothing(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(old)
    text = schema._text
    monkeypatch.setattr(schema, "_text", lambda name: f"{text(name)}; INSERT INTO nowhere VALUES (1);")
    with pytest.raises(JournalError, match="schema version 4: no such table: nowhere; nothing was changed"):
        migrate(old)
    assert contents(old) == before


def test_no_room_for_a_copy_is_said_before_anything_is_done(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(old)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 1_000, 1_000))
    with pytest.raises(DiskFullError, match=r"no room .*: [\d,]+ bytes are needed, 1,000 are free; nothing was"):
        migrate(old)
    assert contents(old) == before
    assert copies(old) == []


def test_a_disk_that_fills_during_the_migration(old: Path) -> None:
    before = contents(old)
    with opened(old) as connection:
        connection.execute("PRAGMA max_page_count = 34")
        with pytest.raises(DiskFullError, match="no room to bring it to schema version 4: database or disk is full"):
            prepare(connection, old, NoProbe(), migrate=True)
    assert contents(old) == before


def test_a_home_of_a_newer_mains_is_refused_and_left_alone(old: Path) -> None:
    with opened(old) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = contents(old)
    with pytest.raises(JournalError, match=r"written by a newer Mains \(schema version 99; this one knows 4\)"):
        migrate(old)
    assert contents(old) == before


def test_a_reader_does_not_migrate(old: Path) -> None:
    before = contents(old)
    with opened(old) as connection, pytest.raises(JournalError, match="written by an older Mains") as refused:
        prepare(connection, old, NoProbe(), migrate=False)
    assert "mains up" in refused.value.hint
    assert contents(old) == before


def test_there_is_a_migration_for_each_version() -> None:
    found = sorted(f.name for f in resources.files("mains.kernel").joinpath("migrations").iterdir())
    assert [name for name in found if name.endswith(".sql")] == [f"{n:03}.sql" for n in range(2, SCHEMA_VERSION + 1)]
