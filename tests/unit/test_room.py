"""Room and the bounded log of the embedded engine."""

from __future__ import annotations

import asyncio
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mains.bounded_log import BoundedLog
from mains.engines.room import Room


async def enter(room: Room, tokens: int, entered: list[int], leave: asyncio.Event) -> None:
    async with room.taken(tokens):
        entered.append(tokens)
        await leave.wait()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_comes_first_is_served_first() -> None:
    room, entered, leave = Room(10), list[int](), asyncio.Event()
    calls = [asyncio.create_task(enter(room, tokens, entered, leave)) for tokens in (6, 5, 1)]
    await settle()
    assert entered == [6]  # 1 would fit, but does not pass 5
    calls[1].cancel()
    await settle()
    assert entered == [6, 1]
    leave.set()
    await asyncio.wait(calls)
    async with asyncio.timeout(1), room.taken(1_000):  # more than all is all
        pass


@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=12))
def test_no_room_is_lost_or_given_twice(wanted: list[tuple[int, bool]]) -> None:
    async def play() -> None:
        room, entered, leave = Room(10), list[int](), asyncio.Event()
        calls = []
        for tokens, cancelled in wanted:
            calls.append(asyncio.create_task(enter(room, tokens, entered, leave)))
            if tokens % 2:
                await settle()
            if cancelled:
                calls[-1].cancel()
            assert room._free >= 0
        leave.set()
        await asyncio.gather(*calls, return_exceptions=True)
        assert room._free == 10

    asyncio.run(play())


def test_a_log_is_bounded_and_keeps_its_older_half(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "logs" / "llama.log", 100)
    for number in range(40):
        log.write(f"line {number:04}\n".encode())
    written = [path.read_bytes() for path in (tmp_path / "logs").iterdir()]
    assert len(written) == 2
    assert sum(map(len, written)) <= 100
    assert log.last.endswith("line 0039\n")
    log.begin()
    log.write(b"x" * 200)
    assert log.last == "x" * 200
    assert sum(path.stat().st_size for path in (tmp_path / "logs").iterdir()) <= 100


def test_a_log_that_cannot_be_written_hurts_nobody(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file")
    log = BoundedLog(tmp_path / "logs" / "llama.log", 100)
    log.write(b"lost")
    assert log.last == "lost"
    assert (tmp_path / "logs").read_text() == "a file"
