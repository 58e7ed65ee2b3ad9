"""The three doors of a real server of MCP, through a whole kernel: a person, the process's model, its workspace."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.bus.rig import SERVER, Traces
from tests.unit.kernel.world import World, calls, says, turn_of

from mains.errors import NotFoundError
from mains.home import Home
from mains.kernel.desk import Desk
from mains.kernel.ports import Reply, Request, ToolCall, Usage

_ARGUMENTS = {"wait": '{"name": "x"}'}
PROTOCOLS = pytest.mark.parametrize("protocol", ["2025-11-25", "2026-07-28"])


class Serving:
    """A kernel with that server as its device `box`."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)
        self.traces = Traces()

    def configure(self, protocol: str, more: str = "", allow: str = "box.*") -> None:
        """Write mains.toml."""
        home = Home(self.world.folder / "home")
        home.prepare()
        home.config.write_text(
            f'[devices.box]\ncommand = "{sys.executable}"\nargs = ["{SERVER}"]\nprotocol = "{protocol}"\n{more}\n'
            f'[devices.box.env]\nTRACES = "{self.traces.port}"\n[[grants]]\nallow = "{allow}"\n'
        )

    async def spawn(self, kernel: Desk, *tools: str) -> int:
        """A process that calls these tools in one turn, and says what they said."""

        async def listed() -> bool:
            try:
                kernel._kernel.world.tools()
                return any(tool.name == f"box.{tools[0]}" for tool in kernel._kernel.world.tools())
            except NotFoundError:
                return False

        await self.world.until(listed)
        return await kernel.spawn(self.world.program("p", "tools: [box.*]", " ".join(tools)))

    @staticmethod
    def answer(request: Request) -> Reply:
        """The model: it makes the calls that its program names; to a device it says seven."""
        if not request.tools:
            return Reply("seven", usage=Usage(10, 0, 5))
        if turn_of(request):
            return says(" | ".join(message.text for message in request.messages if message.role == "tool"))
        wanted = request.messages[0].text.split()
        return calls(*[ToolCall("x", f"box.{name}", _ARGUMENTS.get(name, "{}")) for name in wanted])


@pytest.fixture
async def serving(tmp_path: Path) -> AsyncIterator[Serving]:
    serving = Serving(tmp_path)
    yield serving
    serving.traces.close()


@PROTOCOLS
async def test_a_person_answers_a_real_server(serving: Serving, protocol: str) -> None:
    serving.configure(protocol)
    async with serving.world.open(serving.answer) as kernel:
        pid = await serving.spawn(kernel, "careful")
        await serving.world.until_state(kernel, pid, "RUNNING", "human")
        told = (await kernel.show(pid))["open_calls"][0]["question"]
        assert told == 'the device box asks. Answer ok=true|false "Ok"; or decline, or cancel. Its words: "really?"'
        await kernel.answer(pid, "yes")
        assert (await kernel.wait(pid, 60)).result == "sure: True"


@PROTOCOLS
async def test_a_person_declines(serving: Serving, protocol: str) -> None:
    serving.configure(protocol)
    async with serving.world.open(serving.answer) as kernel:
        pid = await serving.spawn(kernel, "careful")
        await serving.world.until_state(kernel, pid, "RUNNING", "human")
        await kernel.answer(pid, "decline")
        assert "error" in str((await kernel.wait(pid, 60)).result)


async def test_a_person_opens_a_page(serving: Serving) -> None:
    serving.configure("2025-11-25")
    async with serving.world.open(serving.answer) as kernel:
        pid = await serving.spawn(kernel, "sign_in")
        await serving.world.until_state(kernel, pid, "RUNNING", "human")
        told = (await kernel.show(pid))["open_calls"][0]["question"]
        assert "a page of sign-in.example.org." in told
        assert "https://sign-in.example.org/x?y=1" in told
        await kernel.answer(pid, "accept")
        assert (await kernel.wait(pid, 60)).result == "accept"


@PROTOCOLS
async def test_a_model_answers_a_real_server(serving: Serving, protocol: str) -> None:
    serving.configure(protocol)
    async with serving.world.open(serving.answer, slots=1) as kernel:
        pid = await serving.spawn(kernel, "clever")
        outcome = await kernel.wait(pid, 60)
        assert outcome.result == "scripted guessed seven (endTurn)"
        assert outcome.usage == Usage(30, 0, 15)


@PROTOCOLS
async def test_a_server_learns_the_workspace(serving: Serving, protocol: str) -> None:
    serving.configure(protocol)
    async with serving.world.open(serving.answer) as kernel:
        pid = await serving.spawn(kernel, "where")
        workspace = Path((await kernel.show(pid))["workspace"])
        assert (await kernel.wait(pid, 60)).result == workspace.as_uri()


async def test_the_time_of_one_call_stands_still_too(serving: Serving) -> None:
    serving.configure("2025-11-25", more="call_s = 1")
    async with serving.world.open(serving.answer, device_timeout_s=5.0) as kernel:
        pid = await serving.spawn(kernel, "careful")
        await serving.world.until_state(kernel, pid, "RUNNING", "human")
        slow = await serving.spawn(kernel, "wait")
        assert (await kernel.wait(slow, 60)).state == "STOPPED"  # a second call ran out of its own time meanwhile
        assert (await kernel.outcome(pid)).reason == "human"


async def test_whose_question_it_is_must_be_known(serving: Serving) -> None:
    serving.configure("2025-11-25", more='read_only = ["careful", "clever"]')
    async with serving.world.open(serving.answer) as kernel:
        pid = await serving.spawn(kernel, "careful", "clever")
        result = str((await kernel.wait(pid, 60)).result)
        assert "nobody can tell for which of the calls in flight this is asked" in result
