"""Docs as a test: what a user can set, meet or type is on its page, and every link leads somewhere.

A page that lacks lines fails once, with all of them in the message.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

FENCE = re.compile(r"^(```|~~~).*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)
INLINE_CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(
    r"\]\(\s*<?([^()<>\s]+(?:\([^()\s]*\))?)>?(?:\s+[\"'][^)]*)?\)"  # [text](target "title")
    r"|^\[[^\]\n]+\]:\s*<?(\S+?)>?(?:\s|$)",  # [text]: target
    re.MULTILINE,
)


def read_page(name: str) -> str:
    """The text of a page, or a failure that names it."""
    path = ROOT / name
    if not path.is_file():
        pytest.fail(f"{name} is missing", pytrace=False)
    return path.read_text(encoding="utf-8")


def load(module: str, name: str) -> object:
    """Something public of Mains, or a failure that says what is not there."""
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        pytest.fail(f"{module}.{name} cannot be loaded: {error}", pytrace=False)


def fail_with_missing(page: str, what: str, missing: list[str]) -> None:
    if missing:
        pytest.fail(f"{page} lacks {what} for:\n  " + "\n  ".join(missing), pytrace=False)


# ------------------------------------------------------------------------------------------------- settings


def public_settings() -> list[str]:
    fields: tuple[str, ...] = getattr(load("mains.settings", "Settings"), "__struct_fields__", ())
    return [name for name in fields if not name.startswith("_")]


def lines_missing(page: str, names: list[str]) -> list[str]:
    """The names that stand nowhere in the page as code: `name`."""
    shown = set(INLINE_CODE.findall(page))
    return [name for name in names if f"`{name}`" not in shown]


def test_every_setting_has_its_line() -> None:
    page = read_page("docs/settings.md")
    fail_with_missing("docs/settings.md", "a line (`name`)", lines_missing(page, public_settings()))


# --------------------------------------------------------------------------------------------------- errors


def error_classes() -> list[str]:
    module = importlib.import_module("mains.errors")
    return sorted(
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, BaseException) and value.__module__ == "mains.errors"
    )


def words_missing(page: str, names: list[str]) -> list[str]:
    """The names that stand nowhere in the page as a word of their own."""
    return [name for name in names if not re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", page)]


def test_every_error_has_its_line() -> None:
    page = read_page("docs/errors.md")
    fail_with_missing("docs/errors.md", "a heading or line", words_missing(page, error_classes()))


# ---------------------------------------------------------------------------------------------------- verbs


def verbs_of(command: object, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Every verb that a person can type, with the group before it: `run`, `engine fetch`."""
    children: dict[str, object] | None = getattr(command, "commands", None)
    if children is None:
        yield " ".join(path)
        return
    for name, child in sorted(children.items()):
        if not getattr(child, "hidden", False):
            yield from verbs_of(child, (*path, name))


def headings_missing(page: str, verbs: list[str]) -> list[str]:
    """The verbs that begin no heading. `## mains run PROGRAM` counts for `run`, also in backticks."""
    headings = [
        re.sub(r"^mains\s+", "", line.lstrip("#").replace("`", "").strip()) + " "
        for line in FENCE.sub("", page).splitlines()
        if re.match(r"#{1,6}\s", line)
    ]
    return [verb for verb in verbs if not any(heading.startswith(f"{verb} ") for heading in headings)]


def test_every_verb_has_its_heading() -> None:
    from typer.main import get_command

    page = read_page("docs/cli.md")
    app = load("mains.cli", "app")
    verbs = list(verbs_of(get_command(app)))  # type: ignore[arg-type] # loaded by name, so its type is not known
    assert verbs, "mains.cli.app has no verbs"
    fail_with_missing("docs/cli.md", "a heading (## `mains VERB`)", headings_missing(page, verbs))


# ---------------------------------------------------------------------------------------------------- links


def relative_links(text: str) -> Iterator[str]:
    """Where the links of a page lead, without those to other hosts and to places in the page itself."""
    prose = INLINE_CODE.sub("", FENCE.sub("", text))
    for inline, reference in LINK.findall(prose):
        target = (inline or reference).partition("#")[0]
        if target and not re.match(r"[a-z][a-z0-9+.-]*:|//", target, re.IGNORECASE):
            yield target


def dead_links(page: Path, text: str) -> Iterator[str]:
    for target in relative_links(text):
        start = ROOT if target.startswith("/") else page.parent
        if not (start / target.lstrip("/")).exists():
            yield f"{page.relative_to(ROOT).as_posix()} -> {target}"


def test_every_link_leads_somewhere() -> None:
    read_page("README.md")
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    dead = [link for page in pages for link in dead_links(page, page.read_text(encoding="utf-8"))]
    if dead:
        pytest.fail("links that lead nowhere:\n  " + "\n  ".join(dead), pytrace=False)


# --------------------------------------------------------------------------------- the checks can fail, too


def test_a_missing_line_is_found() -> None:
    assert lines_missing("| `turns_max` | 200 |", ["turns_max", "turns"]) == ["turns"]
    assert words_missing("### UsageError", ["UsageError", "Usage"]) == ["Usage"]


def test_a_missing_heading_is_found() -> None:
    page = "## `mains run PROGRAM`\n## engine fetch\n```\n# ps\n```\nkill\n"
    assert headings_missing(page, ["run", "engine fetch", "ps", "kill", "engine"]) == ["ps", "kill"]


def test_a_dead_link_is_found() -> None:
    text = "[a](Makefile) [b](gone.md#x) [c](https://example.org) `[d](code.md)` [e](#here)\n\n[f]: lost.md\n"
    assert list(dead_links(ROOT / "README.md", text)) == ["README.md -> gone.md", "README.md -> lost.md"]
