"""A device that is a server elsewhere and speaks MCP over streamable HTTP: one connection.

The protocol is the SDK's. What is ours is the HTTP client below it:

- what a server sends as one body, or as one event, has at most `message_bytes_max` bytes; a stream of events may go on
  for ever, but says at most `_CHATTER_MESSAGES` times as much in one answer. Bodies are not compressed, so that a
  small one cannot become a large one;
- a request that fails is an error of its own call, not of the connection (the SDK's transport would end with it). One
  that cannot have reached the server says so (`NOT_SENT`);
- redirects leave no origin (the SDK's rule); headers, which may hold a key, go to the configured URL only.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import httpx2
    from mcp.client._transport import TransportStreams

NOT_SENT = -32_090
"""The JSON-RPC code of an error of ours: the request did not reach the server."""
LOST = -32_091
"""The same: nobody knows whether it did."""
EXPIRED = -32_092
"""The same: the server has forgotten the connection and did nothing. A new one is to be made (the MCP specification,
revision 2025-11-25, "Session Management": 404)."""

_CONNECT_S = 10.0
_CHATTER_MESSAGES = 4
_FAREWELL_S = 2.0  # for a server to hear that we leave


class Remote:
    """See the module's header. `auth` is what signs requests, such as the SDK's OAuth; None: the headers are enough."""

    def __init__(
        self, name: str, url: str, headers: Mapping[str, str], message_bytes_max: int, auth: httpx2.Auth | None = None
    ) -> None:
        self.pid = 0
        self.ended = ""
        self.over = asyncio.Event()
        self.heard_at = 0.0
        self._name = name
        self._url = url
        self._headers = dict(headers)
        self._bytes_max = message_bytes_max
        self._auth = auth

    @contextlib.asynccontextmanager
    async def streams(self) -> AsyncIterator[TransportStreams]:
        """The streams of messages to and from the server."""
        import httpx2
        from mcp.client.streamable_http import streamable_http_client

        client = _client_class()(
            headers={"accept-encoding": "identity", **self._headers},
            timeout=httpx2.Timeout(None, connect=_CONNECT_S, pool=None),  # the limits of a call are its caller's
            auth=self._auth,
            event_hooks={"response": [self._bound]},
        )
        async with (
            client,
            streamable_http_client(self._url, http_client=client, max_sse_event_size=self._bytes_max) as streams,
        ):
            yield streams

    async def _bound(self, response: httpx2.Response) -> None:
        """Put a bound on the body of a response, before anybody reads it."""
        import httpx2

        self.heard_at = asyncio.get_running_loop().time()
        encoding = response.headers.get("content-encoding", "identity")
        if encoding.lower() != "identity":
            raise httpx2.DecodingError(f"the answer is compressed ({encoding[:40]}), which was not asked for")
        is_stream = response.headers.get("content-type", "").lower().startswith("text/event-stream")
        most = self._bytes_max * (_CHATTER_MESSAGES if is_stream else 1)
        response.stream = _bounded_stream(self, response.stream, most)


def _client_class() -> type[httpx2.AsyncClient]:
    """The HTTP client whose failures are answers. Made here: the library is imported when it is first needed."""
    import httpx2

    class Door(httpx2.AsyncClient):
        async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
            try:
                limit_s = _FAREWELL_S if request.method == "DELETE" else None
                async with asyncio.timeout(limit_s):
                    response = await super().send(request, **options)
            except TimeoutError:
                return _refusal(request, LOST, f"{request.url.host} did not say goodbye")
            except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.UnsupportedProtocol) as error:
                return _refusal(
                    request, NOT_SENT, f"no connection to {request.url.host}: {str(error) or 'it timed out'}"
                )
            except (httpx2.TransportError, httpx2.DecodingError) as error:
                return _refusal(request, LOST, f"the connection to {request.url.host} broke: {error}")
            if response.status_code == 404 and "mcp-session-id" in request.headers:
                await response.aclose()
                return _refusal(request, EXPIRED, f"{request.url.host} has forgotten us")
            return response

    return Door


def _refusal(request: httpx2.Request, code: int, text: str) -> httpx2.Response:
    """What a server would answer that says why it cannot."""
    import httpx2

    body = msgspec.json.encode({"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": text[:500]}})
    return httpx2.Response(503, headers={"content-type": "application/json"}, content=body, request=request)


def _bounded_stream(remote: Remote, stream: Any, bytes_max: int) -> Any:
    """The bytes of a response until there are too many, or the connection breaks: an error that the SDK expects."""
    import httpx2

    class Bounded(httpx2.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            size = 0
            try:
                async for chunk in stream:
                    remote.heard_at = asyncio.get_running_loop().time()
                    size += len(chunk)
                    if size > bytes_max:
                        raise httpx2.StreamError(f"more than {bytes_max:,} bytes in one answer")
                    yield chunk
            except httpx2.TransportError as error:
                raise httpx2.StreamError(f"the connection broke: {error}") from error

        async def aclose(self) -> None:
            await stream.aclose()

    return Bounded()
