"""What comes back: server-sent events (or one JSON object) of an OpenAI-dialect endpoint as a `Reply`. Pure.

    EventLines        bytes -> the `data` of each event, with a bound on every line and on the whole
    Assembly          events -> Reply; takes what servers really send, and says what they left out

What servers do differently, and what happens here. Usage comes in every event, in the last one, beside the
choices or in a vendor's field: the last one seen wins. A tool call comes in pieces by index; some servers
give all calls index 0 and tell them apart by id, some leave ids out (they are made, the same for the same
request), some send a name or the arguments whole again (the copy is dropped). `reasoning_content` is not part
of a reply.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from mains.kernel.ports import Finish, Reply, ToolCall, Usage

LINE_BYTES_MAX = 4 * 1024 * 1024
BODY_BYTES_MAX = 32 * 1024 * 1024
CALLS_MAX = 1_024  # tool calls of one reply
SHOWN_BYTES = 4_096
DONE = b"[DONE]"

_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
_FINISHES = {
    "length": Finish.LENGTH,
    "max_tokens": Finish.LENGTH,
    "content_filter": Finish.REFUSAL,
    "refusal": Finish.REFUSAL,
}
_BROKEN = frozenset({"error", "abort", "insufficient_system_resource"})


class BadAnswerError(Exception):
    """The endpoint sent something that is not the dialect; the text says what. Becomes an EngineError."""


class ServerError(Exception):
    """The endpoint reported an error within an answer that had begun well. `code` is 0 when it named none."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class EventLines:
    """A push parser for server-sent events: `feed` it bytes, get the data of the events that are complete."""

    def __init__(self, line_bytes_max: int = LINE_BYTES_MAX, body_bytes_max: int = BODY_BYTES_MAX) -> None:
        self._line_bytes_max = line_bytes_max
        self._left_bytes = body_bytes_max
        self._rest = bytearray()
        self._data: list[bytes] = []
        self._data_bytes = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        self._left_bytes -= len(chunk)
        if self._left_bytes < 0:
            raise BadAnswerError("the answer is longer than any answer may be")
        self._rest += chunk
        lines: list[bytearray] = []
        if b"\n" in chunk:
            *lines, self._rest = self._rest.split(b"\n")
        if len(self._rest) > self._line_bytes_max:
            raise BadAnswerError(f"a line of more than {self._line_bytes_max:,} bytes")
        events: list[bytes] = []
        for line in lines:
            self._line(bytes(line).removesuffix(b"\r"), events)
        return events

    def end(self) -> list[bytes]:
        """The connection is closed: what is left is the last event (some servers skip the blank line)."""
        return self.feed(b"\n\n") if self._rest or self._data else []

    def _line(self, line: bytes, events: list[bytes]) -> None:
        if not line:
            if self._data:
                events.append(b"\n".join(self._data))
                self._data, self._data_bytes = [], 0
        elif line.startswith(b"data:"):
            data = line[5:].removeprefix(b" ")
            self._data_bytes += len(data)
            if self._data_bytes > self._line_bytes_max:
                raise BadAnswerError(f"an event of more than {self._line_bytes_max:,} bytes")
            self._data.append(data)
        elif not line.startswith(_FIELDS):
            raise BadAnswerError(f"no event stream: {shown(line)}")


def shown(data: bytes) -> str:
    """The beginning of some bytes for an error's text, which is cut again when secrets are blotted out."""
    return data[:SHOWN_BYTES].decode("utf-8", "replace")


