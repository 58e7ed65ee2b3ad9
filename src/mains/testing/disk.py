"""A disk that fails when told to, behind the journal's door (`Kernel(connect=disk.connect)`).

The files are real, and so is SQLite; what fails is what the kernel is told, and what is on the platter after the power
went. `arm` plans one fault:

    full        the next statement that writes, or COMMIT, finds no room; SQLite undoes the transaction, or leaves it
    io          the next statement fails with an I/O error
    lost        COMMIT fails, and nothing of it is on the disk
    kept        COMMIT fails, and all of it is on the disk
    torn        the power goes in the middle of COMMIT: of what it wrote, some sectors are new, some old, some garbage

What an acknowledged COMMIT wrote is never torn: SQLite has had it flushed (`synchronous=FULL`, which the disk insists
on; the flush itself is left out, a file that no machine loses needs none).

`image(folder)` is the database as `kill -9` leaves it at this moment.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

SECTOR_BYTES = 512
FAULTS = ("full", "io", "lost", "kept", "torn")
_WRITES = ("INSERT", "UPDATE", "DELETE")


class _Connection(sqlite3.Connection):
    """A connection whose statements the disk sees first."""

    disk: Disk
    writes: bool

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if self.disk.dead:
            raise _error("SQLITE_IOERR", "disk I/O error")
        if not self.writes:
            return super().execute(sql, parameters)
        if sql == "PRAGMA synchronous = FULL":
            self.disk.flushes = True
            return super().execute("PRAGMA synchronous = OFF")
        if sql == "COMMIT":
            return self.disk.commit(self, super().execute)
        if self.disk.armed:
            self.disk.statement(sql, self, super().execute)
        return super().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Any, /) -> sqlite3.Cursor:
        if self.disk.armed:
            self.disk.statement(sql, self, super().execute)
        return super().executemany(sql, parameters)


class Disk:
    """One disk under one kernel. `on_commit` is called after each COMMIT that the kernel was told of as done."""

    def __init__(self, path: Path, chance: random.Random, on_commit: Callable[[], None]) -> None:
        self.path = path
        self.dead = False  # the world has ended: nothing is read or written any more
        self.flushes = False  # the kernel asked for synchronous=FULL
        self.armed = ""
        self.failed = ""  # the last fault that came to pass
        self._left = 0
        self._chance = chance
        self._on_commit = on_commit
        self.on_cut: Callable[[], None] = lambda: None

    def connect(self, database: Any, **options: Any) -> sqlite3.Connection:
        """As `sqlite3.connect`."""
        connection: _Connection = sqlite3.connect(database, factory=_Connection, **options)
        connection.disk = self
        connection.writes = not options.get("uri")
        return connection

    def arm(self, fault: str, after: int = 0, times: int = 1) -> None:
        """Let `fault` come to pass after so many statements; a full disk stays full for `times` of them."""
        self.armed = fault
        self._after = after
        self._left = times

    def statement(self, sql: str, connection: sqlite3.Connection, execute: Callable[[str], Any]) -> None:
        """A statement is about to run: raise sqlite3.OperationalError when that is what was planned."""
        if self.armed not in ("full", "io") or (self.armed == "full" and not sql.startswith(_WRITES)):
            return
        if self._after > 0:
            self._after -= 1
            return
        self._fail(connection, execute)

    def _fail(self, connection: sqlite3.Connection, execute: Callable[[str], Any]) -> None:
        fault, self.failed = self.armed, self.armed
        self._left -= 1
        if self._left <= 0:
            self.armed = ""
        if self._chance.random() < 0.5 and connection.in_transaction:
            execute("ROLLBACK")
        if fault == "full":
            raise _error("SQLITE_FULL", "database or disk is full")
        raise _error("SQLITE_IOERR_WRITE", "disk I/O error")

    def commit(self, connection: sqlite3.Connection, execute: Callable[[str], Any]) -> sqlite3.Cursor:
        """COMMIT, or what becomes of it."""
        fault = self.armed
        if fault and self._after > 0:
            self._after -= 1
            fault = ""
        if fault in ("full", "io"):
            self._fail(connection, execute)
        if fault == "lost":
            self.armed, self.failed = "", fault
            execute("ROLLBACK")
            raise _error("SQLITE_IOERR_FSYNC", "disk I/O error")
        if fault == "torn":
            self.armed, self.failed = "", fault
            before = self._files()
            execute("COMMIT")
            self._tear(before, self._files())
            self.on_cut()
        done: sqlite3.Cursor = execute("COMMIT")
        if fault == "kept":
            self.armed, self.failed = "", fault
            raise _error("SQLITE_IOERR_FSYNC", "disk I/O error")
        self._on_commit()
        return done

    def _files(self) -> tuple[bytes, bytes]:
        log = self.path.with_name(self.path.name + "-wal")
        return self.path.read_bytes(), log.read_bytes() if log.exists() else b""

    def _tear(self, before: tuple[bytes, bytes], after: tuple[bytes, bytes]) -> None:
        """Leave `torn` files beside the real ones, as a power loss within the commit may leave them.

        SQLite flushes the log before it touches the database. So either the log is torn and the database is as it
        was, or (where this commit moved the log into the database) the log is whole and the database is torn.
        """
        database, log = after
        if database == before[0]:
            log = self._mixed(before[1], log)
        else:
            database = self._mixed(before[0], database)
        self.torn = (database, log)

    def _mixed(self, old: bytes, new: bytes) -> bytes:
        """Sectors of `new` and `old` as chance has it, and garbage where there was nothing; perhaps cut short."""
        mixed = bytearray(new)
        for start in range(0, len(new), SECTOR_BYTES):
            end = min(start + SECTOR_BYTES, len(new))
            if old[start:end] == new[start:end] or self._chance.random() < 0.5:
                continue
            kept = old[start:end]  # SQLite counts on bytes that it does not write (SQLITE_IOCAP_POWERSAFE_OVERWRITE)
            mixed[start:end] = kept + self._chance.randbytes(end - start - len(kept))
        if len(new) > len(old) and self._chance.random() < 0.5:
            del mixed[self._chance.randint(len(old), len(new)) :]
        return bytes(mixed)

    def image(self, folder: Path) -> Path:
        """Copy the files, as they are or as they were torn, into `folder`; the path of the database there."""
        folder.mkdir()
        copy = folder / self.path.name
        torn: tuple[bytes, bytes] | None = getattr(self, "torn", None)
        if torn is not None:
            copy.write_bytes(torn[0])
            copy.with_name(copy.name + "-wal").write_bytes(torn[1])
            return copy
        for name in (self.path.name, self.path.name + "-wal"):
            if self.path.with_name(name).exists():
                shutil.copyfile(self.path.with_name(name), folder / name)
        return copy


def _error(name: str, text: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorname = name
    return error
