"""Completion: how long agents take from their start to their end under eight policies, at several loads.

Recorded agents (`bench/data/agents.json`) arrive at random and call tools that take as long as TraceLab measured. All
policies see the same arrivals and run on the same simulated engine with a prefix cache.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import msgspec

from bench.fair import scores, workloads
from bench.fair.call import Agent
from bench.fair.engine import Speeds
from bench.fair.policies import POLICIES
from bench.fair.policies.mains import Untold, bound
from bench.fair.simulation import Outcome, Simulation
from bench.report import Figure, Report, at_least, below

DEFAULT = Speeds()
LOADS = (0.5, 0.8, 1.0, 1.2)
HIGH = 1.2  # where the goals are judged: a fifth more work than all slots can do while agents keep coming
AGENTS = 2_000
QUICK_AGENTS = 60
SEEDS = (1, 2, 3)
CACHES = (100_000, 400_000)  # beside the default, at load 1
CACHED = ("FCFS", "PLAS", "Mains")
UNTOLD = "Mains, untold"  # how much the engine keeps; at the loads that follow
BEYOND = (1.5, 2.0)  # loads at which the queue only grows while agents come
CROWDED = ("FCFS", "PLAS", "DLPM", "Mains", UNTOLD)
ALL = {**POLICIES, UNTOLD: Untold}
GOALS = {"FCFS": 2.0, "1 s barrier": 10.0}  # how many times our mean
LONGEST = "magagent"  # the suite whose agents need most of the engine


class Run(msgspec.Struct, frozen=True):
    """One policy at one load with one cache and one seed. Times in seconds."""

    policy: str
    load: float
    cache_tokens: int
    seed: int
    mean_s: float
    p50_s: float
    p95_s: float
    p99_s: float
    longest_s: float  # mean completion of the suite `LONGEST`
    wait_s: float  # the longest of one call
    hit_rate: float
    amplification: float
    gap: float
    bound: float
    alone_s: float  # what the agents would take on average if each had the engine to itself


def measure(quick: bool) -> list[Run]:
    """All policies at all loads, then some with other caches."""
    count, seeds = (QUICK_AGENTS, SEEDS[:1]) if quick else (AGENTS, SEEDS)
    runs: list[Run] = []
    for seed in seeds:
        for load in LOADS:
            runs += _at(DEFAULT, load, count, seed, tuple(POLICIES))
        runs += _at(DEFAULT, HIGH, count, seed, (UNTOLD,))
        for load in BEYOND:
            runs += _at(DEFAULT, load, count, seed, CROWDED)
        for tokens in CACHES:
            runs += _at(Speeds(cache_tokens=tokens), 1.0, count, seed, CACHED)
    return runs


def _at(speeds: Speeds, load: float, count: int, seed: int, names: tuple[str, ...]) -> Iterator[Run]:
    agents = workloads.agent_mix(speeds, load=load, agents=count, seed=seed)
    alone_s = statistics.fmean(workloads.ideal_s(agent, speeds) for agent in agents)
    for name in names:
        outcome = Simulation(agents, ALL[name], speeds).run()
        yield _judge(name, load, seed, outcome, agents, speeds, alone_s)


def _judge(
    policy: str, load: float, seed: int, outcome: Outcome, agents: list[Agent], speeds: Speeds, alone_s: float
) -> Run:
    spans = list(outcome.completion_s.values())
    return Run(
        policy,
        load,
        speeds.cache_tokens,
        seed,
        mean_s=statistics.fmean(spans),
        p50_s=scores.percentile(spans, 0.5),
        p95_s=scores.percentile(spans, 0.95),
        p99_s=scores.percentile(spans, 0.99),
        longest_s=statistics.fmean(outcome.completion_s[one.number] for one in agents if one.program == LONGEST),
        wait_s=outcome.longest_wait_s(),
        hit_rate=outcome.hit_rate,
        amplification=outcome.amplification,
        gap=max(outcome.gaps.values(), default=0),
        bound=bound(speeds.slots, outcome.dearest),
        alone_s=alone_s,
    )


def chosen(runs: list[Run], policy: str, load: float, cache_tokens: int = DEFAULT.cache_tokens) -> list[Run]:
    """The runs of one policy at one load, a seed each."""
    return [run for run in runs if (run.policy, run.load, run.cache_tokens) == (policy, load, cache_tokens)]


def ratios(
    runs: list[Run],
    field: str,
    rival: str,
    load: float,
    cache_tokens: int = DEFAULT.cache_tokens,
    us: str = "Mains",
) -> list[float]:
    """The rival's figure divided by ours on the same arrivals, for each seed."""
    pairs = zip(chosen(runs, rival, load, cache_tokens), chosen(runs, us, load, cache_tokens), strict=True)
    return [float(getattr(theirs, field)) / float(getattr(ours, field)) for theirs, ours in pairs]


