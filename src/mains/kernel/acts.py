"""Acts: the calls that leave the kernel, each with a time limit and a crash point before and after it.

ask(p, request, on_delta)      one model call -> Reply, or EngineError
call(p, call, arguments)       one device call -> its text, or DeviceError (the effect may have happened)
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mains.errors import DeviceError, EngineError, NotFoundError, Spent
from mains.kernel.context import whole_text
from mains.kernel.lookup import Lookup
from mains.kernel.ports import CallContext, Devices, Engines, Failed, Probe, Reply, Request
from mains.kernel.process import Call, Process
from mains.kernel.toolset import LOOKUPS
from mains.patience import Patience
from mains.settings import Settings


class _Flight:
    """A device call: its place among all, and its time limit. Who waits for a person holds up nobody else."""

    def __init__(self, slots: asyncio.Semaphore, limit_s: float) -> None:
        self.patience = Patience(limit_s)
        self._slots = slots
        self._placed = False

    async def __aenter__(self) -> _Flight:
        await self._slots.acquire()
        self._placed = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Give the place back."""
        if self._placed:
            self._placed = False
            self._slots.release()


class Acts:
    """The engines and devices of a kernel, behind time limits."""

    def __init__(self, engines: Engines, devices: Devices, settings: Settings, probe: Probe) -> None:
        self.engines = engines
        self.devices = devices
        self._settings = settings
        self._probe = probe
        self.lookup: Lookup | None = None  # of the home's memory, once its journal is open
        self._slots = asyncio.Semaphore(settings.device_calls_max)
        self._flights: dict[str, _Flight] = {}  # device calls, by their key

    async def ask(self, p: Process, request: Request, on_delta: Callable[[str], None]) -> Reply:
        """One model call. Raises EngineError."""
        limit_s = self._settings.model_timeout_s
        self._probe.at("model.before")
        try:
            async with asyncio.timeout(limit_s):
                reply = await self.engines.find(p.engine, p.model).complete(request, on_delta)
        except TimeoutError as error:
            text = f"engine {p.engine}: no reply within {limit_s:g} s (model_timeout_s)"
            raise EngineError(text, retryable=True, spent=Spent.UNKNOWN) from error
        except asyncio.CancelledError as error:
            if _cancelled_by_us():
                raise
            raise EngineError(f"engine {p.engine}: it broke off", retryable=True, spent=Spent.UNKNOWN) from error
        self._probe.at("model.after")
        return reply

    async def call(self, p: Process, call: Call, arguments: dict[str, Any], wanted: Callable[[], bool]) -> str:
        """One device call; a refusal of the device is text too. Raises DeviceError: nobody knows what happened.

        `wanted` is asked at the last moment: whoever was killed while it waited for its turn makes no call.
        """
        if call.tool in LOOKUPS and self.lookup is not None:
            return await self._look_up(self.lookup, p, call.tool, arguments)
        try:
            device, tool = self.devices.find(call.tool)
        except NotFoundError as error:
            return f"error: {error}"
        context = CallContext(p.pid, f"{p.pid}-{call.id}", Path(p.workspace), call.attempt)
        limit_s = self._settings.device_timeout_s
        try:
            async with _Flight(self._slots, limit_s) as flight:
                if not wanted():
                    return "not made: the process has ended"
                self._probe.at("device.before")
                self._flights[context.key] = flight
                try:
                    async with flight.patience:
                        answer = await device.call(tool, arguments, context)
                finally:
                    del self._flights[context.key]
                self._probe.at("device.after")
        except TimeoutError as error:
            raise DeviceError(f"{call.tool}: no answer within {limit_s:g} s (device_timeout_s)") from error
        except asyncio.CancelledError as error:
            if _cancelled_by_us():
                raise
            raise DeviceError(f"{call.tool}: it broke off") from error
        text = whole_text(answer.text)
        return f"error: {text}" if isinstance(answer, Failed) else text

    @contextlib.contextmanager
    def thinking(self, key: str) -> Iterator[None]:
        """Somebody thinks about what the device of this call wants: the call's time limit stands still meanwhile, and
        its place among all calls is another's from here on."""
        flight = self._flights.get(key)
        if flight is None:
            yield
            return
        flight.leave()
        with flight.patience.thinking():
            yield

    async def _look_up(self, lookup: Lookup, p: Process, tool: str, arguments: dict[str, Any]) -> str:
        limit_s = self._settings.device_timeout_s
        try:
            async with self._slots, asyncio.timeout(limit_s):
                return await lookup.call(p, tool, arguments)
        except TimeoutError:
            return f"error: {tool} took longer than {limit_s:g} s (device_timeout_s)"

    async def close(self) -> None:
        """Stop every engine and device."""
        await self.engines.close()
        await self.devices.close()


def _cancelled_by_us() -> bool:
    """Whether this task was told to stop; else what it called was cancelled from within."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
