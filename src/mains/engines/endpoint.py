"""An engine behind an HTTP endpoint: one aiohttp session, a dialect that says what goes out and what comes back.

One `complete` is one attempt. What a 400 refuses costs nothing, so a call is made again, once for each, without what
the endpoint says it does not take: streaming (there every answer carries its usage, and a budget needs usage more than
a watcher needs deltas), the temperature (newer models draw as they please), the output's schema (the kernel checks the
result and lets the model mend it). The first two are remembered as long as the engine lives.

Time. `first_byte_s` bounds the silence until the model's first output (a long prompt takes long to read),
`stream_idle_s` the silence between bytes after it, `timeout_s` the whole call. Without streaming the first byte comes
when the model has finished, so only `timeout_s` counts there. A connection that was idle for 3 s is not used again:
many servers close theirs after 5 s, and a request lost that way would have to be treated as spent.

Secrets. The key is read from its variable at each call. It goes into one header of one request to the
configured host (redirects are not followed, proxies and .netrc not consulted) and is blotted out of every
error text. Errors are raised `from None`: an aiohttp exception knows the request's headers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

import msgspec

from mains.engines import faults
from mains.engines.allowances import limits_of
from mains.engines.catalogue import EngineSpec
from mains.engines.faults import Party
from mains.engines.silence import Silence, SilentError
from mains.engines.stream import BODY_BYTES_MAX, BadAnswerError, EventLines, ServerError
from mains.errors import EngineError
from mains.kernel.ports import EngineState, Reply, Request

if TYPE_CHECKING:
    import aiohttp

CONNECT_TIMEOUT_S = 10.0
KEEPALIVE_S = 3.0
DRAIN_S = 0.1  # after the last event: the wait for the end of the body, so that the connection is kept
ERROR_BYTES_MAX = 64 * 1024
MODELS_MAX = 256  # of one engine, of which is remembered what they refuse
STREAM_S_MIN = 0.02  # a shorter stream is one piece of output, cut up by the network
SPEED_WEIGHT = 0.2  # of the last call in the moving average of the output speed
_SCHEMA_MARKS = (b"schema", b"output_config", b"response_format")


class Answer(Protocol):
    """A reply in the making."""

    @property
    def flowing(self) -> bool:
        """The model has begun to write."""
        ...

    @property
    def finished(self) -> bool:
        """The text and the calls are whole."""
        ...

    @property
    def over(self) -> bool:
        """Nothing more will come."""
        ...

    def add(self, data: bytes) -> str:
        """Take an event's data, or a whole body; the text that it adds. Raises BadAnswerError, ServerError."""
        ...

    def reply(self) -> Reply:
        """The whole reply. Raises BadAnswerError when there was none, ServerError when the server gave up."""
        ...


class Dialect(Protocol):
    """How an endpoint is talked to."""

    path: str

    def headers(self, party: Party, key: str) -> dict[str, str]:
        """The headers of a call, the secret included."""
        ...

    def call(self, request: Request, spec: EngineSpec, *, model: str, stream: bool) -> tuple[object, Answer]:
        """The object to send, and what its answer is put into."""
        ...


