"""The book as a test: each kernel file has its chapter, and what a chapter sends its reader to is there.

A `**Code:**` paragraph names files (`kernel/tx.py`, from `src/mains` or from the root) and what to read in them:
`Tx.happen`, of a file that is named beside it, or `calls.end`, of a module of the kernel.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "docs" / "book"
SOURCE = ROOT / "src" / "mains"

PARAGRAPH = re.compile(r"^\*\*Code:\*\*(.*?)(?:\n\n|\Z)", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")
ENTRY = re.compile(r"^(\d+)\. \[([^\]]+)\]\(([^)]+)\)$", re.MULTILINE)
TITLE = re.compile(r"^# (\d+)\. (.+)$", re.MULTILINE)


def chapters() -> list[Path]:
    return sorted(path for path in BOOK.glob("*.md") if path.name != "README.md")


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def sent_to(page: str) -> list[str]:
    """What stands as code on the Code: lines of a chapter."""
    return [name for paragraph in PARAGRAPH.findall(page) for name in CODE.findall(paragraph)]


def is_file(name: str) -> bool:
    return "/" in name


def place_of(name: str) -> Path | None:
    """Where a file or a folder that a chapter names is."""
    return next((place for place in (SOURCE / name, ROOT / name) if place.exists()), None)


def has(module: str, name: str) -> bool:
    """Whether a module of Mains has something of this name (with dots: something within it)."""
    found: object = importlib.import_module(module)
    for part in name.split("."):
        if not hasattr(found, part):
            return False
        found = getattr(found, part)
    return True


def modules_of(names: list[str]) -> list[str]:
    """The modules among the files that a chapter names."""
    paths = [name for name in names if name.endswith(".py") and (SOURCE / name).is_file()]
    return [".".join(("mains", *Path(path).with_suffix("").parts)) for path in paths]


def dead_ends(page: str) -> Iterator[str]:
    """What a chapter sends its reader to, and what is not there."""
    names = sent_to(page)
    modules = modules_of(names)
    for name in names:
        if is_file(name):
            if place_of(name) is None:
                yield name
            continue
        first, _, rest = name.partition(".")
        own = rest and (SOURCE / "kernel" / f"{first}.py").is_file() and has(f"mains.kernel.{first}", rest)
        if not own and not any(has(module, name) for module in modules):
            yield name


def fail_with(what: str, found: list[str]) -> None:
    if found:
        pytest.fail(f"{what}:\n  " + "\n  ".join(found), pytrace=False)


def test_every_kernel_file_has_its_chapter() -> None:
    named = {name for path in chapters() for name in sent_to(text_of(path))}
    files = [path.relative_to(SOURCE).as_posix() for path in sorted((SOURCE / "kernel").glob("*.py"))]
    assert len(files) > 30
    fail_with("kernel files that no chapter of docs/book names on a Code: line", [f for f in files if f not in named])


def test_what_a_chapter_names_is_there() -> None:
    found = [f"{path.name}: `{name}`" for path in chapters() for name in dead_ends(text_of(path))]
    fail_with("named on a Code: line, and not there", found)


def test_every_chapter_says_where_the_code_is_and_how_the_world_does_it() -> None:
    parts = ("\n**Code:**", "\n**Real world:**")
    found = [f"{path.name} lacks {part.strip()}" for path in chapters() for part in parts if part not in text_of(path)]
    fail_with("chapters without a part", found)


def test_the_index_lists_every_chapter_in_order() -> None:
    index = ENTRY.findall(text_of(BOOK / "README.md"))
    titles = [(*TITLE.findall(text_of(path))[0], path.name) for path in chapters()]
    assert index == titles
    assert [int(number) for number, _, _ in index] == list(range(1, len(index) + 1))
    assert all(name.startswith(f"{int(number):02}-") for number, _, name in index)


# --------------------------------------------------------------------------------- the checks can fail, too


def test_a_dead_end_is_found() -> None:
    page = (
        "# 1. X\n\n`not_here`\n\n**Code:** `kernel/tx.py` (`Tx.happen`, `Tx.gone`, `row_crc`), `calls.end`,\n"
        "`calls.gone`, `kernel/gone.py`, `tests/sim/`, `tests/gone/`, `apply_nothing`.\n\n**Real world:** `fork(2)`\n"
    )
    assert list(dead_ends(page)) == ["Tx.gone", "calls.gone", "kernel/gone.py", "tests/gone/", "apply_nothing"]


def test_a_file_that_is_only_mentioned_has_no_chapter() -> None:
    assert sent_to("See `kernel/tx.py`.\n\n**Code:** `kernel/fold.py`.\n\nAnd `kernel/event.py`.") == ["kernel/fold.py"]
