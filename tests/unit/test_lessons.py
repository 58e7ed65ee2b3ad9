"""Lessons from an "AIOS" that used our nouns (the end of the style guide): each of its faults is a test of ours."""

from __future__ import annotations

import ast
import asyncio
from pathlib import Path

import pytest
from tests.unit.kernel.world import World, by_turn, call, calls, says

import mains
from mains.errors import EngineError, Spent
from mains.kernel.bands import BANDS
from mains.kernel.ports import Reply, Request
from mains.kernel.scheduler import Lane
from mains.kernel.waiting import Waiting

SOURCES = sorted((Path(__file__).parents[2] / "src" / "mains").rglob("*.py"))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_no_module_has_globals_that_change() -> None:
    """Lesson: module globals unpacked from hooks. Nothing here is `global`, and no module makes a lasting part."""
    parts = {"Kernel", "Journal", "Desk", "Home", "Engines", "EndpointEngine", "LlamaEngine", "World"}
    found = []
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        found += [f"{path.name}:{n.lineno} global" for n in ast.walk(tree) if isinstance(n, ast.Global)]
        for statement in tree.body:
            for node in ast.walk(statement) if isinstance(statement, ast.Assign | ast.AnnAssign | ast.Expr) else []:
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in parts:
                    found.append(f"{path.name}:{node.lineno} {node.func.id}()")
    assert found == []


def test_no_error_is_printed_and_turned_into_none() -> None:
    """Lesson: errors printed and turned into `None`. No handler prints, and none is just `pass` or `return None`."""
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ExceptHandler):
                continue
            calls_made = [n.func.id for n in ast.walk(node) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
            empty = len(node.body) == 1 and isinstance(node.body[0], ast.Pass)
            if "print" in calls_made or empty:
                found.append(f"{path.name}:{node.lineno}")
    assert found == []


async def test_a_failing_call_wakes_its_caller(world: World) -> None:
    """Lesson: a failing call that never wakes its caller."""

    def answer(request: Request) -> Reply:
        raise EngineError("gone", retryable=False, spent=Spent.NOTHING)

    async with world.open(answer) as kernel:
        outcome = await kernel.wait(await kernel.spawn(world.program("p")), 10)
    assert (outcome.state, outcome.reason) == ("STOPPED", "error: gone")


async def test_nothing_waits_before_a_batch_of_model_calls(world: World) -> None:
    """Lesson: a 1 s sleep before each batch. With a clock that stands still, twenty processes still end."""
    async with world.open(by_turn(calls(call("receive", timeout_s=0)), says("done"))) as kernel:
        path = world.program("p", "tools: [receive]")
        pids = [await kernel.spawn(path) for _ in range(20)]
        assert [(await kernel.wait(pid, 10)).result for pid in pids] == ["done"] * 20


async def test_every_one_of_several_calls_is_made(world: World) -> None:
    """Lesson: only the first of several tool calls run."""
    made: list[int] = []

    @mains.device
    def note(n: int) -> str:
        """Note."""
        made.append(n)
        return str(n)

    async with world.open(by_turn(calls(*[call("note", n=n) for n in range(7)]), says("ok")), devices=[note]) as kernel:
        await kernel.wait(await kernel.spawn(world.program("p", "tools: [note]")), 10)
    assert made == list(range(7))
    assert [m.text for m in world.asked[1].messages if m.role == "tool"] == [str(n) for n in range(7)]


async def test_ids_are_counted_and_never_used_again(world: World) -> None:
    """Lesson: ids drawn from 0..1000."""
    async with world.open(by_turn(says("ok"))) as kernel:
        path = world.program("p")
        first = await asyncio.gather(*[kernel.spawn(path) for _ in range(40)])
    async with world.open(by_turn(says("ok"))) as kernel:
        second = [await kernel.spawn(path) for _ in range(3)]
    assert [*sorted(first), *second] == list(range(1, 44))


def test_the_scheduler_has_a_test_and_survives_its_first_call() -> None:
    """Lesson: a scheduler that dies at its first call and has no test. (More in test_scheduler.py.)"""
    lane = Lane(2)
    assert lane.choose(0) is None
    calls = [Waiting(pid, 1, band, pid, 100, 10) for pid, band in enumerate(BANDS)]
    for each in calls:
        lane.add(each)
    assert [lane.choose(0), lane.choose(0), lane.choose(0)] == [calls[0], calls[1], None]
    lane.release(0)
    assert lane.choose(0) in calls[2:]
