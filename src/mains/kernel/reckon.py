"""Reckoning: the ledger derived again from its entries, and every disagreement named. A reader; it changes nothing.

    verify(journal)    all of it, as of one moment; an empty list when all is well

Counters of accounts and of windows must be what the entries say; the home and the supply sum to zero in both units;
each hold's entries must be those of its state; no hold was granted above a limit, judged at its own place in the order
of the entries by the limits of that moment; an open hold belongs to a call in flight, or has a timer; each process has
its account.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import msgspec

from mains.kernel import window
from mains.kernel.billing import Unit, Window
from mains.kernel.event import Limited, Opened
from mains.kernel.journal import Journal
from mains.kernel.limits import HOME, NAMED, SUPPLY
from mains.kernel.tx import Row, decode_event

_COUNTERS = ("held", "posted", "overrun")
_KINDS = {"held", "released", "posted", "overrun", "adjusted"}
_GONE = (6, 7, 11, 12)  # places of the gone_* columns in `account_all`
_UNITS: tuple[Unit, Unit] = ("tokens", "money")
_Key = tuple[int, Unit, Window]


class Sums(msgspec.Struct):
    """What entries add up to, in one unit."""

    held: int = 0
    posted: int = 0
    overrun: int = 0

    @property
    def whole(self) -> int:
        """What a limit is compared with."""
        return self.held + self.posted + self.overrun

    def add(self, kind: str, amount: int, *, back: bool) -> None:
        """Count an entry of this kind, or one that goes `back` to the supply."""
        if kind in ("held", "released"):
            self.held += -amount if back else amount
        elif kind == "overrun" or (kind == "adjusted" and not back):
            self.overrun += amount
        else:
            self.posted += -amount if back else amount


class _HoldRow(msgspec.Struct):
    """A hold as its row says, and the sums and kinds of its entries."""

    account: int
    state: str
    amounts: dict[Unit, int]
    at_ms: int
    spent: dict[Unit, int]
    sums: dict[Unit, Sums]
    granted: dict[Unit, int] = {}
    adjusted: dict[Unit, int] = {}
    kinds: list[str] = []
    odd: bool = False


def verify(journal: Journal) -> list[str]:
    """Every disagreement between entries, counters, limits and holds; an empty list when all is well."""
    with journal.snapshot():
        return _Reckoning(journal).run()


class _Reckoning:
    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._rows: dict[int, Row] = {row[0]: row for row in journal.rows("account_all")}
        self._names = {account: name for account, _, name, *_ in journal.rows("account_all_named")}
        self._removed = {pid for (pid,) in journal.rows("removed_all")}  # their holds are being erased
        self._processes = {p.pid: p for p in journal.processes("process_all")}
        self._chains: dict[int, tuple[int, ...]] = {}
        self._sums: dict[tuple[int, Unit], Sums] = defaultdict(Sums)
        self._windows: dict[tuple[int, Unit, Window, int], Sums] = defaultdict(Sums)
        self._vague: set[tuple[int, Unit, Window, int]] = set()  # windows of which not all is known any more
        self._limits = list(self._limit_events())
        self._budgets: dict[int, list[tuple[Unit, Window]]] = defaultdict(list)
        for account, unit, kind, _ in journal.rows("budget_all"):
            self._budgets[account].append((unit, kind))
        for _, event in self._limits:  # a limit that was taken away was there when holds were granted
            if (event.unit, event.window) not in self._budgets[event.account]:
                self._budgets[event.account].append((event.unit, event.window))
        self._most: dict[_Key, int] = {
            (p.pid, "tokens", "total"): p.budget for p in self._processes.values() if p.budget is not None
        }
        self._added: dict[tuple[int, Unit, Window, int], int] = defaultdict(int)
        self._faults: list[str] = []

    def run(self) -> list[str]:
        self._check_tree()
        if self._faults:
            return self._faults  # what counts where is not known
        holds = self._holds()
        for row in self._journal.scan("entry_all"):
            self._entry(holds, *row)
        self._settle_limits(1 << 62)
        self._carry()
        self._check_counters()
        self._check_windows()
        return self._faults + list(self._check_holds(holds))

    def _check_tree(self) -> None:
        """Each process has its account below its first, each named one is where it was made; there are no others."""
        if SUPPLY in self._rows and any(self._rows[SUPPLY][at] for at in _GONE):
            self._faults.append("the supply carries what removed processes had")
        born = {HOME: HOME, SUPPLY: SUPPLY} | {p.pid: p.accounts[1] for p in self._processes.values()}
        for _, body in self._journal.scan("event_opened"):
            event = decode_event(body)
            if isinstance(event, Opened):
                born[event.account] = event.parent
        differing = sorted(set(born.items()) ^ {(account, row[1]) for account, row in self._rows.items()})
        self._faults += [f"{self._whose(account)}: whether it is below {parent}" for account, parent in differing]
        for p in self._processes.values():
            self._faults += [
                f"process {p.pid}: its account {each} is missing" for each in p.accounts if each not in self._rows
            ]

    def _whose(self, account: int) -> str:
        """An account by its number, and by its name when it has one."""
        if account == SUPPLY:
            return "the supply"
        return f"account {account} ({self._names[account]})" if account in self._names else f"account {account}"

    def _day(self, account: int, start_ms: int) -> str:
        return window.told(start_ms, self._rows[account][14])

    def _chain(self, account: int) -> tuple[int, ...]:
        """All accounts in which what is charged to this one counts."""
        if account not in self._chains:
            p = self._processes.get(account)
            self._chains[account] = p.accounts if p else tuple(self._upward(account))
        return self._chains[account]

    def _upward(self, account: int) -> list[int]:
        chain = [account]
        while chain[-1] in self._rows and (parent := self._rows[chain[-1]][1]) not in chain:
            chain.append(parent)
        return chain

    def _carry(self) -> None:
        """What removed processes had counts where it counted."""
        for account, row in self._rows.items():
            for unit, posted, overrun in (("tokens", row[6], row[7]), ("money", row[11], row[12])):
                sums = self._sums[account, unit]  # type: ignore[index]
                sums.posted += posted
                sums.overrun += overrun

    def _holds(self) -> dict[int, _HoldRow]:
        holds = {}
        for number, account, tokens, state, nano, at_ms, cost, used in self._journal.scan("hold_all"):
            if account not in self._removed:
                holds[number] = _HoldRow(
                    account, state, {"tokens": tokens, "money": nano}, at_ms, {"tokens": used, "money": cost},
                    {unit: Sums() for unit in _UNITS},
                )  # fmt: skip
        return holds

    def _entry(
        self, holds: dict[int, _HoldRow], number: int, hold: int, kind: str, debit: int, credit: int, tokens: int,
        nano: int, at_ms: int,
    ) -> None:  # fmt: skip
        if debit in self._removed or credit in self._removed or kind == "limit":
            return
        back = debit == SUPPLY
        account = credit if back else debit
        found = holds.get(hold)
        if found is None:
            self._faults.append(f"entry {number}: there is no hold {hold}")
            return
        odd = {debit, credit} != {found.account, SUPPLY} or kind not in _KINDS or min(tokens, nano) < 0
        found.odd = found.odd or odd
        found.kinds.append(kind)
        self._settle_limits(number)
        for unit, amount in (("tokens", tokens), ("money", nano)):
            found.sums[unit].add(kind, amount, back=back)  # type: ignore[index]
            if kind == "adjusted":
                found.adjusted[unit] = found.adjusted.get(unit, 0) + (-amount if back else amount)  # type: ignore[call-overload, index]
            if kind == "held":
                found.granted[unit] = amount  # type: ignore[index]
            for each in self._chain(account):
                self._count(each, unit, kind, amount, back, found.at_ms, hold)  # type: ignore[arg-type]

    def _count(self, account: int, unit: Unit, kind: str, amount: int, back: bool, at_ms: int, hold: int) -> None:
        sums = self._sums[account, unit]
        sums.add(kind, amount, back=back)
        self._judge((account, unit, "total"), 0, sums, kind, amount, hold)
        for each, span in self._budgets.get(account, ()):
            if each != unit:
                continue
            start_ms = window.span(span, self._rows[account][14], at_ms).start_ms
            sums = self._windows[account, unit, span, start_ms]
            sums.add(kind, amount, back=back)
            if span != "total":
                self._judge((account, unit, span), start_ms, sums, kind, amount, hold)

    def _judge(self, key: _Key, start_ms: int, sums: Sums, kind: str, amount: int, hold: int) -> None:
        """A hold that was granted must have had room: invariant 4 of docs/design.md."""
        most = self._most.get(key)
        if kind != "held" or most is None or not amount:
            return
        most += self._added.get((*key, start_ms), 0)
        if sums.whole > most:
            account, unit, span = key
            self._faults.append(
                f"hold {hold} ({amount:,} {unit}) was granted above the limit of {self._whose(account)} "
                f"({most:,}, {span}): with it {sums.whole:,}"
            )

    def _limit_events(self) -> Iterator[tuple[int, Limited]]:
        for _, body in self._journal.scan("event_limited"):
            event = decode_event(body)
            if isinstance(event, Limited):
                yield event.entry, event

    def _settle_limits(self, before_entry: int) -> None:
        """Let the limits be those that held when entry number `before_entry` was written."""
        while self._limits and self._limits[0][0] < before_entry:
            _, event = self._limits.pop(0)
            key: _Key = (event.account, event.unit, event.window)
            if event.added:
                self._added[*key, event.start_ms] += event.added
            elif event.most is None:
                self._most.pop(key, None)
                self._added.update({at: 0 for at in self._added if at[:3] == key})
            else:
                self._most[key] = event.most

    def _check_counters(self) -> None:
        for account, row in self._rows.items():
            for unit, counters in (("tokens", row[3:6]), ("money", row[8:11])):
                sums = self._sums[HOME if account == SUPPLY else account, unit]  # type: ignore[index]
                sign = -1 if account == SUPPLY else 1
                want = tuple(sign * getattr(sums, name) for name in _COUNTERS)
                if counters != want:
                    self._faults.append(
                        f"{self._whose(account)}: its counters of {unit} (held, posted, overrun) are {counters}, "
                        f"its entries say {want}"
                    )
            limit = self._most.get((account, "tokens", "total"))
            if row[2] != limit:
                self._faults.append(f"{self._whose(account)}: its limit is {row[2]}, the journal says {limit}")

    def _check_windows(self) -> None:
        self._add_tally()
        current = {(account, unit, span) for account, budgets in self._now().items() for unit, span in budgets}
        for account, unit, span, start_ms, *counters in self._journal.rows("used_all"):
            sums = self._windows.pop((account, unit, span, start_ms), Sums())
            held, *spent = counters
            found, want = (held, sum(spent)), (sums.held, sums.posted + sums.overrun)
            if (account, unit, span) not in current:
                self._faults.append(f"{self._whose(account)}: {unit} by the {span} were counted without a limit")
            elif found != want and not self._is_vague((account, unit, span, start_ms)):
                self._faults.append(
                    f"{self._whose(account)}: {unit} of its {span} from {self._day(account, start_ms)} on "
                    f"(held, spent) are {found}, "
                    f"its entries say {want}"
                )

    def _now(self) -> dict[int, list[tuple[Unit, Window]]]:
        now: dict[int, list[tuple[Unit, Window]]] = defaultdict(list)
        for account, unit, span, _ in self._journal.rows("budget_all"):
            now[account].append((unit, span))
        return now

    def _is_vague(self, key: tuple[int, Unit, Window, int]) -> bool:
        """Whether it is not known what was used in a window: of a process below which others were removed.

        Nor is it while somebody is being erased; of named accounts, the tally knows it afterwards. The tally does not
        say in which accounts of programs a hold counted: a child counts in its parent's, too, and who was given another
        program counts in that of the first.
        """
        account = key[0]
        gone = 0 < account < NAMED and any(self._rows[account][at] for at in _GONE)
        return bool(self._removed) or gone or key in self._vague

    def _add_tally(self) -> None:
        """What erased holds had counts in the windows of named accounts; of those of programs, it may."""
        programs: dict[int, list[int]] = defaultdict(list)  # by the account above, those with limits
        for account, above, name, *_ in self._journal.rows("account_all_named"):
            if "/" in name and account in self._budgets:
                programs[above].append(account)
        for at_ms, payer, used, cost in self._journal.rows("tally_all"):
            for key in self._windows_at(self._chain(payer), at_ms):
                self._windows[key].posted += used if key[1] == "tokens" else cost
            self._vague.update(self._windows_at(programs[payer], at_ms))

    def _windows_at(self, accounts: Sequence[int], at_ms: int) -> Iterator[tuple[int, Unit, Window, int]]:
        """The windows of these accounts' limits in which a moment lies."""
        for account in accounts:
            for unit, span in self._budgets.get(account, ()):
                yield account, unit, span, window.span(span, self._rows[account][14], at_ms).start_ms

    def _check_holds(self, holds: dict[int, _HoldRow]) -> Iterator[str]:
        in_flight = {each.hold: p.pid for p in self._processes.values() for each in p.flights}
        timed = {number for (number,) in self._journal.rows("timer_holds")}
        for number, hold in holds.items():
            if fault := _misfit(hold):
                yield f"hold {number} of {self._whose(hold.account)}: {fault}"
            if hold.state not in ("held", "dispatched"):
                continue
            if not 0 < hold.account < NAMED:
                if number not in timed:
                    yield f"hold {number} of {self._whose(hold.account)}: open, and no time ends it"
            elif in_flight.pop(number, None) != hold.account:
                told = f"{hold.state}, but no model call of it is in flight"
                yield f"hold {number} of {self._whose(hold.account)}: {told}"
        for number, pid in in_flight.items():
            yield f"process {pid}: its model call has no open hold {number}"


