"""A transaction as operations see it: named queries, events, and the process table.

An event's `crc` is the CRC-32 of (seq, at_ms, pid, kind, body), seeded with the crc of the row before, so that a
changed, missing, added or moved row is found. SQL stands in the files of `_QUERIES`, by name: another database can have
its own.
"""

from __future__ import annotations

import re
import sqlite3
import zlib
from collections.abc import Sequence
from importlib import resources
from typing import Any

import msgspec

from mains.errors import JournalError
from mains.kernel.event import AnyEvent
from mains.kernel.fold import apply
from mains.kernel.ports import Notice
from mains.kernel.process import Process

Row = tuple[Any, ...]
_QUERIES = ("queries.sql", "readers.sql", "notes.sql", "segments.sql")
_KNOWN_MAX = 10_000  # accounts
Mark = tuple[int, int, int, int, int, int]

_encode = msgspec.json.Encoder().encode
_process = msgspec.json.Decoder(Process)
_event: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)


def load_queries() -> dict[str, str]:
    files = (resources.files("mains.kernel").joinpath(name) for name in _QUERIES)
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    return {name: sql.strip() for name, sql in zip(parts[1::2], parts[2::2], strict=True)}


def decode_event(body: bytes) -> AnyEvent:
    """An event from its row. Raises JournalError for bytes that are no event."""
    try:
        return _event.decode(body)
    except msgspec.DecodeError as error:
        raise JournalError(f"journal: an event cannot be read: {error}") from error


def decode_process(body: bytes) -> Process:
    """A process from its row."""
    return _process.decode(body)


def row_crc(before: int, seq: int, at_ms: int, pid: int, kind: str, body: bytes) -> int:
    """The checksum of an event's row, chained to that of the row before."""
    return zlib.crc32(body, zlib.crc32(f"{seq},{at_ms},{pid},{kind};".encode(), before))


class Tx:
    """An open transaction, as operations see it: named queries, events, and the process table."""

    def __init__(self, connection: sqlite3.Connection, queries: dict[str, str]) -> None:
        self._connection = connection
        self._execute = connection.execute
        self._queries = queries
        last: Row = self.one("event_last") or (0, 0)
        self.seq: int = last[0]
        self._crc: int = last[1]
        row = self.one("process_count_live")
        self.live: int = row[0] if row else 0  # processes that have not exited
        row = self.one("process_count_quota")
        self.quota_waiters: int = row[0] if row else 0
        self.unlimited: set[int] = set()  # accounts that are known to have no limit: nobody needs to read their rows
        self.budgets: dict[int, list[Row]] = {}  # account -> its rows of `budget`, which change when a person says so
        self.now_ms = 0
        self.armed_ms: int | None = None  # the earliest timer that this batch armed
        self.changed: list[Process] = []
        self.notices: list[Notice] = []

    def run(self, query: str, *parameters: Any) -> sqlite3.Cursor:
        """Execute a named query."""
        return self._execute(self._queries[query], parameters)

    def rows(self, query: str, *parameters: Any) -> list[Row]:
        """All rows of a named query."""
        return self.run(query, *parameters).fetchall()

    def one(self, query: str, *parameters: Any) -> Row | None:
        """The first row of a named query."""
        row: Row | None = self._execute(self._queries[query], parameters).fetchone()
        return row

    def many(self, query: str, rows: Sequence[Row]) -> None:
        """Execute a named query once for each row of parameters."""
        self._connection.executemany(self._queries[query], rows)

    def process(self, pid: int) -> Process | None:
        """The process as it stands in this transaction."""
        row = self.one("process_get", pid) if 0 < pid < 1 << 63 else None
        return _process.decode(row[0]) if row else None

    def processes(self, query: str, *parameters: Any) -> list[Process]:
        """The processes that a named query selects (it selects `body`)."""
        return [_process.decode(body) for (body,) in self.run(query, *parameters)]

    def append(self, pid: int, event: AnyEvent) -> None:
        """Write an event that changes no process."""
        body = _encode(event)
        kind: str = event.__struct_config__.tag  # type: ignore[assignment]
        seq = self.seq + 1
        self._crc = row_crc(self._crc, seq, self.now_ms, pid, kind, body)
        self.run("event_insert", seq, self.now_ms, pid, kind, body, self._crc)
        self.seq = seq
        self.notices.append(Notice(kind=kind, pid=pid, seq=seq, at_ms=self.now_ms))

    def happen(self, process: Process | None, *events: AnyEvent) -> Process:
        """Write events of one process and the process they lead to."""
        after = process
        for event in events:
            after = apply(after, event)
            self.append(after.pid, event)
        assert after is not None
        self.live += (process is None) - (after.exit_code is not None)
        self.quota_waiters += (after.quota >= 0) - (process is not None and process.quota >= 0)
        body = _encode(after)
        if process is None:
            self.run(
                "process_put", after.pid, after.parent, after.spawned_by, after.state, after.reason,
                after.quota, after.group, self.seq, body,
            )  # fmt: skip
        else:
            self.run("process_update", after.state, after.reason, after.quota, self.seq, body, after.pid)
        self.changed.append(after)
        return after

    def begin(self, now_ms: int) -> None:
        """A new batch, at this time."""
        self.now_ms = now_ms
        self.changed, self.notices, self.armed_ms = [], [], None
        if len(self.unlimited) + len(self.budgets) > _KNOWN_MAX:
            self._forget()

    def _forget(self) -> None:
        self.unlimited.clear()
        self.budgets.clear()

    def mark(self) -> Mark:
        """Where this transaction stands, to go back to with `back`."""
        return self.seq, self._crc, self.live, self.quota_waiters, len(self.changed), len(self.notices)

    def back(self, mark: Mark) -> None:
        """Forget what was written since `mark` (SQLite has undone it)."""
        self.seq, self._crc, self.live, self.quota_waiters = mark[:4]
        self._forget()
        del self.changed[mark[4] :]
        del self.notices[mark[5] :]
