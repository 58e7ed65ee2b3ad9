"""A probe that ends the world at one of the crash points."""

from __future__ import annotations

from collections.abc import Callable


class CrashProbe:
    """A probe that calls `crash` at the crash point with number `target` (0 is the first), and names all it passes."""

    def __init__(self, target: int, crash: Callable[[str], None]) -> None:
        self._target = target
        self._crash = crash
        self.passed: list[str] = []

    def at(self, point: str) -> None:
        """The kernel stands at `point`."""
        self.passed.append(point)
        if len(self.passed) - 1 == self._target:
            self._crash(point)
