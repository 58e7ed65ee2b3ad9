"""Secrets on the bus: real servers that get them and say all they know come back without one."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.unit.bus.leaky_server import disguises
from tests.unit.bus.rig import LIMIT_S

from mains.bus.hub import Hub, Seams
from mains.bus.secrets import DiscreetDevices, filled
from mains.bus.spec import checked_spec, environment_of, headers_of
from mains.errors import ConfigError, DeviceError
from mains.home import Home
from mains.kernel.devicelist import DeviceList
from mains.kernel.ports import CallContext, Done, Failed, Tool
from mains.redaction import spellings
from mains.settings import Settings
from mains.vault import Vault, set_secret

SERVER = Path(__file__).with_name("leaky_server.py")
TOKEN, KEY, WORD = 'cAn4ry"+/é&<x>~0123456789', 'kEy-0f-headers+/="&<>~', "w0rd.for.arguments%20+/"


class Teller:
    """A device in memory that tells what it was given: in its answer, a refusal, or an error."""

    name = "teller"

    def __init__(self) -> None:
        self.given: list[Any] = []

    def tools(self) -> list[Tool]:
        return [Tool(name, name, {"type": "object"}) for name in ("done", "failed", "broken")]

    async def call(self, tool: str, arguments: Any, context: CallContext) -> Done | Failed:
        self.given.append(arguments)
        text = "\n".join(disguises(str(arguments["text"])).values())
        if tool == "broken":
            raise DeviceError(text, hint=text)
        return Done(text) if tool == "done" else Failed(text)

    async def close(self) -> None:
        return


class Den:
    """A hub with secrets, and the devices as the kernel has them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = Home(folder / "home")
        self.home.prepare()
        self.settings = Settings(device_backoff_ms=20, device_timeout_s=15.0)
        for name, value, whom in (
            ("TOKEN", TOKEN, ["leaky"]),
            ("KEY", KEY, ["far"]),
            ("WORD", WORD, ["leaky.echo", "leaky.fail", "far", "teller"]),
        ):
            set_secret(self.home, self.settings, name, value, whom, "plaintext")
        self.vault = Vault(self.home)
        self.progress: list[str] = []
        self.teller = Teller()
        self.got_path = folder / "heard" / "got"
        self.got_path.parent.mkdir()
        seams = Seams(progress=lambda _, device, text: self.progress.append(text), secrets=self.vault)
        self.hub = Hub(self.home, self.settings, DeviceList([self.teller]), seams)
        self.devices = DiscreetDevices(self.hub, self.vault)
        self.context = CallContext(7, "7-call_1_1", folder, 1)

    async def add(self, **env: str) -> None:
        """The leaky server, as a child."""
        given = {"GOT": str(self.got_path), "TOKEN": "{{secret:TOKEN}}", **env}
        entry = {"command": sys.executable, "args": [str(SERVER)], "write": [str(self.got_path.parent)]}
        await self.hub.add("leaky", {**entry, "env": given})

    async def call(self, tool: str, **arguments: Any) -> Done | Failed:
        """A call as the kernel makes it."""
        device, inner = self.devices.find(tool)
        return await device.call(inner, arguments, self.context)

    def got(self) -> list[tuple[str, str]]:
        """What the server got."""
        return [(what, value) for what, value in map(json.loads, self.got_path.read_text().splitlines())]

    def check_home(self) -> None:
        """No file of the home but that of the secrets holds a value."""
        for path in self.home.path.rglob("*"):
            if path.is_file() and path != self.home.secrets:
                check(path.read_bytes(), str(path))


def check(found: str | bytes, where: str = "") -> None:
    """No value in any spelling."""
    data = found.encode("utf-8", "surrogatepass") if isinstance(found, str) else found
    for value in (TOKEN, KEY, WORD):
        for spelling in spellings(value):
            assert spelling not in data, f"{where}: {spelling!r}"


