"""What the agents of a run ask: real agents from `bench/data`, ServeGen's clients, and two tenants that never rest."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.fair import pauses
from bench.fair.call import Agent, Call, Step
from bench.fair.engine import Speeds

DATA = Path(__file__).resolve().parents[1] / "data"
# The trace does not say how much of an input all sessions of a suite share (system prompt, tools). The shortest first
# call of the suite is the most that it can be; three quarters of that are assumed.
OPENING_SHARE = 0.75
TENANT_WEIGHTS = (4, 3, 2, 1)  # how agents fall to tenants


class Session(msgspec.Struct, frozen=True):
    """A recorded run of an agent: of each call the input, what of it the call before had, and the output, in tokens."""

    suite: str
    calls: tuple[tuple[int, int, int], ...]


class Quantiles(msgspec.Struct, frozen=True):
    """Three points of a distribution of tokens."""

    p50: float
    p90: float
    p99: float

    def draw(self, chance: random.Random) -> int:
        """A value: straight lines between the points, from nothing to the median and level above the last."""
        points = ((0.0, 1.0), (0.5, self.p50), (0.9, self.p90), (0.99, self.p99), (1.0, self.p99))
        at = chance.random()
        for (low, small), (high, large) in itertools.pairwise(points):
            if at <= high:
                return max(1, round(small + (large - small) * (at - low) / (high - low)))
        return max(1, round(self.p99))


class Client(msgspec.Struct, frozen=True):
    """A client of ServeGen in one window."""

    client: int
    rate_rps: float
    cv: float
    input_tokens: Quantiles
    output_tokens: Quantiles


class Clients(msgspec.Struct, frozen=True):
    """All clients of that window."""

    window_start_s: int
    window_s: int
    clients: tuple[Client, ...]


def sessions() -> tuple[Session, ...]:
    """The recorded agents."""
    return msgspec.json.decode((DATA / "agents.json").read_bytes(), type=tuple[Session, ...])


def clients() -> Clients:
    """The recorded clients."""
    return msgspec.json.decode((DATA / "tenants.json").read_bytes(), type=Clients)


def openings(recorded: Sequence[Session]) -> dict[str, int]:
    """The tokens that all sessions of each suite are taken to share."""
    shortest: dict[str, int] = {}
    for session in recorded:
        first = session.calls[0][0]
        shortest[session.suite] = min(first, shortest.get(session.suite, first))
    return {suite: round(OPENING_SHARE * tokens) for suite, tokens in shortest.items()}


def agent_mix(speeds: Speeds, *, load: float, agents: int, seed: int) -> list[Agent]:
    """Recorded sessions, each as likely as any other, with Poisson arrivals and drawn tool times.

    At load 1 the slots would just do all work if the cache were without bounds and reading never had to wait.
    """
    chance = random.Random(seed)
    recorded = sessions()
    shared = openings(recorded)
    mean_s = sum(_needs_s(session, speeds) for session in recorded) / len(recorded)
    rate = load * speeds.slots / mean_s
    made, now = [], 0.0
    for number in range(agents):
        now += chance.expovariate(rate)
        session = chance.choice(recorded)
        steps = [_step(call, pauses.tool_s(chance)) for call in session.calls]
        steps[-1] = msgspec.structs.replace(steps[-1], pause_s=0.0)
        tenant = chance.choices(range(len(TENANT_WEIGHTS)), TENANT_WEIGHTS)[0]
        made.append(Agent(number, tenant, now, tuple(steps), session.suite, shared[session.suite]))
    return made


def _step(call: tuple[int, int, int], pause_s: float) -> Step:
    read, known, written = call
    return Step(max(1, read), max(1, written), known, pause_s)


def _needs_s(session: Session, speeds: Speeds) -> float:
    return sum(speeds.seconds(max(1, read - known), max(1, written)) for read, known, written in session.calls)


def served_clients(speeds: Speeds, *, load: float, until_s: float, seed: int) -> list[Agent]:
    """ServeGen's clients, a tenant each; every call is a program of its own. Time is stretched to reach the load."""
    chance = random.Random(seed)
    known = clients().clients
    samples = 2_000
    needs = 0.0
    for client in known:
        sizes = [(client.input_tokens.draw(chance), client.output_tokens.draw(chance)) for _ in range(samples)]
        needs += client.rate_rps * sum(speeds.seconds(*size) for size in sizes) / samples
    stretch = load * speeds.slots / needs
    made: list[Agent] = []
    for client in known:
        shape = 1 / client.cv**2  # a gamma process has this coefficient of variation
        now = chance.gammavariate(shape, client.cv**2 / (client.rate_rps * stretch)) * chance.random()
        while now < until_s:
            step = Step(client.input_tokens.draw(chance), client.output_tokens.draw(chance))
            made.append(Agent(len(made), client.client, now, (step,)))
            now += chance.gammavariate(shape, client.cv**2 / (client.rate_rps * stretch))
    return made


def stream(
    tenant: int,
    step: Step,
    *,
    per_s: float,
    until_s: float,
    seed: int,
    first: int = 0,
    program: str = "",
    opening: int = 0,
) -> list[Agent]:
    """One call after another of one size, as programs of their own, with Poisson arrivals."""
    chance = random.Random(seed)
    made: list[Agent] = []
    now = chance.expovariate(per_s)
    while now < until_s:
        made.append(Agent(first + len(made), tenant, now, (step,), program, opening))
        now += chance.expovariate(per_s)
    return made


def capacity_per_s(speeds: Speeds, step: Step) -> float:
    """How many such calls a second the slots can do when nothing is cached."""
    by_slots = speeds.slots / speeds.seconds(step.input_tokens, step.output_tokens)
    return min(by_slots, speeds.prefill_per_s / step.input_tokens)


def ten_to_one(speeds: Speeds, *, until_s: float, seed: int) -> list[Agent]:
    """Two tenants with calls of one size, both asking for more than their half, one ten times as often as the other."""
    step = Step(512, 128)
    most = capacity_per_s(speeds, step)
    modest = stream(0, step, per_s=0.6 * most, until_s=until_s, seed=seed)
    greedy = stream(1, step, per_s=6.0 * most, until_s=until_s, seed=seed + 1, first=len(modest))
    return modest + greedy


def ideal_s(agent: Agent, speeds: Speeds) -> float:
    """How long the agent takes alone on the engine, its own calls and its program's opening cached."""
    calls = (Call(agent, at, 0.0, 0) for at in range(len(agent.steps)))
    return math.fsum(
        speeds.seconds(call.step.input_tokens - call.reusable, call.step.output_tokens) + call.step.pause_s
        for call in calls
    )
