"""Secrets on the bus: `{{secret:NAME}}` becomes a value where it leaves us, and a value becomes `[secret NAME]` where
it comes back.

    filled(arguments, ...)      the arguments of a call with the values in them
    DiscreetDevices             devices as the kernel has them: it sees names only, before a call and after it
    Screened                    a connection, through which no value comes back: results, errors, progress, lists of
                                tools, questions and notes of a device alike

Who holds the values is given from above (`Secrets`, which `mains.vault` is).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from mains.bus.reach import Reach
from mains.errors import ConfigError, MainsError
from mains.kernel.ports import SECRET, CallContext, Device, Devices, Done, Failed, Offer, Tool

if TYPE_CHECKING:
    from mcp.client._transport import ReadStream, TransportStreams
    from mcp.shared.message import SessionMessage

PLACEHOLDER = SECRET
_DEPTH_MAX = 100  # of arguments; what lies deeper stays as it is


class Secrets(Protocol):
    """Who holds the values."""

    def value(self, name: str, device: str, tool: str = "") -> str:
        """The value, for this device or this tool of it. Raises ConfigError: there is none, or it is for others."""
        ...

    def redact(self, text: str) -> str:
        """The text without any value."""
        ...

    def redact_bytes(self, data: bytes) -> bytes:
        """The same for bytes."""
        ...

    def redact_json(self, value: Any) -> Any:
        """The same for plain JSON."""
        ...


class NoSecrets:
    """There are none."""

    def value(self, name: str, device: str, tool: str = "") -> str:
        raise ConfigError(f"there is no secret `{name[:64]}`")

    def redact(self, text: str) -> str:
        return text

    def redact_bytes(self, data: bytes) -> bytes:
        return data

    def redact_json(self, value: Any) -> Any:
        return value


def filled(value: Any, secrets: Secrets, device: str, tool: str, depth: int = 0) -> Any:
    """Arguments with their secrets, in texts (not in the names of fields). Raises ConfigError."""
    if isinstance(value, str):
        if "secret:" not in value:
            return value
        return SECRET.sub(lambda found: secrets.value(found[1], device, tool), value)
    if depth > _DEPTH_MAX:
        return value
    if isinstance(value, Mapping):
        return {key: filled(each, secrets, device, tool, depth + 1) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [filled(each, secrets, device, tool, depth + 1) for each in value]
    return value


class DiscreetDevice:
    """A device that is given values, and whose answers hold none."""

    def __init__(self, device: Device, secrets: Secrets) -> None:
        self.name = device.name
        self._device = device
        self._secrets = secrets

    def tools(self) -> Sequence[Tool]:
        """What the device offers."""
        return self._device.tools()

    async def call(self, tool: str, arguments: Mapping[str, Any], context: CallContext) -> Done | Failed:
        """Make a call. A secret that the device may not have: it is not made. Raises DeviceError."""
        try:
            given = filled(arguments, self._secrets, self.name, tool)
        except ConfigError as error:
            return Failed(f"not made: {error}" + (f" ({error.hint})" if error.hint else ""))
        try:
            answer = await self._device.call(tool, given, context)
        except MainsError as error:
            redact_error(error, self._secrets)
            raise
        return type(answer)(self._secrets.redact(answer.text))

    async def close(self) -> None:
        """Free everything."""
        await self._device.close()


class DiscreetDevices:
    """Devices, each of them discreet."""

    def __init__(self, devices: Devices, secrets: Secrets) -> None:
        self._devices = devices
        self._secrets = secrets

    def tools(self) -> Sequence[Tool]:
        """What all offer."""
        return self._devices.tools()

    def find(self, tool: str) -> Offer:
        """Who serves a tool. Raises NotFoundError."""
        device, inner = self._devices.find(tool)
        return Offer(DiscreetDevice(device, self._secrets), inner)

    async def close(self) -> None:
        """Free them all."""
        await self._devices.close()


def redact_error(error: MainsError, secrets: Secrets) -> None:
    """Take every value out of an error's text and hint."""
    error.args = tuple(secrets.redact(each) if isinstance(each, str) else each for each in error.args)
    error.hint = secrets.redact(error.hint)


class Screened:
    """A reach (`reach.Reach`) through which no value comes back."""

    def __init__(self, reach: Reach, secrets: Secrets) -> None:
        self._reach = reach
        self._secrets = secrets

    @property
    def pid(self) -> int:
        """That of the reach."""
        return self._reach.pid

    @property
    def over(self) -> asyncio.Event:
        """That of the reach."""
        return self._reach.over

    @property
    def heard_at(self) -> float:
        """That of the reach."""
        return self._reach.heard_at

    @property
    def ended(self) -> str:
        """Why it is over."""
        return self._secrets.redact(self._reach.ended)

    @ended.setter
    def ended(self, why: str) -> None:
        self._reach.ended = why

    @contextlib.asynccontextmanager
    async def streams(self) -> AsyncIterator[TransportStreams]:
        """The streams, the incoming one screened. Raises what the reach raises."""
        async with self._reach.streams() as (incoming, outgoing):
            yield _Incoming(incoming, self._secrets), outgoing


class _Incoming:
    """A stream of messages without the values."""

    def __init__(self, stream: ReadStream[SessionMessage | Exception], secrets: Secrets) -> None:
        self._stream = stream
        self._secrets = secrets

    @property
    def last_context(self) -> Any:
        """The sender's context, where the stream knows it (the SDK asks for it)."""
        return getattr(self._stream, "last_context", None)

    async def receive(self) -> SessionMessage | Exception:
        return self._without(await self._stream.receive())

    async def aclose(self) -> None:
        await self._stream.aclose()

    def __aiter__(self) -> _Incoming:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        return self._without(await self._stream.__anext__())

    async def __aenter__(self) -> _Incoming:
        await self._stream.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._stream.__aexit__(kind, error, trace)

    def _without(self, item: SessionMessage | Exception) -> SessionMessage | Exception:
        if isinstance(item, Exception):
            item.args = tuple(self._secrets.redact(each) if isinstance(each, str) else each for each in item.args)
            return item
        message = item.message
        if isinstance(method := getattr(message, "method", None), str):
            setattr(message, "method", self._secrets.redact(method))  # noqa: B010 - not every message has one
        for part in ("result", "params", "error"):
            value = getattr(message, part, None)
            if isinstance(value, dict):
                setattr(message, part, self._secrets.redact_json(value))
            elif value is not None:  # an error: its text and its data
                value.message, value.data = self._secrets.redact(value.message), self._secrets.redact_json(value.data)
        return item
