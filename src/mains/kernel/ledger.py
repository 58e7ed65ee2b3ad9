"""The ledger: holds before tokens are spent, entries after. Double entry, in tokens and in money.

    take(tx, accounts, ...)                        a Hold, or why not: then nothing is written
    post(tx, accounts, hold, usage) -> Charge      above the hold it becomes an overrun entry
    void(tx, accounts, hold)                       proven unused
    expire(tx, accounts, hold)                     its time is over: released, or posted whole when it was dispatched
    adjust(tx, accounts, hold, usage)              usage that came after the end: an entry of its own, never an edit

Every account is a roll-up: it counts each entry that is charged below it. A process's accounts are its own, each
ancestor's, its program's, its named account with all above, and the home's (0); the supply (-1) is the other side. A
hold is taken against every limit of all of them in one transaction, or against none (`limits.py`):

    posted + overrun + held + hold <= limit

Verbs and states are TigerBeetle's (two-phase transfers): held -> dispatched, voided, expired; dispatched -> posted,
voided. Invariants: entries are never changed; the supply and the home's account sum to zero in both units; each hold
ends in exactly one of posted, voided and expired. Amounts are integers: tokens, and nano-units of the home's currency.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec

from mains.errors import KernelPanic
from mains.kernel import limits, window
from mains.kernel.billing import Unit, Window
from mains.kernel.event import Warned
from mains.kernel.limits import HOME, SUPPLY, Limit, Refusal
from mains.kernel.ports import Usage
from mains.kernel.tariff import FREE, Tariff
from mains.kernel.tx import Row, Tx

UNPRICED = -1  # in place of a tariff's number; 0: free
WARN_AT = (50, 80, 95)  # percent of a limit


class Price(msgspec.Struct, frozen=True):
    """What a call costs: its tariff (None: not known), and until when it may reach the engine, in milliseconds."""

    tariff: Tariff | None = FREE
    until_ms: int = 0


NO_PRICE = Price()
"""Of a call that is free."""


class Label(msgspec.Struct, frozen=True):
    """What the meter says of a call besides its account."""

    engine: str
    model: str = ""
    program: str = ""
    payer: int = HOME  # the named account
    key: str = ""
    ask: str = ""  # what was asked for with that key


class Hold(msgspec.Struct, frozen=True):
    """A hold that was taken: `tokens` and `nano` pay for the input and for `output_tokens_max` of output."""

    id: int
    tokens: int
    output_tokens_max: int
    nano: int = 0
    tariff: int = 0


class Unpriced(msgspec.Struct, frozen=True):
    """No hold was taken, because nobody knows the price and an account has a limit of money."""

    limit: Limit

    def text(self, label: Label) -> str:
        """One sentence for a person."""
        model = f"{label.engine}/{label.model}" if label.model else label.engine
        return f"{model} has no known price, and {self.limit.title} is of money"

    @property
    def hint(self) -> str:
        """What to do about it."""
        who = self.limit.name or self.limit.account
        return f"give the engine a price (docs/tariffs.md), or `mains account set {who} --unknown-price allow`"


class Charge(msgspec.Struct, frozen=True):
    """What a call was charged."""

    tokens: int = 0
    nano: int = 0


def open_account(tx: Tx, account: int, parent: int, tokens_max: int | None, name: str = "") -> None:
    """Make an account below `parent`, with a limit of tokens or none."""
    tx.run("account_insert", account, parent, tokens_max, name)


def open_home(tx: Tx) -> None:
    """Make the home's account and the supply, once."""
    if tx.one("account_get", HOME) is None:
        open_account(tx, HOME, HOME, None, "home")
        open_account(tx, SUPPLY, SUPPLY, None)


