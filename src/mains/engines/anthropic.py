"""Anthropic's dialect: `POST {url}/messages`. What goes out stands in `messages.py`, what comes back in
`message_stream.py`; the endpoint itself (time, secrets, faults) is `endpoint.py`.

Source: https://platform.claude.com/docs/en/api/messages, version 2023-06-01 of the API.
"""

from __future__ import annotations

from mains.engines.catalogue import EngineSpec
from mains.engines.endpoint import Answer, key_header
from mains.engines.faults import Party
from mains.engines.message_stream import MessageAssembly
from mains.engines.messages import messages_body
from mains.engines.wire import ToolTables
from mains.kernel.ports import Request

VERSION = "2023-06-01"


class AnthropicDialect:
    """Calls and answers of an endpoint that talks as Anthropic's Messages API does."""

    path = "/messages"

    def __init__(self) -> None:
        self._tables = ToolTables()

    def headers(self, party: Party, key: str) -> dict[str, str]:
        headers = {**key_header(key), "anthropic-version": VERSION}
        if party.secret:
            headers["x-api-key"] = party.secret
        return headers

    def call(self, request: Request, spec: EngineSpec, *, model: str, stream: bool) -> tuple[object, Answer]:
        table = self._tables.of(request.tools)
        body = messages_body(request, table, model=model, stream=stream, thinking=spec.thinking)
        return body, MessageAssembly(table.back)
