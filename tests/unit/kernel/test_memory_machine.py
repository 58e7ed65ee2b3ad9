"""Processes with small frames: whatever is said, evicted, forked, replaced, killed or removed, memory is exact.

Conversations of four programs (with tools, with few, with none) whose replies, results and messages are small, large
or larger than a frame; summaries that are good, empty, refused, too long, late or failing; rules; calls that wait, that
look something up and that are malformed; forks, of forks and of earlier events; signals; kernels that are killed in the
middle. When all is quiet, everything in `exactness` must hold.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict, deque
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.unit.kernel.exactness import faults, read_back
from tests.unit.kernel.lives import Lives
from tests.unit.kernel.world import call, calls, says

import mains
from mains.errors import EngineError, MainsError, Spent
from mains.kernel import forks, orders, pages, past
from mains.kernel.desk import Desk
from mains.kernel.event import Sent
from mains.kernel.ports import Finish, Message, Reply, Request, Signal
from mains.kernel.process import State
from mains.kernel.tx import Tx
from mains.testing import ScriptedEngine

SETTINGS = mains.Settings(model_attempts_max=2, refusals_max=2, breaker_failures=1_000, retention_days=36_500)
FRONTS = {
    "whole": "tools: [fetch, look, sleep, read, recall]\nframe_tokens: 4000\nmax_tokens: 200",
    "some": "tools: [fetch, look]\nframe_tokens: 3000\nmax_tokens: 150",
    "bare": "frame_tokens: 1500\nmax_tokens: 100",
    "wide": "tools: [fetch]\nframe_tokens: 12000\nmax_tokens: 500",
}
PIDS = st.integers(0, 20)
SIZES = st.sampled_from([0, 40, 300, 900, 4_000, 15_000])  # bytes
WORDS = st.sampled_from(["word ", "line of it\n", "wörter über "])
SIGNS = st.sampled_from([Signal.STOP, Signal.CONT, Signal.INT, Signal.KILL])
SUMMARIES = st.sampled_from(["good", "long", "empty", "calls", "refused", "busy", "fails", "breaks"])
_CALLS = st.one_of(
    st.builds(
        lambda name, size, word: call(name, size=size, word=word), st.sampled_from(["fetch", "look"]), SIZES, WORDS
    ),
    st.builds(lambda n: call("read", handle=f"mem:{n}"), st.integers(0, 30)),
    st.just(call("recall", query="line of it")),
    st.just(call("sleep", seconds=1)),
    st.just(call("fetch", wrong=True)),
)
MOVES = st.one_of(
    st.lists(_CALLS, min_size=1, max_size=5).map(lambda made: calls(*made)),
    st.sampled_from([10, 10, 300, 2_000, 15_000]).map(lambda size: says("x" * size)),
    st.just(says("")),
    st.sampled_from([EngineError("busy", retryable=True, spent=Spent.NOTHING, throttled=True),
                     EngineError("it broke", retryable=False, spent=Spent.UNKNOWN)]),
)  # fmt: skip
_PATIENCE_S = 120.0  # a disk that others use may take seconds for one commit


def text(size: int, word: str) -> str:
    """A text of about so many bytes."""
    return (word * (size // len(word) + 1))[:size]


class Memory(RuleBasedStateMachine):
    """A real home with an engine that says what the test wants."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Request] = []
        self.before: list[Request] = []  # by kernels that were killed
        self.moves: dict[int, deque[Reply | EngineError]] = defaultdict(deque)
        self.summary = "good"
        self.lives = Lives(1_777_636_800_000, self.configure, self.opened)
        self.run = self.lives.run
        self.lives.boot()
        self.pids = [self.spawn("some")]

    @property
    def desk(self) -> Desk:
        return self.lives.desk

    def configure(self, home: Path) -> None:
        for name, front in FRONTS.items():
            (home / f"{name}.md").write_text(f"---\nname: {name}\ndescription: x\n{front}\n---\nDo {name} things.\n")

    def opened(self, home: Path) -> AbstractAsyncContextManager[Desk]:
        self.asked = asked = []

        def answer(request: Request) -> Reply:
            asked.append(request)
            return self.answer(request)

        def fetch(size: int, word: str) -> str:
            """Give a text."""
            return text(size, word)

        @mains.device(read_only=True)
        def look(size: int, word: str) -> str:
            """Look at a text."""
            return text(size, word)

        return mains.open(
            home, clock=self.lives.clock, engines=[ScriptedEngine.of(answer)],
            devices=[mains.device(fetch), look], settings=SETTINGS,
        )  # fmt: skip

    def answer(self, request: Request) -> Reply:
        if request.messages[-1].text.startswith("Everything above"):
            return self.summed()
        moves = self.moves[request.process]
        move = moves.popleft() if moves else says(f"answer {len(request.messages)}")
        if isinstance(move, EngineError):
            raise move
        return move

    def summed(self) -> Reply:
        match self.summary:
            case "fails":
                raise EngineError("no", retryable=False, spent=Spent.NOTHING)
            case "breaks":
                raise EngineError("no", retryable=True, spent=Spent.UNKNOWN)
            case "busy":
                raise EngineError("busy", retryable=True, spent=Spent.NOTHING, throttled=True)
            case "refused":
                return Reply("I cannot.", finish=Finish.REFUSAL)
            case "calls":
                return calls(call("fetch", size=1, word="x"))
        return says({"good": "so far, so good", "long": "word " * 2_000}.get(self.summary, ""))

    def spawn(self, name: str) -> int:
        return self.run(self.desk.spawn(self.lives.home / f"{name}.md", conversation=True))

    def pid(self, at: int) -> int:
        return self.pids[at % len(self.pids)]

    def tried(self, order: Any) -> None:
        """An order that may be refused in words."""
        with contextlib.suppress(MainsError):
            self.run(order)

    @rule(name=st.sampled_from([*FRONTS]))
    def another(self, name: str) -> None:
        if len(self.pids) < 4:
            self.pids.append(self.spawn(name))

    @rule(
        at=PIDS,
        size=SIZES,
        word=WORDS,
        moves=st.lists(MOVES, max_size=6),
        again=st.lists(st.integers(0, 30), max_size=9),
    )
    def talk(self, at: int, size: int, word: str, moves: list[Reply | EngineError], again: list[int]) -> None:
        """A message, which may name what has left the frame; what is answered; and many small turns before."""
        pid = self.pid(at)
        self.moves[pid].extend(moves)
        named = " and ".join(f"mem:{n}" for n in again)
        self.tried(self.desk.send(pid, f"See {named}: {text(size, word)}"))

    @rule(at=PIDS, many=st.integers(5, 20), size=st.sampled_from([100, 400, 1_200]))
    def work(self, at: int, many: int, size: int) -> None:
        """Many turns in a row."""
        pid = self.pid(at)
        self.moves[pid].extend(calls(call("look", size=size, word="line of it\n")) for _ in range(many))
        self.tried(self.desk.send(pid, "Go on."))

    @rule(at=PIDS, many=st.integers(2, 20), size=st.sampled_from([100, 900, 4_000]))
    def many_messages(self, at: int, many: int, size: int) -> None:
        for n in range(many):
            self.tried(self.desk.send(self.pid(at), f"{n}: {text(size, 'word ')}"))

    @rule(at=PIDS, size=st.sampled_from([20, 200]))
    def state_a_rule(self, at: int, size: int) -> None:
        """A message that is pinned."""
        pid = self.pid(at)

        def op(tx: Tx) -> None:
            p = orders.present(tx, pid)
            if p.state is not State.EXITED:
                page = pages.put_message(
                    tx, Message("user", f"Rule {tx.seq}: {text(size, 'never ')}", kind="rule", name="x")
                )
                number = tx.run("message_insert", pid, "x", page, "").lastrowid
                tx.happen(p, Sent(message=number or 0, page=page, sender="x"))

        self.run(self.desk._kernel.order(op, "send"))

    @rule(how=SUMMARIES)
    def summaries_are(self, how: str) -> None:
        self.summary = how

    @rule(at=PIDS, part=st.floats(0, 1) | st.none())
    def fork(self, at: int, part: float | None) -> None:
        """Of now, or of an earlier event."""
        source, kernel = self.pid(at), self.desk._kernel
        if len(self.pids) >= 6:
            return
        if part is None:
            self.pids.append(self.run(self.desk.fork(source)))
            return
        seqs = [row[0] for row in self.desk.journal.rows("event_of", source, 0, 100_000)]
        seq = seqs[int(part * (len(seqs) - 1))]
        was = past.past(self.desk.journal, source, seq)

        def op(tx: Tx) -> int:
            return forks.fork(tx, kernel.world, orders.present(tx, source), was).pid

        with contextlib.suppress(MainsError):
            self.pids.append(self.run(kernel.order(op, "fork")))

    @rule(at=PIDS, name=st.sampled_from([*FRONTS]))
    def run_another_program(self, at: int, name: str) -> None:
        self.tried(self.desk.exec(self.pid(at), self.lives.home / f"{name}.md"))

    @rule(at=PIDS, sign=SIGNS)
    def signal(self, at: int, sign: Signal) -> None:
        self.tried(self.desk.signal(self.pid(at), sign))

    @rule(at=PIDS)
    def remove(self, at: int) -> None:
        if len(self.pids) > 1:
            with contextlib.suppress(MainsError):
                self.run(self.desk.remove([self.pid(at)]))
                self.pids = [pid for pid in self.pids if self.desk.journal.process(pid)] or [self.spawn("some")]

    @rule(steps=st.integers(0, 60))
    def crash(self, steps: int) -> None:
        """In the middle, or when all is quiet."""
        self.run(self._steps(steps))
        self.before += self.asked[:]
        self.lives.crash()

    async def _steps(self, steps: int) -> None:
        for _ in range(steps):
            await asyncio.sleep(0)

    @invariant()
    def memory_is_exact(self) -> None:
        if self.lives.up:
            self.lives.loop.run_until_complete(self._quiet())
            assert not self.desk._kernel.halted.is_set()
            wrong = faults(self.desk.journal, SETTINGS, [*self.before, *self.asked])
            assert not wrong, wrong

    async def _quiet(self) -> None:
        end_s = time.monotonic() + _PATIENCE_S
        while busy := [p for p in self.desk.journal.processes("process_live") if not _rests(p.state, p.reason)]:
            assert time.monotonic() < end_s, busy
            assert not self.desk._kernel.halted.is_set(), "the kernel has halted"
            self.lives.clock.advance(200)
            await self._steps(5)

    def teardown(self) -> None:
        try:
            if self.lives.up:
                for p in self.desk.journal.processes("process_all"):
                    assert self.run(read_back(self.desk.journal, SETTINGS, p.pid)) == []
                self.lives.halt()
        finally:
            self.lives.close()


def _rests(state: State, reason: str) -> bool:
    return state in (State.STOPPED, State.EXITED) or (state is State.WAITING and reason == "message")


TestMemory = Memory.TestCase
TestMemory.settings = settings(
    max_examples=12, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
)
