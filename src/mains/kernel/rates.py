"""Rates: how much one backend takes, and what it has said of that. The gate of its lane. Pure: no clock, no I/O.

    budgets       `rpm` and `tpm` as configured: no 60 s hold more calls, or more tokens (a sliding window, exact)
    allowances    what its answers say is left, and when it is full again (a bucket that fills, or a window that ends)
    concurrency   `slots_now`: from `slots` down to 1. A backend that is overloaded halves it, once for all calls that
                  were in flight; each served call adds 1 / `slots_now` (AIMD, as TCP: Chiu and Jain, 1989)
    closed        a Retry-After closes the backend for everybody, once; a refusal without one does for a time that
                  doubles with each refusal in a row
    circuit       `circuit.py`: an engine that is down is probed by one call at a time

Tokens are the estimate of the call that leaves; when it ends, the engine's own count takes its place. A call that is
larger than a whole budget counts as the budget: it leaves when nothing else has for a minute, and is not stuck.

Times go in as the wall clock has them. A clock that goes back moves everything here with it: nobody waits for a day
because a clock was wrong for one. Nothing is stored: after a boot the backend says it again.
"""

from __future__ import annotations

from collections import deque
from math import ceil

from mains.errors import Allowance, RateLimits
from mains.kernel.circuit import Circuit
from mains.kernel.ports import Usage
from mains.kernel.waiting import Waiting
from mains.settings import Settings

WINDOW_MS = 60_000
"""What providers count by: requests and tokens a minute."""


