"""Ten times `kill -9` in the middle of 20 agents with a counting tool, then each contestant's own recovery.

The tool appends a line and syncs it: an effect that must not happen twice. The upstream kills the contestant's process
at a random moment; a second life recovers as the contestant's documentation says, and runs to the end:

    LangGraph             the same thread without input, where `next` of its state is not empty
    DBOS, pydantic-ai     by itself at launch; the workflow's id finds it
    Mains                 by itself at boot; a call in doubt is answered by looking at the file of effects

A tool ran twice when its line is there more than once. An agent is lost when the second life ends without its result.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from bench import machine
from bench.contest import ring
from bench.contest.contestant import Job, ask
from bench.contest.ring import Contestant
from bench.report import Figure, Report

AGENTS = 20
TURNS = 5
SEED = 3
_DELAY_US = 20_000  # the kill comes at most so long after the call that it waits for
AGAINST = (ring.MAINS, ring.LANGGRAPH, ring.LANGGRAPH_ASYNC, ring.PYDANTIC, ring.DBOS)


class Blow(NamedTuple):
    """When to kill: after so many model calls, and so many microseconds more."""

    calls: int
    delay_us: int


class Fate(NamedTuple):
    """What came of it, added up over all kills."""

    twice: int = 0
    effects: int = 0
    lost: int = 0
    finished: int = 0
    again: int = 0
    doubts: int = 0
    anew: int = 0  # nothing was found of them, so the second life began them again

    def plus(self, other: Fate) -> Fate:
        """Both together."""
        return Fate(*(mine + its for mine, its in zip(self, other, strict=True)))


def blows(kills: int) -> list[Blow]:
    """The same moments for everybody: while the agents are at work, of the 120 calls that they need."""
    chance = random.Random(SEED)
    return [Blow(chance.randint(AGENTS, AGENTS * TURNS - 10), chance.randrange(_DELAY_US)) for _ in range(kills)]


def count(effects: list[str]) -> tuple[int, int]:
    """How many different effects there were, and how many of them happened more than once."""
    times = Counter(effects)
    return len(times), sum(each > 1 for each in times.values())


def one_kill(contestant: Contestant, port: int, blow: Blow) -> Fate | None:
    """Two lives over one folder; None when the first had ended before the blow."""
    with machine.scratch() as folder:
        job = Job("life", str(folder), port, TURNS, AGENTS, AGENTS, contestant.mode)
        before = ask(port, "state")["calls"]
        first = ring.start(contestant, job)
        ask(port, f"kill/{first.pid}/{blow.calls}/{blow.delay_us}")
        if ring.result(first) is not None:
            return None
        ended = ring.result(ring.start(contestant, job))
        if ended is None:
            raise RuntimeError(f"{contestant.name}: its second life was killed by somebody else")
        effects, twice = count(ring.folder_lines(Path(folder) / "effects"))
        calls = ask(port, "state")["calls"] - before
        again = calls - AGENTS * (TURNS + 1)
        doubts, anew = (ended["notes"].get(what, 0) for what in ("in doubt", "begun"))
        print(f"  {contestant.name}: {twice} twice, {ended}", file=sys.stderr, flush=True)
        return Fate(twice, effects, ended["lost"], ended["finished"], again, doubts, anew)


def all_kills(contestant: Contestant, port: int, kills: int) -> tuple[Fate, int]:
    """So many blows; what came of them, and how many met somebody alive."""
    fate, met = Fate(), 0
    for blow in blows(kills):
        if (found := one_kill(contestant, port, blow)) is not None:
            fate, met = fate.plus(found), met + 1
    return fate, met


def main(quick: bool) -> Report:
    """Everybody under the same blows."""
    kills = 1 if quick else 10
    figures: list[Figure] = []
    with ring.upstream() as port:
        for contestant in AGAINST:
            fate, met = all_kills(contestant, port, kills)
            name = contestant.name
            ours = contestant is ring.MAINS
            figures += [
                Figure(f"{name}, kills", met, "kills"),
                _none(f"{name}, ran twice", fate.twice, f"of {fate.effects} tools", judged=ours),
                _none(f"{name}, lost", fate.lost, f"of {AGENTS * met} agents", judged=ours),
                Figure(f"{name}, model calls again", fate.again, "calls"),
            ]
            if "LangGraph" in name:
                figures.append(Figure(f"{name}, no checkpoint found", fate.anew, f"of {AGENTS * met} agents"))
            if ours:
                figures.append(Figure(f"{name}, in doubt and answered", fate.doubts, "calls"))
    return Report("kills", tuple(figures), (f"{AGENTS} agents of {TURNS} tool turns; {ring.versions()}",))


def _none(what: str, value: int, unit: str, *, judged: bool) -> Figure:
    """A figure that must be zero for us."""
    return Figure(what, value, unit, "none", value == 0) if judged else Figure(what, value, unit)
