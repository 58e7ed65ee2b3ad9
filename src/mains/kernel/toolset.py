"""The toolset: what one program is offered, as tools. Pure.

Syscalls are offered like any other tool; their arguments are constrained to the programs and inputs that the program
declares, so that an engine that constrains its sampler cannot name another.
"""

from __future__ import annotations

from collections.abc import Sequence

from mains.kernel.context import StoredInput
from mains.kernel.grants import Layer, offered
from mains.kernel.ports import Schema, Tool
from mains.kernel.process import Call
from mains.program import Program, append_segments, input_schema, note_scopes

_DAY_S = 86_400
_SLEEP_S_MAX = 366 * _DAY_S


def _object(required: list[str], **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


_SECONDS: Schema = {"type": "number", "minimum": 0, "maximum": _SLEEP_S_MAX}
_TEXT: Schema = {"type": "string"}


def toolset(
    program: Program,
    inputs: tuple[StoredInput, ...],
    programs: dict[str, Program],
    devices: Sequence[Tool],
    above: Sequence[Layer] = (),
) -> tuple[tuple[Tool, ...], tuple[str, ...]]:
    """The frozen tool list of a program, sorted by name, and the grants that nothing offers. `above`: what those above
    a child were granted, which it cannot exceed."""
    own = Layer(program.name, 0, program.tools)
    found, missing = offered((*above, own), _syscalls(program, inputs, programs), devices)
    if any("." in name or name.endswith("*") for name in missing):  # a device that may come while it runs
        found = tuple(sorted((*found, *_LATE), key=lambda tool: tool.name))
    return found, missing


def _syscalls(program: Program, inputs: tuple[StoredInput, ...], programs: dict[str, Program]) -> dict[str, Tool]:
    """The syscalls by name. `spawn`, `spawn_each` and `exec` are there when their grants name programs."""
    tools = dict(_PLAIN)
    files = tuple(file.name for i in inputs for file in i.files)
    over = tuple(i.name for i in inputs if i.type in ("folder", "json"))
    if shared := append_segments(program.tools):
        tools["append"] = _append_tool(shared)
    names: dict[str, list[str]] = {}
    for grant in program.tools:
        names.setdefault(grant.name, []).extend(name for name in grant.arguments if name in programs)
    if scopes := note_scopes(program.tools):
        tools["note"] = _note_tool(list(scopes))
    if spawned := names.get("spawn"):
        tools["spawn"] = _spawn_tool(spawned, programs, files)
    if others := names.get("exec"):
        tools["exec"] = _exec_tool(others, programs, files)
    if each := names.get("spawn_each"):
        tools["spawn_each"] = Tool(
            "spawn_each",
            f"Start one process of a program for each item of an input, wait for all, and get their results in order. "
            f"{_about(each, programs)}",
            _object(["program", "over"], program={"enum": each}, over={"enum": list(over)} if over else _TEXT),
        )
    return tools


_SCOPES = {
    "process": "process (for yourself, here: it stays when old turns leave your context)",
    "program": "program (for all later runs of this program)",
    "user": "user (for all programs of this user)",
}


def _note_tool(scopes: list[str]) -> Tool:
    which = f"; scope: {', '.join(_SCOPES[scope] for scope in scopes)}" if len(scopes) > 1 else ""
    number: Schema = {"type": "integer", "minimum": 1}
    return Tool(
        "note",
        f"Keep a short text that you will need later{which}. `replace` is the number of a note that it takes the "
        "place of; `forget`, without a text, that of one to throw away.",
        _object([], text=_TEXT, scope={"enum": scopes}, replace=number, forget=number),
    )


def _append_tool(segments: Sequence[str]) -> Tool:
    return Tool(
        "append",
        "Append a page to a segment that processes share: everybody who has it reads it from the next turn on.",
        _object(["segment", "text"], segment={"enum": list(segments)}, text=_TEXT),
    )


def _about(names: list[str], programs: dict[str, Program]) -> str:
    return "Programs: " + "; ".join(f"{name}: {programs[name].description}" for name in names)


def _spawn_tool(names: list[str], programs: dict[str, Program], files: tuple[str, ...]) -> Tool:
    takes: Schema = input_schema(programs[names[0]], files) if len(names) == 1 else {"type": "object"}
    needed = ["program", "inputs"] if takes.get("required") else ["program"]
    return Tool(
        "spawn",
        f"Start a process of a program and go on; `wait` gives its result. {_about(names, programs)}",
        _object(needed, program={"enum": names}, inputs=takes),
    )


def _exec_tool(names: list[str], programs: dict[str, Program], files: tuple[str, ...]) -> Tool:
    like = _spawn_tool(names, programs, files)
    return Tool(
        "exec",
        f"Become another program from the next turn on, and keep everything said so far. {_about(names, programs)}",
        like.parameters,
    )


_PLAIN: dict[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool(
            "wait",
            "Wait until child processes have ended and get their results (without `pids`: all children).",
            _object([], pids={"type": "array", "items": {"type": "integer"}, "minItems": 1}, timeout_s=_SECONDS),
        ),
        Tool(
            "send",
            "Send a message to another process.",
            _object(["to", "text"], to={"type": "integer"}, text=_TEXT),
        ),
        Tool(
            "receive",
            "Wait for the next message from a person or a process (timeout_s 0: only look).",
            _object([], timeout_s=_SECONDS),
        ),
        Tool("sleep", "Sleep for some seconds.", _object(["seconds"], seconds=_SECONDS)),
        Tool(
            "ask", "Ask the person in charge a question and wait for the answer.", _object(["question"], question=_TEXT)
        ),
        Tool(
            "exit",
            "End with a result (text). `results_of` names an earlier call whose result is the result, word for word.",
            _object([], result=_TEXT, results_of=_TEXT, code={"type": "integer", "minimum": 0, "maximum": 255}),
        ),
    )
}