class Rates:
    """See the module's header. One call of a process at a time: calls are named by their pid."""

    def __init__(self, slots: int, settings: Settings, *, rpm: int = 0, tpm: int = 0) -> None:
        """`rpm` and `tpm` 0: no budget of that kind."""
        self.slots = slots
        self._settings = settings
        self._windows = (_Window(rpm), _Window(tpm))  # calls, tokens
        self._budgeted = bool(rpm or tpm)
        self._buckets: dict[str, _Bucket] = {}  # by field of RateLimits
        self._concurrency = float(max(1, slots))
        self._calls = 0  # that have left; each has its number
        self._flights: dict[int, _Flight] = {}  # by pid
        self._cut_at = 0  # the number of the last call that left before the last cut
        self._heard = 0  # the number of the last call whose answer said what is left
        self._refusals = 0  # in a row
        self._closed_until_ms = 0
        self.circuit = Circuit(
            failures=settings.breaker_failures,
            calls=settings.breaker_calls,
            failed_percent=settings.breaker_failed_percent,
            open_ms=settings.breaker_open_ms,
            open_max_ms=settings.breaker_open_ceiling_ms,
        )
        self._offset_ms = 0  # from the wall clock to one that never goes back
        self._seen_ms = 0  # on that one

    # what may leave

    @property
    def slots_now(self) -> int:
        """How many calls at once the backend takes, as far as is known."""
        return min(self.slots, max(1, int(self._concurrency)))

    def allows(self, waiting: Waiting, now_ms: int) -> bool:
        """Whether this call may leave now."""
        return self._opens_ms(waiting, self._time(now_ms)) is None and self.circuit.allows(self._seen_ms)

    def next_ms(self, waiting: Waiting, now_ms: int) -> int | None:
        """When this call may leave at the earliest, by what is known now; None: when another call has ended."""
        opens_ms = self._opens_ms(waiting, self._time(now_ms))
        circuit_ms = self.circuit.opens_ms()
        if circuit_ms is not None and circuit_ms > self._seen_ms:
            opens_ms = max(opens_ms or 0, circuit_ms)
        if opens_ms is None:
            return now_ms if self.circuit.allows(self._seen_ms) else None
        return opens_ms - self._offset_ms

    def closed_until_ms(self, now_ms: int) -> int:
        """Until when the backend takes no call whatever it is; not after `now_ms`: it is open."""
        self._time(now_ms)
        return max(self._closed_until_ms, self.circuit.opens_ms() or 0) - self._offset_ms

    def down(self, now_ms: int) -> bool:
        """Whether the engine is down, and not due to be probed."""
        self._time(now_ms)
        return self.circuit.down(self._seen_ms)

    def health(self, now_ms: int) -> str:
        """What is wrong with the backend, in a sentence; empty: nothing is known to be."""
        if not self.circuit.closed:
            return f"down: {self.circuit.why}"
        closed_ms = self.closed_until_ms(now_ms) - now_ms
        if closed_ms > 0:
            return f"no call for {ceil(closed_ms / 1_000)} s: too much to do"
        full_ms = self._limits_ms(_ANY, self._seen_ms) - self._seen_ms  # whatever the call is
        return f"no call for {ceil(full_ms / 1_000)} s: its rate limit" if full_ms > 0 else ""

    def _opens_ms(self, waiting: Waiting, time_ms: int) -> int | None:
        """When budgets, allowances and the backend's own wish let a call go; None: now."""
        latest = self._closed_until_ms
        if self._budgeted or self._buckets:
            latest = max(latest, self._limits_ms(waiting, time_ms))
        return latest if latest > time_ms else None

    def _limits_ms(self, waiting: Waiting, time_ms: int) -> int:
        """When budgets and allowances let a call go; a time that is over: now."""
        return max(
            self._windows[0].opens_ms(1, time_ms),
            self._windows[1].opens_ms(waiting.input_tokens + waiting.output_tokens, time_ms),
            *(bucket.opens_ms(_need(field, waiting), time_ms) for field, bucket in self._buckets.items()),
        )

    # what happens

    def dispatched(self, waiting: Waiting, now_ms: int) -> None:
        """This call leaves now."""
        time_ms = self._time(now_ms)
        self._calls += 1
        tokens = waiting.input_tokens + waiting.output_tokens
        entries = (self._windows[0].add(1, time_ms), self._windows[1].add(tokens, time_ms))
        self._flights[waiting.pid] = _Flight(self._calls, waiting, entries)
        for field, bucket in self._buckets.items():
            bucket.take(_need(field, waiting), time_ms)
        self.circuit.sent(waiting.pid)

    def succeeded(self, pid: int, usage: Usage | None, limits: RateLimits | None, now_ms: int) -> None:
        """A call was served."""
        flight = self._end(pid, limits, now_ms)
        if flight is None:
            return
        if usage is not None:
            self._windows[1].correct(flight.entries[1], max(0, usage.total))
        self._refusals = 0
        self._concurrency = min(float(self.slots), self._concurrency + 1 / self._concurrency)
        self.circuit.succeeded(pid)

    def refused(self, pid: int, retry_after_s: float, limits: RateLimits | None, now_ms: int) -> None:
        """The backend has too much to do and did not take the call. It lives."""
        flight = self._end(pid, limits, now_ms)
        if flight is None:
            return
        self._windows[1].correct(flight.entries[1], 0)
        self.circuit.succeeded(pid)
        first = flight.number > self._cut_at
        if first:  # the others that were in flight then will hear the same
            at_once = min(self._concurrency, len(self._flights) + 1.0)
            self._concurrency = max(1.0, at_once / 2)
            self._cut_at = self._calls
            self._refusals += 1
        if retry_after_s > 0:
            wish_ms = min(round(retry_after_s * 1_000), self._settings.retry_after_ceiling_ms)
            self._close(wish_ms)
        elif first:
            settings = self._settings
            doubled = settings.retry_base_ms << min(self._refusals - 1, 30)
            self._close(min(doubled, settings.retry_ceiling_ms))

    def failed(self, pid: int, now_ms: int, why: str, *, final: bool) -> None:
        """The engine failed. `final`: it will again, until somebody mends something."""
        if self._end(pid, None, now_ms) is not None:
            self.circuit.failed(pid, self._seen_ms, why, final=final)

    def answered(self, pid: int, now_ms: int) -> None:
        """The backend did not take the call because of the call itself: it is up."""
        if self._end(pid, None, now_ms) is not None:
            self.circuit.succeeded(pid)

    def gone(self, pid: int) -> None:
        """Nobody knows how a call went: it was broken off."""
        if self._flights.pop(pid, None) is not None:
            self.circuit.gone(pid)

    def withdrawn(self, pid: int, now_ms: int) -> None:
        """A call of which nothing was told was not made."""
        flight = self._end(pid, None, now_ms)
        if flight is None:
            return
        for window, entry in zip(self._windows, flight.entries, strict=True):
            window.correct(entry, 0)
        for field, bucket in self._buckets.items():
            bucket.give(_need(field, flight.waiting))
        self.circuit.gone(pid)

    def _end(self, pid: int, limits: RateLimits | None, now_ms: int) -> _Flight | None:
        time_ms = self._time(now_ms)
        flight = self._flights.pop(pid, None)
        if flight is not None and limits is not None:
            self._learn(flight, limits, time_ms)
        return flight

    def _learn(self, flight: _Flight, limits: RateLimits, time_ms: int) -> None:
        """Take over what the backend says is left, less what has left since: it may not have counted that yet.

        Headers come with the first byte, and are told at the end: an answer that took longer than one to a later call
        tells of then. It is believed where it says less.
        """
        late = flight.number < self._heard
        self._heard = max(self._heard, flight.number)
        later = [other.waiting for other in self._flights.values() if other.number > flight.number]
        for field, allowance in zip(RateLimits._fields, limits, strict=True):
            if allowance is not None and allowance.limit > 0:
                gone = sum(_need(field, waiting) for waiting in later)
                bucket = self._buckets.get(field)
                if bucket is None:
                    bucket = self._buckets[field] = _Bucket()
                bucket.learn(allowance, gone, time_ms, late=late)

    def _close(self, span_ms: int) -> None:
        self._closed_until_ms = max(self._closed_until_ms, self._seen_ms + span_ms)

    def _time(self, now_ms: int) -> int:
        """The wall clock's time on a clock that never goes back."""
        time_ms = now_ms + self._offset_ms
        if time_ms < self._seen_ms:
            self._offset_ms += self._seen_ms - time_ms
        else:
            self._seen_ms = time_ms
        return self._seen_ms


