"""The verbs that care for a home: rm, prune, backup, restore."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mains.cli.app import app
from mains.cli.options import HomeOption, JsonOption, daemon_of, find_home
from mains.cli.render import clean, note, say, say_json
from mains.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from mains.daemon.client import Object
    from mains.home import Home

_AGE = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)([smhd])")
_DAYS = {"s": 1 / 86_400, "m": 1 / 1_440, "h": 1 / 24, "d": 1.0}
_NAMED_MAX = 20


@app.command(epilog="Example: mains rm 3 7")
def rm(
    pids: Annotated[list[int], typer.Argument(metavar="PID...", min=1, help="Processes that have ended.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Erase ended processes and the ended trees below them.

    Their inputs, context, messages and result are overwritten; the ledger keeps its sums. Nothing is erased when one of
    them lives, or may still be read by its parent.
    """
    _tell(daemon_of(home).remove(pids), as_json)


@app.command(epilog="Examples: mains prune --dry-run; mains prune --older-than 12h")
def prune(
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="AGE", help="30d, 12h, 5m, 10s after the end (else retention_days).")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which processes that would be.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Erase every process that ended long ago, as `rm` would.

    The daemon does it once a day.
    """
    _tell(daemon_of(home).prune(parse_age(older_than) if older_than else None, dry_run=dry_run), as_json, dry_run)


@app.command(epilog="Example: mains backup mains-monday.tar")
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write: a tar, for your eyes only.")],
    workspaces: Annotated[bool, typer.Option("--workspaces", help="With the folders of the processes.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a home into one file, also while agents work.

    The file holds the journal, as of one moment, and mains.toml, and no secrets. It is verified before it is called
    done.
    """
    from mains.backup import write

    made = write(find_home(home), file, workspaces=workspaces, replace=force)
    total = sum(member.bytes for member in made.files.values())
    if as_json:
        files = {name: member.bytes for name, member in made.files.items()}
        say_json({"file": str(file.absolute()), "events": made.events, "files": files, "skipped": made.skipped})
        return
    say(clean(f"{file}: {len(made.files)} files, {total:,} bytes, up to event {made.events:,}; verified"))
    for line in _secrets_told(find_home(home)):
        note(clean(line))
    if made.skipped:
        note(f"note: {made.skipped} links and devices in the workspaces were left out")


@app.command(epilog="Example: mains restore mains-monday.tar --home /srv/mains")
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `mains backup` wrote.")],
    home: Annotated[
        Path | None, typer.Option("--home", metavar="NEW", help="The home to make: absent, or an empty folder.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a new home from a backup, after all of it was verified.

    It starts nothing.
    """
    from mains.backup import restore as restore_home

    place = find_home(home)
    made = restore_home(file, place)
    if as_json:
        say_json({"home": str(place.path), "from": made.home, "events": made.events, "files": len(made.files)})
    else:
        say(clean(f"{place.path}: {len(made.files)} files, up to event {made.events:,}; journal and ledger verify"))
    note("warning: the home of the backup and this one hold the same processes. If both run, all happens twice.")
    note("What was at work when the backup was made will be in doubt, as after a crash.")
    if made.home != str(place.path):
        note(clean(f"Processes keep the paths of their workspaces: {made.home}/workspaces/..."))


def _secrets_told(home: Home) -> list[str]:
    """What a backup lacks of the home's secrets, and what of them it holds all the same."""
    from mains.bus.spec import load_devices, plain_secrets
    from mains.vault import read_entries

    lines = []
    try:
        if entries := read_entries(home):
            lines += [f"note: secrets are not in it ({len(entries)} are kept): set them again after a restore"]
        specs = load_devices(home.document().get("devices", {}), str(home.config))
    except ConfigError as error:
        return [*lines, f"note: {error}"]
    plain = [f"{name}.{each}" for name, spec in specs.items() for each in plain_secrets(spec)]
    if plain:
        lines += [f"warning: mains.toml is in it, with these in PLAINTEXT: {', '.join(plain)}"]
    return lines


def parse_age(text: str) -> float:
    """An age in days: `30d`, `12h`, `5m`, `10s`. Raises UsageError."""
    found = _AGE.fullmatch(text.strip().lower())
    if not found:
        raise UsageError(f"`{text[:40]}` is no age: write 30d, 12h, 5m or 10s")
    return float(found[1]) * _DAYS[found[2]]


def _tell(removal: Object, as_json: bool, dry_run: bool = False) -> None:
    if as_json:
        say_json(removal | {"dry_run": dry_run} if dry_run else removal)
        return
    pids: list[Any] = sorted(removal["pids"])
    named = ", ".join(map(str, pids[:_NAMED_MAX])) + (
        f" and {len(pids) - _NAMED_MAX:,} more" if pids[_NAMED_MAX:] else ""
    )
    verb = "would be removed" if dry_run else "removed"
    say(f"{verb}: {named}" if pids else f"no process {'would be' if dry_run else 'was'} removed")
    if not removal["erased"]:
        say("there is much to erase: that goes on in the daemon")
