"""The verbs that look at processes: ps, show, logs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from mains.cli.account import in_order, limit_name, room
from mains.cli.amounts import amount, exact
from mains.cli.app import FAILED, app
from mains.cli.options import AtOption, GroupOption, HomeOption, JsonOption, PidArgument, daemon_of
from mains.cli.render import clean, console, note, ps_table, say, say_json, shorten, text_of

_LINES_MAX = 8
_CHARACTERS_MAX = 700


@app.command(epilog="Example: mains ps --all")
def ps(
    every: Annotated[bool, typer.Option("--all", help="Also those that have ended.")] = False,
    group: GroupOption = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List processes, each below its parent."""
    views = [view for view in daemon_of(home).ps(every=every) if not group or view["group"] == group]
    if as_json:
        say_json(views)
    elif views:
        printed = console()
        printed.print(ps_table(views, printed.width))
    else:
        note("no processes" if every else "no process is alive (mains ps --all: those that have ended, too)")


@app.command(epilog="Examples: mains show 3; mains show 3 --at 120")
def show(pid: PidArgument, at: AtOption = None, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show everything about one process, or what its model was shown.

    Its inputs, limits, open calls, children, context and result. With --at, the frame of its last model call until that
    event, byte for byte; exits with 1 when that is not what was journalled.
    """
    if at is not None:
        _show_at(pid, at, home, as_json)
        return
    shown = daemon_of(home).show(pid)
    if as_json:
        say_json(shown)
        return
    for title, lines in sections(shown):
        found = list(lines)
        if found:
            say(title)
            for line in found:
                say(f"  {clean(line)}")


def _show_at(pid: int, at: int, home: Path | None, as_json: bool) -> None:
    from mains.cli.lookback import say_seen

    seen = daemon_of(home).seen(pid, at)
    say_json(seen) if as_json else say_seen(seen)
    if seen["agree"] is False:
        raise typer.Exit(FAILED)


def sections(shown: Mapping[str, Any]) -> Iterator[tuple[str, Iterator[str]]]:
    """Everything about a process as titles and lines (an empty section is left out by whoever prints it)."""
    yield f"process {shown['pid']}", _about(shown)
    yield "inputs", (f"{name}: {shorten(text_of(value), 200)}" for name, value in shown["inputs"].items())
    yield "tokens", token_lines(shown)
    yield (
        "open calls",
        (
            shorten(f"{call['tool']} {call['arguments']}: {call['state']} {call['on']}", 200)
            for call in shown["open_calls"]
        ),
    )
    yield "tools", iter([", ".join(shown["tools"])] if shown["tools"] else [])
    yield "children", iter([", ".join(map(str, shown["children"]))] if shown["children"] else [])
    yield "context", _context(shown["messages"])
    yield "result", iter(_cut_lines(shown["result"]) if shown["result"] else [])


def _about(shown: Mapping[str, Any]) -> Iterator[str]:
    state = f"{shown['state']} {shown['reason']}".strip()
    yield f"program: {shown['program']}{f' ({label})' if (label := shown['label']) else ''}"
    yield f"state: {state}" + ("" if shown["exit_code"] is None else f", exit code {shown['exit_code']}")
    yield f"engine: {shown['engine']} ({shown['model']})"
    if shown["routes"]:
        routes = [f"{route['engine']} ({route['model']}){' *' if route['in_use'] else ''}" for route in shown["routes"]]
        back = f"; the first is tried again after {shown['returns_at']}" if shown["returns_at"] else ""
        yield f"engines in order: {', '.join(routes)}{back}"
    if shown["account"] != "home":
        yield f"account: {shown['account']}"
    for name in ("parent", "key", "band", "workspace", "created_at"):
        if shown[name]:
            yield f"{name}: {shown[name]}"
    yield f"turns: {shown['turns']}, unread messages: {shown['unread']}"


def token_lines(shown: Mapping[str, Any]) -> Iterator[str]:
    """What a process used, and what its limits leave."""
    usage = shown["usage"]
    cost = f", cost {exact(shown['cost_nano'])}" if shown["cost_nano"] else ""
    yield f"in {usage['input_tokens']:,} (cached {usage['cached_tokens']:,}), out {usage['output_tokens']:,}{cost}"
    for account in shown["accounts"]:
        whose = account["name"] or f"process {account['account']}"
        most = "" if account["tokens_max"] is None else f"limit {account['tokens_max']:,}, "
        used = account["posted"] + account["overrun"]
        yield f"account of {whose}: {most}used {used:,}, held {account['held']:,}"
        for limit in in_order(account["limits"]):
            if limit_name(limit) != "tokens/total":
                yield f"  {_limit(limit, shown['currency'])}"


def _limit(limit: Mapping[str, Any], currency: str) -> str:
    """A limit of money, or one in a window, exactly."""
    texts = (amount(limit[name], limit["unit"], currency) for name in ("used", "held", "left"))
    each = "" if limit["window"] == "total" else f" a {limit['window']}"
    resets = f", resets at {limit['resets_at']}" if limit["resets_at"] else ""
    used, held, left = texts
    return f"limit {amount(room(limit), limit['unit'], currency)}{each}: used {used}, held {held}, left {left}{resets}"


def _context(messages: list[Mapping[str, Any]]) -> Iterator[str]:
    for message in messages:
        calls = "; ".join(f"{call['name']} {call['arguments']}" for call in message.get("calls", ()))
        said = " ".join(filter(None, [message.get("text", ""), calls and f"calls {calls}"]))
        who = f"{message['role']} {message['name']}" if message.get("name") else message["role"]
        yield f"{who}: {shorten(said, 160)}"


@app.command(epilog="Example: mains logs 3 -f")
def logs(
    pid: PidArgument,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the process has ended.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """What a process did, said and got, oldest first. With --json, a line of JSON for each event."""
    for entry in daemon_of(home).log(pid, follow=follow):
        if not entry:
            continue
        if as_json:
            say_json(entry)
        else:
            _say_entry(entry)


def _say_entry(entry: Mapping[str, Any]) -> None:
    at = datetime.fromisoformat(entry["at"]).astimezone().strftime("%H:%M:%S")
    say(f"{at}  {clean(entry['line'])}")
    for line in _cut_lines(entry["text"]) if entry["text"] else ():
        say(f"          {line}")


def _cut_lines(text: str) -> list[str]:
    """The beginning of a text, and how much was left out."""
    head = clean(text[:_CHARACTERS_MAX], lines=True)
    lines = head.splitlines()[:_LINES_MAX]
    left = len(text) - len("\n".join(lines))
    return [*lines, f"[{left:,} more characters: --json has them]"] if left > 1 else lines
