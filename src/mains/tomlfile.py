"""Changes of a TOML file that a person writes, too: comments and order stay; a reader sees the old file or the new.

with edited(home.config) as document:
    put_entry(document, "engines", "qwen", {"kind": "openai", ...})
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mains.errors import ConfigError, DiskFullError

_WAIT_S = 10.0
_LOOK_S = 0.02


@contextlib.contextmanager
def edited(path: Path) -> Iterator[Any]:
    """The file's document, which is written at the end of the block, in one step, readable by its owner only.

    Whoever comes second waits, and sees what the first has written. Nothing is written when the block raises. Raises
    ConfigError when the file is no TOML, cannot be written, or is kept by another process for `_WAIT_S`; DiskFullError.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    target = path.resolve()  # the file itself where the path is a link
    with alone(target):
        try:
            document = tomlkit.parse(target.read_text("utf-8") if target.exists() else "")
            yield document
            text = tomlkit.dumps(document)
            tomllib.loads(text)  # what cannot be read again is not written
        except (TOMLKitError, UnicodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{path}: {error}", hint="mend the file first; nothing was written") from error
        except OSError as error:
            raise ConfigError(f"{path}: it cannot be read: {error.strerror or error}") from error
        try:
            replace_file(target, text)
        except (OSError, UnicodeError) as error:
            if getattr(error, "errno", 0) in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFullError(
                    f"{path}: it cannot be written: the disk is full", hint="nothing was changed"
                ) from error
            why = getattr(error, "strerror", None) or error
            raise ConfigError(f"{path}: it cannot be written: {why}", hint="nothing was changed") from error


def stamp_of(path: Path) -> tuple[int, ...] | None:
    """What changes whenever a file does, also when its times are set back; None: it is not there, or not to be seen."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev


@contextlib.contextmanager
def alone(target: Path) -> Iterator[None]:
    """Hold the folder's lock (flock): the file itself is replaced, and a lock of it would be one of the old file."""
    try:
        folder, end_s = os.open(target.parent, os.O_RDONLY), time.monotonic() + _WAIT_S
    except OSError as error:
        raise ConfigError(f"{target}: its folder cannot be opened: {error.strerror or error}") from error
    try:
        while True:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() >= end_s:
                    raise ConfigError(f"{target}: another process is changing it", hint="try again") from error
            time.sleep(_LOOK_S)
        yield
    finally:
        os.close(folder)


def put_entry(document: Any, section: str, name: str, fields: Mapping[str, Any]) -> None:
    """Put `[section.name]` into a document; one that is there keeps its comments and its keys' order.

    Raises ConfigError when `section` is something else than a table.
    """
    entries = _section(document, section)
    if not isinstance(entries.get(name), Mapping):
        entries[name] = {}
    entry = entries[name]
    for key in [key for key in entry if key not in fields]:
        del entry[key]
    for key, value in fields.items():
        if entry.get(key) != value:
            entry[key] = value


def drop_entry(document: Any, section: str, name: str) -> bool:
    """Take `[section.name]` out of a document; whether it was there. Raises ConfigError as `put_entry` does."""
    entries = _section(document, section)
    if name not in entries:
        return False
    del entries[name]
    return True


def _section(document: Any, section: str) -> Any:
    import tomlkit

    if document.get(section) is None:
        document[section] = tomlkit.table(is_super_table=True)
    if not isinstance(document[section], Mapping):
        raise ConfigError(f"mains.toml: `{section}` is no table")
    return document[section]


def replace_file(target: Path, text: str) -> None:
    """Write a file in one step, readable by its owner only. Raises OSError."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
