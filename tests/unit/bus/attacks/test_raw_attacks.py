"""Attacks of a server over standard streams: none hangs us, none gets through, and each answer is one clear line."""

from __future__ import annotations

import asyncio
import re
import sys
import unicodedata
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.bus.attacks.rawattacks import ANSWERS, HELLOS, LISTS, STARTS
from tests.unit.bus.rig import Rig, is_alive

from mains.errors import DeviceError
from mains.kernel.ports import Done, Failed

SERVER = Path(__file__).with_name("raw_server.py")
LINE_MAX = 1_000
MESSAGE_BYTES = 256 * 1024
RESULT_BYTES = 4_096
NEVER = ("never", "stopped", "id-null", "id-float", "id-true", "half-a-line", "http", "xml", "utf16")
"""Attacks that are answers to nobody: only their caller's time ends them."""


def one_line(text: str) -> str:
    """A refusal, or the news of a failure: one line that a person and a model can read."""
    assert 0 < len(text) <= LINE_MAX, text
    assert all(unicodedata.category(each) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for each in text), ascii(text)
    return text


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """A hub with small limits; at the end no process is left."""
    rig = Rig(
        tmp_path,
        device_message_bytes_max=MESSAGE_BYTES,
        result_bytes_max=RESULT_BYTES,
        device_start_s=2.0,
        device_health_s=0.2,
    )
    yield rig
    pids = [state.pid for state in rig.hub.states() if state.pid]
    await rig.close()
    assert not [pid for pid in pids if is_alive(pid)]


async def add(rig: Rig, attack: str, **more: Any) -> None:
    entry = {"command": sys.executable, "args": ["-S", str(SERVER), attack], "protocol": "2025-11-25", **more}
    await rig.hub.add("box", entry)


@pytest.mark.parametrize("attack", ANSWERS)
async def test_no_answer_gets_through(rig: Rig, attack: str) -> None:
    """The call ends in its time, with text in bounds or with a line."""
    await add(rig, attack, call_s=0.4 if attack in NEVER else 8.0)
    async with asyncio.timeout(10):
        try:
            answer = await rig.call("t")
        except DeviceError as error:
            one_line(str(error))
            assert attack in NEVER or "no answer within" not in str(error), "its caller waited for nothing"
        else:
            assert len(answer.text.encode()) <= RESULT_BYTES
            if isinstance(answer, Failed):
                one_line(answer.text)
    assert [state.name for state in rig.hub.states()] == ["box"]
    one_line("-" + rig.hub.state("box").fault)


@pytest.mark.parametrize("attack", LISTS)
async def test_no_list_of_tools_gets_through(rig: Rig, attack: str) -> None:
    """Whatever is listed: what is offered is safe, and what is left out has a line."""
    async with asyncio.timeout(10):
        try:
            await add(rig, attack)
        except DeviceError as error:
            one_line(str(error))
            assert rig.hub.states() == []
            return
    state = rig.hub.state("box")
    for line in state.left_out:
        one_line(line)
    tools = rig.hub.tools()
    assert len(tools) <= rig.settings.device_tools_max
    for offered in tools:
        assert re.fullmatch(r"box\.[A-Za-z0-9_-]{1,64}", offered.name)
        assert len(offered.description) <= 8 * 1024
        assert not {unicodedata.category(each) for each in offered.description} & {"Cf", "Cs", "Zl", "Zp"}
        for key in offered.parameters.get("properties", {}):
            one_line("-" + key)
    if tools:
        assert isinstance(await rig.call(tools[0].name.partition(".")[2]), Done)


@pytest.mark.parametrize("attack", [*STARTS, *HELLOS])
async def test_no_start_gets_through(rig: Rig, attack: str) -> None:
    async with asyncio.timeout(15):
        try:
            await add(rig, attack)
        except DeviceError as error:
            one_line(str(error))
            assert rig.hub.states() == []
        else:
            one_line(rig.hub.state("box").server + "-")
            assert await rig.call("t") == Done("well")
