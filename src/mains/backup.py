"""Backups: a home as one file, made while its daemon works; and the way back.

    write(home, target, ...)      a Backup: what was put into it
    restore(file, home)           a Backup: what came out of it

The file is a tar of regular files: `mains.db` (one moment of the journal, by `VACUUM INTO` from a reader of its own),
`mains.toml`, on request `workspaces/...`, and last `manifest.json` with the size and SHA-256 of each. A file that was
cut off has no manifest. Checksums find damage, not malice: keep backups where only you can write.

Obligations: the target appears whole or not at all, with mode 0600, and never in the place of another file unless that
is asked for; it is read again before it is called done. A restored home appears whole or not at all, after checksums,
journal and ledger were verified. Raises BackupError, UsageError, NotFoundError, JournalError.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
import shutil
import sqlite3
import stat
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

import msgspec

from mains import __version__
from mains.errors import BackupError, DiskFullError, JournalError, NotFoundError, UsageError
from mains.home import Home
from mains.kernel import audit, reckon
from mains.kernel.journal import Journal
from mains.kernel.schema import told
from mains.settings import Settings

MANIFEST = "manifest.json"
FORMAT = 1
_DATABASE, _CONFIG, _WORKSPACES = "mains.db", "mains.toml", "workspaces"
_CHUNK = 1024 * 1024
_MANIFEST_BYTES_MAX = 256 * 1024 * 1024


class Member(msgspec.Struct, frozen=True):
    """A file of a backup."""

    bytes: int
    sha256: str


class Backup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The manifest. `home` is where it was made; `events` the number of the journal's last event."""

    format: int
    mains: str
    home: str
    made_ms: int
    events: int
    skipped: int
    files: dict[str, Member]


def write(home: Home, target: Path, *, workspaces: bool = False, replace: bool = False) -> Backup:
    """Back a home up into `target`. `skipped` counts what lies in the workspaces and is no regular file."""
    if not home.database.exists():
        raise NotFoundError(f"{home.database}: there is no journal yet", hint="the first `mains run` makes it")
    if target.is_dir():
        raise UsageError(f"{target}: is a folder, not a file")
    if target.exists() and not replace:
        raise UsageError(f"{target}: exists already", hint="--force replaces it")
    with _failing(target), tempfile.TemporaryDirectory(dir=target.absolute().parent, prefix=".mains-backup-") as folder:
        copy, unfinished = Path(folder) / _DATABASE, Path(folder) / "backup.tar"
        _copy_database(home.database, copy)
        events = asyncio.run(_verify(copy, migrate=False))
        backup = _pack(home, copy, unfinished, events, workspaces=workspaces)
        if _check(unfinished) != backup:
            raise BackupError(f"{target}: reads back otherwise than it was written", hint="is the disk sound?")
        _put(unfinished, target, replace=replace)
    return backup


def restore(file: Path, home: Home) -> Backup:
    """Make a home from a backup. The home must be absent or an empty folder; on failure it stays so."""
    place = home.path.absolute()
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise UsageError(f"{place}: is not empty", hint="name a new home: mains restore FILE --home NEW")
    if not file.is_file():
        raise NotFoundError(f"{file}: no such file")
    backup = _check(file)
    with _failing(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=".mains-restore-") as folder:
            inside = Path(folder) / "home"
            inside.mkdir(mode=0o700)
            _unpack(file, inside, backup)
            asyncio.run(_verify(inside / _DATABASE, migrate=True))
            inside.rename(place)  # over an empty folder, or nothing
    return backup


@contextlib.contextmanager
def _failing(place: Path) -> Iterator[None]:
    """What the disk says, as one sentence."""
    try:
        yield
    except OSError as error:
        raise BackupError(f"{place}: {error.strerror or error}", hint="nothing was left behind") from error
    except sqlite3.Error as error:
        why = "the disk is full" if isinstance(told(place.absolute(), error), DiskFullError) else str(error)
        raise BackupError(f"{place}: the database cannot be copied: {why}", hint="nothing was left behind") from error


