"""An engine that answers from a script: for our tests and those of users. The format: `docs/scripted.md`.

Replies are chosen by the frame alone (`script.py`), token counts are computed from the text, and time is
passed in, so that a run is the same every time. An answer function (`ScriptedEngine.of(function)`) that
gives a whole `Reply` costs a microsecond a call and nothing is added to it: the path that benchmarks use.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mains.engines.script import CONTEXT_TOKENS, SLOTS, Line, Rule, Script, line_of, read_script, script_of
from mains.errors import EngineError, Spent
from mains.kernel.ports import EngineState, Finish, Message, Reply, Request, ToolCall, Usage

SHOWN_CHARS = 200
_KEY = re.compile(r"\d+-(\d+)-\d+")
MESSAGE_TOKENS = 4

Answer = Reply | str | Mapping[str, Any]
AnswerFunction = Callable[[Request], Answer | Awaitable[Answer]]
"""What to say to a request: a whole Reply, a text, or a reply as a script writes it. It may be async."""
WaitMs = Callable[[int], Awaitable[None]]


async def _wait_ms(span_ms: int) -> None:
    await asyncio.sleep(span_ms / 1_000)


class ScriptedEngine:
    """See the module's header. `calls` counts the calls that were made."""

    def __init__(
        self,
        script: Script,
        *,
        name: str = "scripted",
        slots: int = 0,
        context_tokens: int = 0,
        wait_ms: WaitMs = _wait_ms,
        function: AnswerFunction | None = None,
    ) -> None:
        """`slots` and `context_tokens` 0: as the script says. `function` answers in the script's place."""
        self.name = name
        self.slots = slots or script.slots
        self.rpm = self.tpm = 0
        self.context_tokens = context_tokens or script.context_tokens
        self.cache_tokens = 0
        self.calls = 0
        self._script = script
        self._function = function
        self._wait_ms = wait_ms
        self._busy = 0
        self._used: dict[int, int] = {}  # calls served by each rule that has `times`

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        name: str = "scripted",
        slots: int = 0,
        context_tokens: int = 0,
        wait_ms: WaitMs = _wait_ms,
    ) -> ScriptedEngine:
        """The engine of a YAML file. Raises ConfigError that names every mistake in it."""
        script = read_script(path)
        return cls(script, name=name, slots=slots, context_tokens=context_tokens, wait_ms=wait_ms)

    @classmethod
    def of(
        cls,
        replies: Sequence[object] | AnswerFunction,
        *,
        name: str = "scripted",
        slots: int = SLOTS,
        context_tokens: int = CONTEXT_TOKENS,
        wait_ms: WaitMs = _wait_ms,
    ) -> ScriptedEngine:
        """The engine of a script's `replies` in Python, or of a function that answers."""
        if callable(replies):
            script, function = Script(where="the answer function", rules=()), replies
        else:
            script, function = script_of(list(replies), "ScriptedEngine.of"), None
        return cls(script, name=name, slots=slots, context_tokens=context_tokens, wait_ms=wait_ms, function=function)

    def state(self) -> EngineState:
        return EngineState(
            name=self.name,
            kind="scripted",
            model=self._script.where,
            slots=self.slots,
            busy=self._busy,
            health="ok",
            context_tokens=self.context_tokens,
            tokens_per_s=0.0,
        )

    async def start(self) -> None:
        return

    async def close(self) -> None:
        return

    async def complete(self, request: Request, on_delta: Callable[[str], None]) -> Reply:
        self.calls += 1
        self._busy += 1
        try:
            if self._function is None:
                return await self._say(self._line_for(request), request, on_delta)
            answer = self._function(request)
            if inspect.isawaitable(answer):
                answer = await answer
            if isinstance(answer, Reply):
                if answer.text:
                    on_delta(answer.text)
                return answer
            return await self._say(line_of(answer, self._script.where), request, on_delta)
        finally:
            self._busy -= 1

    def _line_for(self, request: Request) -> Line:
        turn = turn_of(request)
        for number, rule in enumerate(self._script.rules):
            line = rule.line_for(request.messages, turn)
            if line is not None and self._has_uses(number, rule):
                return line
        last = request.messages[-1].text if request.messages else ""
        text = f"{self._script.where}: no reply fits turn {turn} of a frame that ends: {last[:SHOWN_CHARS]}"
        hint = "add a rule for it, or one without conditions at the end: docs/scripted.md"
        raise EngineError(text, retryable=False, spent=Spent.NOTHING, hint=hint)

    def _has_uses(self, number: int, rule: Rule) -> bool:
        """Whether the rule may serve once more; if so, that use is taken."""
        if not rule.times:
            return True
        used = self._used.get(number, 0)
        self._used[number] = min(used + 1, rule.times)
        return used < rule.times

    async def _say(self, line: Line, request: Request, on_delta: Callable[[str], None]) -> Reply:
        reply = reply_of(line, request)
        await self._stream(reply.text, line, on_delta)
        if line.error is not None:
            error = line.error
            raise EngineError(
                f"engine {self.name}: {error.text}",
                retryable=error.retryable,
                spent=error.spent,
                retry_after_s=error.retry_after_s,
                blame=error.blame,
            )
        return reply

    async def _stream(self, text: str, line: Line, on_delta: Callable[[str], None]) -> None:
        """Hand the text out in `chunks` pieces, the delay spread evenly before them."""
        size = max(1, -(-len(text) // line.chunks))
        waited_ms = 0
        for number in range(line.chunks):
            due_ms = line.delay_ms * (number + 1) // line.chunks
            if due_ms > waited_ms:
                await self._wait_ms(due_ms - waited_ms)
                waited_ms = due_ms
            piece = text[number * size : (number + 1) * size]
            if piece:
                on_delta(piece)


def turn_of(request: Request) -> int:
    """The turn that is asked for: as the call's key says (process-turn-attempt), whatever has left the frame; without
    such a key 1, and one more for each assistant message in the frame."""
    if found := _KEY.fullmatch(request.key):
        return int(found[1])
    return 1 + sum(message.role == "assistant" for message in request.messages)


def input_tokens(messages: Sequence[Message]) -> int:
    """What a scripted call reads: 4 a message and 1 for every 4 characters of each text and arguments."""
    tokens = MESSAGE_TOKENS * len(messages)
    for message in messages:
        tokens += len(message.text) // 4
        for call in message.calls:
            tokens += len(call.arguments) // 4
    return tokens


def output_tokens(text: str, calls: Sequence[ToolCall]) -> int:
    """What a scripted reply writes: 1, and 1 for every 4 characters of its text and of each arguments."""
    return 1 + len(text) // 4 + sum(len(call.arguments) // 4 for call in calls)


def reply_of(line: Line, request: Request) -> Reply:
    """The reply that a line of the script makes to `request`, cut at the request's `output_tokens_max`."""
    text = line.text
    if line.echo and request.messages:
        text = request.messages[-1].text
    calls = line.tool_calls(turn_of(request)) if line.calls else ()
    finish = line.finish_of(calls)
    said = line.tokens
    written = output_tokens(text, calls) if said.output is None else said.output
    limit = request.output_tokens_max
    if written > limit:
        text, calls, finish, written = text[: max(0, 4 * limit - 1)], (), Finish.LENGTH, limit
    if line.usage == "none":
        return Reply(text, calls, None, finish)
    read = input_tokens(request.messages) if said.input is None else said.input
    return Reply(text, calls, Usage(read, min(said.cached, read), written), finish)
