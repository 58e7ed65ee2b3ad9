"""The story of a simulation: what happened at which time, line by line, and its hash: one seed, one story."""

from __future__ import annotations

import hashlib

from mains.testing.clock import FakeClock
from mains.testing.plan import Plan
from mains.testing.stage import PowerCut


class RuleBroken(AssertionError):  # noqa: N818 - it fails a test, and is named for what happened
    """A rule that never bends did not hold. `rule` is its name, `story` what led to it."""

    def __init__(self, plan: Plan, rule: str, detail: str, story: list[str]) -> None:
        self.plan = plan
        self.seed = seed = plan.seed
        self.rule = rule
        self.detail = detail
        self.story = story
        super().__init__(f"seed {seed}: {rule}: {detail}")

    def told(self, most: int = 120) -> str:
        """The end of the story (`most` lines), numbered, and the rule that broke."""
        skipped = max(0, len(self.story) - most)
        lines = [f"{number:4} {line}" for number, line in enumerate(self.story, 1)][skipped:]
        head = [f"seed {self.seed} breaks the rule: {self.rule}"]
        if skipped:
            head.append(f"     ({skipped} lines before)")
        return "\n".join([*head, *lines, f"     => {self.rule}: {self.detail}"])


class Story:
    """Lines as they happen, each with the time that has passed (seconds)."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.home = ""  # a path that another run does not have: left out
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        """Something happened."""
        text = text.replace(self.home, "~") if self.home else text
        self.lines.append(f"{self._clock.passed_ms() / 1_000:10.3f}  {text}")

    @property
    def hash(self) -> str:
        """The same for the same story."""
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()


class Broke(PowerCut):
    """A rule broke; the simulation ends at once, wherever it is."""

    def __init__(self, rule: str, detail: str) -> None:
        self.rule = rule
        self.detail = detail
        super().__init__(f"{rule}: {detail}")
