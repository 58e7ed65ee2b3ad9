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
change often. Pages of shared segments become stubs like results, but only above the high mark: they are to be in mind.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

PINNED = frozenset({"rule", "notes"})  # and the opening
TURNS_MIN = 10  # measured: with 5 to 20 here the traces cost the same within 1 % (docs/design.md, 2026-11-28)

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


DEFAULT = Policy()


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
    """With all gone that may go, `tokens` are left: too many. `staying`: indexes of what cannot go, largest first."""

    tokens: int
    window: int
    staying: tuple[int, ...]


def marks_of(window: int, high_percent: int, low_percent: int) -> Marks:
    """The marks of a window that holds so many tokens of a frame: without the answer and the tools."""
    return Marks(window, window * high_percent // 100, window * low_percent // 100)


def expected_turns(turns: int, turns_max: int) -> int:
    """How many model calls a process is expected to make yet: as many as it has made (Lindy's rule), within bounds."""
    return max(1, min(max(turns, TURNS_MIN), turns_max - turns))


def plan(
    entries: Sequence[Entry],
    marks: Marks,
    rates: Rates,
    turns_left: int,
    policy: Policy = DEFAULT,
    *,
    warm: bool = True,
) -> Plan | Misfit:
    """What leaves this frame before the next call. `warm`: the engine still has what it read for the last one."""
    total = sum(entry.tokens for entry in entries)
    layout = _Layout(entries, rates, turns_left, policy, warm=warm, shared=total > marks.high)
    if total > marks.window:
        return _made_to_fit(layout, marks, total)
    paying = (way for way, factor in _worth_a_look(layout, marks, total) if way and layout.gain(way, factor) > 0)
    way = next(paying, None)
    return layout.planned(way, total) if way else Plan(total)


def _worth_a_look(layout: _Layout, marks: Marks, total: int) -> Iterator[tuple[_Break | None, float]]:
    """What may be done to a frame that fits, best first, and how many times over it has to pay."""
    above, wanted = total > marks.high, total - marks.low
    if above:
        yield layout.best_stubs(wanted), 1.0
    yield layout.best_stubs(round(total * layout.policy.share)), layout.policy.factor
    if above:
        layout.spare(1, message=True)
        yield layout.way_to(wanted), 1.0


def _made_to_fit(layout: _Layout, marks: Marks, total: int) -> Plan | Misfit:
    """To the low mark, else to the high one, else as far as it goes. What is spared goes when nothing else helps."""
    if stubs := layout.best_stubs(total - marks.low):
        return layout.planned(stubs, total, forced=True)
    layout.spare(1, message=True)
    way = layout.way_to(total - marks.low) or layout.way_to(total - marks.high) or layout.farthest()
    if total - way.saved > marks.window:
        layout.spare(1, message=False)
        way = layout.farthest()
    if total - way.saved > marks.window:
        return Misfit(total - way.saved, marks.window, layout.staying())
    return layout.planned(way, total, forced=True)


class _Break(NamedTuple):
    """A way to change the frame from entry `at` on. The entries from `at` to `cut`, if any, become a summary."""

    at: int
    cut: int
    saved: int
    again: int
    call: float = 0.0  # what the summary's own call costs


_NOTHING = _Break(0, 0, 0, 0)


class _Layout:
    """A frame, seen from each of its places: what is read again from here on, what a stub or a summary would save."""

    def __init__(
        self,
        entries: Sequence[Entry],
        rates: Rates,
        turns_left: int,
        policy: Policy,
        *,
        warm: bool,
        shared: bool,
    ) -> None:
        self.stubbed_kinds = ("segment",) if shared else ()  # besides results: what is shared is to be in mind
        self.entries, self.rates, self.turns_left, self.policy = entries, rates, turns_left, policy
        self.asked = rates.cached if warm else rates.uncached  # for what the summary's own call begins with
        self.replies = [at for at, entry in enumerate(entries) if entry.kind == "reply"]
        self.last = self.replies[-1] if self.replies else 0  # from here on nothing is answered yet
        self.pinned = {at for at, entry in enumerate(entries) if entry.pinned}
        self.messages = [at for at, entry in enumerate(entries) if entry.kind == "message"]
        self.fat = [at for at, entry in enumerate(entries) if self._is_worth_a_stub(entry)]
        self.first = next((at for at in range(self.last) if entries[at].position >= 0), self.last)
        self.cuts = [at for at in range(self.first + 1, self.last + 1) if self._is_between_turns(at)]
        self.tokens = [entry.tokens for entry in entries]
        self.read = _sums_from(self.tokens[: self.last] if warm else [], len(entries))
        self.spare(policy.keep_turns, message=True)

    def spare(self, keep_turns: int, *, message: bool) -> None:
        """Let the results of the last turns be as they are, and the last message or not."""
        self.stay = self.pinned.union(self.messages[-1:] if message else ())
        whole = self.replies[-max(1, keep_turns) :][:1] or [0]
        self.stubs = self.fat[: bisect_left(self.fat, whole[0])]
        save = [0] * len(self.tokens)
        for at in self.stubs:
            save[at] = self.tokens[at] - self.policy.stub_tokens
        self.save = _sums_from(save, len(save))
        going = list(self.tokens)
        for at in self.stay:
            going[at] = 0
        self.gone = [*accumulate(going, initial=0)]  # of each place, what a summary of all before it would take away

    def _is_between_turns(self, at: int) -> bool:
        before, behind = self.entries[at - 1], self.entries[at]
        return not behind.tied and behind.position >= before.until

    def _is_worth_a_stub(self, entry: Entry) -> bool:
        fetchable = (entry.tied or entry.kind in self.stubbed_kinds) and entry.kind != "stub"
        return fetchable and entry.tokens >= _WORTH * self.policy.stub_tokens

    def gain(self, way: _Break, factor: float) -> float:
        """What is saved until the expected end, less `factor` times what the break costs now."""
        cost = way.again * self.rates.uncached + way.call
        return way.saved * self.turns_left * self.rates.cached - factor * cost

    def best_stubs(self, least: int) -> _Break | None:
        """The stubs with the largest gain among those that save `least` tokens. From one place on, all that can be."""
        ways = (self._stubs(at) for at in self.stubs if self.save[at] >= least)
        return max(ways, key=lambda way: self.gain(way, 1.0), default=None)

    def way_to(self, wanted: int) -> _Break | None:
        """How to save `wanted` tokens: by stubs, else by the shortest summary that does."""
        shortest = bisect_left(self.cuts, wanted, key=self._saved_by_summary)  # a longer one never saves less
        return self.best_stubs(wanted) or next(map(self._summary, self.cuts[shortest : shortest + 1]), None)

    def farthest(self) -> _Break:
        """What saves most; perhaps nothing."""
        ways = [*map(self._stubs, self.stubs[:1]), *map(self._summary, self.cuts[-1:])]
        return max([_NOTHING, *ways], key=lambda way: way.saved)

    def _stubs(self, at: int) -> _Break:
        return _Break(at, at, self.save[at], max(0, self.read[at] - self.save[at]))

    def _saved_by_summary(self, cut: int) -> int:
        return self.gone[cut] - self.policy.summary_tokens + self.save[cut]

    def _summary(self, cut: int) -> _Break:
        """A summary of all before `cut`; what may become a stub behind it does. Its call has that as its beginning."""
        saved = self._saved_by_summary(cut)
        call = sum(self.tokens[:cut]) * self.asked + self.policy.summary_tokens * self.rates.output
        return _Break(self.first, cut, saved, max(0, self.read[self.first] - saved), call)

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
        return tuple(sorted(stay, key=lambda at: (-self.tokens[at], at)))


def _sums_from(numbers: list[int], places: int) -> list[int]:
    """Of each place, the sum from there to the end; what has no number counts nothing."""
    sums = [*accumulate(reversed(numbers), initial=0)][::-1]
    return sums + [0] * (places + 1 - len(sums))
