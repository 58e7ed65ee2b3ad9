"""Accounts: the tree of who pays, the limits on it, what a new process spends from. Operations; they check, then write.

    add(tx, ...)                      a named account below another one
    find(tx, text)                    the account that a person means: a name, NAME/PROGRAM, or a pid
    payer(tx, name, program)          what a new process spends from: its program's account, and all above
    limit(tx, ...)                    set or take away a limit; what was used in its window counts already
    top_up(tx, ...)                   more room in the current window of each limit of a unit

    home > organisation > team > user > program > process

Names are unique in a home. A program has an account under each account that has run it, made at its first run.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from typing import get_args

import msgspec

from mains.errors import LimitError, NotFoundError, UsageError
from mains.kernel import limits, window
from mains.kernel.billing import Budget, Unit, Window
from mains.kernel.event import Limited, Opened
from mains.kernel.limits import HOME, NAMED, SUPPLY
from mains.kernel.process import Process, State
from mains.kernel.tx import Tx
from mains.program import is_name, zone_of
from mains.settings import Settings

MOST = 10**15  # sums of many such limits still fit into the database's 64 bits
_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,39}")
_RESERVED = ("home",)
_PID_DIGITS = 19


class Place(msgspec.Struct, frozen=True):
    """An account, and everything above it: `chain` begins with its own number and ends with the home's."""

    account: int
    name: str
    chain: tuple[int, ...]
    zone: str  # its own, or of the nearest above that has one; empty: nobody's

    @property
    def whose(self) -> str:
        """The account in words."""
        return f"account {self.name}" if self.name else f"process {self.account}"


def add(tx: Tx, settings: Settings, name: str, under: str, zone: str, unknown_price: str) -> int:
    """Make a named account; its number. Raises UsageError, NotFoundError, LimitError."""
    if not _NAME.fullmatch(name) or name in _RESERVED:
        hint = "a small letter first, then small letters, digits, `.`, `-` and `_`, at most 40; `home` is the home's"
        raise UsageError(f"`{name}` is no name for an account", hint=hint)
    _check_price_rule(unknown_price)
    _check_zone(zone)
    if under == name:
        raise UsageError(f"account {name} cannot be under itself")
    parent = named(tx, under or "home")
    if tx.one("account_named", name):
        raise UsageError(f"there is an account `{name}` already", hint=f"`mains account show {name}` shows it")
    if len(parent.chain) > settings.account_depth_max:
        raise LimitError(f"{parent.whose} is {len(parent.chain)} deep: no account below it (account_depth_max)")
    return _open(tx, settings, parent.account, name, zone, unknown_price)


def _check_price_rule(unknown_price: str) -> None:
    if unknown_price not in ("", "refuse", "allow"):
        raise UsageError(f"unknown_price is `refuse` or `allow`, not `{unknown_price}`")


def _check_zone(zone: str) -> None:
    try:
        zone_of(zone)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _open(tx: Tx, settings: Settings, parent: int, name: str, zone: str = "", unknown_price: str = "") -> int:
    row = tx.one("account_next")
    assert row is not None
    number = int(row[0])
    if number - NAMED >= settings.accounts_max:
        raise LimitError(f"there are {number - NAMED:,} named accounts already (accounts_max)")
    tx.run("account_add", number, parent, name, zone, unknown_price)
    tx.append(0, Opened(account=number, parent=parent, name=name))
    return number


def named(tx: Tx, name: str) -> Place:
    """The account of this name. Raises NotFoundError."""
    row = tx.one("account_named", name)
    if row is None:
        raise NotFoundError(f"there is no account `{name}`", hint="`mains account ls` lists accounts")
    return place(tx, row[0])


def place(tx: Tx, account: int) -> Place:
    """Where an account is."""
    if 0 < account < NAMED and (p := tx.process(account)):
        above = next(each for each in p.accounts if each >= NAMED or each == HOME)
        row = tx.one("account_place", account)
        return Place(account, "", p.accounts, (row[2] if row else "") or place(tx, above).zone)
    chain, name, zone = [account], "", ""
    while True:
        row = tx.one("account_place", chain[-1])
        if row is None:
            raise NotFoundError(f"there is no account {account}", hint="`mains account ls` lists accounts")
        parent, each, its_zone, _ = row
        name, zone = name or each, zone or its_zone
        if parent == chain[-1]:
            return Place(account, name, tuple(chain), zone)
        chain.append(parent)


