"""The baseline of `turns`: a bare group commit on SQLite, with nothing of Mains in it.

The same file system, WAL and `synchronous=FULL`, one writer thread; as many asyncio producers as there are processes,
each making two commits a turn. A batch is whatever has arrived; each commit has its savepoint. Two sizes of commit:

    events   one event row in each
    rows     every row that Mains writes in a turn, into the tables of its own schema
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import msgspec

Write = Callable[[sqlite3.Connection, int, int], None]
_EVENT = b"e" * 230  # an intent or a result as Mains encodes it
_PROCESS = b"p" * 900
_MESSAGE = b"m" * 110
_BATCH_MAX = 256


class Measured(msgspec.Struct, frozen=True):
    """A round: turns, how long they took, and the CPU time of all threads."""

    turns: int
    span_s: float
    cpu_s: float

    @property
    def per_s(self) -> float:
        """Turns a second."""
        return self.turns / self.span_s

    @property
    def cpu_us(self) -> float:
        """CPU time of one turn, in microseconds."""
        return 1e6 * self.cpu_s / self.turns


class _Writer:
    """The writer thread and its inbox."""

    def __init__(self, path: Path) -> None:
        self._loop = asyncio.get_running_loop()
        self._inbox: queue.SimpleQueue[list[tuple[Callable[[], None], asyncio.Future[None]]] | None] = (
            queue.SimpleQueue()
        )
        self._waiting: list[tuple[Callable[[], None], asyncio.Future[None]]] = []
        self.connection = _open(path)
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    def commit(self, op: Callable[[], None]) -> asyncio.Future[None]:
        future: asyncio.Future[None] = self._loop.create_future()
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append((op, future))
        return future

    def _flush(self) -> None:
        jobs, self._waiting = self._waiting, []
        self._inbox.put(jobs)

    def _write(self) -> None:
        while (jobs := self._inbox.get()) is not None:
            while len(jobs) < _BATCH_MAX and not self._inbox.empty():
                jobs += self._inbox.get() or []
            self.connection.execute("BEGIN IMMEDIATE")
            for op, _ in jobs:
                self.connection.execute("SAVEPOINT op")
                op()
                self.connection.execute("RELEASE op")
            self.connection.execute("COMMIT")
            self._loop.call_soon_threadsafe(_acknowledge, jobs)
        self.connection.close()

    def close(self) -> None:
        self._inbox.put(None)
        self._thread.join()


def _acknowledge(jobs: list[tuple[Callable[[], None], asyncio.Future[None]]]) -> None:
    for _, future in jobs:
        future.set_result(None)


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA wal_autocheckpoint = 4000")
    connection.execute("PRAGMA cache_size = -65536")
    schema = resources.files("mains.kernel").joinpath("schema.sql").read_text(encoding="utf-8")
    connection.executescript(f"BEGIN;{schema};COMMIT;")
    return connection


async def measure(path: Path, producers: int, turns: int, write: Write) -> Measured:
    """`turns` turns by each producer; the time from the first commit to the last acknowledgement."""
    writer = _Writer(path)
    connection = writer.connection
    _prepare(connection, producers)

    async def produce(pid: int) -> None:
        for turn in range(1, turns + 1):
            await writer.commit(lambda turn=turn: write(connection, pid, 2 * turn))  # type: ignore[misc]
            await writer.commit(lambda turn=turn: write(connection, pid, 2 * turn + 1))  # type: ignore[misc]

    start, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(produce(pid) for pid in range(1, producers + 1)))
    measured = Measured(producers * turns, time.perf_counter() - start, time.process_time() - cpu)
    writer.close()
    return measured


def _prepare(connection: sqlite3.Connection, producers: int) -> None:
    """A process and an account for each producer, the home's account and the supply."""
    connection.execute("BEGIN")
    for pid in range(1, producers + 1):
        row = (pid, 0, "", "READY", "", -1, 0, _PROCESS)
        connection.execute("INSERT INTO process VALUES (?, ?, ?, ?, ?, ?, ?, ?, '')", row)
    for account in range(-1, producers + 1):
        connection.execute("INSERT INTO account (id, parent) VALUES (?, 0)", (account,))
    connection.execute("COMMIT")


def events(connection: sqlite3.Connection, pid: int, step: int) -> None:
    """One commit of the baseline `events`."""
    connection.execute(
        "INSERT INTO event (at_ms, pid, kind, body, crc) VALUES (?, ?, ?, ?, ?)", (1, pid, "asked", _EVENT, step)
    )


def rows(connection: sqlite3.Connection, pid: int, step: int) -> None:
    """One commit of the baseline `rows`: an even step is an intent with its hold, an odd one a result, settled."""
    events(connection, pid, step)
    state = "READY" if step % 2 else "RUNNING"
    connection.execute(
        "UPDATE process SET state = ?, reason = ?, quota = ?, seq = ?, body = ? WHERE pid = ?",
        (state, "", -1, step, _PROCESS, pid),
    )
    moves = [(1, 0, 0, pid), (1, 0, 0, 0), (-1, 0, 0, -1)]
    connection.executemany(
        "UPDATE account SET held = held + ?, posted = posted + ?, overrun = overrun + ? WHERE id = ?", moves
    )
    hold = 1_000_000 * pid + step // 2
    if step % 2 == 0:
        connection.execute(
            "INSERT INTO hold (id, account, tokens, engine, state, at_ms) VALUES (?, ?, ?, ?, 'dispatched', ?)",
            (hold, pid, 1, "scripted", 1),
        )
        _entries(connection, hold, pid, "held")
        return
    connection.execute("UPDATE hold SET state = 'posted' WHERE id = ? AND state = 'dispatched'", (hold,))
    _entries(connection, hold, pid, "released", "posted")
    for name in (f"{step:032x}r", f"{step:032x}t"):  # as in a turn, processes of one program say the same
        connection.execute(
            "INSERT INTO page VALUES (?, ?, ?) ON CONFLICT (hash) DO NOTHING", (name, "message", _MESSAGE)
        )
    pages = [(pid, step, f"{step:032x}r"), (pid, step + 1, f"{step:032x}t")]
    connection.executemany("INSERT INTO context VALUES (?, ?, ?)", pages)


def _entries(connection: sqlite3.Connection, hold: int, pid: int, *kinds: str) -> None:
    for kind in kinds:
        connection.execute(
            "INSERT INTO entry (hold, kind, debit, credit, tokens, at_ms) VALUES (?, ?, ?, ?, ?, ?)",
            (hold, kind, pid, -1, 1, 1),
        )
