"""Limits: what may still be held under each limit above a process, and why a hold is refused.

    of(tx, accounts, at_ms)            every limit of these accounts, as it stands in the window of `at_ms`
    refusal(found, wanted, nano)       why so much cannot be held under them; None when it can
    explain(tx, refusal)               one sentence for a person: the limit, what is left, who holds it, when it resets

The limit of an account's own tokens without a window stands in its row, where every process has its budget; all others
are rows of `budget`, with what was used of them in `used`, a row for each window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from mains.errors import KernelPanic
from mains.kernel.billing import Unit, Window
from mains.kernel.process import State
from mains.kernel.tx import Row, Tx
from mains.kernel.window import ALWAYS, Span, span, told

Rows = Callable[..., list[Row]]
"""The rows of a named query: those of a transaction, or of a reader."""

HOME = 0
SUPPLY = -1
NAMED = 1 << 40  # accounts with a name have numbers from here on; below, an account's number is a pid
_HOLDERS_SHOWN = 3


class Limit(msgspec.Struct, frozen=True):
    """A limit as it stands: `left` is what may still be held, `held` what open holds may give back."""

    account: int
    name: str  # of the account; empty for a process
    unit: Unit
    window: Window
    most: int  # top-ups of this window included
    left: int
    held: int
    zone: str = ""
    span: Span = ALWAYS
    currency: str = ""
    added: int = 0  # the top-ups of this window, which the next one has not

    @property
    def whose(self) -> str:
        """The account in words."""
        if self.account == HOME:
            return "the home"
        return f"account {self.name}" if self.name else f"process {self.account}"

    @property
    def title(self) -> str:
        """Which limit it is, in words."""
        each = "" if self.window == "total" else f" a {self.window}"
        unit = "tokens" if self.unit == "tokens" else self.currency
        return f"the limit of {self.whose} ({shown(self.most, self.unit)} {unit}{each})"

    def text(self) -> str:
        """One clause for a person."""
        left, held = (shown(n, self.unit) for n in (max(0, self.left), self.held))
        return f"{self.title} has {left} left, {held} held"


class Refusal(msgspec.Struct, frozen=True):
    """Why no hold was taken. `hopeless`: even if every open hold came back whole, there would be too little."""

    limit: Limit
    wanted: int  # in the limit's unit
    hopeless: bool

    def text(self) -> str:
        """One sentence for a person."""
        return f"{self.limit.text()}; the next model call needs {shown(self.wanted, self.limit.unit)}"

    @property
    def resets_ms(self) -> int:
        """When a new window of this limit may have room; 0: none will, or it has no end."""
        until_ms: int = self.limit.span.until_ms
        return until_ms if self.wanted <= self.limit.most - self.limit.added else 0


def shown(amount: int, unit: Unit) -> str:
    """An amount for a person: tokens, or units of the home's currency, exactly."""
    if unit == "tokens":
        return f"{amount:,}"
    whole, nano = divmod(amount, 1_000_000_000)
    return f"{whole:,}.{nano:09d}".rstrip("0").rstrip(".")


def of(tx: Tx, accounts: Iterable[int], at_ms: int) -> list[Limit]:
    """The limits of `accounts`, as they stand in the windows of `at_ms`."""
    found: list[Limit] = []
    for account in accounts:
        if account in tx.unlimited:
            continue
        row = tx.one("account_get", account)
        if row is None:
            raise KernelPanic(f"account {account} does not exist")
        tokens_max, held, posted, overrun, budgets, name, zone = row
        if tokens_max is None and not budgets:
            tx.unlimited.add(account)
            continue
        if tokens_max is not None:
            left = tokens_max - posted - overrun - held
            found.append(Limit(account, name, "tokens", "total", tokens_max, left, held))
        if budgets:
            found += windowed(tx.rows, budgets_of(tx, account), account, name, zone, at_ms)
    return found


def windowed(rows: Rows, budgets: Iterable[Row], account: int, name: str, zone: str, at_ms: int) -> list[Limit]:
    """The limits of an account that stand in `budget`: these rows of `budget_of`."""
    found = []
    for unit, kind, most, currency in budgets:
        when = span(kind, zone, at_ms)
        used = rows("used_get", account, unit, kind, when.start_ms)
        added, held, posted, overrun = used[0] if used else (0, 0, 0, 0)
        left = most + added - posted - overrun - held
        found.append(Limit(account, name, unit, kind, most + added, left, held, zone, when, currency, added))
    return found


def budgets_of(tx: Tx, account: int) -> list[Row]:
    """The rows of `budget` of an account, each with the home's currency: read once, until `forget`."""
    known = tx.budgets.get(account)
    if known is None:
        known = tx.budgets[account] = tx.run("budget_of", account).fetchall()
    return known


def forget(tx: Tx, account: int) -> None:
    """The limits of an account change."""
    tx.unlimited.discard(account)
    tx.budgets.pop(account, None)


def refusal(found: list[Limit], tokens: int, nano: int) -> Refusal | None:
    """Why `tokens` and `nano` cannot be held under these limits; a hopeless limit speaks before a merely busy one."""
    short = [Refusal(each, want, each.left + each.held < want) for each, want in _wants(found, tokens, nano)]
    if not short:
        return None
    return min(short, key=lambda each: (not each.hopeless, each.limit.left))


def _wants(found: list[Limit], tokens: int, nano: int) -> list[tuple[Limit, int]]:
    wants = [(each, tokens if each.unit == "tokens" else nano) for each in found]
    return [(each, want) for each, want in wants if each.left < want]


def explain(tx: Tx, refused: Refusal) -> str:
    """One sentence for a person, with who holds the room and when the limit resets."""
    limit, text = refused.limit, refused.text()
    if limit.held and (holders := _holders(tx, limit)):
        text += f"; held by {', '.join(holders)}"
    if refused.resets_ms:
        text += f"; resets at {told(refused.resets_ms, limit.zone)}"
    return text


def _holders(tx: Tx, limit: Limit) -> list[str]:
    """Who holds the most under a limit, in words."""
    held: dict[int, int] = {}
    for p in tx.processes("process_in", State.RUNNING):
        if p.flights and limit.account in p.accounts:
            held[p.pid] = sum(each.tokens if limit.unit == "tokens" else each.nano for each in p.flights)
    for _, account, _, _, _, tokens, nano in tx.run("hold_foreign").fetchall():
        if limit.account in _upward(tx, account):
            held[account] = held.get(account, 0) + (tokens if limit.unit == "tokens" else nano)
    most = sorted(held.items(), key=lambda each: (-each[1], each[0]))
    told = [f"{_whose(account)} ({shown(amount, limit.unit)})" for account, amount in most[:_HOLDERS_SHOWN]]
    more = len(most) - _HOLDERS_SHOWN
    return [*told, f"{more} more"] if more > 0 else told


def _whose(account: int) -> str:
    return f"process {account}" if 0 < account < NAMED else "a call from outside"


def _upward(tx: Tx, account: int) -> list[int]:
    chain = [account]
    while (row := tx.one("account_place", chain[-1])) and row[0] != chain[-1]:
        chain.append(row[0])
    return chain
