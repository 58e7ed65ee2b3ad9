"""The verbs of devices: add, import, ls, rm, restart, tools, call."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mains.cli.app import FAILED, app
from mains.cli.confined import (
    ReadOption,
    SocketsOption,
    UnconfinedOption,
    WriteOption,
    complaints,
    entry_of,
    touches,
    whole,
)
from mains.cli.options import HomeOption, JsonOption, daemon_of, find_home
from mains.cli.render import clean, console, note, say, say_error, say_json, say_result, shorten, table
from mains.errors import ConfigError, DaemonError, MainsError, NotFoundError, UsageError
from mains.home import Home

if TYPE_CHECKING:
    from mains.daemon.client import Client

View = Mapping[str, Any]

device_app = typer.Typer(help="Devices: what offers tools, over MCP.", rich_markup_mode=None)
app.add_typer(device_app, name="device")

_KINDS = {"stdio": "command", "http": "url"}


def complete_devices(incomplete: str) -> list[str]:
    """Names of devices, for shell completion."""
    from mains.bus.spec import load_devices

    try:
        home = Home.find()
        names = load_devices(home.document().get("devices", {}), str(home.config))
    except ConfigError:
        return []
    return [name for name in names if name.startswith(incomplete)]


NameArgument = Annotated[
    str,
    typer.Argument(metavar="NAME", help="A device; `mains device ls` lists them.", autocompletion=complete_devices),
]
ReadOnlyOption = Annotated[
    list[str] | None, typer.Option("--read-only", metavar="TOOL", help="This tool changes nothing (repeatable).")
]
RepeatableOption = Annotated[
    list[str] | None,
    typer.Option("--repeatable", metavar="TOOL", help="Calls of this tool may be made twice (repeatable)."),
]
UntriedOption = Annotated[bool, typer.Option("--untried", help="Add it without starting it first.")]


@device_app.command(
    "add",
    epilog="Examples: mains device add git -- uvx mcp-server-git; mains device add tracker --url https://HOST/mcp",
)
def device_add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name; its tools are NAME.TOOL.")],
    command: Annotated[
        list[str] | None, typer.Argument(metavar="-- COMMAND", help="The command that starts it.")
    ] = None,
    url: Annotated[str, typer.Option("--url", metavar="URL", help="A server over streamable HTTP.")] = "",
    env: Annotated[
        list[str] | None,
        typer.Option("--env", metavar="NAME[=VALUE]", help="A variable; without a value, that of Mains (repeatable)."),
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option("--header", metavar="NAME:VALUE", help="A header; ${VAR} is a variable (repeatable)."),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--folder", metavar="DIR", help="Where it works (else a folder of its own).")
    ] = None,
    read: ReadOption = None,
    write: WriteOption = None,
    local_sockets: SocketsOption = False,
    unconfined: UnconfinedOption = False,
    trust_hints: Annotated[
        bool, typer.Option("--trust-hints", help="Believe what it says of its tools: read-only, repeatable.")
    ] = False,
    read_only: ReadOnlyOption = None,
    repeatable: RepeatableOption = None,
    protocol: Annotated[
        str, typer.Option("--protocol", metavar="REVISION", help="Speak this revision (else the newest).")
    ] = "",
    untried: UntriedOption = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a device, or replace the one of this name: start it, list its tools, write it into mains.toml."""
    first, *rest = _command(command) or [""]
    entry: dict[str, Any] = {
        "url": url,
        "command": first,
        "args": rest,
        "env": dict(_variable(each) for each in env or ()),
        "headers": dict(_header(each) for each in header or ()),
        "folder": str(folder.absolute()) if folder else "",
        "trust_hints": trust_hints,
        "read_only": read_only or [],
        "repeatable": repeatable or [],
        "protocol": protocol,
    }
    entry = {key: value for key, value in entry.items() if value}
    entry |= entry_of(read, write, local_sockets=local_sockets, unconfined=unconfined)
    if not (entry.get("command") or url):
        raise UsageError("give it a command, after `--`, or a --url", hint="mains device add git -- uvx mcp-server-git")
    if folder is not None and not folder.is_dir():
        raise UsageError(f"{folder}: no such folder")
    client = daemon_of(home)
    state = client.device_add(name, entry, untried=untried)
    if as_json:
        say_json(state)
        return
    _tell_added(client, state, untried=untried)


