"""Acts: the calls that leave the kernel, each with a time limit and a crash point before and after it.

ask(p, request, on_delta)      one model call -> Reply, or EngineError
call(p, call, arguments)       one device call -> its text, or DeviceError (the effect may have happened)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mains.errors import DeviceError, EngineError, NotFoundError, Spent
from mains.kernel.context import whole_text
from mains.kernel.lookup import Lookup
from mains.kernel.ports import CallContext, Devices, Engines, Failed, Probe, Reply, Request
from mains.kernel.process import Call, Process
from mains.kernel.toolset import LOOKUPS
from mains.settings import Settings


class Acts:
    """The engines and devices of a kernel, behind time limits."""

    def __init__(self, engines: Engines, devices: Devices, settings: Settings, probe: Probe) -> None:
        self.engines = engines
        self.devices = devices
        self._settings = settings
        self._probe = probe
        self.lookup: Lookup | None = None  # of the home's memory, once its journal is open
        self._slots = asyncio.Semaphore(settings.device_calls_max)

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
            async with self._slots:
                if not wanted():
                    return "not made: the process has ended"
                self._probe.at("device.before")
                async with asyncio.timeout(limit_s):
                    answer = await device.call(tool, arguments, context)
                self._probe.at("device.after")
        except TimeoutError as error:
            raise DeviceError(f"{call.tool}: no answer within {limit_s:g} s (device_timeout_s)") from error
        except asyncio.CancelledError as error:
            if _cancelled_by_us():
                raise
            raise DeviceError(f"{call.tool}: it broke off") from error
        text = whole_text(answer.text)
        return f"error: {text}" if isinstance(answer, Failed) else text

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
