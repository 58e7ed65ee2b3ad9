"""What comes back: the events of Anthropic's Messages API (or one whole message) as a `Reply`. Pure.

    MessageAssembly   events -> Reply

    message_start                 the usage of the input
    content_block_start           text, a tool_use, or thinking (which is no part of a reply)
    content_block_delta           text_delta, input_json_delta; others are thinking, signatures, citations
    content_block_stop, ping      nothing
    message_delta                 why it stopped, and the usage so far
    message_stop                  the end
    error                         the server gave up in the middle

Events and blocks of other types are ignored: the API says that it may add some. Usage is taken from every event that
has it, figure by figure, the last one seen. What was read from the cache and what was written to it is input, too:
`input_tokens` of the API counts neither. `cache_creation` says for how long it was written: 5 minutes, or 1 hour.

Source: https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from mains.engines.stream import CALLS_MAX, BadAnswerError, ServerError, shown
from mains.kernel.ports import Finish, Reply, ToolCall, Usage

BLOCKS_MAX = 4 * CALLS_MAX  # blocks of one reply, those included that are left out of it

_FINISHES = {
    "max_tokens": Finish.LENGTH,
    "model_context_window_exceeded": Finish.LENGTH,
    "pause_turn": Finish.LENGTH,  # it was stopped before it had finished
    "refusal": Finish.REFUSAL,
}
# https://platform.claude.com/docs/en/api/errors: what each would be as a status
_CODES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


class _Created(msgspec.Struct, frozen=True):
    ephemeral_5m_input_tokens: int | None = None
    ephemeral_1h_input_tokens: int | None = None


class _OutputDetails(msgspec.Struct, frozen=True):
    thinking_tokens: int | None = None


class _Usage(msgspec.Struct, frozen=True):
    """`cache_creation` splits `cache_creation_input_tokens` by how long the cache lasts."""

    input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation: _Created | None = None
    output_tokens_details: _OutputDetails | None = None


class _Block(msgspec.Struct, frozen=True):
    type: str = ""
    text: str = ""
    id: str = ""
    name: str = ""
    input: Any = None


class _Details(msgspec.Struct, frozen=True):
    explanation: str | None = None


class _Message(msgspec.Struct, frozen=True):
    content: list[_Block] = []
    stop_reason: str | None = None
    stop_details: _Details | None = None
    usage: _Usage | None = None


class _Delta(msgspec.Struct, frozen=True):
    type: str = ""
    text: str = ""
    partial_json: str = ""
    stop_reason: str | None = None
    stop_details: _Details | None = None


class _Error(msgspec.Struct, frozen=True):
    type: str = ""
    message: str = ""


class _Event(msgspec.Struct, frozen=True):
    """One event; a whole message, too, which has the fields of `_Message` and the type `message`."""

    type: str
    index: int = 0
    message: _Message | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: _Usage | None = None
    error: _Error | None = None
    content: list[_Block] = []
    stop_reason: str | None = None
    stop_details: _Details | None = None


_decoder = msgspec.json.Decoder(_Event)


class _Part:
    """A block while its pieces come in."""

    def __init__(self, block: _Block) -> None:
        self.block = block
        self.pieces: list[str] = [block.text] if block.text else []

    def arguments(self) -> str:
        """What a tool is called with: the pieces, or what the block began with when there were none."""
        if self.pieces:
            return "".join(self.pieces)
        return msgspec.json.encode(self.block.input or {}).decode()


class MessageAssembly:
    """A reply in the making. `names`: wire name -> Mains name."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names
        self._parts: dict[int, _Part] = {}
        self._stop_reason = ""
        self._explanation = ""
        self._counts: dict[str, int] = {}
        self._begun = False
        self.flowing = False
        self.over = False

    @property
    def finished(self) -> bool:
        """Why it stopped is known: the text and the calls are whole."""
        return bool(self._stop_reason)

    @property
    def usage(self) -> Usage | None:
        """What was counted so far; None when nothing was, or a count is below zero: nonsense is not nothing."""
        if not self._counts or min(self._counts.values()) < 0:
            return None
        count = self._counts.get
        cached = count("cache_read_input_tokens", 0)
        hour = count("ephemeral_1h_input_tokens", 0)
        # A server that does not split them says only the sum, and writes for 5 minutes.
        created = max(count("cache_creation_input_tokens", 0), hour + count("ephemeral_5m_input_tokens", 0))
        written = count("output_tokens", 0)
        return Usage(
            count("input_tokens", 0) + created + cached,
            cached,
            written,
            cache_write_tokens=created - hour,
            cache_write_1h_tokens=hour,
            reasoning_tokens=min(count("thinking_tokens", 0), written),
        )

    def add(self, data: bytes) -> str:
        """Take an event's data (or a whole body); the text that it adds."""
        try:
            event = _decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadAnswerError(f"not the dialect ({error}): {shown(data)}") from None
        match event.type:
            case "message_start" if event.message is not None:
                self._begun = True
                self._count(event.message.usage)
            case "message":
                return self._whole(event)
            case "content_block_start" if event.content_block is not None:
                return self._start(event.index, event.content_block)
            case "content_block_delta" if event.delta is not None:
                return self._add(event.index, event.delta)
            case "message_delta":
                self._count(event.usage)
                if event.delta is not None:
                    self._stop(event.delta.stop_reason, event.delta.stop_details)
            case "message_stop":
                self.over = True
            case "error":
                raise _server_error(event.error or _Error())
        return ""

    def _whole(self, event: _Event) -> str:
        """A message that was not streamed."""
        self._begun = self.over = True
        self._count(event.usage)
        self._stop(event.stop_reason, event.stop_details)
        return "".join(self._start(index, block) for index, block in enumerate(event.content))

    def _start(self, index: int, block: _Block) -> str:
        if index in self._parts:
            raise BadAnswerError(f"two blocks of an answer have the index {index}")
        if len(self._parts) >= BLOCKS_MAX:
            raise BadAnswerError(f"more than {BLOCKS_MAX:,} blocks")
        self._parts[index] = _Part(block)
        return block.text if block.type == "text" else ""

    def _add(self, index: int, delta: _Delta) -> str:
        part = self._parts.get(index)
        if part is None:
            raise BadAnswerError(f"a piece of block {index}, which has not begun")
        self.flowing = True
        if delta.type == "text_delta" and part.block.type == "text":
            part.pieces.append(delta.text)
            return delta.text
        if delta.type == "input_json_delta" and part.block.type == "tool_use" and delta.partial_json:
            part.pieces.append(delta.partial_json)
        return ""

    def _stop(self, reason: str | None, details: _Details | None) -> None:
        self._stop_reason = reason or self._stop_reason
        if details is not None and details.explanation:
            self._explanation = details.explanation

    def _count(self, usage: _Usage | None) -> None:
        if usage is None:
            return
        for part in (usage, usage.cache_creation, usage.output_tokens_details):
            for field in part.__struct_fields__ if part is not None else ():
                value = getattr(part, field)
                if isinstance(value, int):
                    self._counts[field] = value

    def reply(self) -> Reply:
        """The whole reply. Raises BadAnswerError when there was none."""
        if not self._begun or not self._stop_reason:
            raise BadAnswerError("an answer that does not say why it stopped" if self._begun else "no message")
        parts = [self._parts[index] for index in sorted(self._parts)]
        text = "".join(piece for part in parts if part.block.type == "text" for piece in part.pieces)
        calls = tuple(
            ToolCall(part.block.id, self._names.get(part.block.name, part.block.name), part.arguments())
            for part in parts
            if part.block.type == "tool_use"
        )
        finish = _FINISHES.get(self._stop_reason, Finish.CALLS if calls else Finish.STOP)
        if finish is Finish.REFUSAL:
            # What was begun before the refusal is no call to be made.
            text, calls = text or self._explanation, ()
        return Reply(text, calls, self.usage, finish)


def _server_error(error: _Error) -> ServerError:
    text = f"{error.type}: {error.message}" if error.message else error.type or "it did not say why"
    return ServerError(text, _CODES.get(error.type, 0))
