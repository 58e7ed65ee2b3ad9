"""A device that answers from a list or a function, and remembers what it was asked: for tests of programs.

mail = ScriptedDevice("mail", ["sent", Failed("no such address"), DeviceError("the line went dead")])
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from mains.errors import DeviceError
from mains.kernel.ports import CallContext, Done, Failed, Schema, Tool

Answer = Done | Failed | DeviceError | str
"""What a scripted device says: text (or Done), a refusal (Failed), or a DeviceError, which it raises."""
AnswerFunction = Callable[[Mapping[str, Any], CallContext], Answer | Awaitable[Answer]]


class Asked(msgspec.Struct, frozen=True):
    """One call that a device got."""

    arguments: dict[str, Any]
    context: CallContext


class ScriptedDevice:
    """A device of one tool, which has the device's name. `asked` are the calls that it got, in order.

    `answers`: one for each call, the last again and again; or a function of the arguments and the CallContext, which
    may be async. `read_only` and `idempotent` are your word, as with `@mains.device`.
    """

    def __init__(
        self,
        name: str,
        answers: Sequence[Answer] | AnswerFunction,
        *,
        description: str = "",
        parameters: Schema | None = None,
        read_only: bool = False,
        idempotent: bool = False,
    ) -> None:
        self.name = name
        self.asked: list[Asked] = []
        self._answers = answers
        self._tool = Tool("", description or name, parameters or {"type": "object"}, read_only, idempotent)

    def tools(self) -> Sequence[Tool]:
        """The one tool."""
        return [self._tool]

    async def call(self, tool: str, arguments: Mapping[str, Any], context: CallContext) -> Done | Failed:
        """The next answer. Raises DeviceError when that is one."""
        self.asked.append(Asked(dict(arguments), context))
        answer: Any
        if callable(self._answers):
            answer = self._answers(arguments, context)
            if inspect.isawaitable(answer):
                answer = await answer
        else:
            answer = self._answers[min(len(self.asked), len(self._answers)) - 1]
        if isinstance(answer, DeviceError):
            raise answer
        return answer if isinstance(answer, Done | Failed) else Done(answer)

    async def close(self) -> None:
        """Nothing to free."""