def take(
    tx: Tx,
    accounts: tuple[int, ...],
    input_tokens: int,
    output_tokens_max: int,
    output_tokens_min: int,
    label: Label,
    price: Price = NO_PRICE,
    state: str = "dispatched",
) -> Hold | Refusal | Unpriced:
    """Hold the input and as much of the output cap as there is room for, at least `output_tokens_min`.

    A smaller room (or smaller than the cap, where that is less still) is a Refusal, and nothing is written.
    """
    found = limits.of(tx, accounts, tx.now_ms)
    dear = [limit for limit in found if limit.unit == "money"]
    if price.tariff is None:
        for limit in dear:
            if not unknown_price_allowed(tx, limit.account):
                return Unpriced(limit)
    least = min(output_tokens_min, output_tokens_max)
    if refused := limits.refusal(found, input_tokens + least, cost_at_most(price, input_tokens, least, tx.now_ms)):
        return refused
    cap = min([output_tokens_max, *(_affordable(limit, input_tokens, price, tx.now_ms) for limit in found)])
    tokens, nano = input_tokens + cap, cost_at_most(price, input_tokens, cap, tx.now_ms)
    tariff = number_of(tx, price.tariff)
    hold = tx.run(
        "hold_insert", accounts[0], tokens, nano, label.engine, label.model, label.program, label.payer, label.key,
        label.ask, tariff, state, tx.now_ms, tx.now_ms if state == "dispatched" else 0,
    ).lastrowid  # fmt: skip
    assert hold is not None
    _entry(tx, hold, "held", accounts[0], Charge(tokens, nano), tariff)
    _move(tx, accounts, tx.now_ms, _Amounts(tokens, 0, 0), _Amounts(nano, 0, 0))
    return Hold(hold, tokens, cap, nano, tariff)


def cost_at_most(price: Price, input_tokens: int, output_tokens: int, now_ms: int) -> int:
    """The most that a call can cost until it has reached its engine; 0 where no price is known."""
    if price.tariff is None or price.tariff is FREE:
        return 0
    return price.tariff.hold_nano(input_tokens, output_tokens, now_ms, max(now_ms, price.until_ms))


def _affordable(limit: Limit, input_tokens: int, price: Price, now_ms: int) -> int:
    """How much output a limit has room for."""
    if limit.unit == "tokens":
        return limit.left - input_tokens
    if price.tariff is None or price.tariff is FREE:
        return 1 << 62
    return price.tariff.output_tokens_for(limit.left, input_tokens, now_ms, max(now_ms, price.until_ms))


def unknown_price_allowed(tx: Tx, account: int) -> bool:
    """Whether an account takes calls whose price is not known though its money is limited: as it says, or else the
    nearest above it that says anything. What an account below it says cannot loosen its limit.
    """
    while True:
        row = tx.one("account_place", account)
        if row is None or row[3] or row[0] == account:
            return row is not None and bool(row[3] == "allow")
        account = row[0]


def number_of(tx: Tx, tariff: Tariff | None) -> int:
    """The number of a tariff, which is pinned when it is first used."""
    if tariff is None:
        return UNPRICED
    if tariff is FREE:
        return 0
    row = tx.one("tariff_number", tariff.id)
    if row is None:
        return tx.run("tariff_insert", tariff.id, msgspec.json.encode(tariff)).lastrowid or 0
    return int(row[0])


def tariff_of(tx: Tx, number: int) -> Tariff | None:
    """The tariff of this number; None: no price was known."""
    if number == 0:
        return FREE
    row = tx.one("tariff_get", number) if number > 0 else None
    return _pinned(row[0]) if row else None


@lru_cache(maxsize=256)
def _pinned(body: bytes) -> Tariff:
    return msgspec.json.decode(body, type=Tariff)


def dispatch(tx: Tx, hold: int) -> None:
    """Its call goes out now."""
    if tx.run("hold_dispatch", tx.now_ms, hold).rowcount != 1:
        raise KernelPanic(f"hold {hold} is not held")


def post(tx: Tx, accounts: tuple[int, ...], hold: int, usage: Usage | None) -> Charge:
    """End a hold with what was used (None: unknown, so all of it); what is charged."""
    held = _held(tx, accounts, hold)
    tariff = None if usage is None else tariff_of(tx, held.tariff)
    whole = Charge(held.tokens, held.nano)
    charged = whole if usage is None else Charge(usage.total, _cost_nano(tariff, usage, held.hour_ms))
    posted = Charge(min(charged.tokens, whole.tokens), min(charged.nano, whole.nano))
    over = Charge(charged.tokens - posted.tokens, charged.nano - posted.nano)
    _note_usage(tx, held, usage or Usage(output_tokens=charged.tokens), charged, over.tokens, tariff)
    _entry(tx, held.id, "released", accounts[0], whole, held.tariff, back=True)
    _entry(tx, held.id, "posted", accounts[0], posted, held.tariff)
    if over != Charge():
        _entry(tx, held.id, "overrun", accounts[0], over, held.tariff)
    _move(
        tx, accounts, held.at_ms,
        _Amounts(-whole.tokens, posted.tokens, over.tokens), _Amounts(-whole.nano, posted.nano, over.nano),
    )  # fmt: skip
    return charged


