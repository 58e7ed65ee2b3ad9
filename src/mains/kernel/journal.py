"""The journal: the single writer of a home's database, and the one truth.

    value = await journal.commit(op)      op(tx) runs in the writer's thread, in a savepoint of its own
    journal.read(query, parameters)       any thread, on that thread's own connection

Obligations of an operation: it decides before it writes (a refusal is a MainsError and undoes only itself), does no
other I/O, and is short. Operations that arrive together commit together (group commit, WAL, synchronous=FULL).
`on_commit` is called on the event loop with every process an acknowledged batch changed, in the order of the
changes, before any of the batch's callers goes on: memory follows the disk, never leads it.

Failure: DiskFullError when the disk is full (the batch is undone, the journal goes on); any other error of the disk
is a JournalError and the journal is dead: SQLite's state after a failed fsync is unknown, so nothing may be written.

On disk (`schema.sql`): an event's `crc` is the CRC-32 of (seq, at_ms, pid, kind, body), seeded with the crc of the row
before, so that a changed, missing, added or moved row is found.
"""

from __future__ import annotations

import asyncio
import queue
import re
import sqlite3
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from mains.errors import DiskFullError, JournalError, KernelPanic, LimitError, MainsError
from mains.kernel.event import AnyEvent, apply
from mains.kernel.ports import NoProbe, Notice, Probe
from mains.kernel.process import Process
from mains.settings import Settings

T = TypeVar("T")
Row = tuple[Any, ...]
Mark = tuple[int, int, int, int, int]
SCHEMA_VERSION = 1

_encode = msgspec.json.Encoder().encode
_process = msgspec.json.Decoder(Process)
_event: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)


def _queries() -> dict[str, str]:
    text = resources.files("mains.kernel").joinpath("queries.sql").read_text(encoding="utf-8")
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
        self.live = row[0] if row else 0  # processes that have not exited
        self.now_ms = 0
        self.armed_ms: int | None = None  # the earliest timer that this batch armed
        self.changed: list[Process] = []
        self.notices: list[Notice] = []

    def run(self, query: str, *parameters: Any) -> sqlite3.Cursor:
        """Execute a named query."""
        return self._execute(self._queries[query], parameters)

    def one(self, query: str, *parameters: Any) -> Row | None:
        """The first row of a named query."""
        row: Row | None = self._execute(self._queries[query], parameters).fetchone()
        return row

    def many(self, query: str, rows: Sequence[Row]) -> None:
        """Execute a named query once for each row of parameters."""
        self._connection.executemany(self._queries[query], rows)

    def process(self, pid: int) -> Process | None:
        """The process as it stands in this transaction."""
        row = self.one("process_get", pid)
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
        body = _encode(after)
        if process is None:
            self.run(
                "process_put", after.pid, after.parent, after.spawned_by, after.state, after.reason,
                after.quota, self.seq, body,
            )  # fmt: skip
        else:
            self.run("process_update", after.state, after.reason, after.quota, self.seq, body, after.pid)
        self.changed.append(after)
        return after

    def mark(self) -> Mark:
        """Where this transaction stands, to go back to with `back`."""
        return self.seq, self._crc, self.live, len(self.changed), len(self.notices)

    def back(self, mark: Mark) -> None:
        """Forget what was written since `mark` (SQLite has undone it)."""
        self.seq, self._crc, self.live = mark[:3]
        del self.changed[mark[3] :]
        del self.notices[mark[4] :]


class Batch(msgspec.Struct, frozen=True):
    """What an acknowledged batch did: processes as it left them (in order), events, the earliest timer it armed."""

    changed: list[Process]
    notices: list[Notice]
    armed_ms: int | None


class _Job:
    __slots__ = ("error", "future", "name", "op", "value")

    def __init__(self, op: Callable[[Tx], Any], name: str, future: asyncio.Future[Any]) -> None:
        self.op = op
        self.name = name
        self.future = future
        self.value: Any = None
        self.error: BaseException | None = None


