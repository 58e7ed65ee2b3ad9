"""The pauses between the starts of a device that fails: twice as long each time, none after anything that went well."""

from __future__ import annotations

from collections.abc import Callable

from mains.bus.terms import Terms

_FAILURES_MAX = 32  # that are counted: the ceiling is reached long before


class Pauses:
    """How often it has failed in a row, why the last time (`fault`), and when the next try is due."""

    def __init__(self, terms: Terms, monotonic: Callable[[], float]) -> None:
        self.fault = ""
        self._terms = terms
        self._monotonic = monotonic
        self._failures = 0
        self._not_before = 0.0

    def failed(self, fault: str) -> None:
        """It has failed once more."""
        self.fault = fault
        self._failures = min(self._failures + 1, _FAILURES_MAX)
        pause_s = min(self._terms.backoff_s * 2 ** (self._failures - 1), self._terms.backoff_ceiling_s)
        self._not_before = self._monotonic() + pause_s

    def forget(self) -> None:
        """It works, or somebody says that it does: the row ends."""
        self.fault, self._failures, self._not_before = "", 0, 0.0

    @property
    def left_s(self) -> float:
        """Until the next try, in seconds; 0 when it is due."""
        return max(0.0, self._not_before - self._monotonic())

    @property
    def health(self) -> str:
        """In a few words, for a person, of a device that is not connected."""
        if not self._failures:
            return "idle"
        return f"failing, next try in {self.left_s:.0f} s" if self.left_s >= 1 else "failing"