def _cost_nano(tariff: Tariff | None, usage: Usage, at_ms: int) -> int:
    return 0 if tariff is None or tariff is FREE else tariff.cost_nano(usage, at_ms)


def void(tx: Tx, accounts: tuple[int, ...], hold: int) -> None:
    """End a hold that is proven unused."""
    _release(tx, accounts, _end(tx, accounts, hold, "voided"))


def expire(tx: Tx, accounts: tuple[int, ...], hold: int) -> Charge:
    """End a hold whose time is over: one that was dispatched is posted whole, any other is released."""
    row = tx.one("hold_get", hold)
    if row is not None and row[1] == "dispatched":
        return post(tx, accounts, hold, None)
    _release(tx, accounts, _end(tx, accounts, hold, "expired"))
    return Charge()


def _release(tx: Tx, accounts: tuple[int, ...], held: _Held) -> None:
    _move(tx, accounts, held.at_ms, _Amounts(-held.tokens, 0, 0), _Amounts(-held.nano, 0, 0))


def adjust(tx: Tx, accounts: tuple[int, ...], hold: int, usage: Usage) -> Charge:
    """Usage that came after a hold has ended: what it really was, less what was charged, as an entry of its own.

    What was charged too little counts as an overrun, what was charged too much comes back. The same usage again changes
    nothing. The difference (below zero: it came back). What the meter has said of the hold stays as it was: a month
    that was stated does not change.
    """
    held = _held(tx, accounts, hold)
    if held.state in ("held", "dispatched"):
        raise KernelPanic(f"hold {hold} is {held.state}: there is nothing to adjust")
    charged = _charged(tx, hold)
    tariff = tariff_of(tx, held.tariff)
    want = Charge(usage.total, _cost_nano(tariff, usage, held.hour_ms))
    more = Charge(max(0, want.tokens - charged.tokens), max(0, want.nano - charged.nano))
    less = Charge(max(0, charged.tokens - want.tokens), max(0, charged.nano - want.nano))
    if more != Charge():
        _entry(tx, hold, "adjusted", accounts[0], more, held.tariff)
    if less != Charge():
        _entry(tx, hold, "adjusted", accounts[0], less, held.tariff, back=True)
    if (more, less) != (Charge(), Charge()):
        tokens, nano = _Amounts(0, -less.tokens, more.tokens), _Amounts(0, -less.nano, more.nano)
        _move(tx, accounts, held.at_ms, tokens, nano)
    return Charge(more.tokens - less.tokens, more.nano - less.nano)


def _charged(tx: Tx, hold: int) -> Charge:
    """What the entries of an ended hold add up to."""
    tokens = nano = 0
    for kind, debit, amount, money in tx.run("entry_of", hold):
        sign = {"posted": 1, "overrun": 1, "adjusted": -1 if debit == SUPPLY else 1}.get(kind, 0)
        tokens += sign * amount
        nano += sign * money
    return Charge(tokens, nano)


class _Held(msgspec.Struct, frozen=True):
    id: int
    state: str
    tokens: int
    nano: int
    tariff: int
    at_ms: int
    sent_ms: int

    @property
    def hour_ms(self) -> int:
        """The hour at which its call is charged: that of its dispatch."""
        return self.sent_ms or self.at_ms


def _held(tx: Tx, accounts: tuple[int, ...], hold: int) -> _Held:
    row = tx.one("hold_get", hold)
    if row is None or row[0] != accounts[0]:
        raise KernelPanic(f"hold {hold} is not one of account {accounts[0]}")
    return _Held(hold, *row[1:])


