"""Below a workspace: the one way in which the device `files` reaches the disk.

    steps("a/b.txt")                    the names of a path, or Refused
    folder(root, names)                 a folder's descriptor, opened name by name
    regular(at, name, path)             a plain file in it, to be read
    put(at, name, data, ...)            a file written beside its place and moved there
    walk(root, names, deadline_s)       everything below a folder

Each name of a path is opened in the folder before it (`openat`) and never followed when it is a link (`O_NOFOLLOW`), so
that neither `..`, nor a link, nor a swap in between leads out. What is opened is looked at through its descriptor, not
through its name. A file with a second name (a hard link) is not read, for that name may lie outside; it is never
written in place either: its name here gets a file of its own. Nothing waits for the other end of a pipe.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from mains.bus.devices.refused import Refused, is_unseen, shown

PATH_CHARACTERS_MAX = 4_096
DEPTH_MAX = 64  # folders below each other, as many descriptors as one walk holds open
_TRIES_MAX = 10  # to open a file that others replace meanwhile
ENTRIES_MAX = 200_000  # that one look below a folder takes into account
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


class TooManyError(Exception):
    """There is more below a folder than one look takes into account."""


class Root(msgspec.Struct, frozen=True):
    """A workspace. `shut` are folders (device, inode) that nobody enters, wherever they lie: Mains' own home.

    `hard_links`: files with several names may be read, too.
    """

    path: Path
    shut: frozenset[tuple[int, int]] = frozenset()
    hard_links: bool = False


class Entry(msgspec.Struct, frozen=True):
    """Something below a folder: its path from the workspace, its name in the folder `at`, and what it is."""

    path: str
    name: str
    at: int
    info: os.stat_result

    @property
    def is_file(self) -> bool:
        """Whether it is a plain file."""
        return stat.S_ISREG(self.info.st_mode)


def steps(path: str) -> list[str]:
    """The names of a path below the workspace. Raises Refused for one that leads out, or that no file can have."""
    if len(path) > PATH_CHARACTERS_MAX:
        raise Refused(f"{shown(path[:60])}...: a path has at most {PATH_CHARACTERS_MAX:,} characters")
    names = [name for name in path.split("/") if name not in ("", ".")]
    if path.startswith("/") or ".." in names or "\0" in path:
        raise Refused(f"{shown(path)}: only paths below the workspace, without `..`")
    if any(is_unseen(character) for character in path):
        raise Refused(f"{shown(path)}: no path has control characters or halves of characters")
    if len(names) > DEPTH_MAX:
        raise Refused(f"{shown(path[:60])}...: more than {DEPTH_MAX} folders deep")
    return names


def file_steps(path: str) -> tuple[list[str], str]:
    """The folders and the name of a file's path. Raises Refused, also when it names no file."""
    names = steps(path)
    if not names:
        raise Refused("a file's path is needed")
    return names[:-1], names[-1]


def refuse_git(names: Sequence[str], path: str) -> None:
    """Raises Refused for a path below `.git`, however it is spelled: what stands there is run by git itself."""
    for name in names:
        seen = "".join(c for c in name if unicodedata.category(c) != "Cf")
        if seen.casefold().rstrip(" .") == ".git":
            raise Refused(f"{shown(path)}: git's own folder can be read, not changed")


@contextlib.contextmanager
def folder(root: Root, names: Sequence[str], make: Callable[[], None] | None = None) -> Iterator[int]:
    """The descriptor of a folder below the workspace. Raises Refused, OSError.

    With `make`, missing folders are made; it is called before each, and may refuse.
    """
    if make is not None:
        root.path.mkdir(parents=True, exist_ok=True, mode=0o700)
    at = os.open(root.path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _enter(root, at)
        for name in names:
            below = _below(at, name, make)
            os.close(at)
            at = below
            _enter(root, at)
        yield at
    finally:
        os.close(at)


def _below(at: int, name: str, make: Callable[[], None] | None) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=at)
    except FileNotFoundError:
        if make is None:
            raise
    make()
    with contextlib.suppress(FileExistsError):  # somebody else was faster
        os.mkdir(name, 0o700, dir_fd=at)
    return os.open(name, _DIRECTORY, dir_fd=at)


def _enter(root: Root, at: int) -> None:
    if not root.shut:
        return
    info = os.fstat(at)
    if (info.st_dev, info.st_ino) in root.shut:
        raise Refused("the home of Mains is no part of a workspace")


