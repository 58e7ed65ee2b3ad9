"""The second ledger: the rules of tokens, checked entry by entry as they are committed. It trusts no counter.

It knows what each account counts in and its limit, and follows the entries in their order, so that a hold is judged by
what stood at the moment when it was taken.
"""

from __future__ import annotations

from mains.kernel.limits import HOME, NAMED, SUPPLY
from mains.kernel.tx import decode_process
from mains.testing.reader import Reader
from mains.testing.story import Broke

LIMITS = "posted + overrun + held + hold <= limit, for every limit above"
ENDS = "a hold ends once"
ZERO = "the ledger sums to zero"


class _Account:
    __slots__ = ("above", "held", "limit", "overrun", "parent", "posted")

    def __init__(self, parent: int, limit: int | None, above: tuple[int, ...]) -> None:
        self.parent = parent
        self.limit = limit
        self.above = above  # itself, and every account in which it counts
        self.held = self.posted = self.overrun = 0


class Meter:
    """`open`: the holds that have not ended, and whose they are."""

    def __init__(self) -> None:
        self._accounts: dict[int, _Account] = {}
        self._last = 0
        self._released: dict[int, int] = {}  # ended holds: what may still be posted of them
        self._held: dict[int, int] = {}
        self.open: dict[int, int] = {}

    def committed(self, reader: Reader) -> None:
        """Follow what was committed. Raises Broke."""
        rows = reader.rows("accounts")
        for account, parent, limit, *_ in rows:
            known = self._accounts.get(account)
            if known is None:
                known = self._accounts[account] = _Account(parent, limit, self._chain(reader, account, parent))
            if (known.parent, known.limit) != (parent, limit):
                raise Broke(LIMITS, f"account {account} has another parent or limit than it was born with")
        for number, hold, kind, debit, credit, tokens in reader.rows("entries_since", self._last):
            self._last = number
            account = credit if kind == "released" else debit
            if {debit, credit} != {account, SUPPLY} or tokens < 0:
                raise Broke(ZERO, f"entry {number} ({kind}) is between {debit} and {credit}")
            self._entry(hold, kind, account, tokens)
        for account, _, _, *counters in rows:
            known = self._accounts[account]
            sign = -1 if account == SUPPLY else 1
            seen = self._accounts[HOME] if account == SUPPLY else known
            if counters != [sign * seen.held, sign * seen.posted, sign * seen.overrun]:
                told = f"held {seen.held}, posted {seen.posted}, overrun {seen.overrun}"
                raise Broke(ZERO, f"account {account} counts {counters}, its entries say {told}")

    def _entry(self, hold: int, kind: str, account: int, tokens: int) -> None:
        match kind:
            case "held":
                if hold in self._held:
                    raise Broke(ENDS, f"hold {hold} was taken twice")
                self._held[hold] = tokens
                self.open[hold] = account
                self._take(hold, account, tokens)
            case "released":
                if self.open.pop(hold, None) != account or self._held[hold] != tokens:
                    raise Broke(ENDS, f"hold {hold} of process {account} was released, but it was not open")
                self._released[hold] = tokens
                self._move(account, held=-tokens)
            case "posted" | "overrun":
                left = self._released.get(hold)
                if left is None or (kind == "posted" and tokens > left):
                    raise Broke(ENDS, f"{tokens} tokens were {kind} for hold {hold}, which has {left} left")
                if kind == "posted":
                    self._released[hold] = 0
                self._move(account, **{kind: tokens})

    def _take(self, hold: int, account: int, tokens: int) -> None:
        for each in self._accounts[account].above:
            known = self._accounts[each]
            spent = known.posted + known.overrun + known.held
            if known.limit is not None and spent + tokens > known.limit:
                raise Broke(
                    LIMITS,
                    f"hold {hold} ({tokens} tokens) of process {account}: account {each} has {spent} of {known.limit}",
                )
            known.held += tokens

    def _move(self, account: int, held: int = 0, posted: int = 0, overrun: int = 0) -> None:
        for each in self._accounts[account].above:
            known = self._accounts[each]
            known.held += held
            known.posted += posted
            known.overrun += overrun

    def _chain(self, reader: Reader, account: int, parent: int) -> tuple[int, ...]:
        if 0 < account < NAMED:
            row = reader.one("process", account)
            assert row is not None
            return decode_process(row[3]).accounts
        return (account,) if account in (HOME, SUPPLY) else (account, *self._accounts[parent].above)
