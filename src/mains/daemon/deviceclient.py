"""The client's part for devices (`devices.py`) and their secrets (`secrets.py`): answers are plain objects, as the
routes give them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mains.errors import DaemonError

Object = dict[str, Any]


class DeviceClient:
    """What may be asked of a daemon about devices: a part of `client.Client`."""

    @abstractmethod
    def _ask(self, path: str, **query: object) -> Any: ...

    @abstractmethod
    def _order(self, path: str, body: Mapping[str, Any]) -> Any: ...

    @abstractmethod
    def _order_lines(self, path: str, body: Mapping[str, Any]) -> Iterator[Object]: ...

    def devices(self) -> list[Object]:
        """How each device is."""
        found: list[Object] = self._ask("devices")
        return found

    def device(self, name: str) -> Object:
        """One device: its `state`, and its `tools` as they were last listed."""
        found: Object = self._ask("device", name=name)
        return found

    def device_add(self, name: str, entry: Mapping[str, Any], *, untried: bool = False) -> Object:
        """Add a device, which must start and list its tools unless it is `untried`; how it is."""
        return self._long("devices", {"name": name, "entry": dict(entry), "untried": untried})

    def device_remove(self, name: str) -> None:
        """End a device and forget it."""
        self._order("device/remove", {"name": name})

    def device_restart(self, name: str) -> Object:
        """End a device and start it as mains.toml has it now; how it is."""
        return self._long("device/restart", {"name": name})

    def device_tools(self, name: str) -> Object:
        """Ask a device for its tools: its `state` and its `tools`."""
        return self._long("device/tools", {"name": name})

    def device_changes(self, name: str) -> Object:
        """How the tools of a device differ from those that were accepted: `changes`, and their `digest`."""
        found: Object = self._ask("device/changes", name=name)
        return found

    def device_accept(self, name: str, digest: str) -> Object:
        """Take over the tools of which `device_changes` gave the digest; how the device is."""
        found: Object = self._order("device/accept", {"name": name, "digest": digest})
        return found

    def device_call(
        self, name: str, tool: str, arguments: Mapping[str, Any], told: Callable[[str], None] = lambda _: None
    ) -> Object:
        """Make one call: its `text`, and whether it `failed`. `told` gets what the device says meanwhile."""
        return self._long("device/call", {"name": name, "tool": tool, "arguments": dict(arguments)}, told)

    def unlock(self, passphrase: str) -> list[str]:
        """Open the secrets that are sealed; the names of those that stay closed."""
        locked: list[str] = self._order("secrets/unlock", {"passphrase": passphrase})["locked"]
        return locked

    def _long(self, path: str, body: Mapping[str, Any], told: Callable[[str], None] = lambda _: None) -> Object:
        answer: Object = {}
        for line in self._order_lines(path, body):
            if line.keys() == {"progress"}:
                told(str(line["progress"]))
            elif line:
                answer = line
        if not answer:
            raise DaemonError("the daemon ended before it had an answer", hint="`mains device ls` shows what there is")
        return answer
