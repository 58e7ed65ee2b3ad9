"""Lanes: all lanes of a kernel, one an engine, and what the scheduler is told of a process. Memory only.

A process stands in a lane because it is READY and waits for a model call, and for no other reason; after a boot the
lanes are filled from the rows. What a call needs is taken from the record (sizes, and names for the stretches of its
prompt), so that queueing reads no page.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import TypeVar

import msgspec

from mains.errors import Blame, ConfigError, EngineError, Spent
from mains.kernel.fallback import untried
from mains.kernel.limits import NAMED
from mains.kernel.ports import Engine, Engines, EngineState, Reply, Usage
from mains.kernel.prefixes import TOKENS_MAX
from mains.kernel.process import Process, Route, State
from mains.kernel.rates import Rates
from mains.kernel.routing import Candidate, choose, counted
from mains.kernel.scheduler import Lane
from mains.kernel.waiting import Segment, Waiting
from mains.settings import Settings

K = TypeVar("K", bound=Hashable)


class _Backend:
    """One engine as a lane sees it. `queued_tokens`: what it must read anew for those who wait."""

    __slots__ = ("call_tokens_max", "lane", "queued_tokens", "rates")

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.rates = Rates(engine.slots, settings, rpm=engine.rpm, tpm=engine.tpm)
        self.lane = Lane(engine.slots, gate=self.rates, prefix_tokens_max=engine.cache_tokens or TOKENS_MAX)
        self.queued_tokens = 0
        self.call_tokens_max = engine.context_tokens or TOKENS_MAX  # read or made, of one call

    def counted(self, usage: Usage) -> Usage:
        """What an engine reported, as far as a call can have it: nonsense is billed, and starves nobody."""
        return Usage(*(min(max(0, count), self.call_tokens_max) for count in msgspec.structs.astuple(usage)))

    def down(self, now_ms: int) -> bool:
        """Whether those who have another engine should go there: it is down, and nobody is needed to probe it."""
        return self.rates.down(now_ms) or (not self.rates.circuit.closed and len(self.lane) > 0)

    def look(self, now_ms: int) -> None:
        """Let the lane know what the backend takes now."""
        self.lane.closed_until_ms = self.rates.closed_until_ms(now_ms)
        self.lane.slots = self.rates.slots_now

    @property
    def idle(self) -> bool:
        """Whether a slot is free and nobody waits for it."""
        return not len(self.lane) and self.lane.busy < self.lane.slots


class _Place:
    """Where a process waits: the engine, and what that must read anew. `movable`: who has another engine to try."""

    __slots__ = ("engine", "movable", "new_tokens", "routes")

    def __init__(self, engine: str, new_tokens: int, movable: Process | None) -> None:
        self.engine = engine
        self.new_tokens = new_tokens
        self.movable = movable
        self.routes = equals(movable) if movable else ()


class Lanes:
    """Who waits for which engine, and who has a slot of it."""

    def __init__(self, engines: Engines, settings: Settings) -> None:
        self._engines = engines
        self._settings = settings
        self._backends: dict[str, _Backend] = {}
        self._places: dict[int, _Place] = {}  # by pid: who waits
        self._movable: dict[str, dict[int, Process]] = {}  # engine -> of those, who has another one to try
        self._groups: dict[tuple[Route, ...], dict[int, Process]] = {}  # of those, who is served as well elsewhere

    def __len__(self) -> int:
        """How many wait."""
        return len(self._places)

    def queue(self, p: Process, now_ms: int) -> None:
        """A READY process waits for its engine, or for one that serves it as well; who waits already keeps its place.

        Raises ConfigError when that is not there, or is down while another that the process can try is not.
        """
        waiting, known = waiting_of(p), self._places.get(p.pid)
        engine = known.engine if known else self._choose(p, waiting, now_ms)
        backend = self._backend(engine, p.model)
        movable = p if untried(p) else None
        if movable and not known and backend.down(now_ms) and self._served_elsewhere(p, now_ms):
            raise ConfigError(f"engine {engine} is down: {backend.rates.circuit.why}")
        if known:
            self._leave(p.pid)
        place = self._places[p.pid] = _Place(engine, counted(backend.lane.new_tokens(waiting)), movable)
        backend.queued_tokens += place.new_tokens
        if movable:
            self._movable.setdefault(engine, {})[p.pid] = p
            if place.routes:
                self._groups.setdefault(place.routes, {})[p.pid] = p
        backend.lane.add(waiting)

    def queue_wish(self, number: int, p: Process, input_tokens: int, output_tokens: int, now_ms: int) -> None:
        """A device that serves a process wants a model's answer: it waits for the engine of that process, under a
        number below zero. Raises ConfigError: the engine is not there, or is down."""
        backend = self._backend(p.engine, p.model)
        if backend.down(now_ms):
            raise ConfigError(f"engine {p.engine} is down: {backend.rates.circuit.why}")
        self._places[number] = _Place(p.engine, input_tokens, None)
        backend.queued_tokens += input_tokens
        prefix: tuple[Segment, ...] = ((number, input_tokens),)
        backend.lane.add(Waiting(number, p.tenant, p.band, _root_of(p), input_tokens, output_tokens, prefix))

    def withdraw_wish(self, number: int) -> None:
        """It waits no more, if it still did."""
        if number in self._places:
            self._withdraw(number)

    def _backend(self, engine: str, model: str) -> _Backend:
        backend = self._backends.get(engine)
        if backend is None:
            backend = self._backends[engine] = _Backend(self._engines.find(engine, model), self._settings)
        return backend

    def _served_elsewhere(self, p: Process, now_ms: int) -> bool:
        """Whether one of the engines that a process can still try is not known to be down."""
        others = [self._backends.get(p.routes[index].engine) for index in untried(p)]
        return any(backend is None or not backend.down(now_ms) for backend in others)

    def _choose(self, p: Process, waiting: Waiting, now_ms: int) -> str:
        """The engine that takes the call: of those that serve the process as well as its own, the best.

        One that has failed in this turn is taken when no other is left.
        """
        peers = equals(p)
        if len(peers) < 2:
            return p.engine
        here, given_up = p.route, {gone.route for gone in p.given_up}
        candidates = []
        for index, route in enumerate(p.routes):
            if index != here and (route not in peers or index in given_up):
                continue
            try:
                backend = self._backend(route.engine, route.model)
            except ConfigError:
                if index == here:
                    raise
                continue
            backend.look(now_ms)
            place = self._places.get(p.pid)
            own_tokens = place.new_tokens if place and place.engine == route.engine else 0
            opens_ms = max(backend.lane.closed_until_ms, backend.rates.next_ms(waiting, now_ms) or 0)
            candidates.append(
                Candidate(
                    index=index,
                    new_tokens=backend.lane.new_tokens(waiting),
                    queued_tokens=backend.queued_tokens - own_tokens,
                    running=backend.lane.busy,
                    opens_ms=opens_ms if opens_ms > now_ms else 0,
                    down=backend.down(now_ms),
                    failed=index == here and p.failures_here > 0,
                )
            )
        return p.routes[choose(candidates).index].engine if candidates else p.engine

    def follow(self, p: Process) -> None:
        """A commit changed a process: it leaves the lane that it does not wait in any more."""
        place = self._places.get(p.pid)
        if place is None or (p.state is State.READY and place.engine in (p.engine, *(r.engine for r in equals(p)))):
            return  # else it does not wait, or `exec` has changed its engine
        self._withdraw(p.pid)

    def choices(self, now_ms: int) -> Iterator[tuple[str, int]]:
        """Give every free slot to whom the scheduler chooses: engine and pid. Each has its slot until `release`."""
        for engine in list(self._backends):
            yield from self._chosen(engine, now_ms)
        for routes in [*self._groups]:
            yield from self._even_out(routes, now_ms)

    def _chosen(self, engine: str, now_ms: int) -> Iterator[tuple[str, int]]:
        backend = self._backends[engine]
        backend.look(now_ms)
        while (chosen := backend.lane.choose(now_ms)) is not None:
            self._leave(chosen.pid)
            yield engine, chosen.pid

    def _even_out(self, routes: tuple[Route, ...], now_ms: int) -> Iterator[tuple[str, int]]:
        """An engine of these is idle, and another has a queue: who waits there goes over, as long as that is better."""
        for route in routes:
            while (
                (backend := self._backends.get(route.engine)) and backend.idle and (group := self._groups.get(routes))
            ):
                pid, p = next(iter(group.items()))
                if self._places[pid].engine == route.engine or backend.down(now_ms):
                    break
                waiting = waiting_of(p)
                if self._choose(p, waiting, now_ms) != route.engine:
                    break
                self._withdraw(pid)
                self.queue(p, now_ms)
                yield from self._chosen(route.engine, now_ms)

    def answered(self, engine: str, pid: int, reply: Reply, now_ms: int) -> None:
        """The call of a process was answered."""
        backend = self._backends[engine]
        backend.lane.settle(pid, backend.counted(reply.usage) if reply.usage else None)
        backend.rates.succeeded(pid, reply.usage, reply.limits, now_ms)

    def failed(self, engine: str, pid: int, error: EngineError, now_ms: int) -> list[int]:
        """The call of a process has failed: what it used follows from what the engine spent.

        Gives who waited for this engine and can go elsewhere, when it takes no calls now: they wait no more.
        """
        backend = self._backends[engine]
        backend.lane.settle(pid, Usage() if error.spent is Spent.NOTHING else None)
        if error.throttled or error.retry_after_s > 0:
            backend.rates.refused(pid, error.retry_after_s, error.limits, now_ms)
        elif error.blame is Blame.ENGINE:
            backend.rates.failed(pid, now_ms, str(error), final=not error.retryable)
        else:
            backend.rates.answered(pid, now_ms)
        return self._stranded(engine, now_ms)

    def _stranded(self, engine: str, now_ms: int) -> list[int]:
        backend = self._backends[engine]
        closed = backend.rates.closed_until_ms(now_ms) > now_ms
        if not (closed or backend.rates.down(now_ms)):
            return []
        pids = []
        for pid, p in self._movable.get(engine, {}).items():
            down = backend.rates.down(now_ms) and self._served_elsewhere(p, now_ms)
            if down or self._choose(p, waiting_of(p), now_ms) != engine:
                pids.append(pid)
        for pid in pids:
            self._withdraw(pid)
        return pids

    def broken_off(self, engine: str, pid: int) -> None:
        """The call of a process was broken off: nobody knows what it used."""
        backend = self._backends[engine]
        backend.lane.settle(pid, None)
        backend.rates.gone(pid)

    def release(self, engine: str, pid: int, now_ms: int) -> None:
        """A process gives its slot back. A call of which nothing was told was not made."""
        backend = self._backends[engine]
        backend.rates.withdrawn(pid, now_ms)
        backend.lane.release(pid)

    def times_ms(self, now_ms: int) -> list[int]:
        """When to choose again though nothing happens."""
        times = [backend.lane.next_ms(now_ms) for backend in self._backends.values()]
        return [time_ms for time_ms in times if time_ms is not None]

    def _leave(self, pid: int) -> None:
        """Forget where a process waits."""
        place = self._places.pop(pid)
        self._backends[place.engine].queued_tokens -= place.new_tokens
        if place.movable:
            _drop(self._movable, place.engine, pid)
            if place.routes:
                _drop(self._groups, place.routes, pid)

    def _withdraw(self, pid: int) -> None:
        engine = self._places[pid].engine
        self._leave(pid)
        self._backends[engine].lane.discard(pid)

    def states(self, now_ms: int) -> list[EngineState]:
        """How each engine is, with what is known here: whether it is down, or has asked to wait."""
        return [self._state(state, now_ms) for state in self._engines.states()]

    def _state(self, state: EngineState, now_ms: int) -> EngineState:
        backend = self._backends.get(state.name)
        health = backend.rates.health(now_ms) if backend else ""
        return msgspec.structs.replace(state, health=health) if health else state


def _drop(index: dict[K, dict[int, Process]], key: K, pid: int) -> None:
    within = index[key]
    del within[pid]
    if not within:
        del index[key]


def equals(p: Process) -> tuple[Route, ...]:
    """The routes that serve a process as well as the one in use; none when nothing else does."""
    group = p.routes[p.route].group if p.routes else ""
    return tuple(route for route in p.routes if route.group == group) if group else ()


def waiting_of(p: Process) -> Waiting:
    """What the scheduler is told of a process. Nothing is read for it.

    Its prompt begins with what all processes of its program have (tools, program), and goes on with its own; a fork
    goes on with its source's, until something of its own was evicted. What stands behind an eviction is new to engines.
    """
    shared = p.reserve_tokens + p.opening_tokens
    of = p.maps[-1] if p.maps and not p.breaks else None
    stretch = (of.pid, of.breaks) if of else (p.pid, p.breaks)
    own = p.frame_tokens - p.opening_tokens
    return Waiting(
        pid=p.pid,
        tenant=p.tenant,
        band="batch" if p.idle else p.band,
        program=_root_of(p),
        input_tokens=p.frame_tokens + p.reserve_tokens,
        output_tokens=_output_tokens(p),
        prefix=(((p.tools, p.program), shared), (stretch, max(0, own))),
    )


def _root_of(p: Process) -> int:
    """The root of its process tree: the last of the processes that it spends from."""
    accounts = p.accounts
    for place in range(len(accounts) - 1, 0, -1):
        if 0 < accounts[place] < NAMED:
            return accounts[place]
    return p.pid


def _output_tokens(p: Process) -> int:
    """An estimate: twice what its turns made on average, and at most its cap. The first turn counts with the cap."""
    if not p.output_tokens or not p.turn:
        return p.output_tokens_max
    return min(p.output_tokens_max, 2 * p.output_tokens // p.turn + 1)
