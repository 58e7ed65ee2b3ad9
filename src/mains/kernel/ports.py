"""The kernel's edge: the Protocols it calls out through, and the values that cross.

Engine   runs a model: one call, one attempt; it never retries (the kernel owns the one retry budget)
Device   offers tools: one call, one answer
Devices  those that there are now: they come and go while processes run
Probe    named points at which a test may stop the world; `NoProbe` does nothing

What may be asked of a kernel from above is `control.Control`; views of processes, which cross there, stand here.

Values are frozen. Text is Unicode, tokens are counted as the engine counts them, times are milliseconds.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import msgspec

from mains.errors import RateLimits

Schema = dict[str, Any]  # a JSON Schema (2020-12), as a plain object

SECRET = re.compile(r"\{\{[ \t]*secret:[ \t]*([^{}]*?)[ \t]*\}\}")
"""The name of a secret in an argument of a call, in whose place a device is given its value: `{{secret:NAME}}`."""


class ToolCall(msgspec.Struct, frozen=True, omit_defaults=True):
    """A call that a model asked for. `arguments` is JSON text exactly as the model wrote it: it may be malformed."""

    id: str
    name: str
    arguments: str


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message of a frame. `call_id` ties a `tool` message to the call it answers.

    `kind` says what it is where the role does not: a `rule` is never evicted; a `summary` or a `stub` stands in place
    of what was; what was looked up again is a `recall`; `notes` and a `segment` come from outside the process.
    """

    role: Literal["system", "user", "assistant", "tool"]
    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""
    name: str = ""
    kind: Literal["", "rule", "summary", "stub", "recall", "notes", "segment"] = ""


