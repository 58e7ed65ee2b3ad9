"""The verdict on a reply: what it asks for, what is wrong with it, or that it is the result. Pure.

Malformed calls never fail a process: each becomes a result that tells the model what to mend, a bounded number of
times in a row (`mends_max`). All calls of a reply are judged, in order; ids are made here, so that they are the same
whatever the engine calls them.
"""

from __future__ import annotations

from typing import Any

import msgspec

from mains.arguments import Checker
from mains.kernel.context import whole_text
from mains.kernel.ports import Finish, Message, Reply, Schema, Tool, ToolCall
from mains.settings import Settings

_NOT_JSON = (msgspec.DecodeError, RecursionError)  # the second: a thousand open brackets


class Planned(msgspec.Struct, frozen=True):
    """A call to make; or `error`, which is its result already."""

    id: str
    name: str
    arguments: dict[str, Any] = {}
    error: str = ""


MISFIT = "The result does not fit the output's JSON Schema"


class Verdict(msgspec.Struct, frozen=True):
    """What follows from a reply: calls, or `mend` (said to the model), or `result` with an exit code.

    `bad`: nothing in the reply could be used, so that it counts against the mends in a row.
    """

    message: Message
    calls: tuple[Planned, ...] = ()
    mend: str = ""
    result: str = ""
    code: int = 0
    detail: str = ""

    @property
    def bad(self) -> bool:
        """Whether the model has to mend everything it said."""
        return bool(self.mend) or (bool(self.calls) and all(call.error for call in self.calls))


class Toolbox:
    """The frozen tools of a process, and the checkers of their arguments (made when first used)."""

    def __init__(self, tools: tuple[Tool, ...], output: Schema | None) -> None:
        self.tools = tools
        self.output = output
        self.by_name = {tool.name: tool for tool in tools}
        self._checkers: dict[str, Checker] = {}

    def fault_of(self, name: str, value: Any) -> str:
        """What is wrong with arguments for a tool (or with the output, for `""`); empty when nothing is."""
        checker = self._checkers.get(name)
        if checker is None:
            schema = self.by_name[name].parameters if name else self.output
            try:
                checker = self._checkers[name] = Checker(schema or {})
            except ValueError as fault:
                return f"the schema itself cannot be used: {str(fault).partition(chr(10))[0][:300]}"
        return checker.fault_of(value)


def judge(reply: Reply, turn: int, toolbox: Toolbox, settings: Settings) -> Verdict:
    """The verdict on the reply of turn `turn` (1 is the first)."""
    reply = _readable(reply)
    calls = tuple(ToolCall(f"call_{turn}_{n}", c.name, _as_object(c.arguments)) for n, c in enumerate(reply.calls, 1))
    message = Message(role="assistant", text=reply.text, calls=calls)
    if calls:
        planned = [
            _plan(c, raw, n, toolbox, settings) for n, (c, raw) in enumerate(zip(calls, reply.calls, strict=True), 1)
        ]
        return Verdict(message, tuple(planned))
    if reply.finish is Finish.REFUSAL:
        return Verdict(message, result=reply.text, code=1, detail="the model refused")
    if not reply.text.strip():
        return Verdict(message, mend="Your reply was empty. Give the result as text, or call a tool.")
    if fault := output_fault(reply.text, toolbox):
        return Verdict(message, mend=f"{MISFIT}: {fault}. Reply with JSON only.")
    detail = "the result was cut at the output cap" if reply.finish is Finish.LENGTH else ""
    return Verdict(message, result=reply.text.strip(), detail=detail)


def _readable(reply: Reply) -> Reply:
    """The reply without half characters: whatever an engine sends, it can be stored and sent back."""
    made = tuple(ToolCall(c.id, whole_text(c.name), whole_text(c.arguments)) for c in reply.calls)
    return Reply(whole_text(reply.text), made, reply.usage, reply.finish)


def _as_object(arguments: str) -> str:
    """Arguments as they stay in the context: an engine must never be shown malformed JSON as a call of its own."""
    try:
        value = msgspec.json.decode(arguments or "{}")
    except _NOT_JSON:
        return "{}"
    return arguments or "{}" if isinstance(value, dict) else "{}"


def _plan(call: ToolCall, raw: ToolCall, n: int, toolbox: Toolbox, settings: Settings) -> Planned:
    if n > settings.calls_per_turn_max:
        return Planned(call.id, call.name, error=f"error: at most {settings.calls_per_turn_max} calls in one reply")
    if call.name not in toolbox.by_name:
        known = ", ".join(sorted(toolbox.by_name)) or "none"
        return Planned(call.id, call.name, error=f"error: there is no tool `{call.name}` (tools: {known})")
    try:
        arguments = msgspec.json.decode(raw.arguments or "{}")
    except _NOT_JSON as error:
        return Planned(call.id, call.name, error=f"error: the arguments are not JSON: {error}")
    if not isinstance(arguments, dict):
        return Planned(call.id, call.name, error="error: the arguments must be a JSON object")
    if fault := toolbox.fault_of(call.name, arguments):
        return Planned(call.id, call.name, error=f"error: the arguments do not fit: {fault}")
    return Planned(call.id, call.name, arguments)


def output_fault(text: str, toolbox: Toolbox) -> str:
    """What is wrong with a result under the output's schema; empty when nothing is, or there is no schema."""
    if toolbox.output is None:
        return ""
    try:
        value = value_of(text, toolbox.output)
    except _NOT_JSON as error:
        return f"it is not JSON ({error})"
    return toolbox.fault_of("", value)


def value_of(text: str, output: Schema) -> Any:
    """The value that a result has under its schema. Where a string is wanted, bare text is one.

    Raises msgspec.DecodeError, or RecursionError, for text that is no JSON where anything else is wanted.
    """
    is_text = output.get("type") == "string"
    try:
        value = msgspec.json.decode(_bare_json(text))
    except _NOT_JSON:
        if is_text:
            return text.strip()
        raise
    return text.strip() if is_text and not isinstance(value, str) else value


def _bare_json(text: str) -> str:
    """JSON without the code fence that many models put around it."""
    text = text.strip()
    if text.startswith("```") and text.endswith("```") and "\n" in text:
        text = text[text.index("\n") : -3]
    return text.strip()
