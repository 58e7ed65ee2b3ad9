"""The desk: what may be asked of a kernel from outside. It implements `control.Control`.

What it may be asked about accounts and about memory stands in `accountdesk.py` and `memorydesk.py`. It reads files and
prepares orders off the event loop, lets the kernel commit them, and reads answers back. Nothing is started, changed or
half done when anything about an order is wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mains.errors import JournalError, UsageError
from mains.kernel import lookback, orders, pages, views
from mains.kernel.accountdesk import AccountDesk
from mains.kernel.again import bind_again
from mains.kernel.birth import Birth
from mains.kernel.care import DAY_MS, Care
from mains.kernel.context import check_text
from mains.kernel.filedesk import FileDesk, Workspaces
from mains.kernel.inquiries import SAMPLING
from mains.kernel.journal import Journal
from mains.kernel.main import Kernel
from mains.kernel.memorydesk import MemoryDesk
from mains.kernel.notebook import Notebook
from mains.kernel.ports import EngineState, Notice, Outcome, ProcessView, Removal, Signal
from mains.kernel.process import GRANT, Call, Inquiry, Process, Route, State
from mains.kernel.segmentdesk import SegmentDesk
from mains.program import BANDS, Bound, Tree, bind, load_tree, with_zone

T = TypeVar("T")
DAYS_MAX = 1_000_000
_BUDGET_MAX = 10**15  # sums of many such budgets still fit into the database's 64 bits


class Desk(AccountDesk, FileDesk, MemoryDesk, SegmentDesk):
    """The outside of a kernel. `force` gives the route to an engine that a caller names; `files` are the workspaces;
    `always(tool, program)` writes the rule that processes of a program may call a tool."""

    def __init__(
        self,
        kernel: Kernel,
        force: Callable[[str], Route],
        care: Care,
        files: Workspaces | None = None,
        always: Callable[[str, str], object] = lambda *_: None,
    ) -> None:
        self._kernel = kernel
        self._force = force
        self._care = care
        self._always = always
        self._files = files
        self.notes = Notebook(kernel, care)

    async def spawn(
        self,
        program: str | Path,
        inputs: Mapping[str, Any] | None = None,
        *,
        key: str = "",
        budget: int | None = None,
        engine: str = "",
        workspace: str = "",
        cwd: str = "",
        paused: bool = False,
        conversation: bool = False,
        now: bool = False,
        group: str = "",
        account: str = "",
        band: str = "",
        segments: Sequence[str] = (),
    ) -> int:
        """Start a process; its pid (see `control.Control`)."""
        named = (("key", key), ("engine", engine), ("group", group), ("account", account))
        for what, text in (*named, *_texts(inputs or {})):
            check_text(what, text)
        if band not in ("", *BANDS):
            raise UsageError(f"a band is one of {', '.join(BANDS)}, not `{band}`")
        if budget is not None and not (type(budget) is int and 0 < budget <= _BUDGET_MAX):
            raise UsageError(f"a budget is a number of tokens above zero, {_BUDGET_MAX:,} at most, not {budget:,}")
        start = Path(cwd) if cwd else Path.cwd()
        tree, bound = await asyncio.to_thread(self._prepare, start / program, inputs or {}, start)
        root = tree.program
        birth = Birth(
            program=root,
            programs=tree.programs,
            inputs=bound,
            route=self._force(engine) if engine else self._kernel.world.route(root.model),
            path=str(tree.path),
            engine_forced=bool(engine),
            workspace=str((start / workspace).resolve()) if workspace else self._shared(root),
            budget=budget,
            account=account,
            band=band,
            segments=tuple(segments),
            group=group,
            key=key,
            paused=paused,
            conversation=conversation,
            schedule=None if now or conversation or root.schedule is None else with_zone(root.schedule),
        )
        world = self._kernel.world
        return await self._kernel.order(lambda tx: orders.spawn(tx, world, birth), "spawn")

    def _prepare(self, path: Path, inputs: Mapping[str, Any], start: Path) -> tuple[Tree, tuple[Bound, ...]]:
        settings = self._kernel.settings
        tree = load_tree(path, settings)
        return tree, bind(tree.program, inputs, settings, start)

    async def exec(
        self, pid: int, program: str | Path, inputs: Mapping[str, Any] | None = None, *, cwd: str = ""
    ) -> bool:
        """Let a process run another program with its context; False when it runs just that already."""
        for what, text in _texts(inputs or {}):
            check_text(what, text)
        start = Path(cwd) if cwd else Path.cwd()
        return await self._exec(pid, *await asyncio.to_thread(self._prepare, start / program, inputs or {}, start))

    async def restart(self, pid: int) -> bool:
        """Let a process run the program that stands in its file now; False when it is the same."""
        journal, settings = self._kernel.journal, self._kernel.settings

        def prepare() -> tuple[Tree, tuple[Bound, ...]]:
            p = views.present(journal, pid)
            if not p.path:
                own = "it became another program by itself, or an older Mains started it"
                whose = f"process {p.parent} spawned it" if p.parent else own
                hint = "restart that one" if p.parent else f"`mains exec {pid} FILE` says which program"
                raise UsageError(f"process {pid} has no file of its own: {whose}", hint=hint)
            tree = load_tree(Path(p.path), settings)
            return tree, bind_again(journal, p, tree.program, settings)

        return await self._exec(pid, *await asyncio.to_thread(prepare))

    async def _exec(self, pid: int, tree: Tree, bound: tuple[Bound, ...]) -> bool:
        world, root = self._kernel.world, tree.program
        birth = Birth(
            program=root,
            programs=tree.programs,
            inputs=bound,
            route=world.route(root.model),
            path=str(tree.path),
            schedule=with_zone(root.schedule) if root.schedule else None,
        )
        return await self._kernel.order(lambda tx: orders.exec_of(tx, world, pid, birth), "exec")

    async def ps(self, *, every: bool = False) -> list[ProcessView]:
        """The processes that have not ended, or every one."""
        query = "process_all" if every else "process_live"
        return [views.view(p) for p in await self._read(self._kernel.journal.processes, query)]

    async def show(self, pid: int) -> dict[str, Any]:
        """Everything about one process."""
        journal = self._kernel.journal

        def read() -> dict[str, Any]:
            with journal.snapshot():  # of one moment: nothing is erased between two looks
                return views.show(journal, views.present(journal, pid))

        return await self._read(read)

    async def outcome(self, pid: int) -> Outcome:
        """How the process stands now."""
        journal = self._kernel.journal

        def read() -> Outcome:
            with journal.snapshot():
                return self._outcome(views.present(journal, pid))

        return await self._read(read)

    def _outcome(self, p: Process, why: str = "") -> Outcome:
        journal = self._kernel.journal
        program = self._kernel.world.program(pages.read(journal, p.program))
        return views.outcome(journal, p, program, why)

    async def _look(self, pid: int) -> Outcome | None:
        """How it stands when it has ended or cannot go on by itself.

        Its own rows are read at once, all as of one moment, for it may be removed meanwhile. Only who waits for
        children, of whom there may be many, is looked at in a thread.
        """
        with self._kernel.journal.snapshot():
            p = views.present(self._kernel.journal, pid)
            if p.state is not State.WAITING:
                return self._rest(p)
        return await self._read(self._rest_of, pid)

    def _rest_of(self, pid: int) -> Outcome | None:
        with self._kernel.journal.snapshot():
            return self._rest(views.present(self._kernel.journal, pid))

    def _rest(self, p: Process) -> Outcome | None:
        why = views.stuck(self._kernel.journal, p)
        return self._outcome(p, why) if p.state is State.EXITED or why else None

    async def wait(self, pid: int, timeout_s: float | None = None) -> Outcome:
        """Wait until the process has ended or cannot go on by itself; on time-out, how it stands."""
        waits = self._kernel.waits
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while True:
                    ticket = waits.ticket(pid)  # before the look, so that no change falls between
                    try:
                        if self._kernel.halted.is_set():
                            raise JournalError("the kernel halts; processes go on at the next boot")
                        if (found := await self._look(pid)) is not None:
                            return found
                        await ticket
                    finally:
                        waits.discard(pid, ticket)
        return await self.outcome(pid)

    # to a process

    async def send(self, pid: int, text: str, key: str = "", *, rule: bool = False) -> int:
        """Put a message into the mailbox of a process; the message's number. A `rule` never leaves its frames."""
        check_text("message", text)
        check_text("key", key)
        world = self._kernel.world
        return await self._kernel.order(
            lambda tx: orders.send(tx, world, pid, "a person", text, key, rule=rule), "send"
        )

    async def answer(self, pid: int, text: str, call: str = "") -> None:
        """Answer a question of `ask`, decide a call in doubt, or say whether a call may be made.

        `call`: the one that the person was asked about (`id` of `open_calls`); another is not answered.
        """
        check_text("answer", text)
        world = self._kernel.world
        if text.strip().lower() == "always":
            call = await self._grant_always(pid, call)
        await self._kernel.order(lambda tx: orders.answer(tx, world, pid, text, call), "answer")

    async def _grant_always(self, pid: int, call_id: str) -> str:
        """Write the rule first: should the kernel end in between, the person is asked once more and nothing else. Gives
        the call that it is about; `call_id` when the answer is for another, or for something else than a grant."""
        p = views.present(self._kernel.journal, pid)
        asked = orders.asked(p)
        if asked is None or call_id not in ("", asked.id):
            return call_id
        match asked:
            case Inquiry(kind="sampling", device=device):
                await asyncio.to_thread(self._always, f"{device}.{SAMPLING}", p.name)
            case Call(on=on, tool=tool) if on == GRANT:
                await asyncio.to_thread(self._always, tool, p.name)
            case _:
                return call_id
        return asked.id

    async def signal(self, pid: int, signal: Signal) -> list[int]:
        """Send a signal to a process and all below it; the pids that it changed."""
        return await self._kernel.signal(pid, signal)

    async def signal_group(self, group: str, signal: Signal) -> list[int]:
        """Send a signal to every process of a group and all below them; the pids that it changed."""
        return await self._kernel.signal(group, signal)

    async def fork(self, pid: int, at: int | None = None) -> int:
        """A new process with the context of `pid` as of its last whole turn, until event `at` if given; its pid."""
        world = self._kernel.world
        past = None if at is None else await self._read(lookback.fork_point, self._kernel.journal, pid, at)
        return await self._kernel.order(lambda tx: orders.fork_of(tx, world, pid, past), "fork")

    async def remove(self, pids: Sequence[int]) -> Removal:
        """Erase ended processes, each with the ended tree below it (see `control.Control`)."""
        return await self._care.remove(pids)

    async def prune(self, older_than_days: float, *, dry_run: bool = False) -> Removal:
        """Erase every process that ended so long ago, with the tree below it (see `control.Control`)."""
        if not 0 <= older_than_days <= DAYS_MAX:
            raise UsageError(f"an age is 0 to {DAYS_MAX:,} days, not {older_than_days}")
        return await self._care.prune(round(older_than_days * DAY_MS), dry_run=dry_run)

    def watch(self, pid: int | None = None) -> AsyncIterator[Notice]:
        """What happens from now on, of one process or of all."""
        return self._kernel.watchers.watch(pid or 0)

    async def history(self, pid: int, after_seq: int = 0) -> list[Notice]:
        """The events of one process after `after_seq`, oldest first."""
        journal = self._kernel.journal
        await self._read(views.present, journal, pid)
        return await self._read(views.history, journal, pid, after_seq)

    async def below(self, pid: int) -> list[ProcessView]:
        """A process and all below it, ended ones too, by pid."""
        journal = self._kernel.journal

        def read() -> list[ProcessView]:
            with journal.snapshot():
                pids = [row[0] for row in journal.rows("process_tree_below", pid)]
                return [views.view(views.present(journal, each)) for each in [pid, *pids]]

        return await self._read(read)

    # what the daemon that serves this desk asks besides

    @property
    def journal(self) -> Journal:
        """The journal, for those who verify and export it."""
        return self._kernel.journal

    @property
    def halted(self) -> asyncio.Event:
        """Set when the kernel has halted; `failure` says why, when it was by itself."""
        return self._kernel.halted

    @property
    def failure(self) -> JournalError | None:
        """Why the kernel halted by itself."""
        return self._kernel.failure

    def busy(self) -> bool:
        """Whether anything is runnable, at work, or will wake by time."""
        return self._kernel.busy()

    def engines(self) -> list[EngineState]:
        """How each engine is."""
        return self._kernel.engines()

    @staticmethod
    async def _read(reader: Callable[..., T], *arguments: Any) -> T:
        """Read off the event loop: a large table must not hold up the turns."""
        return await asyncio.to_thread(reader, *arguments)


def _texts(inputs: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(f"input `{name}`", value) for name, value in inputs.items() if isinstance(value, str)]
