"""The simulator: agents arrive, their calls wait for slots, a policy chooses, the engine serves. Without chance."""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import msgspec

from bench.fair.call import Agent, Call
from bench.fair.engine import Engine, Speeds, Started
from bench.fair.gaps import Gaps
from bench.fair.policy import Policy, Site, charge


class Outcome(msgspec.Struct):
    """What came of a run. Times in seconds, sizes in tokens; `served` in weighted tokens a tenant."""

    completion_s: dict[int, float] = {}  # agent -> from its arrival to the end of its last call
    waits: list[tuple[int, float]] = []  # tenant, and how long one of its calls waited
    served: Counter[int] = msgspec.field(default_factory=Counter)
    gaps: dict[tuple[int, int], int] = {}
    calls: int = 0
    unserved: int = 0  # calls that still wait or run when the run is cut off
    input_tokens: int = 0
    output_tokens: int = 0
    cached: int = 0
    reusable: int = 0
    dearest: int = 0  # the largest charge of one call
    end_s: float = 0.0

    @property
    def hit_rate(self) -> float:
        """Input tokens that came from the cache, as a share of all."""
        return self.cached / self.input_tokens if self.input_tokens else 0.0

    @property
    def amplification(self) -> float:
        """Tokens that were read, against those that a cache without bounds would have left to read."""
        return (self.input_tokens - self.cached) / (self.input_tokens - self.reusable) if self.input_tokens else 0.0

    def longest_wait_s(self, tenant: int | None = None) -> float:
        """Of one tenant's calls, or of all."""
        return max((wait for one, wait in self.waits if tenant in (None, one)), default=0.0)


class Simulation:
    """One run: the same agents, engine and policy give the same outcome.

    After `until_s` no call gets a slot any more; who waits then is counted with the wait so far.
    """

    def __init__(
        self,
        agents: Sequence[Agent],
        policy: Callable[[Site], Policy],
        speeds: Speeds,
        *,
        until_s: float = math.inf,
    ) -> None:
        self._engine = Engine(speeds)
        self._policy = policy(Site(speeds, self._engine.cache.hit, len({agent.tenant for agent in agents})))
        self._until_s = until_s
        self._events: list[tuple[float, int, Agent | Started | None, int]] = []
        self._order = 0
        self._calls = 0
        self._wake_s = math.inf
        self._waiting: dict[int, Call] = {}
        self._gaps = Gaps()
        self.outcome = Outcome()
        for agent in agents:
            self._at(agent.arrival_s, agent)

    def run(self) -> Outcome:
        """Until nothing is left to happen, or the time is over."""
        while self._events and self._events[0][0] <= self._until_s:
            now = self._events[0][0]
            while self._events and self._events[0][0] == now:
                _, _, what, step = heapq.heappop(self._events)
                self._happens(what, step, now)
            self._fill(now)
        self._close()
        return self.outcome

    def _at(self, when: float, what: Agent | Started | None, step: int = 0) -> None:
        self._order += 1
        heapq.heappush(self._events, (when, self._order, what, step))

    def _happens(self, what: Agent | Started | None, step: int, now: float) -> None:
        if isinstance(what, Agent):
            self._calls += 1
            call = Call(what, step, now, self._calls)
            self._waiting[call.number] = call
            self._gaps.queued(call.tenant)
            self._policy.add(call, now)
        elif what is None:
            self._wake_s = math.inf
        else:
            self._ends(what, now)

    def _fill(self, now: float) -> None:
        while self._engine.free and (call := self._policy.choose(now)):
            del self._waiting[call.number]
            started = self._engine.begin(call, now)
            self._gaps.left(call.tenant)
            self._policy.started(started)
            self.outcome.waits.append((call.tenant, now - call.ready_s))
            self._at(started.end_s, started)
        wake = self._policy.wake_s(now)
        if self._waiting and now < wake < self._wake_s:
            self._wake_s = wake
            self._at(wake, None)

    def _ends(self, started: Started, now: float) -> None:
        call, outcome = started.call, self.outcome
        self._engine.end(started)
        self._policy.ended(started, now)
        price = charge(started.uncached, call.step.output_tokens)
        self._gaps.served(call.tenant, price)
        outcome.served[call.tenant] += price
        outcome.dearest = max(outcome.dearest, price)
        outcome.calls += 1
        outcome.input_tokens += call.step.input_tokens
        outcome.output_tokens += call.step.output_tokens
        outcome.cached += started.cached
        outcome.reusable += call.reusable
        outcome.end_s = now
        if call.at + 1 < len(call.agent.steps):
            if math.isfinite(call.step.pause_s):
                self._at(now + call.step.pause_s, call.agent, call.at + 1)
        elif math.isfinite(call.step.pause_s):
            outcome.completion_s[call.agent.number] = now - call.agent.arrival_s

    def _close(self) -> None:
        self._gaps.close()
        self.outcome.gaps = self._gaps.worst
        for call in self._waiting.values():
            self.outcome.waits.append((call.tenant, self._until_s - call.ready_s))
        self.outcome.unserved = len(self._waiting) + self._engine.running


def demands(agents: Sequence[Agent], until_s: float) -> dict[int, int]:
    """Weighted tokens of each tenant's calls until then, if every agent were answered at once from a full cache."""
    wanted: dict[int, int] = defaultdict(int)
    for agent in agents:
        now = agent.arrival_s
        for at, step in enumerate(agent.steps):
            if now > until_s:
                break
            call = Call(agent, at, now, 0)
            wanted[agent.tenant] += charge(step.input_tokens - call.reusable, step.output_tokens)
            now += step.pause_s
    return dict(wanted)
