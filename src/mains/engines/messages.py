"""What goes out: a `Request` as the body of a call of Anthropic's Messages API. Pure.

    messages_body     Request -> the object to send

The API has two roles that take turns. The system messages that open a frame become `system`; messages of the same role
in a row become one, and the results of calls stand before any text in it, as the API demands. Blocks of text without
text are left out: the API refuses them. `max_tokens` is always there: the hold pays no more.

Prompt caching. A breakpoint makes the API keep everything before it. There are at most four: after the tools, after the
system text (both are the same in every turn of a process, and shared by processes of one program), at the end of the
last user message but one (which is where the last call ended, so what it wrote is found), and at the end of the frame.

Sources: https://platform.claude.com/docs/en/api/messages and .../build-with-claude/prompt-caching.
"""

from __future__ import annotations

from typing import Any

import msgspec

from mains.engines.closed_schema import closed
from mains.engines.wire import ToolTable, object_text
from mains.kernel.ports import Message, Request, Tool

BREAKPOINT = {"type": "ephemeral"}
BEGIN = "Begin."  # the API wants a user to speak first
TEMPERATURE_MAX = 1.0
_NOT_AT_THE_TOP = ("oneOf", "anyOf", "allOf")  # the API refuses them there; the kernel checks the arguments

Block = dict[str, Any]


def messages_body(request: Request, table: ToolTable, *, model: str, stream: bool, thinking: bool) -> dict[str, Any]:
    """The object to send. `thinking` False: the model is told not to think before it answers."""
    opening = 0
    while opening < len(request.messages) and request.messages[opening].role == "system":
        opening += 1
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": request.output_tokens_max,
        "messages": _with_breakpoints(_turns(request.messages[opening:], table)),
        "stream": stream,
    }
    system = [_text(message.text) for message in request.messages[:opening] if message.text.strip()]
    if system:
        system[-1]["cache_control"] = BREAKPOINT
        body["system"] = system
    if request.tools:
        tools = [_tool(tool, table) for tool in request.tools]
        tools[-1]["cache_control"] = BREAKPOINT
        body["tools"] = tools
    narrow = closed(request.output) if request.output is not None else None
    if narrow is not None:
        body["output_config"] = {"format": {"type": "json_schema", "schema": narrow}}
    if not thinking:
        body["thinking"] = {"type": "disabled"}
    sampling = request.sampling
    if sampling.temperature is not None:
        body["temperature"] = min(sampling.temperature, TEMPERATURE_MAX)
    if stop := [text for text in sampling.stop if text.strip()]:
        body["stop_sequences"] = stop
    return body


def _text(text: str) -> Block:
    return {"type": "text", "text": text}


def _tool(tool: Tool, table: ToolTable) -> Block:
    schema = {key: value for key, value in tool.parameters.items() if key not in _NOT_AT_THE_TOP}
    return {
        "name": table.wire_name(tool.name),
        "description": tool.description,
        "input_schema": {**schema, "type": "object"},
    }


def _turns(messages: tuple[Message, ...], table: ToolTable) -> list[dict[str, Any]]:
    """The messages with roles that take turns, the user's first."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        role = "assistant" if message.role == "assistant" else "user"
        blocks = _blocks(message, table)
        if not blocks:
            continue
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    if not turns or turns[0]["role"] == "assistant":
        turns.insert(0, {"role": "user", "content": [_text(BEGIN)]})
    for turn in turns:
        turn["content"].sort(key=lambda block: block["type"] != "tool_result")
    return turns


def _blocks(message: Message, table: ToolTable) -> list[Block]:
    if message.role == "tool":
        result: Block = {"type": "tool_result", "tool_use_id": message.call_id}
        if message.text:
            result["content"] = message.text
        return [result]
    said = [_text(message.text)] if message.text.strip() else []
    return said + [
        {
            "type": "tool_use",
            "id": call.id,
            "name": table.wire_name(call.name),
            "input": msgspec.Raw(object_text(call.arguments).encode()),
        }
        for call in message.calls
    ]


def _with_breakpoints(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mark the end of the frame, and of the frame of the call before this one."""
    users = [turn for turn in turns[:-1] if turn["role"] == "user"]
    for turn in (*users[-1:], turns[-1]):
        turn["content"][-1]["cache_control"] = BREAKPOINT
    return turns
