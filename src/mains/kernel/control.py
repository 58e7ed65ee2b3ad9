"""Control: what the daemon, the command line and every server above may ask of a kernel. A Protocol; `desk.Desk` is it.

Accounts and the meter stand in `accountdesk.py`, memory in `memorydesk.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from mains.kernel.ports import Notice, Outcome, ProcessView, Removal, Signal


class Control(Protocol):
    """What may be asked of a kernel from above. Raises UsageError, NotFoundError, ProgramError, LimitError."""

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
    ) -> int:
        """Start a process; its pid. Nothing is started when anything is wrong.

        `inputs`: name -> text as typed, or a value. `key`: the same key with the same program and inputs gives the
        existing process. `budget` is in tokens. `conversation`: an answer does not end it; it waits for the next
        message, and for the first one when no `prompt` is given. A program with a schedule becomes a schedule, which
        starts runs of it, unless `now`: then it runs once, at once. `group` names its process group and its children's.
        `engine` overrules the program's model, for its children too. Relative paths start from `cwd` (empty: this
        process's own folder).
        """
        ...

    async def ps(self, *, every: bool = False) -> list[ProcessView]:
        """The processes that have not ended, or `every` one, by pid."""
        ...

    async def show(self, pid: int) -> dict[str, Any]:
        """Everything about one process: its view, inputs, calls, limits, children, context and result."""
        ...

    async def wait(self, pid: int, timeout_s: float | None = None) -> Outcome:
        """Wait until the process has ended, or stands STOPPED in doubt, by error or by breaker."""
        ...

    async def outcome(self, pid: int) -> Outcome:
        """How the process stands now."""
        ...

    async def send(self, pid: int, text: str, key: str = "", *, rule: bool = False) -> int:
        """Put a message into the mailbox of a process; the message's number. The same key sends once.

        A `rule` is never evicted.
        """
        ...

    async def answer(self, pid: int, text: str, call: str = "") -> None:
        """Answer a question of `ask`, or decide a call in doubt: `retry`, `skip` or `done=JSON`."""
        ...

    async def signal(self, pid: int, signal: Signal) -> list[int]:
        """Send a signal to a process and all below it; the pids that it changed."""
        ...

    async def signal_group(self, group: str, signal: Signal) -> list[int]:
        """Send a signal to every process of a group and all below them; the pids that it changed."""
        ...

    async def exec(
        self, pid: int, program: str | Path, inputs: Mapping[str, Any] | None = None, *, cwd: str = ""
    ) -> bool:
        """Let a process run another program, with its context, from its next turn on; False: it runs just that."""
        ...

    async def restart(self, pid: int) -> bool:
        """Let a process run what stands in its program's file now, from its next turn on; False: it is the same."""
        ...

    async def fork(self, pid: int, at: int | None = None) -> int:
        """A new process with the context of `pid` as of its last whole turn (until event `at`, if given); its pid."""
        ...

    async def remove(self, pids: Sequence[int]) -> Removal:
        """Erase ended processes, each with the ended tree below it; nobody when one of them may not be removed.

        A process may not that lives, or below which one lives, or whose parent lives and may still read its result.
        """
        ...

    async def prune(self, older_than_days: float, *, dry_run: bool = False) -> Removal:
        """Erase every process that ended so long ago, as `remove` would. `dry_run`: only say which those are."""
        ...

    def watch(self, pid: int | None = None) -> AsyncIterator[Notice]:
        """What happens from now on, of one process or of all. A watcher that is too slow is cut off."""
        ...

    async def history(self, pid: int, after_seq: int = 0) -> list[Notice]:
        """The journalled events of one process after `after_seq`, oldest first (at most 10,000)."""
        ...
