"""Openings: the doors of `doors.py` as the kernel serves them. What the MCP SDK says here becomes the kernel's words.

    doors_of(attendant)    elicitation becomes a question to a person, sampling a model call of the process, roots its
                           workspace

A device is told of an error in JSON-RPC: that it may not, that nobody can tell for which call it asks, that there is no
room, and no more than the kernel's own sentence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mains.bus.doors import Asked, Doors
from mains.errors import MainsError, UsageError
from mains.kernel.ports import Attendant, CallContext, Finish, Message, Question, Sampling, Wish

if TYPE_CHECKING:
    import mcp_types

_MESSAGES_MAX = 256
_STOPS_MAX = 8
_REASONS = {Finish.STOP: "endTurn", Finish.LENGTH: "maxTokens"}


def doors_of(attendant: Callable[[], Attendant]) -> Doors:
    """All three doors. `attendant` is asked at each knock: there is none before the kernel has booted."""

    async def elicit(asked: Asked) -> mcp_types.ElicitResult | mcp_types.ErrorData:
        from mcp_types import ElicitResult

        try:
            said = await attendant().ask(_question(asked))
        except MainsError as error:
            return _error(error)
        return ElicitResult(action=said.action, content=said.values if said.values else None)

    async def sample(asked: Asked) -> mcp_types.CreateMessageResult | mcp_types.ErrorData:
        from mcp_types import CreateMessageResult, TextContent

        try:
            told = await attendant().sample(_wish(asked))
        except MainsError as error:
            return _error(error)
        content = TextContent(type="text", text=told.text)
        reason = _REASONS.get(told.finish, "endTurn")
        return CreateMessageResult(role="assistant", content=content, model=told.model, stop_reason=reason)

    async def roots(asked: Asked) -> mcp_types.ListRootsResult:
        from mcp_types import ListRootsResult, Root
        from pydantic import FileUrl

        call = asked.call
        if call is None or not call.pid:
            return ListRootsResult(roots=[])
        return ListRootsResult(roots=[Root(uri=FileUrl(call.workspace.absolute().as_uri()), name="workspace")])

    return Doors(elicit, sample, roots)


def _error(error: MainsError) -> mcp_types.ErrorData:
    from mcp_types import INTERNAL_ERROR, INVALID_REQUEST, ErrorData

    return ErrorData(code=INVALID_REQUEST if isinstance(error, UsageError) else INTERNAL_ERROR, message=str(error))


def _call_of(asked: Asked) -> CallContext:
    """The call of a process that a device serves. Raises UsageError."""
    if asked.call is None:
        raise UsageError("nobody can tell for which of the calls in flight this is asked")
    if not asked.call.pid:
        raise UsageError("this call was made by no process: there is nobody to ask")
    return asked.call


def _question(asked: Asked) -> Question:
    call, params = _call_of(asked), asked.params
    url = getattr(params, "url", "")
    schema: Any = {} if url else getattr(params, "requested_schema", {})
    if not isinstance(schema, dict):
        schema = schema.model_dump(mode="json", by_alias=True, exclude_none=True)
    return Question(asked.device, call, params.message, schema, url)


def _wish(asked: Asked) -> Wish:
    """What a model is asked. What the server wants to have included of our context is left out. Raises UsageError."""
    call, params = _call_of(asked), asked.params
    if params.tools or params.tool_choice:
        raise UsageError("a model has no tools here: the capability `sampling.tools` was not declared")
    if not 0 < len(params.messages) <= _MESSAGES_MAX:
        raise UsageError(f"a model is asked with 1 to {_MESSAGES_MAX} messages")
    if params.max_tokens < 1:
        raise UsageError("maxTokens is above zero")
    messages = [Message(role="system", text=params.system_prompt)] if params.system_prompt else []
    messages += [Message(role=each.role, text=_text(each)) for each in params.messages]
    stop = tuple(params.stop_sequences or ())[:_STOPS_MAX]
    sampling = Sampling(temperature=params.temperature, stop=stop)
    return Wish(asked.device, call, tuple(messages), params.max_tokens, sampling)


def _text(message: mcp_types.SamplingMessage) -> str:
    parts = []
    for block in message.content_as_list:
        if block.type != "text":
            raise UsageError(f"a model is asked in text here, not with `{block.type}`")
        parts.append(block.text)
    return "\n".join(parts)
