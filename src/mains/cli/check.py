"""The verb `check`: what a program is, or every mistake in it. Needs no daemon and starts nothing."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mains.cli.app import BAD_INPUT, app, mistakes_of
from mains.cli.options import HomeOption, JsonOption, find_home
from mains.cli.render import clean, note, say, say_json, shorten
from mains.errors import ProgramError

if TYPE_CHECKING:
    from mains.home import Home
    from mains.program import Program, Tree

_FOLD = 88


@app.command(epilog="Example: mains check summary.md")
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A Markdown file, or a folder with a SKILL.md.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a program is, or every mistake in it.

    A mistake is a line FILE:LINE: what to change; then the exit code is 2.
    """
    from mains.program import load_tree

    place = find_home(home)
    try:
        tree = load_tree(file, place.settings())
    except ProgramError as error:
        for line in mistakes_of(error):
            note(clean(line))
        raise typer.Exit(BAD_INPUT) from None
    report = report_of(tree, place)
    if as_json:
        say_json(report)
        return
    for line in _lines(report):
        say(clean(line))
    for told in report["notes"]:
        note(f"note: {clean(told)}")


def report_of(tree: Tree, home: Home) -> dict[str, Any]:
    """What a program is, as one object."""
    from mains.compose import Engines
    from mains.program import estimate_tokens, note_scopes, notes

    program = tree.program
    routes, whys = Engines.of(home).chain(program.model)
    tools, missing, tool_tokens = _offer(tree, home)
    told = [f"`{name}` is offered by nothing here; it is no mistake until it is called" for name in missing]
    return {
        "name": program.name,
        "description": program.description,
        "inputs": [_input(spec) for spec in program.accepts],
        "tools": tools,
        "missing": missing,
        "spawns": sorted(name for name in tree.programs if name != tree.root),
        "may_note": {scope: {"from_tools": tools} for scope, tools in note_scopes(program.tools).items()},
        "segments": list(program.segments),
        "workspace": program.workspace,
        "output": program.output,
        "schedule": _schedule(program),
        "budget": program.budget,
        "max_tokens": program.max_tokens,
        "frame_tokens": program.frame_tokens,
        "band": program.band,
        "on_doubt": program.on_doubt,
        "fixed_tokens": estimate_tokens(program.prose) + tool_tokens,
        "engine": routes[0].engine,
        "model": routes[0].model,
        "fallbacks": [
            {"engine": after.engine, "model": after.model, "equal": bool(after.group) and after.group == before.group}
            for before, after in itertools.pairwise(routes)
        ],
        "hash": program.hash,
        "notes": [*whys, *told, *notes(program)],
    }


def _schedule(program: Program) -> dict[str, Any] | None:
    """When it would run, as of now."""
    if program.schedule is None:
        return None
    import time

    import msgspec

    from mains.program import with_zone

    schedule = with_zone(program.schedule)
    rules: dict[str, Any] = msgspec.structs.asdict(schedule)
    return rules | {"next": schedule.at(next(schedule.slots(round(time.time() * 1_000))))}


def _offer(tree: Tree, home: Home) -> tuple[list[str], list[str], int]:
    """The tools that the program is offered, the grants that nothing offers, and an estimate of their tokens."""
    import msgspec

    from mains.cli.options import settings_of
    from mains.compose import tools_of
    from mains.kernel.context import StoredInput
    from mains.kernel.toolset import toolset
    from mains.program import estimate_tokens

    devices = tools_of(home, settings_of(home))
    inputs = tuple(StoredInput(spec.name, spec.type) for spec in tree.program.accepts)
    tools, missing = toolset(tree.program, inputs, tree.programs, devices)
    tokens = estimate_tokens(msgspec.json.encode(tools).decode()) if tools else 0
    return [tool.name for tool in tools], list(missing), tokens


def _input(spec: Any) -> dict[str, Any]:
    import msgspec

    described: dict[str, Any] = msgspec.to_builtins(spec)
    return {"type": spec.type, "required": spec.required} | described


def _lines(report: dict[str, Any]) -> Iterator[str]:
    yield f"{report['name']}: {shorten(report['description'], 400)}"
    yield "inputs:"
    for each in report["inputs"]:
        yield f"  {each['name']} ({_kind(each)}){_about(each)}"
    yield f"tools: {', '.join(report['tools']) or 'none'}"
    if report["missing"]:
        yield f"missing tools: {', '.join(report['missing'])}"
    if report["spawns"]:
        yield f"spawns: {', '.join(report['spawns'])}"
    if report["may_note"]:
        yield f"may note for: {', '.join(_scope(*each) for each in report['may_note'].items())}"
    if report["segments"]:
        yield f"maps: {', '.join(f'segment:{name}' for name in report['segments'])}"
    if report["workspace"]:
        yield f"workspace: shared, `{report['workspace']}`"
    yield f"output: {'JSON, by its schema' if report['output'] is not None else 'text'}"
    if schedule := report["schedule"]:
        yield f"schedule: {schedule['cron']} ({schedule['timezone']}), next {schedule['next']}"
    yield f"budget: {_number(report['budget'], 'no limit of its own')}"
    yield f"fixed part: about {report['fixed_tokens']:,} tokens (prose and tools, in every frame)"
    yield f"runs on: {_routes(report)}"


def _scope(scope: str, rule: dict[str, bool]) -> str:
    return f"{scope}, also from tools" if rule["from_tools"] and scope != "process" else scope


def _routes(report: dict[str, Any]) -> str:
    """The engines in order; those that serve equally well are joined by `or`."""
    text = f"{report['engine']} ({report['model']})"
    for each in report["fallbacks"]:
        text += f"{' or' if each['equal'] else ', then'} {each['engine']} ({each['model']})"
    return text


def _kind(each: dict[str, Any]) -> str:
    choices = f" of {', '.join(each['choices'])}" if each.get("choices") else ""
    return f"{each['type']}{choices}{'' if each['required'] else ', optional'}"


def _about(each: dict[str, Any]) -> str:
    default = f"; default {shorten(str(each['default']), 60)}" if each.get("default") is not None else ""
    said = f": {shorten(each['description'], _FOLD)}" if each.get("description") else ""
    return said + default


def _number(tokens: int | None, none: str) -> str:
    return none if tokens is None else f"{tokens:,} tokens"
