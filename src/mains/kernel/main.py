"""The kernel: boot, recover, step, signal, halt. Read this first.

A turn: choose -> record the intent -> act -> record the result. What is decided stands in `turns.py` (operations on a
transaction), what leaves the kernel in `acts.py`; this file joins them and knows who is at work. Memory follows the
disk: from each process that a commit changed, `_committed` decides who is queued, interrupted or told.

Obligations: no act without a committed intent; every act has a time limit; a turn that fails in a way that nobody
foresaw stops its process and no other; when the journal fails, the kernel halts and nobody is told a lie.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

from mains.errors import ConfigError, DeviceError, DiskFullError, EngineError, JournalError, KernelPanic, MainsError
from mains.kernel import audit, fallback, foreign, orders, paging, recovery, timers, turns
from mains.kernel.acts import Acts
from mains.kernel.attending import Attending, Hands
from mains.kernel.atwork import AtWork
from mains.kernel.clock import Clock
from mains.kernel.clockwork import Clockwork
from mains.kernel.frames import Frame, Frames
from mains.kernel.grants import Rule
from mains.kernel.journal import Batch, Connect, Journal
from mains.kernel.lanes import Lanes
from mains.kernel.lookup import Documents, Lookup, Search
from mains.kernel.ports import Devices, Engines, EngineState, NoProbe, Notice, Probe, Signal
from mains.kernel.process import Call, CallState, Process, Route, State
from mains.kernel.tariff import Tariffs
from mains.kernel.tx import Tx
from mains.kernel.verdict import judge
from mains.kernel.watch import Waits, Watchers
from mains.kernel.world import World
from mains.settings import Settings

T = TypeVar("T")
_Effect = asyncio.Task[Process | None]
_DISK_PAUSE_MS = 1_000
_AT_REST = (State.WAITING, State.STOPPED, State.EXITED)  # these keep nothing in memory


class Kernel:
    """A kernel over one home. `async with Kernel(...) as kernel` boots and recovers, and halts at the end."""

    def __init__(
        self,
        path: Path,
        settings: Settings,
        clock: Clock,
        engines: Engines,
        devices: Devices,
        route: Callable[[tuple[str, ...]], Route],
        *,
        rules: Callable[[], Sequence[Rule]],
        workspaces: Path,
        tariffs: Tariffs,
        currency: str,
        chance: random.Random,
        probe: Probe | None = None,
        connect: Connect | None = None,
        search: Callable[[Documents], Search] | None = None,
    ) -> None:
        self.settings = settings
        self._clock = clock
        self._chance = chance
        self._open = partial(Journal, path, settings, clock.now_ms, self._committed, probe, connect)
        self._acts = Acts(engines, devices, settings, probe or NoProbe())
        self.world = World(settings, devices.tools, rules, route, workspaces, tariffs, currency)
        self._lanes = Lanes(engines, settings)
        self._new_search = search
        self._turns: set[asyncio.Task[None]] = set()  # turns at work
        self._sides: set[asyncio.Task[None]] = set()  # the clockwork, and the grace of TERM
        self._effects: set[_Effect] = set()  # device calls, which a halt waits for
        self._at_work = AtWork()
        self.watchers = Watchers(settings)
        self.waits = Waits()
        self._clockwork = Clockwork(clock)
        self._failure: JournalError | None = None
        self.halted = asyncio.Event()

    # boot, recover, halt

    async def __aenter__(self) -> Self:
        self.journal = self._open()
        self._frames = Frames(self.journal, self.world, self.settings)
        self.documents = Documents(self.journal)
        self.search = self._new_search(self.documents) if self._new_search else None
        self._acts.lookup = self._lookup = Lookup(self.journal, self.search, self.settings)
        hands = Hands(self.order, self._recorded, self._side, self._model_failed, self._pump, self.halted)
        self.attending = Attending(hands, self.world, self._acts, self._lanes, self._clock, self.journal)
        self._group = await asyncio.TaskGroup().__aenter__()
        booted = False
        try:
            audit.check(self.journal)
            await self.journal.commit(lambda tx: recovery.boot(tx, self.world), "boot")
            await self._recover()
            self._side(self._run_timers)
            booted = True
        finally:
            if not booted:
                await self._close(None)
        return self

    async def _recover(self) -> None:
        """Those who were mid-turn first; then everybody who is ready is queued, and the scheduler paces them."""
        pids, most = self.journal.rows("process_pids_in", State.RUNNING), self.settings.wakes_per_commit_max
        for start in range(0, len(pids), most):
            op = partial(recovery.recover, world=self.world, pids=[row[0] for row in pids[start : start + most]])
            await self.journal.commit(op, "recover")
        for p in self.journal.processes("process_in", State.READY):
            self._queue(p)
        self._pump()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.halted.set()
        await self._close(error if isinstance(error, asyncio.CancelledError) else None)

    async def _close(self, cancelled: BaseException | None) -> None:
        """Let device calls come to their end (`halt_grace_s`), end everything else, note the halt, free all parts."""
        if self._effects and self._failure is None and cancelled is None:
            await self.attending.close()
            await asyncio.wait(self._effects, timeout=self.settings.halt_grace_s)
        for task in [*self._turns, *self._sides]:
            task.cancel()
        try:
            await self._group.__aexit__(type(cancelled) if cancelled else None, cancelled, None)
            if self._failure is None:
                await self.journal.commit(recovery.halt, "halt")
        finally:
            self.watchers.close()
            self.waits.wake_all()
            if self.search is not None:
                await self.search.close()
            await self.journal.close()
            await self._acts.close()

    def _halt(self, error: JournalError) -> None:
        """The journal has failed: no act, no word to anybody from here on. Whoever serves us watches `halted`."""
        self._failure = self._failure or error
        self.halted.set()
        self.waits.wake_all()

    # the step

    def _pump(self) -> None:
        """Give every free slot of every lane to whom the scheduler chooses."""
        if self.halted.is_set():
            return
        now_ms = self._clock.now_ms()
        for engine, pid in self._lanes.choices(now_ms):
            if not self.attending.takes(pid, engine):
                self._start(pid, partial(self._model_turn, pid, engine))
        for time_ms in self._lanes.times_ms(now_ms):
            self._clockwork.expect(time_ms)

    async def _model_turn(self, pid: int, engine: str) -> None:
        """(chosen) -> record the intent -> act -> record the result."""
        task = self._at_work.begin(pid)
        try:
            p = await self._recorded(lambda tx: turns.begin(tx, self.world, pid, engine), "begin")
            if p is None or p.asking is None:
                return
            record = await self._ask(p, self._frames.of(p), engine)
        except asyncio.CancelledError:
            if not self._at_work.is_ending(pid):
                raise
            task.uncancel()
            record = partial(turns.interrupted, world=self.world, pid=pid), "failed"
        finally:
            self._at_work.end(pid, task)
            self._lanes.release(engine, pid, self._clock.now_ms())
            self._pump()
        after = await self._recorded(*record)
        if after is not None and after.state is State.RUNNING:
            await self._call_devices(after)

    async def _ask(self, p: Process, frame: Frame, engine: str) -> tuple[Callable[[Tx], Process | None], str]:
        """Make the model call; the operation that records how it went, and its name."""
        assert p.asking is not None
        hold, attempt, turn, old = p.asking.hold, p.asking.attempt, p.turn + 1, p.asking.summary

        def delta(text: str) -> None:
            if old is None:  # a summary is no answer
                self.watchers.tell(Notice(kind="delta", pid=p.pid, turn=turn, attempt=attempt, text=text))

        try:
            reply = await self._acts.ask(p, frame.request(p), delta)
        except EngineError as error:
            self._model_failed(engine, p.pid, error)
            failure, backoff_ms = error, fallback.backoff_ms(p.failures_here, self.settings, self._chance.random())
            return lambda tx: turns.failed(tx, self.world, p.pid, hold, failure, backoff_ms), "failed"
        except asyncio.CancelledError:
            self._lanes.broken_off(engine, p.pid)
            raise
        self._lanes.answered(engine, p.pid, reply, self._clock.now_ms())
        if old is not None:
            return lambda tx: paging.summed(tx, self.world, p.pid, hold, reply), "summed"
        verdict = judge(reply, turn, frame.box, self.settings)
        return lambda tx: turns.replied(tx, self.world, p.pid, hold, verdict, reply.usage, frame.box), "replied"

    def _model_failed(self, engine: str, number: int, error: EngineError) -> None:
        """Tell the lanes; who can go elsewhere does."""
        for pid in self._lanes.failed(engine, number, error, self._clock.now_ms()):
            if (waiter := self.journal.process(pid)) and waiter.state is State.READY:
                self._queue(waiter)

    async def _device_turn(self, pid: int) -> None:
        """Issue calls that were left pending (by a pause, or by a decision about a doubt)."""
        p = await self._recorded(lambda tx: turns.begin(tx, self.world, pid), "begin")
        if p is not None and p.state is State.RUNNING:
            await self._call_devices(p)

    async def _call_devices(self, p: Process) -> None:
        """Issue the calls in flight side by side, and those that their results bring; none of who was killed since."""
        latest, started = self.journal.process(p.pid) or p, set[tuple[str, int]]()
        flying, ended = set[_Effect](), list[_Effect]()
        this = self._at_work.begin(p.pid)
        try:
            while True:
                for call in latest.calls:
                    if call.state is CallState.IN_FLIGHT and (call.id, call.attempt) not in started:
                        started.add((call.id, call.attempt))
                        flying.add(self._effect(self._call_device(latest, call), ended))
                if not flying:
                    return
                await asyncio.wait(flying, return_when=asyncio.FIRST_COMPLETED)
                flying.difference_update(ended)
                while ended:  # in the order in which they were committed: the last one knows what is in flight now
                    latest = ended.pop(0).result() or latest
        finally:
            self._at_work.end(p.pid, this)
            for task in flying:
                task.cancel()
            await asyncio.gather(*flying, *ended, return_exceptions=True)  # each error is looked at

    async def _call_device(self, p: Process, call: Call) -> Process | None:
        """One device call and the record of its result."""
        try:
            text = await self._acts.call(p, call, self._frames.arguments(p, call), lambda: p.pid in self._at_work)
        except DeviceError as error:
            text = f"error: {error}"
            if not call.repeatable:
                doubted = partial(turns.doubted, world=self.world, pid=p.pid, call_ids=(call.id,), why=str(error))
                return await self._recorded(doubted, "doubted")
        return await self._recorded(lambda tx: turns.returned(tx, self.world, p.pid, call.id, text), "returned")

    async def _recorded(self, op: Callable[[Tx], T], name: str) -> T:
        """Commit a step of a turn: a full disk is waited for (`disk_full_wait_s`), then the kernel halts."""
        waited_ms = 0
        while True:
            try:
                return await self.journal.commit(op, name)
            except DiskFullError as error:
                if waited_ms >= self.settings.disk_full_wait_s * 1_000:
                    self._halt(error)
                    raise
            await self._clock.wait_ms(_DISK_PAUSE_MS)
            waited_ms += _DISK_PAUSE_MS

    # who is at work

    def _start(self, pid: int, turn: Callable[[], Awaitable[object]]) -> None:
        task = self._group.create_task(self._guard(pid, turn))
        self._turns.add(task)
        task.add_done_callback(self._turns.discard)

    def _effect(self, call: Coroutine[Any, Any, Process | None], ended: list[_Effect]) -> _Effect:
        """A device call as a task of its own, which an orderly halt waits for; at its end it joins `ended`."""
        self._effects.add(task := asyncio.create_task(call))
        task.add_done_callback(self._effects.discard)
        task.add_done_callback(ended.append)
        return task

    def _side(self, work: Callable[[], Awaitable[None]]) -> None:
        task = self._group.create_task(self._kept(work))
        self._sides.add(task)
        task.add_done_callback(self._sides.discard)

    async def _kept(self, work: Callable[[], Awaitable[None]]) -> None:
        """Side work: when the journal fails under it, the kernel halts in order."""
        try:
            await work()
        except JournalError as error:
            self._halt(error)

    async def _guard(self, pid: int, turn: Callable[[], Awaitable[object]]) -> None:
        """The end of a turn: whatever went wrong becomes the record of its process, and touches no other."""
        try:
            await turn()
        except JournalError as error:
            if not isinstance(error, DiskFullError):
                self._halt(error)
        except KernelPanic:
            self.halted.set()  # nobody is started any more
            raise
        except Exception as error:  # noqa: BLE001 - the one place: a turn's end becomes its process's record
            await self._fault(pid, f"{type(error).__name__}: {error}")

    async def _fault(self, pid: int, detail: str) -> None:
        try:
            await self._recorded(lambda tx: turns.faulted(tx, self.world, pid, detail), "fault")
        except JournalError as failure:
            self._halt(failure)

    # memory follows the disk

    def _committed(self, batch: Batch) -> None:
        """What a commit changed: queue who is ready, interrupt who ends, tell who waits."""
        for p in {p.pid: p for p in batch.changed}.values():
            self._lanes.follow(p)
            if p.state is State.READY:
                self._queue(p)
            if p.state in _AT_REST:
                self._frames.drop(p.pid)
                self._lookup.touch(p)
            if p.state is State.EXITED:
                self._at_work.interrupt(p.pid)
            elif (p.ending or p.interrupted) and p.asking:
                self._at_work.interrupt(p.pid, ending=True)
        self.watchers.commit(batch.notices)
        self.waits.commit(batch.changed)
        self.attending.commit(batch)
        if batch.armed_ms is not None:
            self._clockwork.expect(batch.armed_ms)
        self._pump()

    def _queue(self, p: Process) -> None:
        """A READY process: pending device calls go out at once, a model call waits in its engine's lane."""
        if self.halted.is_set():
            return
        if any(c.state is CallState.PENDING for c in p.calls):
            self._start(p.pid, partial(self._device_turn, p.pid))
            return
        try:
            self._lanes.queue(p, self._clock.now_ms())
        except ConfigError as error:
            unserved = partial(turns.unserved, world=self.world, pid=p.pid, engine=p.engine, error=error)
            self._start(p.pid, partial(self._recorded, unserved, "unserved"))

    async def _run_timers(self) -> None:
        """Fire what is due, open lanes that were closed, sleep until the next time."""
        while True:
            now_ms = self._clockwork.begin()
            if self._clockwork.set_back:
                await self._recorded(lambda tx: foreign.set_back(tx, self.world), "set_back")
            due_ms = timers.next_due_ms(self.journal)
            if due_ms is not None and due_ms <= now_ms:
                await self._recorded(lambda tx: turns.fire(tx, self.world), "fire")
                continue
            self._pump()
            times_ms = self._lanes.times_ms(now_ms)
            await self._clockwork.sleep(now_ms, times_ms if due_ms is None else [*times_ms, due_ms])

    # what the desk asks

    @property
    def failure(self) -> JournalError | None:
        """Why the kernel halted by itself."""
        return self._failure

    def engines(self) -> list[EngineState]:
        """How each engine is."""
        return self._lanes.states(self._clock.now_ms())

    async def order(self, op: Callable[[Tx], T], name: str) -> T:
        """Commit an order from outside. Raises what it raises, and JournalError when the kernel has halted."""
        if self.halted.is_set():
            raise self._failure or JournalError("the kernel halts; give the order to the next one")
        try:
            return await self.journal.commit(op, name, bounded=True)
        except JournalError as error:
            if not isinstance(error, DiskFullError):  # after which the journal goes on
                self._halt(error)
            raise

    async def signal(self, to: int | str, sign: Signal) -> list[int]:
        """Send a signal to a process or a group, and all below. TERM becomes KILL after `term_grace_s`."""
        changed = await self.order(lambda tx: orders.signal(tx, self.world, to, sign), "signal")
        if sign is Signal.TERM and not self.halted.is_set():
            for each in changed:
                self._side(partial(self._grace, each))
        return changed

    async def _grace(self, pid: int) -> None:
        p = self.journal.process(pid)
        if p is None or p.state is State.EXITED:
            return
        await self._clock.wait_ms(round(self.settings.term_grace_s * 1_000))
        with contextlib.suppress(MainsError):  # it ended meanwhile, or the kernel halts
            await self.order(lambda tx: orders.signal(tx, self.world, pid, Signal.KILL), "signal")

    def busy(self) -> bool:
        """Whether anything is runnable, at work, or will wake by time."""
        return bool(self._turns) or len(self._lanes) > 0 or timers.next_due_ms(self.journal) is not None
