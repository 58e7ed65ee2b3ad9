"""What goes out: a `Request` as the body of an OpenAI-dialect `/chat/completions` call. Pure.

    ToolTable         the tools of a request, encoded once: names both ways, JSON, bytes
    ToolTables        keeps the tables of recent tool lists (a process's list is frozen, so it comes back)
    body_of           Request -> the object to send

Tool names. A tool is `device.tool` in Mains; the dialect allows `[a-zA-Z0-9_-]{1,64}`. A forbidden character
becomes `_`, and where that makes two names alike or one too long, a short hash of the whole name is added.
The table remembers the way back, so nothing is lost; the same list always gives the same names, in any order.

Arguments that a model wrote badly stay in the frame as they were; some servers refuse a call whose arguments
are no JSON object, so such text travels as `{"malformed": "<the text>"}`.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from mains.kernel.ports import Message, Request, Schema, Tool, ToolCall

NAME_CHARS_MAX = 64
TABLES_MAX = 256  # tool lists remembered by one engine
# What OpenAI's strict mode takes in a schema; anything else would be answered with 400.
STRICT_KEYWORDS = frozenset(
    {"$defs", "$ref", "additionalProperties", "anyOf", "const", "description"}
    | {"enum", "items", "properties", "required", "title", "type"}
)

_FORBIDDEN = re.compile(r"[^a-zA-Z0-9_-]")


class ToolTable(msgspec.Struct, frozen=True):
    """A list of tools ready to be sent. `out` maps Mains names to wire names, `back` the other way."""

    tools: tuple[Tool, ...]
    out: dict[str, str]
    back: dict[str, str]
    encoded: msgspec.Raw

    @classmethod
    def of(cls, tools: tuple[Tool, ...]) -> ToolTable:
        out = wire_names([tool.name for tool in tools])
        functions = [
            {
                "type": "function",
                "function": {
                    "name": out[tool.name],
                    "description": tool.description,
                    "parameters": tool.parameters or {"type": "object", "properties": {}},
                },
            }
            for tool in tools
        ]
        encoded = msgspec.json.encode(functions)
        back = {wire: name for name, wire in out.items()}
        return cls(tools, out, back, msgspec.Raw(encoded))

    def wire_name(self, name: str) -> str:
        """The wire name of `name`, also when it is the name of a tool that the list has lost."""
        return self.out.get(name) or _safe(name)


class ToolTables:
    """The tables of recent tool lists, found by identity first and by equality second."""

    def __init__(self) -> None:
        self._tables: dict[int, ToolTable] = {}

    def of(self, tools: tuple[Tool, ...]) -> ToolTable:
        # A table holds its list, so the id of a remembered list is never given to another one.
        table = self._tables.get(id(tools))
        if table is not None:
            return table
        table = next((known for known in self._tables.values() if known.tools == tools), None)
        if table is not None:
            return table
        if len(self._tables) >= TABLES_MAX:
            del self._tables[next(iter(self._tables))]
        table = self._tables[id(tools)] = ToolTable.of(tools)
        return table


def wire_names(names: Iterable[str]) -> dict[str, str]:
    """Mains name -> wire name, one to one, whatever the order of `names`."""
    distinct = sorted(set(names))
    taken = Counter(_safe(name) for name in distinct)
    return {
        name: _hashed(name, safe) if taken[safe] > 1 and safe != name else safe
        for name, safe in zip(distinct, map(_safe, distinct), strict=True)
    }


def _safe(name: str) -> str:
    safe = _FORBIDDEN.sub("_", name) or "_"
    return safe if len(safe) <= NAME_CHARS_MAX else _hashed(name, safe)


def _hashed(name: str, safe: str) -> str:
    mark = hashlib.blake2s(name.encode("utf-8", "surrogatepass"), digest_size=5).hexdigest()
    return f"{safe[: NAME_CHARS_MAX - len(mark) - 1]}_{mark}"


def body_of(request: Request, table: ToolTable, *, model: str, tokens_field: str, stream: bool) -> dict[str, Any]:
    """The object to send. The cap of the output (`tokens_field`) is always there: the hold pays no more."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [_message(message, table) for message in request.messages],
        tokens_field: request.output_tokens_max,
    }
    if table.tools:
        body["tools"] = table.encoded
    if request.output is not None:
        body["response_format"] = _response_format(request.output)
    sampling = request.sampling
    if sampling.temperature is not None:
        body["temperature"] = sampling.temperature
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if sampling.stop:
        body["stop"] = sampling.stop
    body["stream"] = stream
    if stream:
        body["stream_options"] = {"include_usage": True}
    return body


def _message(message: Message, table: ToolTable) -> dict[str, Any]:
    if message.role == "tool":
        return {"role": "tool", "tool_call_id": message.call_id, "content": message.text}
    if message.calls:
        calls = [_call(call, table) for call in message.calls]
        return {"role": message.role, "content": message.text or None, "tool_calls": calls}
    return {"role": message.role, "content": message.text}


def _call(call: ToolCall, table: ToolTable) -> dict[str, Any]:
    function = {"name": table.wire_name(call.name), "arguments": object_text(call.arguments)}
    return {"id": call.id, "type": "function", "function": function}


def object_text(arguments: str) -> str:
    """`arguments` as the text of a JSON object (see the header for what becomes of other text)."""
    if not arguments.strip():
        return "{}"
    try:
        value = msgspec.json.decode(arguments)
    except msgspec.DecodeError:
        value = None
    if isinstance(value, dict):
        return arguments
    return msgspec.json.encode({"malformed": arguments}).decode()


def _response_format(schema: Schema) -> dict[str, Any]:
    described: dict[str, Any] = {"name": "output", "schema": schema}
    if is_strict(schema):
        described["strict"] = True
    return {"type": "json_schema", "json_schema": described}


def is_strict(schema: object) -> bool:
    """Whether OpenAI's strict mode takes it: only known keywords, every object closed and complete."""
    if not isinstance(schema, Mapping):
        return isinstance(schema, bool)
    if not STRICT_KEYWORDS.issuperset(schema):
        return False
    properties = schema.get("properties", {})
    if (schema.get("type") == "object" or "properties" in schema) and (
        schema.get("additionalProperties") is not False or set(schema.get("required", ())) != set(properties)
    ):
        return False
    nested = [*properties.values(), *schema.get("$defs", {}).values(), *schema.get("anyOf", ())]
    return all(is_strict(part) for part in [*nested, schema.get("items", True)])
