"""Every planted corruption is found: each column of each row changed, each row deleted, rows added and exchanged."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.kernel.world import World, call, calls, says, turn_of

import mains
from mains.errors import EngineError, JournalError, Spent
from mains.kernel import audit, reckon, retention
from mains.kernel.journal import Journal
from mains.kernel.ports import Reply, Request, ToolCall, Usage


async def _live(folder: Path) -> None:
    """A small life with every kind of event: calls, children, mail, a fork, failures, an overrun, a checkpoint."""
    world = World(folder)
    world.program("child", "inputs: {word: text}", "Child {{word}}.")
    failures = [
        EngineError("busy", retryable=True, spent=Spent.NOTHING),
        EngineError("broke", retryable=False, spent=Spent.UNKNOWN),
    ]

    @mains.device
    async def act(n: int) -> str:
        """Act."""
        return f"did {n}"

    def answer(request: Request) -> Reply:
        if request.messages[0].text.startswith("Child"):
            return Reply("a child's word", usage=Usage(5, 2, 2_000))
        if turn_of(request) == 1 and failures:
            raise failures.pop(0)
        turns = [
            calls(call("act", n=1), call("nonsense")),
            calls(*[call("spawn", program="child", inputs={"word": w}) for w in "ab"], call("wait")),
            Reply("", (call("receive"), ToolCall("x", "ask", '{"question": "?"}')), Usage(9, 3, 4)),
            says(""),
            calls(call("exit", results_of="call_1_1")),
        ]
        return turns[min(turn_of(request), 4)]

    async with world.open(answer, devices=[act], checkpoint_events=12) as kernel:
        path = world.program("p", "tools: [act, spawn(child), wait, receive, ask, exit]\ninputs: {doc: file}")
        (folder / "doc.txt").write_text("a document")
        pid = await kernel.spawn(path, {"doc": str(folder / "doc.txt")}, key="k", budget=50_000)

        async def broke() -> bool:
            world.clock.advance(1_000)
            return (await kernel.outcome(pid)).reason.startswith("error")

        await world.until(broke)
        await kernel.signal(pid, mains.Signal.CONT)
        await world.until_state(kernel, pid, "WAITING", "message")
        fork = await kernel.fork(pid)
        for each in (pid, fork):
            await world.until_state(kernel, each, "WAITING", "message")
            await kernel.send(each, "a letter")
            await world.until_state(kernel, each, "WAITING", "human")
            await kernel.answer(each, "yes")
            assert (await kernel.wait(each, 10)).result == "did 1"
        left = await kernel.spawn(world.program("open", "tools: [act]"), {"prompt": "later"}, paused=True)
        assert (await kernel.outcome(left)).state == "STOPPED"


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("life")
    asyncio.run(_live(folder))
    return folder / "home" / "mains.db"


class Lab:
    """A copy of that life's database, a journal that reads it, and a connection that spoils it."""

    def __init__(self, journal: Journal, connection: sqlite3.Connection) -> None:
        self.journal = journal
        self.connection = connection

    def rows(self, table: str) -> list[dict[str, Any]]:
        cursor = self.connection.execute(f"SELECT * FROM {table}")
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def columns(self, table: str) -> tuple[list[str], list[str]]:
        """The primary key of a table, and its other columns."""
        info = self.connection.execute(f"PRAGMA table_info({table})").fetchall()
        return [row[1] for row in info if row[5]], [row[1] for row in info if not row[5]]

    def delete(self, table: str, row: dict[str, Any]) -> None:
        keys = self.columns(table)[0]
        where = " AND ".join(f"{key} = ?" for key in keys)
        assert self.connection.execute(f"DELETE FROM {table} WHERE {where}", [row[k] for k in keys]).rowcount == 1

    def insert(self, table: str, row: dict[str, Any]) -> None:
        marks = ", ".join("?" * len(row))
        self.connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", list(row.values()))

    @contextlib.contextmanager
    def changed(self, table: str, old: list[dict[str, Any]], new: list[dict[str, Any]]) -> Iterator[None]:
        """`new` in the place of `old`; afterwards everything is as it was."""
        for row in old:
            self.delete(table, row)
        for row in new:
            self.insert(table, row)
        try:
            yield
        finally:
            for row in new:
                self.delete(table, row)
            for row in old:
                self.insert(table, row)


@pytest.fixture
async def lab(life: Path, tmp_path: Path) -> AsyncIterator[Lab]:
    path = tmp_path / "mains.db"
    shutil.copy(life, path)
    journal = Journal(path, mains.Settings(), lambda: 0, lambda batch: None)
    await journal.commit(lambda tx: retention.index(tx, 10_000), "index")
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    yield Lab(journal, connection)
    connection.close()
    await journal.close()


def _other(value: Any) -> list[Any]:
    """Values that are not this one, some of them very near."""
    match value:
        case int():
            return [value + 1, value - 1]
        case str():
            return [value + "x", ""] if value else ["x"]
        case bytes():
            return [value[:-1], value.replace(b"a", b"b", 1) if b"a" in value else value + b" ", value + b" "]
        case None:
            return [10_000_000]
    raise AssertionError(value)


