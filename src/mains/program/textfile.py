"""A file of text on this machine: read whole, bounded, UTF-8 only."""

from __future__ import annotations

from pathlib import Path

import msgspec

from mains.errors import NotFoundError, UsageError


class FileText(msgspec.Struct, frozen=True):
    """A file that was read: its name as the model sees it, and its text."""

    name: str
    text: str


def read_text_file(path: Path, bytes_max: int) -> str:
    """The text of `path` with `\\n` as its line ends and without a byte order mark.

    Raises NotFoundError when there is no such file, UsageError when it is no regular file, larger than
    `bytes_max`, not readable, or not UTF-8 text. Each is one line that names the file.
    """
    name = _printable(path)
    try:
        if path.is_dir():
            raise UsageError(f"{name}: is a folder, not a file")
        if not path.is_file():
            raise NotFoundError(f"{name}: no such file")
        with path.open("rb") as file:
            data = file.read(bytes_max + 1)
    except OSError as error:
        raise UsageError(f"{name}: cannot be read: {error.strerror}") from error
    if len(data) > bytes_max:
        raise UsageError(f"{name}: larger than {bytes_max:,} bytes, the most that is taken")
    return _decoded(data, name)


def normalised(text: str) -> str:
    """`text` without a byte order mark, every line end as `\\n`."""
    return text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}").replace("\r\n", "\n").replace("\r", "\n")


def _decoded(data: bytes, name: str) -> str:
    if b"\0" in data:
        raise UsageError(f"{name}: not a text file (it holds zero bytes)")
    try:
        return normalised(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{name}: not UTF-8 text (line {line})") from error


def _printable(path: Path) -> str:
    return str(path).encode("utf-8", "replace").decode().replace("\0", "?")
