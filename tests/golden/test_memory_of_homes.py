"""Memory of homes that older versions wrote: every view is drawn, and every event may be forked from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.golden.homes.make_home import ENGINE, answer, ping
from tests.golden.test_homes import HOMES, act, open_home, stands, unpack

import mains
from mains.errors import UsageError
from mains.kernel import audit, reckon
from mains.kernel.context import tokens_of
from mains.kernel.ports import Reply, Request
from mains.testing import FakeClock, ScriptedEngine

NOW_MS = 1_800_000_000_000


@pytest.mark.parametrize("name", sorted(path.name.partition(".")[0] for path in HOMES.glob("v*.db.gz")))
async def test_the_memory_of_an_old_home_is_seen_and_forked(name: str, tmp_path: Path) -> None:
    unpack(name, tmp_path)
    async with open_home(tmp_path, FakeClock(NOW_MS)) as kernel:
        views = await kernel.ps(every=True)
        seen = forks = 0
        for view in views:
            assert (await kernel.mem(view.pid)).pages
            assert (await kernel.diff(views[0].pid, view.pid)).shared >= 0
            for notice in await kernel.history(view.pid):
                forks += await kernel.fork(view.pid, notice.seq) > 0
                try:
                    seen += (await kernel.seen(view.pid, notice.seq)).agree is not False
                except UsageError as error:
                    assert "no model call" in str(error)
        assert seen > 0
        assert forks > len(views)
        assert (await kernel.memory()).ratio > 1
        assert audit.verify(kernel.journal) + reckon.verify(kernel.journal) == []


CONTEXT_TOKENS = 3_000
NAMES = sorted(path.name.partition(".")[0] for path in HOMES.glob("v*.db.gz"))


@pytest.mark.parametrize("name", NAMES)
async def test_processes_of_an_old_home_learn_what_their_engine_takes(name: str, tmp_path: Path) -> None:
    """At boot, those that go on; and their forks, also of such that had ended. It is not learnt twice."""
    unpack(name, tmp_path)
    asked, clock = list[Request](), FakeClock()

    async def answered(request: Request) -> Reply:
        asked.append(request)
        reply = answer(request, hang=False)
        return reply if isinstance(reply, Reply) else await reply

    def opened() -> Any:
        engine = ScriptedEngine.of(answered, name=ENGINE, context_tokens=CONTEXT_TOKENS)
        return mains.open(tmp_path / "home", engines=[engine], devices=[ping()], clock=clock)

    async with opened() as kernel:
        alive = [view.pid for view in await kernel.ps()]
        assert alive
        for pid in alive:
            p = kernel.journal.process(pid)
            assert p is not None and CONTEXT_TOKENS in (p.context_tokens, p.next and p.next.route.context_tokens)
        ended = [view.pid for view in await kernel.ps(every=True) if view.pid not in alive]
        forks = [await kernel.fork(pid) for pid in ended]
        assert {(await kernel.mem(pid)).context_tokens for pid in forks} == {CONTEXT_TOKENS}
        for pid, told in json.loads((HOMES / f"{name}.json").read_text()).items():
            if told.get("do") == "answer":  # what is answered is larger than the frame
                await stands(kernel, int(pid), *told["stands"])
                await kernel.answer(int(pid), "yes and " * 4_000)
            else:
                await act(kernel, int(pid), told.get("do", ""), clock)
        for pid in alive:
            await kernel.wait(pid, timeout_s=20)
        assert asked and all(sum(map(tokens_of, request.messages)) < CONTEXT_TOKENS for request in asked)
        assert any(message.kind == "stub" for request in asked for message in request.messages)
        assert audit.verify(kernel.journal) + reckon.verify(kernel.journal) == []
        [last] = kernel.journal.rows("event_last")
    async with opened() as kernel:
        again = [row for row in kernel.journal.rows("event_after", last[0], 1_000) if b'"exec' in bytes(row[-1])]
        assert again == []
