"""The verb `top`: what all processes do, live; without a terminal, or with --json, once."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from mains.cli.app import app
from mains.cli.options import HomeOption, JsonOption, daemon_of
from mains.cli.render import console, note, ps_table, say, say_json


@app.command(epilog="Example: mains top")
def top(
    every: Annotated[bool, typer.Option("--all", help="Also those that have ended (the newest).")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Watch and steer all processes, live.

    On a terminal: a live table; ? shows its keys, q ends it. Elsewhere, or with --json: how things stand, once.
    """
    client = daemon_of(home)
    survey = client.survey(every=every)
    if as_json:
        say_json(survey)
    elif sys.stdin.isatty() and sys.stdout.isatty():
        from mains.cli.topscreen import TopScreen

        TopScreen(client.home, survey, every=every).run()
    else:
        _print_once(survey)


def _print_once(survey: Mapping[str, Any]) -> None:
    counts = ", ".join(f"{count} {state}" for state, count in survey["states"].items()) or "none alive"
    engines = ", ".join(f"{each['name']} {each['busy']}/{each['slots']}" for each in survey["engines"])
    say(f"processes: {counts}; engines: {engines}; tokens: {survey['tokens']:,}")
    if survey["processes"]:
        out = console()
        out.print(ps_table(survey["processes"], out.width))
    else:
        note("no process is alive (mains top --all: those that have ended, too)")
