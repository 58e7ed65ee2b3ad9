"""Processes that share limits: whatever happens, nobody waits or stands for want of room when there is room.

Accounts in a tree, all processes of one size, an engine whose calls end when the test says so (with less, as much or
more than was held, or failing), limits that come, change and go, top-ups, days that pass, processes that are killed,
calls from outside, processes that are paused, and kernels that are killed and boot again. When all is quiet, each
process that waits (quota) or stands (breaker) must lack room under one of its limits; no limit is exceeded but by
overruns, and both counts of the ledger agree.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from bench.recount import recount
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.unit.kernel.lives import Lives

import mains
from mains.errors import EngineError, LimitError, Spent, UsageError
from mains.kernel import audit, reckon
from mains.kernel.billing import Budget, Window
from mains.kernel.desk import Desk
from mains.kernel.ports import Reply, Request, Signal, Usage
from mains.kernel.process import Process, State
from mains.testing import ScriptedEngine

DAY_MS = 86_400_000
PROGRAM = """---
name: short
description: says one thing
max_tokens: 64
---
Say it.
"""
TREE = (("acme", "home"), ("a", "acme"), ("b", "acme"))
NAMES = st.sampled_from(["home", "acme", "a", "b"])
WINDOWS = st.sampled_from(["total", "day", "week"])
AMOUNTS = st.sampled_from([20, 83, 84, 100, 170, 255, 700])  # around the size of a call (84 tokens) and its multiples
OUTSIDE: dict[str, Any] = {"engine": "gate", "model": "m", "timeout_s": 300}
_PATIENCE_S = 5.0


def _configure(home: Path) -> None:
    (home / "short.md").write_text(PROGRAM)


class Room(RuleBasedStateMachine):
    """A real home with an engine in the test's hands."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[asyncio.Future[Usage]] = []
        self.keys, self.holds = 0, list[int]()  # of calls from outside
        self.lives = Lives(1_777_636_800_000, _configure, self.opened)
        self.clock, self.run = self.lives.clock, self.lives.run
        self.lives.boot()
        for name, under in TREE:
            self.run(self.desk.account_add(name, under=under, zone="UTC"))

    @property
    def desk(self) -> Desk:
        return self.lives.desk

    def opened(self, home: Path) -> AbstractAsyncContextManager[Desk]:
        """A life of its own calls: those of the one before are nobody's."""
        self.calls = []
        return mains.open(
            home, clock=self.clock, engines=[ScriptedEngine.of(self.answer, slots=100)],
            settings=mains.Settings(
                model_attempts_max=1_000, breaker_failures=1_000,
                retention_days=36_500,  # `recount` knows nothing of who was removed
            ),
        )  # fmt: skip

    def answer(self, request: Request) -> Coroutine[Any, Any, Reply]:
        self.calls.append(call := self.lives.loop.create_future())

        async def answered() -> Reply:
            return Reply("it", usage=await call)

        return answered()

    @rule(account=NAMES, many=st.integers(1, 4))
    def spawn(self, account: str, many: int) -> None:
        for _ in range(many):
            self.run(self.desk.spawn(self.lives.home / "short.md", account="" if account == "home" else account))

    @rule(account=NAMES, window=WINDOWS, most=AMOUNTS | st.none())
    def limit(self, account: str, window: Window, most: int | None) -> None:
        self.run(self.desk.budget_set(account, [Budget("tokens", window, most)]))

    @rule(account=NAMES, amount=AMOUNTS)
    def top_up(self, account: str, amount: int) -> None:
        limits = self.run(self.desk.account(account)).limits
        try:
            self.run(self.desk.topup(account, tokens=amount))
        except UsageError:
            assert not limits

    @rule(at=st.integers(0, 10), used=st.sampled_from([1, 40, 84, 100, 400]) | st.none(), spent=st.sampled_from(Spent))
    def end_a_call(self, at: int, used: int | None, spent: Spent) -> None:
        """One of the calls ends: with so many tokens, or failing (then it is made again after a time)."""
        calls = [call for call in self.calls if not call.done()]
        if not calls:
            return
        call = calls[at % len(calls)]
        if used is None:
            call.set_exception(EngineError("it broke", retryable=True, spent=spent))
        else:
            call.set_result(Usage(input_tokens=used // 2, output_tokens=used - used // 2))

    @rule(span_ms=st.sampled_from([60_000, 600_000, DAY_MS, 7 * DAY_MS]))
    def pass_time(self, span_ms: int) -> None:
        self.clock.advance(span_ms)

    @rule(at=st.integers(0, 10))
    def kill(self, at: int) -> None:
        alive = self.run(self.desk.ps())
        if alive:
            pid = alive[at % len(alive)].pid
            try:
                self.run(self.desk.signal(pid, Signal.KILL))
            except UsageError:
                assert self.run(self.desk.outcome(pid)).state == "EXITED", "its call ended, and it was faster"

    @rule(at=st.integers(0, 10), sign=st.sampled_from([Signal.STOP, Signal.CONT]))
    def pause_or_go_on(self, at: int, sign: Signal) -> None:
        alive = self.run(self.desk.ps())
        if alive:
            with contextlib.suppress(UsageError):  # it has ended since
                self.run(self.desk.signal(alive[at % len(alive)].pid, sign))

    @rule(account=NAMES, tokens=st.sampled_from([20, 84, 255]))
    def hold_from_outside(self, account: str, tokens: int) -> None:
        """A call that somebody else makes; refused where there is no room, or others wait for it."""
        self.keys += 1
        with contextlib.suppress(LimitError):
            hold = self.run(self.desk.hold(account, 1, tokens - 1, key=f"{self.keys}", **OUTSIDE))
            self.holds.append(hold.id)

    @rule(used=st.sampled_from([1, 84, 400]), sent=st.booleans())
    def settle_one_from_outside(self, used: int, sent: bool) -> None:
        """In time, or after it was over by time or by a crash."""
        if self.holds:
            hold = self.holds.pop(0)
            with contextlib.suppress(UsageError):  # it has ended
                if sent:
                    self.run(self.desk.hold_sent(hold))
            self.run(self.desk.settle(hold, Usage(output_tokens=used)))

    @rule()
    def crash(self) -> None:
        self.lives.crash()

    @invariant()
    def nobody_lacks_what_is_there(self) -> None:
        if self.lives.up and (wrong := self.run(self._quiet())):
            raise AssertionError(wrong)

    async def _quiet(self) -> list[str]:
        """Look until nobody moves and nobody lacks what is there; what is wrong when that does not come."""
        wrong: list[str] = []
        end_s = time.monotonic() + _PATIENCE_S
        while time.monotonic() < end_s:
            before = self.desk.journal.rows("event_last")
            wrong = [fault for p in self.desk.journal.processes("process_live") if (fault := await self._fault(p))]
            if not wrong and self.desk.journal.rows("event_last") == before:
                return []
            await asyncio.sleep(0)
        return wrong or ["it never comes to rest"]

    async def _fault(self, p: Process) -> str:
        if p.state is State.READY:
            return f"process {p.pid} is ready, and the engine has a slot"
        if p.fault == "error":
            return f"process {p.pid} stands with an error: {p.detail}"
        if p.paused or (p.quota < 0 and p.fault != "breaker"):
            return ""
        views = [await self.desk.account(self._name(account)) for account in p.accounts]
        lefts = [limit.most + limit.added - limit.used - limit.held for view in views for limit in view.limits]
        return (
            f"process {p.pid} wants {p.wanted} and has {lefts}: {p.reason}"
            if min(lefts, default=p.wanted) >= p.wanted
            else ""
        )

    def _name(self, account: int) -> str:
        names = {row[0]: row[2] for row in self.desk.journal.rows("account_all_named")}
        name: str = names.get(account, str(account))
        return name

    def teardown(self) -> None:
        try:
            if self.lives.up:
                while self.holds:
                    self.settle_one_from_outside(1, sent=False)
                assert reckon.verify(self.desk.journal) == []
                assert audit.verify(self.desk.journal) == []
                self.lives.halt()
                assert [
                    f for f in recount(self.lives.home / "mains.db", in_flight=True) if not f.startswith("lost")
                ] == []
        finally:
            self.lives.close()


TestRoom = Room.TestCase
TestRoom.settings = settings(
    max_examples=15, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