@pytest.fixture
async def den(tmp_path: Path) -> AsyncIterator[Den]:
    """A den, closed at the end."""
    den = Den(tmp_path)
    yield den
    await den.devices.close()


async def test_a_child_gets_its_secret_and_nothing_of_it_comes_back(den: Den) -> None:
    await den.add()
    shown = await den.call("leaky.show")
    assert isinstance(shown, Done)
    assert "[secret TOKEN]" in shown.text
    assert ("environment", TOKEN) in den.got()
    echoed = await den.call("leaky.echo", text="{{secret:WORD}}")
    assert "[secret WORD]" in echoed.text
    assert ("argument", WORD) in den.got()
    refused = await den.call("leaky.fail", text="a {{ secret:WORD }} b")
    assert isinstance(refused, Failed)
    assert "[secret WORD]" in refused.text
    assert (await den.call("leaky.spill")).text == "spilt"
    with pytest.raises(DeviceError, match=r"it broke: x \[secret TOKEN\]") as caught:
        await den.call("leaky.die", text="x")
    told = [answer.text for answer in (shown, echoed, refused)] + [str(caught.value), *den.progress]
    tools = [f"{tool.name} {tool.description} {tool.parameters}" for tool in den.hub.tools()]
    check("\n".join([*told, *tools, str(den.hub.states())]))
    assert "[secret TOKEN]" in "".join(tools)
    await den.hub.close()
    log = (den.home.logs / "device-leaky.log").read_text()
    assert "[secret WORD]" in log
    assert "before [secret TOKEN] behind" not in log, "it came in two halves with dots between"
    assert log.endswith("it broke: x [secret TOKEN]\n")
    den.check_home()


async def test_a_call_by_a_person_is_filled_and_redacted_too(den: Den) -> None:
    await den.add()
    words: list[str] = []
    answer = await den.hub.call("leaky", "echo", {"text": "{{secret:WORD}}"}, den.context, words.append)
    assert ("argument", WORD) in den.got()
    assert "[secret WORD]" in answer.text
    check(answer.text + "".join(words))


async def test_a_server_elsewhere_gets_its_header_and_nothing_of_it_comes_back(den: Den) -> None:
    async with serving(den.got_path) as port:
        entry = {"url": f"http://127.0.0.1:{port}/mcp", "headers": {"Authorization": "Bearer {{secret:KEY}}"}}
        await den.hub.add("far", entry)
        shown = await den.call("far.show")
        assert ("headers", f"Bearer {KEY}") in den.got()
        assert "[secret KEY]" in shown.text
        echoed = await den.call("far.echo", text="{{secret:WORD}}")
        assert ("argument", WORD) in den.got()
        refused = await den.call("far.fail", text="{{secret:WORD}}")
        check(shown.text + echoed.text + refused.text + "".join(den.progress) + str(den.hub.states()))
    den.check_home()


async def test_a_device_that_does_not_start_says_why_without_its_secret(den: Den) -> None:
    with pytest.raises(DeviceError, match=r"no such token: \[secret TOKEN\]") as caught:
        await den.add(STILLBORN="1")
    check(str(caught.value) + caught.value.hint)
    den.check_home()


@pytest.mark.parametrize("tool", ["done", "failed", "broken"])
async def test_a_device_in_memory_is_no_exception(den: Den, tool: str) -> None:
    try:
        answer = await den.call(f"teller.{tool}", text="{{secret:WORD}}")
    except DeviceError as error:
        text = str(error) + error.hint
    else:
        text = answer.text
    assert den.teller.given == [{"text": WORD}]
    assert "[secret WORD]" in text
    check(text)


