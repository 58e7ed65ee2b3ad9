"""Devices that come while a process runs: found and called at once, and in its list from the next eviction on."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from tests.unit.kernel.test_paging import FRONT, check, is_summary, look
from tests.unit.kernel.test_permits import Git, results
from tests.unit.kernel.world import World, call, calls, says

import mains
from mains.kernel import past
from mains.kernel.desk import Desk
from mains.kernel.ports import Offer, Reply, Request, Tool, ToolCall


class Late:
    """Devices that a test adds and takes away while processes run."""

    def __init__(self, description: str = "") -> None:
        self.now: tuple[Tool, ...] = ()
        self.git = Git(attached=False)
        self._description = description

    def come(self) -> None:
        self.now = tuple(
            msgspec.structs.replace(tool, name=f"git.{tool.name}", description=self._description or tool.name)
            for tool in self.git.tools()
        )

    def plug(self, kernel: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let them be among the devices of a kernel."""
        devices = kernel._kernel._acts.devices
        inner_find = devices.find
        monkeypatch.setattr(kernel._kernel.world, "tools", lambda: (*devices.tools(), *self.now))
        monkeypatch.setattr(
            devices, "find", lambda tool: Offer(self.git, tool[4:]) if tool.startswith("git.") else inner_find(tool)
        )


async def test_a_device_that_comes_later_is_found_and_called(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    late = Late()

    def replies(request: Request) -> Any:
        made = len(results(request))
        if made == 1:
            late.come()
        return [
            calls(call("find_tool", query="push something")),
            calls(call("find_tool", query="push something")),
            calls(ToolCall("x", "call_tool", json.dumps({"name": "git.push", "arguments": {"to": "main"}}))),
            calls(ToolCall("x", "call_tool", json.dumps({"name": "git.push", "arguments": {"where": "main"}}))),
            calls(ToolCall("x", "call_tool", json.dumps({"name": "git.nothing", "arguments": {}}))),
            says("done"),
        ][made]

    async with world.open(replies) as kernel:
        late.plug(kernel, monkeypatch)
        pid = await kernel.spawn(world.program("p", "tools: [git.*]"))
        assert (await kernel.wait(pid, 30)).result == "done"
        assert [tool.name for tool in world.asked[0].tools] == ["call_tool", "find_tool"]
        first, second, third, fourth, fifth = results(world.asked[-1])
        assert first == "there is no tool yet besides those that you know"
        assert [tool["name"] for tool in json.loads(second)] == ["git.push", "git.log"]
        assert third == "push done"
        assert fourth.startswith("error: call_tool: the arguments do not fit git.push: ")
        assert fifth == "error: call_tool: there is no tool `git.nothing` for it: find_tool says which there are"
        assert [(tool, arguments) for tool, arguments, _ in late.git.made] == [("push", {"to": "main"})]


class Reader:
    """A model that reads reports, while a device comes after some; then it calls that device's tool, if it may."""

    def __init__(self, late: Late, turns: int = 30) -> None:
        self._late, self._turns, self.made = late, turns, 0

    def __call__(self, request: Request) -> Reply:
        if is_summary(request):
            return says("Much was read.")
        self.made += 1
        if self.made == 3:
            self._late.come()
        if self.made < self._turns:
            return calls(call("look", n=self.made))
        return calls(call("git.log")) if self.made == self._turns and is_offered(request) else says("done")


def is_offered(request: Request) -> bool:
    return "git.log" in {tool.name for tool in request.tools}


async def test_a_device_that_came_joins_the_list_at_an_eviction(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    late = Late()
    async with world.open(Reader(late), devices=[mains.device(look)]) as kernel:
        late.plug(kernel, monkeypatch)
        pid = await kernel.spawn(world.program("p", FRONT.replace("[look]", "[look, git.*]"), "Never say banana."))
        assert (await kernel.wait(pid, 60)).result == "done"
        for request in world.asked:
            check(request)
        assert [made for made, *_ in late.git.made] == ["log"]
        frames = list(past.frames(kernel.journal, pid))
        assert all(each.past.frame_hash() == each.journalled for each in frames)
    offered = [is_offered(request) for request in world.asked]
    first = offered.index(True)
    assert all(offered[first:]) and first > 3, "not when it came, and for good"
    before, after = world.asked[first - 1], world.asked[first]
    assert [each.text for each in after.messages[: len(before.messages)]] != [each.text for each in before.messages]


async def test_one_that_is_too_large_for_the_frame_is_reached_through_call_tool(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = Late("What it does. " * 1_500)
    async with world.open(Reader(late), devices=[mains.device(look)]) as kernel:
        late.plug(kernel, monkeypatch)
        pid = await kernel.spawn(world.program("p", FRONT.replace("[look]", "[look, git.*]"), "Never say banana."))
        outcome = await kernel.wait(pid, 60)
        assert (outcome.state, outcome.result) == ("EXITED", "done")
    assert not any(map(is_offered, world.asked))
    assert {"find_tool", "call_tool", "recall"} <= {tool.name for tool in world.asked[-1].tools}


async def test_what_the_user_says_of_a_tool_holds_as_it_is_now(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    late = Late()
    late.come()

    def replies(request: Request) -> Reply:
        if len(results(request)) == 1:  # the device was added anew meanwhile, by somebody who trusts it less
            late.now = tuple(msgspec.structs.replace(tool, attached=True) for tool in late.now)
        return [calls(call("git.log")), calls(call("git.log")), says("done")][len(results(request))]

    async with world.open(replies) as kernel:
        late.plug(kernel, monkeypatch)
        pid = await kernel.spawn(world.program("p", "tools: [git.*]"))
        await world.until_state(kernel, pid, "WAITING", "human")
        assert len(late.git.made) == 1
