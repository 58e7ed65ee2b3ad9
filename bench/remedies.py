"""What is done about a context that grows: the planner of the kernel, and what others do. All make frames (`replay`).

Everything  the full history, whether it fits or not; with results bounded to a first view, if that is asked
Sliding     the oldest turns are left out, as many as must
Placeholder results older than the last five turns are replaced by a line (as agents for code do)
Summarise   above 80 % of the window all but the last two turns become a summary
Mains       `mains.kernel.eviction`; results may enter bounded to a first view, with a handle for the rest
"""

from __future__ import annotations

import random

from bench.replay import RATES, Frame, Item, Run, Step
from mains.kernel import eviction
from mains.kernel.eviction import Entry, Misfit

OUTPUT = 1_024  # kept free in the window for the answer
VIEW_LINE = 60  # tokens that say what a first view hides, and how to read it
_LINE = 20  # tokens of a placeholder
_SUMMARY = 400


def first_view(tokens: int, view: int) -> int:
    """What enters the frame of a result: its head and tail, and a line that says what is missing."""
    return min(tokens, view + VIEW_LINE) if view else tokens


class Everything:
    """The full history; `view`: the most tokens of a result that enter it (0: all)."""

    def __init__(self, run: Run, window: int, view: int = 0) -> None:
        self.window, self.view = window - OUTPUT, view
        self.opening = Item(-1, "opening", run.opening)
        self.steps: list[list[Item]] = []

    def frame(self, turn: int, step: Step) -> Frame:
        """All that there is."""
        if turn:
            self.steps.append(
                [Item(turn, "reply", step.reply), Item(turn, "result", first_view(step.result, self.view))]
            )
        return self.made()

    def made(self) -> Frame:
        """The frame of the history as it stands."""
        return self.checked([item for items in self.steps for item in items])

    def checked(self, items: list[Item], asked: int = 0, written: int = 0) -> Frame:
        """A frame with the opening, and whether it fits."""
        items = [self.opening, *items]
        return Frame(items, asked, written, fits=_size(items) <= self.window)

    def wants_back(self) -> list[int]:
        """Nothing: what is gone is gone."""
        return []


class Sliding(Everything):
    """The newest turns that fit."""

    def made(self) -> Frame:
        while len(self.steps) > 1 and self.opening.tokens + sum(map(_size, self.steps)) > self.window:
            self.steps.pop(0)
        return super().made()


class Placeholder(Everything):
    """Results of all but the last five turns are a line."""

    def made(self) -> Frame:
        if len(self.steps) > 5:
            reply, result = self.steps[-6]
            if result.tokens > _LINE:
                self.steps[-6] = [reply, Item(result.place, "line", _LINE)]
        return super().made()


class Summarise(Everything):
    """Above 80 % of the window, all but the last two turns become a summary."""

    def made(self) -> Frame:
        total = self.opening.tokens + sum(map(_size, self.steps))
        if total <= 0.8 * self.window or len(self.steps) < 4:
            return super().made()
        old, last = self.steps[:-2], self.steps[-2:]
        self.steps = [[Item(old[-1][-1].place, "summary", _SUMMARY)], *last]
        asked = self.opening.tokens + sum(map(_size, old))
        return self.checked([item for items in self.steps for item in items], asked, _SUMMARY)


class Mains:
    """The kernel's planner. `view`: the most tokens of a result that enter the frame (0: all).

    `back`: of what has left, and of what a first view hides, the part that the model reads again, once, in full.
    """

    def __init__(
        self,
        run: Run,
        window: int,
        policy: eviction.Policy = eviction.DEFAULT,
        view: int = 0,
        back: float = 0.0,
        chance: random.Random | None = None,
        percents: tuple[int, int] = (90, 50),
    ) -> None:
        self.marks = eviction.marks_of(window - OUTPUT, *percents)
        self.policy, self.view, self.back, self.chance = policy, view, back, chance or random.Random(0)
        self.entries = [Entry(-1, 0, run.opening, "program")]
        self.wanted: list[int] = []
        self.whole: dict[int, int] = {}  # position of a result -> its tokens; what was read back is not missed again

    def frame(self, turn: int, step: Step) -> Frame:
        """What the planner leaves of all that came."""
        if turn:
            self._join(step)
        left = eviction.expected_turns(turn, 200)
        made = eviction.plan(self.entries, self.marks, RATES, left, self.policy)
        if isinstance(made, Misfit):
            return Frame(self._items(), fits=False)
        asked = self._evict(made) if made.stubs or made.summary else 0
        items = self._items()
        assert _size(items) == made.tokens, "the planner counts as the frame does"
        return Frame(items, asked, self.policy.summary_tokens if made.summary else 0)

    def _join(self, step: Step) -> None:
        at = self.entries[-1].until
        shown = step.result if step.back else first_view(step.result, self.view)
        if not step.back:
            self.whole[at + 1] = shown
        if shown < step.result and self.chance.random() < self.back:
            self.wanted.append(step.result - self.view)
        kind = "recall" if step.back else "result"
        self.entries += [Entry(at, at + 1, step.reply, "reply"), Entry(at + 1, at + 2, shown, kind, True)]

    def _evict(self, made: eviction.Plan) -> int:
        asked, gone = 0, set(made.stubs)
        if made.summary:
            first, until, kept = made.summary
            asked = sum(entry.tokens for entry in self.entries if entry.position < until)
            gone.update(entry.position for entry in self.entries if first <= entry.position < until)
            stay = [self.entries[at]._replace(position=first, until=until) for at in kept]
            cover = [*stay, Entry(first, until, self.policy.summary_tokens, "summary")]
            before = [entry for entry in self.entries if entry.position < first]
            self.entries = [*before, *cover, *(entry for entry in self.entries if entry.position >= until)]
        self.entries = [
            entry._replace(tokens=self.policy.stub_tokens, kind="stub") if entry.position in made.stubs else entry
            for entry in self.entries
        ]
        for position in sorted(gone):
            tokens = self.whole.pop(position, 0)
            if tokens > self.policy.stub_tokens and self.chance.random() < self.back:
                self.wanted.append(tokens)
        return asked

    def _items(self) -> list[Item]:
        return [Item(entry.until, entry.kind, entry.tokens) for entry in self.entries]

    def wants_back(self) -> list[int]:
        """What the model misses, each once."""
        wanted, self.wanted = self.wanted, []
        return wanted


def _size(items: list[Item]) -> int:
    return sum(item.tokens for item in items)
