"""Versions: what stood in a file before a process changed it, so that a person can bring it back.

    FOLDER/PID/0000000017     a line of JSON (a Version), then the bytes that were there before

A version is on the disk before the change is made. Of one process the newest `versions_max` are kept, and of those as
many as have `versions_bytes_max` together. They go with their process (`forget`). A version also says how far a call
came: one that is made again after a crash finds its own, and whether the file was moved to its place.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from mains.settings import Settings

_HEAD_BYTES_MAX = 256 * 1024
_PART = ".part"


class Version(msgspec.Struct, frozen=True):
    """One change of one file. `before`: what stood there; `hash_before`, `hash_after`: SHA-256, empty for no file.

    `part` is the name beside the file under which the new bytes were written; `said` is the answer of the call.
    `undoes` is the number of the change that this one took back (0: none).
    """

    number: int
    pid: int
    key: str
    tool: str
    workspace: str
    path: str
    at_ms: int
    before: Literal["nothing", "file", "link", "other"]
    mode: int
    bytes_before: int
    bytes_after: int
    hash_before: str
    hash_after: str
    part: str
    said: str
    undoes: int = 0


class Versions:
    """The versions of all processes. What of one process is written is written by one call at a time."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self._folder = folder
        self._settings = settings

    def next_number(self, pid: int) -> int:
        """The number of the next version of a process."""
        names = self._names(pid)
        return int(names[-1]) + 1 if names else 1

    def keep(self, version: Version, before: bytes) -> None:
        """Put a version on the disk, then let the oldest go. Raises OSError."""
        place = self._folder / str(version.pid)
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = place / f"{version.number:010}"
        part = file.with_suffix(_PART)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as out:
            out.write(msgspec.json.encode(version) + b"\n" + before)
            out.flush()
            os.fsync(out.fileno())
        part.rename(file)
        at = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(at)
        finally:
            os.close(at)
        self._bound(version.pid)

    def drop(self, version: Version) -> None:
        """Take a version back: its change was not made."""
        (self._folder / str(version.pid) / f"{version.number:010}").unlink(missing_ok=True)

    def of(self, pid: int) -> list[Version]:
        """The versions of a process, oldest first."""
        return [version for name in self._names(pid) if (version := self._head(pid, name)) is not None]

    def last(self, pid: int) -> Version | None:
        """The newest version of a process."""
        names = self._names(pid)
        return self._head(pid, names[-1]) if names else None

    def before(self, version: Version) -> bytes:
        """The bytes that a version keeps. Raises OSError."""
        with (self._folder / str(version.pid) / f"{version.number:010}").open("rb") as file:
            file.readline(_HEAD_BYTES_MAX)
            return file.read()

    def forget(self, pids: Collection[int]) -> None:
        """Keep nothing of these processes. Raises OSError."""
        for pid in pids:
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(self._folder / str(pid))

    def _names(self, pid: int) -> list[str]:
        try:
            found = os.listdir(self._folder / str(pid))  # noqa: PTH208 - names are all that is asked for
        except FileNotFoundError:
            return []
        return sorted(name for name in found if name.isdigit())

    def _head(self, pid: int, name: str) -> Version | None:
        """The line of one; None for one that has just been let go, or that no longer says anything."""
        try:
            with (self._folder / str(pid) / name).open("rb") as file:
                return msgspec.json.decode(file.readline(_HEAD_BYTES_MAX), type=Version)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def _bound(self, pid: int) -> None:
        names: Sequence[str] = self._names(pid)[::-1]
        weight = 0
        for count, name in enumerate(names, 1):
            file = self._folder / str(pid) / name
            with contextlib.suppress(FileNotFoundError):
                weight += file.stat().st_size
            if count > 1 and (count > self._settings.versions_max or weight > self._settings.versions_bytes_max):
                file.unlink(missing_ok=True)
