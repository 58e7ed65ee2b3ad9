"""The scheduler again, slow and plain: lists, sorting and no index. The oracle of `test_scheduler.py`.

`choose_reference(state, now_ms)` says whom the rules of docs/book/11-scheduler.md choose; it changes nothing. The
methods of `State` do what happens otherwise, by the same rules.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mains.kernel.bands import BANDS
from mains.kernel.ports import Usage
from mains.kernel.waiting import OUTPUT_WEIGHT, Waiting

Key = tuple[int, str]  # tenant, band
Path = tuple[object, ...]


@dataclass
class Kept:
    """A stretch of prompt that is kept: its tokens, those up to its end, and when it was used last."""

    tokens: int
    total: int
    used: int


@dataclass
class Flight:
    waiting: Waiting
    charged: int
    by_floor: bool | None
    settled: bool = False


@dataclass
class State:
    slots: int
    quantum: int
    tokens_max: int
    nodes_max: int
    aged: int = 32  # of so many choices of a tenant one goes to whoever has waited longest
    queue: list[Waiting] = field(default_factory=list)  # in order of arrival
    flights: dict[int, Flight] = field(default_factory=dict)
    spent: dict[Key, int] = field(default_factory=dict)
    choices: dict[Key, int] = field(default_factory=dict)
    line: dict[str, int] = field(default_factory=dict)
    owed: dict[str, int] = field(default_factory=lambda: dict.fromkeys(BANDS, 0))
    attained: dict[int, int] = field(default_factory=dict)
    kept: dict[Path, Kept] = field(default_factory=dict)
    clock: int = 0

    # what happens

    def add(self, new: Waiting) -> None:
        for place, old in enumerate(self.queue):
            if old.pid == new.pid:
                if _keys(old) == _keys(new):
                    self.queue[place] = new
                    return
                self.discard(new.pid)
                break
        key = (new.tenant, new.band)
        start = self.line_of(new.band) - self.quantum
        if not any((w.tenant, w.band) == key for w in self.queue):
            self.spent[key] = max(self.spent.get(key, start), start)
        self.queue.append(new)

    def discard(self, pid: int) -> None:
        gone = [w for w in self.queue if w.pid == pid]
        self.queue = [w for w in self.queue if w.pid != pid]
        for w in gone:
            self._left(w)
            self._rest(w)

    def take(self, w: Waiting) -> None:
        """A choice becomes true."""
        key, fits = (w.tenant, w.band), self.all_fit()
        by_floor = None if fits else band_of(self)[1]
        charged = max(0, w.input_tokens - self.matched(w)) + OUTPUT_WEIGHT * w.output_tokens
        self.line[w.band] = line_after(self, [w] if fits else [x for x in self.queue if x.band == w.band])
        self._forget()
        self.queue.remove(w)
        self._left(w)
        self.spent[key] += charged
        if by_floor is not None:
            self.choices[key] = self.choices.get(key, 0) + 1
            self._owe(w.band, by_floor, charged)
        self.flights[w.pid] = Flight(w, charged, by_floor)
        self._use(w)

    def settle(self, pid: int, usage: Usage | None) -> None:
        flight = self.flights.get(pid)
        if flight is None or flight.settled:
            return
        if usage is None:
            self._settle(flight, flight.charged)
            return
        self._settle(flight, usage.input_tokens - usage.cached_tokens + OUTPUT_WEIGHT * usage.output_tokens)
        if usage.output_tokens:
            self._grow(flight.waiting, usage.output_tokens)

    def release(self, pid: int) -> None:
        flight = self.flights.get(pid)
        if flight is None:
            return
        if not flight.settled:
            self._settle(flight, 0)
        del self.flights[pid]
        self._rest(flight.waiting)

    # what is known

    def line_of(self, band: str) -> int:
        return self.line.get(band, self.quantum)

    def all_fit(self) -> bool:
        return len(self.queue) <= self.slots - len(self.flights) and len({w.tenant for w in self.queue}) == 1

    def path(self, w: Waiting, length: int) -> Path:
        return (w.tenant, *[key for key, _ in w.prefix[:length]])

    def matched(self, w: Waiting) -> int:
        tokens = 0
        for length in range(1, len(w.prefix) + 1):
            kept = self.kept.get(self.path(w, length))
            if kept is None:
                break
            tokens += min(kept.tokens, w.prefix[length - 1][1])
            if kept.tokens < w.prefix[length - 1][1]:
                break
        return tokens

    def rank(self, w: Waiting) -> tuple[bool, int]:
        """Cold or warm, and the bucket of what is kept: the lower, the better."""
        depth = max(n for n in range(len(w.prefix) + 1) if n == 0 or self.path(w, n) in self.kept)
        total = self.kept[self.path(w, depth)].total if depth else 0
        bucket = next(b for b in range(64) if total < 256 << b)
        return not (depth and depth == len(w.prefix)), -bucket

    def level(self, w: Waiting) -> int:
        return next(n for n in range(40) if self.attained.get(w.program, 0) < 4096 * 4**n)

    # changes

    def _left(self, w: Waiting) -> None:
        if not any(x.band == w.band for x in self.queue):
            self.owed[w.band] = min(0, self.owed[w.band])

    def _rest(self, w: Waiting) -> None:
        """A band in which nothing waits or runs is forgotten; so is a tenant that does nothing and has no debt."""
        if not any(band == w.band for _, band in self._busy()):
            self.line.pop(w.band, None)
            self.spent = {key: spent for key, spent in self.spent.items() if key[1] != w.band}
            self.choices = {key: n for key, n in self.choices.items() if key[1] != w.band}
        self._forget()

    def _busy(self) -> set[Key]:
        calls = [*self.queue, *[flight.waiting for flight in self.flights.values()]]
        return {(call.tenant, call.band) for call in calls}

    def _forget(self) -> None:
        for key in set(self.spent) - self._busy():
            if self.spent[key] <= self.line_of(key[1]) - self.quantum:
                del self.spent[key]
                self.choices.pop(key, None)

    def _owe(self, band: str, by_floor: bool, tokens: int) -> None:
        if by_floor:
            self.owed[band] -= 8 * tokens
            return
        for lower in BANDS[BANDS.index(band) + 1 :]:
            if any(w.band == lower for w in self.queue):
                self.owed[lower] += tokens

    def _settle(self, flight: Flight, tokens: int) -> None:
        flight.settled = True
        w, more = flight.waiting, tokens - flight.charged
        self.spent[w.tenant, w.band] += more
        if flight.by_floor is not None:
            self._owe(w.band, flight.by_floor, more)
        self.attained[w.program] = self.attained.get(w.program, 0) + tokens

    def _use(self, w: Waiting) -> None:
        self.clock += 1
        total = 0
        for length in range(1, len(w.prefix) + 1):
            tokens = w.prefix[length - 1][1]
            total += tokens
            self.kept[self.path(w, length)] = Kept(tokens, total, self.clock)
        self._bound(self.path(w, len(w.prefix)))

    def _grow(self, w: Waiting, more: int) -> None:
        kept = self.kept.get(self.path(w, len(w.prefix)))
        if kept is not None:
            kept.total += w.prefix[-1][1] + more - kept.tokens
            kept.tokens = w.prefix[-1][1] + more
            self._bound(self.path(w, len(w.prefix)))

    def _bound(self, end: Path) -> None:
        while sum(k.tokens for k in self.kept.values()) > self.tokens_max or len(self.kept) > self.nodes_max:
            inner = {path[:-1] for path in self.kept}
            leaves = [path for path in self.kept if path not in inner]
            oldest = min(leaves, key=lambda path: self.kept[path].used)
            if oldest == end:
                break
            del self.kept[oldest]


def _keys(w: Waiting) -> tuple[object, ...]:
    return w.tenant, w.band, w.program, w.deadline_ms, [key for key, _ in w.prefix]


def band_of(state: State) -> tuple[str, bool]:
    """The band that is next, and whether by the floor."""
    waiting = [band for band in BANDS if any(w.band == band for w in state.queue)]
    owed = [band for band in waiting[1:] if state.owed[band] > 8 * 2_048]
    if owed:
        return max(owed, key=lambda band: (state.owed[band], -BANDS.index(band))), True
    return waiting[0], False


def line_after(state: State, waiting: list[Waiting]) -> int:
    """The line of a band after a choice among `waiting`: it rises by whole quanta when nobody is below it."""
    line = state.line_of(waiting[0].band)
    while all(state.spent[w.tenant, w.band] >= line for w in waiting):
        line += state.quantum
    return line


def favourite(state: State, own: list[Waiting]) -> Waiting:
    """Of one tenant's calls, in order of arrival, the one that goes when neither age nor a deadline decides.

    Step by step: those whose programs have had least; of these, whoever has most of its prompt kept; the first to come.
    """
    least = min(state.level(w) for w in own)
    poorest = [w for w in own if state.level(w) == least]
    best = min(state.rank(w) for w in poorest)
    return next(w for w in poorest if state.rank(w) == best)


def choose_reference(state: State, now_ms: int) -> Waiting | None:
    """Whom the rules choose."""
    if not state.queue or len(state.flights) >= state.slots:
        return None
    if state.all_fit():
        return state.queue[0]
    band, _ = band_of(state)
    waiting = [w for w in state.queue if w.band == band]
    line = line_after(state, waiting)
    below = [w for w in waiting if state.spent[w.tenant, band] < line]
    lists = {tenant: [w for w in waiting if w.tenant == tenant] for tenant in {w.tenant for w in below}}
    favourites = {tenant: favourite(state, own) for tenant, own in lists.items()}
    tenant = min(lists, key=lambda t: (state.rank(favourites[t]), state.spent[t, band], t))
    own = lists[tenant]
    if (state.choices.get((tenant, band), 0) + 1) % state.aged == 0:
        return own[0]
    at_risk = [w for w in own if w.deadline_ms and w.deadline_ms - 10_000 <= now_ms]
    if at_risk:
        return min(at_risk, key=lambda w: (w.deadline_ms, own.index(w)))
    return favourites[tenant]
