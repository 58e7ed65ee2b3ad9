"""How a process ended, or why it cannot go on: what is printed, and the exit code.

The exit code of a process is passed on (1 to 255). One that stands and waits for a person's decision is 3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mains.cli.app import FAILED, STUCK
from mains.cli.render import clean, note, say_json, say_result, shorten, write_output

if TYPE_CHECKING:
    from mains.daemon.client import Client

Outcome = Mapping[str, Any]
_HINTS_MAX = 10


def tell_end(client: Client, settled: bool, outcome: Outcome, *, as_json: bool, output: Path | None = None) -> None:
    """Print an outcome; leaves by `typer.Exit` when the exit code is not 0."""
    if output is not None and outcome["exit_code"] == 0:
        write_output(output, outcome["result"])
        note(f"wrote {output}")
    if as_json:
        say_json(whole(outcome))
    elif outcome["exit_code"] is not None:
        _tell_result(outcome, said=output is not None)
    if settled and outcome["exit_code"] is None:
        _tell_stuck(client, outcome)
    elif not settled and not as_json:
        reason = f" ({clean(outcome['reason'])})" if outcome["reason"] else ""
        note(f"process {outcome['pid']} has not ended: {outcome['state']}{reason}")
    if code := exit_code(settled, outcome):
        raise typer.Exit(code)


def whole(outcome: Outcome) -> dict[str, Any]:
    """An outcome with every count, zeros too."""
    usage = {"input_tokens": 0, "cached_tokens": 0, "output_tokens": 0} | dict(outcome["usage"])
    return {**outcome, "usage": usage}


def exit_code(settled: bool, outcome: Outcome) -> int:
    """What the command exits with."""
    code = outcome["exit_code"]
    if code is None:
        return STUCK if settled else FAILED
    return code if 0 <= code <= 255 else 255


def _tell_result(outcome: Outcome, *, said: bool) -> None:
    if outcome["exit_code"] == 0:
        if not said:
            say_result(outcome["result"])
        return
    if outcome["result"]:
        say_result(outcome["result"])
    reason = f": {clean(outcome['reason'])}" if outcome["reason"] else ""
    note(f"process {outcome['pid']} exited with code {outcome['exit_code']}{reason}")


def _tell_stuck(client: Client, outcome: Outcome) -> None:
    """Why it stands, and the commands that go on."""
    note(f"process {outcome['pid']} cannot go on by itself: {outcome['state']} ({clean(outcome['reason'])})")
    stopped = [view for view in client.below(outcome["pid"]) if view["state"] == "STOPPED"]
    for view in stopped[:_HINTS_MAX]:
        for line in ways_on(client, view):
            note(f"hint: {line}")
    if len(stopped) > _HINTS_MAX:
        note(f"hint: and {len(stopped) - _HINTS_MAX} more: mains ps")


def ways_on(client: Client, view: Mapping[str, Any]) -> list[str]:
    """What a person may do about a stopped process."""
    pid, reason = view["pid"], view["reason"]
    if reason.startswith("in doubt"):
        calls = [call for call in client.show(pid)["open_calls"] if call["state"] == "in doubt"]
        named = "; ".join(shorten(f"{call['tool']} {call['arguments']}", 100) for call in calls[:3])
        return [f"may or may not have happened: {named}", f"mains answer {pid} retry|skip|done=JSON"]
    if reason.startswith("breaker"):
        return [*more_room(reason), f"mains resume {pid} tries again, mains kill {pid} ends it"]
    return [f"mains resume {pid} tries again, mains kill {pid} ends it"]


_LIMIT = re.compile(
    r"the limit of (?:(?P<home>the home)|account (?P<name>\S+)|process (?P<pid>\d+)) \(\S+ (?P<unit>\w+)"
)


def more_room(reason: str) -> list[str]:
    """The command that gives more room to the limit that a breaker names."""
    found = _LIMIT.search(reason)
    if found is None:
        return ["its budget is used up: mains account ls shows the limits, mains topup gives more"]
    account = "home" if found["home"] else found["name"] or found["pid"]
    more = "--tokens N" if found["unit"] == "tokens" else f"--money N{found['unit']}"
    return [f"its budget is used up: mains topup {account} {more} gives more, and it goes on"]