class Journal:
    """The writer and its readers. Open it with `Journal(path, ...)`, end it with `close()`."""

    def __init__(
        self,
        path: Path,
        settings: Settings,
        now_ms: Callable[[], int],
        on_commit: Callable[[Batch], None],
        probe: Probe | None = None,
    ) -> None:
        self.path = path
        self._settings = settings
        self._now_ms = now_ms
        self._on_commit = on_commit
        self._probe = probe or NoProbe()
        self._queries = _queries()
        self._local = threading.local()
        self._readers: list[sqlite3.Connection] = []
        self._waiting: list[_Job] = []
        self._inbox: queue.SimpleQueue[list[_Job] | None] = queue.SimpleQueue()
        self._dead: BaseException | None = None
        self._closed = False
        self._connection = self._open()
        self._tx = Tx(self._connection, self._queries)
        self._checkpointed = (self._tx.one("counter_get", "checkpoint_seq") or (0,))[0]
        self._loop = asyncio.get_running_loop()
        self._queued = 0
        self._thread = threading.Thread(target=self._write, name="mains-writer", daemon=True)
        self._thread.start()

    # the callers' side (event loop)

    def commit(self, op: Callable[[Tx], T], name: str) -> asyncio.Future[T]:
        """Run `op` in the writer's transaction; the future has its value once that is durable.

        `name` names the crash points around it. Raises what `op` raised, LimitError when too many wait,
        DiskFullError, or JournalError.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        if self._dead or self._closed:
            future.set_exception(JournalError(f"journal: halted: {self._dead or 'closed'}"))
            return future
        if self._queued >= self._settings.commits_queued_max:
            future.set_exception(LimitError(f"journal: {self._queued} commits wait already (commits_queued_max)"))
            return future
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._queued += 1
        self._waiting.append(_Job(op, name, future))
        return future

    def _flush(self) -> None:
        """Hand over everything that one round of the event loop has queued, at once: fewer wakes of two threads."""
        jobs, self._waiting = self._waiting, []
        if jobs:
            self._inbox.put(jobs)

    def _acknowledge(self, jobs: list[_Job], batch: Batch) -> None:
        self._queued -= len(jobs)
        if batch.notices:
            self._on_commit(batch)
        for job in jobs:
            if job.future.done():
                continue  # its caller was cancelled; the commit stands all the same
            if job.error is not None:
                job.future.set_exception(job.error)
            else:
                job.future.set_result(job.value)

    # the writer's side (its thread)

    def _write(self) -> None:
        while (jobs := self._inbox.get()) is not None:
            while len(jobs) < self._settings.commits_per_batch_max and not self._inbox.empty():
                more = self._inbox.get()
                if more is None:
                    self._inbox.put(None)
                    break
                jobs += more
            for start in range(0, len(jobs), self._settings.commits_per_batch_max):
                self._batch(jobs[start : start + self._settings.commits_per_batch_max])
        self._connection.close()

    def _batch(self, jobs: list[_Job]) -> None:
        tx = self._tx
        tx.changed, tx.notices, tx.armed_ms = [], [], None
        mark = tx.mark()
        durable = False
        try:
            if self._dead:
                raise JournalError(f"journal: halted: {self._dead}")
            self._connection.execute("BEGIN IMMEDIATE")
            tx.now_ms = self._now_ms()
            for job in jobs:
                self._savepoint(tx, job)
            self._checkpoint(tx)
            self._point("commit.before", jobs)
            self._connection.execute("COMMIT")
            self._point("commit.after", jobs)
            durable = True
        except (sqlite3.Error, JournalError) as error:
            self._undo(jobs, error, mark)
        finally:  # a bug in an operation ends this thread, but never leaves a caller waiting
            if not durable and self._connection.in_transaction:
                self._undo(jobs, sys.exception() or KernelPanic("batch left open"), mark)
            self._call_loop(jobs, Batch(tx.changed, tx.notices, tx.armed_ms))

    def _savepoint(self, tx: Tx, job: _Job) -> None:
        mark = tx.mark()
        self._connection.execute("SAVEPOINT op")
        try:
            job.value = job.op(tx)
        except MainsError as refusal:
            if isinstance(refusal, JournalError):
                raise
            self._connection.execute("ROLLBACK TO op")
            tx.back(mark)
            job.error = refusal
        self._connection.execute("RELEASE op")

    def _undo(self, jobs: list[_Job], error: BaseException, mark: Mark) -> None:
        """Nobody in the batch is acknowledged. Only a full disk lets the journal live on."""
        full = isinstance(error, sqlite3.OperationalError) and error.sqlite_errorname == "SQLITE_FULL"
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        self._tx.back(mark)
        if full:
            told: BaseException = DiskFullError(
                f"{self.path.parent}: the disk is full; nothing was written", hint="make room: work goes on by itself"
            )
        else:
            told = error if isinstance(error, JournalError) else JournalError(f"{self.path}: {error!r}")
            told.__cause__ = error
            self._dead = self._dead or told
        for job in jobs:
            job.error = told

    def _checkpoint(self, tx: Tx) -> None:
        """Copy what changed since the last checkpoint, so that a replay starts near the end."""
        if tx.seq - self._checkpointed < self._settings.checkpoint_events:
            return
        tx.run("checkpoint_copy", self._checkpointed)
        tx.run("counter_put", "checkpoint_seq", tx.seq)
        self._checkpointed = tx.seq

    def _point(self, name: str, jobs: list[_Job]) -> None:
        for job in jobs:
            self._probe.at(f"{job.name}.{name}")

    def _call_loop(self, jobs: list[_Job], batch: Batch) -> None:
        try:
            self._loop.call_soon_threadsafe(self._acknowledge, jobs, batch)
        except RuntimeError as error:  # the loop is closed: nobody is left to tell
            self._dead = self._dead or error

    # readers

    def scan(self, query: str, *parameters: Any) -> Iterator[Row]:
        """Rows of a named query, one after the other, on this thread's own connection. Read it to its end."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=10, check_same_thread=False)
            self._local.connection = connection
            self._readers.append(connection)
        try:
            yield from connection.execute(self._queries[query], parameters)
        except sqlite3.Error as error:
            raise JournalError(f"{self.path}: {error}") from error

    def rows(self, query: str, *parameters: Any) -> list[Row]:
        """All rows of a named query."""
        return list(self.scan(query, *parameters))

    def processes(self, query: str, *parameters: Any) -> list[Process]:
        """The processes that a named query selects."""
        return [_process.decode(body) for (body,) in self.rows(query, *parameters)]

    def process(self, pid: int) -> Process | None:
        """The process as it was last committed."""
        found = self.processes("process_get", pid)
        return found[0] if found else None

    def checkpoint_seq(self) -> int:
        """The event as of which the checkpoint holds the process table (0: none yet)."""
        rows = self.rows("counter_get", "checkpoint_seq")
        return int(rows[0][0]) if rows else 0

    # opening and closing

    def _open(self) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(
                self.path, isolation_level=None, check_same_thread=False, cached_statements=256, timeout=5
            )
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, SCHEMA_VERSION):
                raise JournalError(
                    f"{self.path}: schema version {version}, this Mains knows {SCHEMA_VERSION}",
                    hint="use the Mains that wrote this home, or a newer one",
                )
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA fullfsync = ON")
            connection.execute(f"PRAGMA wal_autocheckpoint = {self._settings.wal_pages}")
            connection.execute("PRAGMA cache_size = -65536")
            if version == 0:
                schema = resources.files("mains.kernel").joinpath("schema.sql").read_text(encoding="utf-8")
                connection.executescript(f"BEGIN;{schema};PRAGMA user_version = {SCHEMA_VERSION};COMMIT;")
        except sqlite3.Error as error:
            raise JournalError(f"{self.path}: {error}", hint="`mains doctor` says what is wrong") from error
        return connection

    def close(self) -> None:
        """Write what is queued, then end the writer and the readers. Blocks for the last commit."""
        self._flush()
        self._closed = True
        self._inbox.put(None)
        self._thread.join(timeout=60)
        for reader in self._readers:
            reader.close()
        self._readers.clear()
