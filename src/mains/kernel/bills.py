"""Bills: orders about accounts and limits, one transaction each. Each checks first; then it writes.

Raises UsageError, NotFoundError, LimitError; then nothing has changed.
"""

from __future__ import annotations

from collections.abc import Sequence

from mains.errors import UsageError
from mains.kernel import accounts, metering, timers
from mains.kernel.accounts import Place
from mains.kernel.billing import AccountView, Budget
from mains.kernel.birth import owner
from mains.kernel.calls import share_room
from mains.kernel.limits import HOME
from mains.kernel.metering import Scope
from mains.kernel.tx import Tx
from mains.kernel.world import World

_BUDGETS_MAX = 16


def account_add(tx: Tx, world: World, name: str, under: str, zone: str, unknown_price: str) -> AccountView:
    """Make a named account below another one (empty: below the home)."""
    number = accounts.add(tx, world.settings, name, under, zone, unknown_price)
    return metering.account_view(tx, accounts.place(tx, number), world.currency)


def account(tx: Tx, world: World, text: str) -> AccountView:
    """The account that a person means."""
    return metering.account_view(tx, accounts.find(tx, text), world.currency)


def account_set(tx: Tx, world: World, text: str, unknown_price: str) -> AccountView:
    """Whether an account's limits of money let calls pass whose price is not known (empty: as the account above)."""
    at = accounts.find(tx, text)
    accounts.set_price_rule(tx, at, unknown_price)
    return metering.account_view(tx, at, world.currency)


def scope(tx: Tx, world: World, text: str) -> tuple[Place, Scope]:
    """The account that a person means (empty: the home), and what counts in it."""
    at = accounts.find(tx, text or "home")
    return at, metering.scope_of(tx, at)


def budget_set(tx: Tx, world: World, text: str, budgets: Sequence[Budget], local_zone: str) -> AccountView:
    """Set limits of an account, or take them away; all of them or none. Who waits for room is looked at again."""
    if not 0 < len(budgets) <= _BUDGETS_MAX:
        raise UsageError(f"1 to {_BUDGETS_MAX} limits can be set at once, not {len(budgets)}")
    if len({(each.unit, each.window) for each in budgets}) < len(budgets):
        raise UsageError("a limit stands twice in one order", hint="give each unit and window once")
    sets = any(each.most is not None for each in budgets)
    at = accounts.find_or_open(tx, world.settings, text) if sets else accounts.find(tx, text)
    for each in budgets:
        accounts.limit(tx, accounts.place(tx, at.account), each, local_zone)
    return _roomier(tx, world, at)


def top_up(tx: Tx, world: World, text: str, tokens: int, nano: int, key: str) -> AccountView:
    """Give more room to the current windows of an account's limits of tokens, or of money, or of both.

    A `key` stands for this order: with the same one it is not carried out again, and the account is told as it stands.
    """
    if not (tokens or nano):
        raise UsageError("a top-up needs tokens or money")
    at = accounts.find(tx, text)
    ask = f"topup {at.account} {tokens} {nano}"
    if key and (row := tx.one("key_get", key)):
        if row[1] != ask:
            raise UsageError(f"the key `{key}` belongs to {owner(row[0])}", hint="take another key")
        return metering.account_view(tx, at, world.currency)
    if key:
        tx.run("key_insert", key, HOME, ask)
    if tokens:
        accounts.top_up(tx, at, "tokens", tokens)
    if nano:
        accounts.top_up(tx, at, "money", nano)
    return _roomier(tx, world, at)


def _roomier(tx: Tx, world: World, at: Place) -> AccountView:
    """Wake who was stopped for want of room, through the timers, which wake so many in a commit and no more."""
    for pid in accounts.stopped_below(tx, at.account):
        timers.arm(tx, timers.AT_ONCE, pid, timers.ROOM)  # until it fires, nobody calls the process stuck
    share_room(tx, (at.account,))
    return metering.account_view(tx, at, world.currency)
