"""Fairness: how far tenants drift apart under eight policies, in one simulator and with the same arrivals.

Two backlogged tenants of which one sends ten times more, ServeGen's clients as tenants, and five adversaries beside a
modest victim. Measured are the largest difference of service of two tenants that both have calls waiting (weighted
tokens), Jain's index over what each got of its max-min fair share, and the longest wait of a call of the worst-off.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from bench.fair import scores, workloads
from bench.fair.adversaries import ADVERSARIES
from bench.fair.call import Agent
from bench.fair.engine import Speeds
from bench.fair.policies import POLICIES
from bench.fair.policies.mains import bound
from bench.fair.simulation import Outcome, Simulation, demands
from bench.report import Figure, Report, at_least, below

UNTIL_S = 300.0
QUICK_S = 40.0
JAIN = 0.95
CROWD = "ServeGen"
VICTIM = 0  # tenant of `workloads.ten_to_one` and of every adversary


class Run(msgspec.Struct, frozen=True):
    """One policy on one workload. `victim`: what tenant 0 got of its fair share, and the longest wait of its calls.

    Among ServeGen's clients, the worst-off of those that ask for less than their share.
    """

    workload: str
    policy: str
    gap: float
    bound: float
    jain: float
    victim: float
    wait_s: float


def mixes(speeds: Speeds, until_s: float) -> dict[str, Callable[[], list[Agent]]]:
    """Every workload by name."""
    fixed: dict[str, Callable[[], list[Agent]]] = {
        "ten to one": lambda: workloads.ten_to_one(speeds, until_s=until_s, seed=1),
        CROWD: lambda: workloads.served_clients(speeds, load=1.3, until_s=until_s, seed=1),
    }
    hostile = {name: lambda make=make: make(speeds, until_s) for name, make in ADVERSARIES.items()}
    return {**fixed, **hostile}


def measure(quick: bool) -> list[Run]:
    """All policies on all workloads."""
    speeds, until_s = Speeds(), QUICK_S if quick else UNTIL_S
    runs = []
    for workload, make in mixes(speeds, until_s).items():
        agents = make()
        wanted = demands(agents, until_s)
        for policy, build in POLICIES.items():
            outcome = Simulation(agents, build, speeds, until_s=until_s).run()
            runs.append(_judge(workload, policy, outcome, wanted, speeds))
    return runs


def _judge(workload: str, policy: str, outcome: Outcome, wanted: dict[int, int], speeds: Speeds) -> Run:
    parts = scores.satisfaction(outcome.served, wanted)
    shares = scores.entitled(wanted, sum(outcome.served.values()))
    modest = [tenant for tenant, share in shares.items() if wanted[tenant] <= share] if workload == CROWD else [VICTIM]
    return Run(
        workload,
        policy,
        gap=max(outcome.gaps.values(), default=0),
        bound=bound(speeds.slots, outcome.dearest),
        jain=scores.jain(list(parts.values())),
        victim=min(parts[tenant] for tenant in modest),
        wait_s=max(outcome.longest_wait_s(tenant) for tenant in modest),
    )


def _figures(runs: list[Run]) -> list[Figure]:
    ours = [run for run in runs if run.policy == "Mains"]
    figures = [below(f"gap, {run.workload}", run.gap, "weighted tokens", run.bound) for run in ours]
    figures += [at_least(f"Jain, {run.workload}", run.jain, "", JAIN) for run in ours]
    figures += [Figure(f"longest wait, {run.workload}", run.wait_s, "s") for run in ours]
    return figures


def line(run: Run) -> str:
    """A run as a line of the notes."""
    return (
        f"{run.workload:<14} {run.policy:<12} gap {run.gap:>10,.0f}  Jain {run.jain:.3f}"
        f"  worst-off gets {run.victim:>4.0%} of its share, waits at most {run.wait_s:>5.1f} s"
    )


def main(quick: bool) -> Report:
    """Mains' figures with their goals; every policy in the notes."""
    runs = measure(quick)
    span = QUICK_S if quick else UNTIL_S
    notes = [f"{span:g} simulated seconds of each workload; every goal of a gap is the scheduler's own stated bound"]
    return Report("fairness", tuple(_figures(runs)), (*notes, *map(line, runs)))
