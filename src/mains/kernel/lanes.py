"""Lanes: all lanes of a kernel, one an engine, and what the scheduler is told of a process. Memory only.

A process stands in a lane because it is READY and waits for a model call, and for no other reason; after a boot the
lanes are filled from the rows. What a call needs is taken from the record (sizes, and names for the stretches of its
prompt), so that queueing reads no page.
"""

from __future__ import annotations

from collections.abc import Iterator

from mains.errors import EngineError, Spent
from mains.kernel.ports import Engines, Usage
from mains.kernel.process import Process, State
from mains.kernel.scheduler import Lane
from mains.kernel.waiting import Waiting

_ACCOUNTS_FROM = 1 << 40  # numbers of named accounts and programs; a process has its pid


class Lanes:
    """Who waits for which engine, and who has a slot of it."""

    def __init__(self, engines: Engines) -> None:
        self._engines = engines
        self._lanes: dict[str, Lane] = {}
        self._engine_of: dict[int, str] = {}  # of who waits

    def __len__(self) -> int:
        """How many wait."""
        return len(self._engine_of)

    def queue(self, p: Process) -> None:
        """A READY process waits for its engine. Raises ConfigError when that is not there."""
        lane = self._lanes.get(p.engine)
        if lane is None:
            lane = self._lanes[p.engine] = Lane(self._engines.find(p.engine, p.model).slots)
        self._engine_of[p.pid] = p.engine
        lane.add(waiting_of(p))

    def follow(self, p: Process) -> None:
        """A commit changed a process: it leaves the lane that it does not wait in any more."""
        engine = self._engine_of.get(p.pid)
        if engine is not None and (p.state is not State.READY or engine != p.engine):  # `exec` may have changed it
            del self._engine_of[p.pid]
            self._lanes[engine].discard(p.pid)

    def choices(self, now_ms: int) -> Iterator[tuple[str, int]]:
        """Give every free slot to whom the scheduler chooses: engine and pid. Each has its slot until `release`."""
        for engine, lane in self._lanes.items():
            while (chosen := lane.choose(now_ms)) is not None:
                del self._engine_of[chosen.pid]
                yield engine, chosen.pid

    def settle(self, engine: str, pid: int, usage: Usage | None) -> None:
        """The call of a process has ended, and used this; None: nobody knows."""
        self._lanes[engine].settle(pid, usage)

    def failed(self, engine: str, pid: int, error: EngineError) -> None:
        """The call of a process has failed: what it used follows from what the engine spent."""
        self.settle(engine, pid, Usage() if error.spent is Spent.NOTHING else None)

    def release(self, engine: str, pid: int) -> None:
        """A process gives its slot back. A call that was not settled was not made."""
        self._lanes[engine].release(pid)

    def close_until(self, engine: str, until_ms: int) -> None:
        """A backend asked everybody to wait."""
        lane = self._lanes[engine]
        lane.closed_until_ms = max(lane.closed_until_ms, until_ms)

    def times_ms(self, now_ms: int) -> list[int]:
        """When to choose again though nothing happens."""
        times = [lane.next_ms(now_ms) for lane in self._lanes.values()]
        return [time_ms for time_ms in times if time_ms is not None]


def waiting_of(p: Process) -> Waiting:
    """What the scheduler is told of a process. Nothing is read for it.

    Its prompt begins with what all processes of its program have (tools, program), and goes on with its own; a fork
    goes on with its source's.
    """
    shared = p.reserve_tokens + p.opening_tokens
    forked = p.parent and not p.spawned_by
    own = p.frame_tokens - p.opening_tokens
    prefix = (((p.tools, p.program), shared), (p.parent if forked else p.pid, own if own > 0 else 0))
    tokens = p.frame_tokens + p.reserve_tokens
    return Waiting(p.pid, _tenant_of(p), p.band, _root_of(p), tokens, _output_tokens(p), prefix)


def _tenant_of(p: Process) -> int:
    """The account that its call is fair to: the home's."""
    return p.accounts[-1]


def _root_of(p: Process) -> int:
    """The root of its process tree: the last of the processes that it spends from."""
    accounts = p.accounts
    for place in range(len(accounts) - 1, 0, -1):
        if 0 < accounts[place] < _ACCOUNTS_FROM:
            return accounts[place]
    return p.pid


def _output_tokens(p: Process) -> int:
    """An estimate: twice what its turns made on average, and at most its cap. The first turn counts with the cap."""
    if not p.output_tokens or not p.turn:
        return p.output_tokens_max
    return min(p.output_tokens_max, 2 * p.output_tokens // p.turn + 1)
