"""The ledger: holds before tokens are spent, entries after. Double entry, in tokens.

    take(tx, accounts, input, cap, least, engine)   a Hold, or a Refusal: then nothing is written
    post(tx, accounts, hold, used) -> charged       above the hold it becomes an overrun entry
    void(tx, accounts, hold)                        proven unused

Every account is a roll-up: it counts its own entries and those of every account below it. A process's accounts are
its own, each ancestor's and the home's (0); the supply (-1) is the other side. A hold is taken against all of them in
one transaction, or against none:

    posted + overrun + held + hold <= tokens_max        for every account that has a limit

Verbs and states are TigerBeetle's (two-phase transfers: pending, posted, voided). Invariants: entries are never
changed; the supply and the home's account sum to zero; each hold ends in exactly one of posted and voided.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import msgspec

from mains.errors import KernelPanic
from mains.kernel.journal import Journal
from mains.kernel.tx import Row, Tx

HOME = 0
SUPPLY = -1


class Limit(msgspec.Struct, frozen=True):
    """A limit as it stands: `left` is what may still be held, `held` what open holds may give back."""

    account: int
    tokens_max: int
    left: int
    held: int

    @property
    def text(self) -> str:
        """One clause for a person."""
        whose = "the home" if self.account == HOME else f"process {self.account}"
        return f"the limit of {whose} ({self.tokens_max:,} tokens) has {max(0, self.left):,} left, {self.held:,} held"


class Hold(msgspec.Struct, frozen=True):
    """A hold that was taken: `tokens` pay for the input and for `output_tokens_max` of output."""

    id: int
    tokens: int
    output_tokens_max: int


class Refusal(msgspec.Struct, frozen=True):
    """Why no hold was taken. `hopeless`: even if every open hold came back whole, there would be too little."""

    limit: Limit
    wanted: int
    hopeless: bool

    @property
    def text(self) -> str:
        """One sentence for a person."""
        return f"{self.limit.text}; the next model call needs {self.wanted:,}"


def open_account(tx: Tx, account: int, parent: int, tokens_max: int | None) -> None:
    """Make an account below `parent`, with a limit or none."""
    tx.run("account_insert", account, parent, tokens_max)


def open_home(tx: Tx) -> None:
    """Make the home's account and the supply, once."""
    if tx.one("account_get", HOME) is None:
        open_account(tx, HOME, HOME, None)
        open_account(tx, SUPPLY, SUPPLY, None)


def limits(tx: Tx, accounts: Iterable[int]) -> list[Limit]:
    """The limits among `accounts`, as they stand."""
    found = []
    for account in accounts:
        row = tx.one("account_get", account)
        if row is None:
            raise KernelPanic(f"account {account} does not exist")
        tokens_max, held, posted, overrun = row
        if tokens_max is not None:
            found.append(Limit(account, tokens_max, tokens_max - posted - overrun - held, held))
    return found


def refusal(found: list[Limit], wanted: int) -> Refusal | None:
    """Why `wanted` tokens cannot be held under these limits; a hopeless limit speaks before a merely busy one."""
    short = [limit for limit in found if limit.left < wanted]
    if not short:
        return None
    hopeless = [limit for limit in short if limit.left + limit.held < wanted]
    return Refusal(min(hopeless or short, key=lambda limit: limit.left), wanted, bool(hopeless))


def take(
    tx: Tx, accounts: tuple[int, ...], input_tokens: int, output_tokens_max: int, output_tokens_min: int, engine: str
) -> Hold | Refusal:
    """Hold the input and as much of the output cap as there is room for, at least `output_tokens_min`.

    A smaller room (or smaller than the cap, where that is less still) is a Refusal, and nothing is written.
    """
    found = limits(tx, accounts)
    if refused := refusal(found, input_tokens + min(output_tokens_min, output_tokens_max)):
        return refused
    cap = min([output_tokens_max, *(limit.left - input_tokens for limit in found)])
    tokens = input_tokens + cap
    hold = tx.run("hold_insert", accounts[0], tokens, engine, tx.now_ms).lastrowid
    assert hold is not None
    _entry(tx, hold, "held", accounts[0], tokens)
    _move(tx, accounts, tokens, 0, 0)
    return Hold(hold, tokens, cap)


def post(tx: Tx, accounts: tuple[int, ...], hold: int, used: int | None) -> int:
    """End a hold with what was used (None: unknown, so all of it); the tokens charged."""
    tokens = _end(tx, accounts, hold, "posted")
    charged = tokens if used is None else max(0, used)
    posted = min(charged, tokens)
    _entry(tx, hold, "posted", accounts[0], posted)
    if charged > tokens:
        _entry(tx, hold, "overrun", accounts[0], charged - tokens)
    _move(tx, accounts, -tokens, posted, charged - posted)
    return charged


def void(tx: Tx, accounts: tuple[int, ...], hold: int) -> None:
    """End a hold that is proven unused."""
    tokens = _end(tx, accounts, hold, "voided")
    _move(tx, accounts, -tokens, 0, 0)


def _end(tx: Tx, accounts: tuple[int, ...], hold: int, state: str) -> int:
    row = tx.one("hold_get", hold)
    if row is None or row[0] != accounts[0]:
        raise KernelPanic(f"hold {hold} is not one of account {accounts[0]}")
    if tx.run("hold_end", state, hold).rowcount != 1:
        raise KernelPanic(f"hold {hold} has ended already: {row[2]}")
    _entry(tx, hold, "released", accounts[0], row[1])
    return int(row[1])


