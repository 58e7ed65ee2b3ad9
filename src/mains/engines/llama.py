"""The embedded engine: a GGUF model in llama.cpp's server, in a supervised child process (`llama_server.py`).

Nothing is started before the first call. One `complete` is one attempt over HTTP, always streamed; cancelling it closes
the connection, which frees the slot. What went wrong, and what it cost:

| what happened                                    | retryable | spent   |
|--------------------------------------------------|-----------|---------|
| the model's file is missing or broken            | no        | nothing |
| the prompt does not fit into the context         | no        | nothing |
| the child does not start                         | yes       | nothing |
| the child ended, crashed or hung during the call | yes       | unknown |
| it lives, but says nothing more on this call     | yes       | unknown |
| no end within `model_timeout_s`                  | yes       | unknown |

`spec.path` names any GGUF; without it the embedded model is used (`model_file.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import os
import platform
import time
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mains.bounded_log import BoundedLog
from mains.engines import model_file
from mains.engines.catalogue import EngineSpec
from mains.engines.kv_store import Store
from mains.engines.kv_tiers import Lease, Tiers
from mains.engines.llama_body import Plan, estimate, plan
from mains.engines.llama_child import ChildConfig
from mains.engines.llama_server import HEALTH_TIMEOUT_S, LlamaServer, Server
from mains.engines.room import Room
from mains.engines.silence import Silence, SilentError
from mains.engines.stream import DONE, Assembly, BadAnswerError, EventLines, ServerError, shown
from mains.errors import Blame, ConfigError, EngineError, Spent
from mains.kernel.ports import EngineState, Reply, Request
from mains.settings import Settings

if TYPE_CHECKING:
    import aiohttp

SLOTS = 4
CONTEXT_TOKENS = 8_192
CACHE_RAM_MIB = 256  # prompts whose slot was taken by another: re-reading 1,549 tokens takes 5.5 s, restoring them 5 ms
CONNECT_TIMEOUT_S = 10.0
GONE_TIMEOUT_S = 1.0  # after a broken connection: the wait for the reason
ERROR_BYTES_MAX = 64 * 1024
SPEED_WEIGHT = 0.2  # of the last call in the moving average of the output speed


def default_threads() -> int:
    """All processors but one, and at least one.

    The kernel and everything else on the machine need one: measured with a 135M model on 2 processors that others kept
    busy, 2 threads wait for each other at every layer and are many times slower than 1 (88 s for what takes 3 s).
    """
    return max(1, len(os.sched_getaffinity(0)) - 1 if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 2) - 1)


class LlamaEngine:
    """See the module's header. What the child says goes to `log_path`.

    `kv` is the folder of the files with what it has read of each process (`kv_tiers.py`); without it llama.cpp alone
    decides what is kept, in its slots and its RAM cache.
    """

    def __init__(
        self,
        spec: EngineSpec,
        log_path: Path,
        settings: Settings,
        *,
        health_timeout_s: float = HEALTH_TIMEOUT_S,
        monotonic: Callable[[], float] = time.monotonic,
        kv: Path | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.name = spec.name
        self.slots = spec.slots or SLOTS
        self.rpm = self.tpm = 0
        self.context_tokens = spec.context_tokens or CONTEXT_TOKENS
        self.cache_tokens = 0  # the slots hold `context_tokens`, files hold more: how much depends on the model
        self._spec = spec
        self._timeout_s = settings.model_timeout_s
        self._monotonic = monotonic
        idle_s = spec.idle_timeout_s or settings.stream_idle_s
        log = BoundedLog(log_path, settings.log_bytes_max)
        self._server = LlamaServer(
            spec.name,
            self._config,
            log,
            idle_timeout_s=idle_s,
            health_timeout_s=health_timeout_s,
            monotonic=monotonic,
        )
        # Longer than the watch over the child takes: a child that hangs must be killed, not only left.
        self._idle_s = 2 * idle_s + health_timeout_s
        self._first_byte_s = max(spec.first_byte_s or settings.first_byte_s, self._idle_s)
        self._kv = kv
        self._tiers: Tiers | None = None
        self._store = Store(kv, settings.kv_disk_bytes_max, wall) if kv else None
        self._room: Room | None = None
        self._session: aiohttp.ClientSession | None = None
        self._busy = 0
        self._tokens_per_s = 0.0

    def state(self) -> EngineState:
        return EngineState(
            name=self.name,
            kind=self._spec.kind,
            model=self._spec.model,
            slots=self.slots,
            busy=self._busy,
            health=self._server.health,
            context_tokens=self.context_tokens,
            tokens_per_s=round(self._tokens_per_s, 1),
        )

    async def start(self) -> None:
        """Nothing: the child starts at the first call."""

    async def forget(self, processes: Collection[int]) -> None:
        """Keep nothing of processes that are removed."""
        if self._tiers is not None:
            await self._tiers.forget(processes)

    async def close(self) -> None:
        if self._tiers is not None:
            await self._tiers.close()
        session, self._session = self._session, None
        if session is not None:
            await session.close()
        await self._server.close()

    def _config(self, key: str) -> ChildConfig:
        """What the child serves. Raises ConfigError when there is no model file."""
        spec = self._spec
        return ChildConfig(
            model=str(self._model()),
            alias=spec.model,
            key=key,
            parent=os.getpid(),
            slots=self.slots,
            context_tokens=self.context_tokens,
            threads=spec.threads or default_threads(),
            cache_ram_mib=0 if self._kv else CACHE_RAM_MIB,
            kv_folder=str(self._kv or ""),
        )

    def _model(self) -> Path:
        """The model's file. Raises ConfigError."""
        spec = self._spec
        path = Path(spec.path).expanduser() if spec.path else model_file.find()
        if not path.is_file():
            hint = f"set `path` in [engines.{spec.name}] of mains.toml, or the program's `model`, to a GGUF file"
            raise ConfigError(f"the model file {path} is not there", hint=hint)
        return path

    # ----------------------------------------------------------------------------------------------------- call

    async def complete(self, request: Request, on_delta: Callable[[str], None]) -> Reply:
        self._busy += 1
        sent = _Sent()
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._attempt(plan(request), request, on_delta, sent)
        except TimeoutError:
            spent = Spent.UNKNOWN if sent.sent else Spent.NOTHING
            text = f"engine {self.name}: no end within {self._timeout_s:g} s"
            raise EngineError(text, retryable=True, spent=spent) from None
        finally:
            self._busy -= 1

    async def _attempt(self, planned: Plan, request: Request, on_delta: Callable[[str], None], sent: _Sent) -> Reply:
        if self._room is None:
            self._room = Room(self.context_tokens)
        wanted_tokens = estimate(planned.messages) + request.output_tokens_max
        async with self._room.taken(wanted_tokens):
            server = await self._ready()
            with self._server.call():
                async with self._leased(server, planned, request, wanted_tokens) as lease:
                    slot = lease.fields if lease else {}
                    try:
                        reply = await self._call(server, planned, request, on_delta, sent, slot)
                    except _ConstraintError:
                        loose = planned.loose()
                        if loose is None:
                            raise
                        planned, reply = loose, await self._call(server, loose, request, on_delta, sent, slot)
                    meant = planned.read(reply)
                    if lease:
                        lease.answered(meant)
        self._server.succeeded()
        if planned.moves and meant.text:
            on_delta(meant.text)
        return meant

    @contextlib.asynccontextmanager
    async def _leased(
        self, server: Server, planned: Plan, request: Request, wanted_tokens: int
    ) -> AsyncIterator[Lease | None]:
        """The slot of a call, where we choose it."""
        if self._store is None:
            yield None
            return
        if self._tiers is None:
            self._tiers = Tiers(self.slots, self.context_tokens, self._store, self._monotonic)
            made_with = {
                "context_tokens": self.context_tokens,
                "xllamacpp": importlib.metadata.version("xllamacpp"),
                "machine": platform.machine(),
            }
            with contextlib.suppress(ConfigError):  # the file is gone since the child has read it: no files then
                self._tiers.open(self._model(), made_with)
        await self._tiers.opened()
        async with self._tiers.lease(server, self._open(), request, planned.messages, wanted_tokens) as lease:
            yield lease

    async def _ready(self) -> Server:
        try:
            return await self._server.ready()
        except ConfigError as error:
            text = f"engine {self.name}: {error}"
            raise EngineError(text, retryable=False, spent=Spent.NOTHING, hint=error.hint) from None

    async def _call(
        self,
        server: Server,
        planned: Plan,
        request: Request,
        on_delta: Callable[[str], None],
        sent: _Sent,
        slot: dict[str, Any],
    ) -> Reply:
        import aiohttp

        body = planned.body(max(1, request.output_tokens_max), self._spec.model, slot)
        assembly = Assembly({}, request.key)
        watch = on_delta if not planned.moves else _quiet
        call = self._open().post(
            f"{server.url}/v1/chat/completions",
            data=body,
            headers={**server.headers, "Content-Type": "application/json"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
        )
        try:
            sent.sent = True
            async with Silence(self._first_byte_s, self._idle_s) as silence, call as response:
                self._server.heard()
                if response.status != 200:
                    raise self._refusal(response.status, await response.content.read(ERROR_BYTES_MAX), planned)
                await self._read(response, assembly, watch, silence)
            return assembly.reply()
        except SilentError as error:
            if assembly.finished:
                return assembly.reply()
            text = f"engine {self.name}: the stream {error}, though the server lives"
            raise EngineError(text, retryable=True, spent=Spent.UNKNOWN) from None
        except (aiohttp.ClientError, OSError, BadAnswerError, ServerError) as error:
            raise await self._broken(server, error) from None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            import aiohttp

            # A connection each: on the loopback that is free, and closing it is what frees a slot.
            connector = aiohttp.TCPConnector(limit=0, force_close=True)
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        return self._session

    async def _read(
        self, response: aiohttp.ClientResponse, assembly: Assembly, on_delta: Callable[[str], None], silence: Silence
    ) -> None:
        """Read the stream to its end, and measure its speed."""
        lines = EventLines()
        begun = first = self._monotonic()
        done = False
        while not done and (chunk := await response.content.readany()):
            self._server.heard()
            for data in lines.feed(chunk):
                if data.strip() == DONE:
                    done = True
                elif text := assembly.add(data):
                    on_delta(text)
            silence.heard(flowing=assembly.flowing)
            first = self._monotonic() if first == begun and assembly.flowing else first
        if not assembly.finished:
            raise BadAnswerError("the stream ended before the answer was finished")
        self._measure(assembly, self._monotonic() - begun)
        if self._tiers is not None and (usage := assembly.usage) is not None:
            self._tiers.read(usage.input_tokens - usage.cached_tokens, first - begun)

    def _measure(self, assembly: Assembly, span_s: float) -> None:
        if assembly.usage is not None and span_s > 0:
            weight = SPEED_WEIGHT if self._tokens_per_s else 1.0
            self._tokens_per_s += weight * (assembly.usage.output_tokens / span_s - self._tokens_per_s)

    # --------------------------------------------------------------------------------------------------- faults

    def _refusal(self, status: int, body: bytes, planned: Plan) -> Exception:
        """What an answer other than 200 means. The server refuses before it runs anything, except with 500."""
        said = _error_of(body)
        if said.get("type") == "exceed_context_size_error":
            text = (
                f"engine {self.name}: the prompt has {said.get('n_prompt_tokens', 0):,} tokens,"
                f" the context of the model {said.get('n_ctx', self.context_tokens):,}"
            )
            hint = "give the program less to read (`tokens_max` of an input), or use a model with a larger context"
            return EngineError(text, retryable=False, spent=Spent.NOTHING, blame=Blame.LENGTH, hint=hint)
        text = f"engine {self.name}: {status} from llama.cpp: {said.get('message') or shown(body)}"
        if status == 400:
            kind = _ConstraintError if planned.constraint else EngineError
            return kind(text, retryable=False, spent=Spent.NOTHING, blame=Blame.REQUEST)
        return EngineError(text, retryable=True, spent=Spent.NOTHING if status == 503 else Spent.UNKNOWN)

    async def _broken(self, server: Server, error: Exception) -> EngineError:
        """A connection that broke, with the reason when the child is gone."""
        import aiohttp

        if not isinstance(error, BadAnswerError | ServerError):
            with contextlib.suppress(TimeoutError):  # then it lives: the connection alone broke
                async with asyncio.timeout(GONE_TIMEOUT_S):
                    await server.gone.wait()
        why = server.ended or f"{type(error).__name__}: {error}"
        unsent = isinstance(error, aiohttp.ClientConnectorError)
        spent = Spent.NOTHING if unsent else Spent.UNKNOWN
        return EngineError(f"engine {self.name}: {why}", retryable=True, spent=spent)


class _ConstraintError(EngineError):
    """The server did not take the constraint, probably; nothing ran."""


class _Sent:
    """Whether a call was sent: what a time-out has cost depends on it."""

    sent = False


def _quiet(_: str) -> None:
    """The pieces of an action are no text for a watcher."""


def _error_of(body: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    error = value.get("error") if isinstance(value, dict) else None
    return error if isinstance(error, dict) else {}
