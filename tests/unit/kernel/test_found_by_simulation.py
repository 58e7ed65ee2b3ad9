"""What seeds of the simulation found, each as a test of its own (the rest stands in `test_hostile.py`)."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from tests.unit.kernel.world import World, by_turn, call, calls, says

from mains.errors import JournalError
from mains.kernel.event import Noted
from mains.kernel.journal import Journal
from mains.kernel.ports import Reply, Request, Signal
from mains.settings import Settings
from mains.testing.disk import Disk


@pytest.mark.parametrize("fault", ["io", "full"])
async def test_a_disk_that_fails_again_and_again_leaves_no_caller_waiting(tmp_path: Path, fault: str) -> None:
    """Also when the ROLLBACK fails, too: it was raised where nobody told the callers, and they waited for ever."""
    failed = 0
    for seed in range(8):
        path = tmp_path / f"{fault}{seed}.db"
        disk = Disk(path, random.Random(seed), lambda: None)
        journal = Journal(path, Settings(), lambda: 0, lambda batch: None, connect=disk.connect)
        try:
            disk.arm(fault, after=seed % 4, times=8)
            for _ in range(3):
                commit = journal.commit(lambda tx: tx.append(0, Noted(text="x")), "note")
                await asyncio.wait([commit], timeout=10)
                assert commit.done(), f"seed {seed}: nobody told the caller"
                failed += isinstance(commit.exception(), JournalError)
        finally:
            await journal.close()
    assert failed >= 8


async def test_an_interrupted_turn_and_the_next_have_different_keys(world: World) -> None:
    """An engine that knows idempotency keys would have given the old reply to the new frame."""

    async def answer(request: Request) -> Reply:
        if len(world.asked) == 1:
            await asyncio.Event().wait()
        return says("ok")

    async with world.open(answer) as kernel:
        pid = await kernel.spawn(world.program("p"), {"prompt": "first"}, conversation=True)
        await world.until_state(kernel, pid, "RUNNING")
        await kernel.signal(pid, Signal.INT)
        await world.until_state(kernel, pid, "WAITING", "message")
        await kernel.send(pid, "second")
        await world.until_state(kernel, pid, "WAITING", "message")
    keys = [request.key for request in world.asked]
    assert len(keys) == len(set(keys)) == 2


@pytest.mark.parametrize("turns", range(8))
async def test_term_to_a_kernel_that_halts_gives_an_answer_or_a_clean_error(world: World, turns: int) -> None:
    async with world.open(by_turn(calls(call("sleep", seconds=1_000)))) as kernel:
        pid = await kernel.spawn(world.program("p", "tools: [sleep]"))
        await world.until_state(kernel, pid, "WAITING", "timer")
        order = asyncio.create_task(kernel.signal(pid, Signal.TERM))
        for _ in range(turns):
            await asyncio.sleep(0)
    try:
        assert await order == [pid]
    except JournalError as error:
        assert "halt" in str(error)
    assert kernel.failure is None, "an order that came too late was taken for a broken disk"
