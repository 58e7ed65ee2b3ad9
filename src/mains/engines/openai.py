"""The OpenAI dialect: `POST {url}/chat/completions`. What goes out stands in `wire.py`, what comes back in `stream.py`.

The endpoint itself (time, secrets, faults) is `endpoint.py`.
"""

from __future__ import annotations

from mains.engines.catalogue import EngineSpec
from mains.engines.endpoint import Answer, key_header
from mains.engines.faults import Party
from mains.engines.stream import Assembly
from mains.engines.wire import ToolTables, body_of
from mains.kernel.ports import Request


class OpenAIDialect:
    """Calls and answers of an endpoint that talks as OpenAI does."""

    path = "/chat/completions"

    def __init__(self) -> None:
        self._tables = ToolTables()

    def headers(self, party: Party, key: str) -> dict[str, str]:
        headers = key_header(key)
        if party.secret:
            headers["Authorization"] = f"Bearer {party.secret}"
        return headers

    def call(self, request: Request, spec: EngineSpec, *, model: str, stream: bool) -> tuple[object, Answer]:
        table = self._tables.of(request.tools)
        body = body_of(request, table, model=model, tokens_field=spec.tokens_field, stream=stream)
        return body, Assembly(table.back, f"{request.key}\n{len(request.messages)}")
