"""Supervision of the embedded engine's child process: at most one, started when first needed, restarted when it fails.

    ready()         the running server, started if there is none; waits out the back-off after a failure
    call(server)    a call is in flight: while there is one, silence makes the watch ask whether the server still lives
    heard()         bytes came
    close()         end it

    none -> starting -> serving -> (exit, crash, hang) -> none
                    \\-> failed  -> none

A child that ends is not replaced at once but at the next call. After the n-th failure in a row the next start waits
`BACKOFF_S * 2^(n-1)`, at most `BACKOFF_S_MAX`; a call that succeeds ends the row. A child that says nothing for
`idle_timeout_s` while calls are in flight, and does not answer a health check either, is killed.

The child is started from the event loop's own thread, and its standard input stays open as long as we live: see
`llama_child.py` for why.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Iterator

import msgspec

from mains.bounded_log import BoundedLog
from mains.engines.llama_child import ChildConfig, Ready
from mains.errors import EngineError, Spent

START_TIMEOUT_S = 120.0  # loading; 98 MB take 0.6 s, tens of GB from a slow disk take minutes
HEALTH_TIMEOUT_S = 5.0
END_TIMEOUT_S = 5.0
BACKOFF_S = 0.25
BACKOFF_S_MAX = 30.0
_TICKS = 4  # looks of the watch in one idle_timeout_s
_LINE_BYTES_MAX = 64 * 1024
_READ_BYTES = 64 * 1024
_REASON_CHARS = 300


class Server:
    """A child that serves. `ended` says why, once it does not any more."""

    def __init__(self, process: Process, url: str, key: str, load_s: float) -> None:
        self.process = process
        self.url = url
        self.headers = {"Authorization": f"Bearer {key}"}
        self.load_s = load_s
        self.ended = ""
        self.gone = asyncio.Event()


class LlamaServer:
    """See the module's header. `config` gives what to serve for a key; it may raise ConfigError."""

    def __init__(
        self,
        name: str,
        config: Callable[[str], ChildConfig],
        log: BoundedLog,
        *,
        idle_timeout_s: float,
        health_timeout_s: float = HEALTH_TIMEOUT_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._config = config
        self._log = log
        self._idle_timeout_s = idle_timeout_s
        self._health_timeout_s = health_timeout_s
        self._monotonic = monotonic
        self._server: Server | None = None
        self._starting: asyncio.Task[Server] | None = None
        self._tending: asyncio.Task[None] | None = None
        self._failures = 0
        self._failed_at = 0.0
        self._calls = 0
        self._heard_at = 0.0
        self._closed = False
        self.starts = 0
        self.fault = ""

    @property
    def health(self) -> str:
        """In a few words, for a person."""
        if self._server is not None:
            return "ok"
        if self._starting is not None:
            return f"starting again ({self.fault})" if self.fault else "starting"
        return f"failing: {self.fault}" if self.fault else "not started"

    async def ready(self) -> Server:
        """The running server. Raises EngineError (nothing spent) or what `config` raises."""
        if self._server is not None:
            return self._server
        if self._closed:
            raise self._unready("it is closed", retryable=False)
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
            self._starting.add_done_callback(self._started)
        # Shielded: a caller that gives up does not take the server away from the others.
        return await asyncio.shield(self._starting)

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """A call is in flight."""
        if not self._calls:
            self._heard_at = self._monotonic()
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1

    def heard(self) -> None:
        """The server said something: it lives."""
        self._heard_at = self._monotonic()

    def succeeded(self) -> None:
        """A call came to its end: the row of failures ends."""
        self._failures = 0
        self.fault = ""

    async def close(self) -> None:
        """End the child and all that watches it; no other is started after this."""
        self._closed = True
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait({self._starting}, timeout=END_TIMEOUT_S)
        if self._server is not None:
            self._server.ended = "it was closed"
            _kill(self._server.process)
        if self._tending is not None:
            await asyncio.wait({self._tending}, timeout=END_TIMEOUT_S)

    # ---------------------------------------------------------------------------------------------------- start

    def _started(self, starting: asyncio.Task[Server]) -> None:
        self._starting = None
        if not starting.cancelled() and (error := starting.exception()) is not None:
            self.fault = str(error)

    async def _start(self) -> Server:
        await self._wait_out_failures()
        key = secrets.token_urlsafe(24)
        config = self._config(key)
        self._log.begin()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mains.engines.llama_child"),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            limit=_LINE_BYTES_MAX,
            start_new_session=True,  # a terminal's Ctrl-C is for us, not for the engine
        )
        self.starts += 1
        reading = asyncio.create_task(self._copy_log(process))
        server = None
        try:
            ready = await self._introduce(process, config, reading)
            server = Server(process, ready.url, key, ready.load_s)
        finally:
            if server is None:
                self._count_failure()
                await _reap(process)
                await asyncio.wait({reading}, timeout=END_TIMEOUT_S)
        self._server = server
        self._tending = asyncio.create_task(self._tend(server, reading))
        return server

    async def _wait_out_failures(self) -> None:
        if self._failures:
            backoff_s = min(BACKOFF_S * 2 ** (self._failures - 1), BACKOFF_S_MAX)
            await asyncio.sleep(max(0.0, self._failed_at + backoff_s - self._monotonic()))

    def _count_failure(self) -> None:
        self._failures = min(self._failures + 1, 32)
        self._failed_at = self._monotonic()

    async def _introduce(self, process: Process, config: ChildConfig, reading: asyncio.Task[None]) -> Ready:
        """Tell the child what to serve and wait until it does."""
        assert process.stdin is not None
        assert process.stdout is not None
        line = b""
        try:
            # It may die before it can read, or write nonsense: told below.
            async with asyncio.timeout(START_TIMEOUT_S):
                with contextlib.suppress(ConnectionError, ValueError):
                    process.stdin.write(msgspec.json.encode(config) + b"\n")
                    await process.stdin.drain()
                    line = await process.stdout.readline()
        except TimeoutError:
            raise self._unready(f"it did not start within {START_TIMEOUT_S:g} s", retryable=True) from None
        try:
            ready = msgspec.json.decode(line, type=Ready)
        except msgspec.DecodeError:
            how = await _end_of(process)
            await asyncio.wait({reading}, timeout=END_TIMEOUT_S)
            raise self._unready(f"it ended while it started: {how}. {self._reason()}", retryable=True) from None
        if ready.error:
            await asyncio.wait({reading}, timeout=END_TIMEOUT_S)
            hint = f"is {config.model} a whole GGUF file, and is there memory for it? The log of the engine says more"
            text = f"cannot load {config.model}: {self._reason() or ready.error}"
            raise self._unready(text, retryable=False, hint=hint)
        return ready

    def _unready(self, text: str, *, retryable: bool, hint: str = "") -> EngineError:
        text = f"engine {self._name}: {text.strip()}"
        return EngineError(text, retryable=retryable, spent=Spent.NOTHING, hint=hint)

    def _reason(self) -> str:
        """What llama.cpp gave as the first error of this child."""
        found = _LOGGED_ERROR.search(self._log.last)
        return found[1].strip()[:_REASON_CHARS] if found else ""

    async def _copy_log(self, process: Process) -> None:
        """Copy what the child says to the log, until it ends."""
        assert process.stderr is not None
        while data := await process.stderr.read(_READ_BYTES):
            self._log.write(data)

    # ----------------------------------------------------------------------------------------------------- tend

    async def _tend(self, server: Server, reading: asyncio.Task[None]) -> None:
        """Watch the child until it ends, then say why."""
        watch = asyncio.create_task(self._watch(server))
        how = await _end_of(server.process)
        watch.cancel()
        await asyncio.wait({watch, reading}, timeout=END_TIMEOUT_S)
        server.ended = server.ended or " ".join(filter(None, (how, self._reason())))
        self._server = None
        if not self._closed:
            self._count_failure()
            self.fault = server.ended
        server.gone.set()

    async def _watch(self, server: Server) -> None:
        """Kill a child that hangs."""
        while True:
            await asyncio.sleep(self._idle_timeout_s / _TICKS)
            silence_s = self._monotonic() - self._heard_at
            if not self._calls or silence_s < self._idle_timeout_s:
                continue
            if await self._answers(server):
                self.heard()  # it works on a long prompt, or on other calls
                continue
            server.ended = f"it hung ({silence_s:.0f} s without a word, and no answer to a health check)"
            _kill(server.process)
            return

    async def _answers(self, server: Server) -> bool:
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=self._health_timeout_s)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(f"{server.url}/health") as response,
            ):
                return response.status == 200
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False


_LOGGED_ERROR = re.compile(r"^\S+ E (?:\S+\s+)?\S+: (.+)$", re.MULTILINE)


def _kill(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()


async def _reap(process: Process) -> None:
    """Kill the child if it still lives, and wait for its end."""
    _kill(process)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(END_TIMEOUT_S):
            await process.wait()


async def _end_of(process: Process) -> str:
    """Wait for the child's end; how it ended, in words."""
    code = await process.wait()
    if code >= 0:
        return f"it exited with code {code}"
    number = -code
    why = ": killed, perhaps for want of memory" if number == signal.SIGKILL else ""
    return f"it was ended by signal {number} ({signal.Signals(number).name}){why}"
