"""What a device may ask of us while it serves a call: a person's answer (elicitation), a model's (sampling), roots.

`Doors` are given from above; None: that door is closed, and the server is told at the handshake that there is none. At
most `_ASKS_MAX` questions of one device are open at a time; further ones are refused. For which call a device asks is
known where the protocol says it (revision 2026-07-28; older ones over HTTP), or when only one call is in flight. The
call's own time limit stands still while an answer is thought about.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from mains.kernel.ports import CallContext
from mains.patience import Patience

if TYPE_CHECKING:
    from mcp.client.session import ClientRequestContext

_ASKS_MAX = 16

CALL: contextvars.ContextVar[CallContext | None] = contextvars.ContextVar("call", default=None)
"""The call that the current task makes of a device."""


class Asked(NamedTuple):
    """A question of a device. `call` is the call it serves, None where nobody can tell; `params` are the SDK's."""

    device: str
    call: CallContext | None
    params: Any


Answer = Callable[[Asked], Awaitable[Any]]
"""The answer to a question: what the SDK's callback of that kind returns, or its `ErrorData`."""


class Doors(NamedTuple):
    """What is open to devices. Each answers with the SDK's value for it."""

    elicit: Answer | None = None
    sample: Answer | None = None
    roots: Answer | None = None


class Porter:
    """The doors of one connection, as the SDK's callbacks."""

    def __init__(self, device: str, doors: Doors, calls: Callable[[], Mapping[CallContext, Patience]]) -> None:
        self._device = device
        self._doors = doors
        self._calls = calls  # those in flight, with their time limits
        self._open = 0

    def callbacks(self) -> dict[str, Any]:
        """The arguments of the SDK's client: none for a door that is closed."""
        given: dict[str, Any] = {}
        if self._doors.elicit is not None:
            given["elicitation_callback"] = self._with_params(self._doors.elicit)
        if self._doors.sample is not None:
            given["sampling_callback"] = self._with_params(self._doors.sample)
        if (roots := self._doors.roots) is not None:

            async def list_roots(context: ClientRequestContext) -> Any:
                return await self._ask(roots, None)

            given["list_roots_callback"] = list_roots
        return given

    def _with_params(self, answer: Answer) -> Callable[[ClientRequestContext, Any], Awaitable[Any]]:
        async def asked(context: ClientRequestContext, params: Any) -> Any:
            return await self._ask(answer, params)

        return asked

    async def _ask(self, answer: Answer, params: Any) -> Any:
        if self._open >= _ASKS_MAX:
            from mcp_types import INTERNAL_ERROR, ErrorData

            return ErrorData(code=INTERNAL_ERROR, message=f"more than {_ASKS_MAX} questions are open")
        calls = self._calls()
        call = CALL.get() or (next(iter(calls)) if len(calls) == 1 else None)
        patience = calls.get(call) if call is not None else None
        self._open += 1
        try:
            with patience.thinking() if patience is not None else contextlib.nullcontext():
                return await answer(Asked(self._device, call, params))
        finally:
            self._open -= 1
