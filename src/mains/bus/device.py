"""An MCP device as the kernel sees it: its tools, a call, an answer. Behind it stands an owner of the connection.

The tools are those that were accepted and last listed (`accepted.py`), so that they can be offered without starting
anything; processes keep what they were offered at spawn.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mains.bus import accepted
from mains.bus.accepted import Accepted, Change
from mains.bus.answer import answer_of
from mains.bus.listing import Listing, list_tools, printable, tools_of
from mains.bus.owner import Owner
from mains.bus.spec import DeviceSpec
from mains.bus.terms import Listed, NotMadeError
from mains.bus.warden import Confined
from mains.errors import DeviceError, LimitError, UsageError
from mains.kernel.ports import CallContext, Done, Failed, Tool
from mains.patience import Patience
from mains.settings import Settings

KEY_META = "mains/idempotency-key"
"""Where in `_meta` of a call its key stands: the same when the call is repeated after a crash."""


_PROGRESS_CHARS = 500
_PROGRESS_S = 0.2  # between two words of one call
_RELIST_S = 2.0  # between two questions for tools, for a device that says again and again that they have changed


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
    confined: Confined


class McpDevice:
    """A device of the bus. `listed` is called when its tools have changed, `progress` when a call says where it is.
    One on `trial` leaves nothing on the disk, and what is kept under its name counts for nothing, until it is adopted.
    """

    def __init__(
        self,
        spec: DeviceSpec,
        settings: Settings,
        owner: Callable[[Callable[[Listed], None], Callable[[], None]], Owner],
        path: Path,
        listed: Callable[[], None],
        progress: Callable[[CallContext, str, str], None],
        confined: Callable[[DeviceSpec], Confined],
        *,
        trial: bool = False,
    ) -> None:
        self.name = spec.name
        self.spec = spec
        self._settings = settings
        self._path = path
        self._listed = listed
        self._progress = progress
        self._confined = confined
        self.owner = owner(self._keep, self._heard_of_change)
        self._relisting: asyncio.Task[None] | None = None
        self._relisted_s = float("-inf")
        self._stale = False  # the device has said so since it was last asked
        self._trial = trial
        self._accepted: Accepted | None = None
        self._tools: tuple[Tool, ...] = ()
        self._server_names: dict[str, str] = {}
        self.changes: tuple[Change, ...] = ()
        kept = None if trial else accepted.load(path, spec.reach)
        if kept is not None:
            self._take(kept.told(kept.newest, trusted=spec.trust_hints))

    def _take(self, lists: Accepted) -> None:
        self._accepted = lists
        self.changes = lists.changes
        self._tools = tuple(tools_of(lists.offered, self.spec, lists.changed))
        self._server_names = {each.tool.name: each.server_name for each in lists.newest.entries}

    @property
    def is_listed(self) -> bool:
        """Whether its tools are known."""
        return self._accepted is not None

    @property
    def listing(self) -> Listing:
        """What it listed last."""
        return self._accepted.newest if self._accepted is not None else Listing()

    def accept(self, digest: str) -> None:
        """Take over what it lists now. Raises UsageError when that is not what `digest` names, OSError."""
        if self._accepted is None or self._accepted.newest.digest != digest:
            raise UsageError(f"the device {self.name} has listed other tools meanwhile", hint="look again")
        lists = Accepted(self._accepted.newest, self._accepted.newest)
        accepted.store(self._path, lists)
        self._take(lists)
        self._listed()

    def tools(self) -> Sequence[Tool]:
        """The tools as they were accepted, as far as the device had them when it was last asked."""
        return self._tools

    async def list(self) -> Listing:
        """Have the device list its tools. Raises DeviceError, LimitError."""
        try:
            await self.owner.list_tools()
        except NotMadeError as error:
            raise DeviceError(str(error), hint=error.hint, retryable=True) from error
        return self.listing

    def _keep(self, listed: Listed) -> None:
        """Take over a list: now, and for the next start."""
        listing = list_tools(listed.tools, self._settings, listed.server, listed.protocol, self.spec.reach)
        before = self._accepted
        lists = before.told(listing, trusted=self.spec.trust_hints) if before else Accepted(listing, listing)
        if before == lists:
            return
        self._take(lists)
        self._listed()
        if not self._trial:
            self._store()

    def adopt(self) -> None:
        """It was on trial, and is now the device of its name: its list is kept from here on."""
        self._trial = False
        self._store()

    def _store(self) -> None:
        with contextlib.suppress(OSError):  # then it is asked again after a boot
            if self._accepted is None:
                self._path.unlink(missing_ok=True)
            else:
                accepted.store(self._path, self._accepted)

    def _heard_of_change(self) -> None:
        """The device says that its tools have changed: ask for them, once at a time, and not all the time."""
        self._stale = True
        if self._relisting is None or self._relisting.done():
            self._relisting = asyncio.create_task(self._list_again())

    async def _list_again(self) -> None:
        while self._stale:
            await asyncio.sleep(max(0.0, self._relisted_s + _RELIST_S - time.monotonic()))
            self._stale, self._relisted_s = False, time.monotonic()
            try:
                await self.owner.list_again()
            except (DeviceError, LimitError):
                return  # the next start lists them again

    async def call(self, tool: str, arguments: Mapping[str, Any], context: CallContext) -> Done | Failed:
        """Make a call. Raises DeviceError when nobody knows whether it happened."""
        server_name = self._server_names.get(tool)
        if server_name is None:
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
                    server_name, arguments, context, meta=meta, on_progress=progressed, patience=patience
                )
        except TimeoutError as error:
            raise DeviceError(f"{self.name}.{tool}: no answer within {call_s:g} s (call_s)") from error
        except (NotMadeError, LimitError) as error:
            return Failed(str(error))
        return answer_of(result, self._settings.result_bytes_max)

    def state(self) -> DeviceState:
        """How it is, without asking it."""
        listing = self.listing
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
            changed=accepted.difference(self.changes, _PROGRESS_CHARS),
            server=listing.server,
            protocol=listing.protocol,
            starts=self.owner.starts,
            trust_hints=self.spec.trust_hints,
            confined=self._confined(self.spec),
        )

    async def close(self) -> None:
        """End it; nothing is started after this."""
        if self._relisting is not None:
            self._relisting.cancel()
        await self.owner.close()
