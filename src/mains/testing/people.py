"""The people of a simulation: they order through the desk, and hold the kernel to what it told them.

Each order is a task of its own, so that orders meet each other and everything else. Whatever an answer says must be
committed when it arrives, and must stand after every crash. A refusal must be one of the errors that are meant for
callers; anything else that comes out is a broken rule.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from mains.errors import ConfigError, DiskFullError, JournalError, LimitError, UsageError
from mains.kernel.billing import Budget
from mains.kernel.care import Care
from mains.kernel.clock import Clock
from mains.kernel.desk import Desk
from mains.kernel.main import Kernel
from mains.kernel.ports import Signal
from mains.kernel.process import Process, Route, State
from mains.program import Bound, Tree, bind, load_tree
from mains.testing.cast import library
from mains.testing.plan import Action
from mains.testing.stage import PowerCut, Stage
from mains.testing.story import Broke, Story
from mains.testing.witness import CLEAN, DURABLE, Witness

HANGS = "no caller is left hanging"
_FOR_CALLERS = (UsageError, LimitError, ConfigError, DiskFullError, JournalError)
_ODD_PIDS = (0, -1, 1 << 40, 1 << 70, 999)
_HALF_WRONG = [Budget("tokens", "total", 1), Budget("tokens", "day", -1)]  # the first could be set, and must not be
_ODD_TEXTS = ("", "half \ud800", "x" * 5_000, "\0", "done=", "retry=1")
_MORE = ("", "", " and more" * 30, " see mem:0 and mem:3", " as mem:2 says" * 20)  # large ones, and what left the frame
_KEYS = 4


class _Desk(Desk):
    """A desk that has read the programs of the cast before: parsing YAML would take a third of each run's time."""

    def _prepare(self, path: Path, inputs: Mapping[str, Any], start: Path) -> tuple[Tree, tuple[Bound, ...]]:
        settings = self._kernel.settings
        tree = library().get(path.name) or load_tree(path, settings)
        return tree, bind(tree.program, inputs, settings, start)


