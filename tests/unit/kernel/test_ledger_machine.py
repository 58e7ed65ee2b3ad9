"""Accounts, windows and calls of others through the public doors, against a model that adds up whole holds.

The model keeps holds and limits, no counters: what is used of a limit is summed anew from the holds of its window. The
clock goes forward, over midnights, summer time and ends of months, and back; the kernel is killed (its files are copied
while it runs, and the copy boots). After each step the desk must say of every limit what the model says; at the end
the database is counted by `bench.recount`, and by the kernel's own reckoning.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from bench.recount import recount, window_start_ms
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from tests.unit.kernel.lives import Lives

import mains
from mains.errors import LimitError, UsageError
from mains.kernel import audit, reckon
from mains.kernel.billing import Budget, Unit, Window
from mains.kernel.desk import Desk
from mains.kernel.ports import Usage
from mains.program import local_zone

INPUT_NANO, OUTPUT_NANO = 1_000, 2_000
LEAST = 16
REACH_MS = round(mains.Settings().model_timeout_s * 1_000)
NAP_MS = 16_000  # after so long the timers have looked at the clock again, however it was set
CONFIGURATION = """default_engine = "http"
[engines.http]
kind = "openai"
url = "http://192.0.2.1/v1"
model = "m"
[engines.http.price]
input = 1
output = 2
[settings]
accounts_max = 50
"""
ZONES = ("", "UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Apia", "Australia/Lord_Howe")
MOMENTS = (  # before a midnight somewhere, before summer time begins and ends, before a month and a year end
    "2026-03-28T22:59:30", "2026-03-29T00:59:30", "2026-10-25T00:59:30", "2026-11-01T05:59:30", "2026-11-30T22:59:30",
    "2026-12-31T23:59:30", "2027-02-28T23:59:30", "2027-01-03T18:29:30",
)  # fmt: skip
SPANS_MS = (1, 1_000, 31_000, 3_600_000, 86_400_000, 8 * 86_400_000)
OPEN = ("held", "dispatched")
amounts = st.integers(1, 400) | st.sampled_from([1, 15, 16, 17, 10**6])


@dataclass
class Held:
    """A hold as the model knows it: its time is over at `due_ms` at the earliest, at `late_ms` at the latest."""

    account: str
    at_ms: int
    tokens: int
    nano: int
    due_ms: int
    late_ms: int
    state: str = "held"
    spent: tuple[int, int] = (0, 0)

    def counts(self, unit: Unit) -> tuple[int, int]:
        """What it holds and what it used, in this unit."""
        at = 0 if unit == "tokens" else 1
        return ((self.tokens, self.nano)[at], 0) if self.state in OPEN else (0, self.spent[at])


@dataclass
class Model:
    """Accounts, limits and holds."""

    parents: dict[str, str] = field(default_factory=lambda: {"home": ""})
    zones: dict[str, str] = field(default_factory=lambda: {"home": ""})
    most: dict[tuple[str, Unit, Window], int] = field(default_factory=dict)
    added: dict[tuple[str, Unit, Window, int], int] = field(default_factory=dict)
    holds: dict[int, Held] = field(default_factory=dict)

    def chain(self, account: str) -> Iterator[str]:
        while account:
            yield account
            account = self.parents[account]

    def zone(self, account: str) -> str:
        return next((self.zones[each] for each in self.chain(account) if self.zones[each]), "")

    def start_ms(self, key: tuple[str, Unit, Window], at_ms: int) -> int:
        return window_start_ms(key[2], self.zones[key[0]], at_ms)

    def stands(self, key: tuple[str, Unit, Window], now_ms: int) -> tuple[int, int, int]:
        """The most with what was added, what is used, what is held: of the window of `now_ms`."""
        account, unit, _ = key
        start_ms = self.start_ms(key, now_ms)
        held = used = 0
        for hold in self.holds.values():
            if account in self.chain(hold.account) and self.start_ms(key, hold.at_ms) == start_ms:
                holds, uses = hold.counts(unit)
                held, used = held + holds, used + uses
        return self.most[key] + self.added.get((*key, start_ms), 0), used, held

    def granted(self, account: str, input_tokens: int, cap: int, now_ms: int) -> int | None:
        """How much output a hold gets; None: it is refused."""
        least = min(LEAST, cap)
        for key in self.most:
            if key[0] not in self.chain(account):
                continue
            most, used, held = self.stands(key, now_ms)
            left = most - used - held
            if key[1] == "money":
                if input_tokens * INPUT_NANO + least * OUTPUT_NANO > left:
                    return None
                cap = min(cap, (left - input_tokens * INPUT_NANO) // OUTPUT_NANO)
            elif input_tokens + least > left:
                return None
            else:
                cap = min(cap, left - input_tokens)
        return cap


def cost(input_tokens: int, output_tokens: int) -> int:
    return input_tokens * INPUT_NANO + output_tokens * OUTPUT_NANO


def _configure(home: Path) -> None:
    (home / "mains.toml").write_text(CONFIGURATION)


class Accounts(RuleBasedStateMachine):
    """A real home, its desk, and the model beside it."""

    names = Bundle("names")
    holds = Bundle("holds")

    def __init__(self) -> None:
        super().__init__()
        self.lives = Lives(1_774_738_000_000, _configure, lambda home: mains.open(home, clock=self.lives.clock))
        self.clock, self.run = self.lives.clock, self.lives.run
        self.model = Model()
        self.keys = 0
        self.lives.boot()

    @property
    def desk(self) -> Desk:
        return self.lives.desk

    def states(self) -> dict[int, str]:
        with contextlib.closing(sqlite3.connect(self.lives.home / "mains.db")) as connection:
            return dict(connection.execute("SELECT id, state FROM hold"))

    def look(self, due: bool = False) -> None:
        """Take note of holds that expired by their timers; with `due`, all whose time is over must have."""

        async def looked() -> dict[int, str]:
            while True:
                states = await asyncio.to_thread(self.states)
                late = [
                    n for n, h in self.model.holds.items() if h.late_ms <= self.clock.now_ms() and states[n] in OPEN
                ]
                if not due or not late:
                    return states
                await asyncio.sleep(0)

        for number, state in self.run(looked()).items():
            hold = self.model.holds[number]
            if state != hold.state:
                assert hold.state in OPEN
                assert hold.due_ms <= self.clock.now_ms(), "it expired before its time"
                assert state == ("posted" if hold.state == "dispatched" else "expired")
                hold.state, hold.spent = state, (hold.tokens, hold.nano) if state == "posted" else (0, 0)

    @initialize(target=names)
    def home_is_there(self) -> str:
        return "home"

    @rule(target=names, under=names, zone=st.sampled_from(ZONES))
    def add(self, under: str, zone: str) -> str:
        name = f"a{len(self.model.parents)}"
        try:
            self.run(self.desk.account_add(name, under=under, zone=zone))
        except LimitError:
            return "home"
        self.model.parents[name], self.model.zones[name] = under, zone
        return name

    @rule(
        account=names,
        unit=st.sampled_from(["tokens", "money"]),
        window=st.sampled_from(["total", "day", "week", "month"]),
        most=amounts | st.none(),
    )
    def limit(self, account: str, unit: Unit, window: Window, most: int | None) -> None:
        key = (account, unit, window)
        most = most and most * (1 if unit == "tokens" else 1_500)
        self.run(self.desk.budget_set(account, [Budget(unit, window, most)]))
        if most is None:
            self.model.most.pop(key, None)
            self.model.added = {at: added for at, added in self.model.added.items() if at[:3] != key}
            return
        if key not in self.model.most and (unit, window) != ("tokens", "total"):
            self.model.zones[account] = self.model.zone(account) or local_zone()
        self.model.most[key] = most

    @rule(account=names, unit=st.sampled_from(["tokens", "money"]), amount=amounts)
    def top_up(self, account: str, unit: Unit, amount: int) -> None:
        keys = [key for key in self.model.most if key[:2] == (account, unit)]
        amount *= 1 if unit == "tokens" else 1_500
        tokens, nano = (amount, 0) if unit == "tokens" else (0, amount)
        try:
            self.run(self.desk.topup(account, tokens=tokens, nano=nano))
        except UsageError:
            assert not keys
            return
        assert keys
        for key in keys:
            if key[1:] == ("tokens", "total"):
                self.model.most[key] += amount
            else:
                at = (*key, self.model.start_ms(key, self.clock.now_ms()))
                self.model.added[at] = self.model.added.get(at, 0) + amount

    @rule(target=holds, account=names, input_tokens=st.integers(0, 200), cap=amounts, timeout_s=st.integers(1, 600))
    def hold(self, account: str, input_tokens: int, cap: int, timeout_s: int) -> int:
        self.look()
        now_ms, want = self.clock.now_ms(), self.model.granted(account, input_tokens, cap, self.clock.now_ms())
        self.keys += 1
        work = self.desk.hold(
            account, input_tokens, cap, engine="http", model="m", key=f"k{self.keys}", timeout_s=timeout_s
        )
        try:
            taken = self.run(work)
        except LimitError as error:
            assert want is None, error
            return 0
        assert want is not None, "a hold above a limit was granted"
        assert (taken.output_tokens_max, taken.tokens) == (want, input_tokens + want)
        assert taken.nano == cost(input_tokens, want)
        due_ms = now_ms + timeout_s * 1_000
        self.model.holds[taken.id] = Held(account, now_ms, taken.tokens, taken.nano, due_ms, due_ms)
        return taken.id

    @rule(number=holds)
    def send(self, number: int) -> None:
        if number:
            self.look()
            hold = self.model.holds[number]
            with contextlib.suppress(*([] if hold.state in OPEN else [UsageError])):
                self.run(self.desk.hold_sent(number))
            hold.state = "dispatched" if hold.state == "held" else hold.state

    @rule(number=holds, used=st.none() | st.tuples(st.integers(0, 300), st.integers(0, 300)), exact=st.booleans())
    def settle(self, number: int, used: tuple[int, int] | None, exact: bool) -> None:
        """Less, equal, more or unknown; again after the end, when it is an adjustment."""
        if not number:
            return
        self.look()
        hold = self.model.holds[number]
        if exact and used is not None:
            used = (hold.tokens - min(hold.tokens, used[1]), min(hold.tokens, used[1]))
        usage = used and Usage(input_tokens=used[0], output_tokens=used[1])
        self.run(self.desk.settle(number, usage))
        if used is not None:
            hold.spent = (sum(used), cost(*used))
        elif hold.state in OPEN:
            hold.spent = (hold.tokens, hold.nano)
        hold.state = "posted" if hold.state in OPEN else hold.state

    @rule(number=holds)
    def void(self, number: int) -> None:
        if number:
            self.look()
            hold = self.model.holds[number]
            with contextlib.suppress(*([] if hold.state in (*OPEN, "voided") else [UsageError])):
                self.run(self.desk.void(number))
            hold.state = "voided" if hold.state in OPEN else hold.state

    @rule(span_ms=st.sampled_from(SPANS_MS))
    def pass_time(self, span_ms: int) -> None:
        self.clock.advance(span_ms)
        self.look(due=True)

    @rule(moment=st.sampled_from(MOMENTS))
    def set_clock(self, moment: str) -> None:
        """Forward or back, as a person or the network does; then a moment passes."""
        at_ms = int(datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp() * 1_000)
        self.clock.jump(at_ms - self.clock.now_ms())
        self.clock.advance(NAP_MS)
        for hold in self.model.holds.values():  # no hold lasts longer from the kernel's look on
            hold.due_ms = min(hold.due_ms, at_ms + REACH_MS)
            hold.late_ms = min(hold.late_ms, at_ms + NAP_MS + REACH_MS)
        self.look(due=True)

    @rule()
    def crash(self) -> None:
        """What a killed kernel leaves is what stands in its files; calls that were out are charged whole."""
        self.look()
        self.lives.crash()
        for hold in self.model.holds.values():
            if hold.state == "dispatched":
                hold.state, hold.spent = "posted", (hold.tokens, hold.nano)
        self.look()

    @invariant()
    def accounts_are_the_models(self) -> None:
        if not self.lives.up:
            return
        self.look()
        for account in self.model.parents:
            seen = {(limit.unit, limit.window): limit for limit in self.run(self.desk.account(account)).limits}
            assert set(seen) == {key[1:] for key in self.model.most if key[0] == account}
            for (unit, window), limit in seen.items():
                most, used, held = self.model.stands((account, unit, window), self.clock.now_ms())
                assert (limit.most + limit.added, limit.used, limit.held) == (most, used, held), (account, unit, window)

    def teardown(self) -> None:
        try:
            if self.lives.up:
                assert reckon.verify(self.desk.journal) == []
                assert audit.verify(self.desk.journal) == []
                self.lives.halt()
                open_ = {n for n, h in self.model.holds.items() if h.state in OPEN}
                faults = recount(self.lives.home / "mains.db")
                assert [f for f in faults if not any(f"hold {n} is still" in f for n in open_)] == []
        finally:
            self.lives.close()


TestAccounts = Accounts.TestCase
TestAccounts.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
