"""The verbs that steer processes: send, answer, wait, pause, resume, kill, restart, exec, fork."""

from __future__ import annotations

import enum
import math
from pathlib import Path
from typing import Annotated

import typer

from mains.cli.app import app
from mains.cli.options import (
    AtOption,
    GroupOption,
    HomeOption,
    InputsArgument,
    JsonOption,
    KeyOption,
    OptionalPid,
    PidArgument,
    daemon_of,
)
from mains.cli.render import say, say_json
from mains.cli.run import parse_inputs
from mains.errors import UsageError


class Ending(enum.StrEnum):
    """How `kill` ends a process."""

    TERM = "TERM"
    KILL = "KILL"
    INT = "INT"


@app.command(epilog="Example: mains send 3 'The deadline is Friday.'")
def send(
    pid: PidArgument,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The message.")],
    rule: Annotated[
        bool, typer.Option("--rule", help="It stays in every frame, however long the process goes on.")
    ] = False,
    key: KeyOption = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a message into the mailbox of a process."""
    number = daemon_of(home).send(pid, text, key, rule=rule)
    _say(as_json, {"pid": pid, "message": number}, f"message {number} is in the mailbox of process {pid}")


@app.command(epilog="Examples: mains answer 3 yes; mains answer 3 name=Ann age=7; mains answer 3 'done={\"id\": 7}'")
def answer(
    pid: PidArgument,
    text: Annotated[
        list[str],
        typer.Argument(
            metavar="TEXT...",
            help="The answer; for a doubt: retry, skip or done=JSON; for a device: FIELD=VALUE ..., JSON, or decline.",
        ),
    ],
    call: Annotated[
        str, typer.Option("--call", metavar="ID", help="Only if it still asks this (`mains show PID` has the ID).")
    ] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer a process that asks, or that is in doubt.

    A call that was in flight when the kernel died may or may not have happened: decide it.
    """
    daemon_of(home).answer(pid, " ".join(text), call)
    _say(as_json, {"pid": pid}, f"process {pid} has its answer")


@app.command(epilog="Example: mains wait 3 --timeout 60")
def wait(
    pid: PidArgument,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=0, help="Wait no longer; then exit with 1.")
    ] = math.inf,
    output: Annotated[Path | None, typer.Option("--output", metavar="FILE", help="Write the result to a file.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Wait until a process has ended, and print its result.

    Exits with the code of the process; 3 when it stands and needs a decision; 1 when the time is over.
    """
    from mains.cli.ending import tell_end
    from mains.cli.render import check_output

    if output is not None:
        check_output(output)
    with daemon_of(home) as client:
        settled, outcome = client.wait(pid, timeout)
        tell_end(client, settled, outcome, as_json=as_json, output=output)


@app.command(epilog="Examples: mains pause 3; mains pause --group nightly")
def pause(
    pid: OptionalPid = None, group: GroupOption = "", home: HomeOption = None, as_json: JsonOption = False
) -> None:
    """Stop a process and all below it, after the calls in flight."""
    _signal(home, pid, group, "STOP", as_json, "pauses")


@app.command(epilog="Examples: mains resume 3; mains resume --group nightly")
def resume(
    pid: OptionalPid = None, group: GroupOption = "", home: HomeOption = None, as_json: JsonOption = False
) -> None:
    """Let a process go on that is paused or stopped.

    One that was stopped by an error, or by its breaker, tries again.
    """
    _signal(home, pid, group, "CONT", as_json, "goes on")


@app.command(epilog="Examples: mains kill 3 --signal KILL; mains kill --group nightly")
def kill(
    pid: OptionalPid = None,
    signal: Annotated[
        Ending,
        typer.Option("--signal", help="TERM lets calls in flight end (for a while), KILL does not; INT ends a turn."),
    ] = Ending.TERM,
    group: GroupOption = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a process and all below it.

    INT ends the turn of a conversation and nothing else.
    """
    verb = {Ending.TERM: "is told to end", Ending.KILL: "is killed", Ending.INT: "is interrupted"}[signal]
    _signal(home, pid, group, signal.value, as_json, verb)


@app.command(epilog="Example: mains restart 3")
def restart(pid: PidArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Let a process run what its program's file says now.

    It keeps its context, inputs, budget and children, and takes the new version at its next turn.
    """
    changed = daemon_of(home).restart(pid)
    text = f"process {pid} takes the new version at its next turn" if changed else f"process {pid} runs this version"
    _say(as_json, {"pid": pid, "changed": changed}, text)


@app.command("exec", epilog="Example: mains exec 3 reviewer.md language=French")
def exec_(
    pid: PidArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The program that it is to run.")],
    inputs: InputsArgument = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a process run another program, with everything said so far.

    It keeps its context, budget and children, and becomes the other program at its next turn.
    """
    changed = daemon_of(home).exec(pid, str(file), parse_inputs(inputs or ()), str(Path.cwd()))
    text = f"process {pid} runs {file.name} from its next turn on" if changed else f"process {pid} runs just that"
    _say(as_json, {"pid": pid, "changed": changed}, text)


@app.command(epilog="Examples: mains fork 3; mains fork 3 --at 120")
def fork(pid: PidArgument, at: AtOption = None, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Start a process with the context of another.

    It has the context as of the last whole turn (with --at, until that event), and spends from the limits of the other.
    """
    new = daemon_of(home).fork(pid, at)
    since = "" if at is None else f" as of event {at:,}"
    _say(as_json, {"pid": new}, f"process {new} is a fork of {pid}{since}")


def _signal(home: Path | None, pid: int | None, group: str, signal: str, as_json: bool, verb: str) -> None:
    if (pid is None) == (not group):
        raise UsageError("name one process, or a group with --group", hint="`mains ps` lists both")
    client = daemon_of(home)
    if pid is None:
        changed = client.signal_group(group, signal)
        text = f"group {group} {verb}: {len(changed)} processes" if changed else f"group {group} is so already"
        _say(as_json, {"group": group, "changed": changed}, text)
        return
    changed = client.signal(pid, signal)
    more = f" (and {len(changed) - 1} below it)" if len(changed) > 1 else ""
    text = f"process {pid} {verb}{more}" if changed else f"process {pid} is so already: nothing changed"
    _say(as_json, {"pid": pid, "changed": changed}, text)


def _say(as_json: bool, value: object, text: str) -> None:
    if as_json:
        say_json(value)
    else:
        say(text)