class People:
    """See the module's header. `busy` are the orders that have no answer yet."""

    def __init__(self, folder: Path, witness: Witness, story: Story) -> None:
        self._folder = folder
        self._witness = witness
        self._story = story
        self._orders = 0
        self._ended: dict[int, tuple[int | None, Any]] = {}  # what was told about ends
        self._sent: dict[int, tuple[int, str]] = {}  # message -> to, text
        self._keyed: dict[str, int] = {}
        self._born: set[int] = set()
        self.busy: set[asyncio.Task[None]] = set()

    def desk(self, kernel: Kernel, force: Callable[[str], Route], clock: Clock) -> Desk:
        """The desk of a kernel that has just booted, at which programs are read once for all."""
        kernel.world._programs.update((t.program.source.encode(), t.program) for t in library().values())
        return _Desk(kernel, force, Care(kernel, clock))

    def order(self, desk: Desk, action: Action, stage: Stage) -> None:
        """Give the order that an action stands for."""
        pid = self._choose(action.which)
        self._orders += 1
        self._story.say(f"order {self._orders} ({action.kind}) {self._about(action, pid)}")
        task = stage.create_task(self._ordered(self._orders, action, desk, pid))
        self.busy.add(task)
        task.add_done_callback(self._answered)

    def end(self) -> None:
        """A world has ended: nobody gets an answer from it any more."""
        self.busy.clear()

    def _answered(self, task: asyncio.Task[None]) -> None:
        if task not in self.busy:
            return  # of a world that has ended
        self.busy.discard(task)
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, PowerCut):
            raise Broke(CLEAN, f"{type(error).__name__}: {error}") from error

    def _choose(self, which: int) -> int:
        """A process: most often one that is alive."""
        table = self._witness.table
        alive = [pid for pid, p in table.items() if p.state is not State.EXITED]
        among = alive if alive and which % 8 else list(table)
        return among[which // 8 % len(among)] if among else 1

    async def _ordered(self, number: int, action: Action, desk: Desk, pid: int) -> None:
        try:
            answer = await self._work(desk, action, pid)
        except _FOR_CALLERS as error:
            answer = f"{type(error).__name__}: {str(error)[:100]}"
        self._story.say(f"order {number} ({action.kind}): {answer}")

    def _work(self, desk: Desk, action: Action, pid: int) -> Awaitable[str]:
        match action.kind:
            case "spawn" | "converse" | "paused" | "keyed":
                return self._spawn(desk, action)
            case "send":
                return self._send(desk, pid, action)
            case "signal":
                return self._signal(desk, pid, Signal(action.text))
            case "answer":
                return self._answer(desk, pid, action.text)
            case "group":
                return self._signal(desk, f"group{action.which % 2}", Signal(action.text))
            case "exec":
                return self._exec(desk, pid, action.text)
            case "fork":
                return self._fork(desk, pid)
            case "wait":
                return self._wait(desk, pid)
            case "look":
                return self._look(desk, pid)
            case _:
                return self._odd(desk, action, pid)

    def _about(self, action: Action, pid: int) -> str:
        if action.kind in ("spawn", "converse", "paused", "keyed"):
            return f"{action.text}{f', budget {action.value}' if action.value else ''}"
        return f"process {pid} {action.text}"

    # orders, and what their answers promise

    async def _spawn(self, desk: Desk, action: Action) -> str:
        key = f"key {action.text} {action.which % 2}" if action.kind == "keyed" else ""
        pid = await desk.spawn(
            self._folder / f"{action.text}.md",
            key=key,
            budget=action.value or None,
            paused=action.kind == "paused",
            group=f"group{action.which % 2}" if action.which % 3 == 0 else "",
            conversation=action.kind == "converse",
        )
        if key and self._keyed.setdefault(key, pid) != pid:
            raise Broke(DURABLE, f"the key `{key}` was process {self._keyed[key]}, now it is {pid}")
        self._born.add(pid)
        self._check_born(pid)
        return f"process {pid}"

    def _check_born(self, pid: int) -> None:
        if self._witness.reader.one("process", pid) is None:
            raise Broke(DURABLE, f"a caller was told of process {pid}, which is not there")

    async def _send(self, desk: Desk, pid: int, action: Action) -> str:
        key = f"{action.text}{action.value % _KEYS}" if action.text else ""
        text = f"<{key} to {pid}>" if key else f"<letter {self._orders}>{_MORE[action.value % len(_MORE)]}"
        number = await desk.send(pid, text, key)
        if self._sent.setdefault(number, (pid, text)) != (pid, text):
            raise Broke(DURABLE, f"message {number} is {self._sent[number]}, and {(pid, text)}")
        self._check_sent(number)
        return f"message {number}"

    def _check_sent(self, number: int) -> None:
        pid, text = self._sent[number]
        row = self._witness.reader.one("message", number)
        page = self._witness.reader.one("page", row[1]) if row else None
        if row is None or row[0] != pid or page is None or text not in page[0].decode():
            raise Broke(DURABLE, f"a caller was told of message {number} to process {pid}, which is not there")

    async def _signal(self, desk: Desk, to: int | str, signal: Signal) -> str:
        seq = self._last_seq()
        changed = await (desk.signal(to, signal) if isinstance(to, int) else desk.signal_group(to, signal))
        for each in changed:
            kinds = {kind for (kind,) in self._witness.reader.rows("events_of", each, seq)}
            if not kinds & {"signalled", "exited"}:
                raise Broke(DURABLE, f"a caller was told that {signal} changed process {each}, which is not so")
            if signal is Signal.KILL:
                self._witness.told_dead(each)
        return f"changed {changed}"

    def _last_seq(self) -> int:
        return self._witness.seq

    async def _answer(self, desk: Desk, pid: int, text: str) -> str:
        seq = self._last_seq()
        if text == "retry":
            self._witness.retries[pid] += 1
        await desk.answer(pid, text)
        kinds = {kind for (kind,) in self._witness.reader.rows("events_of", pid, seq)}
        if not kinds & {"answered", "returned"}:
            raise Broke(DURABLE, f"a caller was told that process {pid} has its answer, which is not so")
        return "taken"

    async def _exec(self, desk: Desk, pid: int, program: str) -> str:
        seq = self._last_seq()
        new = await desk.exec(pid, self._folder / f"{program}.md")
        kinds = {kind for (kind,) in self._witness.reader.rows("events_of", pid, seq)}
        if new and "exec" not in kinds:
            raise Broke(DURABLE, f"a caller was told that process {pid} gets another program, which is not so")
        return f"new: {new}"

    async def _fork(self, desk: Desk, pid: int) -> str:
        fork = await desk.fork(pid)
        self._born.add(fork)
        self._check_born(fork)
        return f"process {fork}"

    async def _wait(self, desk: Desk, pid: int) -> str:
        outcome = await desk.wait(pid)
        if outcome.exit_code is None:
            return f"stands {outcome.state}: {outcome.reason[:60]}"
        told = (outcome.exit_code, outcome.result)
        if self._ended.setdefault(pid, told) != told:
            raise Broke(DURABLE, f"process {pid} ended with {self._ended[pid]}, now it is {told}")
        self._check_ended(pid)
        return f"code {outcome.exit_code}, {str(outcome.result)[:40]!r}"

    def _check_ended(self, pid: int) -> None:
        p = self._witness.table.get(pid)
        row = self._witness.reader.one("process", pid)
        if p is None or row is None or row[0] != State.EXITED or p.exit_code != self._ended[pid][0]:
            raise Broke(DURABLE, f"a caller was told that process {pid} ended, and its row says {row and row[:2]}")

    async def _look(self, desk: Desk, pid: int) -> str:
        shown = await desk.show(pid)
        return f"{shown['state']}, {len(shown['messages'])} messages, {len(await desk.ps())} alive"

    async def _odd(self, desk: Desk, action: Action, pid: int) -> str:
        """What no sane caller asks."""
        odd, text = _ODD_PIDS[action.value % len(_ODD_PIDS)], _ODD_TEXTS[action.which % len(_ODD_TEXTS)]
        asks: tuple[Callable[[], Awaitable[Any]], ...] = (
            lambda: desk.signal(odd, Signal.KILL),
            lambda: desk.send(odd, "to nobody"),
            lambda: desk.send(pid, text, "odd" * (action.value % 2)),
            lambda: desk.answer(odd, "yes"),
            lambda: desk.answer(pid, text),
            lambda: desk.fork(odd),
            lambda: desk.show(odd),
            lambda: desk.spawn(self._folder / "nobody.md"),
            lambda: desk.spawn(self._folder / "root.md", {"items": text}, budget=odd),
            lambda: desk.spawn(self._folder / "root.md", {"nothing": "x"}),
            lambda: desk.spawn(self._folder / "keeper.md", {"prompt": text}, key=text[:9], engine="nowhere"),
            lambda: desk.history(odd, odd),
            lambda: desk.wait(odd, 0.001),
            lambda: desk.budget_set("home", _HALF_WRONG),
            lambda: desk.account_set("home/root", unknown_price=text),
        )
        return f"odd: {str(await asks[action.value // 8 % len(asks)]())[:40]!r}"

    # after a boot

    def booted(self) -> None:
        """What was told holds after the crash, too. Raises Broke."""
        for pid in self._born:
            self._check_born(pid)
        for number in self._sent:
            self._check_sent(number)
        for pid in self._ended:
            self._check_ended(pid)

    def help(self, desk: Desk, p: Process, stage: Stage) -> None:
        """At the end: whoever waits for a person gets one."""
        which = 8 * [q.pid for q in self._witness.table.values() if q.state is not State.EXITED].index(p.pid) + 1
        if p.schedule is not None:
            self.order(desk, Action("signal", which, text="KILL"), stage)
        elif p.state is State.WAITING and p.reason == "human":
            self.order(desk, Action("answer", which, text="yes"), stage)
        elif p.state is State.WAITING and p.reason == "message":
            kind = "KILL" if p.conversation else ""
            self.order(desk, Action("signal", which, text=kind) if kind else Action("send", which), stage)
        elif p.state is State.STOPPED and p.reason == "in doubt":
            self.order(desk, Action("answer", which, text="skip"), stage)
        elif p.state is State.STOPPED:
            hopeless = p.fault == "breaker" or p.engine == "nowhere" or "its frame cannot fit" in p.detail
            self.order(desk, Action("signal", which, text="KILL" if hopeless else "CONT"), stage)
