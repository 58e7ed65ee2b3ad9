"""The worked example of docs/accounts.md, typed in a fresh home: what the page shows is what is printed.

Dates may differ. Progress lines of `run`, which a terminal shows as a table, are left out.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from tests.unit.daemon_box import Box

from mains.cli.app import run_command

PAGE = Path(__file__).resolve().parents[2] / "docs" / "accounts.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
DATE = re.compile(r"\d{4}-\d\d-\d\d( \d\d:\d\d|T\d\d:\d\d:\d\d[+-]\d\d:\d\d)?")
PROGRESS = re.compile(r"process \d+ say: ")


def blocks(kind: str) -> list[str]:
    example = PAGE.read_text().partition("## A worked example")[2].partition("\n## ")[0]
    return [text for name, text in BLOCK.findall(example) if name == kind]


def steps() -> Iterator[tuple[str, list[str]]]:
    """Each command, and the lines that the page shows below it."""
    for block in blocks("console"):
        for step in block.split("$ ")[1:]:
            command, *lines = step.rstrip("\n").split("\n")
            yield command, [line.rstrip() for line in lines]


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    (made.home.path / "replies.yaml").write_text(blocks("yaml")[0])
    made.home.config.write_text(blocks("toml")[0])
    (made.folder / "say.md").write_text(blocks("markdown")[0])
    yield made
    made.close()


def typed(box: Box, command: str) -> list[str]:
    """What a command prints, on both outputs, in order."""
    now = datetime.now(ZoneInfo("Europe/Berlin"))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed), contextlib.chdir(box.folder):
        run_command(shlex.split(command.replace("2026-11", now.strftime("%Y-%m")))[1:])
    return [line.rstrip() for line in printed.getvalue().splitlines() if not PROGRESS.match(line)]


def fits(shown: str, printed: str) -> bool:
    """Whether two lines say the same, dates apart."""
    return DATE.sub("DATE", shown) == DATE.sub("DATE", printed)


def test_the_worked_example(box: Box) -> None:
    count = 0
    for command, shown in steps():
        printed = typed(box, command)
        assert len(shown) == len(printed) and all(map(fits, shown, printed)), f"{command}\n" + "\n".join(printed)
        count += 1
    assert count >= 10


def test_a_line_that_differs_is_found() -> None:
    assert fits("resets at 2026-11-25T00:00:00+01:00, 12 left", "resets at 2027-01-02T00:00:00+01:00, 12 left")
    assert not fits("2026-11-25 00:00, 12 left", "2026-11-25 00:00, 13 left")
