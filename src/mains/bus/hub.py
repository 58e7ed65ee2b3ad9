"""The hub: every device of a home by name. They come, go and restart while processes run.

    tools(), find(), close()          what the kernel asks (`kernel.ports.Devices`)
    add, remove, restart, list_tools, accept, call, states      what people ask

Devices that are always there (`fixed`) keep their names; those of `mains.toml` speak MCP and are started when they are
first needed, one connection for all processes. mains.toml is read at the start, and again by `restart`. A device whose
tools were never listed is started once for that. What is offered is a tuple that is replaced, never changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakValueDictionary

import msgspec

from mains.arguments import Checker
from mains.bounded_log import BoundedLog
from mains.bus.accepted import Change
from mains.bus.child import Child, Limits
from mains.bus.device import DeviceState, McpDevice
from mains.bus.doors import Doors
from mains.bus.mechanism import Mechanism, find_mechanism
from mains.bus.owner import Owner
from mains.bus.reach import Reach
from mains.bus.remote import Remote
from mains.bus.secrets import DiscreetDevice, NoSecrets, Screened, Secrets
from mains.bus.spec import (
    DeviceSpec,
    checked_spec,
    environment_of,
    headers_of,
    load_devices,
    look_of,
    remove_device,
    write_device,
)
from mains.bus.terms import Terms
from mains.bus.warden import Warden
from mains.bus.works import in_thread
from mains.errors import ConfigError, DeviceError, LimitError, NotFoundError, UsageError
from mains.home import Home
from mains.kernel.ports import CallContext, Devices, Done, Failed, Offer, Tool
from mains.settings import Settings

if TYPE_CHECKING:
    import httpx2

_LISTINGS_MAX = 4  # devices that are started at once for their first list
_END_S = 20.0


class Seams(NamedTuple):
    """What is given to the hub from above. `reserved`: names that no device may have."""

    doors: Doors = Doors()
    auth: Callable[[DeviceSpec], httpx2.Auth | None] = lambda _: None
    progress: Callable[[CallContext, str, str], None] = lambda *_: None
    reserved: Collection[str] = ()
    secrets: Secrets = NoSecrets()
    mechanism: Callable[[], Mechanism] = find_mechanism


class Changes(NamedTuple):
    """What differs, and the digest of the list that it leads to."""

    digest: str
    changes: tuple[Change, ...]


class Hub:
    """See the module's header. Raises ConfigError when mains.toml has a mistake."""

    def __init__(self, home: Home, settings: Settings, fixed: Devices, seams: Seams | None = None) -> None:
        self._home = home
        self._settings = settings
        self._fixed = fixed
        self._seams = seams or Seams()
        self._warden = Warden(home.path, self._seams.mechanism)
        self._devices: dict[str, McpDevice] = {}
        self._tools: tuple[Tool, ...] = ()
        self._offers: dict[str, Offer] = {}
        self._listing: set[asyncio.Task[None]] = set()
        self._places = asyncio.Semaphore(_LISTINGS_MAX)
        self._trials: set[McpDevice] = set()  # that are being added
        self._changing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._closed = False
        self._told: dict[str, Callable[[str], None]] = {}
        for spec in self._specs().values():
            self._devices[spec.name] = self._device(spec)
        self._offer()

    # ------------------------------------------------------------------------------------- what the kernel asks

    def tools(self) -> Sequence[Tool]:
        """Every tool that there is now, by its whole name."""
        return self._tools

    def find(self, tool: str) -> Offer:
        """Who serves a tool. Raises NotFoundError."""
        offer = self._offers.get(tool)
        if offer is not None:
            return offer
        name, _, inner = tool.partition(".")
        if name in self._devices and inner:
            raise NotFoundError(f"the device {name} no longer has a tool `{inner}`")
        return self._fixed.find(tool)

    async def close(self) -> None:
        """End every device, those that are being added, too."""
        self._closed = True
        for task in self._listing:
            task.cancel()
        ends = [asyncio.create_task(device.close()) for device in {*self._devices.values(), *self._trials}]
        if ends:
            _, late = await asyncio.wait(ends, timeout=_END_S)
            for task in late:
                task.cancel()
        await self._fixed.close()

    # ---------------------------------------------------------------------------------------------- what people ask

    def begin(self) -> None:
        """Ask devices whose tools were never listed for them, side by side."""
        for device in self._devices.values():
            if not device.is_listed:
                task = asyncio.create_task(self._list_first(device))
                self._listing.add(task)
                task.add_done_callback(self._listing.discard)

    def states(self) -> list[DeviceState]:
        """How each device of mains.toml is."""
        return [self._devices[name].state() for name in sorted(self._devices)]

    def state(self, name: str) -> DeviceState:
        """How one is. Raises NotFoundError."""
        return self._find(name).state()

    async def add(self, name: str, entry: Mapping[str, Any], *, untried: bool = False) -> DeviceState:
        """Add a device, or replace the one of this name, when it starts and lists its tools.

        `untried`: without starting it. Raises ConfigError, DeviceError, LimitError; nothing is changed then.
        """
        spec = checked_spec(name, entry, f"device {name}")
        self._check_name(spec.name)
        self._check_look(spec.name)
        self._warden.check(spec)
        async with self._alone(name):
            coming = {name, *self._devices, *(each.name for each in self._trials)}
            if len(coming) > self._settings.devices_max and name not in self._devices:
                raise LimitError(f"there are {len(coming) - 1} devices (devices_max)")
            device = self._device(spec, trial=True)
            self._trials.add(device)
            leaving: McpDevice | None = device
            try:
                if not untried:
                    await device.list()
                told = await in_thread(lambda: write_device(self._home.config, spec))
                leaving, self._devices[name] = self._devices.get(name), device
                device.adopt()
                self._offer()
                told()
            finally:
                self._trials.discard(device)
                if leaving is not None:
                    await leaving.close()
            return device.state()

    async def remove(self, name: str) -> None:
        """End a device and forget it. Raises NotFoundError, ConfigError."""
        async with self._alone(name):
            written: list[bool] = []
            told = await in_thread(lambda: written.append(remove_device(self._home.config, name)))
            device = self._devices.pop(name, None)
            if device is None and not any(written):
                raise self._unknown(name)
            with contextlib.suppress(OSError):
                self._path(name).unlink(missing_ok=True)
            if device is not None:
                self._offer()
                await device.close()
            told()

    async def restart(self, name: str) -> DeviceState:
        """End a device, start it again as mains.toml has it now, and list its tools. Raises what `add` raises."""
        async with self._alone(name):
            spec = self._specs().get(name)
            if spec is None:
                raise self._unknown(name)
            device = self._devices.get(name)
            if device is None or device.spec != spec:
                if device is not None:
                    await device.close()
                device = self._devices[name] = self._device(spec)
                self._offer()
            await device.owner.restart()
            await device.list()
            return device.state()

    @contextlib.asynccontextmanager
    async def _alone(self, name: str) -> AsyncIterator[None]:
        """Change one name at a time: what comes second sees what the first has made. Raises DeviceError: too late."""
        async with self._changing.setdefault(name, asyncio.Lock()):
            if self._closed:
                raise DeviceError("the devices are being ended", retryable=True)
            yield

    async def list_tools(self, name: str) -> Sequence[Tool]:
        """Ask a device for its tools. Raises NotFoundError, DeviceError, LimitError."""
        device = self._find(name)
        await device.list()
        return device.tools()

    def changes(self, name: str) -> Changes:
        """How the tools of a device differ from those that were accepted. Raises NotFoundError."""
        device = self._find(name)
        return Changes(device.listing.digest, device.changes)

    def accept(self, name: str, digest: str) -> DeviceState:
        """Take over the list of which `changes` gave the digest. Raises NotFoundError, UsageError, ConfigError."""
        device = self._find(name)
        try:
            device.accept(digest)
        except OSError as error:
            raise ConfigError(f"{self._path(name)}: {error.strerror}; nothing was accepted") from error
        return device.state()

    def tools_of(self, name: str) -> Sequence[Tool]:
        """The tools of a device as they were accepted and last listed. Raises NotFoundError."""
        return self._find(name).tools()

    async def call(
        self,
        name: str,
        tool: str,
        arguments: Mapping[str, Any],
        context: CallContext,
        told: Callable[[str], None] = lambda _: None,
    ) -> Done | Failed:
        """Make one call for a person; `told` gets what the device says meanwhile.

        Raises NotFoundError, UsageError (the arguments do not fit), DeviceError.
        """
        device = self._find(name)
        if not device.is_listed:
            await device.list()
        found = next((each for each in device.tools() if each.name == tool), None)
        if found is None:
            known = ", ".join(each.name for each in device.tools()) or "none"
            raise NotFoundError(f"the device {name} has no tool `{tool}`", hint=f"it has: {known[:500]}")
        _check_arguments(name, found, arguments)
        self._told[context.key] = told
        try:
            async with asyncio.timeout(self._settings.device_timeout_s):
                return await DiscreetDevice(device, self._seams.secrets).call(tool, arguments, context)
        except TimeoutError as error:
            limit_s = self._settings.device_timeout_s
            raise DeviceError(f"{name}.{tool}: no answer within {limit_s:g} s (device_timeout_s)") from error
        finally:
            del self._told[context.key]

    def _progressed(self, context: CallContext, device: str, text: str) -> None:
        told = self._told.get(context.key)
        if told is not None:
            told(text)
        else:
            self._seams.progress(context, device, text)

    # -------------------------------------------------------------------------------------------------- inside

    def _specs(self) -> dict[str, DeviceSpec]:
        where = str(self._home.config)
        specs = load_devices(self._home.document().get("devices", {}), where)
        if len(specs) > self._settings.devices_max:
            raise ConfigError(f"{where}: {len(specs)} devices, at most {self._settings.devices_max} (devices_max)")
        for name in specs:
            self._check_name(name)
        return specs

    def _check_name(self, name: str) -> None:
        fixed = {tool.name.partition(".")[0] for tool in self._fixed.tools()}
        if name in fixed or name in self._seams.reserved:
            raise ConfigError(f"`{name}` is a name that Mains itself uses", hint="give the device another name")

    def _check_look(self, name: str) -> None:
        ours = {*self._seams.reserved, *(tool.name.partition(".")[0] for tool in self._fixed.tools())}
        if (alike := next((each for each in sorted(ours) if look_of(each) == look_of(name)), "")) and alike != name:
            raise ConfigError(
                f"`{name}` looks like `{alike}`, a name of Mains' own", hint="give the device another name"
            )

    def _find(self, name: str) -> McpDevice:
        device = self._devices.get(name)
        if device is None:
            raise self._unknown(name)
        return device

    def _unknown(self, name: str) -> NotFoundError:
        known = ", ".join(sorted(self._devices)) or "none"
        return NotFoundError(f"there is no device `{name}` (known: {known})", hint="`mains device add` adds one")

    def _offer(self) -> None:
        """Make what is offered anew."""
        tools, offers = [*self._fixed.tools()], {}
        for device in self._devices.values():
            for tool in device.tools():
                whole = f"{device.name}.{tool.name}"
                tools.append(msgspec.structs.replace(tool, name=whole))
                offers[whole] = Offer(device, tool.name)
        self._tools, self._offers = tuple(tools), offers

    def _device(self, spec: DeviceSpec, *, trial: bool = False) -> McpDevice:
        return McpDevice(
            spec,
            self._settings,
            lambda listed, changed: Owner(
                spec.name, lambda: self._reach(spec), self._terms(spec), self._seams.doors, listed, changed
            ),
            self._path(spec.name),
            self._offer,
            self._progressed,
            self._warden.word_of,
            trial=trial,
        )

    def _path(self, name: str) -> Path:
        return self._home.devices / name / "tools.json"

    def _terms(self, spec: DeviceSpec) -> Terms:
        its, all_ = spec, self._settings
        return Terms(
            calls=its.calls or all_.device_calls,
            queue_max=all_.device_queue_max,
            start_s=its.start_s or all_.device_start_s,
            idle_s=its.idle_s or all_.device_idle_s,
            health_s=all_.device_health_s,
            backoff_s=all_.device_backoff_ms / 1_000,
            backoff_ceiling_s=all_.device_backoff_ceiling_ms / 1_000,
            tools_max=all_.device_tools_max,
            protocol=its.protocol,
        )

    def _reach(self, spec: DeviceSpec) -> Reach:
        bytes_max, secrets = self._settings.device_message_bytes_max, self._seams.secrets
        if spec.url:
            headers = headers_of(spec, secrets=secrets)
            return Screened(Remote(spec.name, spec.url, headers, bytes_max, self._seams.auth(spec)), secrets)
        folder = Path(spec.folder).expanduser() if spec.folder else self._home.devices / spec.name / "work"
        child = Child(
            spec.name,
            (spec.command, *spec.args),
            environment_of(spec, secrets=secrets, own=self._warden.own_home(spec)),
            self._home.path / folder,
            BoundedLog(self._home.logs / f"device-{spec.name}.log", self._settings.log_bytes_max, secrets.redact_bytes),
            Limits(
                spec.memory_mib or self._settings.device_memory_mib_max,
                spec.cpu_s or self._settings.device_cpu_s_max,
                bytes_max,
            ),
            self._warden.cage_of(spec),
        )
        return Screened(child, secrets)

    async def _list_first(self, device: McpDevice) -> None:
        try:
            async with self._places:
                await device.list()
        except (DeviceError, ConfigError, LimitError):
            return  # `states` says why


def _check_arguments(device: str, tool: Tool, arguments: Mapping[str, Any]) -> None:
    try:
        fault = Checker(tool.parameters).fault_of(dict(arguments))
    except ValueError as error:
        raise UsageError(f"the schema of {device}.{tool.name} cannot be used: {str(error)[:300]}") from error
    if fault:
        hint = f"`mains device tools {shlex.quote(device)}`"
        raise UsageError(f"the arguments do not fit: {fault[:300]}", hint=hint)
