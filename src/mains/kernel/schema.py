"""The schema of a home's database: made once, then brought forward, never back.

    prepare(connection, path, probe, migrate=True)

`PRAGMA user_version` is the version of a database; `schema.sql` makes one of `SCHEMA_VERSION`, and
`migrations/NNN.sql` leads from version NNN-1 to NNN. All that are missing run in one transaction, before anything else
reads the home, so that one which is interrupted has changed nothing. Before it, the old database is copied to
`mains.db.vN.bak` beside it (only the newest copy is kept), so that the Mains before can be gone back to.

Raises JournalError for a home of a newer Mains, DiskFullError when there is no room for the copy and the change.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from importlib import resources
from pathlib import Path

from mains.errors import DiskFullError, JournalError
from mains.kernel.ports import Probe

SCHEMA_VERSION = 4
_LEAST_FREE_BYTES = 64 * 1024  # SQLite's index of the write-ahead log has 32 KiB


def told(path: Path, error: sqlite3.Error) -> JournalError:
    """What SQLite says when a database cannot be opened, as an error of ours."""
    name = getattr(error, "sqlite_errorname", "")
    no_room = name.startswith("SQLITE_IOERR") and shutil.disk_usage(path.parent).free < _LEAST_FREE_BYTES
    if name == "SQLITE_FULL" or no_room:
        return DiskFullError(f"{path.parent}: the disk is full; nothing was written", hint="make room, then try again")
    return JournalError(f"{path}: {error}", hint="`mains doctor` says what is wrong")


def version_of(connection: sqlite3.Connection) -> int:
    """The schema version of a database; 0 for an empty one."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def stored_version(path: Path) -> int:
    """The schema version of a database file, which is not changed. Raises JournalError."""
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as reader:
            return version_of(reader)
    except sqlite3.Error as error:
        raise told(path, error) from error


def prepare(connection: sqlite3.Connection, path: Path, probe: Probe, *, migrate: bool) -> None:
    """Make the schema, or bring it to `SCHEMA_VERSION`; without `migrate`, an older one is refused."""
    version = version_of(connection)
    if version == SCHEMA_VERSION:
        return
    if version > SCHEMA_VERSION:
        raise JournalError(
            f"{path}: written by a newer Mains (schema version {version}; this one knows {SCHEMA_VERSION})",
            hint="use the newer Mains; it keeps a copy of what it found, mains.db.vN.bak, which the older one can read",
        )
    if version == 0:
        _run(connection, _text("schema.sql"), SCHEMA_VERSION, probe)
        return
    if not migrate:
        raise JournalError(
            f"{path}: written by an older Mains (schema version {version}, this one has {SCHEMA_VERSION})",
            hint="`mains up` brings it forward and keeps a copy",
        )
    _bring_forward(connection, path, version, probe)


def copies(path: Path) -> list[Path]:
    """The copies that migrations left beside a database, unfinished ones included."""
    return sorted(path.parent.glob(f"{path.name}.v*.bak*"))


def _bring_forward(connection: sqlite3.Connection, path: Path, version: int, probe: Probe) -> None:
    _check_room(path)
    copy = path.with_name(f"{path.name}.v{version}.bak")
    _copy(connection, copy)
    probe.at("migrate.copied")
    steps = [_text(f"migrations/{step:03}.sql") for step in range(version + 1, SCHEMA_VERSION + 1)]
    try:
        _run(connection, "\n".join(steps), SCHEMA_VERSION, probe)
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
            raise _no_room(path, str(error)) from error
        raise JournalError(
            f"{path}: cannot be brought to schema version {SCHEMA_VERSION}: {error}; nothing was changed",
            hint="use the Mains that wrote this home, and report this",
        ) from error
    for old in copies(path):
        if old != copy:
            old.unlink()


def _run(connection: sqlite3.Connection, script: str, version: int, probe: Probe) -> None:
    """All of a script, or nothing of it."""
    try:
        connection.executescript(f"BEGIN IMMEDIATE;\n{script}\n;PRAGMA user_version = {version};")
        probe.at("migrate.commit.before")
        connection.execute("COMMIT")
        probe.at("migrate.commit.after")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _check_room(path: Path) -> None:
    """Raises DiskFullError when the disk has no room for a copy of the database and for its change."""
    files = (path, path.with_name(f"{path.name}-wal"))
    needed = 2 * sum(file.stat().st_size for file in files if file.exists())
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise _no_room(path, f"{needed:,} bytes are needed, {free:,} are free")


def _no_room(path: Path, why: str) -> DiskFullError:
    text = f"{path}: no room to bring it to schema version {SCHEMA_VERSION}: {why}; nothing was changed"
    return DiskFullError(text, hint="make room on this disk, then try again")


def _copy(connection: sqlite3.Connection, target: Path) -> None:
    """A whole and durable copy of the database, or none."""
    unfinished = target.with_name(f"{target.name}.part")
    unfinished.unlink(missing_ok=True)
    os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with contextlib.closing(sqlite3.connect(unfinished)) as to:
        connection.backup(to)
    with unfinished.open("rb") as file:
        os.fsync(file.fileno())
    unfinished.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _text(name: str) -> str:
    return resources.files("mains.kernel").joinpath(name).read_text(encoding="utf-8")
