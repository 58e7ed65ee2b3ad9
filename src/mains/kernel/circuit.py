"""The circuit breaker of one engine: who calls an engine that is down, and when. Pure: no clock, no I/O.

    closed      calls go out. It opens after `failures` in a row, or when `failed_percent` of the last `calls` failed
    open        no call goes out, for `open_ms`
    half-open   one call goes out, as a probe. It succeeds: closed. It fails: open, for twice as long (`open_max_ms` at
                most). Nobody knows how it went (it was broken off): the next call is the probe

Only the probe speaks for an engine that was found down: a call from before, which ends now, tells of then. An engine
that fails in a way that waiting does not mend (a wrong key) holds nobody back: its callers are to hear of it at once.
It is left out by those who can go elsewhere, as any other that is down (`routing.py`).

The states and their names are those of M. Nygard's circuit breaker (Release It!, 2007).
"""

from __future__ import annotations

from collections import deque


class Circuit:
    """See the module's header. Times are of one clock that never goes back (`rates.py` has it)."""

    def __init__(self, *, failures: int, calls: int, failed_percent: int, open_ms: int, open_max_ms: int) -> None:
        self._failures = failures
        self._failed_percent = failed_percent
        self._open_ms = open_ms
        self._open_max_ms = max(open_ms, open_max_ms)
        self._results: deque[bool] = deque(maxlen=calls)  # of the last calls: whether they failed
        self._row = 0  # failures in a row
        self._until_ms: int | None = None  # None: closed
        self._span_ms = open_ms  # for which it opens the next time
        self._probe: int | None = None  # the pid whose call is the probe
        self._final = False  # waiting does not mend what it failed of
        self.why = ""  # of the last failure

    @property
    def closed(self) -> bool:
        """Whether the engine is taken to be up."""
        return self._until_ms is None

    def down(self, now_ms: int) -> bool:
        """Whether those who can go elsewhere should."""
        return self._until_ms is not None and (now_ms < self._until_ms or self._probe is not None)

    def opens_ms(self) -> int | None:
        """Until when no call may go out; None: it holds nobody back by time."""
        return None if self._final else self._until_ms

    def allows(self, now_ms: int) -> bool:
        """Whether a call may go out."""
        return self._until_ms is None or self._final or (now_ms >= self._until_ms and self._probe is None)

    def sent(self, pid: int) -> None:
        """A call goes out; an engine that was found down is probed by it."""
        if self._until_ms is not None and self._probe is None:
            self._probe = pid

    def succeeded(self, pid: int) -> None:
        """The engine has served a call, or has said what was wrong with it."""
        if self._until_ms is None:
            self._row = 0
            self._results.append(False)
        elif pid == self._probe or self._final:
            self._until_ms, self._probe, self._final = None, None, False
            self._row, self._span_ms = 0, self._open_ms
            self._results.clear()

    def failed(self, pid: int, now_ms: int, why: str, *, final: bool) -> None:
        """The engine has failed. `final`: the same call will fail again until somebody mends something."""
        self.why = why
        if self._until_ms is not None:
            if pid == self._probe:
                self._final = final
                self._open(now_ms)
            return
        self._row += 1
        self._results.append(True)
        if self._row >= self._failures or self._too_many():
            self._final = final
            self._open(now_ms)

    def gone(self, pid: int) -> None:
        """Nobody knows how this call went, or it was not made."""
        if pid == self._probe:
            self._probe = None

    def _too_many(self) -> bool:
        full = len(self._results) == self._results.maxlen
        return full and 100 * sum(self._results) >= self._failed_percent * len(self._results)

    def _open(self, now_ms: int) -> None:
        self._until_ms = now_ms + self._span_ms
        self._span_ms = min(2 * self._span_ms, self._open_max_ms)
        self._probe = None