def _spoiled(lab: Lab, table: str, told: set[str]) -> Iterator[tuple[str, list[dict[str, Any]], list[dict[str, Any]]]]:
    """What may be done to the rows of a table. `told`: columns that only inform, and nothing relies on."""
    keys, others = lab.columns(table)
    rows = lab.rows(table)
    assert len(rows) > 3
    for row in rows:
        name = f"{table} {[row[k] for k in keys]}"
        yield f"{name} deleted", [row], []
        for column in sorted({*keys, *others} - told):
            for value in _other(row[column]):
                changed = row | {column: value}
                if column not in keys or all(any(r[k] != changed[k] for k in keys) for r in rows):
                    yield f"{name}: {column} {row[column]!r:.60} -> {value!r:.60}", [row], [changed]
    for one, two in itertools.pairwise(rows):
        swapped = [two | {k: one[k] for k in keys}, one | {k: two[k] for k in keys}]
        if swapped != [one, two]:
            yield f"{table}: {[one[k] for k in keys]} and {[two[k] for k in keys]} exchanged", [one, two], swapped


def _verdict(verify: Any, journal: Journal) -> list[str]:
    try:
        found: list[str] = verify(journal)
    except JournalError as error:
        return [str(error)]
    return found


AUDITED = {
    "event": set[str](),
    "process": set[str](),
    "page": {"kind"},
    "context": set[str](),
    "page_use": set[str](),
    "page_part": set[str](),
}


@pytest.mark.parametrize("table", AUDITED)
async def test_verify_finds_every_change_of_what_the_journal_holds(lab: Lab, table: str) -> None:
    assert audit.verify(lab.journal) == []
    last = max(lab.rows("event"), key=lambda row: int(row["seq"]))
    missed = []
    for what, old, new in _spoiled(lab, table, AUDITED[table]):
        if table == "event" and not new and old == [last]:
            continue  # the note of the halt: nothing comes after it that would miss it
        if table == "process" and new and new[0]["body"] == old[0]["body"] + b" ":
            continue  # the same record
        with lab.changed(table, old, new):
            if not _verdict(audit.verify, lab.journal):
                missed.append(what)
    assert missed == []
    assert audit.verify(lab.journal) == [], "the lab did not tidy up"


LEDGER = {  # columns that nothing else depends on, or that say it again
    "account": {"name", "zone", "unknown_price", "warned", "budgets", "currency"},
    "hold": {
        "engine", "at_ms", "tariff", "payer", "program", "model", "key", "ask", "sent_ms", "input_tokens",
        "cached_tokens", "output_tokens", "over_tokens", "saved_nano", "off_peak_nano",
    },
    "entry": {"at_ms", "tariff"},
}  # fmt: skip


@pytest.mark.parametrize("table", LEDGER)
async def test_verify_finds_every_change_of_the_ledger(lab: Lab, table: str) -> None:
    assert reckon.verify(lab.journal) == []
    missed = []
    for what, old, new in _spoiled(lab, table, LEDGER[table]):
        if table != "account" and new and sorted(map(_content, old)) == sorted(map(_content, new)):
            continue  # equals exchanged; and the order of entries means nothing
        with lab.changed(table, old, new):
            if not _verdict(reckon.verify, lab.journal):
                missed.append(what)
    assert missed == []
    assert reckon.verify(lab.journal) == [], "the lab did not tidy up"


def _content(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(value for column, value in row.items() if column not in ("id", *LEDGER["hold"]))


@pytest.mark.parametrize("table", ["event", "process", "page", "context", "account", "hold", "entry"])
async def test_verify_finds_a_row_that_was_added(lab: Lab, table: str) -> None:
    keys, _ = lab.columns(table)
    row = lab.rows(table)[-1]
    match table:
        case "page":
            added = row | {"hash": "0" * 64}
        case "context":
            added = row | {"position": row["position"] + 1}
        case "account":
            added = row | {"id": row["id"] + 1_000, "name": ""}
        case _:
            added = row | {keys[0]: row[keys[0]] + 1_000}
    with lab.changed(table, [], [added]):
        assert _verdict(audit.verify, lab.journal) + _verdict(reckon.verify, lab.journal) != []


async def test_a_boot_replays_from_the_checkpoint_and_refuses_what_disagrees(life: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(life, home / "mains.db")
    connection = sqlite3.connect(home / "mains.db")
    start = connection.execute("SELECT value FROM counter WHERE name = 'checkpoint_seq'").fetchone()[0]
    last = connection.execute("SELECT max(seq) FROM event").fetchone()[0]
    assert 0 < start < last, "there is no checkpoint to start from"
    with connection:
        connection.execute("DELETE FROM event WHERE seq < ?", (start,))  # nobody needs them to boot
    async with mains.open(home, engines=[mains.ScriptedEngine.of(lambda r: says("x"))]) as kernel:
        assert (await kernel.outcome(1)).result == "did 1"
    with connection:
        [[body]] = connection.execute("SELECT body FROM process WHERE pid = 4").fetchall()
        connection.execute("UPDATE process SET body = ? WHERE pid = 4", (body.replace(b'"turn":', b'"turn":1'),))
    with pytest.raises(JournalError, match="does not agree"):
        async with mains.open(home):
            pass
    connection.close()
