"""What the embedded engine keeps, with its real child: swapped, restarted, killed, damaged, foreign, removed."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

import mains
from mains.engines.catalogue import EngineSpec
from mains.engines.llama import LlamaEngine
from mains.kernel.ports import Message, Request, Sampling, Usage
from mains.settings import Settings

pytestmark = pytest.mark.model

Make = Callable[[], LlamaEngine]


@pytest.fixture
async def make(tmp_path: Path, embedded_model: Path) -> AsyncIterator[Make]:
    engines: list[LlamaEngine] = []

    def make() -> LlamaEngine:
        spec = EngineSpec(
            name="llama", kind="llama", model="small", path=str(embedded_model), slots=1, context_tokens=2_048
        )
        engines.append(LlamaEngine(spec, tmp_path / "llama.log", Settings(), kv=tmp_path / "kv" / "llama"))
        return engines[-1]

    yield make
    for engine in engines:
        await engine.close()


async def ask(engine: LlamaEngine, process: int, *, tenant: int = 1, more: bool = False) -> tuple[str, Usage]:
    """A call of a process: about 100 tokens of its own; with `more`, a turn later."""
    lines = " ".join(f"Line {at} of file {process} names item {process * 31 + at}." for at in range(6))
    messages = [Message("system", "You are a clerk."), Message("user", lines)]
    if more:
        messages += [Message("assistant", "Yes."), Message("user", "Go on.")]
    request = Request(tuple(messages), 4, sampling=Sampling(temperature=0), process=process, tenant=tenant)
    reply = await engine.complete(request, lambda _: None)
    assert reply.usage is not None
    return reply.text, reply.usage


async def test_it_survives_swaps_restarts_and_kills_and_says_the_same(make: Make) -> None:
    engine = make()
    read = {process: await ask(engine, process, more=True) for process in (1, 2)}
    assert read[2][1].cached_tokens < 30, "only what all have in common"
    swapped = await ask(engine, 1, more=True)
    assert swapped[0] == read[1][0], "KV from a file gives the same answer"
    assert swapped[1].cached_tokens >= swapped[1].input_tokens - 1
    assert engine._server._server is not None
    os.kill(engine._server._server.process.pid, signal.SIGKILL)
    await engine._server._server.gone.wait()
    killed = await ask(engine, 2, more=True)
    assert killed[0] == read[2][0]
    assert killed[1].cached_tokens >= killed[1].input_tokens - 1
    await engine.close()
    restarted = await ask(make(), 1, more=True)
    assert restarted[0] == read[1][0]
    assert restarted[1].cached_tokens >= restarted[1].input_tokens - 1


async def test_what_is_damaged_foreign_or_removed_is_read_again(make: Make, tmp_path: Path) -> None:
    engine = make()
    right = {process: await ask(engine, process) for process in (1, 2)}
    assert (await ask(engine, 1, tenant=2))[1].cached_tokens == 0, "another tenant"
    [path] = (tmp_path / "kv" / "llama").glob("1-2-*.kv")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    text, usage = await ask(engine, 2)
    assert usage.cached_tokens < 30
    assert text == right[2][0]
    await engine.forget([1])
    assert not list((tmp_path / "kv" / "llama").glob("*-1-*"))
    assert (await ask(engine, 1))[1].cached_tokens < 30


async def test_rm_erases_what_the_engine_kept(tmp_path: Path, embedded_model: Path) -> None:
    program = tmp_path / "p.md"
    words = " ".join(f"Rule {at}: be careful with item {at * 7}." for at in range(8))
    program.write_text(f"---\nname: p\ndescription: p\nmax_tokens: 16\n---\n{words}\n")
    home = tmp_path / "home"
    home.mkdir()
    entry = f'[engines.llama]\nkind = "llama"\npath = "{embedded_model}"\nslots = 1\ncontext_tokens = 2048\n'
    (home / "mains.toml").write_text(entry)
    async with mains.open(home) as kernel:
        pids = [await kernel.spawn(program) for _ in range(2)]
        for pid in pids:
            assert (await kernel.wait(pid, timeout_s=60)).exit_code == 0
    assert len(list((home / "kv" / "llama").glob("*.kv"))) == 2
    async with mains.open(home) as kernel:
        await kernel.remove([pids[0]])
        assert [path.name.split("-")[1] for path in (home / "kv" / "llama").glob("*.kv")] == [str(pids[1])]
