"""The verb `run`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from mains.cli.app import app
from mains.cli.options import (
    AccountOption,
    BandOption,
    BudgetOption,
    EngineOption,
    FileArgument,
    HomeOption,
    InputsArgument,
    JsonOption,
    SegmentOption,
    StartKeyOption,
    WorkspaceOption,
    daemon_of,
)
from mains.cli.render import check_output, note, say, say_json
from mains.errors import UsageError


@app.command(
    epilog="Example: mains run summary.md document=notes.md language=French",
)
def run(
    file: FileArgument,
    inputs: InputsArgument = None,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait: print the pid.")] = False,
    key: StartKeyOption = "",
    budget: BudgetOption = "",
    engine: EngineOption = "",
    workspace: WorkspaceOption = None,
    output: Annotated[Path | None, typer.Option("--output", metavar="FILE", help="Write the result to a file.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show what the model says, as it comes.")] = False,
    group: Annotated[
        str, typer.Option("--group", metavar="NAME", help="Its process group: kill, pause and ps take it, too.")
    ] = "",
    account: AccountOption = "",
    band: BandOption = None,
    segment: SegmentOption = None,
    now: Annotated[bool, typer.Option("--now", help="Run it once, now, whatever its schedule.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a program and wait for its result. One with a schedule is put on it instead.

    Exits with the code of the process; 3 when it stands and needs a decision; 2 when it was not started.
    """
    from mains.cli.alarms import tell_alarms, warned
    from mains.cli.ending import tell_end
    from mains.cli.follow import display_of, follow

    given = parse_inputs(inputs or ())
    tokens = parse_budget(budget)
    if detach and (output or watch):
        raise UsageError("--detach does not wait: --output and --watch have no effect with it")
    if output is not None:
        check_output(output)
    with daemon_of(home) as client:
        notices = client.watch() if watch else None
        if notices is not None:
            next(notices)  # the watch has begun: nothing that follows is missed
        before = warned(client, account) if not (detach or as_json) else {}
        pid = client.spawn(
            str(file), given, key=key, budget=tokens, engine=engine,
            workspace=str(workspace or ""), cwd=str(Path.cwd()), now=now, group=group,
            account=account, band=band.value if band else "", segments=segment or [],
        )  # fmt: skip
        if detach:
            say_json({"pid": pid}) if as_json else say(str(pid))
            return
        if not now and (schedule := client.show(pid)["schedule"]):
            text = (
                f"process {pid} is a schedule: {schedule['cron']} ({schedule['timezone']}), next run {schedule['next']}"
            )
            say_json({"pid": pid, "schedule": schedule}) if as_json else say(text)
            return
        if watch and not as_json:
            note(f"process {pid}")
        settled, outcome = follow(client, pid, display_of(as_json, notices))
        if not as_json:
            tell_alarms(client, account, before)
        tell_end(client, settled, outcome, as_json=as_json, output=output)


def parse_inputs(given: Sequence[str]) -> dict[str, str]:
    """`name=value` arguments. Raises UsageError."""
    inputs: dict[str, str] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name:
            hint = "a program without `inputs:` takes one, called prompt: prompt='...'"
            raise UsageError(f"`{each[:60]}` is no input: write name=value", hint=hint)
        if name in inputs:
            raise UsageError(f"input `{name[:60]}` is given twice")
        inputs[name] = value
    return inputs


def parse_budget(budget: str) -> int | None:
    """`--budget` in tokens; None when it is not given. Raises UsageError."""
    if not budget:
        return None
    from mains.program.fields import parse_tokens

    try:
        return parse_tokens(budget)
    except UsageError as error:
        raise UsageError(f"--budget: {error}") from error
