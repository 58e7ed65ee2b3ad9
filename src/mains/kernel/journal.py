"""The journal: the single writer of a home's database, and the one truth.

    value = await journal.commit(op, name)      op(tx) runs in the writer's transaction, in a savepoint of its own
    journal.rows(query, parameters)             any thread, on that thread's own connection

Obligations of an operation: it decides before it writes (a refusal is a MainsError and undoes only itself), does no
other I/O, and is short: statements run on the event loop, only the COMMIT (its fsync) waits in a thread. What arrives
while a commit is under way is committed together by the next (group commit, WAL, synchronous=FULL).
`on_commit` is called with every process an acknowledged batch changed, in the order of the changes, before any of the
batch's callers goes on: memory follows the disk, never leads it.

Failure: DiskFullError when the disk is full (the batch is undone, the journal goes on); any other error of the disk
is a JournalError and the journal is dead: what is on disk after a failed fsync is unknown, so nothing may be written.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import sqlite3
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import MsgspecError

from mains.errors import DiskFullError, JournalError, KernelPanic, LimitError, MainsError
from mains.kernel.ports import NoProbe, Notice, Probe
from mains.kernel.process import Process
from mains.kernel.schema import prepare, told
from mains.kernel.tx import Mark, Row, Tx, decode_process, load_queries
from mains.settings import Settings

T = TypeVar("T")
_LOOK = 10_000  # steps of SQLite's machine between two looks at the clock: some tenths of a millisecond
Connect = Callable[..., sqlite3.Connection]
"""The door to the store: `sqlite3.connect`, or one behind which a test keeps a disk that fails."""
_OF_ONE_OPERATION = (
    MainsError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, MsgspecError,
    sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, sqlite3.ProgrammingError,
)  # fmt: skip
"""What undoes only the operation that raised it: a refusal, or a value that nobody foresaw. A disk's error is neither,
and a KernelPanic ends the writer."""


class Batch(msgspec.Struct, frozen=True):
    """What an acknowledged batch did: processes as it left them (in order), events, the earliest timer it armed."""

    changed: list[Process]
    notices: list[Notice]
    armed_ms: int | None


class _Job:
    __slots__ = ("bounded", "error", "future", "name", "op", "value")

    def __init__(self, op: Callable[[Tx], Any], name: str, future: asyncio.Future[Any], bounded: bool) -> None:
        self.bounded = bounded
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
        connect: Connect | None = None,
        *,
        migrate: bool = True,
    ) -> None:
        self.path = path
        self._connect = connect or sqlite3.connect
        self._settings = settings
        self.now_ms = now_ms
        self._on_commit = on_commit
        self._probe = probe or NoProbe()
        self._queries = load_queries()
        self._local = threading.local()
        self._readers: list[sqlite3.Connection] = []
        self._waiting: deque[_Job] = deque()
        self._orders = 0  # of them (and of the batch under way), those from outside
        self._dead: BaseException | None = None
        self._closed = False
        self._connection = self._open(migrate)
        self._tx = Tx(self._connection, self._queries)
        self._checkpointed: int = (self._tx.one("counter_get", "checkpoint_seq") or (0,))[0]
        self._loop = asyncio.get_running_loop()
        self._fsync = ThreadPoolExecutor(1, "mains-commit")
        self._arrived = asyncio.Event()
        self._writer = self._loop.create_task(self._write(), name="journal writer")

    # the callers' side

    def commit(self, op: Callable[[Tx], T], name: str, *, bounded: bool = False) -> asyncio.Future[T]:
        """Run `op` in the writer's transaction; the future has its value once that is durable.

        `name` names the crash points around it. Raises what `op` raised, DiskFullError, JournalError, or (when
        `bounded`, as orders from outside are; turns are bounded by slots) LimitError when too many wait.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        if self._dead or self._closed:
            future.set_exception(JournalError(f"journal: halted: {self._dead or 'closed'}"))
        elif bounded and self._orders >= self._settings.commits_queued_max:
            future.set_exception(LimitError(f"journal: {self._orders} orders wait already (commits_queued_max)"))
        else:
            self._orders += bounded
            self._waiting.append(_Job(op, name, future, bounded))
            self._arrived.set()
        return future

    def _acknowledge(self, jobs: list[_Job]) -> None:
        tx = self._tx
        told = False
        try:
            if tx.notices or tx.armed_ms is not None:
                self._on_commit(Batch(tx.changed, tx.notices, tx.armed_ms))
            told = True
        finally:
            if not told:  # our bug: what is written stands, but memory does not follow it any more
                self._dead = self._dead or sys.exception() or KernelPanic("nobody was told of a commit")
                for job in self._waiting:
                    job.error = JournalError(f"journal: halted: {self._dead}")
                jobs = [*jobs, *self._waiting]
                self._waiting.clear()
            self._answer(jobs)

    def _answer(self, jobs: list[_Job]) -> None:
        for job in jobs:
            self._orders -= job.bounded
            if job.future.done():
                continue  # its caller was cancelled; the commit stands all the same
            if job.error is not None:
                job.future.set_exception(job.error)
            else:
                job.future.set_result(job.value)

    # the writer

    async def _write(self) -> None:
        """Commit what has arrived, batch after batch, until the journal is closed and nothing is left."""
        while self._waiting or not self._closed:
            if not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            most = min(len(self._waiting), self._settings.commits_per_batch_max)
            await self._batch([self._waiting.popleft() for _ in range(most)])

    async def _batch(self, jobs: list[_Job]) -> None:
        tx = self._tx
        tx.begin(self.now_ms())
        mark = tx.mark()
        ended = False
        try:
            checkpointed = self._run(tx, jobs)
            self._point("commit.before", jobs)
            await self._loop.run_in_executor(self._fsync, self._connection.execute, "COMMIT")
            self._checkpointed = checkpointed
            self._point("commit.after", jobs)
            ended = True
        except (sqlite3.Error, JournalError) as error:
            self._undo(jobs, error, mark)
            ended = True
        finally:  # a bug in an operation ends the writer, but never leaves a caller waiting
            if not ended:
                self._undo([*jobs, *self._waiting], sys.exception() or KernelPanic("a batch was left open"), mark)
                jobs += self._waiting
            self._acknowledge(jobs)

    def _run(self, tx: Tx, jobs: list[_Job]) -> int:
        """Run the operations of a batch; the event of the last checkpoint, once all this is committed."""
        if self._dead:
            raise JournalError(f"journal: halted: {self._dead}")
        self._connection.execute("BEGIN IMMEDIATE")
        for job in jobs:
            self._savepoint(tx, job)
        if tx.seq - self._checkpointed < self._settings.checkpoint_events:
            return self._checkpointed
        tx.run("checkpoint_copy", self._checkpointed)  # what changed since the last one
        tx.run("counter_put", "checkpoint_seq", tx.seq)
        return tx.seq

    def _savepoint(self, tx: Tx, job: _Job) -> None:
        mark = tx.mark()
        self._connection.execute("SAVEPOINT op")
        try:
            job.value = job.op(tx)
        except _OF_ONE_OPERATION as refusal:
            if isinstance(refusal, JournalError):
                raise
            self._connection.execute("ROLLBACK TO op")
            tx.back(mark)
            job.error = refusal
        self._connection.execute("RELEASE op")

    def _undo(self, jobs: list[_Job], error: BaseException, mark: Mark) -> None:
        """Nobody in the batch is acknowledged. Only a full disk lets the journal live on."""
        full = getattr(error, "sqlite_errorname", "") == "SQLITE_FULL"
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error as worse:  # the callers are told all the same
            full, error = False, worse
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

    def _point(self, name: str, jobs: list[_Job]) -> None:
        for job in jobs:
            self._probe.at(f"{job.name}.{name}")

    # readers

    def _reader(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            uri = f"{self.path.absolute().as_uri()}?mode=ro"
            connection = self._connect(uri, uri=True, timeout=10, check_same_thread=False, isolation_level=None)
            self._local.connection = connection
            self._readers.append(connection)
        return connection

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Everything that this thread reads within is of one moment, whatever is committed meanwhile; within another
        snapshot, of the moment of that one."""
        connection = self._reader()
        if connection.in_transaction:
            yield
            return
        connection.execute("BEGIN")
        try:
            yield
        finally:
            connection.execute("COMMIT")

    @contextlib.contextmanager
    def until(self, end_s: float) -> Iterator[None]:
        """What this thread reads within ends with a LimitError once `time.monotonic()` is past `end_s`."""
        connection = self._reader()
        self._local.end_s = end_s
        connection.set_progress_handler(lambda: time.monotonic() > end_s, _LOOK)
        try:
            yield
        finally:
            connection.set_progress_handler(None, _LOOK)
            self._local.end_s = math.inf

    def scan(self, query: str, *parameters: Any) -> Iterator[Row]:
        """Rows of a named query, one after the other, on this thread's own connection. Read it to its end."""
        if time.monotonic() > getattr(self._local, "end_s", math.inf):
            raise LimitError("it takes too long")
        try:
            yield from self._reader().execute(self._queries[query], parameters)
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorname", "") == "SQLITE_INTERRUPT":
                raise LimitError("it takes too long") from error
            raise JournalError(f"{self.path}: {error}") from error

    def rows(self, query: str, *parameters: Any) -> list[Row]:
        """All rows of a named query."""
        return list(self.scan(query, *parameters))

    def processes(self, query: str, *parameters: Any) -> list[Process]:
        """The processes that a named query selects."""
        return [decode_process(body) for (body,) in self.rows(query, *parameters)]

    def process(self, pid: int) -> Process | None:
        """The process as it was last committed."""
        found = self.processes("process_get", pid) if 0 < pid < 1 << 63 else []
        return found[0] if found else None

    def checkpoint_seq(self) -> int:
        """The event as of which the checkpoint holds the process table (0: none yet)."""
        rows = self.rows("counter_get", "checkpoint_seq")
        return int(rows[0][0]) if rows else 0

    # opening and closing

    def _open(self, migrate: bool) -> sqlite3.Connection:
        try:
            connection = self._connect(
                self.path, isolation_level=None, check_same_thread=False, cached_statements=256, timeout=5
            )
            with contextlib.ExitStack() as unless_ready:
                unless_ready.callback(connection.close)
                self._make_ready(connection, migrate)
                unless_ready.pop_all()
        except sqlite3.Error as error:
            raise told(self.path, error) from error
        return connection

    def _make_ready(self, connection: sqlite3.Connection, migrate: bool) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA fullfsync = ON")
        connection.execute("PRAGMA secure_delete = ON")  # what is erased is overwritten
        connection.execute(f"PRAGMA wal_autocheckpoint = {self._settings.wal_pages}")
        connection.execute(f"PRAGMA cache_size = -{self._settings.page_cache_bytes // 1024}")
        prepare(connection, self.path, self._probe, migrate=migrate)

    async def close(self) -> None:
        """Commit what is queued, then end the writer and the readers."""
        self._closed = True
        self._arrived.set()
        await asyncio.wait([self._writer])
        self._writer.exception()  # a bug that ended it: those who waited were told (`_undo`)
        self._fsync.shutdown()
        for reader in self._readers:
            reader.close()
        self._readers.clear()
        self._connection.close()  # the last one: SQLite moves the write-ahead log into the database
