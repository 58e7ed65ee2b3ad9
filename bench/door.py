"""A door before a real engine: whose call goes in next is a policy's choice, and how many turns come is a plan's.

The kernel sees an engine with a slot for every process, so that every call comes to the door at once and waits here, as
it would at an inference server with a queue of its own; the policy (a class of `bench/fair/policies`, the very one that
the simulator runs) fills the engine's real slots. Without a policy the door has as many slots as the engine, and the
kernel's own scheduler chooses: then it is open.

A model of 135M parameters cannot be trusted to make the same number of turns each time. So the calls are real (prompt
read, text written, KV kept) and what follows from a reply is not: the door leaves the tools out of what the model sees,
and adds to its text the call of a tool, or none in the last turn of the plan.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Collection, Sequence

import msgspec

from bench.fair.call import Agent, Call, Step
from bench.fair.engine import Speeds, Started
from bench.fair.policy import Policy, Site
from mains.kernel.ports import Engine, EngineState, Keeper, Message, Reply, Request, ToolCall, Usage

_LATE_S = 0.001  # a timer may fire a little early; it should not


class Job(msgspec.Struct, frozen=True):
    """What one process does: so many turns, tokens of output in each, and the pause of its tool between them.

    The program's name is its tenant's, too.
    """

    program: str
    turns: int
    output_tokens: int
    pause_s: float = 0.0


class Seen(msgspec.Struct, frozen=True):
    """A call that was made. `gap_s`: from the reply before to this call at the door. `opening`: share of the prompt's
    characters that all of the program have."""

    pid: int
    turn: int
    usage: Usage
    gap_s: float
    opening: float


class Door:
    """An engine for the kernel. `policy`: None leaves the choice to the kernel."""

    rpm = tpm = 0

    def __init__(self, engine: Engine, processes: int, policy: Callable[[Site], Policy] | None, tenants: int) -> None:
        self.name = engine.name
        self.slots = processes if policy else engine.slots
        self.context_tokens = engine.context_tokens
        self.cache_tokens = engine.cache_tokens
        self.jobs: dict[int, Job] = {}  # by pid; to be filled before the process may run
        self.seen: list[Seen] = []
        self.busy_s = 0.0  # in which at least one call was made
        self._made = 0  # calls that are made now
        self._busy_from_s = 0.0
        self._engine = engine
        speeds = Speeds(slots=engine.slots)
        self._policy = policy(Site(speeds, lambda _: 0, tenants)) if policy else None
        self._turns: dict[int, asyncio.Future[None]] = {}  # by the number of a call that waits
        self._running = 0
        self._calls = 0
        self._replied_s: dict[int, float] = {}
        self._wake: asyncio.TimerHandle | None = None
        self._wake_s = math.inf
        self._begun_s = time.perf_counter()

    def open(self) -> None:
        """Time begins: the first process may run now."""
        self._begun_s = time.perf_counter()

    async def complete(self, request: Request, on_delta: Callable[[str], None]) -> Reply:
        """Wait for a slot by the policy, make the call, and say what follows by the plan."""
        pid, came_s = request.process, self._now()
        job = self.jobs[pid]
        turn = 1 + sum(message.role == "assistant" for message in request.messages)
        sent = _plain(request, job.output_tokens)
        if self._policy is None:
            reply = await self._make(sent, on_delta)
        else:
            reply = await self._in_turn(self._policy, sent, job, on_delta)
        assert reply.usage is not None, "llama.cpp always reports what it used"
        gap_s = came_s - self._replied_s.get(pid, came_s)
        self.seen.append(Seen(pid, turn, reply.usage, gap_s, _opening(sent.messages)))
        self._replied_s[pid] = self._now()
        return Reply(reply.text.strip() or "Done.", _next(job, turn), usage=reply.usage)

    async def _make(self, sent: Request, on_delta: Callable[[str], None]) -> Reply:
        """The call itself."""
        if not self._made:
            self._busy_from_s = self._now()
        self._made += 1
        try:
            return await self._engine.complete(sent, on_delta)
        finally:
            self._made -= 1
            if not self._made:
                self.busy_s += self._now() - self._busy_from_s

    async def _in_turn(self, policy: Policy, sent: Request, job: Job, on_delta: Callable[[str], None]) -> Reply:
        self._calls += 1
        step = Step(max(1, sum(len(message.text) for message in sent.messages) // 4), job.output_tokens)
        agent = Agent(sent.process, sent.tenant, 0.0, (step,), job.program)
        call = Call(agent, 0, self._now(), self._calls)
        turn = self._turns[call.number] = asyncio.get_running_loop().create_future()
        policy.add(call, call.ready_s)
        self._fill(policy)
        await turn
        began_s = self._now()
        try:
            return await self._make(sent, on_delta)
        finally:
            self._running -= 1
            policy.ended(Started(call, began_s, 0, self._now()), self._now())
            self._fill(policy)

    def _fill(self, policy: Policy) -> None:
        """Give free slots away, and look again when the policy says so.

        A timer is late by a little; the policy is asked as of the time for which it wanted to be woken.
        """
        now = min(self._now(), self._wake_s)
        self._wake_s = math.inf
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        while self._running < self._engine.slots and (call := policy.choose(now)):
            self._running += 1
            policy.started(Started(call, now, 0, now))
            self._turns.pop(call.number).set_result(None)
        wake_s = policy.wake_s(now)
        if self._turns and now < wake_s < math.inf:
            self._wake_s = wake_s
            self._wake = asyncio.get_running_loop().call_later(wake_s - self._now() + _LATE_S, self._fill, policy)

    def _now(self) -> float:
        return time.perf_counter() - self._begun_s

    def state(self) -> EngineState:
        """The engine's."""
        return self._engine.state()

    async def start(self) -> None:
        """The engine's."""
        await self._engine.start()

    async def forget(self, processes: Collection[int]) -> None:
        """The engine's, if it keeps anything."""
        if isinstance(self._engine, Keeper):
            await self._engine.forget(processes)

    async def close(self) -> None:
        """Close the engine."""
        if self._wake is not None:
            self._wake.cancel()
        await self._engine.close()


def _plain(request: Request, output_tokens: int) -> Request:
    """The call without tools: results of tools are what the user says."""
    messages = tuple(
        Message("user" if message.role == "tool" else message.role, message.text) for message in request.messages
    )
    return msgspec.structs.replace(request, messages=messages, tools=(), output_tokens_max=output_tokens)


def _next(job: Job, turn: int) -> tuple[ToolCall, ...]:
    """A look for messages, which never come, for as long as the plan's tool takes; none after the last turn."""
    if turn >= job.turns:
        return ()
    return (ToolCall("next", "receive", msgspec.json.encode({"timeout_s": job.pause_s}).decode()),)


def _opening(messages: Sequence[Message]) -> float:
    size = sum(len(message.text) for message in messages)
    return sum(len(message.text) for message in messages if message.role == "system") / max(1, size)
