"""Bands: system, interactive, normal, batch. The best that has work goes first, above a floor for the others. Pure.

A band that waits while a better one is served is owed an eighth of what that one is charged. When it is owed a call of
some size (`EARNED` tokens), it goes first, and pays with what it is charged. So a lower band that has work gets a token
for each eight of the better ones, and never starves. The floor counts tokens and not choices: by every eighth choice,
batch work with long prompts would take most of the engine. What a band is owed ends when it has no work; what it took
too much stays.
"""

from __future__ import annotations

BANDS = ("system", "interactive", "normal", "batch")
SHARE = 8
EARNED = 2_048
"""Weighted tokens: a call of a small agent."""


class Floors:
    """What each band is owed, in eighths of a token."""

    def __init__(self) -> None:
        self._owed = [0] * len(BANDS)

    def pick(self, waiting: list[int]) -> tuple[int, bool]:
        """The band that is next, and whether by the floor. `waiting`: how many calls wait in each; not all 0."""
        best = next(band for band, calls in enumerate(waiting) if calls)
        floor, most = best, SHARE * EARNED
        for band in range(best + 1, len(BANDS)):
            if waiting[band] and self._owed[band] > most:
                floor, most = band, self._owed[band]
        return floor, floor != best

    def charge(self, band: int, by_floor: bool, tokens: int, waiting: list[int]) -> None:
        """A band was served (or, with less than 0, less than it was charged): it pays, or the lower ones are owed."""
        if by_floor:
            self._owed[band] -= SHARE * tokens
            return
        for lower in range(band + 1, len(BANDS)):
            if waiting[lower]:
                self._owed[lower] += tokens

    def emptied(self, band: int) -> None:
        """Nobody waits in a band any more."""
        self._owed[band] = min(self._owed[band], 0)
