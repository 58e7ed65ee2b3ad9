"""The door of `bench policies`: policies of the simulator before an engine, and what the simulator is told of a run."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from bench import policies
from bench.door import Door, Job, Seen
from bench.fair.engine import Speeds
from bench.fair.policies import POLICIES, barrier
from bench.policies import Measured

from mains.engines.scripted import ScriptedEngine
from mains.kernel.ports import Reply, Request, Usage


class Box:
    """An engine of two slots whose calls end when the test says so."""

    def __init__(self) -> None:
        self.engine = ScriptedEngine.of(self._answer, slots=2)
        self.begun: list[int] = []
        self.running = self.most = 0
        self._ends: dict[int, asyncio.Event] = {}

    async def _answer(self, request: Request) -> Reply:
        self.begun.append(request.process)
        self.running += 1
        self.most = max(self.most, self.running)
        await self._ends.setdefault(request.process, asyncio.Event()).wait()
        self.running -= 1
        return Reply("text", usage=Usage(10, 0, 2))

    def end(self, *processes: int) -> None:
        """Let these calls come to their end."""
        for process in processes:
            self._ends.setdefault(process, asyncio.Event()).set()

    async def until_begun(self, count: int) -> None:
        """Let others work until so many calls have begun."""
        async with asyncio.timeout(10):
            while len(self.begun) < count:  # noqa: ASYNC110 - the engine tells nobody
                await asyncio.sleep(0)


def call(door: Door, process: int, tenant: int) -> asyncio.Task[Reply]:
    door.jobs[process] = Job("long", 1, 4)
    request = Request((), 8, process=process, tenant=tenant)
    return asyncio.create_task(door.complete(request, lambda _: None))


@pytest.mark.parametrize(("policy", "order"), [("FCFS", [1, 2, 3, 4, 5]), ("round robin", [1, 2, 3, 5, 4])])
async def test_the_policy_fills_the_slots(policy: str, order: list[int]) -> None:
    box = Box()
    door = Door(box.engine, 16, POLICIES[policy], 2)
    calls = [call(door, process, tenant) for process, tenant in ((1, 1), (2, 1), (3, 1), (4, 1), (5, 2))]
    await box.until_begun(2)
    for process in order:
        box.end(process)
        await calls[process - 1]
    assert box.begun == order
    assert (door.slots, box.most) == (16, 2)


async def test_a_barrier_opens_again_and_waits_for_the_last_of_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(barrier, "INTERVAL_S", 0.02)
    box = Box()
    door = Door(box.engine, 16, POLICIES["1 s barrier"], 1)
    first = [call(door, process, 1) for process in (1, 2)]
    await box.until_begun(2)
    late = call(door, 3, 1)
    box.end(1)
    await first[0]
    assert box.begun == [1, 2], "a slot is free, but the batch is not done"
    box.end(2, 3)
    async with asyncio.timeout(10):
        await late
    assert box.begun == [1, 2, 3]


async def test_an_open_door_has_the_slots_of_the_engine() -> None:
    box = Box()
    door = Door(box.engine, 16, None, 2)
    assert door.slots == 2
    box.end(7)
    assert (await call(door, 7, 1)).calls == ()


@pytest.mark.parametrize("policy", policies.COMPARED)
async def test_every_process_makes_the_turns_of_its_plan(
    policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(barrier, "INTERVAL_S", 0.02)
    sent: list[Request] = []

    def answer(request: Request) -> Reply:
        sent.append(request)
        return Reply("text", usage=Usage(40, 0, 2))

    mix = policies.QUICK.mix
    measured = await policies.run(tmp_path, ScriptedEngine.of(answer, slots=2), policy, mix)
    made = [max(one.turn for one in measured.seen if one.pid == measured.first_pid + at) for at in range(len(mix))]
    assert made == [job.turns for job in mix]
    assert len(measured.spans_s) == len(mix)
    assert 0 < measured.busy_s < max(measured.spans_s)
    assert not any(request.tools for request in sent)
    assert {message.role for request in sent for message in request.messages} == {"system", "user", "assistant"}
    assert len({request.tenant for request in sent if request.process}) == 3
    agents = policies.agents_of(measured, mix)
    assert [len(agent.steps) for agent in agents] == made
    assert all(means > 0 for means in policies.simulated_s(agents, Speeds(2, 100, 50, 1_000)).values())


def test_the_simulator_gets_the_calls_that_were_made() -> None:
    seen = (Seen(5, 1, Usage(100, 0, 10), 0.0, 0.8), Seen(5, 2, Usage(120, 110, 9), 0.4, 0.7))
    [agent] = policies.agents_of(Measured((1.0,), seen, 5, 1.0), [Job("long", 2, 10)])
    assert [(step.input_tokens, step.output_tokens, step.known) for step in agent.steps] == [
        (100, 10, 0),
        (120, 9, 110),
    ]
    assert [step.pause_s for step in agent.steps] == [0.4, 0.0]
    assert agent.opening == 80
    assert policies.slot_tokens(Measured((1.0,), seen, 5, 1.0)) == 110 + 129


def test_pairs_in_the_same_order_are_counted() -> None:
    assert policies.same_order({"a": 1, "b": 2, "c": 3}, {"a": 10, "b": 20, "c": 30}) == 3
    assert policies.same_order({"a": 1, "b": 2, "c": 3}, {"a": 10, "b": 30, "c": 20}) == 2
    assert policies.same_order({"a": 1, "b": 2, "c": 3}, {"a": 30, "b": 20, "c": 10}) == 0


@pytest.mark.model
@pytest.mark.timeout(300)
def test_a_quick_run_gives_both_orders(embedded_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAINS_BENCH_DIR", str(tmp_path))
    report = policies.main(True)
    values = {figure.what: figure.value for figure in report.figures}
    for policy in policies.COMPARED:
        assert values[f"mean, {policy}, swap"] > 0
        assert values[f"mean, {policy}, swap, simulated"] > 0
    assert 0 <= values["pairs in the same order, swap"] <= 6
    assert values["read"] > 0
    assert not list(tmp_path.iterdir()), "the scratch folder is left behind"
