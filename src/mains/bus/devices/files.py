"""The device `files`: the process's workspace folder, and nothing outside it.

    beneath.py    how a path is opened: name by name, no link followed
    looking.py    list, read, find, search
    changes.py    write, append, edit, remove: one at a time in a workspace, and never twice
    quota.py      how much there may be
    versions.py   what was there before, for `mains files undo`

Paths are relative to the workspace. A file is written beside its place and moved there, so that a crash leaves the
old or the new one. Every tool is safe to repeat: the looks change nothing, and a change that is asked for again under
the key of a call that was made before a crash is not made again.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from mains.bus.devices.beneath import Root
from mains.bus.devices.changes import Caller, Changes
from mains.bus.devices.looking import Looks, wanted_pattern, wanted_text
from mains.bus.devices.quota import Quota
from mains.bus.devices.refused import Refused, shown
from mains.bus.devices.versions import Version, Versions
from mains.errors import ConfigError, NotFoundError, UsageError
from mains.home import Home
from mains.kernel.ports import CallContext, Done, Failed, Schema, Tool
from mains.settings import Settings

T = TypeVar("T")
_TEXT: Schema = {"type": "string"}
_YES: Schema = {"type": "boolean"}
_FROM_ONE: Schema = {"type": "integer", "minimum": 1}


def _object(*required: str, **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


_LOOKS = (
    Tool(
        "list",
        "List a folder of the workspace (without `path`: the workspace itself).",
        _object(path=_TEXT),
        read_only=True,
        idempotent=True,
    ),
    Tool(
        "read",
        "Read a text file of the workspace, whole; or `lines` lines of it from `line` on (the first is 1).",
        _object("path", path=_TEXT, line=_FROM_ONE, lines=_FROM_ONE),
        read_only=True,
        idempotent=True,
    ),
    Tool(
        "find",
        "Find files by a pattern such as *.md, src/**/*.py or *.{js,ts}, below `path` or in the whole workspace.",
        _object("pattern", pattern=_TEXT, path=_TEXT),
        read_only=True,
        idempotent=True,
    ),
    Tool(
        "search",
        "Search files for the lines with a `text`, or those that match a `regex` (without look-around), below `path`; "
        "`files` is a pattern of names.",
        _object(text=_TEXT, regex=_TEXT, path=_TEXT, files=_TEXT, ignore_case=_YES),
        read_only=True,
        idempotent=True,
    ),
)
_CHANGES = (
    Tool(
        "write",
        "Write a text file, whole; folders are made as needed.",
        _object("path", "text", path=_TEXT, text=_TEXT),
        idempotent=True,
    ),
    Tool("append", "Append text to a file.", _object("path", "text", path=_TEXT, text=_TEXT), idempotent=True),
    Tool(
        "edit",
        "Replace `old`, a text that stands exactly once in a file, by `new` (`all`: wherever it stands).",
        _object("path", "old", "new", path=_TEXT, old=_TEXT, new=_TEXT, all=_YES),
        idempotent=True,
    ),
    Tool("remove", "Remove a file.", _object("path", path=_TEXT), idempotent=True),
)


class Files:
    """The device. It keeps nothing open between calls.

    `home`: where versions are kept and workspaces are counted; its own files are never entered. Without one (in tests)
    there are no versions, and a change that is made again after a crash is done again.
    """

    name = "files"

    def __init__(
        self,
        home: Home | None = None,
        settings: Settings | None = None,
        *,
        hard_links: bool = False,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._settings = settings or Settings()
        self._home = home
        self._hard_links = hard_links
        self._now_ms = now_ms
        self._versions = Versions(home.versions, self._settings) if home else None
        self._quota = Quota(self._settings, home.workspaces if home else None)
        self._locks: WeakValueDictionary[Path, asyncio.Lock] = WeakValueDictionary()
        self._threads: ThreadPoolExecutor | None = None  # its own: a slow disk takes none from anybody else

    def tools(self) -> Sequence[Tool]:
        """list, read, find, search, write, append, edit, remove."""
        return (*_LOOKS, *_CHANGES)

    async def call(self, tool: str, arguments: Mapping[str, Any], context: CallContext) -> Done | Failed:
        """Do it in a thread: a slow disk holds up only its caller."""
        try:
            if tool in _LOOK:
                return Done(await self._look(context.workspace, lambda looks: _LOOK[tool](looks, arguments)))
            caller = Caller(context.pid, context.key, context.attempt > 1, self._now_ms())
            return Done(await self._alone(context.workspace, caller, lambda changes: _CHANGE[tool](changes, arguments)))
        except Refused as refused:
            return Failed(str(refused))
        except OSError as error:
            return Failed(f"{shown(str(arguments.get('path', '.')))}: {error.strerror or error}")

    async def close(self) -> None:
        """Start nothing more; what a thread is at comes to its end."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None

    # what a person may ask (`mains files`)

    async def listing(self, workspace: Path, path: str) -> str:
        """A folder of a workspace, as the tool `list` tells it. Raises UsageError."""
        return await self._told(self._look(workspace, lambda looks: looks.list(path)))

    async def versions(self, pid: int) -> list[Version]:
        """What a process changed, oldest first, as far as it is kept."""
        kept = self._versions
        return [] if kept is None else await self._in_thread(lambda: kept.of(pid))

    async def undo(self, pid: int, workspace: Path, path: str, *, force: bool) -> Version:
        """Take back the last change of a process (of one path, if given) that still stands; the change that does it.

        Raises NotFoundError, UsageError.
        """
        kept = self._versions
        if kept is None:
            raise UsageError("no versions are kept here")

        def undo(changes: Changes) -> Version:
            return changes.undo(_standing(kept.of(pid), pid, path), force=force)

        return await self._told(self._alone(workspace, Caller(pid, "", again=False, at_ms=self._now_ms()), undo))

    async def forget(self, pids: Collection[int]) -> None:
        """Keep no versions of processes that are removed. Raises UsageError when a file cannot be removed."""
        kept = self._versions
        if kept is not None:
            await self._told(self._in_thread(lambda: kept.forget(pids)))

    # how

    def _root(self, workspace: Path) -> Root:
        """The workspace, looked at by a thread. Raises Refused for Mains' own home."""
        if self._home is None:
            return Root(workspace, hard_links=self._hard_links)
        home, inside = self._home.path.resolve(), workspace.resolve()
        if inside.is_relative_to(home) and not inside.is_relative_to(self._home.workspaces.resolve()):
            raise Refused("the home of Mains is no workspace")
        info = home.stat()
        return Root(workspace, frozenset({(info.st_dev, info.st_ino)}), self._hard_links)

    async def _alone(self, workspace: Path, caller: Caller, work: Callable[[Changes], T]) -> T:
        """Make a change while nobody else makes one in this workspace, also when its caller no longer waits."""
        room = self._quota.of(workspace)
        lock = self._locks.setdefault(workspace, asyncio.Lock())

        def change() -> T:
            return work(Changes(self._root(workspace), room, self._versions, self._settings, caller))

        await lock.acquire()
        try:
            running = asyncio.get_running_loop().run_in_executor(self._pool(), change)
        except RuntimeError:  # no thread can be had
            lock.release()
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None
        running.add_done_callback(lambda _: lock.release())
        return await asyncio.shield(running)

    async def _look(self, workspace: Path, work: Callable[[Looks], str]) -> str:
        return await self._in_thread(lambda: work(Looks(self._root(workspace), self._settings)))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool(), work)

    def _pool(self) -> ThreadPoolExecutor:
        self._threads = self._threads or ThreadPoolExecutor(self._settings.device_calls_max, "device files")
        return self._threads

    @staticmethod
    async def _told(work: Awaitable[T]) -> T:
        """What comes of it, for a person. Raises UsageError."""
        try:
            return await work
        except Refused as refused:
            raise UsageError(str(refused)) from refused
        except OSError as error:
            raise UsageError(f"{error.strerror or error}") from error


