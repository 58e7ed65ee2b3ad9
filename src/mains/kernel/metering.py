"""The meter read: accounts and limits as they stand, what ran and what it cost, statements. Readers; no change.

account_view(tx, ...)     one account with its limits
limits_of(journal, ...)   the limits of one, for a reader
account_views(tx, ...)    all named ones and those of programs, the home first
meter(journal, ...)       model calls summed by program, user, model or day
statement(journal, ...)   a month of an account, a row for each day, program and model
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import msgspec

from mains.errors import UsageError
from mains.kernel import accounts, limits, window
from mains.kernel.accounts import Place
from mains.kernel.billing import AccountView, By, LimitView, MeterRow, Statement
from mains.kernel.journal import Journal
from mains.kernel.ledger import unknown_price_allowed
from mains.kernel.limits import HOME, NAMED, Limit, Rows
from mains.kernel.process import State
from mains.kernel.tx import Row, Tx

_QUARTER_MS = 900_000
_EVER_MS = 1 << 62
_BY: tuple[By, ...] = ("", "program", "user", "model", "day")


def account_view(tx: Tx, at: Place, currency: str) -> AccountView:
    """An account with everything below it, and its limits in their current windows."""
    row = tx.one("account_row", at.account)
    assert row is not None
    _, parent, name, zone, _, _, *sums, warned = row
    held, posted, overrun, nano_held, nano_posted, nano_overrun = sums
    names = [each[1] for each in (tx.one("account_place", account) for account in reversed(at.chain)) if each]
    return AccountView(
        name=name or str(at.account),
        path="/".join(part.rpartition("/")[2] for part in names if part) if name else str(at.account),
        kind=_kind(at.account, name),
        parent=accounts.place(tx, parent).name or str(parent),
        zone=zone or at.zone,
        unknown_price="allow" if unknown_price_allowed(tx, at.account) else "refuse",
        currency=currency,
        held_tokens=held, posted_tokens=posted, overrun_tokens=overrun,
        held_nano=nano_held, posted_nano=nano_posted, overrun_nano=nano_overrun,
        limits=[_limit_view(tx.rows, limit, warned) for limit in limits.of(tx, (at.account,), tx.now_ms)],
    )  # fmt: skip


def _kind(account: int, name: str) -> Literal["home", "account", "program", "process"]:
    if account == HOME:
        return "home"
    if account < NAMED:
        return "process"
    return "program" if "/" in name else "account"


def limits_of(journal: Journal, account: int) -> list[LimitView]:
    """The limits of an account as they stand now, for a reader."""
    found = []
    ((most, held, posted, overrun, _, name, zone),) = journal.rows("account_get", account)
    if most is not None:
        found.append(Limit(account, name, "tokens", "total", most, most - posted - overrun - held, held))
    found += limits.windowed(journal.rows, journal.rows("budget_of", account), account, name, zone, journal.now_ms())
    ((*_, warned),) = journal.rows("account_row", account)
    return [_limit_view(journal.rows, limit, warned) for limit in found]


def _limit_view(rows: Rows, limit: Limit, warned: int) -> LimitView:
    if (limit.unit, limit.window) != ("tokens", "total"):
        key = (limit.account, limit.unit, limit.window, limit.span.start_ms)
        warned = next((row[0] for row in rows("used_warned_at", *key)), 0)
    return LimitView(
        unit=limit.unit,
        window=limit.window,
        most=limit.most - limit.added,
        added=limit.added,
        used=limit.most - limit.left - limit.held,
        held=limit.held,
        left=max(0, limit.left),
        resets_at=window.told(limit.span.until_ms, limit.zone) if limit.span.until_ms else "",
        warned=warned,
    )


def account_views(tx: Tx, currency: str) -> list[AccountView]:
    """All accounts but those of processes: a tree in order, each below the one above it."""
    below: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for account, parent, name, *_ in tx.run("account_all_named"):
        if account != HOME:
            below[parent].append((name, account))
    views = []
    pending = [HOME]
    while pending:
        account = pending.pop()
        views.append(account_view(tx, accounts.place(tx, account), currency))
        pending += [each for _, each in sorted(below[account], reverse=True)]
    return views


class Scope(msgspec.Struct, frozen=True):
    """Whose calls are meant: those of payers, of one program of them, or of a process with all below it."""

    payers: frozenset[int]
    program: str = ""
    pid: int = 0


def scope_of(tx: Tx, at: Place) -> Scope:
    """What counts in an account, as the rows of the meter name it."""
    if 0 < at.account < NAMED:
        return Scope(frozenset(), pid=at.account)
    _, slash, program = at.name.partition("/")
    if slash:
        return Scope(frozenset({at.chain[1]}), program)
    below: dict[int, list[int]] = defaultdict(list)
    for account, parent, *_ in tx.run("account_all_named"):
        below[parent].append(account)
    payers, pending = {at.account}, [at.account]
    while pending:
        new = [each for each in below[pending.pop()] if each not in payers]  # the home is below itself
        payers.update(new)
        pending += new
    return Scope(frozenset(payers))


class _Sums(msgspec.Struct):
    calls: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    overrun_tokens: int = 0
    cost_nano: int = 0
    cache_saved_nano: int = 0
    off_peak_saved_nano: int = 0

    def add(self, amounts: Iterable[int]) -> None:
        for name, amount in zip(self.__struct_fields__, amounts, strict=True):
            setattr(self, name, getattr(self, name) + amount)


class _Group(msgspec.Struct, frozen=True):
    day: str
    payer: int
    program: str
    model: str


def meter(journal: Journal, scope: Scope, by: By, from_ms: int, to_ms: int, zone: str, currency: str) -> list[MeterRow]:
    """Model calls of a scope, summed; the dearest first, days in order. What differs within a sum is left empty."""
    if by not in _BY:
        raise UsageError(f"the meter sums by {', '.join(_BY[1:])}, not by `{by}`")
    keep: tuple[str, ...] = {
        "": ("payer", "program", "model"), "program": ("program",), "user": ("payer",), "model": ("model",),
        "day": ("day",),
    }[by]  # fmt: skip
    with journal.snapshot():
        groups = _groups(journal, scope, from_ms, to_ms or _EVER_MS, zone if by == "day" else "")
        rows = _rows(journal, _folded(groups, keep), currency)
    return (
        rows if by == "day" else sorted(rows, key=lambda row: (-row.cost_nano, -row.input_tokens - row.output_tokens))
    )


def _folded(groups: dict[_Group, _Sums], keep: tuple[str, ...]) -> dict[_Group, _Sums]:
    folded: dict[tuple[object, ...], tuple[_Group, _Sums]] = {}
    for group, sums in groups.items():
        key = tuple(getattr(group, name) for name in keep)
        first, total = folded.setdefault(key, (group, _Sums()))
        total.add(msgspec.structs.astuple(sums))
        folded[key] = _agreed(first, group), total
    return dict(folded.values())


def _agreed(a: _Group, b: _Group) -> _Group:
    """What two groups have in common."""
    return _Group(
        day=a.day if a.day == b.day else "",
        payer=a.payer if a.payer == b.payer else -1,
        program=a.program if a.program == b.program else "",
        model=a.model if a.model == b.model else "",
    )


def _groups(journal: Journal, scope: Scope, from_ms: int, to_ms: int, zone: str) -> dict[_Group, _Sums]:
    """The calls from holds, and from the tally of those that were erased. By day when a zone is given."""
    groups: dict[_Group, _Sums] = defaultdict(_Sums)
    step_ms = _QUARTER_MS if zone else _EVER_MS
    for bucket_ms, payer, program, model, *amounts in _metered(journal, scope, step_ms, from_ms, to_ms):
        if not scope.pid and (payer not in scope.payers or scope.program not in ("", program)):
            continue
        day = window.day_of(bucket_ms, zone) if zone else ""
        groups[_Group(day, payer, program, model)].add(amounts)
    return groups


def _metered(journal: Journal, scope: Scope, step_ms: int, from_ms: int, to_ms: int) -> Iterator[Row]:
    if scope.pid:
        yield from journal.scan("meter_of", step_ms, scope.pid, from_ms, to_ms)
        return
    yield from journal.scan("meter_holds", step_ms, from_ms, to_ms)
    yield from journal.scan("meter_tally", step_ms, from_ms, to_ms)
    yield from journal.scan("meter_adjusted", step_ms, from_ms, to_ms)


def _rows(journal: Journal, groups: dict[_Group, _Sums], currency: str) -> list[MeterRow]:
    names = {account: name for account, _, name, *_ in journal.rows("account_all_named")}
    return [
        MeterRow(
            account=names.get(group.payer, ""), program=group.program, model=group.model, currency=currency,
            day=group.day, **msgspec.structs.asdict(sums),
        )
        for group, sums in sorted(groups.items(), key=lambda each: msgspec.structs.astuple(each[0]))
    ]  # fmt: skip


def statement(journal: Journal, at: Place, scope: Scope, month: str, zone: str, currency: str) -> Statement:
    """A month of an account. Raises UsageError for what is no month."""
    span = window.month(month, zone)
    with journal.snapshot():
        rows = _rows(journal, _groups(journal, scope, span.start_ms, span.until_ms, zone), currency)
        counts = _counts(journal, scope)
        adjusted = sum(
            amount
            for account, payer, program, amount in journal.scan("entry_adjusted", span.start_ms, span.until_ms)
            if counts(account, payer, program)
        )
        running = journal.processes("process_in", State.RUNNING)
        flying = [(p.pid, p.tenant, p.name) for p in running for _ in p.flights]
        foreign = [(account, payer, program) for _, account, payer, program, *_ in journal.rows("hold_foreign")]
        open_holds = sum(counts(*each) for each in [*flying, *foreign])
    return Statement(
        account=at.name or str(at.account),
        month=month,
        zone=zone,
        currency=currency,
        rows=rows,
        calls=sum(row.calls for row in rows),
        tokens=sum(row.input_tokens + row.output_tokens for row in rows),
        cost_nano=sum(row.cost_nano for row in rows),
        adjustments_nano=adjusted,
        open_holds=open_holds,
    )


def _counts(journal: Journal, scope: Scope) -> Callable[[int, int, str], bool]:
    """Whether a hold (its account, payer and program) is meant by a scope."""
    pids = {scope.pid, *(row[0] for row in journal.rows("process_tree_below", scope.pid))} if scope.pid else set()

    def counts(account: int, payer: int, program: str) -> bool:
        if scope.pid:
            return account in pids
        return payer in scope.payers and scope.program in ("", program)

    return counts
