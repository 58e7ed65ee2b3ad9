"""The verbs that care for a home's history: rm, prune."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mains.cli.app import app
from mains.cli.options import HomeOption, JsonOption, daemon_of
from mains.cli.render import say, say_json
from mains.errors import UsageError

if TYPE_CHECKING:
    from mains.daemon.client import Object

_AGE = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)([smhd])")
_DAYS = {"s": 1 / 86_400, "m": 1 / 1_440, "h": 1 / 24, "d": 1.0}
_NAMED_MAX = 20


@app.command(epilog="Example: mains rm 3 7")
def rm(
    pids: Annotated[list[int], typer.Argument(metavar="PID...", min=1, help="Processes that have ended.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Erase ended processes and the ended trees below them: inputs, context, messages, result.

    The ledger keeps its sums. Nothing is erased when one of them lives, or may still be read by its parent.
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
    """Erase every process that ended long ago, as `rm` would. The daemon does it once a day."""
    _tell(daemon_of(home).prune(parse_age(older_than) if older_than else None, dry_run=dry_run), as_json, dry_run)


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
    named = ", ".join(map(str, pids[:_NAMED_MAX])) + (f" and {len(pids) - _NAMED_MAX:,} more" if pids[_NAMED_MAX:] else "")
    verb = "would be removed" if dry_run else "removed"
    say(f"{verb}: {named}" if pids else f"no process {'would be' if dry_run else 'was'} removed")
    if not removal["erased"]:
        say("there is much to erase: that goes on in the daemon")
