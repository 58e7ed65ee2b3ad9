"""At work: which processes wait for an engine or a device, and in which task; so that they can be interrupted.

Memory only. A process that was interrupted leaves at once: it makes no call from there on.
"""

from __future__ import annotations

import asyncio
from typing import Any


class AtWork:
    """Who is in an act."""

    def __init__(self) -> None:
        self._tasks: dict[int, asyncio.Task[Any]] = {}
        self._ending: set[int] = set()  # whose model call was interrupted by TERM or INT

    def __contains__(self, pid: int) -> bool:
        return pid in self._tasks

    def begin(self, pid: int) -> asyncio.Task[Any]:
        """This task acts for a process from here on."""
        task = asyncio.current_task()
        assert task is not None, "a turn runs in a task"
        self._tasks[pid] = task
        return task

    def end(self, pid: int, task: asyncio.Task[Any]) -> None:
        """This task waits for no engine or device any more."""
        if self._tasks.get(pid) is task:
            del self._tasks[pid]
        self._ending.discard(pid)

    def interrupt(self, pid: int, *, ending: bool = False) -> None:
        """Cancel the act that a process is in, if it is in one. `ending`: its turn ends in order (`is_ending`)."""
        if task := self._tasks.pop(pid, None):
            if ending:
                self._ending.add(pid)
            task.cancel()

    def is_ending(self, pid: int) -> bool:
        """Whether the process was interrupted so that its turn ends."""
        return pid in self._ending
