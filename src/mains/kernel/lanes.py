"""Lanes: all lanes of a kernel, one an engine, and what the scheduler is told of a process. Memory only.

A process stands in a lane because it is READY and waits for a model call, and for no other reason; after a boot the
lanes are filled from the rows. What a call needs is taken from the record (sizes, and names for the stretches of its
prompt), so that queueing reads no page.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from mains.errors import Blame, ConfigError, EngineError, Spent
from mains.kernel.fallback import after_absence
from mains.kernel.limits import NAMED
from mains.kernel.ports import Engine, Engines, EngineState, Reply, Usage
from mains.kernel.process import Process, Route, State
from mains.kernel.rates import Rates
from mains.kernel.routing import Stand, choose
from mains.kernel.scheduler import Lane
from mains.kernel.waiting import Waiting
from mains.settings import Settings


class _Backend:
    """One engine as a lane sees it."""

    __slots__ = ("lane", "rates")

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.rates = Rates(engine.slots, engine.rpm, engine.tpm, settings)
        self.lane = Lane(engine.slots, gate=self.rates)


class Lanes:
    """Who waits for which engine, and who has a slot of it."""

    def __init__(self, engines: Engines, settings: Settings) -> None:
        self._engines = engines
        self._settings = settings
        self._backends: dict[str, _Backend] = {}
        self._engine_of: dict[int, str] = {}  # of who waits
        self._movable: set[int] = set()  # of those, who has another engine to try
        self._made: set[int] = set()  # whose call has reached its engine

    def __len__(self) -> int:
        """How many wait."""
        return len(self._engine_of)

    def queue(self, p: Process, now_ms: int) -> None:
        """A READY process waits for its engine, or for one that serves it as well.

        Raises ConfigError when that is not there, or is down while the process has another one to try.
        """
        waiting = waiting_of(p)
        engine = p.engine if len(p.routes) < 2 else self._place(p, waiting, now_ms)
        if self.is_down(engine) and after_absence(p) is not None:
            raise ConfigError(f"engine {engine} is down: its circuit breaker is open")
        if self._engine_of.get(p.pid, engine) != engine:
            self._withdraw(p.pid)
        backend = self._backend(engine, p.model)
        self._engine_of[p.pid] = engine
        if after_absence(p) is not None:
            self._movable.add(p.pid)
        backend.lane.add(waiting)

    def _backend(self, engine: str, model: str) -> _Backend:
        backend = self._backends.get(engine)
        if backend is None:
            backend = self._backends[engine] = _Backend(self._engines.find(engine, model), self._settings)
        return backend

    def _place(self, p: Process, waiting: Waiting, now_ms: int) -> str:
        """The engine, of those that serve a process as well as its own, that takes its call."""
        routes, stands = equals(p), []
        if len(routes) < 2 or p.pid in self._engine_of:
            return self._engine_of.get(p.pid, p.engine)
        for route in routes:
            try:
                backend = self._backend(route.engine, route.model)
            except ConfigError:
                stands.append(Stand(0, 0, 0, 0, down=True))
                continue
            lane, closed = backend.lane, now_ms < backend.lane.closed_until_ms
            stands.append(
                Stand(
                    lane.new_tokens(waiting), lane.queued_tokens, lane.busy, lane.slots, closed or backend.rates.is_open
                )
            )
        names = [route.engine for route in routes]
        return names[choose(stands, names.index(p.engine))]

    def follow(self, p: Process) -> None:
        """A commit changed a process: it leaves the lane that it does not wait in any more."""
        engine = self._engine_of.get(p.pid)
        if engine is None or (p.state is State.READY and engine in (p.engine, *(r.engine for r in equals(p)))):
            return  # else it does not wait, or `exec` has changed its engine
        self._withdraw(p.pid)

    def choices(self, now_ms: int) -> Iterator[tuple[str, int]]:
        """Give every free slot to whom the scheduler chooses: engine and pid. Each has its slot until `release`."""
        for engine, backend in list(self._backends.items()):
            while (chosen := backend.lane.choose(now_ms)) is not None:
                del self._engine_of[chosen.pid]
                self._movable.discard(chosen.pid)
                yield engine, chosen.pid

    def answered(self, engine: str, pid: int, reply: Reply, now_ms: int) -> None:
        """The call of a process was answered."""
        self.settle(engine, pid, reply.usage)
        self._backends[engine].rates.answered(reply.limits, now_ms)

    def failed(self, engine: str, pid: int, error: EngineError, now_ms: int) -> None:
        """The call of a process has failed: what it used follows from what the engine spent."""
        self.settle(engine, pid, Usage() if error.spent is Spent.NOTHING else None)
        rates = self._backends[engine].rates
        if error.throttled:
            rates.refused(pid, error.limits, now_ms)
        elif error.blame is Blame.ENGINE and error.retryable:
            rates.failed(now_ms)

    def settle(self, engine: str, pid: int, usage: Usage | None) -> None:
        """The call of a process has ended, and used this; None: nobody knows."""
        self._made.add(pid)
        self._backends[engine].lane.settle(pid, usage)

    def release(self, engine: str, pid: int) -> None:
        """A process gives its slot back. A call that was not settled was not made."""
        backend = self._backends[engine]
        backend.rates.ended(pid, made=pid in self._made)
        self._made.discard(pid)
        backend.lane.release(pid)

    def close_until(self, engine: str, until_ms: int) -> None:
        """A backend asked everybody to wait."""
        lane = self._backends[engine].lane
        lane.closed_until_ms = max(lane.closed_until_ms, until_ms)

    def times_ms(self, now_ms: int) -> list[int]:
        """When to choose again though nothing happens."""
        times = [backend.lane.next_ms(now_ms) for backend in self._backends.values()]
        return [time_ms for time_ms in times if time_ms is not None]

    def is_down(self, engine: str) -> bool:
        """Whether an engine's circuit breaker is open."""
        backend = self._backends.get(engine)
        return backend is not None and backend.rates.is_open

    def stranded(self, engine: str) -> list[int]:
        """Who waited for an engine that is down, and has another one to try: they wait no more."""
        pids = [pid for pid in self._movable if self._engine_of[pid] == engine] if self.is_down(engine) else []
        for pid in pids:
            self._withdraw(pid)
        return pids

    def _withdraw(self, pid: int) -> None:
        self._movable.discard(pid)
        self._backends[self._engine_of.pop(pid)].lane.discard(pid)

    def states(self) -> list[EngineState]:
        """How each engine is; one whose circuit breaker is open is `down`."""
        states = self._engines.states()
        return [msgspec.structs.replace(e, health="down") if self.is_down(e.name) else e for e in states]


def equals(p: Process) -> tuple[Route, ...]:
    """The routes that serve a process as well as the one in use; none when nothing else does."""
    group = p.routes[p.route].group if p.routes else ""
    return tuple(route for route in p.routes if route.group == group) if group else ()


def waiting_of(p: Process) -> Waiting:
    """What the scheduler is told of a process. Nothing is read for it.

    Its prompt begins with what all processes of its program have (tools, program), and goes on with its own; a fork
    goes on with its source's.
    """
    shared = p.reserve_tokens + p.opening_tokens
    forked = p.parent and not p.spawned_by
    own = p.frame_tokens - p.opening_tokens
    return Waiting(
        pid=p.pid,
        tenant=p.tenant,
        band=p.band,
        program=_root_of(p),
        input_tokens=p.frame_tokens + p.reserve_tokens,
        output_tokens=_output_tokens(p),
        prefix=(((p.tools, p.program), shared), (p.parent if forked else p.pid, own if own > 0 else 0)),
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