def _end(tx: Tx, accounts: tuple[int, ...], hold: int, state: str) -> _Held:
    held = _held(tx, accounts, hold)
    if tx.run("hold_end", state, hold).rowcount != 1:
        raise KernelPanic(f"hold {hold} has ended already: {held.state}")
    _entry(tx, hold, "released", accounts[0], Charge(held.tokens, held.nano), held.tariff, back=True)
    return held


def _note_usage(tx: Tx, held: _Held, usage: Usage, charged: Charge, over: int, tariff: Tariff | None) -> None:
    """Post a hold, with what the meter reads: its tokens, its cost, and what the cache and the hour have saved."""
    cache_nano, off_peak_nano = (0, 0) if tariff is None or tariff is FREE else tariff.saved(usage, held.hour_ms)
    figures = (
        usage.input_tokens,
        usage.cached_tokens,
        usage.output_tokens,
        over,
        charged.nano,
        cache_nano,
        off_peak_nano,
    )
    if tx.run("hold_post", *figures, held.id).rowcount != 1:
        raise KernelPanic(f"hold {held.id} has ended already: {held.state}")


def _entry(tx: Tx, hold: int, kind: str, account: int, amount: Charge, tariff: int, *, back: bool = False) -> None:
    """An entry debits the account and credits the supply, or goes `back`."""
    debit, credit = (SUPPLY, account) if back else (account, SUPPLY)
    tx.run("entry_insert", hold, kind, debit, credit, amount.tokens, amount.nano, tariff, tx.now_ms)


class _Amounts(msgspec.Struct, frozen=True):
    """What is added to the counters of one unit."""

    held: int
    posted: int
    overrun: int

    @property
    def grows(self) -> bool:
        return self.posted + self.overrun > 0


def _move(tx: Tx, accounts: tuple[int, ...], at_ms: int, tokens: _Amounts, nano: _Amounts) -> None:
    """Add to the counters of these accounts, and of the windows in which a hold of `at_ms` counts."""
    amounts = (tokens.held, tokens.posted, tokens.overrun, nano.held, nano.posted, nano.overrun)
    rows: list[Row] = [(*amounts, account) for account in accounts if account in tx.unlimited]
    for account in accounts:
        if account not in tx.unlimited:
            _move_limited(tx, account, at_ms, tokens, nano)
    tx.many("account_move", [*rows, (*[-each for each in amounts], SUPPLY)])


def _move_limited(tx: Tx, account: int, at_ms: int, tokens: _Amounts, nano: _Amounts) -> None:
    row = tx.one(
        "account_move_read", tokens.held, tokens.posted, tokens.overrun, nano.held, nano.posted, nano.overrun, account
    )
    assert row is not None
    most, used, warned, budgets, zone = row
    if budgets:
        _move_windows(tx, account, zone, at_ms, {"tokens": tokens, "money": nano})
    if most is not None and tokens.grows and (percent := _crossed(used, most, warned)):
        tx.run("account_warned", percent, account)
        _warn(tx, account, "tokens", "total", percent, most)


def _move_windows(tx: Tx, account: int, zone: str, at_ms: int, amounts: dict[Unit, _Amounts]) -> None:
    for unit, kind, most, _ in limits.budgets_of(tx, account):
        amount, start_ms = amounts[unit], window.span(kind, zone, at_ms).start_ms
        row = tx.one("used_move", account, unit, kind, start_ms, amount.held, amount.posted, amount.overrun)
        assert row is not None
        added, used, warned = row
        if amount.grows and (percent := _crossed(used, most + added, warned)):
            tx.run("used_warned", percent, account, unit, kind, start_ms)
            _warn(tx, account, unit, kind, percent, most + added)


def _crossed(used: int, most: int, warned: int) -> int:
    """The percentage that was crossed and not warned of yet; 0: none."""
    reached = [percent for percent in WARN_AT if used * 100 >= percent * most]
    return reached[-1] if reached and reached[-1] > warned else 0


def _warn(tx: Tx, account: int, unit: Unit, kind: Window, percent: int, most: int) -> None:
    tx.append(0, Warned(account=account, unit=unit, window=kind, percent=percent, most=most))