@contextlib.contextmanager
def regular(root: Root, at: int, name: str, path: str) -> Iterator[BinaryIO]:
    """A plain file in the folder `at`, to be read. Raises Refused, OSError. Does not wait for anybody."""
    descriptor = _opened(root, at, name, path)
    try:
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def _opened(root: Root, at: int, name: str, path: str) -> int:
    """The descriptor of a plain file that has this name and no other. Tried again when its name is given to another."""
    for _ in range(_TRIES_MAX):
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=at)
        try:
            info = os.fstat(descriptor)
            if not stat.S_ISREG(info.st_mode):
                raise Refused(f"{shown(path)}: not a file")
            if not root.hard_links and info.st_nlink > 1:
                told = "has a second name (a hard link), which may lie outside the workspace: not read"
                raise Refused(f"{shown(path)}: {told}")
            if root.hard_links or _has_name(descriptor, info, at, name):
                kept, descriptor = descriptor, -1
                return kept
        finally:
            if descriptor >= 0:
                os.close(descriptor)
    raise Refused(f"{shown(path)}: others replace it all the time")


def _has_name(descriptor: int, info: os.stat_result, at: int, name: str) -> bool:
    """Whether the one name of an open file is this one: else a second name may just have lost its first.

    Names that come and go change the time of the file's status (`ctime`): it must be the same before and after the
    look.
    """
    here = look(at, name)
    after = os.fstat(descriptor)
    return (
        here is not None
        and (here.st_dev, here.st_ino) == (info.st_dev, info.st_ino)
        and info.st_nlink == here.st_nlink == after.st_nlink == 1
        and info.st_ctime_ns == after.st_ctime_ns
    )


def put(at: int, name: str, data: bytes, *, mode: int, part: str, ready: Callable[[], None]) -> None:
    """Write a file beside its place, as `part`, and move it there. Raises OSError; then the old file stands.

    `ready` is called in between, when the new bytes are on the disk; it may refuse. A link of that name is replaced,
    not followed.
    """
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=at), "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        ready()
        os.rename(part, name, src_dir_fd=at, dst_dir_fd=at)
    except (OSError, Refused):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part, dir_fd=at)
        raise
    os.fsync(at)


def look(at: int, name: str) -> os.stat_result | None:
    """What stands under a name, links not followed; None for nothing."""
    try:
        return os.stat(name, dir_fd=at, follow_symlinks=False)
    except FileNotFoundError:
        return None


def entries(at: int, most: int) -> list[os.DirEntry[str]]:
    """What is in a folder, sorted by name; at most so many of them."""
    with os.scandir(at) as found:
        return sorted(itertools.islice(found, most), key=lambda entry: entry.name)


def walk(root: Root, names: Sequence[str], deadline_s: float) -> Iterator[Entry]:
    """Everything below a folder, depth first, sorted in each folder; links are told and not followed.

    Raises TimeoutError after `deadline_s` (of `time.monotonic`), TooManyError after `ENTRIES_MAX`; Refused, OSError
    for the folder itself. What goes while it is walked is left out.
    """
    with folder(root, names) as at:
        left = [ENTRIES_MAX]
        yield from _walk(root, at, "/".join(names), len(names), deadline_s, left)


def _walk(root: Root, at: int, path: str, depth: int, deadline_s: float, left: list[int]) -> Iterator[Entry]:
    for found in entries(at, left[0] + 1):
        if time.monotonic() > deadline_s:
            raise TimeoutError
        if left[0] <= 0:
            raise TooManyError(f"more than {ENTRIES_MAX:,} files and folders: name a folder below")
        left[0] -= 1
        info = look(at, found.name)
        if info is None:
            continue
        below = f"{path}/{found.name}" if path else found.name
        yield Entry(below, found.name, at, info)
        if stat.S_ISDIR(info.st_mode) and depth < DEPTH_MAX and (inner := _inner(root, at, found.name)) is not None:
            try:
                yield from _walk(root, inner, below, depth + 1, deadline_s, left)
            finally:
                os.close(inner)


def _inner(root: Root, at: int, name: str) -> int | None:
    """The descriptor of a folder that a walk has found; None when it is a folder no more, or nobody's to enter."""
    try:
        inner = os.open(name, _DIRECTORY, dir_fd=at)
    except OSError:
        return None
    try:
        _enter(root, inner)
    except Refused:
        os.close(inner)
        return None
    return inner