class _InputDetails(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None
    # https://openrouter.ai/docs/use-cases/usage-accounting
    cache_write_tokens: int | None = None
    # DashScope's explicit cache, of 5 minutes: https://help.aliyun.com/model-studio/context-cache
    cache_creation_input_tokens: int | None = None


class _OutputDetails(msgspec.Struct, frozen=True):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None
    prompt_cache_hit_tokens: int | None = None  # DeepSeek's name for cached tokens

    def usage(self) -> Usage | None:
        """The figures, each part at most its whole. Written to the cache counts as for 5 minutes: none says more."""
        if self.prompt_tokens is None and self.completion_tokens is None:
            return None
        if (self.prompt_tokens or 0) < 0 or (self.completion_tokens or 0) < 0:
            return None  # nonsense is not known, and not nothing
        details = self.prompt_tokens_details or _InputDetails()
        read, written = max(0, self.prompt_tokens or 0), max(0, self.completion_tokens or 0)
        cached = min(max(0, details.cached_tokens or self.prompt_cache_hit_tokens or 0), read)
        stored = max(0, details.cache_write_tokens or details.cache_creation_input_tokens or 0)
        reasoning = max(0, (self.completion_tokens_details or _OutputDetails()).reasoning_tokens or 0)
        if reasoning and self.total_tokens == read + written + reasoning:
            written += reasoning  # some servers count what was thought beside the answer
        return Usage(
            read,
            cached,
            written,
            cache_write_tokens=min(stored, read - cached),
            reasoning_tokens=min(reasoning, written),
        )


class _Function(msgspec.Struct, frozen=True):
    name: str | None = None
    arguments: Any = None


class _CallPiece(msgspec.Struct, frozen=True):
    index: int | None = None
    id: str | int | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct, frozen=True):
    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None  # OpenRouter's name for it
    refusal: str | None = None
    tool_calls: list[_CallPiece] | None = None


class _Choice(msgspec.Struct, frozen=True):
    index: int | None = None
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: str | None = None
    usage: _Usage | None = None


class _VendorPart(msgspec.Struct, frozen=True):
    usage: _Usage | None = None


class _Event(msgspec.Struct, frozen=True):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    x_groq: _VendorPart | None = None
    error: Any = None


_decoder = msgspec.json.Decoder(_Event, strict=False)


class _Call:
    """A tool call while its pieces come in."""

    def __init__(self) -> None:
        self.id = ""
        self.names: list[str] = []
        self.arguments: list[str] = []

    def add(self, piece: _CallPiece) -> None:
        if piece.id is not None and not self.id:
            self.id = str(piece.id)
        function = piece.function
        if function is None:
            return
        if function.name:
            self.names.append(function.name)
        if isinstance(function.arguments, str):
            if function.arguments:
                self.arguments.append(function.arguments)
        elif function.arguments is not None:
            self.arguments.append(msgspec.json.encode(function.arguments).decode())

    def name(self, known: Mapping[str, str]) -> str:
        """The Mains name: the pieces joined, or the last piece where a server repeats the whole."""
        joined = "".join(self.names)
        if joined not in known and self.names:
            last = self.names[-1]
            if last in known or self.names == [last] * len(self.names):
                joined = last
        return known.get(joined, joined)

    def argument_text(self) -> str:
        joined = "".join(self.arguments)
        if len(self.arguments) < 2 or _is_object(joined):
            return joined
        last = self.arguments[-1]
        repeats = joined == last + last or last.startswith(self.arguments[-2])
        return last if repeats and _is_object(last) else joined


