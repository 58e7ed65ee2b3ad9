"""Processes that use a device which speaks MCP: frozen tools, a crash in the middle, devices that come and go."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.unit.bus.rig import SERVER
from tests.unit.kernel.world import by_turn, call, calls, says

from mains.bus.spec import DeviceSpec, write_device
from mains.compose import Machine, boot
from mains.home import Home
from mains.kernel.ports import Reply, Request, Signal
from mains.rulebook import add_rule
from mains.testing import ScriptedEngine

PROGRAM = "---\nname: user\ndescription: Uses a box.\ntools: [box.*]\n---\nUse it.\n"


@asynccontextmanager
async def booted(folder: Path, *answers: Reply, **spec: object) -> AsyncIterator[tuple[Machine, list[Request], Path]]:
    """A kernel with the device `box`, an engine that answers turn by turn and is remembered, and a program."""
    home = Home(folder / "home")
    home.prepare()
    if not home.config.exists():
        write_device(home.config, DeviceSpec(name="box", command=sys.executable, args=(str(SERVER),), **spec))  # type: ignore[arg-type]  # the fields of a test
        for name in ("box.*", "other.*"):  # else a person is asked about what is attached
            add_rule(home, "allow", name)
    program = folder / "user.md"
    program.write_text(PROGRAM)
    asked: list[Request] = []

    def answer(request: Request) -> Reply:
        asked.append(request)
        reply = by_turn(*answers)(request)
        assert isinstance(reply, Reply)
        return reply

    with home.lock():
        async with boot(home, engines=[ScriptedEngine.of(answer)]) as machine:
            await machine.hub.list_tools("box")
            yield machine, asked, program


async def test_a_process_uses_a_device(tmp_path: Path) -> None:
    async with booted(tmp_path, calls(call("box.add", a=2, b=3)), says("it is five")) as (machine, asked, program):
        pid = await machine.desk.spawn(program)
        outcome = await machine.desk.wait(pid)
        assert (outcome.state, outcome.result) == ("EXITED", "it is five")
        assert asked[1].messages[-1].text == "5"
        assert "box.add" in {tool.name for tool in asked[0].tools}
        assert (await machine.desk.show(pid))["tools"] == sorted(tool.name for tool in asked[0].tools)


async def test_a_crash_in_the_middle_stops_the_process_in_doubt_until_somebody_decides(tmp_path: Path) -> None:
    replies = calls(call("box.crash", code=9)), says("told")
    async with booted(tmp_path, *replies) as (machine, asked, program):
        pid = await machine.desk.spawn(program)
        outcome = await machine.desk.wait(pid)
        assert (outcome.state, outcome.reason.partition(":")[0]) == ("STOPPED", "in doubt")
        await machine.desk.answer(pid, 'done="it happened"')
        assert (await machine.desk.wait(pid)).result == "told"
        assert "it happened" in asked[-1].messages[-1].text


async def test_the_users_word_lets_such_a_call_be_told_to_the_model(tmp_path: Path) -> None:
    replies = calls(call("box.crash", code=9)), says("seen")
    async with booted(tmp_path, *replies, repeatable=("crash",)) as (machine, asked, program):
        outcome = await machine.desk.wait(await machine.desk.spawn(program))
        assert outcome.result == "seen"
        assert "it exited with code 9" in asked[-1].messages[-1].text


async def test_a_device_that_came_later_changes_no_running_process_and_one_that_went_is_told(tmp_path: Path) -> None:
    replies = calls(call("box.add", a=1, b=1)), says("done")
    async with booted(tmp_path, *replies) as (machine, asked, program):
        pid = await machine.desk.spawn(program, paused=True)
        entry = {"command": sys.executable, "args": [str(SERVER)]}
        await machine.hub.add("other", entry)
        await machine.hub.remove("box")
        await machine.desk.signal(pid, Signal.CONT)
        assert (await machine.desk.wait(pid)).result == "done"
        assert {tool.name.partition(".")[0] for tool in asked[0].tools} == {"box"}
        assert "nothing offers the tool `box.add` any more" in asked[1].messages[-1].text
        program.write_text(PROGRAM.replace("box", "other"))
        asked.clear()
        assert (await machine.desk.wait(await machine.desk.spawn(program))).state == "EXITED"
        assert {tool.name.partition(".")[0] for tool in asked[0].tools} == {"other"}


async def test_the_key_of_a_call_reaches_the_server_and_the_arguments_are_checked_first(tmp_path: Path) -> None:
    replies = calls(call("box.count_meta"), call("box.add", a="x", b=1)), says("done")
    async with booted(tmp_path, *replies) as (machine, asked, program):
        pid = await machine.desk.spawn(program)
        await machine.desk.wait(pid)
        said = [message.text for message in asked[-1].messages if message.role == "tool"]
        assert said[0] == f"{pid}-call_1_1"
        assert '"x" is not of type "integer"' in said[1]


async def test_progress_reaches_who_watches(tmp_path: Path) -> None:
    replies = calls(call("box.steps", n=2)), says("done")
    async with booted(tmp_path, *replies) as (machine, _, program):
        pid = await machine.desk.spawn(program, paused=True)
        watch = machine.desk.watch(pid)
        heard: list[str] = []
        await machine.desk.signal(pid, Signal.CONT)
        async for notice in watch:
            heard += [notice.text] if notice.kind == "progress" else []
            if heard or notice.kind == "exited":
                break
        assert heard == ["box: 1 of 2 step 1"]
