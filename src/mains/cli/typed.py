"""What a person types in a conversation: when it is whole, what it means, and the file that remembers it.

The file `history` of a home has mode 0600. When a terminal opens it with more than `history_bytes_max` bytes, only the
newest half of that stays.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mains.errors import ConfigError

if TYPE_CHECKING:
    from prompt_toolkit.history import FileHistory

_BLOCK = '"""'


def goes_on(text: str) -> str | None:
    """The text to go on with, when Enter means another line: a backslash at its end, or an open block of quotes."""
    if text.endswith("\\") and not text.endswith("\\\\"):
        return f"{text[:-1]}\n"
    if text.startswith(_BLOCK) and (len(text) < 2 * len(_BLOCK) or not text.rstrip().endswith(_BLOCK)):
        return f"{text}\n"
    return None


def meant(text: str) -> str:
    """The message in what was typed: without the quotes of a block, and without space around it."""
    text = text.strip()
    if text.startswith(_BLOCK) and text.endswith(_BLOCK) and len(text) >= 2 * len(_BLOCK):
        text = text[len(_BLOCK) : -len(_BLOCK)].strip()
    return text


def open_history(path: Path, bytes_max: int) -> FileHistory:
    """The history in this file, which is made, or cut, first. Raises ConfigError."""
    from prompt_toolkit.history import FileHistory

    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            os.fchmod(file.fileno(), 0o600)
            if file.seek(0, os.SEEK_END) > bytes_max:
                file.seek(-bytes_max // 2, os.SEEK_END)
                kept = file.read()
                kept = kept[max(0, kept.find(b"\n# ")) :]  # from the beginning of an entry
                file.seek(0)
                file.write(kept)
                file.truncate()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", hint="remove it: a new one is made") from error
    return FileHistory(str(path))