_MEMORY = (
    Tool(
        "read",
        "Read something of your memory again, word for word: what left your context (mem:N), or a file of an input "
        "(input:NAME). Without a range you get as much from the beginning as fits.",
        _object(
            ["handle"],
            handle={"type": "string", "description": "such as mem:57 or input:paper"},
            range={"type": "string", "description": "`lines 10-40` or `characters 0-4000`"},
        ),
        read_only=True,
        idempotent=True,
    ),
    Tool(
        "recall",
        "Search your memory: everything said and returned so far, and the files of your inputs. Gives the places that "
        "fit best, with their handles.",
        _object(["query"], query=_TEXT, k={"type": "integer", "minimum": 1, "maximum": 20}),
        read_only=True,
        idempotent=True,
    ),
)
_PLAIN.update((tool.name, tool) for tool in _MEMORY)

LOOKUPS = frozenset(tool.name for tool in _MEMORY)
"""The syscalls that look something up and change nothing: they are made like calls of a device, off the writer."""


def with_memory(tools: tuple[Tool, ...]) -> tuple[Tool, ...]:
    """A tool list in which the lookups stand, too."""
    return tuple(sorted({tool.name: tool for tool in (*_MEMORY, *tools)}.values(), key=lambda tool: tool.name))


FIND_TOOL = "find_tool"
_LATE = (
    Tool(
        "call_tool",
        "Call a tool that find_tool has named.",
        _object(["name", "arguments"], name=_TEXT, arguments={"type": "object"}),
    ),
    Tool(
        FIND_TOOL,
        "Look for tools that have come since you began: their names, what they do, and their arguments.",
        _object(["query"], query=_TEXT),
        read_only=True,
        idempotent=True,
    ),
)
LATE = frozenset(tool.name for tool in _LATE)
"""The syscalls by which a process reaches tools of devices that came after it began."""

SYSCALLS = frozenset({*_PLAIN, *LATE, "spawn", "spawn_each", "exec", "note", "append"})
"""The names that no device may take."""

OF_CHILDREN = frozenset({"wait", "spawn_each"})
"""The syscalls whose results are what children said."""


YIELDING = frozenset({"note", "append"})
"""The syscalls whose name a device may take: then its tool is meant wherever a program of this home says so."""


def is_untrusted(call: Call) -> bool:
    """Whether the result of a call is the word of somebody else: of a device or of a child."""
    of_device = call.tool not in SYSCALLS or (
        call.tool in YIELDING and call.attempt > 0
    )  # no syscall of these is issued
    return of_device or call.tool in OF_CHILDREN
