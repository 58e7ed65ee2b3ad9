"""Draw `docs/plots/*.png`: `python -m bench.plots [NAME...]` runs fairness, completion, price, facts, and draws them.

Colours are of a set that people with any colour vision tell apart (Okabe and Ito); each policy has its own marker, too.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure as Canvas

from bench import completion, facts, fairness, price
from bench.fair.policies import POLICIES

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "plots"
COLOURS = ("#999999", "#E69F00", "#000000", "#F0E442", "#56B4E9", "#CC79A7", "#0072B2", "#D55E00")
MARKERS = "osxv^DP*"


def draw_fairness(runs: list[fairness.Run], path: Path) -> None:
    """The gap of every policy on every workload, and the bound that Mains states."""
    mixes = list(dict.fromkeys(run.workload for run in runs))
    canvas = Canvas(figsize=(9, 5.2), layout="constrained")
    axes = canvas.subplots()
    for at, policy in enumerate(POLICIES):
        gaps = [next(run.gap for run in runs if (run.workload, run.policy) == (mix, policy)) for mix in mixes]
        heights = [row + (at - 3.5) * 0.09 for row in range(len(mixes))]
        size = 110 if policy == "Mains" else 48
        axes.scatter(gaps, heights, s=size, c=COLOURS[at], marker=MARKERS[at], label=policy, zorder=3, linewidths=1)
    for row, mix in enumerate(mixes):
        bound = next(run.bound for run in runs if (run.workload, run.policy) == (mix, "Mains"))
        label = "bound that Mains states" if row == 0 else None
        axes.plot([bound, bound], [row - 0.42, row + 0.42], color=COLOURS[-1], linestyle="--", label=label)
    axes.set_xscale("log")
    axes.set_yticks(range(len(mixes)), mixes)
    axes.invert_yaxis()
    axes.set_xlabel("largest difference of service between two backlogged tenants, weighted tokens (less is fairer)")
    axes.grid(axis="x", alpha=0.3)
    canvas.legend(loc="outside upper center", ncols=5, frameon=False)
    canvas.savefig(path, dpi=130)


def draw_completion(runs: list[completion.Run], path: Path) -> None:
    """Mean and 99th percentile of completion, and what came from the cache, over the load."""
    canvas = Canvas(figsize=(12, 4.6), layout="constrained")
    panels = canvas.subplots(1, 3)
    fields = (
        ("mean_s", "mean completion, seconds", (300, 500, 1_000, 2_000, 5_000)),
        ("p99_s", "99th percentile of completion, seconds", (2_000, 3_000, 5_000, 10_000, 15_000)),
        ("hit_rate", "input tokens from the cache", ()),
    )
    for axes, (field, title, ticks) in zip(panels, fields, strict=True):
        for at, policy in enumerate(POLICIES):
            heights = [_mean(completion.chosen(runs, policy, load), field) for load in completion.LOADS]
            wide = 2.4 if policy == "Mains" else 1.2
            axes.plot(
                completion.LOADS,
                heights,
                color=COLOURS[at],
                marker=MARKERS[at],
                linewidth=wide,
                label=policy if field == "mean_s" else None,
            )
        axes.set_title(title, fontsize=11)
        axes.set_xlabel("load")
        axes.grid(alpha=0.3)
        if field == "hit_rate":
            axes.set_ylim(0, 1)
        else:
            axes.set_yscale("log")
            axes.set_yticks(ticks, [f"{tick:,}" for tick in ticks])
            axes.set_yticks([], minor=True)
        axes.set_xticks(completion.LOADS)
    canvas.legend(loc="outside upper center", ncols=8, frameon=False)
    canvas.savefig(path, dpi=130)


def draw_price(rows: list[price.Row], path: Path) -> None:
    """What is billed in each window, and what a first view and reading back make of it."""
    canvas = Canvas(figsize=(11, 4.6), layout="constrained")
    windows, views = canvas.subplots(1, 2, sharey=True)
    kinds = [*price.RIVALS, price.named(0), price.named(4_000), price.named(price.VIEW), price.named(2_000)]
    for at, kind in enumerate(kinds):
        heights = [price.one(rows, kind, window).input for window in price.WINDOWS]
        wide = 2.4 if kind == price.named(price.VIEW) else 1.2
        shown = price.WINDOWS
        windows.plot(shown, heights, color=COLOURS[at], marker=MARKERS[at], linewidth=wide, label=kind)
    windows.set_xscale("log")
    windows.set_xticks(price.WINDOWS, [f"{window // 1_000}k" for window in price.WINDOWS])
    windows.set_xticks([], minor=True)
    windows.set_xlabel("window, tokens")
    windows.set_ylabel("billed input, of the full history")
    windows.legend(frameon=False, fontsize=8, ncols=2, loc="upper right")
    places = range(len(price.VIEWS))
    for at, (who, marker) in enumerate((("marks only", "s"), ("Mains", "D"))):
        for style, back in zip(("-", "--", ":"), price.BACK, strict=True):
            heights = [price.one(rows, price.named(view, back, who)).input for view in price.VIEWS]
            colour = COLOURS[-1 - at * 3]
            label = f"{who}, {back:.0%} read back" if back else who
            views.plot(places, heights, color=colour, marker=marker, linestyle=style, label=label)
    views.set_xticks(places, [f"{view:,}" if view else "all" for view in price.VIEWS])
    views.set_xlabel("characters of a result that enter the frame (window 32k)")
    views.legend(frameon=False, fontsize=8, ncols=2, loc="upper right")
    for axes in (windows, views):
        axes.grid(alpha=0.3)
        axes.set_ylim(0.5, 1.6)
        axes.axhline(price.GOAL, color="#999999", linewidth=0.8)
    canvas.savefig(path, dpi=130)


def draw_facts(measured: tuple[facts.Script, dict[str, facts.Ours], object, list[facts.Row]], path: Path) -> None:
    """Facts that can be reached, over the conversation; and frames with all rules, beside what was read anew."""
    made, ours, _, rows = measured
    canvas = Canvas(figsize=(11, 4.4), layout="constrained")
    reached, ruled = canvas.subplots(1, 2)
    lines = [
        (f"Mains, {name}", [(c.exchange, c.reached["wording"]) for c in run.checked]) for name, run in ours.items()
    ]
    lines += [(row.name, row.shown.found) for row in rows if not row.shown.stopped]
    for at, (name, found) in enumerate(lines):
        share = [100 * count / len(made.planted_by(exchange)) for exchange, count in found]
        places = [exchange * (made.size.calls + 1) for exchange, _ in found]
        reached.plot(places, share, color=COLOURS[-1 - at], marker=MARKERS[-1 - at], label=name)
    reached.set_xlabel("turns")
    reached.set_ylabel("facts so far in the frame or recalled, %")
    shown = [(f"Mains, {name}", run.shown) for name, run in ours.items()]
    shown += [(row.name, row.shown) for row in rows if not row.shown.stopped]
    for at, (_, each) in enumerate(shown):
        share_ruled = 100 * each.ruled / made.size.turns
        ruled.scatter(each.fresh / 1_000, share_ruled, s=70, color=COLOURS[-1 - at], marker=MARKERS[-1 - at])
    ruled.set_xlabel("tokens that were not in the cache, thousands")
    ruled.set_ylabel("frames with all rules, %")
    for axes in (reached, ruled):
        axes.set_ylim(-5, 105)
        axes.grid(alpha=0.3)
    canvas.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    canvas.savefig(path, dpi=130)


def _mean(runs: list[completion.Run], field: str) -> float:
    return statistics.fmean(float(getattr(run, field)) for run in runs)


def main() -> None:
    """Run those that are named, or all; draw them."""
    named, quick = {name for name in sys.argv[1:] if name != "--quick"}, "--quick" in sys.argv[1:]
    mpl.use("Agg")
    FOLDER.mkdir(parents=True, exist_ok=True)
    if not named or "fairness" in named:
        draw_fairness(fairness.measure(quick), FOLDER / "fairness.png")
    if not named or "completion" in named:
        draw_completion(completion.measure(quick), FOLDER / "completion.png")
    if not named or "price" in named:
        draw_price(price.measure(quick), FOLDER / "price.png")
    if not named or "facts" in named:
        draw_facts(facts.measure(quick), FOLDER / "facts.png")


if __name__ == "__main__":
    main()
