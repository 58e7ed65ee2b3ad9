"""The routes of accounts and of the meter.

    GET  accounts, account?name=NAME             POST accounts {name, under, zone, unknown_price}
    POST account {name, unknown_price}
    POST budgets {account, limits}               POST topups {account, tokens, nano, key}
    GET  meter[?by=...&account=...&from_ms=N&to_ms=N], statement?account=NAME&month=2026-11

An account is named in the query or the body, never in the path: `home/digest` is one name.
"""

from __future__ import annotations

from typing import Annotated, get_args

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from mains.daemon.body import body_of, number_of, respond
from mains.errors import UsageError
from mains.kernel.billing import Budget, By
from mains.kernel.desk import Desk

_BYS: tuple[By, ...] = get_args(By)
_INTEGER_MAX = 2**63 - 1
_LIMITS_MAX = 8  # two units, four windows


class AccountOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a new account: the arguments of `AccountDesk.account_add`."""

    name: str
    under: str = ""
    zone: str = ""
    unknown_price: str = ""


class AccountChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a change of an account: the arguments of `AccountDesk.account_set`."""

    name: str
    unknown_price: str


class BudgetOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `budgets`: limits to set, or to take away."""

    account: str
    limits: Annotated[list[Budget], msgspec.Meta(max_length=_LIMITS_MAX)]


class TopupOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a top-up, in tokens or in nano-units of the home's currency; the same `key` again changes nothing."""

    account: str
    tokens: int = 0
    nano: int = 0
    key: str = ""


class Accounts:
    """The routes that order and ask about accounts."""

    def __init__(self, desk: Desk, bytes_max: int) -> None:
        self._desk = desk
        self._bytes_max = bytes_max

    async def add(self, request: Request) -> Response:
        order = await body_of(request, AccountOrder, self._bytes_max)
        return respond(
            await self._desk.account_add(
                order.name, under=order.under, zone=order.zone, unknown_price=order.unknown_price
            )
        )

    async def list(self, _: Request) -> Response:
        return respond(await self._desk.accounts())

    async def account(self, request: Request) -> Response:
        return respond(await self._desk.account(_named(request, "name")))

    async def set(self, request: Request) -> Response:
        order = await body_of(request, AccountChange, self._bytes_max)
        return respond(await self._desk.account_set(order.name, unknown_price=order.unknown_price))

    async def budget_set(self, request: Request) -> Response:
        order = await body_of(request, BudgetOrder, self._bytes_max)
        for limit in order.limits:
            _check(limit.most or 0)
        return respond(await self._desk.budget_set(order.account, order.limits))

    async def topup(self, request: Request) -> Response:
        order = await body_of(request, TopupOrder, self._bytes_max)
        _check(order.tokens)
        _check(order.nano)
        return respond(await self._desk.topup(order.account, tokens=order.tokens, nano=order.nano, key=order.key))

    async def meter(self, request: Request) -> Response:
        by = next((each for each in _BYS if each == request.query_params.get("by", "")), None)
        if by is None:
            raise UsageError(f"`by` must be one of {', '.join(filter(None, _BYS))}")
        rows = await self._desk.meter(
            by=by,
            account=request.query_params.get("account", ""),
            from_ms=number_of(request, "from_ms"),
            to_ms=number_of(request, "to_ms"),
        )
        return respond(rows)

    async def statement(self, request: Request) -> Response:
        return respond(await self._desk.statement(_named(request, "account"), _named(request, "month")))


def _named(request: Request, name: str) -> str:
    """A text in the query; an empty one is for who reads it to refuse. Raises UsageError when it is not given."""
    text: str | None = request.query_params.get(name)
    if text is None:
        raise UsageError(f"`{name}` is missing")
    return text


def _check(number: int) -> None:
    """Raises UsageError for a number that no journal can hold."""
    if abs(number) > _INTEGER_MAX:
        raise UsageError(f"{number:.3e} is more than can be counted")
