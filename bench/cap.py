"""A cap of 37 calls on 50 agents that want 300: how many calls the upstream saw.

All agents start at once; each wants six calls. The upstream answers after 0 to 1,000 ms (the same call after the same
time, whoever asks) and counts what it was asked. The cap is what each contestant documents for such a purpose (see its
module in `bench.contest`): Mains an account with a limit of money and a price for each call; LangChain its limit on
model calls; pydantic-ai the limit of a run, and one usage that all runs share; pydantic-ai-harness a budget of money
that all runs share. Each does it several times, on a fresh upstream.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from bench.contest import ring
from bench.contest.contestant import CAP_CALLS, CAP_LATENCY_MS, ask
from bench.contest.ring import Contestant
from bench.report import Figure, Report

AGENTS = 50
TURNS = 5  # with the tool, and a final one: six calls
ROUNDS = 5
RIVALS = (ring.LANGCHAIN_CAPPED, ring.PYDANTIC_CAPPED, ring.PYDANTIC_SHARED, ring.PYDANTIC_SPEND)


class Seen(NamedTuple):
    """A round: the calls that the upstream saw under the cap, and what the contestant says of its agents."""

    calls: int
    told: dict[str, Any]


def one_round(contestant: Contestant) -> Seen:
    """All agents once. Mains tops up afterwards, so it looks at the upstream itself, before that."""
    with ring.upstream() as port:
        told = ring.run(contestant, "cap", port, turns=TURNS, at_once=AGENTS, agents=AGENTS)
        return Seen(told.get("calls", ask(port, "state")["calls"]), told)


def figures(contestant: Contestant, rounds: list[Seen]) -> list[Figure]:
    """The least and the most calls of all rounds; for Mains, who came to the end after a top-up."""
    least, most = min(seen.calls for seen in rounds), max(seen.calls for seen in rounds)
    name, unit = contestant.name, f"calls of {AGENTS * (TURNS + 1)}"
    if contestant is not ring.MAINS_CAPPED:
        more = [Figure(f"{name}, least of {len(rounds)}", least, unit)] if least != most else []
        return [Figure(name, most, unit), *more]
    ended = min(seen.told["after_top_up"] for seen in rounds)
    return [
        Figure(name, most, unit, f"{CAP_CALLS} each time", least == most == CAP_CALLS),
        Figure(f"{name}, ended after a top-up", ended, f"of {AGENTS} agents", "all", ended == AGENTS),
    ]


def main(quick: bool) -> Report:
    """Everybody under the same cap."""
    rounds = 1 if quick else ROUNDS
    found = [
        figure
        for contestant in (ring.MAINS_CAPPED, *RIVALS)
        for figure in figures(contestant, [one_round(contestant) for _ in range(rounds)])
    ]
    notes = (
        f"a cap of {CAP_CALLS} calls; the most of {rounds} rounds; answers after 0 to {CAP_LATENCY_MS:,} ms",
        ring.versions(),
    )
    return Report("cap", tuple(found), notes)
