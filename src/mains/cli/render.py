"""What is printed: lines, JSON, tables. Text that a model or a file wrote is shown without control characters."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mains.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_GAP = 2
_KEPT = 12  # characters of a column, before the next one is cut

View = Mapping[str, Any]


def say(text: str) -> None:
    """A line of standard output."""
    typer.echo(text)


def note(text: str) -> None:
    """A line of standard error."""
    typer.echo(text, err=True)


def say_json(value: object) -> None:
    """A value as one line of JSON."""
    typer.echo(json.dumps(value, ensure_ascii=False))


def say_error(text: str, hint: str = "") -> None:
    """An error as people read it: one line, and one with what to do."""
    note(f"error: {clean(text)}")
    if hint:
        note(f"hint: {clean(hint)}")


def clean(text: str, *, lines: bool = False) -> str:
    """Text that cannot steer a terminal: control characters become a space, or stay line ends when `lines`."""
    kept = "\n\t" if lines else ""
    return "".join(char if char.isprintable() or char in kept else " " for char in text)


def shorten(text: str, characters_max: int) -> str:
    """The beginning of a text, on one line."""
    line = clean(" ".join(text[: 4 * characters_max].split()))
    return line if len(line) <= characters_max else line[: characters_max - 1] + "…"


def text_of(result: Any) -> str:
    """A result as text."""
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, indent=2)


def say_result(result: Any) -> None:
    """A result on standard output: word for word, unless a terminal would obey it."""
    text = text_of(result)
    say(clean(text, lines=True) if sys.stdout.isatty() else text)


def check_output(path: Path) -> None:
    """Raises UsageError when no file can be written at `path`."""
    folder = path.absolute().parent
    if path.is_dir():
        raise UsageError(f"{path}: is a folder, not a file")
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UsageError(f"{path}: its folder does not exist or cannot be written")


def write_output(path: Path, result: Any) -> None:
    """Write a result to a file: the old file stays whole until the new one is. Raises UsageError."""
    target = path.resolve()
    text = text_of(result)
    name = ""
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text if text.endswith("\n") else f"{text}\n")
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o666 & ~_umask())
        Path(name).replace(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def console(*, stderr: bool = False) -> Console:
    """Where tables are printed."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def table(
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Sequence[str] = (),
    give: str | Sequence[str] = (),
    width: int = 80,
) -> Table:
    """A plain table; the columns in `right` hold numbers; those of `give` are cut when `width` is too small, the first
    of them before the next (which leaves it `_KEPT` characters)."""
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    cells = [[clean(cell) for cell in row] for row in rows]
    giving = (give,) if isinstance(give, str) else give
    for each in giving:
        if each in heads:
            _give_way(heads, cells, heads.index(each), width, _KEPT if each != giving[-1] else 0)
    for head in heads:
        shown.add_column(head, justify="right" if head in right else "left", no_wrap=True, overflow="ellipsis")
    for row in cells:
        shown.add_row(*map(Text, row))
    return shown


def _give_way(heads: Sequence[str], cells: list[list[str]], at: int, width: int, least: int) -> None:
    """Shorten one column so that the others have what they need."""
    widest = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    room = width - sum(widest) + widest[at] - _GAP * (len(heads) - 1)
    for row in cells:
        row[at] = shorten(row[at], max(room, len(heads[at]), least))


PS_HEADS = ("PID", "PROGRAM", "ACCOUNT", "STATE", "REASON", "TURNS", "TOKENS", "AGE", "ENGINE")
PS_RIGHT = ("PID", "TURNS", "TOKENS", "AGE")


def ps_table(views: Sequence[View], width: int) -> Table:
    """Processes as `ps` shows them, children below their parents; engines where these are not one, and accounts where
    these are not the home's alone."""
    now = datetime.now(UTC)
    left_out = {"ENGINE"} if len({view["engine"] for view in views}) <= 1 else set()
    left_out |= set() if with_accounts(views) else {"ACCOUNT"}
    rows = [
        {
            "PID": str(view["pid"]),
            "PROGRAM": "  " * depth + shorten(name_of(view), max(8, 28 - 2 * depth)),
            "ACCOUNT": shorten(view["account"], 20),
            "STATE": view["state"],
            "REASON": view["reason"],
            "TURNS": str(view["turns"]),
            "TOKENS": f"{view['tokens']:,}",
            "AGE": age(view["created_at"], now),
            "ENGINE": view["engine"],
        }
        for depth, view in as_tree(views)
    ]
    heads = tuple(head for head in PS_HEADS if head not in left_out)
    cells = [[row[head] for head in heads] for row in rows]
    return table(heads, cells, right=PS_RIGHT, give="REASON", width=width)


def with_accounts(views: Iterable[View]) -> bool:
    """Whether any process is paid for by a named account, and not by the home."""
    return any(view["account"] != "home" for view in views)


def name_of(view: View) -> str:
    """A process by its program, and by what it was started for."""
    return f"{view['program']} {view['label']}" if view.get("label") else str(view["program"])


def as_tree(views: Sequence[View]) -> list[tuple[int, View]]:
    """Each process with its depth, after its parent. One whose parent is not listed stands at the top."""
    listed = {view["pid"] for view in views}
    below: dict[int, list[View]] = {}
    for view in views:
        below.setdefault(view["parent"] if view["parent"] in listed else 0, []).append(view)
    ordered, stack = [], [(0, view) for view in reversed(below.get(0, []))]
    while stack:
        depth, view = stack.pop()
        ordered.append((depth, view))
        stack += [(depth + 1, child) for child in reversed(below.get(view["pid"], []))]
    return ordered


def age(created_at: str, now: datetime) -> str:
    """How long ago, in the largest unit that fits."""
    return span((now - datetime.fromisoformat(created_at)).total_seconds())


def span(seconds: float) -> str:
    """A time span in its largest unit."""
    whole = max(0, int(seconds))
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if whole >= 2 * size:
            return f"{whole // size}{unit}"
    return f"{whole}s"
