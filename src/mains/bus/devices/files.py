"""The device `files`: the process's workspace folder, and nothing outside it.

Paths are relative to the workspace. Every step of a path is opened below the one before without following links
(`openat`, `O_NOFOLLOW`), so that neither `..`, nor a link, nor a swap in between leads out of the folder. A file is
written beside its place and moved there, so that a crash leaves the old or the new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from mains.kernel.ports import CallContext, Done, Failed, Schema, Tool

_FILE_BYTES_MAX = 4 * 1024 * 1024
_LIST_ENTRIES_MAX = 1_000
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


class _Refused(Exception):  # noqa: N818 - becomes a Failed, never leaves this file
    """A path or file that cannot be served, in words for the model."""


def _schema(*required: str) -> Schema:
    return {
        "type": "object",
        "properties": {name: {"type": "string"} for name in ("path", *required) if name},
        "required": list(required),
        "additionalProperties": False,
    }


_TOOLS = (
    Tool("list", "List a folder of the workspace (without `path`: the workspace itself).", _schema(), read_only=True),
    Tool("read", "Read a text file of the workspace.", _schema("path"), read_only=True),
    Tool("write", "Write a text file, whole; folders are made as needed.", _schema("path", "text"), idempotent=True),
    Tool("append", "Append text to a file.", _schema("path", "text")),
    Tool("remove", "Remove a file.", _schema("path"), idempotent=True),
)


class Files:
    """The device. It keeps nothing open between calls."""

    name = "files"

    def tools(self) -> Sequence[Tool]:
        """list, read, write, append, remove."""
        return _TOOLS

    async def call(self, tool: str, arguments: Mapping[str, Any], context: CallContext) -> Done | Failed:
        """Do it in a thread: a slow disk holds up only its caller."""
        verb: Callable[[Path, Mapping[str, Any]], str] = _VERBS[tool]
        try:
            return Done(await asyncio.to_thread(verb, context.workspace, arguments))
        except _Refused as refused:
            return Failed(str(refused))
        except OSError as error:
            return Failed(f"{arguments.get('path', '.')}: {error.strerror or error}")

    async def close(self) -> None:
        """Nothing to free."""


def _parts(path: str) -> list[str]:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts or "\0" in path:
        raise _Refused(f"{path}: only paths below the workspace, without `..`")
    return parts


@contextlib.contextmanager
def _folder(workspace: Path, parts: Sequence[str], *, make: bool) -> Iterator[int]:
    """The descriptor of a folder below the workspace, opened step by step without following a link."""
    if make:
        workspace.mkdir(parents=True, exist_ok=True, mode=0o700)
    at = os.open(workspace, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in parts:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=at)
            below = os.open(part, _DIRECTORY, dir_fd=at)
            os.close(at)
            at = below
        yield at
    finally:
        os.close(at)


def _file_parts(arguments: Mapping[str, Any]) -> tuple[list[str], str]:
    parts = _parts(arguments["path"])
    if not parts:
        raise _Refused("a file's path is needed")
    return parts[:-1], parts[-1]


@contextlib.contextmanager
def _regular(at: int, name: str, flags: int, path: str) -> Iterator[BinaryIO]:
    """A plain file in the folder `at`, opened without following a link or waiting for anybody."""
    descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600, dir_fd=at)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _Refused(f"{path}: not a file")
        with os.fdopen(descriptor, "ab" if flags & os.O_APPEND else "rb", closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def _list(workspace: Path, arguments: Mapping[str, Any]) -> str:
    parts = _parts(arguments.get("path", ""))
    if not parts and not workspace.exists():
        return "(empty)"
    with _folder(workspace, parts, make=False) as at:
        entries = sorted(os.scandir(at), key=lambda entry: entry.name)
        lines = [line for entry in entries[:_LIST_ENTRIES_MAX] if (line := _line(entry))]
    if len(entries) > _LIST_ENTRIES_MAX:
        lines.append(f"... and {len(entries) - _LIST_ENTRIES_MAX} more")
    return "\n".join(lines) or "(empty)"


def _line(entry: os.DirEntry[str]) -> str:
    """A line of a list; empty for what has gone meanwhile."""
    try:
        info = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return ""
    kind = "/" if stat.S_ISDIR(info.st_mode) else "@ (a link: not followed)" if stat.S_ISLNK(info.st_mode) else ""
    return f"{entry.name}{kind}" if kind else f"{entry.name}  {info.st_size} bytes"


def _read(workspace: Path, arguments: Mapping[str, Any]) -> str:
    folder, name = _file_parts(arguments)
    with _folder(workspace, folder, make=False) as at, _regular(at, name, os.O_RDONLY, arguments["path"]) as file:
        data = file.read(_FILE_BYTES_MAX + 1)
    if len(data) > _FILE_BYTES_MAX:
        raise _Refused(f"{arguments['path']}: larger than {_FILE_BYTES_MAX} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _Refused(f"{arguments['path']}: not UTF-8 text") from error


def _write(workspace: Path, arguments: Mapping[str, Any]) -> str:
    folder, name = _file_parts(arguments)
    data = _bounded(arguments)
    with _folder(workspace, folder, make=True) as at:
        _refuse_special(at, name, arguments["path"])
        beside = f".{os.urandom(8).hex()}.part"
        try:
            with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=at), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.rename(beside, name, src_dir_fd=at, dst_dir_fd=at)
        except OSError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(beside, dir_fd=at)
            raise
    return f"wrote {len(data)} bytes to {arguments['path']}"


def _append(workspace: Path, arguments: Mapping[str, Any]) -> str:
    folder, name = _file_parts(arguments)
    data = _bounded(arguments)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    with _folder(workspace, folder, make=True) as at, _regular(at, name, flags, arguments["path"]) as file:
        if os.fstat(file.fileno()).st_size + len(data) > _FILE_BYTES_MAX:
            raise _Refused(f"{arguments['path']}: would be larger than {_FILE_BYTES_MAX} bytes")
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return f"appended {len(data)} bytes to {arguments['path']}"


def _remove(workspace: Path, arguments: Mapping[str, Any]) -> str:
    folder, name = _file_parts(arguments)
    with _folder(workspace, folder, make=False) as at, contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=at)
    return f"removed {arguments['path']}"


def _bounded(arguments: Mapping[str, Any]) -> bytes:
    data: bytes = arguments["text"].encode(errors="surrogatepass")
    if len(data) > _FILE_BYTES_MAX:
        raise _Refused(f"{arguments['path']}: {len(data)} bytes are more than {_FILE_BYTES_MAX}")
    return data


def _refuse_special(at: int, name: str, path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
            raise _Refused(f"{path}: not a file")


_VERBS: dict[str, Callable[[Path, Mapping[str, Any]], str]] = {
    "list": _list,
    "read": _read,
    "write": _write,
    "append": _append,
    "remove": _remove,
}
