"""The embedded engine, killed, stopped and out of memory in the middle of calls: its callers get their results."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import mains
from mains.engines import model_file
from mains.kernel import audit, reckon
from mains.kernel.desk import Desk

pytestmark = [
    pytest.mark.crash,
    pytest.mark.model,
    pytest.mark.skipif(sys.platform != "linux", reason="finds the child through /proc"),
]
CONFIG = '[engines.llama]\nkind = "llama"\nidle_timeout_s = 1.0\nslots = 2\n[settings]\nretry_base_ms = 50\n'
PROGRAM = (
    "---\nname: p\ndescription: p\ninputs: {word: text}\nmax_tokens: 120\n---\nTell a long story about {{word}}.\n"
)


@pytest.fixture(scope="module", autouse=True)
def model() -> None:
    """The embedded model, fetched when it is not there."""
    model_file.fetch(lambda done, total: None)


def children() -> list[int]:
    """The engine's child processes of this test."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (OSError, ValueError, IndexError):
                continue
            if parent == os.getpid() and b"mains.engines.llama_child" in words:
                found.append(int(entry.name))
    return found


def kill(pid: int) -> None:
    """As the operating system does when memory is short."""
    os.kill(pid, signal.SIGKILL)


def stop(pid: int) -> None:
    """It hangs: it neither answers nor ends."""
    os.kill(pid, signal.SIGSTOP)


def starve(pid: int) -> None:
    """No byte of memory more than it has."""
    size = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.prlimit(pid, resource.RLIMIT_AS, (size, size))


async def _streams(kernel: Desk) -> None:
    """Return once a model streams."""
    async for notice in kernel.watch():
        if notice.kind == "delta":
            return


@pytest.mark.parametrize("harm", [kill, stop, starve])
async def test_callers_of_a_harmed_engine_get_their_results(tmp_path: Path, harm: Callable[[int], None]) -> None:
    (tmp_path / "mains.toml").write_text(CONFIG)
    (tmp_path / "p.md").write_text(PROGRAM)
    async with mains.open(tmp_path) as kernel:
        streams = asyncio.create_task(_streams(kernel))
        await asyncio.sleep(0)
        pids = [await kernel.spawn(tmp_path / "p.md", {"word": word}) for word in ("cats", "dogs", "bees", "ants")]
        await asyncio.wait_for(streams, 60)
        [child] = children()
        harm(child)
        outcomes = [await kernel.wait(pid, 60) for pid in pids]
        assert [outcome.exit_code for outcome in outcomes] == [0, 0, 0, 0], outcomes
        assert all(outcome.result for outcome in outcomes)
        assert len(children()) == 1
        if harm is not starve:
            assert children() != [child], "the harmed child still serves"
        assert audit.verify(kernel.journal) == []
        assert reckon.verify(kernel.journal) == []
    assert children() == []


async def test_a_missing_model_stops_its_callers_and_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "mains.toml").write_text('[engines.llama]\nkind = "llama"\npath = "/no/such/model.gguf"\n')
    (tmp_path / "p.md").write_text(PROGRAM)
    async with mains.open(tmp_path) as kernel:
        outcome = await kernel.wait(await kernel.spawn(tmp_path / "p.md", {"word": "cats"}), 60)
    assert outcome.state == "STOPPED"
    assert "/no/such/model.gguf" in outcome.reason


async def test_a_prompt_that_does_not_fit_says_so_with_numbers(tmp_path: Path) -> None:
    (tmp_path / "p.md").write_text(PROGRAM.replace("max_tokens: 120", "max_tokens: 120\npin: [word]"))
    async with mains.open(tmp_path) as kernel:
        outcome = await kernel.wait(await kernel.spawn(tmp_path / "p.md", {"word": "cats and dogs " * 6_000}), 60)
    assert outcome.state == "STOPPED"
    assert "its frame cannot fit" in outcome.reason and "8,072 fit" in outcome.reason, outcome.reason