def _copy_database(source: Path, copy: Path) -> None:
    """One moment of a database that may be at work."""
    os.close(os.open(copy, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    if not os.access(source.parent, os.W_OK):
        source = _beside(source, copy.parent)
    uri = f"{source.absolute().as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=10, isolation_level=None)) as reader:
        reader.execute("VACUUM INTO ?", (str(copy),))


def _beside(source: Path, folder: Path) -> Path:
    """The files of a database on a read-only disk, where SQLite can make the lock that it needs to read."""
    moved = folder / "source" / source.name
    moved.parent.mkdir(mode=0o700)
    for name in (source.name, f"{source.name}-wal"):
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(source.with_name(name), moved.with_name(name))
    return moved


async def _verify(database: Path, *, migrate: bool) -> int:
    """The journal's last event, when journal and ledger are whole. Raises JournalError, BackupError."""
    journal = Journal(database, Settings(), lambda: time.time_ns() // 1_000_000, lambda _: None, migrate=migrate)
    try:
        faults = audit.verify(journal) + reckon.verify(journal)
        last = journal.rows("event_last")
    finally:
        await journal.close()
    if faults:
        hint = "`mains journal verify` and `mains ledger verify` list every fault"
        raise BackupError(f"the journal has {len(faults)} faults: {faults[0]}", hint=hint)
    return int(last[0][0]) if last else 0


# writing


def _pack(home: Home, copy: Path, unfinished: Path, events: int, *, workspaces: bool) -> Backup:
    files: dict[str, Member] = {}
    skipped = 0
    with _opened(unfinished) as out, tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        files[_DATABASE] = _add(tar, _DATABASE, copy)
        if home.config.is_file():
            files[_CONFIG] = _add(tar, _CONFIG, home.config)
        for path in sorted(home.workspaces.rglob("*")) if workspaces else ():
            if path.is_symlink() or not path.is_file():
                skipped += not path.is_dir() or path.is_symlink()
                continue
            name = PurePosixPath(_WORKSPACES, *path.relative_to(home.workspaces).parts)
            files[str(name)] = _add(tar, str(name), path)
        backup = Backup(FORMAT, __version__, str(home.path), time.time_ns() // 1_000_000, events, skipped, files)
        data = msgspec.json.format(msgspec.json.encode(backup))
        tar.addfile(_header(MANIFEST, len(data), 0o600), io.BytesIO(data))
    return backup


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A new file for its owner only, on the disk when it is closed."""
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _header(name: str, size: int, mode: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.size, header.mode = size, mode
    return header


class _Hashing(io.RawIOBase):
    """A file as it is read, with the checksum of what was read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.hash = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.hash.update(data)
        return data


def _add(tar: tarfile.TarFile, name: str, path: Path) -> Member:
    with path.open("rb") as file:
        info = os.fstat(file.fileno())
        hashing = _Hashing(file)
        tar.addfile(_header(name, info.st_size, 0o600 | info.st_mode & stat.S_IXUSR), hashing)
    return Member(info.st_size, hashing.hash.hexdigest())


def _put(unfinished: Path, target: Path, *, replace: bool) -> None:
    """Give the finished file its name; never over another one that came meanwhile."""
    if replace:
        unfinished.replace(target)
    else:
        try:
            os.link(unfinished, target)
        except FileExistsError as error:
            raise UsageError(f"{target}: exists already", hint="--force replaces it") from error
    folder = os.open(target.absolute().parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


# reading


def _check(file: Path) -> Backup:
    """The manifest of a backup whose files all are what it says. Raises BackupError."""
    found, manifest = _read(file)
    try:
        backup = msgspec.json.decode(manifest, type=Backup)
    except msgspec.DecodeError as error:
        raise _damaged(file, "it has no manifest: it was cut off, or is no backup") from error
    if backup.format != FORMAT:
        raise BackupError(f"{file}: format {backup.format}, this Mains reads {FORMAT}", hint="use a newer Mains")
    for name in sorted(found.keys() | backup.files.keys()):
        if found.get(name) != backup.files.get(name):
            raise _damaged(file, f"{name} is not what the manifest says")
        _check_name(file, name)
    if _DATABASE not in found:
        raise _damaged(file, f"it has no {_DATABASE}")
    return backup


def _damaged(file: Path, why: str) -> BackupError:
    return BackupError(f"{file}: {why}", hint="take another backup; nothing was restored from this one")


def _read(file: Path) -> tuple[dict[str, Member], bytes]:
    """Each file in a backup as it is, and the manifest. Raises BackupError."""
    found: dict[str, Member] = {}
    manifest = b""
    try:
        with tarfile.open(file, "r:") as tar:
            for header in tar:
                data = tar.extractfile(header) if header.isreg() else None
                if data is None:
                    raise _damaged(file, f"{header.name} is no regular file")
                if header.name == MANIFEST:
                    manifest = data.read(_MANIFEST_BYTES_MAX)
                else:
                    found[header.name] = _measure(data)
    except (tarfile.TarError, EOFError, UnicodeDecodeError) as error:
        raise _damaged(file, f"it cannot be read: {error}") from error
    except OSError as error:
        raise BackupError(f"{file}: {error.strerror or error}") from error
    return found, manifest


def _measure(data: IO[bytes]) -> Member:
    size, digest = 0, hashlib.sha256()
    while chunk := data.read(_CHUNK):
        size += len(chunk)
        digest.update(chunk)
    return Member(size, digest.hexdigest())


def _check_name(file: Path, name: str) -> None:
    """Raises BackupError for a name that would lie outside of a home, or where nothing belongs."""
    path = PurePosixPath(name)
    inside = path.parts[:1] == (_WORKSPACES,) and len(path.parts) > 1 and ".." not in path.parts and "\0" not in name
    if name not in (_DATABASE, _CONFIG) and not (inside and str(path) == name):
        raise _damaged(file, f"{name!r} does not belong into a home")


def _unpack(file: Path, inside: Path, backup: Backup) -> None:
    with contextlib.closing(tarfile.open(file, "r:")) as tar:
        for header in tar:
            data = tar.extractfile(header)
            if header.name == MANIFEST or data is None:
                continue
            target = inside / header.name
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with _opened(target) as out:
                shutil.copyfileobj(data, out, _CHUNK)
            target.chmod(0o600 | header.mode & stat.S_IXUSR)
    for name, member in backup.files.items():
        with (inside / name).open("rb") as written:
            if _measure(written) != member:
                raise JournalError(f"{inside / name}: was not written as it was read", hint="is the disk sound?")
