"""The ledger against a simple model: accounts in a tree, holds in any order, usage of any size, both refusals."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import mains
from mains.errors import KernelPanic
from mains.kernel import ledger, reckon
from mains.kernel.journal import Journal
from mains.kernel.ledger import Charge, Hold, Label
from mains.kernel.limits import HOME, SUPPLY, Refusal
from mains.kernel.ports import Usage
from mains.kernel.tx import Tx

T = TypeVar("T")


@dataclass
class Account:
    """What the model knows of an account."""

    chain: tuple[int, ...]
    limit: int | None
    held: int = 0
    posted: int = 0
    overrun: int = 0

    @property
    def left(self) -> int | None:
        return None if self.limit is None else self.limit - self.posted - self.overrun - self.held


@dataclass
class Model:
    """The ledger in eight lines."""

    accounts: dict[int, Account] = field(default_factory=lambda: {HOME: Account((HOME,), None)})
    open: dict[int, tuple[int, int]] = field(default_factory=dict)  # hold -> account, tokens

    def above(self, account: int) -> list[Account]:
        return [self.accounts[each] for each in self.accounts[account].chain]

    def room(self, account: int) -> int | None:
        lefts = [a.left for a in self.above(account) if a.left is not None]
        return min(lefts) if lefts else None

    def end(self, hold: int, posted: int, overrun: int) -> None:
        account, tokens = self.open.pop(hold)
        for each in self.above(account):
            each.held -= tokens
            each.posted += posted
            each.overrun += overrun


class LedgerMachine(RuleBasedStateMachine):
    """A real journal file, and the model beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.journal = self.loop.run_until_complete(self._open())
        self.model = Model()
        self.next = 1

    async def _open(self) -> Journal:
        return Journal(Path(self.folder.name) / "mains.db", mains.Settings(), lambda: 5, lambda batch: None)

    def commit(self, op: Callable[[Tx], T]) -> T:
        async def committed() -> T:
            return await self.journal.commit(op, "test")

        return self.loop.run_until_complete(committed())

    @initialize()
    def boot(self) -> None:
        self.commit(ledger.open_home)
        self.commit(ledger.open_home)  # a second boot changes nothing

    @rule(at=st.integers(0, 20), limit=st.none() | st.integers(1, 600))
    @precondition(lambda self: len(self.model.accounts) < 7)
    def add_account(self, at: int, limit: int | None) -> None:
        parent = list(self.model.accounts)[at % len(self.model.accounts)]
        account, self.next = self.next, self.next + 1
        self.commit(lambda tx: ledger.open_account(tx, account, parent, limit))
        self.model.accounts[account] = Account((account, *self.model.accounts[parent].chain), limit)

    @rule(at=st.integers(0, 20), tokens=st.integers(0, 200), cap=st.integers(1, 200), least=st.integers(1, 20))
    @precondition(lambda self: len(self.model.accounts) > 1)
    def take(self, at: int, tokens: int, cap: int, least: int) -> None:
        account = list(self.model.accounts)[1:][at % (len(self.model.accounts) - 1)]
        chain = self.model.accounts[account].chain
        taken = self.commit(lambda tx: ledger.take(tx, chain, tokens, cap, least, Label("scripted")))
        room, wanted = self.model.room(account), tokens + min(least, cap)
        if room is not None and room < wanted:
            assert isinstance(taken, Refusal)
            short = [a for a in self.model.above(account) if a.left is not None and a.left < wanted]
            hopeless = [a for a in short if (a.left or 0) + a.held < wanted]
            assert taken.hopeless == bool(hopeless), "busy and hopeless were mistaken for each other"
            blamed = self.model.accounts[taken.limit.account]
            assert blamed in (hopeless or short)
            assert (taken.wanted, taken.limit.left, taken.limit.held) == (wanted, blamed.left, blamed.held)
            return
        assert isinstance(taken, Hold)
        assert taken.output_tokens_max == (cap if room is None else min(cap, room - tokens))
        assert taken.tokens == tokens + taken.output_tokens_max
        self.model.open[taken.id] = account, taken.tokens
        for each in self.model.above(account):
            each.held += taken.tokens
            assert each.left is None or each.left >= 0, "the model itself was overrun"

    @rule(at=st.integers(0, 20), used=st.none() | st.integers(0, 900))
    @precondition(lambda self: self.model.open)
    def post(self, at: int, used: int | None) -> None:
        hold = list(self.model.open)[at % len(self.model.open)]
        account, tokens = self.model.open[hold]
        chain = self.model.accounts[account].chain
        usage = None if used is None else Usage(used // 3, 0, used - used // 3)
        charged = self.commit(lambda tx: ledger.post(tx, chain, hold, usage))
        assert charged == Charge(tokens if used is None else used)
        self.model.end(hold, min(charged.tokens, tokens), max(0, charged.tokens - tokens))

    @rule(at=st.integers(0, 20))
    @precondition(lambda self: self.model.open)
    def void(self, at: int) -> None:
        hold = list(self.model.open)[at % len(self.model.open)]
        chain = self.model.accounts[self.model.open[hold][0]].chain
        self.commit(lambda tx: ledger.void(tx, chain, hold))
        self.model.end(hold, 0, 0)

    @invariant()
    def the_counters_are_those_of_the_model(self) -> None:
        rows = {row[0]: row[1:] for row in self.journal.rows("account_all")}
        if not rows:
            return
        for account, known in self.model.accounts.items():
            assert rows[account][1:7] == (known.limit, known.held, known.posted, known.overrun, 0, 0)
        home = self.model.accounts[HOME]
        assert rows[SUPPLY][1:7] == (None, -home.held, -home.posted, -home.overrun, 0, 0)
        entries = self.journal.rows("entry_all")
        assert all(tokens >= 0 for _, _, _, _, _, tokens, *_ in entries)
        assert all(SUPPLY in (debit, credit) for _, _, _, debit, credit, *_ in entries)

    def teardown(self) -> None:
        try:
            for hold in list(self.model.open):
                self.void(0)
                with pytest.raises(AssertionError):
                    assert hold in self.model.open
            # Without processes, all that verify may miss is who owns the accounts.
            assert [f for f in reckon.verify(self.journal) if "whether it is below" not in f] == []
        finally:
            self.loop.run_until_complete(self.journal.close())
            self.loop.close()
            self.folder.cleanup()


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)


async def test_a_hold_ends_once_and_only_by_its_own_account(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "mains.db", mains.Settings(), lambda: 0, lambda batch: None)

    def prepare(tx: Tx) -> int:
        ledger.open_home(tx)
        ledger.open_account(tx, 1, HOME, 500)
        ledger.open_account(tx, 2, HOME, 500)
        taken = ledger.take(tx, (1, HOME), 10, 20, 5, Label("e"))
        assert isinstance(taken, Hold)
        with pytest.raises(KernelPanic, match="not one of account 2"):
            ledger.post(tx, (2, HOME), taken.id, Usage(1))
        with pytest.raises(KernelPanic, match="not one of account 1"):
            ledger.void(tx, (1, HOME), 99)
        ledger.post(tx, (1, HOME), taken.id, Usage(12))
        with pytest.raises(KernelPanic, match="ended already"):
            ledger.void(tx, (1, HOME), taken.id)
        with pytest.raises(KernelPanic, match="account 3 does not exist"):
            ledger.take(tx, (3, HOME), 1, 1, 1, Label("e"))
        return taken.id

    await journal.commit(prepare, "test")
    assert journal.rows("account_get", 1) == [(500, 0, 12, 0, 0, "", "")]
    await journal.close()
