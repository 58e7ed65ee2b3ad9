"""The desk for accounts: limits, the meter, and calls that somebody else makes. A part of `desk.Desk`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from mains.errors import UsageError
from mains.kernel import bills, foreign, metering
from mains.kernel.billing import AccountView, Budget, By, MeterRow, Statement
from mains.kernel.context import check_text
from mains.kernel.ledger import Charge, Hold
from mains.kernel.main import Kernel
from mains.kernel.ports import Usage
from mains.program import local_zone

T = TypeVar("T")
_MS_MAX = 10**18  # no clock shows more, and the database's integers do not hold much more


class AccountDesk:
    """What may be asked about accounts."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def account_add(self, name: str, *, under: str = "", zone: str = "", unknown_price: str = "") -> AccountView:
        """Make a named account below another one (empty: below the home)."""
        return await self._bill(bills.account_add, name, under, zone, unknown_price)

    async def accounts(self) -> list[AccountView]:
        """Named accounts and those of programs: a tree in order, the home first."""
        currency = self._kernel.world.currency
        return await self._kernel.order(lambda tx: metering.account_views(tx, currency), "accounts")

    async def account(self, name: str) -> AccountView:
        """An account: a name, NAME/PROGRAM, or a pid."""
        return await self._bill(bills.account, name)

    async def account_set(self, name: str, *, unknown_price: str) -> AccountView:
        """What an account's limits of money do about unknown prices: refuse, allow, or (empty) as the account above."""
        return await self._bill(bills.account_set, name, unknown_price)

    async def budget_set(self, account: str, limits: Sequence[Budget]) -> AccountView:
        """Set limits of an account, or take them away; all of them or none."""
        return await self._bill(bills.budget_set, account, limits, await asyncio.to_thread(local_zone))

    async def topup(self, account: str, *, tokens: int = 0, nano: int = 0, key: str = "") -> AccountView:
        """Give more room to the current window of each limit of an account, and wake who waits for it.

        The same key with the same top-up again changes nothing.
        """
        check_text("key", key)
        return await self._bill(bills.top_up, account, tokens, nano, key)

    async def meter(self, *, by: By = "", account: str = "", from_ms: int = 0, to_ms: int = 0) -> list[MeterRow]:
        """What ran and what it cost, summed by program, user, model or day (empty: by all but the day)."""
        for at_ms in (from_ms, to_ms):
            if type(at_ms) is not int or abs(at_ms) > _MS_MAX:
                raise UsageError(f"from_ms and to_ms are whole milliseconds since 1970, not {at_ms!r:.40}")
        at, scope = await self._bill(bills.scope, account)
        zone, currency = at.zone or await asyncio.to_thread(local_zone), self._kernel.world.currency
        return await asyncio.to_thread(metering.meter, self._kernel.journal, scope, by, from_ms, to_ms, zone, currency)

    async def statement(self, account: str, month: str) -> Statement:
        """A month (2026-11) of an account, a row for each day, program and model."""
        at, scope = await self._bill(bills.scope, account)
        zone, currency = at.zone or await asyncio.to_thread(local_zone), self._kernel.world.currency
        return await asyncio.to_thread(metering.statement, self._kernel.journal, at, scope, month, zone, currency)

    async def hold(
        self,
        account: str,
        input_tokens: int,
        output_tokens_max: int,
        *,
        engine: str,
        model: str,
        key: str,
        timeout_s: float,
    ) -> Hold:
        """Hold room for a call that somebody else makes. The same key with the same call gives the same hold."""
        for what, text in (("engine", engine), ("model", model), ("key", key)):
            check_text(what, text)
        if not 0 < timeout_s <= self._kernel.settings.model_timeout_s:  # which is no number is refused, too
            most = self._kernel.settings.model_timeout_s
            raise UsageError(f"timeout_s is above 0 and {most:g} at most (model_timeout_s), not {timeout_s}")
        for what, text in (("account", account), ("engine", engine), ("model", model), ("key", key)):
            check_text(what, text)
        ask = foreign.Ask(account, input_tokens, output_tokens_max, engine, model, key, round(timeout_s * 1_000))
        return await self._bill(foreign.take, ask)

    async def hold_sent(self, hold: int) -> None:
        """The call of a hold goes out now."""
        await self._kernel.order(lambda tx: foreign.send(tx, hold), "sent")

    async def settle(self, hold: int, usage: Usage | None) -> Charge:
        """What the call of a hold used (None: not known); after its end, what that changes."""
        return await self._kernel.order(lambda tx: foreign.settle(tx, hold, usage), "settle")

    async def void(self, hold: int) -> None:
        """The call of a hold did not happen."""
        await self._kernel.order(lambda tx: foreign.void(tx, hold), "void")

    async def _bill(self, op: Callable[..., T], *arguments: Any) -> T:
        """Commit an order about accounts. Raises UsageError for a name that is no text."""
        for text in arguments:
            if isinstance(text, str):
                check_text("name", text)
        world = self._kernel.world
        return await self._kernel.order(lambda tx: op(tx, world, *arguments), op.__name__)