def may_link(document: Mapping[str, Any], where: str) -> bool:
    """Whether files with several names may be read: `hard_links` of `[files]` in mains.toml. Raises ConfigError."""
    table = document.get("files", {})
    if not isinstance(table, Mapping) or [*table] not in ([], ["hard_links"]):
        raise ConfigError(f"{where}: [files] may have the key `hard_links`, and no other")
    allowed = table.get("hard_links", False)
    if not isinstance(allowed, bool):
        raise ConfigError(f"{where}: [files] `hard_links` must be true or false")
    return allowed


def _standing(versions: Sequence[Version], pid: int, path: str) -> Version:
    """The last change that was not taken back. Raises NotFoundError."""
    wanted = "/".join(name for name in path.split("/") if name not in ("", "."))
    undone = {version.undoes for version in versions}
    for version in reversed(versions):
        if not version.undoes and version.number not in undone and wanted in ("", version.path):
            return version
    of = f" of {shown(wanted)}" if wanted else ""
    raise NotFoundError(f"process {pid}: no change{of} is kept that could be undone", hint=f"`mains files log {pid}`")


def _search(looks: Looks, arguments: Mapping[str, Any]) -> str:
    text, regex = arguments.get("text", ""), arguments.get("regex", "")
    if bool(text) == bool(regex):
        raise Refused("either a `text` or a `regex` is needed")
    ignore_case = arguments.get("ignore_case", False)
    wanted = wanted_text(text, ignore_case=ignore_case) if text else wanted_pattern(regex, ignore_case=ignore_case)
    return looks.search(wanted, arguments.get("path", ""), arguments.get("files", ""))


_LOOK: dict[str, Callable[[Looks, Mapping[str, Any]], str]] = {
    "list": lambda looks, given: looks.list(given.get("path", "")),
    "read": lambda looks, given: looks.read(given["path"], given.get("line"), given.get("lines")),
    "find": lambda looks, given: looks.find(given["pattern"], given.get("path", "")),
    "search": _search,
}
_CHANGE: dict[str, Callable[[Changes, Mapping[str, Any]], str]] = {
    "write": lambda changes, given: changes.write(given["path"], given["text"]),
    "append": lambda changes, given: changes.append(given["path"], given["text"]),
    "edit": lambda changes, given: changes.edit(
        given["path"], given["old"], given["new"], every=given.get("all", False)
    ),
    "remove": lambda changes, given: changes.remove(given["path"]),
}
