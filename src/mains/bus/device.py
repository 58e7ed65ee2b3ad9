"""An MCP device as the kernel sees it: its tools, a call, an answer. Behind it stands an owner of the connection.

The tools are those that were last listed, so that they can be offered without starting anything. A list that turns out
to be another one replaces it (`changed` says so); processes keep what they were offered at spawn.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mains.bus.answer import answer_of
from mains.bus.listing import Listing, list_tools, load_listing, printable, store_listing, tools_of
from mains.bus.owner import Owner
from mains.bus.spec import DeviceSpec
from mains.bus.terms import Listed, NotMadeError
from mains.errors import DeviceError, LimitError
from mains.kernel.ports import CallContext, Done, Failed, Tool
from mains.patience import Patience
from mains.settings import Settings

KEY_META = "mains/idempotency-key"
"""Where in `_meta` of a call its key stands: the same when the call is repeated after a crash."""


_PROGRESS_CHARS = 500
_PROGRESS_S = 0.2  # between two words of one call


class DeviceState(msgspec.Struct, frozen=True, kw_only=True):
    """How a device is. `health` is idle, starting, up, ending or failing; `tools` is how many it offers."""

    name: str
    kind: str
    where: str
    health: str
    fault: str
    pid: int
    busy: int
    tools: int
    left_out: tuple[str, ...]
    changed: str
    server: str
    protocol: str
    starts: int
    trust_hints: bool


class McpDevice:
    """A device of the bus. `listed` is called when its tools have changed, `progress` when a call says where it is."""

    def __init__(
        self,
        spec: DeviceSpec,
        settings: Settings,
        owner: Callable[[Callable[[Listed], None], Callable[[], None]], Owner],
        path: Path,
        listed: Callable[[], None],
        progress: Callable[[CallContext, str, str], None],
    ) -> None:
        self.name = spec.name
        self.spec = spec
        self._settings = settings
        self._path = path
        self._listed = listed
        self._progress = progress
        self.owner = owner(self._keep, self._heard_of_change)
        self._relisting: asyncio.Task[None] | None = None
        self.listing = load_listing(path)
        self.changed = ""
        self._take(self.listing or Listing())

    def _take(self, listing: Listing) -> None:
        self._tools = tuple(tools_of(listing, self.spec))
        self._entries = listing.by_name()

    def tools(self) -> Sequence[Tool]:
        """The tools as they were last listed."""
        return self._tools

    async def list(self) -> Listing:
        """Have the device list its tools. Raises DeviceError, LimitError."""
        try:
            await self.owner.list_tools()
        except NotMadeError as error:
            raise DeviceError(str(error), hint=error.hint, retryable=True) from error
        return self.listing or Listing()

    def _keep(self, listed: Listed) -> None:
        """Take over a list: now, and for the next start."""
        listing = list_tools(listed.tools, self._settings, listed.server, listed.protocol)
        before, self.listing = self.listing, listing
        if before == listing:
            return
        if before is not None and before.digest != listing.digest:
            self.changed = _difference(before, listing)
        self._take(listing)
        self._listed()
        with contextlib.suppress(OSError):  # then it is asked again after a boot
            store_listing(self._path, listing)

    def _heard_of_change(self) -> None:
        """The device says that its tools have changed: ask for them, once at a time."""
        if self._relisting is None or self._relisting.done():
            self._relisting = asyncio.create_task(self._list_quietly())

    async def _list_quietly(self) -> None:
        try:
            await self.list()
        except (DeviceError, LimitError):
            return  # the next start lists them again

    async def call(self, tool: str, arguments: Mapping[str, Any], context: CallContext) -> Done | Failed:
        """Make a call. Raises DeviceError when nobody knows whether it happened."""
        entry = self._entries.get(tool)
        if entry is None:
            return Failed(f"the device {self.name} no longer has a tool `{tool}`")
        try:
            msgspec.json.encode(arguments)
        except UnicodeEncodeError:
            return Failed("the arguments hold half a character")
        call_s = self.spec.call_s or float("inf")
        patience = Patience(call_s)

        told_s = -_PROGRESS_S

        def progressed(done: float, total: float | None, text: str) -> None:
            nonlocal told_s
            if (now_s := time.monotonic()) - told_s < _PROGRESS_S:
                return
            told_s = now_s
            share = f"{done:g} of {total:g}" if total is not None else f"{done:g}"
            self._progress(context, self.name, f"{share} {printable(text, _PROGRESS_CHARS)}".strip()[:_PROGRESS_CHARS])

        try:
            async with patience:
                meta = {KEY_META: context.key}
                result = await self.owner.call(
                    entry.server_name, arguments, context, meta=meta, on_progress=progressed, patience=patience
                )
        except TimeoutError as error:
            raise DeviceError(f"{self.name}.{tool}: no answer within {call_s:g} s (call_s)") from error
        except (NotMadeError, LimitError) as error:
            return Failed(str(error))
        return answer_of(result, self._settings.result_bytes_max)

    def state(self) -> DeviceState:
        """How it is, without asking it."""
        listing = self.listing or Listing()
        return DeviceState(
            name=self.name,
            kind=self.spec.kind,
            where=self.spec.url or " ".join((self.spec.command, *self.spec.args)),
            health=self.owner.health,
            fault=self.owner.fault,
            pid=self.owner.pid,
            busy=self.owner.busy,
            tools=len(self._tools),
            left_out=listing.left_out,
            changed=self.changed,
            server=listing.server,
            protocol=listing.protocol,
            starts=self.owner.starts,
            trust_hints=self.spec.trust_hints,
        )

    async def close(self) -> None:
        """End it; nothing is started after this."""
        if self._relisting is not None:
            self._relisting.cancel()
        await self.owner.close()


def _difference(before: Listing, after: Listing) -> str:
    """How two lists of tools differ, in a line."""
    old, new = before.by_name(), after.by_name()
    parts = [f"+{name}" for name in sorted(new.keys() - old.keys())]
    parts += [f"-{name}" for name in sorted(old.keys() - new.keys())]
    parts += [f"~{name}" for name in sorted(new.keys() & old.keys()) if new[name].tool != old[name].tool]
    return " ".join(parts)[:_PROGRESS_CHARS]
