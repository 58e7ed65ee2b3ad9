"""Devices that are there from boot to halt: the built-in ones, Python functions, those of tests.

A tool's whole name is `device.tool`, or the device's own name where the tool has none (`whole_name`). Two devices never
offer one name, and none takes that of a syscall (but those of `YIELDING`): both are refused at boot.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mains.errors import ConfigError, NotFoundError
from mains.kernel.ports import Device, Offer, Tool
from mains.kernel.toolset import SYSCALLS, YIELDING


class DeviceList:
    """A fixed list of devices, as `Devices`. Raises ConfigError when two names meet."""

    def __init__(self, devices: Sequence[Device]) -> None:
        self._devices = tuple(devices)
        self._offers: dict[str, Offer] = {}
        self._tools = tuple(
            msgspec.structs.replace(tool, name=self._offer(device, tool.name))
            for device in devices
            for tool in device.tools()
        )

    def _offer(self, device: Device, tool: str) -> str:
        name = whole_name(device.name, tool)
        if name in SYSCALLS - YIELDING:
            raise ConfigError(f"a device cannot take the name of the syscall `{name}`", hint="give it another name")
        if name in self._offers:
            raise ConfigError(f"two devices offer the tool `{name}`", hint="give one device another name")
        self._offers[name] = Offer(device, tool)
        return name

    def tools(self) -> Sequence[Tool]:
        """Every tool, by its whole name."""
        return self._tools

    def find(self, tool: str) -> Offer:
        """Who serves a tool. Raises NotFoundError."""
        offer = self._offers.get(tool)
        if offer is None:
            raise NotFoundError(f"nothing offers the tool `{tool}` any more")
        return offer

    async def close(self) -> None:
        """Close every device."""
        for device in self._devices:
            await device.close()


def whole_name(device: str, tool: str) -> str:
    """The name by which a program grants a tool, and a model calls it."""
    return f"{device}.{tool}" if tool else device
