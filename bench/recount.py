"""The ledger of a database counted again, by other means than the kernel's own (`mains.kernel.reckon`).

    recount(database)     every violation, in words; an empty list when there is none

It reads the tables with plain SQL and trusts no counter. Entries are added up in their order, so that each hold is
judged by the limits, top-ups and charges at its own place in the journal:

    granted    with the hold, held + posted + overrun stay within each limit above it (total and windows, both units)
    overrun    what is posted of a hold never exceeds it; only an entry of its own (overrun, adjusted) goes beyond
    zero       each entry has the supply on one side; the home's and the supply's counters sum to zero in each unit
    ends       each hold ends once, as its state says; an open one belongs to a call in flight (`in_flight` allows that)
    counters   what each account counts is what its entries say
    lost       each process has ended well, waits for room, stands with an open breaker, or can still run

Databases from which processes were removed are not for it. The rows of a removed process are gone, its sums are not.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

HOME, SUPPLY = 0, -1
UNITS = ("tokens", "money")
_AFTER_HELD = {
    "held": (),
    "dispatched": (),
    "voided": ("released",),
    "expired": ("released",),
    "posted": ("released", "posted"),
}
_OPEN = ("held", "dispatched")


class Sums(msgspec.Struct):
    """What entries add up to in one unit."""

    held: int = 0
    posted: int = 0
    overrun: int = 0

    @property
    def whole(self) -> int:
        """What a limit bounds."""
        return self.held + self.posted + self.overrun

    def add(self, kind: str, amount: int) -> None:
        """Count one entry; `amount` is below zero when it goes back to the supply."""
        if kind in ("held", "released"):
            self.held += amount
        elif kind == "overrun" or (kind == "adjusted" and amount > 0):
            self.overrun += amount
        else:
            self.posted += amount


class Hold(NamedTuple):
    """A hold's row."""

    account: int
    state: str
    at_ms: int
    amounts: dict[str, int]


class Tables(NamedTuple):
    """What is read, as it stands in one moment."""

    accounts: dict[int, dict[str, Any]]
    chains: dict[int, tuple[int, ...]]
    holds: dict[int, Hold]
    limits: list[dict[str, Any]]  # events, in order
    processes: list[dict[str, Any]]


