"""The verb `device accept`: what has changed of a device's tools, and taking it over."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from mains.cli.device import NameArgument, device_app
from mains.cli.options import HomeOption, JsonOption, daemon_of
from mains.cli.render import clean, say, say_json
from mains.errors import UsageError

View = Mapping[str, Any]

_LINES_MAX = 200  # of one tool
_WORDS = {"+": "new", "-": "gone", "~": "changed"}


@device_app.command("accept", epilog="Example: mains device accept git")
def device_accept(
    name: NameArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Take them over without being asked.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how the tools of a device differ from those that you accepted, and take them over."""
    client = daemon_of(home)
    found = client.device_changes(name)
    if as_json and not yes:
        say_json(found)
        return
    if not as_json:
        for change in found["changes"]:
            for line in _told(change):
                say(clean(line))
    if not found["changes"]:
        say_json(found) if as_json else say(f"the tools of {name} are those that you accepted")
        return
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("nothing was taken over", hint=f"`mains device accept {name} --yes` does it")
        if not typer.confirm("take this over?"):
            say("nothing was taken over")
            return
    state = client.device_accept(name, found["digest"])
    say_json(state) if as_json else say(f"device {name}: {state['tools']} tools are accepted")


def _told(change: View) -> Iterator[str]:
    """A tool's name, and how its description and arguments differ, line by line."""
    yield f"{change['name']}: {_WORDS[change['kind']]}"
    if change["kind"] == "-":
        return
    before, after = (_lines(change[side]) for side in ("before", "after"))
    lines = [line for line in difflib.ndiff(before, after) if line[:2] in ("- ", "+ ")]
    yield from (f"  {line}" for line in lines[:_LINES_MAX])
    if len(lines) > _LINES_MAX:
        yield f"  and {len(lines) - _LINES_MAX:,} lines more: `--json` has them"


def _lines(tool: View | None) -> list[str]:
    if tool is None:
        return []
    shape = json.dumps(tool["parameters"], indent=1, sort_keys=True, ensure_ascii=True)
    return [*str(tool["description"]).splitlines(), *shape.splitlines()]
