"""The owner of a connection to a device: one task that enters it, keeps it and leaves it.

    call(tool, arguments, ...)     one call, over the connection that there is or one that is made for it
    list_tools()                   have the device list its tools; it also does at each start
    restart(), close()             leave the connection; the next call makes another (but not after `close`)

    idle -> starting -> up -> (idle time, restart, end, hang) -> idle;  starting -> failing -> idle

The SDK wants a connection to be entered and left in one task: the owner's. Calls are made in tasks of their own, over
that connection, so that one that hangs holds up nobody else; whoever cancels `call` is free at once, and the SDK tells
the device. At most `calls` are in flight, at most `device_queue_max` wait.

After the n-th failure in a row (a start that failed, an end in the middle of a call, a hang) nothing is started for
`device_backoff_ms * 2^(n-1)`, at most `device_backoff_ceiling_ms`; a call that comes meanwhile waits when that is
not long (`_WAIT_S`), and is refused at once when it is. One call makes the start; the others wait for it. A call that
succeeds ends the row. A device that let a call run out of time is asked a question; when nothing comes from it for
`device_health_s`, it hangs, and is ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from mains.bus import sdk
from mains.bus.doors import CALL, Doors, Porter
from mains.bus.pauses import Pauses
from mains.bus.reach import Reach
from mains.bus.terms import ExpiredError, Listed, NotMadeError, Terms
from mains.bus.works import Works, looked_at
from mains.errors import DeviceError, LimitError, MainsError
from mains.kernel.ports import CallContext
from mains.patience import Patience

if TYPE_CHECKING:
    import mcp_types
    from mcp import Client

T = TypeVar("T")
Progress = Callable[[float, float | None, str], None]
"""What a device says of a call: how far it is, of how much in all (None: not said), and a text."""

_WAIT_S = 1.0
_END_S = 15.0  # for the owner's task to leave; longer than a child's own end takes
_REASON_S = 0.5  # for the reason of an end to arrive after the end


class Owner:
    """See the module's header. `reach` makes what one connection runs over; it may raise ConfigError."""

    def __init__(
        self,
        name: str,
        reach: Callable[[], Reach],
        terms: Terms,
        doors: Doors,
        listed: Callable[[Listed], None],
        changed: Callable[[], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._new_reach = reach
        self._terms = terms
        self._listed = listed
        self._changed = changed  # the device says that its tools have changed
        self._monotonic = monotonic
        self._porter = Porter(name, doors, lambda: dict(self._calls.values()))
        self._room = asyncio.Semaphore(terms.calls)
        self._calls: dict[int, tuple[CallContext, Patience]] = {}
        self._works = Works()
        self._wanted = 0  # who waits for a place or a start, or is served
        self._number = 0
        self._client: Client | None = None
        self._task: asyncio.Task[None] | None = None
        self._up: asyncio.Future[Client] | None = None
        self._woken = asyncio.Event()
        self._leave = ""
        self._suspected = False
        self._cut = False  # a call ended with the connection
        self._closed = False
        self._used_at = 0.0
        self._pauses = Pauses(terms, monotonic)
        self._reach: Reach | None = None
        self.starts = 0

    # ----------------------------------------------------------------------------------------------------- state

    @property
    def health(self) -> str:
        """In a few words, for a person."""
        if self._client is not None:
            return "up"
        if self._up is not None:
            return "starting"
        if self._task is not None and not self._task.done():
            return "ending"
        return self._pauses.health

    @property
    def fault(self) -> str:
        """Why it failed the last time; empty when it works."""
        return self._pauses.fault

    @property
    def pid(self) -> int:
        """The first process of the device; 0 when there is none."""
        return self._reach.pid if self._reach is not None else 0

    @property
    def busy(self) -> int:
        """Calls in flight."""
        return len(self._calls)

    # ----------------------------------------------------------------------------------------------------- calls

    async def call(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        context: CallContext,
        *,
        meta: Mapping[str, Any] | None = None,
        on_progress: Progress | None = None,
        patience: Patience | None = None,
    ) -> mcp_types.CallToolResult:
        """Make a call; `patience` is its time limit. Raises NotMadeError, LimitError (too many wait), and DeviceError
        when nobody knows."""

        async def progressed(progress: float, total: float | None, message: str | None) -> None:
            if on_progress is not None:
                on_progress(progress, total, message or "")

        async def made(client: Client) -> mcp_types.CallToolResult:
            CALL.set(context)
            return await client.call_tool(
                tool, dict(arguments), progress_callback=progressed, meta=cast("Any", dict(meta or {}))
            )

        async with self._place():
            try:
                return await self._call(made, context, patience)
            except ExpiredError:
                return await self._call(made, context, patience)

    async def _call(
        self, made: Callable[[Client], Coroutine[Any, Any, T]], context: CallContext, patience: Patience | None
    ) -> T:
        client = await self._ready()
        self._number = number = self._number + 1
        self._calls[number] = context, patience or Patience(float("inf"))
        try:
            result = await self._outcome(made(client))
        except asyncio.CancelledError:
            self._suspect()
            raise
        except ExpiredError:
            if self._client is client:  # else somebody has seen it before us
                await self._stop("the server has forgotten us")
            raise
        finally:
            del self._calls[number]
        self._pauses.forget()
        return result

    def _suspect(self) -> None:
        """It let somebody wait for too long: perhaps it hangs."""
        self._suspected = True
        self._woken.set()

    async def list_tools(self) -> None:
        """Have the device list its tools, which `listed` gets; while all places for calls are taken, too.

        Raises as `call` does.
        """
        with self._wanting():
            was_up = self._client is not None
            client = await self._ready()
            if was_up:
                await self._list(client)
            self._used_at = self._monotonic()

    async def list_again(self) -> None:
        """The same for a device that is connected, and nothing for another; to the idle time it is no use of it."""
        with self._wanting():
            if self._client is not None:
                await self._list(self._client)

    async def _list(self, client: Client) -> None:
        limit_s = self._terms.start_s
        try:
            async with asyncio.timeout(limit_s):
                listed = await self._outcome(self._ask_tools(client))
        except TimeoutError:
            self._suspect()
            text = f"device {self._name}: it did not list its tools within {limit_s:g} s (device_start_s)"
            raise DeviceError(text, retryable=True) from None
        self._listed(listed)

    async def _ask_tools(self, client: Client) -> Listed:
        tools = await sdk.list_all(client, self._terms.tools_max)
        return Listed(tools, sdk.server_of(client), client.protocol_version)

    @contextlib.contextmanager
    def _wanting(self) -> Iterator[None]:
        """Somebody wants the device: it is not idle meanwhile. Raises LimitError."""
        if self._wanted >= self._terms.calls + self._terms.queue_max:
            raise LimitError(f"{self._wanted:,} calls wait for the device {self._name} (device_queue_max)")
        self._wanted += 1
        try:
            yield
        finally:
            self._wanted -= 1

    @contextlib.asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """One of the places for calls."""
        with self._wanting():
            try:
                async with self._room:
                    yield
            finally:
                self._used_at = self._monotonic()

    async def _outcome(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The value of a piece of work; what it raises, as our errors."""
        work = self._works.start(coroutine)
        try:
            await asyncio.wait({work})
        finally:
            work.cancel()
        fault = asyncio.CancelledError() if work.cancelled() else work.exception()
        if fault is None:
            return work.result()
        if sdk.is_closed(fault):
            self._cut, self._client = True, None  # the owner learns it in a moment; no call goes out before
            self._woken.set()
            raise DeviceError(f"{self._name}: {await self._reason()}", retryable=True) from fault
        if sdk.is_answer(fault):
            self._pauses.forget()
        if sdk.is_expired(fault):
            raise ExpiredError(f"{self._name}: {sdk.words_of(fault)}") from fault
        if sdk.is_unsent(fault):
            self._leave_broken(sdk.words_of(fault))
        if sdk.is_refusal(fault):
            raise NotMadeError(f"{self._name}: {sdk.words_of(fault)}") from fault
        raise sdk.error_of(self._name, fault) from fault

    def _leave_broken(self, why: str) -> None:
        if (reach := self._reach) is not None:
            self._cut, self._client = True, None
            reach.ended = reach.ended or why
            reach.over.set()

    async def _reason(self) -> str:
        """Why the connection is over, when a call has found out first."""
        reach = self._reach
        if reach is not None and not reach.ended:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_REASON_S):
                    await reach.over.wait()
        return (reach.ended if reach is not None else "") or self._leave or self.fault or "the connection was closed"

    # ----------------------------------------------------------------------------------------------------- start

    async def _ready(self) -> Client:
        """The connection. Raises NotMadeError."""
        while self._client is None:
            if self._closed:
                raise NotMadeError(f"the device {self._name} was removed")
            if self._up is None:
                await self._wait_out_failures()
                if not self._begun():
                    self._begin()
                continue
            # Shielded: a caller that gives up does not take the start away from the others.
            try:
                return await asyncio.shield(self._up)
            except DeviceError as error:
                raise NotMadeError(str(error), hint=error.hint, retryable=True) from error
        return self._client

    def _begun(self) -> bool:
        """Whether there is nothing to start any more, after a wait."""
        return self._up is not None or self._client is not None or self._closed

    async def _wait_out_failures(self) -> None:
        if self._task is not None and not self._task.done():  # the connection before is still being left
            await asyncio.wait({self._task}, timeout=_END_S)
        wait_s = self._pauses.left_s
        if wait_s > _WAIT_S:
            raise NotMadeError(f"{self.fault}; the next try is in {wait_s:.0f} s", retryable=True)
        if wait_s > 0:
            await asyncio.sleep(wait_s)

    def _begin(self) -> None:
        self._leave, self._suspected, self._cut = "", False, False
        self._up = asyncio.get_running_loop().create_future()
        self._up.add_done_callback(looked_at)
        self._task = asyncio.create_task(self._own(self._up), context=contextvars.Context())
        self._task.add_done_callback(self._ended)
        self.starts += 1

    async def _own(self, up: asyncio.Future[Client]) -> None:
        """Enter the connection, keep it, leave it."""
        await sdk.load()
        self._reach = reach = self._new_reach()
        async with contextlib.AsyncExitStack() as stack:
            client = sdk.client_of(reach, self._terms.protocol, self._porter.callbacks(), self._changed)
            try:
                async with asyncio.timeout(self._terms.start_s):
                    await stack.enter_async_context(client)
                    sdk.take_as_it_is(client)
                    self._listed(await self._ask_tools(client))
            except TimeoutError:
                text = f"it did not answer within {self._terms.start_s:g} s (device_start_s)"
                raise DeviceError(text, retryable=True) from None
            self._client, self._used_at = client, self._monotonic()
            up.set_result(client)
            self._up = None
            try:
                await self._keep(client, reach)
            finally:
                self._client = None

    async def _keep(self, client: Client, reach: Reach) -> None:
        """Until the connection is to be left."""
        over = asyncio.ensure_future(reach.over.wait())
        try:
            while self._client is not None and not self._leave and not over.done():
                self._woken.clear()
                woken = asyncio.ensure_future(self._woken.wait())
                unused_s = 0.0 if self._wanted else self._monotonic() - self._used_at
                timeout = max(0.0, self._terms.idle_s - unused_s)
                try:
                    await asyncio.wait({over, woken}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    woken.cancel()
                if self._suspected:
                    self._suspected = False
                    self._works.start(self._examine(client, reach))
                elif not self._wanted and self._monotonic() - self._used_at >= self._terms.idle_s:
                    self._leave = "idle"
        finally:
            over.cancel()

    async def _examine(self, client: Client, reach: Reach) -> None:
        """Ask a device that let a call time out; one that says nothing at all hangs."""
        begun = asyncio.get_running_loop().time()
        asking = self._works.start(sdk.ask(client))
        await asyncio.wait({asking}, timeout=self._terms.health_s)
        asking.cancel()
        silent = reach.heard_at < begun
        if not asking.done() and silent:
            self._leave_broken(f"it hung: nothing came from it for {self._terms.health_s:g} s")

    def _ended(self, task: asyncio.Task[None]) -> None:
        """The owner's task is over: why, and what follows."""
        fault = None if task.cancelled() else task.exception()
        if task is not self._task:  # it took too long to leave, and another was begun
            return
        reach = self._reach
        reason = reach.ended if reach is not None else ""
        if fault is not None and not (reason or self._leave):
            reason = sdk.words_of(fault)
        self._client, self._reach = None, None
        up, self._up = self._up, None
        never_up = up is not None and not up.done()
        if never_up or (reason and not self._leave and (self._calls or self._cut)):
            self._pauses.failed(f"device {self._name}: {reason or 'it was stopped while it started'}")
        if up is not None and not up.done():
            hint = fault.hint if isinstance(fault, MainsError) else ""
            up.set_exception(DeviceError(self.fault, hint=hint, retryable=True))

    # ------------------------------------------------------------------------------------------------------- end

    async def restart(self) -> None:
        """Leave the connection, and forget failures: the next call makes a new one."""
        await self._stop("it was restarted")
        self._pauses.forget()

    async def close(self) -> None:
        """Leave the connection for good; calls in flight end with a DeviceError."""
        self._closed = True
        await self._stop("it was removed")
        self._works.cancel()

    async def _stop(self, why: str) -> None:
        task = self._task
        if task is None or task.done():
            return
        self._leave = why
        self._woken.set()
        if self._up is not None:  # it is still starting
            task.cancel()
        await asyncio.wait({task}, timeout=_END_S)
        task.cancel()  # what has not left by now is not waited for
