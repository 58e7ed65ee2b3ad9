"""The verbs of notes: note ls, show, add, edit, rm."""

from __future__ import annotations

import enum
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from mains.cli.app import app
from mains.cli.options import AccountOption, HomeOption, JsonOption, complete_accounts, daemon_of, given_name
from mains.cli.render import clean, console, note, say, say_json, table
from mains.errors import UsageError

View = Mapping[str, Any]

note_app = typer.Typer(help="Notes: what programs keep beyond one process.", rich_markup_mode=None)
app.add_typer(note_app, name="note")

_TAINTED = "from tools"

NumberArgument = Annotated[int, typer.Argument(metavar="ID", min=1, help="A note; `mains note ls` lists them.")]
ProgramOption = Annotated[str, typer.Option("--program", metavar="NAME", help="Of this program.")]


class Scope(enum.StrEnum):
    """Whom a note is for."""

    PROCESS = "process"
    PROGRAM = "program"
    USER = "user"


@note_app.command("ls", epilog="Examples: mains note ls; mains note ls --scope user --account ann")
def note_ls(
    scope: Annotated[Scope | None, typer.Option("--scope", help="Of this scope.")] = None,
    program: ProgramOption = "",
    account: Annotated[
        str,
        typer.Option(
            "--account",
            metavar="NAME",
            help="Of this account.",
            autocompletion=complete_accounts,
            callback=given_name,
        ),
    ] = "",
    every: Annotated[bool, typer.Option("--all", help="Those that were replaced or forgotten, too.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List notes: whom each is for, and who made it."""
    found = daemon_of(home).notes(scope=scope or "", program=program, account=account, all=int(every))
    if as_json:
        say_json(found)
        return
    rows = [
        (str(v["id"]), v["scope"], _owners(v), _maker(v), _TAINTED if v["tainted"] else "", _line(v)) for v in found
    ]
    out = console()
    heads = ("ID", "SCOPE", "FOR", "BY", "TAINT", "TEXT")
    out.print(table(heads, rows, right=("ID",), give="TEXT", width=out.width))


@note_app.command("show", epilog="Example: mains note show 3")
def note_show(number: NumberArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show a note: its text, who made it and when, and what that had read."""
    _tell(daemon_of(home).note(number), as_json=as_json)


@note_app.command("add", epilog='Example: mains note add "Answer in French." --account ann')
def note_add(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What is to be known.")],
    program: ProgramOption = "",
    account: AccountOption = "",
    pid: Annotated[int | None, typer.Option("--pid", metavar="PID", min=1, help="For this process only.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Note something: for an account and all its programs, for one program, or for one process."""
    view = daemon_of(home).note_order(text=text, program=program, account=account, pid=pid or 0)
    say_json(view) if as_json else say(clean(f"note {view['id']} for {view['scope']} {_owners(view)}"))


@note_app.command("edit", epilog='Examples: mains note edit 3; mains note edit 3 --text "Answer in French."')
def note_edit(
    number: NumberArgument,
    text: Annotated[
        str | None, typer.Option("--text", metavar="TEXT", help="The new text (else $EDITOR opens).")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put your text in place of a note's. It is your note then, and counts as trusted."""
    client = daemon_of(home)
    new = text if text is not None else _edited(client.note(number))
    view = client.note_order(f"/{number}", text=new)
    say_json(view) if as_json else say(f"note {view['id']} stands in place of note {number}")


@note_app.command("rm", epilog="Example: mains note rm 3")
def note_rm(number: NumberArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Take a note away and erase its text. Processes that saw it see it no more from their next turn on."""
    view = daemon_of(home).note_order(f"/{number}/forget")
    say_json(view) if as_json else say(f"note {number} is forgotten")


def _edited(view: View) -> str:
    """The text as the person's editor leaves it. Raises UsageError when there is none, or it was left as it was."""
    hint = "--text gives the new text"
    if view["text"] is None:
        raise UsageError(f"note {view['id']} is {view['state']}: its text is gone")
    if not sys.stdin.isatty():
        raise UsageError("no terminal: no editor can be opened", hint=hint)
    import click

    try:
        text = click.edit(view["text"], extension=".txt")
    except click.ClickException as error:
        raise UsageError(error.message, hint=hint) from error
    if text is None:
        raise UsageError("the editor did not save: nothing was changed", hint=hint)
    return str(text).strip()


def _tell(view: View, *, as_json: bool) -> None:
    if as_json:
        say_json(view)
        return
    say(clean(f"note {view['id']} for {view['scope']} {_owners(view)}: {view['state']}"))
    say(clean(f"  by {_maker(view)}, {view['made_at'][:16].replace('T', ' ')} UTC, event {view['seq']}"))
    if view["tainted"]:
        say(clean(f"  tainted: its maker had read {view['tainted']}"))
    for what, key in (("in place of", "replaces"), ("replaced by", "replaced_by")):
        if view[key]:
            say(f"  {what} note {view[key]}")
    if view["text"] is None:
        note("its text is erased")
        return
    for line in view["text"].splitlines():
        say(clean(f"  | {line}"))


def _owners(view: View) -> str:
    return ", ".join(view["owners"])


def _maker(view: View) -> str:
    if not view["process"]:
        return "a person"
    return f"process {view['process']} ({view['program']}, turn {view['turn']})"


def _line(view: View) -> str:
    return " ".join(view["text"].split()) if view["text"] is not None else f"({view['state']})"
