"""Changes of a TOML file that a person writes, too: comments and order stay; a reader sees the old file or the new.

with edited(home.config) as document:
    put_entry(document, "engines", "qwen", {"kind": "openai", ...})
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mains.errors import ConfigError


@contextlib.contextmanager
def edited(path: Path) -> Iterator[Any]:
    """The file's document, which is written at the end of the block, in one step, readable by its owner only.

    Nothing is written when the block raises. Raises ConfigError when the file is no TOML.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    target = path.resolve()  # the file itself where the path is a link
    try:
        document = tomlkit.parse(target.read_text("utf-8") if target.exists() else "")
        yield document
        text = tomlkit.dumps(document)
    except (TOMLKitError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}", hint="mend the file first; nothing was written") from error
    _replace(target, text)


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


def _replace(target: Path, text: str) -> None:
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
