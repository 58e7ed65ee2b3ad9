"""The desk for files: what a person may see and take back of what processes wrote. A part of `desk.Desk`.

The folders and versions are the device's (`bus/devices/files.py`); the kernel knows which folder a process has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from mains.errors import UsageError
from mains.kernel import views
from mains.kernel.main import Kernel
from mains.program import Program


class Workspaces(Protocol):
    """What the device `files` offers to a person. Everything raises UsageError."""

    async def listing(self, workspace: Path, path: str) -> str:
        """A folder of a workspace, as the tool `list` tells it."""
        ...

    async def versions(self, pid: int) -> Sequence[Any]:
        """What a process changed, oldest first, as far as it is kept."""
        ...

    async def undo(self, pid: int, workspace: Path, path: str, *, force: bool) -> Any:
        """Take back the last change of a process that still stands; the change that does it."""
        ...


class FileDesk:
    """What may be asked about the files of a process."""

    _kernel: Kernel
    _files: Workspaces | None

    async def files_listing(self, pid: int, path: str = "") -> str:
        """A folder of the workspace of a process. Raises NotFoundError, UsageError."""
        return await self._workspaces().listing(await self._workspace(pid), path)

    async def files_log(self, pid: int) -> Sequence[Any]:
        """The changes of files that a process made, oldest first, as far as they are kept. Raises NotFoundError."""
        await self._workspace(pid)
        return await self._workspaces().versions(pid)

    async def files_undo(self, pid: int, path: str = "", *, force: bool = False) -> Any:
        """Bring back what stood in a file before the last change that a process made (of `path`, if given).

        `force`: also when somebody else has changed it since. Raises NotFoundError, UsageError.
        """
        return await self._workspaces().undo(pid, await self._workspace(pid), path, force=force)

    def _shared(self, program: Program) -> str:
        """The shared workspace that a program asks for; empty when it asks for none. Raises UsageError: not there."""
        if not program.workspace:
            return ""
        folder = self._kernel.world.workspaces / program.workspace
        if not folder.is_dir():
            text = f"{program.name} asks for the shared workspace `{program.workspace}`, which this home has not"
            raise UsageError(text, hint=f"`mains files share {program.workspace}` makes it, if you trust the program")
        return str(folder)

    def _workspaces(self) -> Workspaces:
        if self._files is None:
            raise UsageError("this kernel has no device `files`")
        return self._files

    async def _workspace(self, pid: int) -> Path:
        process = await asyncio.to_thread(views.present, self._kernel.journal, pid)
        return Path(process.workspace)
