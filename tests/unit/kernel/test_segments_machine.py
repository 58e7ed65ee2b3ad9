"""Shared segments under whatever happens: segments are made and removed, persons and processes append, processes map
them, turn, fork, take another program, have pages evicted, are killed, and kernels are killed and boot again.

Always: the pages of a segment only grow; what a process has in its context of a segment is a prefix of its one order,
without gaps and nothing twice, up to its cursor; each frame that a model was shown is made again from the events alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.unit.kernel.lives import Lives

import mains
from mains.errors import LimitError, NotFoundError, UsageError
from mains.kernel import audit, pages, past, reckon, retention
from mains.kernel.desk import Desk
from mains.kernel.ports import Finish, Message, Reply, Request, Signal, ToolCall, Usage
from mains.testing import ScriptedEngine

NAMES = ("log", "brief", "map")
PROGRAMS = {"writer": "[log]", "reader": "[log, brief]", "both": "[map, log]"}
FRONT = "tools: ['append(log)', read]\nframe_tokens: 3000\nmax_tokens: 64\n"
AT = st.integers(0, 7)
_ALIVE_MAX = 8
_decode = msgspec.json.Decoder(Message).decode


def _prepare(home: Path) -> None:
    for name, segments in PROGRAMS.items():
        text = f"---\nname: {name}\ndescription: {name}\n{FRONT}segments: {segments}\n---\nBe {name}.\n"
        (home / f"{name}.md").write_text(text)


def answer(request: Request) -> Reply:
    """It appends what it is told to, and else says yes."""
    last = request.messages[-1]
    if last.role == "user" and last.text.startswith("append "):
        made = ToolCall("x", "append", msgspec.json.encode({"segment": "log", "text": last.text[7:]}).decode())
        return Reply("", (made,), Usage(10, 0, 5), Finish.CALLS)
    return Reply("yes", usage=Usage(10, 0, 5))


class Shared(RuleBasedStateMachine):
    """A real home whose processes talk with a person."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[int, list[str]] = {}  # the pages of each segment, when last seen
        self.written = 0
        self.lives = Lives(1_777_636_800_000, _prepare, self.opened)
        self.run = self.lives.run
        self.lives.boot()
        self.make("log", 1, append_only=True)
        for name in NAMES[1:]:
            self.make(name, 3, append_only=name == "map")
        self.spawn("reader", own=True)

    @property
    def desk(self) -> Desk:
        return self.lives.desk

    def opened(self, home: Path) -> AbstractAsyncContextManager[Desk]:
        return mains.open(
            home, clock=self.lives.clock, engines=[ScriptedEngine.of(answer, slots=100)],
            settings=mains.Settings(segment_page_bytes_max=900, segment_turn_pages_max=3, retention_days=36_500),
        )  # fmt: skip

    def text(self, many: int) -> str:
        self.written += 1
        return "".join(f"{self.written}: line {line} of what everybody is to know\n" for line in range(20 * many))

    # what happens

    @rule(name=st.sampled_from(NAMES), many=st.integers(1, 3), append_only=st.booleans())
    def make(self, name: str, many: int, append_only: bool) -> None:
        with contextlib.suppress(UsageError):
            self.run(self.desk.segment_make(name, self.text(many), append_only=append_only or name == "log"))

    @rule(name=st.sampled_from(NAMES), many=st.integers(1, 2))
    def append(self, name: str, many: int) -> None:
        with contextlib.suppress(UsageError, NotFoundError):
            self.run(self.desk.segment_append(name, self.text(many)))

    @rule(name=st.sampled_from(NAMES))
    def remove(self, name: str) -> None:
        try:
            pids = self.run(self.desk.segment(name)).mapped_by
        except NotFoundError:
            return
        try:
            self.run(self.desk.segment_remove(name))
            assert not pids
        except UsageError as error:
            assert pids and f"process {pids[0]}" in str(error)

    @rule(program=st.sampled_from(sorted(PROGRAMS)), own=st.booleans())
    def spawn(self, program: str, own: bool) -> None:
        if len(self.run(self.desk.ps())) >= _ALIVE_MAX:
            return
        path = self.lives.home / f"{program}.md"
        with contextlib.suppress(NotFoundError):
            self.run(self.desk.spawn(path, conversation=True, segments=["map"] if own else []))

    @rule(at=AT, times=st.integers(1, 9), appends=st.booleans(), rests=st.booleans())
    def turns(self, at: int, times: int, appends: bool, rests: bool) -> None:
        """Somebody talks with a process; when it does not rest after it, what comes next finds it at work."""
        for pid in self._alive(at):
            for time in range(times):
                said = f"append {self.text(1)[:850]}" if appends else "hello " + "and more " * 60
                self.run(self.desk.send(pid, said))
                if rests or time < times - 1:
                    self.run(self._rest())

    @rule()
    def a_turn_of_everybody(self) -> None:
        for view in self.run(self.desk.ps()):
            self.run(self.desk.send(view.pid, "hello"))
        self.run(self._rest())

    @rule(at=AT)
    def fork(self, at: int) -> None:
        if len(self.run(self.desk.ps())) < _ALIVE_MAX:
            for pid in self._alive(at):
                with contextlib.suppress(UsageError, LimitError):
                    self.run(self.desk.fork(pid))

    @rule(at=AT, program=st.sampled_from(sorted(PROGRAMS)))
    def exec(self, at: int, program: str) -> None:
        for pid in self._alive(at):
            with contextlib.suppress(NotFoundError):
                self.run(self.desk.exec(pid, self.lives.home / f"{program}.md"))

    @rule(at=AT)
    def kill(self, at: int) -> None:
        for pid in self._alive(at):
            self.run(self.desk.signal(pid, Signal.KILL))

    @rule(steps=st.integers(0, 6))
    def crash(self, steps: int) -> None:
        for _ in range(steps):
            self.run(asyncio.sleep(0))
        self.lives.crash()

    # what holds

    @invariant()
    def everybody_has_a_prefix(self) -> None:
        with self.desk.journal.snapshot():
            pages_of = self._segments()
            for number, before in self.known.items():
                assert pages_of.get(number, before)[: len(before)] == before, "a page changed or went"
            self.known = pages_of
            for p in self.desk.journal.processes("process_all"):
                history = pages.history(self.desk.journal.rows, p)
                read = [place.page for place in history if _decode(place.data).kind == "segment"]
                for each in p.segments:
                    if order := pages_of.get(each.segment):  # each of its pages is of no other segment
                        own = set(order)
                        assert [page for page in read if page in own] == order[: each.until], f"process {p.pid}"

    def teardown(self) -> None:
        try:
            self.run(self._rest())
            self.everybody_has_a_prefix()
            journal = self.desk.journal
            for p in journal.processes("process_all"):
                for each in past.frames(journal, p.pid):
                    assert each.past.frame_hash() == each.journalled
            assert audit.verify(journal) == []
            assert reckon.verify(journal) == []
            self.run(self.desk._care.erase())
            assert retention.orphaned(journal) == []
        finally:
            self.lives.halt()
            self.lives.close()

    # how it is looked at

    def _segments(self) -> dict[int, list[str]]:
        found: dict[int, list[str]] = {row[0]: [] for row in self.desk.journal.rows("segment_all")}
        for number, at, page, _ in self.desk.journal.rows("segment_page_scan"):
            assert at == len(found[number])
            found[number].append(page)
        return found

    def _alive(self, at: int) -> Iterator[int]:
        """One of those who live, or nobody."""
        alive = self.run(self.desk.ps())
        if alive:
            yield alive[at % len(alive)].pid

    async def _rest(self) -> None:
        """Until everybody waits for somebody to talk with."""
        while True:
            states = {view.state for view in await self.desk.ps()}
            assert "STOPPED" not in states
            if states <= {"WAITING"}:
                return
            await asyncio.sleep(0)


TestShared = Shared.TestCase
TestShared.settings = settings(
    max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