@pytest.mark.parametrize(
    ("tool", "text", "why"),
    [
        ("teller.done", "{{secret:TOKEN}}", "the secret `TOKEN` is not for teller.done"),
        ("teller.done", "x {{secret:WORD}} {{secret:KEY}}", "the secret `KEY` is not for teller.done"),
        ("teller.done", "{{secret:NONE}}", "there is no secret `NONE`"),
        ("teller.done", "{{secret:no name at all}}", "there is no secret `no name at all`"),
        ("leaky.spill", "{{secret:WORD}}", "the secret `WORD` is not for leaky.spill"),
    ],
)
async def test_what_is_for_others_is_not_sent(den: Den, tool: str, text: str, why: str) -> None:
    await den.add()
    answer = await den.call(tool, text={"deep": [text]})
    assert isinstance(answer, Failed)
    assert answer.text.startswith(f"not made: {why}")
    assert den.teller.given == []
    assert not den.got_path.exists()


async def test_a_changed_secret_reaches_a_device_at_its_next_start(den: Den) -> None:
    await den.add()
    await den.call("leaky.show")
    set_secret(den.home, den.settings, "TOKEN", "an0ther-t0ken", None, "plaintext")
    assert "[secret TOKEN]" in (await den.call("leaky.show")).text
    check((await den.call("leaky.show")).text)
    await den.hub.restart("leaky")
    await den.call("leaky.show")
    assert [value for what, value in den.got() if what == "environment"][-1] == "an0ther-t0ken"


def test_values_are_text_in_one_pass() -> None:
    class Fixed:
        def value(self, name: str, device: str, tool: str = "") -> str:
            return {"A": "{{secret:B}} ${HOME}", "B": "never"}[name]

        def redact(self, text: str) -> str:
            return text

        def redact_bytes(self, data: bytes) -> bytes:
            return data

        def redact_json(self, value: Any) -> Any:
            return value

    secrets = Fixed()
    given = {"a": ["x {{secret:A}}", 1, None, {"{{secret:A}}": "{{secret: A }}"}]}
    filled_in = "{{secret:B}} ${HOME}"
    assert filled(given, secrets, "d", "t") == {"a": [f"x {filled_in}", 1, None, {"{{secret:A}}": filled_in}]}
    spec = checked_spec("d", {"command": "x", "env": {"V": "{{secret:A}} ${Q}"}}, "here")
    assert environment_of(spec, {"Q": "{{secret:B}}"}, secrets)["V"] == f"{filled_in} {{{{secret:B}}}}"


@pytest.mark.parametrize("value", ["tail ", " zwei", "two\nlines", "esc\x1bape", "né-ascii"])
def test_a_header_that_no_client_would_send_is_refused_without_its_value(value: str) -> None:
    spec = checked_spec("d", {"url": "http://x/", "headers": {"Authorization": "${KEY}"}}, "here")
    with pytest.raises(ConfigError) as caught:
        headers_of(spec, {"KEY": value})
    assert value not in str(caught.value)


@pytest.mark.parametrize(
    "entry",
    [
        {"command": "x", "args": ["--token", "{{secret:TOKEN}}"]},
        {"command": "{{secret:TOKEN}}"},
        {"url": "https://example.org/{{secret:TOKEN}}"},
    ],
)
def test_a_secret_stands_in_no_command_and_in_no_url(entry: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="`env` and in `headers` only"):
        checked_spec("d", entry, "here")


@asynccontextmanager
async def serving(got: Path) -> AsyncIterator[int]:
    """The leaky server, over HTTP; its port."""
    env = {**os.environ, "GOT": str(got), "TOKEN": ""}
    process = await asyncio.create_subprocess_exec(sys.executable, str(SERVER), "http", env=env, stdout=PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(LIMIT_S):
            found = int(await process.stdout.readline())
        yield found
    finally:
        process.kill()
        await process.wait()


def test_the_check_of_these_tests_finds_a_value() -> None:
    for value in (TOKEN, KEY, WORD):
        for text in (value, base64.b64encode(f"x{value}y".encode()).decode(), json.dumps(value)):
            with pytest.raises(AssertionError):
                check(text)
