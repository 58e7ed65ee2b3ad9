"""Makes a golden home with the code of its day: every way in which a process can stand.

    PYTHONPATH=<a checkout of that day>/src:. python -m tests.golden.homes.make_home vN FOLDER

FOLDER/home/mains.db is what a `kill -9` left; `vN.db.gz` beside this file is that database, compressed. v1 was made at
commit 71877c9, v2 at f35a96e, v3 at 17eacb8. Do not make them anew: their worth is that old code wrote them. The test
takes the programs' replies and the device from here.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import mains
from mains.kernel.desk import Desk
from mains.kernel.ports import Device, Finish, Reply, Request, ToolCall, Usage
from mains.testing import FakeClock, ScriptedEngine

ENGINE = "golden"
PROGRAMS = {
    "say": ("inputs: {word: text}", "Say {{word}}."),
    "sleeper": ("tools: [sleep]", "Sleep."),
    "reader": ("tools: [receive]", "Read."),
    "asker": ("tools: [ask]", "Ask."),
    "parent": ("tools: [spawn(asker), wait]", "Gather."),
    "team": ("tools: [spawn(hang), spawn(say), wait]\nbudget: 3000", "Lead."),
    "hang": ("max_tokens: 4000", "Hang."),
    "effect": ("tools: [ping]", "Have an effect."),
    "spent": ("budget: 10", "Too dear."),
    "digest": ("inputs: {words: json}\ntools: [spawn_each(say), exit]", "Digest."),
}


def _call(name: str, **arguments: Any) -> ToolCall:
    return ToolCall("x", name, json.dumps(arguments))


TURNS: dict[str, tuple[tuple[ToolCall, ...], ...]] = {
    "Sleep": ((_call("sleep", seconds=3600),),),
    "Read": ((_call("receive"),),),
    "Ask": ((_call("ask", question="May I?"),),),
    "Gather": ((_call("spawn", program="asker"),), (_call("wait"),)),
    "Lead": (
        (_call("spawn", program="hang"), _call("spawn", program="say", inputs={"word": "after"})),
        (_call("wait"),),
    ),
    "Have an effect": ((_call("ping", text="once"),),),
    "Digest": ((_call("spawn_each", program="say", over="words"),),),
}


def answer(request: Request, *, hang: bool) -> Reply | Awaitable[Reply]:
    """The reply of the golden engine: by the program's first words and the number of its turn."""
    prose = request.messages[0].text.strip().removesuffix(".")
    turn = sum(m.role == "assistant" for m in request.messages)
    turns = TURNS.get(prose, ())
    if turn < len(turns):
        return Reply("", turns[turn], Usage(10, 0, 5), Finish.CALLS)
    if prose == "Hang" and hang:
        return _never()
    last = next((m.text for m in reversed(request.messages) if m.role == "tool"), "")
    return Reply(f"{prose}: {last}" if last else prose, usage=Usage(10, 0, 5))


async def _never() -> Reply:
    await asyncio.Event().wait()
    raise AssertionError


def ping(called: asyncio.Event | None = None) -> Device:
    """A device whose effect must not happen twice. Given an event, it sets it and never answers."""

    @mains.device
    async def ping(text: str) -> str:
        """An effect."""
        if called is not None:
            called.set()
            await asyncio.Event().wait()
        return f"pong {text}"

    return ping


def write_programs(folder: Path) -> None:
    """The programs as files."""
    for name, (front, prose) in PROGRAMS.items():
        (folder / f"{name}.md").write_text(f"---\nname: {name}\ndescription: {name}\n{front}\n---\n{prose}\n")


async def _until(kernel: Desk, states: dict[int, tuple[str, str]]) -> None:
    found: dict[int, tuple[str, str]] = {}
    for _ in range(100_000):
        found = {p.pid: (p.state, p.reason) for p in await kernel.ps(every=True)}
        if all(found[pid][0] == state and found[pid][1].startswith(why) for pid, (state, why) in states.items()):
            return
        await asyncio.sleep(0)
    raise AssertionError(found)


async def _first(folder: Path) -> None:
    called = asyncio.Event()
    async with _open(folder, called) as kernel:
        await kernel.spawn(folder / "effect.md")
        await called.wait()
        os._exit(0)


async def _second(folder: Path) -> None:
    called = asyncio.Event()
    async with _open(folder, called) as kernel:
        said = await kernel.spawn(folder / "say.md", {"word": "hello"}, key="once")
        await kernel.wait(said)
        sleeper = await kernel.spawn(folder / "sleeper.md")
        reader = await kernel.spawn(folder / "reader.md")
        asker = await kernel.spawn(folder / "asker.md")
        parent = await kernel.spawn(folder / "parent.md")
        team = await kernel.spawn(folder / "team.md")
        spent = await kernel.spawn(folder / "spent.md")
        paused = await kernel.spawn(folder / "say.md", {"word": "later"}, paused=True, key="later")
        await kernel.send(paused, "read me first", "letter")
        await kernel.send(paused, "and me")
        digest = await kernel.spawn(folder / "digest.md", {"words": ["one", "two"]})
        await kernel.wait(digest)
        fork = await kernel.fork(said)
        await kernel.wait(fork)
        killed = await kernel.spawn(folder / "asker.md")
        states = {sleeper: ("WAITING", "timer"), reader: ("WAITING", "message"), asker: ("WAITING", "human")}
        states |= {parent: ("WAITING", "child"), team: ("WAITING", "quota"), spent: ("STOPPED", "breaker")}
        await _until(kernel, states | {killed: ("WAITING", "human")})
        await kernel.signal(killed, mains.Signal.KILL)
        await kernel.spawn(folder / "effect.md")
        await called.wait()
        for p in await kernel.ps(every=True):
            print(p.pid, p.program, p.state, p.reason, flush=True)
        os._exit(0)


def _open(folder: Path, called: asyncio.Event) -> Any:
    engine = ScriptedEngine.of(lambda request: answer(request, hang=True), name=ENGINE)
    return mains.open(folder / "home", engines=[engine], devices=[ping(called)], clock=FakeClock())


def main(version: str, folder: Path) -> None:
    """Two lives, each ended by a crash; then the compressed database beside this file."""
    folder.mkdir(parents=True)
    write_programs(folder)
    for life in (_first, _second):
        if (child := os.fork()) == 0:
            asyncio.run(life(folder))
        os.waitpid(child, 0)
    sqlite3.connect(folder / "home" / "mains.db").execute("PRAGMA wal_checkpoint(TRUNCATE)").connection.close()
    with (
        (folder / "home" / "mains.db").open("rb") as whole,
        gzip.open(Path(__file__).with_name(f"{version}.db.gz"), "wb") as to,
    ):
        shutil.copyfileobj(whole, to)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