@contextlib.contextmanager
def copied(database: Path) -> Iterator[Path]:
    """A copy of a database with its write-ahead log: whoever died left both."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / database.name
        for suffix in ("", "-wal"):
            if (part := database.with_name(database.name + suffix)).exists():
                shutil.copy(part, copy.with_name(copy.name + suffix))
        yield copy


def recount(database: Path, *, in_flight: bool = False) -> list[str]:
    """Every violation in a copy of this database. `in_flight`: its kernel was killed, so calls may be out."""
    with copied(database) as copy, contextlib.closing(sqlite3.connect(copy)) as connection:
        connection.row_factory = sqlite3.Row
        connection.execute("BEGIN")
        if connection.execute("SELECT 1 FROM account WHERE gone_posted OR gone_overrun LIMIT 1").fetchone():
            return ["processes were removed from this database: their entries are gone"]
        counting = _Counting(_read(connection))
        for row in connection.execute("SELECT * FROM entry ORDER BY id"):
            counting.entry(row)
        return counting.end(in_flight=in_flight)


def charged(database: Path) -> dict[str, int]:
    """Holds by state, overrun entries, and the tokens charged in all."""
    with copied(database) as copy, contextlib.closing(sqlite3.connect(copy)) as connection:
        found = dict(connection.execute("SELECT state, count(*) FROM hold GROUP BY state").fetchall())
        overruns, tokens = connection.execute(
            "SELECT sum(kind = 'overrun'), sum(tokens) FILTER (WHERE kind IN ('posted', 'overrun')) FROM entry"
        ).fetchone()
        return found | {"overruns": overruns or 0, "tokens": tokens or 0}


def _read(connection: sqlite3.Connection) -> Tables:
    accounts = {row["id"]: dict(row) for row in connection.execute("SELECT * FROM account")}
    processes = [msgspec.json.decode(body) for (body,) in connection.execute("SELECT body FROM process ORDER BY pid")]
    chains = {account: tuple(_upward(account, accounts)) for account in accounts}
    chains |= {process["pid"]: tuple(process["accounts"]) for process in processes}
    holds = {
        row["id"]: Hold(row["account"], row["state"], row["at_ms"], {"tokens": row["tokens"], "money": row["nano"]})
        for row in connection.execute("SELECT * FROM hold")
    }
    bodies = connection.execute("SELECT body FROM event WHERE kind = 'limited' ORDER BY seq")
    return Tables(accounts, chains, holds, [msgspec.json.decode(body) for (body,) in bodies], processes)


def _upward(account: int, accounts: dict[int, dict[str, Any]]) -> Iterator[int]:
    yield account
    while account in accounts and accounts[account]["parent"] != account:
        yield (account := accounts[account]["parent"])


def window_start_ms(window: str, zone: str, at_ms: int) -> int:
    """The first moment of the day, week (from Monday) or month in which `at_ms` lies; 0 for a total."""
    if window == "total":
        return 0
    tz = ZoneInfo(zone or "UTC")
    day = datetime.fromtimestamp(at_ms / 1_000, tz).date()
    first = {"day": day, "week": day - timedelta(days=day.weekday()), "month": day.replace(day=1)}[window]
    return int(datetime(first.year, first.month, first.day, tzinfo=tz).timestamp() * 1_000)


class _Counting:
    """The state of the ledger between two entries, and what was wrong so far."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._limits = [event | {"added": event.get("added", 0)} for event in tables.limits]
        self._sums: dict[tuple[int, str], Sums] = defaultdict(Sums)
        self._windows: dict[tuple[int, str, str, int], Sums] = defaultdict(Sums)
        self._most: dict[tuple[int, str, str], int] = {
            (p["pid"], "tokens", "total"): p["budget"] for p in tables.processes if p.get("budget") is not None
        }
        self._added: dict[tuple[int, str, str, int], int] = {}
        self._kinds: dict[int, list[str]] = defaultdict(list)
        self._of_hold: dict[tuple[int, str], Sums] = defaultdict(Sums)
        self._spans = {(e["account"], e["unit"], e["window"]) for e in tables.limits} | set(self._most)
        self.faults: list[str] = []

    def entry(self, row: sqlite3.Row) -> None:
        """Count one entry; a hold is judged when it is granted."""
        while self._limits and self._limits[0]["entry"] < row["id"]:
            self._limit(self._limits.pop(0))
        number, kind = row["hold"], row["kind"]
        hold = self._tables.holds.get(number)
        if hold is None or {row["debit"], row["credit"]} != {hold.account, SUPPLY}:
            self.faults.append(f"zero: entry {row['id']} is not between hold {number}'s account and the supply")
            return
        sign = -1 if row["debit"] == SUPPLY else 1
        self._kinds[number].append(kind)
        for unit, amount in (("tokens", row["tokens"]), ("money", row["nano"])):
            self._of_hold[number, unit].add(kind, sign * amount)
            for account in self._tables.chains[hold.account]:
                self._count(account, unit, kind, sign * amount, number, hold)

    def _limit(self, event: dict[str, Any]) -> None:
        key = (event["account"], event["unit"], event["window"])
        if event["added"]:
            at = (*key, event.get("start_ms", 0))
            self._added[at] = self._added.get(at, 0) + event["added"]
        elif event["most"] is None:
            self._most.pop(key, None)
            self._added = {at: added for at, added in self._added.items() if at[:3] != key}
        else:
            self._most[key] = event["most"]

    def _count(self, account: int, unit: str, kind: str, amount: int, number: int, hold: Hold) -> None:
        self._sums[account, unit].add(kind, amount)
        for window in ("total", "day", "week", "month"):
            key = (account, unit, window)
            if key not in self._spans:
                continue
            start_ms = window_start_ms(window, self._tables.accounts[account]["zone"], hold.at_ms)
            sums = self._windows[*key, start_ms]
            sums.add(kind, amount)
            most = self._most.get(key)
            if kind != "held" or most is None or amount <= 0:
                continue
            most += self._added.get((*key, start_ms), 0)
            if sums.whole > most:
                self.faults.append(
                    f"granted: hold {number} makes {sums.whole:,} {unit} of account {account} ({window}), "
                    f"whose limit was {most:,}"
                )

    def end(self, *, in_flight: bool) -> list[str]:
        """What is wrong at the end, and all that was wrong before."""
        self._check_counters()
        flying = {p["asking"]["hold"] for p in self._tables.processes if p.get("asking")}
        for number, hold in self._tables.holds.items():
            self._check_hold(number, hold, in_flight=in_flight and number in flying)
        self._check_processes()
        return self.faults

    def _check_counters(self) -> None:
        names = {"tokens": ("held", "posted", "overrun"), "money": ("nano_held", "nano_posted", "nano_overrun")}
        for unit, (held, posted, overrun) in names.items():
            for account, row in self._tables.accounts.items():
                sums, found = self._sums[account, unit], (row[held], row[posted], row[overrun])
                if account != SUPPLY and found != (sums.held, sums.posted, sums.overrun):
                    self.faults.append(f"counters: account {account} counts {found} {unit}, its entries say {sums}")
            home, supply = self._tables.accounts[HOME], self._tables.accounts[SUPPLY]
            for name in (held, posted, overrun):
                if home[name] + supply[name]:
                    self.faults.append(
                        f"zero: {name} of the home and of the supply sum to {home[name] + supply[name]:,}"
                    )

    def _check_hold(self, number: int, hold: Hold, *, in_flight: bool) -> None:
        kinds = Counter(self._kinds[number])
        plain = Counter({kind: times for kind, times in kinds.items() if kind not in ("overrun", "adjusted")})
        if plain != Counter(("held", *_AFTER_HELD[hold.state])) or kinds["overrun"] > 1:
            self.faults.append(f"ends: hold {number} is {hold.state}, its entries are {dict(kinds)}")
        if hold.state in _OPEN and not in_flight:
            self.faults.append(f"ends: hold {number} is still {hold.state}")
        for unit in UNITS:
            sums, amount = self._of_hold[number, unit], hold.amounts[unit]
            if sums.posted > amount:
                self.faults.append(
                    f"overrun: {sums.posted:,} {unit} are posted of hold {number}, which held {amount:,}"
                )
            if hold.state not in _OPEN and sums.held:
                self.faults.append(f"ends: hold {number} is {hold.state} and still holds {sums.held:,} {unit}")

    def _check_processes(self) -> None:
        for p in self._tables.processes:
            state, reason = p["state"], p.get("reason", "")
            stands = state == "STOPPED" and reason.startswith("breaker")
            ended = state == "EXITED" and p.get("exit_code") == 0
            if not (ended or stands or state in ("NEW", "READY", "RUNNING", "WAITING")):
                self.faults.append(f"lost: process {p['pid']} is {state} ({reason or p.get('detail', '')})")