def find(tx: Tx, text: str) -> Place:
    """The account that a person means. Raises NotFoundError."""
    if text.isascii() and text.isdecimal():
        pid = int(text) if len(text) < _PID_DIGITS else -1
        if tx.process(pid) is None:
            raise NotFoundError(
                f"there is no process {text[:_PID_DIGITS]}", hint="`mains ps --all` lists every process"
            )
        return place(tx, pid)
    return named(tx, text)


def find_or_open(tx: Tx, settings: Settings, text: str) -> Place:
    """The account that a person means; of a program that has not run yet, it is made."""
    name, slash, program = text.partition("/")
    if not slash or tx.one("account_named", text) is not None:
        return find(tx, text)
    if not is_name(program):
        raise UsageError(f"`{program}` is no program's name", hint="write ACCOUNT/PROGRAM, such as home/digest")
    return place(tx, _of_program(tx, settings, named(tx, name), program))


def set_price_rule(tx: Tx, at: Place, unknown_price: str) -> None:
    """Whether the limits of money of an account let calls pass whose price is not known. Raises UsageError."""
    _check_price_rule(unknown_price)
    tx.run("account_price_rule", unknown_price, at.account)


def payer(tx: Tx, settings: Settings, name: str, program: str) -> tuple[Place, tuple[int, ...]]:
    """The account of this name, and what a process of `program` under it spends from besides its own."""
    found = named(tx, name or "home")
    if "/" in found.name:
        raise UsageError(f"account {found.name} is a program's: nothing runs on it", hint="name the account above it")
    return found, (_of_program(tx, settings, found, program), *found.chain)


def program_account(tx: Tx, settings: Settings, parent: Process, program: str) -> tuple[int, ...]:
    """What a child of `parent` spends from, besides its own."""
    account = _of_program(tx, settings, place(tx, parent.tenant), program)
    return parent.accounts if account in parent.accounts else (account, *parent.accounts)


def _of_program(tx: Tx, settings: Settings, above: Place, program: str) -> int:
    name = f"{above.name}/{program}"
    row = tx.one("account_named", name)
    return int(row[0]) if row else _open(tx, settings, above.account, name)


def limit(tx: Tx, at: Place, budget: Budget, local_zone: str) -> None:
    """Set a limit, or take one away. Raises UsageError.

    What was used in the current window counts, so that a limit that is set at noon holds for the whole day; and what
    was used in each other one, should the clock go back. So a new limit looks at all holds that are kept. An account
    without a time zone gets `local_zone` with its first window.
    """
    most = budget.most
    if budget.unit not in get_args(Unit) or budget.window not in get_args(Window):
        told = f"a limit is of {' or '.join(get_args(Unit))}, by {', '.join(get_args(Window))}"
        raise UsageError(f"{told}, not of {budget.unit} by {budget.window}")
    if most is not None:
        _check_amount("a limit", most, budget.unit)
    if (budget.unit, budget.window) == ("tokens", "total"):
        tx.run("account_limit", most, 0, at.account)
    else:
        _limit(tx, at, budget, local_zone)
    limits.forget(tx, at.account)
    _note(tx, at, budget.unit, budget.window, most)


def _check_amount(what: str, amount: object, unit: Unit) -> None:
    """Raises UsageError for what cannot be a limit, whatever its type: a caller in Python may give anything."""
    most = MOST * (1 if unit == "tokens" else 1_000)
    if type(amount) is not int or not 0 < amount <= most:
        told = f"{amount:,}" if isinstance(amount, int | float) else repr(amount)[:40]
        raise UsageError(f"{what} is a number above zero (a whole one, {most:,} at most), not {told}")


def _limit(tx: Tx, at: Place, budget: Budget, local_zone: str) -> None:
    key = (at.account, budget.unit, budget.window)
    if budget.most is None:
        tx.run("budget_delete", *key)
        tx.run("used_delete", *key)
        tx.run("account_budgets", at.account)
        return
    known = any(row[:2] == (budget.unit, budget.window) for row in limits.budgets_of(tx, at.account))
    tx.run("budget_put", *key, budget.most)
    tx.run("used_unwarned", *key)
    if not known:
        zone = at.zone or local_zone
        tx.run("account_zone", zone, at.account)
        tx.run("account_budgets", at.account)
        _count(tx, at, budget, zone)