class _Flight:
    """A call that has left: its number, what it is, and its entries in the windows."""

    __slots__ = ("entries", "number", "waiting")

    def __init__(self, number: int, waiting: Waiting, entries: tuple[_Entry, _Entry]) -> None:
        self.number = number
        self.waiting = waiting
        self.entries = entries


class _Entry:
    """What left at a time."""

    __slots__ = ("amount", "at_ms", "over")

    def __init__(self, at_ms: int, amount: int, over: bool = False) -> None:
        self.at_ms = at_ms
        self.amount = amount
        self.over = over  # it is in no window any more


_NOTHING = _Entry(0, 0, over=True)  # the entry of every call where there is no budget


class _Window:
    """A budget for every 60 s. An entry leaves it 60 s after it came: at most the calls of a minute are kept."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._entries: deque[_Entry] = deque()
        self._used = 0

    def opens_ms(self, amount: int, time_ms: int) -> int:
        """When there is room for so much."""
        if not self._budget:
            return 0
        self._forget(time_ms)
        over = self._used + min(amount, self._budget) - self._budget
        if over <= 0:
            return 0
        for entry in self._entries:
            over -= entry.amount
            if over <= 0:
                return entry.at_ms + WINDOW_MS
        return 0

    def add(self, amount: int, time_ms: int) -> _Entry:
        """So much leaves."""
        if not self._budget:
            return _NOTHING
        entry = _Entry(time_ms, min(amount, self._budget))
        self._forget(time_ms)
        self._entries.append(entry)
        self._used += entry.amount
        return entry

    def correct(self, entry: _Entry, amount: int) -> None:
        """So much it was."""
        if entry.over:
            return
        amount = min(amount, self._budget)
        self._used += amount - entry.amount
        entry.amount = amount

    def _forget(self, time_ms: int) -> None:
        entries = self._entries
        while entries and entries[0].at_ms + WINDOW_MS <= time_ms:
            entry = entries.popleft()
            entry.over = True
            self._used -= entry.amount


class _Bucket:
    """What a backend says is left of something, as it stands since."""

    __slots__ = ("_at_ms", "_full_ms", "_level", "_limit", "_per_ms", "_steady")

    def __init__(self) -> None:
        self._limit = 0
        self._level = 0.0
        self._per_ms = 0.0  # how fast it fills; 0: all at once at `_full_ms`
        self._at_ms = 0
        self._full_ms = 0
        self._steady = False

    def learn(self, allowance: Allowance, gone: int, time_ms: int, *, late: bool) -> None:
        """As the backend says; `gone` may not be counted there. `late`: it has said something since."""
        limit, remaining = allowance.limit, min(allowance.remaining, allowance.limit)
        if late and self._limit and remaining - gone >= self._settled(time_ms):
            return
        self._steady = allowance.steady
        if allowance.steady:
            if remaining < limit and allowance.reset_ms > 0:
                self._per_ms = (limit - remaining) / allowance.reset_ms
            elif not self._per_ms or limit != self._limit:
                self._per_ms = limit / WINDOW_MS
        self._limit = limit
        self._level = float(remaining - gone)
        self._at_ms = time_ms
        self._full_ms = time_ms + allowance.reset_ms

    def opens_ms(self, amount: int, time_ms: int) -> int:
        """When there is room for so much; a time that is over: now."""
        short = min(amount, self._limit) - self._settled(time_ms)
        if short <= 0:
            return 0
        return time_ms + ceil(short / self._per_ms) if self._steady else self._full_ms

    def take(self, amount: int, time_ms: int) -> None:
        """So much leaves."""
        self._level = self._settled(time_ms) - min(amount, self._limit)

    def give(self, amount: int) -> None:
        """So much has not left after all."""
        self._level += min(amount, self._limit)

    def _settled(self, time_ms: int) -> float:
        """The level now."""
        if self._steady:
            self._level = min(float(self._limit), self._level + self._per_ms * (time_ms - self._at_ms))
        elif self._at_ms < self._full_ms <= time_ms:
            self._level = float(self._limit)
            self._full_ms = time_ms  # what follows is learned from the next answer
        self._at_ms = time_ms
        return self._level


_ANY = Waiting(pid=0, tenant=0, band="normal", program=0, input_tokens=1, output_tokens=0)


def _need(field: str, waiting: Waiting) -> int:
    match field:
        case "requests":
            return 1
        case "input_tokens":
            return waiting.input_tokens
        case "output_tokens":
            return waiting.output_tokens
        case _:
            return waiting.input_tokens + waiting.output_tokens
