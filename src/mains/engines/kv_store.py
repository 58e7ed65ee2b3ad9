"""The files of the embedded engine's KV: what it has read of a process, on the disk.

    kv/ENGINE/TENANT-PID-RANDOM.kv      what llama.cpp wrote (0600)
    kv/ENGINE/TENANT-PID-RANDOM.json    two lines: SHA-256 of the second; an `Entry` as JSON, with that of the .kv
    kv/ENGINE/TENANT-PID-RANDOM.new     being written: never read, removed at the next start
    kv/ENGINE/model.json                the SHA-256 of the model's file, with what tells whether the file has changed

An entry stands when both its files do: the .json comes last and by rename, so a crash leaves nothing half that is used.
Nothing is flushed: what a power loss tears does not fit its checksum. Such a file, and one that was made with another
model, other settings or by another build of llama.cpp, is removed, and the prompt is read again.

Every failure of the disk is a `False` or a None here, never an error: a file is only there for speed.
The pid stands in the name, so that `forget` needs no engine.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
from collections import deque
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import msgspec

from mains.engines.kv_policy import SHARED_TOKENS_MIN, Chain, Filed, least_valuable, shared_tokens

DISK_SPARE_BYTES = 64 * 1024 * 1024  # of the disk that are left to the journal and everybody else
ABANDONED_MAX = 32  # files that were given up and are looked for again, in case they came late
META_BYTES_MAX = 4 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One file. `key`: with what it was made (`key_of`). `tokens`: of prompt and reply."""

    name: str
    key: str
    tenant: int
    process: int
    tokens: int
    bytes: int
    sha256: str
    chain: Chain


class _Model(msgspec.Struct, frozen=True):
    """The digest of a model's file, and what the file was like."""

    stat: tuple[str, int, int, int]
    sha256: str