class EndpointEngine:
    """See the module's header. `spec` says where and what; `environ`, `now` and `monotonic` are the world."""

    def __init__(
        self,
        spec: EngineSpec,
        dialect: Dialect,
        *,
        timeout_s: float = 600.0,
        first_byte_s: float = 300.0,
        stream_idle_s: float = 60.0,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        environ: Mapping[str, str] = os.environ,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = spec.name
        self.slots, self.rpm, self.tpm = spec.slots, spec.rpm, spec.tpm
        self.context_tokens, self.cache_tokens = spec.context_tokens, spec.cache_tokens
        self._spec = spec
        self._dialect = dialect
        self._url = f"{spec.url.rstrip('/')}{dialect.path}"
        self._timeout_s = timeout_s
        self._first_byte_s = spec.first_byte_s or first_byte_s
        self._stream_idle_s = spec.idle_timeout_s or stream_idle_s
        self._connect_timeout_s = connect_timeout_s
        self._environ = environ
        self._now = now
        self._monotonic = monotonic
        self._stream = spec.stream
        self._no_temperature: set[str] = set()  # models
        self._session: aiohttp.ClientSession | None = None
        self._busy = 0
        self._health = "unknown"
        self._tokens_per_s = 0.0

    def state(self) -> EngineState:
        return EngineState(
            name=self.name,
            kind=self._spec.kind,
            model=self._spec.model,
            slots=self.slots,
            busy=self._busy,
            health=self._health,
            context_tokens=self.context_tokens,
            tokens_per_s=round(self._tokens_per_s, 1),
        )

    async def start(self) -> None:
        self._open()

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            import aiohttp

            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=max(1, self.slots), keepalive_timeout=KEEPALIVE_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "mains"},
            )
        return self._session

    async def complete(self, request: Request, on_delta: Callable[[str], None]) -> Reply:
        self._busy += 1
        try:
            reply = await self._attempt(request, on_delta)
        except EngineError as error:
            self._health = f"failing: {error}"
            raise
        finally:
            self._busy -= 1
        self._health = "ok"
        return reply

    async def _attempt(self, request: Request, on_delta: Callable[[str], None]) -> Reply:
        import aiohttp

        party = self._party(request)
        if not self._spec.json_schema:
            request = _without_output(request)
        if party.model in self._no_temperature:
            request = _without_temperature(request)
        try:
            while True:
                try:
                    return await self._call(request, party, on_delta, self._stream)
                except _SimplerError as simpler:
                    request = simpler.request
        except (aiohttp.ClientError, OSError, BadAnswerError, ServerError, SilentError) as error:
            raise self._fault(party, error) from None

    def _party(self, request: Request) -> Party:
        """Who is called, with the key as it is now. Raises EngineError when there is no usable key."""
        spec = self._spec
        secret = self._environ.get(spec.key_env, "").strip() if spec.key_env else ""
        party = Party(spec.name, self._url, request.model or spec.model, spec.key_env, secret)
        if spec.key_env and not secret:
            text = f"the variable {spec.key_env}, which should hold the key, is not set"
            hint = f"export {spec.key_env}=… and start the daemon again"
            raise faults.unsent(party, text, retryable=False, hint=hint)
        if not secret.isascii() or not secret.isprintable():
            text = f"the key in {spec.key_env} has characters that no key has"
            raise faults.unsent(party, text, retryable=False, hint="was something else pasted?")
        return party

    async def _call(self, request: Request, party: Party, on_delta: Callable[[str], None], stream: bool) -> Reply:
        import aiohttp

        from mains.engines.sent_body import encoded

        said, answer = self._dialect.call(request, self._spec, model=party.model, stream=stream)
        body = encoded(said, party)
        del said  # the whole frame once more, and a call may take minutes
        watch = _Watch(on_delta, self._monotonic)
        call = self._open().post(
            self._url,
            data=body,
            headers=self._dialect.headers(party, request.key),
            timeout=aiohttp.ClientTimeout(sock_connect=self._connect_timeout_s),
            allow_redirects=False,
        )
        first_byte_s, idle_s = (self._first_byte_s, self._stream_idle_s) if stream else (None, None)
        silence, limits = Silence(first_byte_s, idle_s, self._timeout_s), None
        try:
            async with silence, call as response:
                limits = limits_of(response.headers, self._now())
                if not 200 <= response.status < 300:
                    raise await self._refusal(response, request, party, stream)
                if response.content_type == "application/json":
                    watch(answer.add(await _whole_body(response)))
                else:
                    await _read_events(response, answer, watch, silence)
        except (SilentError, TimeoutError):
            if not answer.finished:
                raise
        reply = msgspec.structs.replace(answer.reply(), limits=limits)
        self._measure(reply, watch)
        return reply

    async def _refusal(
        self, response: aiohttp.ClientResponse, request: Request, party: Party, stream: bool
    ) -> Exception:
        import aiohttp

        body = b""
        with contextlib.suppress(aiohttp.ClientError, OSError):  # the status alone says enough
            body = await _beginning(response, ERROR_BYTES_MAX)
        if response.status in (400, 422) and (simpler := self._simpler(request, party, stream, body.lower())):
            return simpler
        return faults.refused(party, response.status, response.headers, body, self._now())

    def _simpler(self, request: Request, party: Party, stream: bool, said: bytes) -> _SimplerError | None:
        """The request without what the endpoint says it does not take; None when there is nothing to leave out."""
        if stream and b"stream" in said:
            self._stream = False
            return _SimplerError(request)
        if request.sampling.temperature is not None and b"temperature" in said:
            if len(self._no_temperature) < MODELS_MAX:
                self._no_temperature.add(party.model)
            return _SimplerError(_without_temperature(request))
        if request.output is not None and any(mark in said for mark in _SCHEMA_MARKS):
            return _SimplerError(_without_output(request))
        return None

    def _fault(self, party: Party, error: Exception) -> EngineError:
        """A failed call as what it means: without a connection nothing was sent; else it may have run."""
        import aiohttp

        if isinstance(error, ServerError):
            return faults.reported(party, error)
        if isinstance(error, BadAnswerError | SilentError):
            said = f"answered nonsense: {error}" if isinstance(error, BadAnswerError) else str(error)
            return faults.lost(party, f"{self._url} {said}")
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            text = f"the certificate of {self._url} is not valid: {error.certificate_error}"
            return faults.unsent(party, text, retryable=False)
        if isinstance(error, aiohttp.ClientConnectorError):
            text = f"no connection to {self._url}: {error.os_error}"
            return faults.unsent(party, text, retryable=True, hint="is the server up, and `url` right?")
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            text = f"no connection to {self._url} within {self._connect_timeout_s:g} s"
            return faults.unsent(party, text, retryable=True, hint="is the server up, and `url` right?")
        if isinstance(error, aiohttp.InvalidURL):
            return faults.unsent(party, f"{self._url} is no URL", retryable=False)
        if isinstance(error, TimeoutError):
            return faults.lost(party, f"{self._url} did not finish within {self._timeout_s:g} s")
        return faults.lost(party, f"{self._url} broke off: {_said(error)}")

    def _measure(self, reply: Reply, watch: _Watch) -> None:
        span_s = watch.span_s()
        if reply.usage is None or span_s <= 0:
            return
        speed = reply.usage.output_tokens / span_s
        weight = SPEED_WEIGHT if self._tokens_per_s else 1.0
        self._tokens_per_s += weight * (speed - self._tokens_per_s)