def _tell_added(client: Client, state: View, *, untried: bool) -> None:
    what = "it was not started yet" if untried else f"{state['tools']} tools"
    say(clean(f"device {state['name']} is in {client.home.config}: {what}"))
    for line in state["left_out"]:
        note(clean(f"left out: {line}"))
    for line in touches(state["confined"]):
        note(clean(line))
    if not untried:
        note(
            f"hint: a program uses it by `tools: [{state['name']}.*]`; `mains device tools {state['name']}` lists them"
        )


def _command(command: Sequence[str] | None) -> list[str]:
    """The command, with paths that mean the same from every folder: a device works in another one."""
    return [_whole_path(each) for each in command or ()]


def _whole_path(word: str) -> str:
    if word.startswith("~/"):  # a shell would have done it; the device has a home of its own
        return str(Path(word).expanduser())
    if word in (".", "..") or (not word.startswith("-") and os.sep in word and Path(word).exists()):
        return str(Path(word).absolute())
    return str(Path(word).absolute()) if Path(word).is_file() and Path(word).suffix else word


def _variable(text: str) -> tuple[str, str]:
    name, given, value = text.partition("=")
    return name, value if given else f"${{{name}}}"


def _header(text: str) -> tuple[str, str]:
    name, given, value = text.partition(":")
    if not given:
        raise UsageError("--header must be NAME:VALUE")  # what stands there may be a key
    return name.strip(), value.strip()


