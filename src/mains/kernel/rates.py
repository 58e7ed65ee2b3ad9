"""Rates: how many calls a backend takes now. It is the gate of a lane. Pure: no I/O, no clock of its own.

    requests and tokens a minute   configured (`rpm`, `tpm` of an engine): never more in any 60 seconds
    what a backend says is left    from its answers (`RateLimits`), until the time at which it will be whole again
    concurrency                    additive increase, multiplicative decrease: a refusal for too many calls halves it,
                                   and each answer adds 1/n, up to the engine's slots (Chiu and Jain, 1989)
    circuit breaker                after so many failures in a row it opens; then one call is let through, which closes
                                   it, or opens it for twice the time (Nygard, Release It!, 2007)

Calls that left before a backend's refusal was known, and are refused with it, count as that one refusal.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from mains.kernel.ratelimits import RateLimits
from mains.kernel.waiting import Waiting
from mains.settings import Settings

MINUTE_MS: Final = 60_000
_WHOLE = RateLimits()


class Rates:
    """One backend: what left in the last minute, what is under way, and how it answered."""

    def __init__(self, slots: int, rpm: int, tpm: int, settings: Settings) -> None:
        self._slots = slots
        self._rpm = rpm
        self._tpm = tpm
        self._settings = settings
        self._sent: deque[tuple[int, int]] = deque()  # (when, tokens) of the last minute, where that is bounded
        self._tokens = 0  # of those
        self._flights: dict[int, tuple[int, int]] = {}  # pid -> when its call left, and with how many tokens
        self._said, self._said_ms = _WHOLE, 0  # what the backend said was left, less what has left since, and when
        self.concurrency = float(slots)
        self._cut_ms = -1  # when it was halved last
        self._failures = 0  # in a row
        self._open_ms = 0  # for how long the breaker opens next; 0: it has not opened
        self.open_until_ms = 0

    @property
    def is_open(self) -> bool:
        """Whether the circuit breaker has opened, and no call has closed it yet."""
        return self._open_ms > 0

    def allows(self, waiting: Waiting, now_ms: int) -> bool:
        """Whether this call may leave now."""
        return not self._full and self._due_ms(waiting, now_ms) <= now_ms

    @property
    def _full(self) -> bool:
        """Whether too many calls are under way; an open breaker lets one through."""
        return len(self._flights) >= (1 if self.is_open else int(self.concurrency))

    def next_ms(self, waiting: Waiting, now_ms: int) -> int:
        """When to ask again. While too many calls are under way, that is no matter of time: an end will tell."""
        due_ms = self._due_ms(waiting, now_ms)
        return now_ms + MINUTE_MS if self._full and due_ms <= now_ms else due_ms

    def _due_ms(self, waiting: Waiting, now_ms: int) -> int:
        tokens = waiting.input_tokens + waiting.output_tokens
        times = [now_ms]
        if self.is_open:
            times.append(self.open_until_ms)
        if self._rpm and len(self._sent) >= self._rpm:
            times.append(self._sent[len(self._sent) - self._rpm][0] + MINUTE_MS)
        if self._tpm and self._sent and self._tokens + tokens > self._tpm:
            times.append(self._room_ms(tokens))
        said, since_ms = self._said, self._said_ms
        if said.requests_left == 0:
            times.append(since_ms + said.requests_reset_ms)
        if 0 <= said.tokens_left < tokens and (said.tokens_max < 0 or said.tokens_left < said.tokens_max):
            times.append(since_ms + said.tokens_reset_ms)
        return max(times)

    def _room_ms(self, tokens: int) -> int:
        """When so many tokens fit into a minute; a call that is larger than a minute's waits for an empty one."""
        left, at_ms = self._tokens, 0
        for sent_ms, each in self._sent:
            left, at_ms = left - each, sent_ms + MINUTE_MS
            if left + tokens <= self._tpm:
                break
        return at_ms

    def dispatched(self, waiting: Waiting, now_ms: int) -> None:
        """This call leaves now."""
        tokens = waiting.input_tokens + waiting.output_tokens
        self._flights[waiting.pid] = now_ms, tokens
        while self._sent and self._sent[0][0] <= now_ms - MINUTE_MS:
            self._tokens -= self._sent.popleft()[1]
        if self._rpm or self._tpm:
            self._sent.append((now_ms, tokens))
            self._tokens += tokens
        said = self._said
        self._said = RateLimits(
            requests_left=max(0, said.requests_left - 1) if said.requests_left >= 0 else -1,
            requests_reset_ms=said.requests_reset_ms,
            tokens_max=said.tokens_max,
            tokens_left=max(0, said.tokens_left - tokens) if said.tokens_left >= 0 else -1,
            tokens_reset_ms=said.tokens_reset_ms,
        )

    def ended(self, pid: int, *, made: bool) -> None:
        """The call of a process is over, or was never made: then it has not left."""
        flight = self._flights.pop(pid, None)
        if flight is not None and not made and flight in self._sent:
            self._sent.remove(flight)
            self._tokens -= flight[1]

    def answered(self, limits: RateLimits | None, now_ms: int) -> None:
        """A call was answered."""
        self.concurrency = min(float(self._slots), self.concurrency + 1 / self.concurrency)
        self._failures, self._open_ms, self.open_until_ms = 0, 0, 0
        self.said(limits, now_ms)

    def refused(self, pid: int, limits: RateLimits | None, now_ms: int) -> None:
        """The call of a process was refused because there were too many: the backend is well, and asks for fewer."""
        sent_ms, _ = self._flights.get(pid, (now_ms, 0))
        if sent_ms > self._cut_ms:
            self.concurrency = max(1.0, self.concurrency / 2)
            self._cut_ms = now_ms
        self._failures = 0
        self.said(limits, now_ms)

    def failed(self, now_ms: int) -> None:
        """A call failed, and the engine is to blame."""
        self._failures += 1
        if self.is_open or self._failures >= self._settings.breaker_failures:
            ceiling_ms = self._settings.breaker_open_ceiling_ms
            self._open_ms = min(ceiling_ms, self._open_ms * 2 or self._settings.breaker_open_ms)
            self.open_until_ms = now_ms + self._open_ms

    def said(self, limits: RateLimits | None, now_ms: int) -> None:
        """What a backend said of its limits."""
        if limits is not None:
            self._said, self._said_ms = limits, now_ms
