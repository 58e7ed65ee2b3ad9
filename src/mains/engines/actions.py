"""Actions: tools for models that have no native tool calling. Pure.

A reply is one JSON object, and the sampler can produce nothing else:

    {"tool": NAME, "arguments": {...}}      call a tool
    {"say": TEXT}                           answer (or a value, where the program declares `output`)

    moves(request)            what the model may do now: legal moves only
    schema_of(moves)          the JSON Schema of a reply
    frame_of(request)         the messages: rules, an example of two moves, then the frame with calls as their actions
    read(text, tools)         a reply -> its text and calls; never raises

Legal moves only. `results_of` of the syscall `exit` is one of the calls that have a result in the frame, and is not
offered before there is one. A call whose every argument is a choice is not offered again once it was made since
somebody last spoke: a small model would make it for ever.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from mains.engines.loosen import loosen
from mains.kernel.ports import Message, Request, Schema, Tool, ToolCall

SAY = "say"
CHOICES_MAX = 64  # combinations of choices that are told apart one by one
_ENDS = ('"}', "}", '"}}', "}}", '"]}}', "]}}")  # what the end of a cut reply may lack
_NAMED = re.compile(r'\s*\{\s*"tool"\s*:\s*("(?:[^"\\]|\\.)*")')
_ARGUMENTS = re.compile(r'"arguments"\s*:\s*')

RULES = (
    'Reply with one JSON object: {"tool": NAME, "arguments": {...}} calls a tool, and its result comes in the next '
    'message. {"say": TEXT} is your answer.'
)


class Move(msgspec.Struct, frozen=True):
    """Something that the model may do: call `tool` with arguments that fit `arguments`, or (no tool) say that."""

    tool: str
    arguments: Schema

    @property
    def schema(self) -> Schema:
        """The JSON Schema of the action."""
        if not self.tool:
            return _closed({SAY: self.arguments})
        return _closed({"tool": {"const": self.tool}, "arguments": self.arguments})


def moves(request: Request) -> tuple[Move, ...]:
    """The legal moves, in the order of the tools; to answer comes last."""
    made = _made(request.messages)
    legal = [move for tool in request.tools for move in _moves_of(tool, request.messages, made)]
    output = loosen(request.output) if request.output is not None else {"type": "string"}
    return (*legal, Move("", output))


def schema_of(legal: Sequence[Move]) -> Schema:
    """What a reply must look like."""
    return {"anyOf": [move.schema for move in legal]}


def loose_schema_of(legal: Sequence[Move]) -> Schema:
    """The same with any arguments: for an engine that could not take `schema_of`."""
    loose = [Move(move.tool, {"type": "object"} if move.tool else {"type": "string"}) for move in legal]
    return schema_of(list({move.tool: move for move in loose}.values()))


def _closed(properties: dict[str, Schema]) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _moves_of(tool: Tool, messages: Sequence[Message], made: set[tuple[str, str]]) -> Iterator[Move]:
    """The ways to call one tool."""
    if _is_exit(tool):
        results = [m.call_id for m in messages if m.role == "tool" and not m.text.startswith("error:")]
        if results:
            yield Move(tool.name, _closed({"results_of": {"enum": results}}))
        return  # any other end is what `say` does
    choices = list(_choices(tool.parameters))
    if not choices:
        yield Move(tool.name, loosen(tool.parameters or {"type": "object", "additionalProperties": False}))
    elif left := [each for each in choices if (tool.name, _canonical(each)) not in made]:
        if len(left) == len(choices):
            yield Move(tool.name, loosen(tool.parameters))
        else:
            yield from (Move(tool.name, _closed({k: {"const": v} for k, v in each.items()})) for each in left)


def _is_exit(tool: Tool) -> bool:
    properties = tool.parameters.get("properties", {})
    return tool.name == "exit" and {"result", "results_of"} <= set(properties)


def _choices(parameters: Schema) -> Iterator[dict[str, Any]]:
    """Every possible arguments object, where each argument is required and a choice; else nothing."""
    properties: dict[str, Schema] = parameters.get("properties") or {}
    if not properties or set(parameters.get("required", ())) != set(properties):
        return
    values = [_values(each) for each in properties.values()]
    count = 1
    for each in values:
        count *= len(each)
    if 0 < count <= CHOICES_MAX:
        for chosen in itertools.product(*values):
            yield dict(zip(properties, chosen, strict=True))


def _values(schema: Schema) -> list[Any]:
    if "const" in schema:
        return [schema["const"]]
    found = schema.get("enum")
    return found if isinstance(found, list) else []


def _made(messages: Sequence[Message]) -> set[tuple[str, str]]:
    """The calls made since somebody last spoke, as (tool, canonical arguments)."""
    found: set[tuple[str, str]] = set()
    for message in messages:
        if message.role == "user":
            found.clear()
        found |= {(call.name, _canonical(_decoded(call.arguments))) for call in message.calls}
    return found


def _canonical(value: Any) -> str:
    return msgspec.json.encode(value, order="sorted").decode()


def _decoded(text: str) -> Any:
    try:
        return msgspec.json.decode(text or "{}")
    except msgspec.DecodeError:
        return text


# -------------------------------------------------------------------------------------------------- what it sees


def frame_of(request: Request) -> tuple[Message, ...]:
    """The frame as plain messages: what the tools are and how to call them, an example, then what happened."""
    first, *rest = request.messages if request.messages[0].role == "system" else (Message("system"), *request.messages)
    system = Message(role="system", text="\n\n".join(filter(None, (first.text, _manual(request.tools), RULES))))
    return (system, *_example(request.tools), *map(_plain, rest))


def _manual(tools: Sequence[Tool]) -> str:
    """The tools in one line each. A description stays within its line, whatever it says."""
    lines = []
    for tool in tools:
        arguments = ", ".join(tool.parameters.get("properties", {}))
        lines.append(f"{' '.join(tool.name.split())}({arguments}): {' '.join(tool.description.split())}")
    return "Tools:\n" + "\n".join(lines)


def _example(tools: Sequence[Tool]) -> tuple[Message, ...]:
    """Two moves of a made-up errand: a call, and an end that uses its result. The same for the same tools."""
    called = next((tool for tool in tools if not _is_exit(tool)), None)
    if called is None:
        return ()
    last = _action("exit", {"results_of": "call_0_1"}) if any(map(_is_exit, tools)) else _spoken("Done: it is ready.")
    result = Message(role="tool", text="it is ready", call_id="call_0_1", name=called.name)
    call = _action(called.name, _sample(loosen(called.parameters)))
    return (
        Message(role="user", text="Begin."),
        Message(role="assistant", text=call),
        Message(role="user", text=_told(result)),
        Message(role="assistant", text=last),
    )


def _sample(schema: Schema) -> Any:
    """A short value that fits a loosened schema."""
    if values := _values(schema):
        return values[0]
    if "anyOf" in schema:
        return _sample(schema["anyOf"][0])
    match schema.get("type"):
        case "object":
            properties = schema.get("properties", {})
            return {name: _sample(properties[name]) for name in schema.get("required", ())}
        case "array":
            return [_sample(schema["items"])] * schema.get("minItems", 0)
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case "null":
            return None
    return "..."


def _plain(message: Message) -> Message:
    """A message without calls: they become the actions that they were, and results are told by the user."""
    if message.role == "tool":
        return Message(role="user", text=_told(message))
    if message.role == "assistant":
        actions = [_action(call.name, _decoded(call.arguments)) for call in message.calls]
        said = [_spoken(message.text)] if message.text or not actions else []
        return Message(role="assistant", text="\n".join(said + actions))
    return message


def _told(result: Message) -> str:
    return f"Result of {result.call_id} ({result.name}):\n{result.text}"


def _action(tool: str, arguments: Any) -> str:
    return msgspec.json.encode({"tool": tool, "arguments": arguments}).decode()


def _spoken(text: str) -> str:
    return msgspec.json.encode({SAY: text}).decode()


# -------------------------------------------------------------------------------------------------- what it says


def read(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """A reply as text and calls. What was cut off becomes a malformed call, the text so far, or nothing at all."""
    value = _object(text)
    if value is None:
        return _read_cut(text)
    name = value.get("tool")
    if isinstance(name, str):
        return "", (ToolCall("call", name, _json(value.get("arguments", {}))),)
    said = value.get(SAY, "")
    return (said if isinstance(said, str) else _json(said)), ()


def _read_cut(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    named = _NAMED.match(text)
    if named:
        begun = _ARGUMENTS.search(text, named.end())
        rest = text[begun.end() :] if begun else ""
        return "", (ToolCall("call", str(_decoded(named[1])), rest or '{"'),)
    for end in _ENDS:
        value = _object(text.removesuffix("\\") + end)
        if value is not None and isinstance(value.get(SAY), str):
            return value[SAY], ()
    return "", ()


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = msgspec.json.decode(text.strip())
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
