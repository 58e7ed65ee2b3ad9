"""A small world to crash: two programs, an engine and two devices whose every call is written to a file at once.

`run(folder, target)` forks a child that runs the scenario and dies (`os._exit`, nothing is flushed or closed) at crash
point `target`; `finish(folder)` boots again and drives the scenario to its end.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from pathlib import Path

import mains
from mains.kernel import audit, reckon
from mains.kernel.desk import Desk
from mains.kernel.ports import Reply, Request, ToolCall, Usage
from mains.testing import CrashProbe, ScriptedEngine

PARENT = """---
name: parent
description: uses every kind of call
tools: [note(program), spawn(child), wait, ping, look, files, sleep, ask, receive, send, exit]
budget: 100000
---
Do everything.
"""
CHILD = """---
name: child
description: says what it was told
inputs: {word: text}
---
Say {{word}}.
"""
KILLED = 77
RESULT = "the end: 2"


def write_programs(folder: Path) -> None:
    """The two programs of the scenario."""
    (folder / "parent.md").write_text(PARENT)
    (folder / "child.md").write_text(CHILD)


def _call(name: str, **arguments: object) -> ToolCall:
    return ToolCall("x", name, json.dumps(arguments))


_TURNS = [
    (
        _call("note", text="kept for ever", scope="program"),
        _call("ping", text="first"),
        _call("look", what="a"),
        _call("look", what="b"),
    ),
    (_call("spawn", program="child", inputs={"word": "hi"}), _call("spawn", program="child", inputs={"word": "ho"})),
    (_call("wait"), _call("files.write", path="note.txt", text="kept")),
    (_call("ask", question="go on?"), _call("send", to=1, text="to myself")),
    (_call("receive"), _call("note", text="refused", scope="program"), _call("note", text="kept here")),
    (_call("sleep", seconds=0.001), _call("ping", text="second"), _call("nonsense")),
    (_call("files.read", path="note.txt"),),
]


class Traces:
    """What happened outside, in files that survive the crash."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def note(self, kind: str, text: str) -> None:
        """Write one line, whole, at once."""
        with (self._folder / kind).open("ab", buffering=0) as file:
            file.write(f"{text}\n".encode())

    def lines(self, kind: str) -> list[str]:
        """The lines so far."""
        path = self._folder / kind
        return path.read_text().splitlines() if path.exists() else []


def open_world(folder: Path, probe: CrashProbe | None = None) -> object:
    """The kernel over this folder's home, with the engine and devices of the scenario."""
    traces = Traces(folder)

    def answer(request: Request) -> Reply:
        traces.note("model", request.key)
        turn = sum(m.role == "assistant" for m in request.messages)
        if request.messages[0].text.startswith("Say"):
            return Reply(request.messages[0].text[4:-1], usage=Usage(10, 0, 2))
        if turn < len(_TURNS):
            return Reply("", _TURNS[turn], Usage(20, 0, 5))
        return Reply(f"the end: {sum(m.name == 'ping' for m in request.messages)}", usage=Usage(30, 0, 5))

    @mains.device
    def ping(text: str, context: mains.CallContext) -> str:
        """An effect that must not happen twice."""
        traces.note("ping", context.key)
        return f"pong {text}"

    @mains.device(read_only=True)
    def look(what: str) -> str:
        """A look at something."""
        traces.note("look", what)
        return f"seen {what}"

    engine = ScriptedEngine.of(answer, slots=4)
    return mains.open(folder / "home", engines=[engine], devices=[ping, look], probe=probe)


async def drive(kernel: Desk, folder: Path) -> mains.Outcome:
    """Start the scenario (once, by its key), play the person, decide doubts by what really happened."""
    pid = await kernel.spawn(folder / "parent.md", key="scenario")
    while True:
        outcome = await kernel.outcome(pid)
        if outcome.state == "EXITED":
            return outcome
        if outcome.reason == "human":
            await kernel.answer(pid, "yes")
        elif outcome.reason.startswith("in doubt"):
            await _decide(kernel, pid, folder)
        await asyncio.sleep(0)


async def _decide(kernel: Desk, pid: int, folder: Path) -> None:
    doubts = [c for c in (await kernel.show(pid))["open_calls"] if c["state"] == "in doubt"]
    Traces(folder).note("doubt", doubts[0]["tool"])
    happened = f"{pid}-{doubts[0]['id']}" in Traces(folder).lines("ping")
    await kernel.answer(pid, 'done="pong, as was seen"' if happened else "retry")


def run(folder: Path, target: int) -> tuple[int, list[str]]:
    """Run the scenario in a child that dies at crash point `target`; its exit code, and the points it passed."""
    points = folder / "points"
    child = os.fork()
    if child == 0:
        code = 1
        try:

            def crash(point: str) -> None:
                os._exit(KILLED)

            probe = CrashProbe(target, crash)

            async def body() -> None:
                async with open_world(folder, probe) as kernel:  # type: ignore[attr-defined]
                    await drive(kernel, folder)

            asyncio.run(body())
            points.write_text("\n".join(probe.passed))
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), points.read_text().split("\n") if points.exists() else []


async def finish(folder: Path) -> mains.Outcome:
    """Boot over what the crash left, drive the scenario to its end, and check everything that must hold."""
    async with open_world(folder) as kernel:  # type: ignore[attr-defined]
        outcome = await drive(kernel, folder)
        journal = kernel._kernel.journal
        assert audit.verify(journal) == []
        assert reckon.verify(journal) == []
        made = [(note.scope, note.text) for note in await kernel.notes.ls(every=True)]
        assert made == [("program", "kept for ever"), ("process", "kept here")], "a note was lost, or made twice"
        asked = {
            f"{pid}-{turn}-{attempt}"
            for pid in (1, 2, 3)
            for turn, attempt in _asked(await kernel.history(pid) if await _exists(kernel, pid) else [])
        }
        assert set(Traces(folder).lines("model")) <= asked, "a model call without an intent"
    repeated = [key for key, count in Counter(Traces(folder).lines("ping")).items() if count > 1]
    assert repeated == [], "a non-idempotent call was made twice"
    return outcome


async def _exists(kernel: Desk, pid: int) -> bool:
    return pid in {p.pid for p in await kernel.ps(every=True)}


def _asked(history: list[mains.kernel.ports.Notice]) -> list[tuple[int, int]]:
    turn, found = 1, []
    for notice in history:
        event = json.loads(notice.text)
        if notice.kind == "asked":
            found.append((turn, event["asking"]["attempt"]))
        turn += notice.kind == "replied"
    return found
