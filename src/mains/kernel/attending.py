"""Attending: serves devices that want something in the middle of a call. Implements `ports.Attendant`.

The decisions stand in `inquiries.py`; here is who waits for them. A question waits until a commit says that it was
answered or is gone (its call has ended, its process was told to stop), or until its time is over. A wish for a model's
answer waits for a permit in the same way, then for a slot of the engine like any model call, and is made once.

Memory only: after a crash the device, its call and its questions are gone, and the journal says which they were. A
process waits for its device without a slot, so that a wish finds one where there is only one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple

import msgspec

from mains.errors import ConfigError, EngineError, LimitError, UsageError
from mains.kernel import inquiries, pages
from mains.kernel.acts import Acts
from mains.kernel.clock import Clock
from mains.kernel.journal import Batch, Journal
from mains.kernel.lanes import Lanes
from mains.kernel.ports import Question, Reply, Request, Said, Told, Wish
from mains.kernel.process import Asking, Inquiry, Process, replace
from mains.kernel.tx import Tx
from mains.kernel.world import World

Commit = Callable[[Callable[[Tx], Any], str], Awaitable[Any]]
_GONE = "its call has ended, or was told to"


class Hands(NamedTuple):
    """What the kernel does for us: commit what somebody asks for, commit what has happened, do something that nobody
    waits for, tell the lanes that a model call has failed (engine, number, error), and give free slots away.

    `halted`: nothing is done any more that nobody waits for.
    """

    order: Commit
    recorded: Commit
    beside: Callable[[Callable[[], Awaitable[None]]], None]
    model_failed: Callable[[str, int, EngineError], None]
    pump: Callable[[], None]
    halted: asyncio.Event


class Attending:
    """See the module's header."""

    def __init__(self, hands: Hands, world: World, acts: Acts, lanes: Lanes, clock: Clock, journal: Journal) -> None:
        self._hands = hands
        self._world = world
        self._acts = acts
        self._lanes = lanes
        self._clock = clock
        self._journal = journal
        self._open: dict[int, dict[str, asyncio.Future[Inquiry | None]]] = {}  # by pid: who waits for a decision
        self._works: dict[int, dict[str, asyncio.Task[Told]]] = {}  # by pid: model calls
        self._slots: dict[int, asyncio.Future[str]] = {}  # by number: who waits for a slot
        self._number = 0

    # what devices ask

    async def ask(self, question: Question) -> Said:
        """A person's answer (see `ports.Attendant`)."""
        with self._acts.thinking(question.call.key):
            inquiry = await self._hands.order(partial(inquiries.ask, world=self._world, question=question), "inquire")
            inquiry = await self._decided(question.call.pid, inquiry)
        if inquiry.action != "accept":
            return Said("decline" if inquiry.action == "decline" else "cancel")
        values = msgspec.json.decode(pages.read(self._journal, inquiry.answer)) if inquiry.answer else {}
        return Said("accept", values)

    async def sample(self, wish: Wish) -> Told:
        """A model's answer (see `ports.Attendant`)."""
        pid = wish.call.pid
        with self._acts.thinking(wish.call.key):
            inquiry = await self._hands.order(partial(inquiries.wish, world=self._world, wanted=wish), "inquire")
            if not inquiry.action:
                inquiry = await self._decided(pid, inquiry)
            if inquiry.action != "accept":
                raise UsageError(f"{wish.device} may not use the model: {inquiry.by}")
            work = asyncio.create_task(self._make(wish, inquiry.id))
            works = self._works.setdefault(pid, {})
            works[inquiry.id] = work
            try:
                self._look(self._journal.process(pid), pid)
                await asyncio.wait({work})
            finally:
                work.cancel()
                del works[inquiry.id]
                if not works:
                    self._works.pop(pid, None)
        if work.cancelled():
            raise UsageError(f"the model does not answer: {_GONE}")
        return work.result()

    # who waits for a decision

    async def _decided(self, pid: int, inquiry: Inquiry) -> Inquiry:
        """The inquiry with its action. Whoever stops waiting takes it back."""
        future: asyncio.Future[Inquiry | None] = asyncio.get_running_loop().create_future()
        waits = self._open.setdefault(pid, {})
        waits[inquiry.id] = future
        left_ms = max(0, inquiry.due_ms - self._clock.now_ms())
        timer = asyncio.ensure_future(self._clock.wait_ms(left_ms))
        try:
            self._look(self._journal.process(pid), pid)  # it may have been decided before we waited
            either: set[asyncio.Future[Any]] = {future, timer}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not future.done():
                why = f"nobody answered within {self._world.settings.device_answer_s:g} s (device_answer_s)"
                await self._hands.recorded(self._taken_back(pid, inquiry.id, why), "inquire")
            return (future.result() if future.done() else None) or replace(inquiry, action="cancel", by=_GONE)
        finally:
            timer.cancel()
            del waits[inquiry.id]
            if not waits:
                self._open.pop(pid, None)
            if not future.done():
                self._forget(pid, inquiry.id, "the device took it back")

    def _taken_back(self, pid: int, number: str, why: str) -> Callable[[Tx], None]:
        return lambda tx: inquiries.cancel(tx, pid, why, (number,))

    def _forget(self, pid: int, number: str, why: str) -> None:
        """Record that nobody waits for this any more, if the kernel goes on."""
        if not self._hands.halted.is_set():
            self._hands.beside(lambda: self._hands.recorded(self._taken_back(pid, number, why), "inquire"))

    def commit(self, batch: Batch) -> None:
        """What a commit changed: tell who waits."""
        if self._open or self._works:
            for p in batch.changed:
                self._look(p, p.pid)

    def _look(self, p: Process | None, pid: int) -> None:
        known = {each.id: each for each in p.inquiries} if p else {}
        for number, future in self._open.get(pid, {}).items():
            found = known.get(number)
            if not future.done() and (found is None or found.action):
                future.set_result(found)
        leaves = p is None or p.ending or p.interrupted
        for number, work in self._works.get(pid, {}).items():
            if leaves or number not in known:
                work.cancel()

    # model calls

    def takes(self, number: int, engine: str) -> bool:
        """Whether a slot that was given away is for one of ours; then it has it."""
        waiter = self._slots.pop(number, None)
        if number >= 0 or waiter is None or waiter.done():
            if number < 0:
                self._lanes.release(engine, number, self._clock.now_ms())
            return number < 0
        waiter.set_result(engine)
        return True

    async def _make(self, wish: Wish, inquiry: str) -> Told:
        """Wait for a slot, take the hold, make the call, record what came of it."""
        self._number = number = self._number - 1
        p, pid = self._journal.process(wish.call.pid), wish.call.pid
        if p is None:
            raise UsageError(f"the model does not answer: {_GONE}")
        slot: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        settled = False
        try:
            await self._slot(slot, number, p, wish)
            begin = partial(inquiries.begin, world=self._world, pid=pid, number=inquiry, wanted=wish)
            asking: Asking = await self._hands.recorded(begin, "begin")
            request = _request(p, wish, asking.output_tokens_max, inquiry)
            reply = await self._asked(p, number, inquiry, asking.hold, request)
            await self._hands.recorded(lambda tx: inquiries.ended(tx, pid, inquiry, asking.hold, reply), "replied")
            settled = True
            return Told(reply.text, p.model or p.engine, reply.finish)
        finally:
            self._slots.pop(number, None)
            self._lanes.withdraw_wish(number)
            if slot.done() and not slot.cancelled():
                self._lanes.release(p.engine, number, self._clock.now_ms())
            self._hands.pump()
            if not settled:
                self._forget(pid, inquiry, "the model call was broken off")

    async def _slot(self, slot: asyncio.Future[str], number: int, p: Process, wish: Wish) -> None:
        """Wait until the engine of a process has a slot for us. Raises UsageError, LimitError."""
        self._slots[number] = slot
        tokens = inquiries.input_tokens(wish), min(wish.output_tokens_max, p.output_tokens_max)
        try:
            self._lanes.queue_wish(number, p, *tokens, self._clock.now_ms())
        except ConfigError as error:
            raise UsageError(f"the model does not answer: {error}") from error
        self._hands.pump()
        limit_s = self._world.settings.model_timeout_s
        await asyncio.wait({slot}, timeout=limit_s)
        if not slot.done():
            raise LimitError(f"the engine {p.engine} had no room for it within {limit_s:g} s (model_timeout_s)")

    async def _asked(self, p: Process, number: int, inquiry: str, hold: int, request: Request) -> Reply:
        try:
            reply = await self._acts.ask(p, request, lambda _: None)
        except EngineError as error:
            self._hands.model_failed(p.engine, number, error)
            failure = error
            await self._hands.recorded(lambda tx: inquiries.failed(tx, p.pid, inquiry, hold, failure), "failed")
            raise
        except asyncio.CancelledError:
            self._lanes.broken_off(p.engine, number)
            raise
        self._lanes.answered(p.engine, number, reply, self._clock.now_ms())
        return reply

    async def close(self) -> None:
        """The kernel halts: nobody answers any more. Devices are told so, and their calls may come to an end."""
        for pid in {*self._open, *self._works}:
            for work in self._works.get(pid, {}).values():
                work.cancel()
            cancel = partial(inquiries.cancel, pid=pid, why="the kernel halts")
            await self._hands.recorded(cancel, "inquire")


def _request(p: Process, wish: Wish, output_tokens_max: int, inquiry: str) -> Request:
    """No tools, and nothing of the process. What an engine keeps of the process is left as it is."""
    return Request(
        messages=wish.messages,
        output_tokens_max=output_tokens_max,
        model=p.model,
        sampling=wish.sampling,
        key=f"{p.pid}-{inquiry}",
        tenant=p.tenant,
    )