def _ratio(runs: list[Run], field: str, rival: str, load: float, cache_tokens: int = DEFAULT.cache_tokens) -> float:
    return statistics.median(ratios(runs, field, rival, load, cache_tokens))


def _figures(runs: list[Run]) -> list[Figure]:
    ours = [run for run in runs if run.policy in ("Mains", UNTOLD)]
    worst = max(ours, key=lambda run: run.gap / run.bound)
    figures = [_over(runs, rival, load) for load in LOADS for rival in POLICIES if rival != "Mains"]
    figures += [_over(runs, rival, load) for load in BEYOND for rival in CROWDED if not rival.startswith("Mains")]
    for load in (HIGH, *BEYOND):
        untold = statistics.median(ratios(runs, "mean_s", "FCFS", load, us=UNTOLD))
        figures.append(Figure(f"mean, FCFS / {UNTOLD}, load {load:g}", untold, "x"))
    figures.append(below("gap between tenants, worst run", worst.gap, "weighted tokens", worst.bound))
    for load in LOADS:
        figures.append(Figure(f"P99, FCFS / Mains, load {load:g}", _ratio(runs, "p99_s", "FCFS", load), "x"))
        figures.append(Figure(f"{LONGEST}, FCFS / Mains, load {load:g}", _ratio(runs, "longest_s", "FCFS", load), "x"))
    for tokens in CACHES:
        many = f"{tokens // 1000}k"
        figures.append(
            Figure(f"mean, FCFS / Mains, load 1, cache {many}", _ratio(runs, "mean_s", "FCFS", 1, tokens), "x")
        )
    return figures


def _over(runs: list[Run], rival: str, load: float) -> Figure:
    what, value = f"mean, {rival} / Mains, load {load:g}", _ratio(runs, "mean_s", rival, load)
    if load == HIGH and rival in GOALS:
        return at_least(what, value, "x", GOALS[rival])
    return Figure(what, value, "x")


def line(runs: list[Run]) -> str:
    """The runs of one policy at one load (means over the seeds) as a line of the notes."""
    mean = {field: statistics.fmean(getattr(run, field) for run in runs) for field in runs[0].__struct_fields__[4:]}
    return (
        f"load {runs[0].load:g} cache {runs[0].cache_tokens // 1000}k {runs[0].policy:<13}"
        f" mean {mean['mean_s']:>6,.0f} s  P50 {mean['p50_s']:>6,.0f}"
        f"  P95 {mean['p95_s']:>6,.0f}  P99 {mean['p99_s']:>6,.0f}"
        f"  {LONGEST} {mean['longest_s']:>6,.0f}  longest wait {mean['wait_s']:>6,.0f}"
        f"  hits {mean['hit_rate']:.0%}  prefill x {mean['amplification']:.2f}"
    )


def main(quick: bool) -> Report:
    """The ratios; every policy at every load in the notes."""
    runs = measure(quick)
    alone = statistics.fmean(run.alone_s for run in runs)
    tables = [line(chosen(runs, name, load)) for load in LOADS for name in POLICIES]
    tables += [line(chosen(runs, UNTOLD, HIGH))]
    tables += [line(chosen(runs, name, load)) for load in BEYOND for name in CROWDED]
    tables += [line(chosen(runs, name, 1.0, tokens)) for tokens in CACHES for name in CACHED]
    count = QUICK_AGENTS if quick else AGENTS
    least = {rival: min(ratios(runs, "mean_s", rival, HIGH)) for rival in GOALS}
    notes = [
        f"{count} agents a run, seeds {sorted({run.seed for run in runs})}; a ratio is the median of the seeds",
        f"alone on the engine, agents would take {alone:,.0f} s on average",
        f"the least ratio of a seed at load {HIGH:g}: "
        + ", ".join(f"{name} {value:.2f}" for name, value in least.items()),
    ]
    return Report("completion", tuple(_figures(runs)), (*notes, *tables))