class Assembly:
    """A reply in the making. `names`: wire name -> Mains name; `seed`: of the ids that a server left out."""

    def __init__(self, names: Mapping[str, str], seed: str) -> None:
        self._names = names
        self._seed = seed
        self._texts: list[str] = []
        self._refusals: list[str] = []
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._finish = ""
        self.usage: Usage | None = None
        self.begun = False  # a choice was seen
        self.flowing = False  # the model has begun to write, or to think aloud
        self.over = False  # the server has said that nothing more comes

    @property
    def finished(self) -> bool:
        """A finish reason was seen: the text and the calls are whole, only usage may still come."""
        return bool(self._finish)

    def add(self, data: bytes) -> str:
        """Take an event's data (or a whole body); the text that it adds."""
        if data.strip() == DONE:
            self.over = True
            return ""
        try:
            event = _decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadAnswerError(f"not the dialect ({error}): {shown(data)}") from None
        if event.error:
            raise _server_error(event.error)
        self._take_usage(event)
        text = ""
        for choice in event.choices or ():
            if not choice.index:
                text += self._take_choice(choice)
        return text

    def _take_usage(self, event: _Event) -> None:
        vendor = event.x_groq.usage if event.x_groq else None
        in_choices = [choice.usage for choice in event.choices or ()]
        for usage in (vendor, *in_choices, event.usage):
            self.usage = (usage.usage() if usage else None) or self.usage

    def _take_choice(self, choice: _Choice) -> str:
        self.begun = True
        self._finish = choice.finish_reason or self._finish
        delta = choice.delta or choice.message
        if delta is None:
            return ""
        if delta.refusal:
            self._refusals.append(delta.refusal)
        for piece in delta.tool_calls or ():
            self._call_for(piece).add(piece)
        text = _content_text(delta.content)
        thought = delta.reasoning_content or delta.reasoning
        self.flowing = self.flowing or bool(text or thought or delta.refusal or delta.tool_calls)
        if text:
            self._texts.append(text)
        return text

    def _call_for(self, piece: _CallPiece) -> _Call:
        index = piece.index if piece.index is not None else self._index_for(piece)
        call = self._by_index.get(index)
        named = piece.function is not None and bool(piece.function.name)
        if call is None or (named and piece.id is not None and call.id and str(piece.id) != call.id):
            if len(self._calls) >= CALLS_MAX:
                raise BadAnswerError(f"more than {CALLS_MAX:,} tool calls")
            call = self._by_index[index] = _Call()
            self._calls.append(call)
        return call

    def _index_for(self, piece: _CallPiece) -> int:
        """Where a piece without an index belongs: to the call of its id, to a new one, or to the last one."""
        if piece.id is not None:
            for index, call in self._by_index.items():
                if call.id == str(piece.id):
                    return index
        starts = piece.id is not None or (piece.function is not None and bool(piece.function.name))
        return len(self._by_index) if starts else max(len(self._by_index) - 1, 0)

    def reply(self) -> Reply:
        """The whole reply. Raises BadAnswerError when there was none, ServerError when the server gave up."""
        if not self.begun:
            raise BadAnswerError("an answer without choices")
        if self._finish in _BROKEN:
            raise ServerError(f"the server gave up (finish_reason {self._finish})", 0)
        calls = self._tool_calls()
        text = "".join(self._texts)
        refusal = "".join(self._refusals)
        finish = _FINISHES.get(self._finish, Finish.CALLS if calls else Finish.STOP)
        if refusal:
            finish, text = Finish.REFUSAL, text or refusal
        return Reply(text, calls, self.usage, finish)

    def _tool_calls(self) -> tuple[ToolCall, ...]:
        used: set[str] = set()
        calls = []
        for number, call in enumerate(self._calls):
            own = call.id if call.id and call.id not in used else self._made_id(number)
            used.add(own)
            calls.append(ToolCall(own, call.name(self._names), call.argument_text()))
        return tuple(calls)

    def _made_id(self, number: int) -> str:
        digest = hashlib.blake2s(f"{self._seed}\n{number}".encode("utf-8", "surrogatepass"), digest_size=12)
        return f"call_{digest.hexdigest()}"


def _is_object(text: str) -> bool:
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except msgspec.DecodeError:
        return False


def _content_text(content: object) -> str:
    """Text of a `content`: a string, or a list of parts of which only text counts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        return "".join(text for text in texts if isinstance(text, str))
    return ""


def _server_error(error: object) -> ServerError:
    if not isinstance(error, dict):
        return ServerError(str(error), 0)
    code = str(error.get("code"))
    text = error.get("message") or error.get("type") or error
    return ServerError(str(text), int(code) if re.fullmatch(r"\d{3}", code) else 0)
