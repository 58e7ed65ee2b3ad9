"""Devices that others wrote, as their documents say to start them: npm's and PyPI's servers, in places of their own.

`make torture` installs them (`tests/devices/package.json`, `servers.lock`) and runs this with `--torture`.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.bus.rig import LIMIT_S, Rig, is_alive, wait_gone
from tests.unit.kernel.world import World, calls, says, turn_of

from mains.bus.importing import opened, read_servers
from mains.bus.mechanism import find_mechanism
from mains.errors import ConfigError, DeviceError
from mains.home import Home
from mains.kernel.ports import Done, Failed, Reply, Request, ToolCall

ROOT = Path(__file__).resolve().parents[2]
NODE = ROOT / ".servers" / "node_modules"
PYTHON = ROOT / ".servers" / "venv" / "bin"

pytestmark = [pytest.mark.timeout(300), pytest.mark.torture]


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """A hub, closed at the end. No process of any device is left then."""
    if shutil.which("npm") is None:
        pytest.skip("NO npm HERE: no device of others was tried")
    if not (NODE / ".bin").is_dir() or not PYTHON.is_dir():
        pytest.fail("the servers are not installed: `make .servers/.made` does it (npm is needed)")
    rig = Rig(tmp_path)
    yield rig
    pids = [state.pid for state in rig.hub.states() if state.pid]
    await rig.close()
    assert not [pid for pid in pids if is_alive(pid)]


def node(package: str, *arguments: str) -> dict[str, Any]:
    """A server from npm, run by the node from npm."""
    main = json.loads((NODE / package / "package.json").read_text())["bin"]
    script = next(iter(main.values())) if isinstance(main, dict) else main
    return {"command": str(NODE / "node" / "bin" / "node"), "args": [str(NODE / package / script), *arguments]}


def make_repository(folder: Path) -> None:
    """A repository of git with one commit."""
    for words in (["init", "-q", str(folder)], ["-C", str(folder), "commit", "-q", "--allow-empty", "-m", "begun"]):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True)


def assert_confined(rig: Rig) -> None:
    """Every device is confined, by what this machine has."""
    assert {state.confined.by for state in rig.hub.states()} == {find_mechanism().kind or "UNCONFINED"}


async def call(rig: Rig, name: str, **arguments: Any) -> str:
    """A call that must succeed, as the kernel makes it; its text."""
    device, tool = rig.hub.find(name)
    answer = await device.call(tool, arguments, rig.context)
    assert isinstance(answer, Done), answer
    return answer.text


async def test_filesystem(rig: Rig, tmp_path: Path) -> None:
    folder = tmp_path / "desk"
    folder.mkdir()
    entry = node("@modelcontextprotocol/server-filesystem", str(folder))
    if find_mechanism().kind:
        with pytest.raises(ConfigError, match="which it may not touch"):
            await rig.hub.add("fs", entry)
    await rig.hub.add("fs", {**entry, "write": [str(folder)]})
    assert_confined(rig)
    await call(rig, "fs.write_file", path=str(folder / "a.txt"), content="hello")
    assert (folder / "a.txt").read_text() == "hello"
    assert "hello" in await call(rig, "fs.read_text_file", path=str(folder / "a.txt"))
    device, tool = rig.hub.find("fs.read_text_file")
    answer = await device.call(tool, {"path": "/etc/passwd"}, rig.context)
    assert isinstance(answer, Failed)
    assert "root:" not in answer.text
    assert not next(t for t in rig.hub.tools() if t.name == "fs.read_text_file").read_only  # it only claims so


async def test_memory_keeps_what_it_was_told_over_a_restart(rig: Rig, tmp_path: Path) -> None:
    kept = tmp_path / "kept"  # the server writes a new file beside the old one
    kept.mkdir()
    env = {"MEMORY_FILE_PATH": str(kept / "memory.json")}
    entry = {**node("@modelcontextprotocol/server-memory"), "env": env, "write": [str(kept)]}
    await rig.hub.add("kept", entry)
    ann = {"name": "Ann", "entityType": "person", "observations": ["likes tea"]}
    await call(rig, "kept.create_entities", entities=[ann])
    await rig.hub.restart("kept")
    assert "likes tea" in await call(rig, "kept.read_graph")


async def test_everything(rig: Rig) -> None:
    await rig.hub.add("all", node("@modelcontextprotocol/server-everything"))
    names = {tool.name for tool in rig.hub.tools()}
    assert "all.echo" in names
    assert "hello" in await call(rig, "all.echo", message="hello")
    assert "image" in await call(rig, "all.get-tiny-image")
    long = next(name for name in names if "long-running" in name)
    await call(rig, long, duration=1, steps=2)
    assert rig.progress
    slow = asyncio.create_task(call(rig, long, duration=60, steps=60))
    quick = asyncio.create_task(call(rig, "all.echo", message="beside"))
    assert "beside" in await asyncio.wait_for(quick, LIMIT_S)
    slow.cancel()
    assert "again" in await call(rig, "all.echo", message="again")
    assert rig.hub.state("all").starts == 1


def its_model(request: Request) -> Reply:
    """A model that makes the calls of its program, one a turn; to a device it says seven."""
    if not request.tools:
        return says("seven")
    words = request.messages[0].text.split()
    if (turn := turn_of(request)) < len(words):
        arguments = {"sampling": {"prompt": "a number?"}, "url": {"url": "https://example.org/sign-in"}}
        given = next((each for part, each in arguments.items() if part in words[turn]), {})
        return calls(ToolCall("x", f"all.{words[turn]}", json.dumps(given)))
    return says("\n".join(message.text for message in request.messages if message.role == "tool"))


async def test_everything_asks_a_person_and_a_model(tmp_path: Path) -> None:
    if shutil.which("npm") is None:
        pytest.skip("NO npm HERE: no device of others was tried")
    world, entry, home = World(tmp_path), node("@modelcontextprotocol/server-everything"), Home(tmp_path / "home")
    home.prepare()
    words = f"command = {json.dumps(entry['command'])}\nargs = {json.dumps(entry['args'])}"
    home.config.write_text(f'[devices.all]\n{words}\n[[grants]]\nallow = "all.*"\n')
    names = ("trigger-elicitation-request", "trigger-url-elicitation", "trigger-sampling-request")
    async with world.open(its_model, slots=1) as kernel:

        async def listed() -> bool:
            return {f"all.{name}" for name in names} <= {tool.name for tool in kernel._kernel.world.tools()}

        await world.until(listed)
        pid = await kernel.spawn(world.program("p", "tools: [all.*]", " ".join(names)))

        async def asked(words: str) -> str:
            """Wait for a question with these words; the whole of it."""

            async def there() -> bool:
                return any(words in each["question"] for each in (await kernel.show(pid))["open_calls"])

            await world.until(there)
            question: str = (await kernel.show(pid))["open_calls"][0]["question"]
            return question

        assert "legacyTitledEnum=pet-1|pet-2" in await asked("name=TEXT")
        await kernel.answer(pid, "name=Ann Lee check=yes integer=7 email=ann@example.org")
        await asked("may it call all.trigger-url-elicitation")  # it says of itself that it reaches out
        await kernel.answer(pid, "once")
        await asked("wants you to open a page of example.org.")
        await kernel.answer(pid, "accept")
        await asked("may it call all.trigger-sampling-request")
        await kernel.answer(pid, "once")
        outcome = await kernel.wait(pid, 60)
        said = str(outcome.result)
        for part in ("Name: Ann Lee", "Agreed to terms: true", "Favorite Integer: 7", "ann@example.org", "seven"):
            assert part in said
        assert outcome.usage.output_tokens == 5 * 5  # four turns and a wish


async def test_everything_over_http(rig: Rig) -> None:
    entry = node("@modelcontextprotocol/server-everything", "streamableHttp")
    port = "38561"
    process = await asyncio.create_subprocess_exec(
        entry["command"], *entry["args"], env={**os.environ, "PORT": port}, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(LIMIT_S):
            while b"listening" not in (line := await process.stderr.readline()):
                assert line, "it ended"
        await rig.hub.add("all", {"url": f"http://127.0.0.1:{port}/mcp"})
        assert "hello" in await call(rig, "all.echo", message="hello")
    finally:
        process.kill()
        await process.wait()
        process._transport.close()  # type: ignore[attr-defined]  # nobody reads the rest


async def test_git_time_and_fetch_as_their_documents_import_them(rig: Rig, tmp_path: Path) -> None:
    work = tmp_path / "work"
    await asyncio.to_thread(make_repository, work)
    servers = {
        "git": {"command": str(PYTHON / "mcp-server-git"), "args": ["--repository", str(work)]},
        "time": {"command": str(PYTHON / "mcp-server-time"), "args": ["--local-timezone=Europe/Berlin"]},
        "fetch": {"command": str(PYTHON / "mcp-server-fetch")},
    }
    for spec in read_servers(json.dumps({"mcpServers": servers}).encode(), "f").specs:
        lent = opened(spec, [], [str(work)])
        await rig.hub.add(spec.name, {"command": lent.command, "args": list(lent.args), "write": list(lent.write)})
    assert_confined(rig)
    assert "begun" in await call(rig, "git.git_log", repo_path=str(work))
    assert "Europe/Berlin" in await call(rig, "time.get_current_time", timezone="Europe/Berlin")
    device, tool = rig.hub.find("fetch.fetch")
    answer = await device.call(tool, {"url": "http://127.0.0.1:9/"}, rig.context)
    assert isinstance(answer, Failed)


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_crash_and_a_hang_in_the_middle(rig: Rig, sign: signal.Signals) -> None:
    await rig.hub.add("all", node("@modelcontextprotocol/server-everything"))
    long = next(tool.name for tool in rig.hub.tools() if "long-running" in tool.name)
    slow = asyncio.create_task(call(rig, long, duration=60, steps=600))
    while not rig.progress:
        await asyncio.wait({slow}, timeout=0.05)
    pid = rig.hub.state("all").pid
    os.kill(pid, sign)
    if sign is signal.SIGKILL:
        with pytest.raises(DeviceError, match="SIGKILL"):
            await slow
    else:
        slow.cancel()
    await wait_gone(pid)
    assert "again" in await call(rig, "all.echo", message="again")
