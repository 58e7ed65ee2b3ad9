"""The verbs of files: files ls, log, undo, share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from mains.cli.app import app
from mains.cli.options import HomeOption, JsonOption, PidArgument, complete_pids, daemon_of, find_home
from mains.cli.render import clean, console, note, say, say_json, table
from mains.errors import UsageError

View = Mapping[str, Any]

files_app = typer.Typer(help="Files of processes: what they wrote, and undo.", rich_markup_mode=None)
app.add_typer(files_app, name="files")

PathArgument = Annotated[str, typer.Argument(metavar="[PATH]", help="A path below the workspace.")]


@files_app.command("ls", epilog="Examples: mains files ls 7 src; mains files ls")
def files_ls(
    pid: Annotated[
        int | None,
        typer.Argument(metavar="[PID]", help="Without it: the shared workspaces.", autocompletion=complete_pids),
    ] = None,
    path: PathArgument = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List a folder of a process's workspace; without a process, the shared workspaces of this home."""
    if pid is None:
        from mains.program import is_workspace

        place = find_home(home).workspaces
        names = sorted(each.name for each in place.iterdir() if is_workspace(each.name)) if place.is_dir() else []
        say_json(names) if as_json else say(clean("\n".join(names) or "no shared workspaces", lines=True))
        return
    text = daemon_of(home).files(pid, path)
    say_json(text.splitlines()) if as_json else say(clean(text, lines=True))


@files_app.command("log", epilog="Example: mains files log 7")
def files_log(pid: PidArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List what a process changed, oldest first: each can be undone, the newest first."""
    views = daemon_of(home).files_log(pid)
    if as_json:
        say_json(views)
        return
    if not views:
        note("nothing that is kept")
        return
    undone = {view["undoes"] for view in views}
    rows = [
        (str(view["number"]), _at(view["at_ms"]), view["tool"], view["path"], _sizes(view), _mark(view, undone))
        for view in views
    ]
    out = console()
    heads = ("CHANGE", "AT", "BY", "PATH", "BYTES", "")
    out.print(table(heads, rows, right=("CHANGE", "BYTES"), give="PATH", width=out.width))


@files_app.command("undo", epilog="Examples: mains files undo 7; mains files undo 7 notes/plan.md")
def files_undo(
    pid: PidArgument,
    path: PathArgument = "",
    force: Annotated[
        bool, typer.Option("--force", help="Also when the file was changed again since by somebody else.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring back what stood in a file before the last change that a process made; again: before the one before."""
    done = daemon_of(home).files_undo(pid, path, force=force)
    if as_json:
        say_json(done)
        return
    what = "removed, as it was before" if not done["hash_after"] else f"{done['bytes_after']:,} bytes, as before"
    say(clean(f"{done['path']}: {what} (change {done['undoes']} is undone)"))


@files_app.command("share", epilog="Example: mains files share brief")
def files_share(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Small letters, digits, `.`, `-`, `_`; a letter first.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a shared workspace: programs with `workspace: NAME` work in it, all in the same one."""
    from mains.program import WORKSPACE_RULE, is_workspace

    if not is_workspace(name):
        raise UsageError(f"`{name}` is no name for a shared workspace: {WORKSPACE_RULE}")
    place = find_home(home)
    place.prepare()
    folder = place.workspaces / name
    folder.mkdir(mode=0o700, exist_ok=True)
    say_json({"name": name, "folder": str(folder)}) if as_json else say(clean(f"{name}: {folder}"))


def _at(at_ms: int) -> str:
    import datetime

    return datetime.datetime.fromtimestamp(at_ms / 1_000, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")


def _sizes(view: View) -> str:
    before = f"{view['bytes_before']:,}" if view["hash_before"] else "-"
    after = f"{view['bytes_after']:,}" if view["hash_after"] else "-"
    return f"{before} to {after}"


def _mark(view: View, undone: set[int]) -> str:
    if view["undoes"]:
        return f"undoes {view['undoes']}"
    return "undone" if view["number"] in undone else ""