class Tool(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tool as a model sees it. `read_only` and `idempotent` are facts stated by the user or by Mains itself.

    `attached`: of a server of somebody else: a person decides first, where no rule of theirs does. `open_world`: it may
    send data out, as far as is known. `changed`: its device describes it otherwise than when its user accepted it.
    """

    name: str
    description: str
    parameters: Schema
    read_only: bool = False
    idempotent: bool = False
    attached: bool = False
    open_world: bool = False
    changed: bool = False


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Tokens of one model call.

    `input_tokens` includes `cached_tokens` (those the engine did not read again) and what was written to its cache (for
    5 minutes, or for 1 hour); `output_tokens` includes `reasoning_tokens`.
    """

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total(self) -> int:
        """What a budget in tokens is charged: input (cached included) and output."""
        return self.input_tokens + self.output_tokens


class Sampling(msgspec.Struct, frozen=True, omit_defaults=True):
    """How to draw tokens. None leaves the engine's own default."""

    temperature: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()


class Request(msgspec.Struct, frozen=True):
    """One model call. `output_tokens_max` is what the hold can pay for: the engine must not exceed it.

    `output` is a JSON Schema that the final text must satisfy; an engine that can constrain its sampler does.
    `key` is unique per attempt: a backend that understands idempotency keys may be given it. `process` and `tenant` (an
    account; 0: not known) say for whom it is: an engine may keep what it reads of a process, but never across tenants.
    """

    messages: tuple[Message, ...]
    output_tokens_max: int
    tools: tuple[Tool, ...] = ()
    output: Schema | None = None
    model: str = ""
    sampling: Sampling = Sampling()
    key: str = ""
    process: int = 0
    tenant: int = 0


class Finish(enum.StrEnum):
    """Why a model stopped."""

    STOP = "stop"
    LENGTH = "length"
    CALLS = "calls"
    REFUSAL = "refusal"


class Reply(msgspec.Struct, frozen=True):
    """What a model answered. `usage` is None when the engine did not report any: then the hold is posted whole."""

    text: str
    calls: tuple[ToolCall, ...] = ()
    usage: Usage | None = None
    finish: Finish = Finish.STOP
    limits: RateLimits | None = None


class EngineState(msgspec.Struct, frozen=True):
    """How an engine is. `tokens_per_s` is the output speed of its recent calls (0 before the first)."""

    name: str
    kind: str
    model: str
    slots: int
    busy: int
    health: str
    context_tokens: int
    tokens_per_s: float


class Engine(Protocol):
    """A model behind a door. One `complete` is one attempt; a failure is an EngineError, a timeout too.

    `rpm`, `tpm`: requests and tokens a minute that it may be sent; `cache_tokens`: what it keeps read; 0: not known.
    """

    name: str
    slots: int
    context_tokens: int
    cache_tokens: int
    rpm: int
    tpm: int

    async def complete(self, request: Request, on_delta: Callable[[str], None]) -> Reply:
        """Make the call; `on_delta` gets the text as it comes. Raises EngineError.

        Cancelling the coroutine must stop the work at the engine as far as the engine allows.
        """
        ...

    def state(self) -> EngineState:
        """How the engine is, without asking it (no I/O)."""
        ...

    async def start(self) -> None:
        """Get ready for calls (lazy engines do nothing). Raises EngineError or ConfigError."""
        ...

    async def close(self) -> None:
        """Stop and free everything."""
        ...


@runtime_checkable
class Keeper(Protocol):
    """An engine that keeps what it has read of processes."""

    async def forget(self, processes: Collection[int]) -> None:
        """Keep nothing of these processes any more: they are about to be removed."""
        ...


class Engines(Protocol):
    """The engines that there are. One is made ready when it is first asked for."""

    def find(self, name: str, model: str) -> Engine:
        """The engine of this name (for a model file of its own: of this model). Raises ConfigError."""
        ...

    def states(self) -> list[EngineState]:
        """How each engine is."""
        ...

    async def close(self) -> None:
        """Stop them all."""
        ...


class CallContext(msgspec.Struct, frozen=True):
    """Who calls a device. `key` is the same when a call is repeated after a crash: an idempotency key."""

    pid: int
    key: str
    workspace: Path
    attempt: int


class Question(msgspec.Struct, frozen=True):
    """What a device asks a person while it serves a call: a form (`schema`), or a page to open (`url`)."""

    device: str
    call: CallContext
    text: str
    schema: Schema = {}
    url: str = ""


class Said(msgspec.Struct, frozen=True):
    """What a person answered; `values` of a form that was accepted."""

    action: Literal["accept", "decline", "cancel"]
    values: dict[str, Any] = {}


class Wish(msgspec.Struct, frozen=True):
    """What a device asks a model while it serves a call."""

    device: str
    call: CallContext
    messages: tuple[Message, ...]
    output_tokens_max: int
    sampling: Sampling = Sampling()


class Told(msgspec.Struct, frozen=True):
    """What the model `model` said."""

    text: str
    model: str
    finish: Finish


class Attendant(Protocol):
    """Who serves devices that ask for something in the middle of a call of a process."""

    async def ask(self, question: Question) -> Said:
        """A person's answer. Raises UsageError, LimitError, JournalError."""
        ...

    async def sample(self, wish: Wish) -> Told:
        """A model's answer, on the account of the process. Raises UsageError (also: it may not), LimitError (also:
        there is no room for it), EngineError, JournalError."""
        ...


class Done(msgspec.Struct, frozen=True):
    """A device's answer, as text for the model."""

    text: str


class Failed(msgspec.Struct, frozen=True):
    """A device says no; `text` goes to the model, which may try otherwise. The effect did not happen."""

    text: str


class Device(Protocol):
    """Tools behind a name. A program calls one `device.tool`; a device of one tool may leave that tool's name empty."""

    name: str

    def tools(self) -> Sequence[Tool]:
        """The tools that the device offers now (names without the device's own)."""
        ...

    async def call(self, tool: str, arguments: Mapping[str, Any], context: CallContext) -> Done | Failed:
        """Do it. Raises DeviceError when the device itself broke (the effect may have happened)."""
        ...

    async def close(self) -> None:
        """Free everything."""
        ...


class Offer(NamedTuple):
    """Who serves a tool: the device, and the tool's name there."""

    device: Device
    tool: str


class Devices(Protocol):
    """The devices that there are. They come and go; a process keeps the tools that it was offered at spawn."""

    def tools(self) -> Sequence[Tool]:
        """Every tool that there is now, by its whole name; the same object until something changes."""
        ...

    def find(self, tool: str) -> Offer:
        """Who serves the tool of this whole name. Raises NotFoundError, whose text a model can read."""
        ...

    async def close(self) -> None:
        """Free them all."""
        ...


class Probe(Protocol):
    """Named points around every commit and act. Outside tests nothing happens there."""

    def at(self, point: str) -> None:
        """The kernel stands at `point`. A test may raise here, and the world ends."""
        ...


class NoProbe:
    """The probe of production: does nothing."""

    def at(self, point: str) -> None:
        return


class ProcessView(msgspec.Struct, frozen=True):
    """A process as `ps` shows it."""

    pid: int
    parent: int | None
    program: str
    account: str
    band: str
    state: str
    reason: str
    turns: int
    tokens: int
    created_at: str
    label: str = ""
    engine: str = ""
    group: str = ""


class Outcome(msgspec.Struct, frozen=True):
    """How a process stands or ended, as `run --json` and `wait --json` print it.

    `exit_code` is None while the process has not ended; `reason` says why a stopped one stands.
    `result` is text, or the value when the program declares `output`.
    """

    pid: int
    program: str
    state: str
    exit_code: int | None
    result: Any
    usage: Usage
    turns: int
    reason: str = ""


class Removal(msgspec.Struct, frozen=True):
    """Who was removed (children before parents). `erased`: nothing of them is left to erase; else that goes on."""

    pids: list[int]
    erased: bool = True


class Signal(enum.StrEnum):
    """What can be sent to a process and all below it; INT ends the turn of a conversation, and goes to it alone."""

    INT = "INT"
    TERM = "TERM"
    KILL = "KILL"
    STOP = "STOP"
    CONT = "CONT"


class Notice(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a watcher sees: a journalled event, or a provisional delta (`seq` 0; `turn`, `attempt` say of what)."""

    kind: str
    pid: int
    seq: int = 0
    at_ms: int = 0
    turn: int = 0
    attempt: int = 0
    text: str = ""
