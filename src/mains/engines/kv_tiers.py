"""KV in tiers: which slot of the embedded engine serves a call, and what becomes of what the slot held.

    async with tiers.lease(server, session, request, messages, wanted_tokens) as lease:
        ...                          a call with `lease.fields` in its body
        lease.answered(reply)
    await tiers.forget(pids)         nothing of these processes is kept anywhere
    await tiers.close()              what the slots hold goes to the disk

A process finds its slot as it left it, if nobody needed the slot meanwhile. Who needs one gets it when waiting for its
process does not pay (`kv_policy.keep_more_s`); what it held goes to a file first (`kv_store.py`), and comes back into
whatever slot is free before the next call of that process. An idle slot is also saved when it has been left alone for
`SETTLE_S`, so that a kill loses little. Of another tenant nothing is ever used: a call whose slot held something of
another tenant reads its whole prompt.

llama.cpp compares the tokens of a slot with those of the prompt and uses what they have in common: a wrong guess here,
or a wrong file, costs time and never changes an answer. Its own RAM cache is switched off (docs/design.md says why).

Every action has a time limit, and a failure of one is only slow: the prompt is read again. All belongs to one event
loop; saves take turns, so that the files never have more bytes than they may.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mains.engines.kv_policy import (
    Chain,
    Held,
    Pauses,
    Want,
    chain_of,
    choose,
    keep_more_s,
    shared_tokens,
    to_clear,
    worth_saving,
)
from mains.engines.kv_store import Entry, Store
from mains.engines.llama_server import Server
from mains.kernel.ports import Message, Reply, Request

if TYPE_CHECKING:
    import aiohttp

ACTION_TIMEOUT_S = (
    30.0  # of one save, restore or erase; it waits for the step that the server is at (a batch of prompt)
)
SETTLE_S = 2.0  # a slot that has been idle for this long is saved
CLOSE_SAVE_S = 5.0  # all saves together when the engine is closed
OPEN_WAIT_S = 2.0  # for the digest of the model's file: a large one is read while the first calls go on without files
LOOK_AGAIN_S = 1.0
AWAY_MAX = 10_000  # processes whose return is waited for, to measure their tool's pause
READ_TOKENS_PER_S = 100.0  # before the first measurement: a 135M model on one busy processor
LOAD_S = 0.05  # the same: 18 MB checked and restored
_WEIGHT = 0.2  # of the last measurement in a moving average
_TOOL_CHARS = 200


class Lease:
    """A slot for one call."""

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.reuse = False
        self.reply: Reply | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """What the call's body says about the slot."""
        return {"id_slot": self.slot, "cache_prompt": self.reuse}

    def answered(self, reply: Reply) -> None:
        """The call came to its end: the slot holds its prompt and its reply."""
        self.reply = reply


