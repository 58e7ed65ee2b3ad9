"""What a context costs that grows: recorded runs of agents through the kernel's planner, beside what others do.

Nothing is timed and no engine is called: `bench/replay.py` makes frames of recorded sizes and bills them (an input
token that the engine still has 1, one that it reads 10, one that is written 50), `bench/remedies.py` has the policies.
Each is measured against the full history in a window that has no end. The goals are judged on the runs of `miniswe`,
with results that enter the frame bounded to a first view of 3,000 characters; the other suites must not get dearer.
"Marks only" is the planner without what it evicts below the high mark.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from bench.remedies import Everything, Mains, Placeholder, Sliding, Summarise
from bench.replay import Bill, Policy, Run, chance_of, replay, runs
from bench.report import Figure, Report, at_least, below
from mains.kernel.eviction import DEFAULT
from mains.kernel.eviction import Policy as Planner

GOAL, STABLE = 0.6, 0.95
WINDOWS = (8_000, 16_000, 32_000, 128_000)
MIDDLE = 32_000
VIEWS = (0, 8_000, 4_000, 3_000, 2_000)  # characters of a result that enter the frame; 0: all
VIEW = 3_000
BACK = (0.0, 0.1, 0.3)  # of what has left or is hidden, how much the model reads again
OTHERS = ("taubench_gpt4o_airline", "magagent", "taubench")
CHARS_A_TOKEN = 4  # as in bench/data
MARKS_ONLY = DEFAULT._replace(share=1.0)
_ENDLESS = 1_000_000_000

_Maker = Callable[[Run, int, int], Policy]  # of a run, the window, and the number of the run


class Row(NamedTuple):
    """A policy on a suite in a window, against the full history without a window."""

    suite: str
    window: int
    policy: str
    input: float
    whole: float
    stability: float
    sent: float  # tokens a turn
    read: float  # of them, those that the engine did not have
    summaries: int
    misfits: int
    faults: float


def mains(view: int, back: float = 0.0, seed: int = 0, planner: Planner = DEFAULT) -> _Maker:
    """The kernel's planner; `view` in characters."""
    return lambda run, window, number: Mains(run, window, planner, view // CHARS_A_TOKEN, back, chance_of(seed, number))


def _bounded(run: Run, window: int, number: int, view: int) -> Policy:
    return Everything(run, window, view)


def named(view: int, back: float = 0.0, who: str = "Mains") -> str:
    """What a row is called."""
    return who + f", view {view:,}" * bool(view) + f", {back:.0%} back" * bool(back)


RIVALS: dict[str, _Maker] = {
    "full history": lambda run, window, number: Everything(run, window),
    "sliding window": lambda run, window, number: Sliding(run, window),
    "old results cut": lambda run, window, number: Placeholder(run, window),
    "summarise at 80 %": lambda run, window, number: Summarise(run, window),
}


def bill(chosen: Sequence[Run], window: int, make: _Maker) -> Bill:
    """All runs through a policy."""
    made = Bill()
    for number, run in enumerate(chosen):
        replay(made, run, make(run, window, number))
    return made


def row(suite: str, chosen: Sequence[Run], window: int, policy: str, makers: Sequence[_Maker]) -> Row:
    """One line: the mean of what each maker (one for each seed) gives."""
    full = bill(chosen, _ENDLESS, RIVALS["full history"])
    bills = [bill(chosen, window, make) for make in makers]
    mean = statistics.fmean
    return Row(
        suite,
        window,
        policy,
        mean(one.input for one in bills) / full.input,
        mean(one.total for one in bills) / full.total,
        mean(one.stability for one in bills),
        mean(one.sent / one.turns for one in bills),
        mean(one.read / one.turns for one in bills),
        bills[0].summaries,
        bills[0].misfits,
        mean(one.faults for one in bills),
    )


def measure(quick: bool) -> list[Row]:
    """Every policy on `miniswe` in every window, faults in the middle one, and the other suites there and at 8k."""
    seeds = range(2 if quick else 20)
    rows = []
    chosen = _of("miniswe", quick)
    for window in WINDOWS:
        rows += [row("miniswe", chosen, window, name, [make]) for name, make in RIVALS.items()]
        rows += [row("miniswe", chosen, window, named(view), [mains(view)]) for view in VIEWS]
    for view in VIEWS:
        if view:
            bounded = partial(_bounded, view=view // CHARS_A_TOKEN)
            rows.append(row("miniswe", chosen, MIDDLE, named(view, who="full history"), [bounded]))
        for back in BACK:
            makers = [mains(view, back, seed, MARKS_ONLY) for seed in seeds]
            rows.append(row("miniswe", chosen, MIDDLE, named(view, back, "marks only"), makers))
            if back:
                makers = [mains(view, back, seed) for seed in seeds]
                rows.append(row("miniswe", chosen, MIDDLE, named(view, back), makers))
    for suite in OTHERS:
        chosen = _of(suite, quick)
        for window in (WINDOWS[0], MIDDLE):
            rows += [row(suite, chosen, window, name, [make]) for name, make in RIVALS.items()]
            rows += [row(suite, chosen, window, named(view), [mains(view)]) for view in (0, VIEW)]
    return rows


def _of(suite: str, quick: bool) -> list[Run]:
    return runs(suite)[: 6 if quick else None]


def one(rows: list[Row], policy: str, window: int = MIDDLE, suite: str = "miniswe") -> Row:
    """The row of a policy."""
    return next(each for each in rows if (each.suite, each.policy, each.window) == (suite, policy, window))


def main(quick: bool) -> Report:
    """The table, and what it comes to."""
    rows = measure(quick)
    figures: list[Figure] = []
    for window in WINDOWS:
        best = one(rows, named(VIEW), window)
        figures += [
            below(f"billed input, view {VIEW:,}, {_short(window)}", best.input, "of full", GOAL),
            at_least(f"prefix stability, {_short(window)}", best.stability, "of turns", STABLE),
        ]
    views = [named(VIEW, who="full history"), *(named(view) for view in VIEWS)]
    for policy in (*RIVALS, *views):
        figures.append(Figure(f"billed input, {policy}, {_short(MIDDLE)}", one(rows, policy).input, "of full"))
    for back in BACK[1:]:
        figures.append(Figure(f"billed input, {named(VIEW, back)}", one(rows, named(VIEW, back)).input, "of full"))
    for suite in OTHERS:
        worst = max((one(rows, named(VIEW), window, suite) for window in (WINDOWS[0], MIDDLE)), key=lambda r: r.input)
        figures.append(below(f"billed input, {suite}, at worst", worst.input, "of full", 1.005))
    return Report("price", tuple(figures), tuple(_lines(rows)))


def _short(window: int) -> str:
    return f"{window // 1_000}k"


def _lines(rows: list[Row]) -> list[str]:
    titles = ("suite", "window", "policy", "input", "all", "stable", "sent", "fresh", "summed", "misfit", "faults")
    lines = [titles] + [
        (
            each.suite,
            _short(each.window),
            each.policy,
            f"{each.input:.3f}",
            f"{each.whole:.3f}",
            f"{each.stability:.1%}",
            f"{each.sent:,.0f}",
            f"{each.read:,.0f}",
            f"{each.summaries}",
            f"{each.misfits}",
            f"{each.faults:.1f}",
        )
        for each in rows
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    told = "input, all: billed, without and with output, of the full history; sent, fresh: tokens a turn"
    return [told, *("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)) for line in lines)]
