"""The verbs of conversations: chat, attach."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    PidArgument,
    StartKeyOption,
    WorkspaceOption,
    daemon_of,
    settings_of,
)
from mains.cli.render import say_json
from mains.cli.run import parse_budget, parse_inputs
from mains.errors import UsageError

if TYPE_CHECKING:
    from mains.daemon.client import Client


@app.command(epilog="Examples: mains chat tutor.md subject=physics; echo 'What is heat?' | mains chat tutor.md")
def chat(
    file: FileArgument,
    inputs: InputsArgument = None,
    key: StartKeyOption = "",
    budget: BudgetOption = "",
    engine: EngineOption = "",
    workspace: WorkspaceOption = None,
    account: AccountOption = "",
    band: BandOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Talk with a program.

    The process waits for the next message, also when you have left. When standard input is no terminal, all of it is
    one message: the reply is printed, and the process has ended.
    """
    given = parse_inputs(inputs or ())
    options: dict[str, Any] = {
        "key": key, "budget": parse_budget(budget), "engine": engine,
        "workspace": str(workspace or ""), "cwd": str(Path.cwd()),
        "account": account, "band": band.value if band else "",
    }  # fmt: skip
    with daemon_of(home) as client:
        if not sys.stdin.isatty():
            _answer_once(client, file, given, options, as_json=as_json)
            return
        if as_json or not sys.stdout.isatty():
            raise UsageError("a conversation needs a terminal", hint="or a message on standard input, and no terminal")
        pid = client.spawn(str(file), given, conversation=True, **options)
        _talk(client, pid)


@app.command(epilog="Example: mains attach 3")
def attach(pid: PidArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Come back to a conversation.

    Or look at any process, and write to it.

    What was said last is shown first. With --json: a line of JSON for each thing that happens, until it has ended.
    """
    with daemon_of(home) as client:
        if as_json:
            for part in client.attach(pid, back=_BACK):
                if part:
                    say_json(part)
            return
        if not sys.stdin.isatty() or not sys.stdout.isatty():
            raise UsageError("attach needs a terminal", hint=f"`mains logs {pid} -f` and `mains send {pid}` do not")
        client.outcome(pid)  # NotFoundError before the screen changes
        _talk(client, pid)


_BACK = 40


def _talk(client: Client, pid: int) -> None:
    from mains.cli.talkscreen import TalkScreen

    code = TalkScreen(client.home, settings_of(client.home), pid).run()
    if code:
        raise typer.Exit(code)


def _answer_once(client: Client, file: Path, given: dict[str, str], options: dict[str, Any], *, as_json: bool) -> None:
    """One message, one answer: as `run --now` with it as `prompt`, or with it in the mailbox before it starts."""
    from mains.cli.ending import tell_end
    from mains.cli.follow import display_of, follow

    text = _read_all(settings_of(client.home).message_bytes_max)
    if "prompt" not in given and _takes_prompt(client, file):
        pid = client.spawn(str(file), {**given, "prompt": text}, now=True, **options)
    else:
        pid = client.spawn(str(file), given, paused=True, now=True, **options)
        client.send(pid, text, key="standard input")
        if client.outcome(pid)["state"] == "STOPPED":
            client.signal(pid, "CONT")
    settled, outcome = follow(client, pid, display_of(as_json, None))
    tell_end(client, settled, outcome, as_json=as_json)


def _read_all(bytes_max: int) -> str:
    """All of standard input. Raises UsageError."""
    data = sys.stdin.buffer.read(bytes_max + 1)
    if len(data) > bytes_max:
        raise UsageError(f"standard input has more than {bytes_max:,} bytes (message_bytes_max)")
    try:
        text = data.decode().strip()
    except UnicodeDecodeError as error:
        raise UsageError(f"standard input is no UTF-8 text: {error}") from error
    if not text:
        raise UsageError("standard input is empty: there is nothing to say", hint="on a terminal, chat asks you")
    return text


def _takes_prompt(client: Client, file: Path) -> bool:
    from mains.program import PROMPT, load

    program = load(file, settings_of(client.home))
    return any(each.name == PROMPT.name for each in program.accepts)