class Tiers:
    """See the module's header."""

    def __init__(self, slots: int, context_tokens: int, store: Store, monotonic: Callable[[], float]) -> None:
        self._room_tokens = context_tokens
        self._store = store
        self._monotonic = monotonic
        self._server: Server | None = None
        self._session: aiohttp.ClientSession | None = None
        self._slots = [Held(slot=slot) for slot in range(slots)]
        self._wanted: dict[int, int] = {}  # tokens of the call in each busy slot
        self._pauses = Pauses()
        self._away: OrderedDict[int, tuple[str, float]] = OrderedDict()
        self._waiting = 0
        self._queue_s = 0.0
        self._load_s = LOAD_S
        self._read_tokens_per_s = READ_TOKENS_PER_S
        self._changed = asyncio.Event()
        self._saving = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._made_with: tuple[Path, dict[str, object]] | None = None
        self._opening: asyncio.Task[None] | None = None
        self._tending: asyncio.Task[None] | None = None

    def open(self, model: Path, settings: dict[str, object]) -> None:
        """Begin to look for the files that are there; until that is done nothing is found or saved.

        For each new child it is done again: the model's file may be another one since.
        """
        self._made_with = model, settings
        self._store.shut()
        self._opening = self._start(asyncio.to_thread(self._store.open, model, settings))

    async def opened(self) -> None:
        """Wait until the files are found, but at most `OPEN_WAIT_S`: a long look goes on beside the calls."""
        if self._opening is not None and not self._opening.done():
            await asyncio.wait({self._opening}, timeout=OPEN_WAIT_S)

    def read(self, tokens: int, span_s: float) -> None:
        """So many tokens of a prompt were read in this time: measured, to know what reading again costs."""
        if tokens >= 32 and span_s > 0:
            self._read_tokens_per_s += _WEIGHT * (tokens / span_s - self._read_tokens_per_s)

    # ------------------------------------------------------------------------------------------------------------ lease

    @contextlib.asynccontextmanager
    async def lease(
        self,
        server: Server,
        session: aiohttp.ClientSession,
        request: Request,
        messages: Sequence[Message],
        wanted_tokens: int,
    ) -> AsyncIterator[Lease]:
        """A slot for a call, with what is known of its prompt. Waits for it; the caller bounds the wait."""
        if server is not self._server:
            if self._server is not None and self._made_with is not None:
                self.open(*self._made_with)
            self._server, self._session = server, session
            self._slots = [Held(slot=held.slot) for held in self._slots]
            self._wanted.clear()
            await self.opened()
        self._measure_pause(request.process)
        chain = chain_of(f"{self._store.key} {request.tenant}", messages)
        held = await self._take(request, chain)
        lease, slots = Lease(held.slot), self._slots
        try:
            self._wanted[held.slot] = wanted_tokens
            if server is self._server:  # else it has ended while we waited, and the call will say so
                lease.reuse = await self._prepare(held, request, chain)
            yield lease
        finally:
            if slots is self._slots and server is self._server:
                self._give_back(lease, held, request, chain, wanted_tokens)
            elif slots is self._slots:  # the call went to the one before: this one's slot was not touched
                self._wanted.pop(held.slot, None)
                slots[held.slot] = held
                self._stir()

    async def _take(self, request: Request, chain: Chain) -> Held:
        """Wait for a slot and mark it busy; what it held."""
        begun_s = self._monotonic()
        self._waiting += 1
        try:
            while True:
                changed = self._changed
                _, filed_tokens = self._store.find(request.tenant, request.process, chain)
                want = Want(request.tenant, request.process, chain, filed_tokens)
                slot, wait_s = choose(self._slots, want, self._keep_s)
                if slot is not None:
                    break
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(wait_s, LOOK_AGAIN_S)):
                        await changed.wait()
        finally:
            self._waiting -= 1
        self._queue_s += _WEIGHT * (self._monotonic() - begun_s - self._queue_s)
        held = self._slots[slot]
        self._slots[slot] = msgspec.structs.replace(held, busy=True)
        return held

    def _keep_s(self, held: Held) -> float:
        """How much longer a slot waits for its process while somebody else wants one."""
        if not held.tool:
            return 0.0
        again_s = held.tokens / self._read_tokens_per_s
        if held.filed or (not held.saved and self._store.key):
            again_s = min(again_s, self._load_s)
        away_s = self._monotonic() - held.used_s
        return keep_more_s(self._pauses.of(held.tool), away_s, again_s + self._queue_s, self._waiting)

    async def _prepare(self, held: Held, request: Request, chain: Chain) -> bool:
        """Bring into the slot what is known of the prompt; whether what the slot holds may be used."""
        ours = held.tenant == request.tenant or not held.tokens
        if held.process != request.process or not ours:
            await self._save(held.slot)
        shared = shared_tokens(held.chain, chain) if ours and not held.doubtful else 0
        entry, filed_tokens = self._store.find(request.tenant, request.process, chain)
        restored = entry is not None and filed_tokens > shared and await self._restore(held.slot, entry)
        busy = sum(tokens for slot, tokens in self._wanted.items() if self._slots[slot].busy)
        for slot in to_clear(self._slots, busy, self._room_tokens):
            await self._clear(slot)
        return ours or restored

    def _give_back(self, lease: Lease, before: Held, request: Request, chain: Chain, wanted_tokens: int) -> None:
        self._wanted.pop(lease.slot, None)
        now_s = self._monotonic()
        if (reply := lease.reply) is None:
            known = request.tenant == before.tenant or not before.tokens
            self._slots[lease.slot] = Held(
                slot=lease.slot,
                tenant=request.tenant if known or lease.reuse else -1,
                tokens=max(before.tokens, wanted_tokens),
                used_s=now_s,
                doubtful=True,
            )
        else:
            tool = "+".join(sorted({call.name for call in reply.calls}))[:_TOOL_CHARS]
            tokens = reply.usage.total if reply.usage else wanted_tokens
            self._slots[lease.slot] = Held(
                slot=lease.slot,
                tenant=request.tenant,
                process=request.process,
                chain=chain,
                tokens=tokens,
                tool=tool,
                used_s=now_s,
                saved=not request.process or not worth_saving(tokens, self._read_tokens_per_s),
            )
            if tool and request.process:
                self._away[request.process] = tool, now_s
                if len(self._away) > AWAY_MAX:
                    self._away.popitem(last=False)
        self._stir()
        if self._tending is None:
            self._tending = self._start(self._tend())

    def _measure_pause(self, process: int) -> None:
        if (away := self._away.pop(process, None)) is not None:
            self._pauses.note(away[0], self._monotonic() - away[1])

    def _stir(self) -> None:
        """Something has changed: who waits looks again."""
        self._changed.set()
        self._changed = asyncio.Event()

    # ---------------------------------------------------------------------------------------------------------- actions

    async def _save(self, slot: int) -> None:
        """Save what a slot holds, unless there is no need. Goes on when its caller is cancelled."""
        if not self._slots[slot].saved:
            await asyncio.shield(self._start(self._save_now(slot)))

    async def _save_now(self, slot: int) -> None:
        async with self._saving:
            slots = self._slots
            held = slots[slot]
            if held.saved or held.doubtful:
                return
            entry = None
            if name := self._store.begin(held.tenant, held.process, held.tokens):
                said = await self._action(slot, "save", f"{name}.new")
                if _count(said, "n_saved"):
                    sealing = (name, held.tenant, held.process, held.tokens, held.chain)
                    entry = await asyncio.to_thread(self._store.seal, *sealing)
                else:
                    self._store.abandon(name)
            if slots is not self._slots or slots[slot].process != held.process:  # a new child, or forgotten meanwhile
                if entry:
                    self._store.drop(entry.name)
                return
            if entry:
                self._store.add(entry)
            slots[slot] = msgspec.structs.replace(slots[slot], saved=True, filed=entry is not None)

    async def _restore(self, slot: int, entry: Entry) -> bool:
        """Bring a file into a slot; a damaged one is removed."""
        begun_s = self._monotonic()
        if not await asyncio.to_thread(self._store.sound, entry):
            self._store.drop(entry.name)
            return False
        said = await self._action(slot, "restore", f"{entry.name}.kv")
        if not _count(said, "n_restored"):
            return False
        self._store.used(entry)
        self._load_s += _WEIGHT * (self._monotonic() - begun_s - self._load_s)
        return True

    async def _clear(self, slot: int) -> None:
        """Save and empty an idle slot: the cache that all slots share has no room for it."""
        slots = self._slots
        held = slots[slot] = msgspec.structs.replace(slots[slot], busy=True)
        after = Held(slot=slot, tenant=held.tenant, tokens=held.tokens, used_s=held.used_s, doubtful=True)
        try:
            await self._save(slot)
            if await self._action(slot, "erase") is not None:  # else llama.cpp drops it when it must
                after = Held(slot=slot)
        finally:
            slots[slot] = after
            self._stir()

    async def _action(self, slot: int, action: str, filename: str = "") -> dict[str, Any] | None:
        """One action on a slot; None when it failed."""
        import aiohttp

        server, session = self._server, self._session
        if server is None or session is None or session.closed or server.gone.is_set():
            return None
        url = f"{server.url}/slots/{slot}?action={action}"
        body = {"filename": filename} if filename else {}
        try:
            async with (
                asyncio.timeout(ACTION_TIMEOUT_S),
                session.post(url, json=body, headers=server.headers) as response,
            ):
                said = msgspec.json.decode(await response.read())
                return said if response.status == 200 and isinstance(said, dict) else None
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError, UnicodeDecodeError):
            return None

    # ------------------------------------------------------------------------------------------------------------- care

    async def _tend(self) -> None:
        """Save the slots that are left alone."""
        while True:
            changed = self._changed
            dirty = [held for held in self._slots if not held.busy and not held.saved]
            rest_s = min((held.used_s + SETTLE_S - self._monotonic() for held in dirty), default=float("inf"))
            if rest_s > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(None if rest_s == float("inf") else rest_s):
                        await changed.wait()
                continue
            await self._save_idle(min(dirty, key=lambda held: held.used_s).slot)

    async def _save_idle(self, slot: int) -> None:
        """Save a slot that nobody uses; nobody gets it meanwhile."""
        slots = self._slots
        slots[slot] = msgspec.structs.replace(slots[slot], busy=True)
        try:
            await self._save(slot)
        finally:
            slots[slot] = msgspec.structs.replace(slots[slot], busy=False)
            self._stir()

    async def forget(self, processes: Collection[int]) -> None:
        """Keep nothing of these processes: not in a slot, not in a file."""
        for process in processes:
            self._away.pop(process, None)
        theirs = [held for held in self._slots if held.process in processes]
        for held in theirs:
            self._slots[held.slot] = Held(
                slot=held.slot, tenant=held.tenant, tokens=held.tokens, doubtful=True, busy=held.busy
            )
        async with self._saving:
            self._store.forget(processes)
        for held in theirs:
            if not self._slots[held.slot].busy:
                await self._clear(held.slot)

    async def close(self) -> None:
        """Save what the slots hold, in at most `CLOSE_SAVE_S`, and end what is under way."""
        if self._tending is not None:
            self._tending.cancel()
            await asyncio.wait({self._tending}, timeout=CLOSE_SAVE_S)
            if self._tending.done() and not self._tending.cancelled():
                self._tending.result()  # a bug of ours is not lost
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SAVE_S):
                for held in self._slots:
                    if not held.busy:
                        await self._save(held.slot)
        self._store.close()
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name="kv")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _count(said: dict[str, Any] | None, what: str) -> int:
    """How many tokens an action moved; 0: it failed."""
    count = said.get(what) if said else None
    return count if isinstance(count, int) else 0