class Store:
    """The files of one engine. Made and used by one event loop; the methods that say so block and run in a thread."""

    def __init__(self, folder: Path, bytes_max: int, wall: Callable[[], float]) -> None:
        self.folder = folder
        self._bytes_max = bytes_max
        self._wall = wall
        self._key = ""
        self._entries: dict[str, Entry] = {}
        self._used_at: dict[str, float] = {}
        self._bytes_per_token = 0.0
        self._abandoned: deque[str] = deque(maxlen=ABANDONED_MAX)
        self._closed = False
        self._turn = 0  # of `open`: only the last one counts

    @property
    def key(self) -> str:
        """With what the files are made; empty: not open, so nothing is found or saved."""
        return self._key

    @property
    def bytes(self) -> int:
        """What all files take."""
        return sum(entry.bytes for entry in self._entries.values())

    def open(self, model: Path, settings: dict[str, object]) -> None:
        """Find what is there and remove what cannot be used. Blocks; the store stays shut when the disk fails.

        Nothing of it is known before all is found: the event loop may ask, or forget, meanwhile.
        """
        entries: dict[str, Entry] = {}
        used: dict[str, float] = {}
        turn = self._turn
        try:
            self.folder.parent.mkdir(mode=0o700, exist_ok=True)
            self.folder.mkdir(mode=0o700, exist_ok=True)
            self.folder.chmod(0o700)
            key = key_of(self._model_sha256(model), settings)
            for name, entry, used_at in self._scan():
                if entry is None or entry.key != key:
                    self._unlink(name)
                    continue
                entries[name], used[name] = entry, used_at
        except OSError:
            return
        for name in self._too_many(entries, used, 0):
            self._unlink(name)
            del entries[name], used[name]
        if turn != self._turn:
            return
        self._entries, self._used_at = entries, used
        self._key = "" if self._closed else key

    def shut(self) -> None:
        """Nothing is found or saved until it is opened again: what files would be made with is not known."""
        self._key = ""
        self._turn += 1

    def close(self) -> None:
        """Nothing is found or saved any more; what still reads a model's file stops."""
        self._closed, self._key = True, ""

    def _model_sha256(self, model: Path) -> str:
        """The digest of the model's file; taken again only when the file has changed."""
        there = model.stat()
        stat = (str(model), there.st_ino, there.st_size, there.st_mtime_ns)
        known = self.folder / "model.json"
        with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError):
            kept = msgspec.json.decode(known.read_bytes(), type=_Model)
            if kept.stat == stat:
                return kept.sha256
        digest = sha256_of(model, lambda: self._closed)
        _write(known, msgspec.json.encode(_Model(stat, digest)))
        return digest

    def _scan(self) -> Iterator[tuple[str, Entry | None, float]]:
        for path in list(self.folder.iterdir()):
            if path.suffix == ".json" and path.name != "model.json":
                yield path.stem, self._read(path), path.stat().st_mtime
            elif path.suffix == ".new" or (path.suffix == ".kv" and not path.with_suffix(".json").exists()):
                path.unlink(missing_ok=True)

    def _read(self, path: Path) -> Entry | None:
        """The entry of a .json; None when it is damaged or its .kv is not there whole."""
        try:
            with path.open("rb") as file:
                check, line = file.read(META_BYTES_MAX).split(b"\n", 1)
            entry = msgspec.json.decode(line, type=Entry)
            whole = path.with_suffix(".kv").stat().st_size == entry.bytes
        except (OSError, ValueError, msgspec.MsgspecError):
            return None
        sound = check == hashlib.sha256(line).hexdigest().encode()
        return entry if sound and whole and entry.name == path.stem and _pid_of(entry.name) == entry.process else None

    # --------------------------------------------------------------------------------------------------- what is there

    def find(self, tenant: int, process: int, chain: Chain) -> tuple[Entry | None, int]:
        """The file of this tenant that holds most of a prompt, and about how many tokens of it."""
        best, best_rank = None, (0, False)
        for entry in self._entries.values() if self._key else ():
            if entry.tenant != tenant or (shared := shared_tokens(entry.chain, chain)) < SHARED_TOKENS_MIN:
                continue
            if (rank := (shared, entry.process == process)) > best_rank:
                best, best_rank = entry, rank
        return best, best_rank[0]

    def sound(self, entry: Entry) -> bool:
        """Whether a file is as it was written. Blocks."""
        try:
            return sha256_of(self.folder / f"{entry.name}.kv") == entry.sha256
        except OSError:
            return False

    def used(self, entry: Entry) -> None:
        """A file was of use."""
        self._used_at[entry.name] = self._wall()
        with contextlib.suppress(OSError):
            os.utime(self.folder / f"{entry.name}.json")

    # ----------------------------------------------------------------------------------------------------------- saving

    def begin(self, tenant: int, process: int, tokens: int) -> str | None:
        """A name for a new file, which is to be written as NAME.new, with room made for it. None: there is no room."""
        for late in self._abandoned:  # the engine may have written it long after we had given up
            self._unlink(late)
        need = int(tokens * self._bytes_per_token)
        if not self._key or need > self._bytes_max:
            return None
        self._make_room(need)
        try:
            if shutil.disk_usage(self.folder).free < need + DISK_SPARE_BYTES:
                return None
        except OSError:
            return None
        return f"{tenant}-{process}-{secrets.token_hex(6)}"

    def seal(self, name: str, tenant: int, process: int, tokens: int, chain: Chain) -> Entry | None:
        """Make NAME.new an entry of its own; None when that fails. Blocks; `add` makes it known."""
        new, kv = self.folder / f"{name}.new", self.folder / f"{name}.kv"
        try:
            new.chmod(0o600)
            entry = Entry(
                name=name,
                key=self._key,
                tenant=tenant,
                process=process,
                tokens=tokens,
                bytes=new.stat().st_size,
                sha256=sha256_of(new),
                chain=chain,
            )
            line = msgspec.json.encode(entry)
            if len(line) >= META_BYTES_MAX - 65:
                raise OSError("too many messages")
            new.rename(kv)
            _write(self.folder / f"{name}.json", hashlib.sha256(line).hexdigest().encode() + b"\n" + line)
        except OSError:
            self.abandon(name)
            return None
        return entry

    def add(self, entry: Entry) -> None:
        """A sealed file is there; older ones of the same process, and those for which there is no room, go."""
        self._bytes_per_token = entry.bytes / max(1, entry.tokens)
        for old in [name for name, other in self._entries.items() if other.process == entry.process]:
            self.drop(old)
        self._entries[entry.name], self._used_at[entry.name] = entry, self._wall()
        self._make_room(0)

    def abandon(self, name: str) -> None:
        """A file that was begun is not wanted."""
        self._unlink(name)
        self._abandoned.append(name)

    def drop(self, name: str) -> None:
        """Remove an entry."""
        self._entries.pop(name, None)
        self._used_at.pop(name, None)
        self._unlink(name)

    def forget(self, processes: Collection[int]) -> None:
        """Remove everything of these processes."""
        for name in [name for name, entry in self._entries.items() if entry.process in processes]:
            self.drop(name)

    def _make_room(self, need_bytes: int) -> None:
        for name in self._too_many(self._entries, self._used_at, need_bytes):
            self.drop(name)

    def _too_many(self, entries: dict[str, Entry], used: dict[str, float], need_bytes: int) -> list[str]:
        files = (Filed(each.name, each.bytes, each.tokens, used[each.name]) for each in entries.values())
        return list(least_valuable(files, need_bytes, self._bytes_max, self._wall()))

    def _unlink(self, name: str) -> None:
        for suffix in (".json", ".kv", ".new"):  # the .json first: without it nothing stands
            with contextlib.suppress(OSError):
                (self.folder / f"{name}{suffix}").unlink()


def forget(root: Path, processes: Collection[int]) -> None:
    """Remove the files of these processes below the kv folder of a home, whichever engine made them. Blocks.

    Raises OSError when one cannot be removed.
    """
    for path in sorted(root.glob("*/*-*-*")):
        if _pid_of(path.stem) in processes:
            path.unlink(missing_ok=True)


def key_of(model_sha256: str, settings: dict[str, object]) -> str:
    """With what KV is made: KV of one key means nothing to another."""
    return hashlib.sha256(msgspec.json.encode([model_sha256, sorted(settings.items())])).hexdigest()


def sha256_of(path: Path, stopped: Callable[[], bool] = lambda: False) -> str:
    """The digest of a file, a piece at a time. Raises OSError, also when it is `stopped`."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(_CHUNK_BYTES):
            if stopped():
                raise InterruptedError("stopped")
            digest.update(data)
    return digest.hexdigest()


def _pid_of(name: str) -> int:
    parts = name.split("-")
    return int(parts[1]) if len(parts) == 3 and parts[1].isascii() and parts[1].isdigit() else 0


def _write(path: Path, data: bytes) -> None:
    """A file that is there whole or not at all, for its owner only."""
    new = path.with_suffix(".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    new.rename(path)
