"""The verb that compares two processes: diff."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from mains.cli.app import app
from mains.cli.options import HomeOption, JsonOption, PidArgument, complete_pids, daemon_of
from mains.cli.render import clean, console, say, say_json, shorten

View = Mapping[str, Any]

_WORDS_MIN = 20


@app.command(epilog="Example: mains diff 3 9 --full")
def diff(
    pid: PidArgument,
    other: Annotated[
        int, typer.Argument(metavar="PID2", min=1, help="The other process.", autocompletion=complete_pids)
    ],
    full: Annotated[bool, typer.Option("--full", help="Show the texts that differ, line by line.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show where the contexts of two processes part.

    Their first pages are shared; then what each has behind them, and how their programs, inputs and tools differ.
    """
    found = daemon_of(home).diff(pid, other, full=full)
    if as_json:
        say_json(found)
        return
    for line in heading(found):
        say(clean(line))
    for line in texts(found) if full else listed(found, console().width):
        say(clean(line))


def heading(found: View) -> Iterator[str]:
    """What is shared, and what differs besides the pages."""
    one, other = found["one"], found["other"]
    a, b = one["pid"], other["pid"]
    what = "pages" if found["same_opening"] else "pages behind their openings, which differ"
    yield f"processes {a} and {b} share {found['shared']:,} {what}"
    if not one["behind"] and not other["behind"]:
        yield "nothing else was said in either"
    if not found["same_frame"] and not (one["behind"] or other["behind"]):
        yield "their frames differ: something was evicted from one of them, or their programs differ"
    for each in found["differs"]:
        name = f"{each['what']} {each['name']}".strip()
        yield f"{name}: {a}: {_told(each['one'])}"
        yield f"{' ' * len(name)}  {b}: {_told(each['other'])}"


def _told(value: str | None) -> str:
    return "none" if value is None else shorten(value, 200)


def listed(found: View, width: int) -> Iterator[str]:
    """What each has behind the shared pages, a line for each page."""
    sides = [found["one"], found["other"]]
    for side in sides if any(side["behind"] for side in sides) else []:
        if not side["behind"]:
            yield f"process {side['pid']} ({side['program']}) has nothing more"
            continue
        yield f"process {side['pid']} ({side['program']}) has {len(side['behind']):,} more"
        for page in side["behind"]:
            begins = f"  {_name(page)}: "
            yield begins + shorten(page["words"], max(_WORDS_MIN, width - len(begins)))


def _name(page: View) -> str:
    return f"{page['handle'] or 'opening'} {page['kind']} ({page['who']})"


def _title(page: View | None) -> str:
    return _name(page) if page else "nothing"


def texts(found: View) -> Iterator[str]:
    """The texts that differ at the same place, as a unified diff; all of one that has nothing beside it."""
    from difflib import unified_diff

    one, other = ({page["position"]: page for page in found[side]["behind"]} for side in ("one", "other"))
    for position in sorted({*one, *other}):
        a, b = one.get(position), other.get(position)
        if a and b and a["page"] == b["page"]:
            continue
        titles = (f"process {found['one']['pid']} {_title(a)}", f"process {found['other']['pid']} {_title(b)}")
        left, right = (page["text"].splitlines() if page else [] for page in (a, b))
        yield from unified_diff(left, right, titles[0], titles[1], lineterm="")
