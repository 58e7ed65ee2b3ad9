"""The verbs of shared segments: segment create, append, ls, show, rm."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from mains.cli.app import app
from mains.cli.options import HomeOption, JsonOption, complete_accounts, daemon_of, find_home, given_name, settings_of
from mains.cli.render import clean, console, note, say, say_json, shorten, table
from mains.errors import DaemonError, UsageError
from mains.home import Home

View = Mapping[str, Any]

segment_app = typer.Typer(help="Shared segments: pages that many processes map.", rich_markup_mode=None)
app.add_typer(segment_app, name="segment")

_COMPLETE_S = 1.0
_MAPPERS_SHOWN = 8


def complete_segments(incomplete: str) -> list[str]:
    """Names of segments, for shell completion; none when no daemon runs."""
    from mains.daemon.client import Client
    from mains.settings import Settings

    quick = Settings(request_timeout_s=_COMPLETE_S)
    try:
        names = [str(view["name"]) for view in Client(Home.find(), quick, start=False).segments()]
    except DaemonError:
        return []
    return [name for name in names if name.startswith(incomplete)]


NameArgument = Annotated[
    str,
    typer.Argument(metavar="NAME", help="A segment; `mains segment ls` lists them.", autocompletion=complete_segments),
]
FileOption = Annotated[
    Path | None, typer.Option("--file", metavar="FILE", help="A file of text; its lines are kept whole in pages.")
]
TextOption = Annotated[str, typer.Option("--text", metavar="TEXT", help="The text itself.")]


@segment_app.command("create", epilog="Example: mains segment create brief --file brief.md")
def segment_create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Small letters, digits, `.`, `-`, `_`; a letter first.")],
    file: FileOption = None,
    text: TextOption = "",
    append_only: Annotated[
        bool, typer.Option("--append-only", help="More may be appended later, and by programs that are granted it.")
    ] = False,
    account: Annotated[
        str,
        typer.Option(
            "--account",
            metavar="NAME",
            help="Whose it is: this account and all below it may map it (else home).",
            autocompletion=complete_accounts,
            callback=given_name,
        ),
    ] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a segment; without --append-only its content is what is given now, for ever."""
    given = _given(file, text, home)
    made = daemon_of(home).segment_make(name, given, append_only=append_only, account=account)
    say_json(made) if as_json else say(clean(_about(made)))


@segment_app.command("append", epilog="Example: mains segment append findings --text 'The cache is cold.'")
def segment_append(
    name: NameArgument,
    file: FileOption = None,
    text: TextOption = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Append a text to a segment: who maps it reads it before the next model call."""
    grown = daemon_of(home).segment_append(name, _given(file, text, home))
    say_json(grown) if as_json else say(clean(_about(grown)))


@segment_app.command("ls", epilog="Example: mains segment ls")
def segment_ls(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the segments."""
    views = daemon_of(home).segments()
    if as_json:
        say_json(views)
        return
    rows = [(view["name"], view["account"], view["mode"], f"{view['pages']:,}", f"{view['bytes']:,}") for view in views]
    out = console()
    heads = ("SEGMENT", "ACCOUNT", "MODE", "PAGES", "BYTES")
    out.print(table(heads, rows, right=("PAGES", "BYTES"), give="SEGMENT", width=out.width))


@segment_app.command("show", epilog="Examples: mains segment show brief; mains segment show brief --page 0")
def segment_show(
    name: NameArgument,
    page: Annotated[int | None, typer.Option("--page", metavar="N", min=0, help="The text of this page.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a segment: who maps it, its pages, and who appended each; or the text of one page."""
    client = daemon_of(home)
    view = client.segment(name) if page is None else client.segment(name, start=page, most=1)
    if page is not None and not view["shown"]:
        raise UsageError(f"segment {name} has no page {page}: it is empty")
    if as_json:
        say_json(view)
        return
    if page is not None:
        say(clean(view["shown"][0]["text"].rstrip("\n")))
        return
    say(clean(_about(view["segment"])))
    pids = view["mapped_by"]
    more = f" and {len(pids) - _MAPPERS_SHOWN:,} more" if len(pids) > _MAPPERS_SHOWN else ""
    say(f"mapped by: {', '.join(map(str, pids[:_MAPPERS_SHOWN])) or 'no live process'}{more}")
    out = console()
    rows = [
        (str(each["number"]), f"{each['bytes']:,}", each["at"][:19].replace("T", " "), _author(each), _head(each))
        for each in view["shown"]
    ]
    out.print(
        table(("PAGE", "BYTES", "AT", "BY", "BEGINS"), rows, right=("PAGE", "BYTES"), give="BEGINS", width=out.width)
    )
    if len(rows) < view["segment"]["pages"]:
        note(f"{view['segment']['pages'] - len(rows):,} more pages: --page N shows each")


@segment_app.command("rm", epilog="Example: mains segment rm brief")
def segment_rm(name: NameArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Remove a segment that no live process maps. What a process has read of it, it keeps."""
    gone = daemon_of(home).segment_remove(name)
    if as_json:
        say_json(gone)
        return
    left = "" if gone["erased"] else "; the rest is erased in the background"
    say(clean(f"segment {gone['name']} is removed ({gone['pages']:,} pages){left}"))


def _given(file: Path | None, text: str, home: Path | None) -> str:
    """The text that is meant. Raises UsageError, NotFoundError: a file that is no text."""
    if file is not None and text:
        raise UsageError("give either --file or --text")
    if file is None:
        return text
    from mains.program import read_text_file

    return read_text_file(file, settings_of(find_home(home)).input_bytes_max)


def _about(view: View) -> str:
    size = f"{view['pages']:,} pages, {view['bytes']:,} bytes"
    return f"segment {view['name']} (account {view['account']}, {view['mode']}): {size}"


def _author(page: View) -> str:
    return f"process {page['process']} ({page['program']})" if page["process"] else "a person"


def _head(page: View) -> str:
    return shorten(next((line for line in page["text"].splitlines() if line.strip()), ""), 60)
