"""A device that is a child process of ours and speaks MCP over its standard streams: one start, one end.

    async with Child(...).streams() as (read, write): ...

The child runs below a supervisor (`supervisor.py`), in a session of its own, with a scrubbed environment, in its own
folder, confined to what its cage names (`mechanism.py`), with limits of memory and processor time. It ends when the
block is left, and when we die, however: first its standard input is closed, which asks it to end (the MCP
specification, "Lifecycle: shutdown"); after `_GRACE_S` the supervisor sweeps up.

The messages are the SDK's: a line of JSON each. The SDK's own transport has no bound for a line; here a line has at
most `message_bytes_max` bytes, and between two answers a device may say `_CHATTER_MESSAGES` times as much. Lines that
are no message go to the log, as does what the child says on standard error; too many of them in a row end it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mains.bounded_log import BoundedLog
from mains.bus.mechanism import Cage
from mains.errors import DeviceError

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
    from mcp.client._transport import TransportStreams
    from mcp.shared.message import SessionMessage
    from mcp_types import JSONRPCMessage

_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_READ_BYTES = 64 * 1024
_GRACE_S = 2.0  # for a child whose standard input was closed
_SWEEP_S = 4.0  # for the supervisor, whose own grace is shorter
_START_S = 10.0  # until the supervisor has started the command; what the command then needs is not meant
_REASON_S = 0.5  # for the supervisor to say how the child ended
_WORDS_CHARS = 300
_TURNS = 20  # of the event loop
_CHATTER_MESSAGES = 4
_JUNK_LINES_MAX = 1_000
_QUESTIONS_MAX = 1_000
_ASKED_MAX = 10_000  # requests that are remembered; more than are ever in flight
_ID = re.compile(r'"id"\s*:\s*(?:([0-9]{1,18})|"([^"\\]{1,80})")')
_ID_CHARS = 500  # of the beginning and of the end of a line, where an id is looked for
_UNREADABLE = -32_700  # JSON-RPC 2.0, section 5.1: no JSON


class Limits(msgspec.Struct, frozen=True):
    """What each process of the child may use, and how long a message may be."""

    memory_mib: int
    cpu_s: int
    message_bytes_max: int


class Report(msgspec.Struct, frozen=True):
    """What the supervisor says."""

    pid: int = 0
    error: str = ""
    exit: int | None = None


class Child:
    """See the module's header. `ended` says why it ended, once it has."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        env: Mapping[str, str],
        folder: Path,
        log: BoundedLog,
        limits: Limits,
        cage: Cage | None = None,
    ) -> None:
        self.pid = 0
        self.ended = ""
        self.over = asyncio.Event()
        self.heard_at = 0.0
        self._name = name
        self._command = list(command)
        self._env = dict(env)
        self._folder = folder
        self._log = log
        self._limits = limits
        self._cage = cage  # none: it may touch what we may
        self._leaving = False  # its end is what we want
        self._eof = False
        self._asked: dict[str, None] = {}  # requests of ours without an answer yet, oldest first
        self._since_answer = 0
        self._junk = 0
        self._questions = 0  # that it has asked us since its last answer

    @contextlib.asynccontextmanager
    async def streams(self) -> AsyncIterator[TransportStreams]:
        """Start the child; it is gone at the end of the block. Raises DeviceError when it cannot be started."""
        import anyio

        process, leash_reader, leash = await self._spawn()
        tending: list[asyncio.Task[None]] = []
        send_in, read = anyio.create_memory_object_stream["SessionMessage | Exception"](0)
        write, receive_out = anyio.create_memory_object_stream["SessionMessage"](0)
        try:
            await self._begin(leash_reader)
            tending += [
                asyncio.create_task(work)
                for work in (
                    self._read(process, send_in),
                    self._write(process, receive_out),
                    self._copy_log(process),
                    self._watch(leash_reader),
                )
            ]
            yield read, write
        finally:
            read.close()  # a reader that is stuck goes on and throws away
            await _whatever_happens(self._end(process, leash, tending))
            for stream in (write, send_in, receive_out):
                stream.close()

    async def _spawn(self) -> tuple[Process, asyncio.StreamReader, asyncio.StreamWriter]:
        """The supervisor, and our end of its leash."""
        ours, theirs = socket.socketpair()
        limits = (str(self._limits.memory_mib), str(self._limits.cpu_s))
        cage, command = "{}", self._command
        if self._cage is not None:
            cage, command = msgspec.json.encode(self._cage.told()).decode(), self._cage.command(command, self._folder)
        try:
            ours.setblocking(False)
            leash_reader, leash = await asyncio.open_connection(sock=ours)
        except (OSError, asyncio.CancelledError):
            ours.close()
            theirs.close()
            raise
        process: Process | None = None
        try:
            for folder in (self._folder, *(self._cage.private if self._cage is not None else ())):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(_SUPERVISOR), str(theirs.fileno()), *limits, cage, *command),
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                env=self._env,
                cwd=self._folder,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # a terminal's Ctrl-C is for us
            )
        except (OSError, ValueError) as error:
            raise self._unready(str(getattr(error, "strerror", None) or error)) from error
        finally:
            theirs.close()
            if process is None:
                leash.close()  # then a supervisor that was begun all the same ends, too
        return process, leash_reader, leash

    async def _begin(self, leash: asyncio.StreamReader) -> None:
        self._log.begin()
        self.heard_at = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(_START_S):
                report = await _next_report(leash)
        except TimeoutError:
            raise self._unready(f"nothing was started within {_START_S:g} s") from None
        if report is None or report.error:
            raise self._unready(report.error if report else "its supervisor ended")
        self.pid = report.pid

    def _unready(self, why: str) -> DeviceError:
        hint = "is the command installed, and in the PATH that the daemon was started with?"
        if self._cage is not None and "denied" in why:
            hint = f"it may not read all that it is made of: name that in `read` of [devices.{self._name}]"
        return DeviceError(f"{self._command[0]} cannot be started: {why}", hint=hint, retryable=True)

    # --------------------------------------------------------------------------------------------------- messages

    async def _read(self, process: Process, messages: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
        """Hand on what the child says; when it has said too much, or nobody listens any more, throw the rest away."""
        import anyio

        async with messages:
            with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                await self._read_lines(process, messages)
        assert process.stdout is not None
        with contextlib.suppress(OSError):  # a child that cannot write cannot read that it shall end
            while await process.stdout.read(_READ_BYTES):
                pass

    async def _read_lines(self, process: Process, messages: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
        assert process.stdout is not None
        line = bytearray()
        while chunk := await process.stdout.read(_READ_BYTES):
            self.heard_at = asyncio.get_running_loop().time()
            *ends, rest = chunk.split(b"\n")
            for end in ends:
                line += end
                if self._too_much(len(line)):
                    return
                await self._hand_on(bytes(line), messages)
                line.clear()
            line += rest
            if self._too_much(len(line)):
                return
        self._eof = True

    async def _hand_on(self, line: bytes, messages: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
        from mcp.shared.message import SessionMessage
        from mcp_types import JSONRPCError, JSONRPCRequest, JSONRPCResponse, jsonrpc_message_adapter

        self._since_answer += len(line) + 1
        if not line.strip():
            self._junk += 1
            return
        try:
            message = jsonrpc_message_adapter.validate_json(line, by_name=False)
        except (ValueError, RecursionError):
            mended = self._mended(line)
            if mended is None:
                self._junk += 1
                self._log.write(b"(on standard output, no message) " + self._log.screened(line)[:1000] + b"\n")
                return
            message = mended
        if isinstance(message, JSONRPCResponse | JSONRPCError) and str(message.id) in self._asked:
            del self._asked[str(message.id)]
            self._since_answer = self._junk = self._questions = 0
        self._questions += isinstance(message, JSONRPCRequest)
        await messages.send(SessionMessage(message))

    def _mended(self, line: bytes) -> JSONRPCMessage | None:
        """What a line that is no message can be read as, if it is about a request of ours: else its caller would wait.

        Bytes that are no UTF-8 and halves of characters become U+FFFD. Of an answer that cannot be read at all only its
        id is taken: it failed.
        """
        from mcp_types import JSONRPCError, jsonrpc_message_adapter

        text = line.decode("utf-8", "replace").lstrip("\ufeff \t\r")
        with contextlib.suppress(ValueError, RecursionError):
            whole = json.dumps(json.loads(text), ensure_ascii=False).encode("utf-8", "replace")
            return jsonrpc_message_adapter.validate_json(whole, by_name=False)
        found = _ID.search(text[:_ID_CHARS]) or _ID.search(text[-_ID_CHARS:])
        if text[:1] not in ("{", "[") or found is None or (given := found[1] or found[2]) not in self._asked:
            return None
        fault = {"code": _UNREADABLE, "message": "it answered with what is no message"}
        number: int | str = int(given) if found[1] else given
        return JSONRPCError.model_validate({"jsonrpc": "2.0", "id": number, "error": fault})

    def _too_much(self, line_bytes: int) -> bool:
        most = self._limits.message_bytes_max
        if line_bytes > most:
            self._fault(f"it sent a message of more than {most:,} bytes (device_message_bytes_max)")
        elif self._since_answer > most * _CHATTER_MESSAGES:
            self._fault(f"it sent more than {most * _CHATTER_MESSAGES:,} bytes without an answer")
        elif self._questions > _QUESTIONS_MAX:
            self._fault(f"it asked {self._questions:,} questions without an answer")
        elif self._junk > _JUNK_LINES_MAX:
            self._fault(f"it wrote {self._junk:,} lines to its standard output that are no messages")
        return bool(self.ended)

    def _fault(self, why: str) -> None:
        self.ended = self.ended or why
        self.over.set()

    async def _write(self, process: Process, messages: MemoryObjectReceiveStream[SessionMessage]) -> None:
        from mcp_types import JSONRPCRequest

        assert process.stdin is not None
        async with messages:
            try:
                async for each in messages:
                    if isinstance(each.message, JSONRPCRequest):
                        self._asked[str(each.message.id)] = None
                        if len(self._asked) > _ASKED_MAX:
                            del self._asked[next(iter(self._asked))]
                    text = each.message.model_dump_json(by_alias=True, exclude_unset=True)
                    process.stdin.write(text.encode() + b"\n")
                    await process.stdin.drain()
            except (OSError, RuntimeError):  # it no longer reads; uvloop says so with a RuntimeError
                return

    async def _copy_log(self, process: Process) -> None:
        assert process.stderr is not None
        try:
            with contextlib.suppress(OSError):
                while data := await process.stderr.read(_READ_BYTES):
                    self._log.write(data)
        finally:
            self._log.end_line()

    # -------------------------------------------------------------------------------------------------------- end

    async def _watch(self, leash: asyncio.StreamReader) -> None:
        """Until the supervisor says that all is over."""
        while (report := await _next_report(leash)) is not None:
            if report.exit is not None and not self._leaving:
                for _ in range(_TURNS):  # what it wrote before its end is in the pipe, and has to be read
                    await asyncio.sleep(0)
                said = self._last_words()
                advice = self._cage.advice(self._log.last, self._name) if self._cage is not None else ""
                if advice:
                    self._log.write(f"(mains) {advice}\n".encode())
                self._fault("; ".join(filter(None, (_how(report.exit) + (f": {said}" if said else ""), advice))))
        self.over.set()

    def _last_words(self) -> str:
        """The last line on standard error: most programs say there why they end."""
        lines = [line.strip() for line in self._log.last.splitlines() if line.strip()]
        plain = "".join(char for char in (lines[-1] if lines else "") if char.isprintable())
        return plain[:_WORDS_CHARS]

    async def _end(self, process: Process, leash: asyncio.StreamWriter, tending: Sequence[asyncio.Task[Any]]) -> None:
        """Close its input and wait; then let go of the leash, and wait for the supervisor. Each wait has an end."""
        assert process.stdin is not None
        if self._eof:  # it has ended by itself, and the supervisor says how
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_REASON_S):
                    await self.over.wait()
        self._leaving = True
        ending = asyncio.create_task(process.wait())
        with contextlib.suppress(OSError, RuntimeError):
            process.stdin.close()
        if not self.ended:
            await asyncio.wait({ending}, timeout=_GRACE_S)
        with contextlib.suppress(OSError, RuntimeError):
            leash.close()
        await asyncio.wait({ending}, timeout=_SWEEP_S)
        if not ending.done():
            with contextlib.suppress(ProcessLookupError):
                process.kill()  # then its first process dies with it
            await asyncio.wait({ending}, timeout=_SWEEP_S)
        ending.cancel()
        for task in tending:
            task.cancel()
        await asyncio.gather(ending, *tending, return_exceptions=True)
        _close_transport(process)


async def _whatever_happens(end: Coroutine[Any, Any, None]) -> None:
    """Come to an end that has a limit of its own, also when we are told to stop meanwhile."""
    import anyio

    ending, told = asyncio.create_task(end), False
    with anyio.CancelScope(shield=True):
        while not ending.done():
            try:
                await asyncio.wait({ending})
            except asyncio.CancelledError:
                told = True
    if told:
        raise asyncio.CancelledError


async def _next_report(leash: asyncio.StreamReader) -> Report | None:
    """What the supervisor says next; None when it is gone."""
    try:
        line = await leash.readline()
        return msgspec.json.decode(line, type=Report) if line else None
    except (OSError, ValueError):
        return None


def _how(code: int) -> str:
    """How a process ended, in words."""
    import signal

    if code >= 0:
        return f"it exited with code {code}"
    name = signal.Signals(-code).name if -code in {*signal.Signals} else "?"
    why = {"SIGKILL": ": killed, perhaps for want of memory", "SIGXCPU": ": it used up its processor time"}.get(
        name, ""
    )
    return f"it was ended by signal {-code} ({name}){why}"


def _close_transport(process: Process) -> None:
    """Free the pipes also when something of the child still holds their other ends."""
    transport = getattr(process, "_transport", None)
    if transport is not None:
        transport.close()
