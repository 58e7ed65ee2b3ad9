"""Changes of files: write, append, edit, remove, and undo. One at a time in a workspace.

Each is decided on what stands there, then kept as a version, then made: the new bytes lie beside the file, the
version is on the disk, and one rename does it. So a crash leaves the old file or the new one, and a call that is made
again after it knows which: no tool here does anything twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable
from typing import Literal

import msgspec

from mains.bus.devices.beneath import Root, file_steps, folder, look, put, refuse_git, regular
from mains.bus.devices.quota import Room
from mains.bus.devices.refused import Refused, shown
from mains.bus.devices.versions import Version, Versions
from mains.settings import Settings

_NEW_MODE = 0o600


class Old(msgspec.Struct, frozen=True):
    """What stands under a name. `data` is of a file; `weight` is what it counts in a quota."""

    kind: Literal["nothing", "file", "link", "other"]
    data: bytes = b""
    mode: int = _NEW_MODE
    mark: tuple[int, ...] = ()  # what another file, or another content, would not have

    @property
    def hash(self) -> str:
        """SHA-256 of a file; empty for anything else."""
        return hashlib.sha256(self.data).hexdigest() if self.kind == "file" else ""


class Caller(msgspec.Struct, frozen=True):
    """For whom a change is made: the process, the key of its call, and whether that may have been made before."""

    pid: int
    key: str
    again: bool
    at_ms: int


New = tuple[bytes | None, str]
"""What shall stand there (None: nothing), and what the caller is told."""


class Changes:
    """The changes of one call. Everything raises Refused (nothing was done) or OSError."""

    def __init__(self, root: Root, room: Room, versions: Versions | None, settings: Settings, caller: Caller) -> None:
        self._root = root
        self._room = room
        self._versions = versions
        self._settings = settings
        self._caller = caller

    def write(self, path: str, text: str) -> str:
        """Write a text file, whole."""
        data = self._bytes(path, text)
        return self._change("write", path, self._old, lambda _: (data, f"wrote {len(data)} bytes to {path}"))

    def append(self, path: str, text: str) -> str:
        """Append text to a file."""
        data = self._bytes(path, text)

        def grown(old: Old) -> New:
            return self._fitting(path, old.data + data), f"appended {len(data)} bytes to {path}"

        return self._change("append", path, self._old, grown)

    def edit(self, path: str, old_text: str, new_text: str, *, every: bool) -> str:
        """Replace an exact text that stands there once; `every`: wherever it stands, at least once."""
        before, after = self._bytes(path, old_text), self._bytes(path, new_text)
        if not before:
            raise Refused(f"{shown(path)}: the text to be replaced is empty; `write` makes a file")
        if before == after:
            raise Refused(f"{shown(path)}: the new text is the old one")

        def edited(old: Old) -> New:
            if old.kind == "nothing":
                raise Refused(f"{path}: no such file")
            count = old.data.count(before)
            if count == 0:
                raise Refused(f"{path}: the text does not stand there; it must be given exactly as the file has it")
            if count > 1 and not every:
                raise Refused(f"{path}: the text stands there {count} times; give more of it, or set `all`")
            size = len(old.data) + count * (len(after) - len(before))
            self._fitting_size(path, size)
            return old.data.replace(before, after), f"replaced {count} in {path}"

        return self._change("edit", path, self._old, edited)

    def remove(self, path: str) -> str:
        """Remove a file, or a link (not what it leads to)."""
        return self._change("remove", path, self._removable_old, lambda _: (None, f"removed {path}"))

    def undo(self, version: Version, *, force: bool) -> Version:
        """Bring back what stood there before a change; the change that does it.

        Refused when the file was changed since by somebody else, unless `force`, and for what was no file.
        """
        assert self._versions is not None
        path = version.path
        names, name = file_steps(path)
        if version.before in ("link", "other"):
            raise Refused(f"{path}: it was no file; only files can be brought back")
        data = None if version.before == "nothing" else self._versions.before(version)
        with folder(self._root, names, self._make_folder_freely) as at:
            old = self._removable_old(at, name, path)
            unchanged = old.hash == version.hash_after and (old.kind == "nothing") == (not version.hash_after)
            if not unchanged and not force:
                raise Refused(f"{path}: it was changed again after that; with --force what stands there now goes")
            done = self._version("undo", path, old, data, f"brought back {path}")
            done = msgspec.structs.replace(done, mode=old.mode, undoes=version.number)
            self._room.count(bytes=_weight(data) - len(old.data), files=(data is not None) - (old.kind != "nothing"))
            self._make(at, name, old, data, done, version.mode)
        return done

    # how a change is made

    def _change(self, tool: str, path: str, find: Callable[[int, str, str], Old], decide: Callable[[Old], New]) -> str:
        names, name = file_steps(path)
        refuse_git([*names, name], path)
        if said := self._made_before(names):
            return said
        make = self._make_folder if tool in ("write", "append") else None
        try:
            with folder(self._root, names, make) as at:
                old = find(at, name, path)
                data, said = decide(old)
                if data is not None and old.kind in ("link", "other"):
                    raise Refused(f"{path}: not a file")
                if data is None and old.kind == "nothing":
                    return said
                self._apply(tool, at, name, path, old, data, said)
                return said
        except FileNotFoundError:
            if tool != "remove":
                raise
            return f"removed {path}"  # there is not even its folder

    def _apply(self, tool: str, at: int, name: str, path: str, old: Old, data: bytes | None, said: str) -> None:
        more = {"bytes": _weight(data) - len(old.data), "files": (data is not None) - (old.kind != "nothing")}
        self._room.take(**more)
        try:
            self._make(at, name, old, data, self._version(tool, path, old, data, said), old.mode)
        except (OSError, Refused):
            self._room.count(bytes=-more["bytes"], files=-more["files"])
            raise

    def _make(self, at: int, name: str, old: Old, data: bytes | None, version: Version, mode: int) -> None:
        """Keep the version, then do it. Raises OSError: then neither is there."""

        def keep() -> None:
            if self._versions is not None:
                self._versions.keep(version, old.data)
            if _mark(look(at, name)) != old.mark:  # an editor, or a process whose workspace lies around this one
                raise Refused(f"{version.path}: somebody else changed it at the same time; look at it again")

        try:
            if data is not None:
                put(at, name, data, mode=mode, part=version.part, ready=keep)
            elif old.kind != "nothing":
                keep()
                os.unlink(name, dir_fd=at)
                os.fsync(at)
        except (OSError, Refused):
            if self._versions is not None:
                self._versions.drop(version)
            raise

    def _version(self, tool: str, path: str, old: Old, data: bytes | None, said: str) -> Version:
        caller = self._caller
        return Version(
            number=self._versions.next_number(caller.pid) if self._versions is not None else 0,
            pid=caller.pid,
            key=caller.key,
            tool=tool,
            workspace=str(self._root.path),
            path="/".join([*file_steps(path)[0], file_steps(path)[1]]),
            at_ms=caller.at_ms,
            before=old.kind,
            mode=old.mode,
            bytes_before=len(old.data),
            bytes_after=_weight(data),
            hash_before=old.hash,
            hash_after="" if data is None else hashlib.sha256(data).hexdigest(),
            part="" if data is None else self._part(),
            said=said,
        )

    def _made_before(self, names: list[str]) -> str:
        """The answer of this very call, when it was made before a crash; empty when it was not, or only half.

        What lies beside the file then goes.
        """
        if not self._caller.again:
            return ""
        last = self._versions.last(self._caller.pid) if self._versions is not None else None
        kept = last if last is not None and last.key == self._caller.key and last.part else None
        with contextlib.suppress(FileNotFoundError), folder(self._root, names) as at:
            if look(at, self._part()) is not None:
                os.unlink(self._part(), dir_fd=at)
            elif kept is not None:
                return kept.said
        if kept is not None and self._versions is not None:
            self._versions.drop(kept)
        return ""

    def _part(self) -> str:
        """The name beside a file under which this call writes: the same when it is made again after a crash."""
        caller = self._caller
        salt = f"{caller.pid} {caller.key or os.urandom(8).hex()}"
        return f".{hashlib.blake2b(salt.encode(), digest_size=8).hexdigest()}.part"

    def _make_folder(self) -> None:
        self._room.take(files=1)

    def _make_folder_freely(self) -> None:
        self._room.count(files=1)

    # what stands there, and what fits

    def _removable_old(self, at: int, name: str, path: str) -> Old:
        """What will be removed or brought back. A file with a second name counts as a link: the other name keeps it."""
        info = look(at, name)
        if info is not None and stat.S_ISREG(info.st_mode) and info.st_nlink > 1 and not self._root.hard_links:
            return Old("link", mark=_mark(info))
        return self._old(at, name, path)

    def _old(self, at: int, name: str, path: str) -> Old:
        """What will be changed: a file that the caller may also read, whole, so that it can be brought back."""
        info = look(at, name)
        if info is None:
            return Old("nothing")
        if stat.S_ISLNK(info.st_mode):
            return Old("link", mark=_mark(info))
        if not stat.S_ISREG(info.st_mode):
            return Old("other", mark=_mark(info))
        most = self._settings.workspace_file_bytes_max
        with regular(self._root, at, name, path) as file:
            info = os.fstat(file.fileno())
            data = file.read(most + 1)
        if len(data) > most:
            raise Refused(f"{path}: larger than {most} bytes: not changed, for it could not be brought back")
        return Old("file", data, stat.S_IMODE(info.st_mode) & 0o777, _mark(info))

    def _bytes(self, path: str, text: str) -> bytes:
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            raise Refused(f"{shown(path)}: the text holds half a character, which no file can") from error
        return self._fitting(path, data)

    def _fitting(self, path: str, data: bytes) -> bytes:
        self._fitting_size(path, len(data))
        return data

    def _fitting_size(self, path: str, size: int) -> None:
        most = self._settings.workspace_file_bytes_max
        if size > most:
            raise Refused(f"{shown(path)}: would be larger than {most} bytes (workspace_file_bytes_max): it has {size}")


def _mark(info: os.stat_result | None) -> tuple[int, ...]:
    """What tells a file from another one, and from itself after a change; nothing for nothing."""
    return () if info is None else (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


def _weight(data: bytes | None) -> int:
    return 0 if data is None else len(data)