def _misfit(hold: _HoldRow) -> str:
    """Why the entries of a hold do not fit its state; empty when they do."""
    kinds = hold.kinds
    wanted = {
        "held": ["held"], "dispatched": ["held"], "voided": ["held", "released"], "expired": ["held", "released"],
        "posted": ["held", "released", "posted"],
    }.get(hold.state)  # fmt: skip
    plain = [kind for kind in kinds if kind not in ("overrun", "adjusted")]
    if hold.odd or plain != wanted or kinds.count("overrun") > 1:
        return f"state {hold.state} does not fit its entries {kinds}"
    if hold.state != "posted" and "overrun" in kinds:
        return f"it is {hold.state} and has an overrun"
    ended = hold.state not in ("held", "dispatched")
    for unit in _UNITS:
        sums = hold.sums[unit]
        if hold.granted[unit] != hold.amounts[unit] or sums.held != (0 if ended else hold.amounts[unit]):
            return f"its entries hold {sums.held} of {hold.granted[unit]} {unit}, its row says {hold.amounts[unit]}"
        if sums.posted > hold.amounts[unit]:
            return f"{sums.posted} {unit} were posted of {hold.amounts[unit]} held"
        charged = sums.posted + sums.overrun - hold.adjusted.get(unit, 0)
        if ended and charged != hold.spent[unit]:
            return f"its entries charge {charged} {unit}, its row says {hold.spent[unit]}"
    return ""