class _SimplerError(Exception):
    """The endpoint does not take the request as it is; `request` leaves out what it refused."""

    def __init__(self, request: Request) -> None:
        super().__init__()
        self.request = request


def _without_temperature(request: Request) -> Request:
    return msgspec.structs.replace(request, sampling=msgspec.structs.replace(request.sampling, temperature=None))


def _without_output(request: Request) -> Request:
    return msgspec.structs.replace(request, output=None)


class _Watch:
    """Passes deltas on and knows how long they took to come."""

    def __init__(self, on_delta: Callable[[str], None], monotonic: Callable[[], float]) -> None:
        self._on_delta = on_delta
        self._monotonic = monotonic
        self._asked, self._began = monotonic(), 0.0

    def __call__(self, text: str) -> None:
        if text:
            self._on_delta(text)

    def begin_stream(self) -> None:
        """The first event is here: what was before it was reading the prompt, not writing."""
        self._began = self._began or self._monotonic()

    def span_s(self) -> float:
        """How long the output took; when it came in one piece, which tells nothing of it, the whole call."""
        now, began = self._monotonic(), self._began
        return now - (began if began and now - began >= STREAM_S_MIN else self._asked)


def key_header(key: str) -> dict[str, str]:
    """The headers of every dialect, with the attempt's key where it can be one."""
    headers = {"Content-Type": "application/json", "Accept": "text/event-stream, application/json"}
    if key.isascii() and key.isprintable() and key:
        headers["Idempotency-Key"] = key
    return headers


async def _read_events(response: aiohttp.ClientResponse, answer: Answer, watch: _Watch, silence: Silence) -> None:
    """Read to the end of the stream. A finished reply stays good when only what follows it is missing."""
    import aiohttp

    lines = EventLines()
    silence.heard(flowing=False)
    try:
        while not answer.over and (chunk := await response.content.readany()):
            watch.begin_stream()
            _take(lines.feed(chunk), answer, watch)
            silence.heard(flowing=answer.flowing)
        _take(lines.end(), answer, watch)
    except (aiohttp.ClientError, OSError):
        if not answer.finished:
            raise
        return
    if not answer.over and not answer.finished:
        raise BadAnswerError("the stream ended before the answer was finished")
    silence.over()
    if not response.content.at_eof():
        await _drain(response)


def _take(events: list[bytes], answer: Answer, watch: _Watch) -> None:
    """Add the events to the reply, up to its last one."""
    for data in events:
        if answer.over:
            return
        watch(answer.add(data))


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Read the few bytes behind the last event, so that the connection can be used again."""
    import aiohttp

    with contextlib.suppress(aiohttp.ClientError, OSError):
        async with asyncio.timeout(DRAIN_S):
            while await response.content.readany():
                pass


async def _whole_body(response: aiohttp.ClientResponse) -> bytes:
    body = await _beginning(response, BODY_BYTES_MAX + 1)
    if len(body) > BODY_BYTES_MAX:
        raise BadAnswerError(f"a body of more than {BODY_BYTES_MAX:,} bytes")
    return body


async def _beginning(response: aiohttp.ClientResponse, bytes_max: int) -> bytes:
    """At most `bytes_max` bytes of the body."""
    body = bytearray()
    while len(body) < bytes_max and (chunk := await response.content.readany()):
        body += chunk
    return bytes(body[:bytes_max])


def _said(error: Exception) -> str:
    """The kind of the error and its own words (never its repr, which may show the request's headers)."""
    if type(error).__name__ == "ClientPayloadError":  # its own words speak of a status 400 that nobody sent
        return "its answer is not whole"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