def _entry(tx: Tx, hold: int, kind: str, account: int, tokens: int) -> None:
    """`held` and `posted` debit the account and credit the supply; `released` goes back."""
    debit, credit = (SUPPLY, account) if kind == "released" else (account, SUPPLY)
    tx.run("entry_insert", hold, kind, debit, credit, tokens, tx.now_ms)


def _move(tx: Tx, accounts: tuple[int, ...], held: int, posted: int, overrun: int) -> None:
    rows: list[Row] = [(held, posted, overrun, account) for account in accounts]
    rows.append((-held, -posted, -overrun, SUPPLY))
    tx.many("account_move", rows)


class Balance(msgspec.Struct):
    """What an account's entries add up to."""

    held: int = 0
    posted: int = 0
    overrun: int = 0


def verify(journal: Journal) -> list[str]:
    """Every disagreement between entries, counters and holds, as of one moment; an empty list when all is well.

    Counters are derived again from the entries; the home and the supply must sum to zero; each hold's entries must
    be those of its state; no account may have more than its limit outside overruns; each process has its account, with
    its budget as the limit, below its parent's.
    """
    with journal.snapshot():
        return _verify(journal)


def _verify(journal: Journal) -> list[str]:
    accounts = {row[0]: row[1:] for row in journal.rows("account_all")}
    faults = _verify_tree(journal, accounts)
    if faults:
        return faults  # what rolls up where is not known
    derived, of_hold = _derive(journal, accounts)
    for account, (_, tokens_max, held, posted, overrun, *_gone) in accounts.items():
        want = derived[account]
        if (held, posted, overrun) != (want.held, want.posted, want.overrun):
            faults.append(
                f"account {account}: counters say held {held}, posted {posted}, overrun {overrun}; "
                f"entries say {want.held}, {want.posted}, {want.overrun}"
            )
        if tokens_max is not None and held + posted > tokens_max:
            faults.append(f"account {account}: held {held} and posted {posted} exceed its limit of {tokens_max}")
    home, supply = derived[HOME], derived[SUPPLY]
    faults += [
        f"the ledger does not sum to zero: {unit} {total}"
        for unit in ("held", "posted", "overrun")
        if (total := getattr(home, unit) + getattr(supply, unit))
    ]
    return faults + _verify_holds(journal, of_hold)


def _verify_tree(journal: Journal, accounts: dict[int, Row]) -> list[str]:
    """Each process has the account that it was born with, and nobody else has one."""
    born: dict[int, Row] = {HOME: (HOME, None), SUPPLY: (SUPPLY, None)}
    for p in journal.processes("process_all"):
        born[p.pid] = (p.accounts[1], p.budget)
    return [
        f"account {account}: parent and limit are {accounts.get(account, ('missing',))[:2]}, not {born.get(account)}"
        for account in sorted(born.keys() | accounts.keys())
        if account not in accounts or accounts[account][:2] != born.get(account)
    ]


class _Entries(msgspec.Struct):
    """What the entries of one hold say: tokens by kind, and whom they are between."""

    tokens: dict[str, int] = {}
    sides: set[int] = set()


def _derive(journal: Journal, accounts: dict[int, Row]) -> tuple[dict[int, Balance], dict[int, _Entries]]:
    """What accounts must hold: what removed processes had, and what the entries say of the others."""
    derived: dict[int, Balance] = defaultdict(Balance)
    of_hold: dict[int, _Entries] = defaultdict(_Entries)
    parents = {account: row[0] for account, row in accounts.items()}
    for account, (*_, posted, overrun) in accounts.items():
        sides = [(above, 1) for above in _upward(account, parents)]
        if account != SUPPLY:
            sides.append((SUPPLY, -1))
        for each, sign in sides:
            derived[each].posted += sign * posted
            derived[each].overrun += sign * overrun
    for hold, kind, debit, credit, tokens in journal.scan("entry_all"):
        unit = {"held": "held", "released": "held", "posted": "posted", "overrun": "overrun"}.get(kind, "")
        for side, sign in ((debit, 1), (credit, -1)):
            for account in _upward(side, parents) if unit else ():
                balance = derived[account]
                setattr(balance, unit, getattr(balance, unit) + sign * tokens)
        entries = of_hold[hold]
        entries.tokens[kind] = entries.tokens.get(kind, 0) + tokens
        entries.sides |= {debit, credit}
    return derived, of_hold


def _upward(account: int, parents: dict[int, int]) -> list[int]:
    chain = [account]
    while (parent := parents.get(chain[-1], chain[-1])) != chain[-1]:
        chain.append(parent)
    return chain


def _verify_holds(journal: Journal, of_hold: dict[int, _Entries]) -> list[str]:
    faults = []
    in_flight = {p.asking.hold: p.pid for p in journal.processes("process_live") if p.asking}
    for hold, account, tokens, state in journal.scan("hold_all"):
        found = of_hold.pop(hold, _Entries())
        entries = found.tokens
        ended = state in ("posted", "voided")
        whole = entries.get("held") == tokens and entries.get("released") == (tokens if ended else None)
        fits = whole and ("posted" in entries) == (state == "posted") and entries.get("posted", 0) <= tokens
        if not fits or found.sides != {account, SUPPLY} or entries.keys() - {"held", "released", "posted", "overrun"}:
            faults.append(f"hold {hold} of account {account}: state {state} does not fit its entries {entries}")
        if not ended and in_flight.pop(hold, None) != account:
            faults.append(f"hold {hold} of account {account}: dispatched, but no model call of it is in flight")
    faults += [f"process {pid}: its model call has no open hold {hold}" for hold, pid in in_flight.items()]
    return faults + [f"hold {hold}: entries {found.tokens} without a hold" for hold, found in of_hold.items()]