def _count(tx: Tx, at: Place, budget: Budget, zone: str) -> None:
    """Fill each window of a new limit with what was used in it: the clock may go back to one that is over."""
    held: dict[int, int] = defaultdict(int)
    posted: dict[int, int] = defaultdict(int)
    counts, tokens_wanted = _counts(tx, at), budget.unit == "tokens"
    for account, payer, program, state, at_ms, tokens, nano, used, cost in tx.run("hold_counts", _payer(tx, at)):
        if counts(account, payer, program):
            start_ms = window.span(budget.window, zone, at_ms).start_ms
            held[start_ms] += (tokens if tokens_wanted else nano) if state in ("held", "dispatched") else 0
            posted[start_ms] += used if tokens_wanted else cost
    for account, payer, program, at_ms, used, cost in (*tx.run("adjusted_counts"), *tx.run("tally_counts")):
        if counts(account, payer, program):
            posted[window.span(budget.window, zone, at_ms).start_ms] += used if tokens_wanted else cost
    for start_ms in held.keys() | posted.keys():
        key = (at.account, budget.unit, budget.window, start_ms)
        tx.one("used_move", *key, held[start_ms], posted[start_ms], 0)


def _payer(tx: Tx, at: Place) -> int:
    """The named account that pays for what counts in `at` (or one below it does): most holds are none of its."""
    if p := tx.process(at.account) if 0 < at.account < NAMED else None:
        return p.tenant
    return at.chain[1] if "/" in at.name else at.account


def _counts(tx: Tx, at: Place) -> Callable[[int, int, str], bool]:
    """Whether a hold (its account, payer and program) counts in an account.

    Of a process that was removed only the payer and the program are known.
    """
    known: dict[tuple[int, int, str], bool] = {}

    def counts(owner: int, payer: int, program: str) -> bool:
        key = owner, payer, program
        if key not in known:
            p = tx.process(owner) if 0 < owner < NAMED else None
            above = place(tx, payer)
            chain = p.accounts if p else above.chain
            known[key] = at.account in chain or (p is None and at.name == f"{above.name}/{program}")
        return known[key]

    return counts


def top_up(tx: Tx, at: Place, unit: Unit, amount: int) -> None:
    """Give more room to the current window of each limit of this unit. Raises UsageError: there is none."""
    _check_amount("a top-up", amount, unit)
    row = tx.one("account_get", at.account)
    assert row is not None
    budgets = [each[1:3] for each in limits.budgets_of(tx, at.account) if each[0] == unit]
    if not budgets and (unit == "money" or row[0] is None):
        hint = f"`mains budget set {at.name or at.account}` sets one"
        raise UsageError(f"{at.whose} has no limit of {unit}: there is nothing to top up", hint=hint)
    most = MOST * (1 if unit == "tokens" else 1_000)
    starts = {kind: window.span(kind, at.zone, tx.now_ms).start_ms for kind, _ in budgets}
    known = [(tx.one("used_get", at.account, unit, kind, starts[kind]) or (0,))[0] for kind, _ in budgets]
    if max([(row[0] or 0) if unit == "tokens" else 0, *known]) + amount > most:
        raise UsageError(f"{at.whose} has been topped up by as much as can be counted")
    if unit == "tokens" and row[0] is not None:
        tx.run("account_limit", row[0] + amount, 0, at.account)
        _note(tx, at, "tokens", "total", row[0] + amount)
    for kind, limit_most in budgets:
        tx.run("used_add", at.account, unit, kind, starts[kind], amount)
        _note(tx, at, unit, kind, limit_most, added=amount, start_ms=starts[kind])


def _note(tx: Tx, at: Place, unit: Unit, kind: Window, most: int | None, added: int = 0, start_ms: int = 0) -> None:
    entry = tx.run("entry_insert", 0, "limit", at.account, SUPPLY, 0, 0, 0, tx.now_ms).lastrowid or 0
    tx.append(
        0,
        Limited(account=at.account, unit=unit, window=kind, most=most, added=added, start_ms=start_ms, entry=entry),
    )


def stopped_below(tx: Tx, account: int) -> list[int]:
    """The processes that stand STOPPED (breaker) and spend from this account, by pid."""
    found = tx.processes("process_in", State.STOPPED)
    return [p.pid for p in found if p.fault == "breaker" and account in p.accounts]