@device_app.command("import", epilog="Example: mains device import claude_desktop_config.json")
def device_import(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON with `mcpServers`, as desktop assistants have.")],
    read: ReadOption = None,
    write: WriteOption = None,
    unconfined: UnconfinedOption = False,
    untried: UntriedOption = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add every device of a file. One that does not start is told, and left out; the others are added.

    What --read and --write name is opened to those devices whose command names it, or something in it.
    """
    from mains.bus.importing import opened, read_servers

    try:
        imported = read_servers(file.read_bytes(), str(file))
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from error
    if not as_json:
        for line in imported.left_out:
            note(clean(f"left out: {line}"))
    client = daemon_of(home)
    specs = [opened(spec, whole(read), whole(write), unconfined=unconfined) for spec in imported.specs]
    done = [_import_one(client, spec, untried=untried, quiet=as_json) for spec in specs]
    if as_json:
        say_json({"devices": done, "left_out": imported.left_out})
    if any("error" in each for each in done):
        raise typer.Exit(FAILED)


def _import_one(client: Client, spec: Any, *, untried: bool, quiet: bool) -> dict[str, Any]:
    import msgspec

    entry = {key: value for key, value in msgspec.to_builtins(spec).items() if key != "name"}
    try:
        state = client.device_add(spec.name, entry, untried=untried)
    except DaemonError:
        raise
    except MainsError as error:
        if not quiet:
            say_error(str(error), error.hint)
        return {"name": spec.name, "error": str(error), "hint": error.hint}
    if not quiet:
        _tell_added(client, state, untried=untried)
    return state


@device_app.command("ls", epilog="Example: mains device ls")
def device_ls(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List devices. Health, pid and calls in flight are known while a daemon runs."""
    place = find_home(home)
    rows = list(_devices(place))
    if as_json:
        say_json(rows)
        return
    shown = [
        (
            row["name"],
            _KINDS[row["kind"]],
            row["health"] or "-",
            str(row["pid"] or ""),
            str(row["tools"]) if row["health"] else "",
            str(row["busy"] or ""),
            row["confined"]["by"] or "-",
            shorten(row["where"], 60),
        )
        for row in rows
    ]
    heads = ("NAME", "KIND", "HEALTH", "PID", "TOOLS", "CALLS", "CONFINED", "WHERE")
    out = console()
    out.print(table(heads, shown, right=("PID", "TOOLS", "CALLS"), give=("WHERE", "HEALTH"), width=out.width))
    for row in rows:
        if row["fault"]:
            note(clean(f"{row['name']}: {row['fault']}"))
        if row["changed"]:
            note(clean(f"{row['name']}: its tools have changed: {row['changed']}"))
            note(f"hint: `mains device accept {row['name']}` shows how, and takes them over")
        for line in complaints(row["name"], row["confined"]):
            note(clean(line))


def _devices(home: Home) -> Iterator[dict[str, Any]]:
    """Each device as the daemon sees it; without one, as mains.toml has it."""
    from msgspec import to_builtins

    from mains.bus.spec import load_devices
    from mains.bus.warden import Warden

    warden = Warden(home.path)
    try:
        yield from daemon_of(home.path, start=False).devices()
    except DaemonError:
        for spec in load_devices(home.document().get("devices", {}), str(home.config)).values():
            where = spec.url or shlex.join((spec.command, *spec.args))
            confined = to_builtins(warden.word_of(spec))
            unknown = {"confined": confined, "health": "", "fault": "", "pid": 0, "busy": 0, "tools": 0, "changed": ""}
            yield {"name": spec.name, "kind": spec.kind, "where": where, "trust_hints": spec.trust_hints, **unknown}


@device_app.command("rm", epilog="Example: mains device rm git")
def device_rm(name: NameArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """End a device and take it out of mains.toml. Calls in flight end; processes are told that it is gone."""
    daemon_of(home).device_remove(name)
    say_json({"name": name}) if as_json else say(f"device {name} is removed")


@device_app.command("restart", epilog="Example: mains device restart git")
def device_restart(name: NameArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """End a device, and start it as mains.toml has it now."""
    state = daemon_of(home).device_restart(name)
    say_json(state) if as_json else say(clean(f"device {name} is {state['health']}: {state['tools']} tools"))


@device_app.command("tools", epilog="Example: mains device tools git --json")
def device_tools(
    name: NameArgument,
    fresh: Annotated[bool, typer.Option("--fresh", help="Ask the device; else as it last listed them.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the tools of a device: which only read, and which may be repeated after a crash."""
    client = daemon_of(home)
    found = client.device_tools(name) if fresh else client.device(name)
    if not fresh and not found["tools"]:
        found = client.device_tools(name)
    if as_json:
        say_json(found)
        return
    rows = [
        (tool["name"], _word_of(tool), shorten(tool["description"], 200))
        for tool in sorted(found["tools"], key=lambda tool: str(tool["name"]))
    ]
    out = console()
    out.print(table(("TOOL", "AGAIN", "DESCRIPTION"), rows, give=("DESCRIPTION",), width=out.width))
    for line in found["state"]["left_out"]:
        note(clean(f"left out: {line}"))


def _word_of(tool: View) -> str:
    if tool.get("read_only"):
        return "reads"
    return "may be" if tool.get("idempotent") else "-"


@device_app.command("call", epilog="Example: mains device call git git_log repo_path=. max_count=3")
def device_call(
    name: NameArgument,
    tool: Annotated[str, typer.Argument(metavar="TOOL", help="`mains device tools NAME` lists them.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Its arguments; or all of them as one JSON object.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make one call of a tool. What it says meanwhile goes to standard error. Exit code 1 when the tool says no."""
    client = daemon_of(home)
    answer = client.device_call(name, tool, _arguments(client, name, tool, arguments or []), lambda text: _say(text))
    if as_json:
        say_json(answer)
    elif not answer["failed"]:
        say_result(answer["text"])
    else:
        say_error(answer["text"])
    if answer["failed"]:
        raise typer.Exit(FAILED)


def _say(text: str) -> None:
    note(clean(text))


def _arguments(client: Client, name: str, tool: str, words: Sequence[str]) -> dict[str, Any]:
    """What was typed, as the tool's schema has it: text where it wants text, else JSON."""
    if len(words) == 1 and words[0].lstrip().startswith("{"):
        return _object(words[0])
    if not words:
        return {}
    listed = client.device(name)["tools"] or client.device_tools(name)["tools"]
    found = next((each for each in listed if each["name"] == tool), None)
    if found is None:
        raise NotFoundError(f"the device {name} has no tool `{tool}`", hint=f"`mains device tools {name}` lists them")
    properties = found["parameters"].get("properties") or {}
    arguments = {}
    for word in words:
        key, given, text = word.partition("=")
        if not given:
            raise UsageError(f"{word[:60]}: write KEY=VALUE", hint=f"it takes: {', '.join(properties) or 'nothing'}")
        arguments[key] = _value(text, properties.get(key, {}))
    return arguments


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError(f"the arguments are no JSON: {error}") from error
    if not isinstance(value, dict):
        raise UsageError("the arguments are no JSON object")
    return value


def _value(text: str, schema: object) -> Any:
    """A value as its schema wants it (which may be just `true`); the checker says what is wrong with it."""
    if isinstance(schema, Mapping) and schema.get("type") == "string":
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text
