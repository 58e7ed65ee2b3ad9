"""Eviction: what leaves a frame, and when. Pure: decided from the page table alone.

    Entry    what stands at one place of a frame: a page, or what stands there for pages that have left
    Marks    what fits; above what something should go; down to what
    Rates    what tokens cost
    Policy   how large what comes instead is, and how clearly a break must pay
    plan     -> Plan: tool results that become stubs, old turns that become one summary, or nothing
             -> Misfit: even then it does not fit

What is guaranteed: the opening, rules and notes stay; a call and its results are never apart; what the model has not
answered yet stays whole; the last message before that stays, unless nothing else helps; ranges are nested or disjoint
with those of covers that stand in the frame. The same entries give the same plan.

A change in a frame makes the engine read again all that stands behind it. So a plan is a *break* at one place, and
everything behind that place that may become a stub does so at once. A break pays when

    tokens saved x turns left x cached price  >  tokens read again x uncached price + the summary's own call

Above the high mark it is made when it pays and reaches the low mark, and always when the frame does not fit. Elsewhere
only stubs are made, and only when they pay `factor` times over and free `share` of the frame: else the prefix would
change often.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

__all__ = ["Entry", "Marks", "Misfit", "Plan", "Policy", "Rates", "Summary", "marks", "plan", "turns_left"]

PINNED = frozenset({"program", "input", "rule", "notes"})
TURNS_LEFT_MIN = 10  # measured: with 5 to 20 here the traces cost the same within 1 % (docs/design.md, 2026-11-28)

_WORTH = 2  # a result becomes a stub when it is at least so many times as large


class Entry(NamedTuple):
    """What stands at one place of a frame, for the positions from `position` up to `until` (exclusive).

    The opening has negative positions. All pages of one cover (what it kept, and its summary) stand with its range.
    `tied`: it answers a call of the reply before it (role `tool`), and goes or stays with that.
    """

    position: int
    until: int
    tokens: int
    kind: str
    tied: bool = False

    @property
    def pinned(self) -> bool:
        """Whether it is in every frame. An answer never is: its call would have to stay with it."""
        return self.position < 0 or (self.kind in PINNED and not self.tied)


class Marks(NamedTuple):
    """In tokens: what fits into a frame; above `high` something should go; then it goes down to `low` in one step."""

    window: int
    high: int
    low: int


class Rates(NamedTuple):
    """What a token costs, in any unit: input that the engine has read before, input that it reads, output."""

    cached: float = 1.0
    uncached: float = 10.0
    output: float = 50.0


class Policy(NamedTuple):
    """How it is done. The last `keep_turns` turns keep their results, as long as the frame fits."""

    stub_tokens: int = 60
    summary_tokens: int = 400
    keep_turns: int = 2
    factor: float = 3.0
    share: float = 0.3


class Summary(NamedTuple):
    """Positions `first` to `until` (exclusive) leave for a summary; `kept`: indexes of entries that stay beside it."""

    first: int
    until: int
    kept: tuple[int, ...]


class Plan(NamedTuple):
    """What goes: positions of results that become stubs, and turns that become a summary. Neither: nothing.

    `tokens` are in the frame afterwards, and `again` of them are read again. `forced`: it had not fitted.
    """

    tokens: int
    stubs: tuple[int, ...] = ()
    summary: Summary | None = None
    again: int = 0
    forced: bool = False


class Misfit(NamedTuple):
    """With all gone that may go, `tokens` are left, more than fit. `staying`: indexes of those entries, largest first."""

    tokens: int
    window: int
    staying: tuple[int, ...]


def marks(window: int, high_percent: int, low_percent: int) -> Marks:
    """The marks of a window that holds so many tokens of a frame: without the answer and the tools."""
    return Marks(window, window * high_percent // 100, window * low_percent // 100)


def turns_left(turns: int, turns_max: int) -> int:
    """How many model calls a process is expected to make yet: as many as it has made (Lindy's rule), within bounds."""
    return max(1, min(max(turns, TURNS_LEFT_MIN), turns_max - turns))


def plan(
    entries: Sequence[Entry],
    marks: Marks,
    rates: Rates,
    turns_left: int,
    policy: Policy = Policy(),
    *,
    warm: bool = True,
) -> Plan | Misfit:
    """What leaves this frame before the next call. `warm`: the engine still has what it read for the last one."""
    total = sum(entry.tokens for entry in entries)
    layout = _Layout(entries, rates, turns_left, policy, warm=warm)
    if total > marks.window:
        return _make_fit(layout, marks, total)
    if total > marks.high:
        way = layout.way_down(total - marks.low)
        if way and total - way.saved <= marks.low and layout.gain(way, 1.0) > 0:
            return layout.planned(way, total)
    thrifty = layout.best_stubs(round(total * policy.share))
    if thrifty and layout.gain(thrifty, policy.factor) > 0:
        return layout.planned(thrifty, total)
    return Plan(total)


def _make_fit(layout: _Layout, marks: Marks, total: int) -> Plan | Misfit:
    """Down to the low mark if that can be, else as far as it goes; what is spared by choice goes last."""
    sparing = (layout, layout.with_less_spared(message=True), layout.with_less_spared(message=False))
    found = [(each, each.way_down(total - marks.low)) for each in sparing]
    for goal, choices in ((marks.low, found[:2]), (marks.window, found)):
        for each, way in choices:
            if way and total - way.saved <= goal:
                return each.planned(way, total, forced=True)
    last, way = found[-1]
    return Misfit(total - (way.saved if way else 0), marks.window, last.staying())


class _Break(NamedTuple):
    """A way to change the frame from entry `at` on. The entries from `at` to `cut`, if any, become a summary."""

    at: int
    cut: int
    saved: int
    again: int
    call: float = 0.0  # what the summary's own call costs


class _Layout:
    """A frame, seen from each of its places: what is read again from here on, and what stubs would save."""

    def __init__(
        self,
        entries: Sequence[Entry],
        rates: Rates,
        turns_left: int,
        policy: Policy,
        *,
        warm: bool,
        message: bool = True,
    ) -> None:
        self.entries, self.rates, self.turns_left, self.policy, self.warm = entries, rates, turns_left, policy, warm
        kinds = [entry.kind for entry in entries]
        replies = [at for at, kind in enumerate(kinds) if kind == "reply"]
        self.last = replies[-1] if replies else 0  # from here on nothing is answered yet
        spared = replies[-policy.keep_turns :][:1] if policy.keep_turns > 1 else replies[-1:]
        self.stubs = [at for at in range(spared[0] if spared else 0) if self._is_worth_a_stub(entries[at])]
        self.stay = {at for at, entry in enumerate(entries) if entry.pinned}
        if message and "message" in kinds:
            self.stay.add(len(kinds) - 1 - kinds[::-1].index("message"))
        read = [entry.tokens if warm and at < self.last else 0 for at, entry in enumerate(entries)]
        save = [0] * len(entries)
        for at in self.stubs:
            save[at] = entries[at].tokens - policy.stub_tokens
        self.read, self.save = _sums_from(read), _sums_from(save)

    def _is_worth_a_stub(self, entry: Entry) -> bool:
        fetchable = (entry.tied or entry.kind == "segment") and not entry.pinned and entry.kind != "stub"
        return fetchable and entry.tokens >= _WORTH * self.policy.stub_tokens

    def with_less_spared(self, *, message: bool) -> _Layout:
        """The same frame, but only what the model has not answered keeps its results; and the last message or not."""
        policy = self.policy._replace(keep_turns=1)
        return _Layout(self.entries, self.rates, self.turns_left, policy, warm=self.warm, message=message)

    def gain(self, way: _Break, factor: float) -> float:
        """What is saved until the expected end, less `factor` times what the break costs now."""
        cost = way.again * self.rates.uncached + way.call
        return way.saved * self.turns_left * self.rates.cached - factor * cost

    def best_stubs(self, least: int) -> _Break | None:
        """The stubs with the largest gain among those that save `least` tokens."""
        ways = (way for way in self._stubs() if way.saved >= least)
        return max(ways, key=lambda way: self.gain(way, 1.0), default=None)

    def way_down(self, wanted: int) -> _Break | None:
        """How to save `wanted` tokens: by stubs, else by the shortest summary that does; else what saves most."""
        if stubs := self.best_stubs(wanted):
            return stubs
        summaries = list(self._summaries())
        enough = next((way for way in summaries if way.saved >= wanted), None)
        return enough or max([*self._stubs(), *summaries], key=lambda way: way.saved, default=None)

    def _stubs(self) -> Iterator[_Break]:
        """Each place at which stubs can begin."""
        for at in self.stubs:
            yield _Break(at, at, self.save[at], max(0, self.read[at] - self.save[at]))

    def _summaries(self) -> Iterator[_Break]:
        """Each end that a summary of the oldest turns can have; what may become a stub behind it does."""
        first = next((at for at, entry in enumerate(self.entries) if entry.position >= 0), self.last)
        asked = sum(entry.tokens for entry in self.entries[:first])
        saved = -self.policy.summary_tokens
        for at in range(first, self.last):
            entry, behind = self.entries[at], self.entries[at + 1]
            asked += entry.tokens
            saved += 0 if at in self.stay else entry.tokens
            if saved > 0 and not behind.tied and behind.position >= entry.until:
                call = asked * (self.rates.cached if self.warm else self.rates.uncached)
                call += self.policy.summary_tokens * self.rates.output
                whole = saved + self.save[at + 1]
                yield _Break(first, at + 1, whole, max(0, self.read[first] - whole), call)

    def planned(self, way: _Break, total: int, *, forced: bool = False) -> Plan:
        """The plan that makes this break."""
        stubs = tuple(self.entries[at].position for at in self.stubs if at >= way.cut)
        summary = None
        if way.cut > way.at:
            kept = tuple(at for at in range(way.at, way.cut) if at in self.stay)
            summary = Summary(self.entries[way.at].position, self.entries[way.cut - 1].until, kept)
        return Plan(total - way.saved, stubs, summary, way.again, forced)

    def staying(self) -> tuple[int, ...]:
        """What can neither become a stub nor go into a summary, the largest first."""
        stay = self.stay.union(range(self.last, len(self.entries)))
        return tuple(sorted(stay, key=lambda at: (-self.entries[at].tokens, at)))


def _sums_from(numbers: list[int]) -> list[int]:
    """Of each place, the sum from there to the end; and 0 behind the end."""
    return [*accumulate(reversed(numbers), initial=0)][::-1]
