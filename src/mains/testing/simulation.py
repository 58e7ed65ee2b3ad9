"""A seeded simulation of a whole kernel: one seed, one world, one story.

    story = Simulation(7).run()        raises RuleBroken, with the story that led to it

In one process, without a thread or a clock: a real Kernel over a real SQLite file (`stage.py` is its event loop,
`disk.py` its disk), a cast of engines and devices that misbehave (`cast.py`), people who order and remember what they
were told (`people.py`), and a witness who checks the rules that never bend at every commit and every act
(`witness.py`, `meter.py`, `letters.py`). What happens is a plan (`plan.py`); when all of it has happened, trouble ends
and everybody must come to an end.

A world ends by a crash (the files as `kill -9` leaves them, or torn by a power loss), by a failing disk, or in order;
then the next one boots over what is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

from mains.errors import JournalError, KernelPanic
from mains.kernel import audit, reckon
from mains.kernel.desk import Desk
from mains.kernel.devicelist import DeviceList
from mains.kernel.main import Kernel
from mains.kernel.process import State
from mains.testing.cast import Cast, write_programs
from mains.testing.clock import FakeClock
from mains.testing.disk import Disk
from mains.testing.people import HANGS, People
from mains.testing.plan import Action, Plan, plan_of
from mains.testing.stage import PowerCut, Stage, Stuck
from mains.testing.story import Broke, RuleBroken, Story
from mains.testing.witness import DURABLE, FOLD, Witness

FORGOTTEN = "nobody is forgotten: at the end everything ends"
PANIC = "the kernel does not panic"
_DAY_MS = 86_400_000
_ROUNDS_MAX = 60
_ROOM_BYTES = 256 * 1024 * 1024  # that a folder in memory must have free


class Simulation:
    """See the module's header. A simulation runs once."""

    def __init__(self, seed: int, plan: Plan | None = None) -> None:
        self.seed = seed
        self.plan = plan or plan_of(seed)
        self.clock = FakeClock()
        self.story = Story(self.clock)
        self.crashes = 0
        self._witness = Witness(self.story)
        self._cast = Cast(self.plan, self.clock, self._witness)
        self._at = 0  # the next action
        self._worlds = 0
        self._probe_left = -1
        self._over = False
        self._crashed = False  # the world before this one ended without being asked
        self._kernel: Kernel | None = None  # of the world under way

    @property
    def processes(self) -> int:
        """How many processes there were."""
        return len(self._witness.table)

    def run(self) -> Story:
        """Play the plan to its end. Raises RuleBroken."""
        folder = Path(tempfile.mkdtemp(prefix="mains-sim-", dir=_in_memory()))
        try:
            write_programs(folder)
            self.story.home = str(folder)
            self._people = People(folder, self._witness, self.story)
            self._path = folder / "mains.db"
            while not self._over:
                self._world(folder)
        except Broke as broke:
            detail = broke.detail.replace(str(folder), "~")
            raise RuleBroken(self.plan, broke.rule, detail, self.story.lines) from broke
        finally:
            shutil.rmtree(folder)
        return self.story

    # one world

    def _world(self, folder: Path) -> None:
        self._worlds += 1
        chance = random.Random(f"world {self.seed} {self._worlds}")  # noqa: S311 - a simulation is to be foreseen
        self._stage = stage = Stage(self.clock, chance)
        stage.set_exception_handler(self._complain)
        self._disk = Disk(self._path, chance, self._committed)
        self._disk.on_cut = self._cut
        self._witness_open = False
        self._ended = False
        self.story.say(f"boot {self._worlds}")
        try:
            stage.run_until_complete(self._live(chance))
            self._crashed = bool(self._disk.failed)
        except Broke:
            raise
        except Stuck as stuck:
            raise Broke(HANGS, str(stuck)) from stuck
        except PowerCut:
            self._crashed = True
            self._path = self._disk.image(folder / f"world{self._worlds}")
        finally:
            self._end(stage)

    def _complain(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """asyncio has something to say: an error that nobody looked at."""
        if not self._ended and loop is self._stage:
            raise Broke(PANIC, f"{context.get('message')}: {context.get('exception')!r}")

    def _committed(self) -> None:
        if not self._disk.flushes:
            raise Broke(DURABLE, "the kernel commits without synchronous=FULL")
        if not self._witness_open:
            self._witness_open = True
            self._witness.open(self._path)
            self._witness.booted()
            self._people.booted()
        else:
            self._witness.committed()

    def at(self, point: str) -> None:
        """The kernel's probe: the world ends when as many points as the plan says have been passed."""
        if self._probe_left < 0 or self._ended:
            return
        self._probe_left -= 1
        if self._probe_left < 0:
            self.story.say(f"crash at {point}")
            self._cut()

    def _cut(self) -> None:
        self.story.say("the power goes")
        if self._kernel is not None:
            self._kernel.halted.set()  # what still turns in this world starts nobody
        self.crashes += 1
        raise PowerCut

    def _end(self, stage: Stage) -> None:
        """Sweep up a world that has ended: nothing of it reaches the disk, the engines or the people any more."""
        self._ended = True
        self._disk.dead = True
        self.clock.forget()
        for _ in range(50):
            left = asyncio.all_tasks(stage)
            if not left:
                break
            for task in left:
                task.cancel()
            with contextlib.suppress(PowerCut, Stuck, BaseExceptionGroup):
                stage.run_until_complete(_turns(10))
        self._people.end()
        if self._witness_open:
            self._witness.close()
        stage.close()

    async def _live(self, chance: random.Random) -> None:
        kernel = Kernel(
            self._path, self.plan.settings, self.clock, self._cast, DeviceList(self._cast.devices), self._cast.route,
            rules=tuple,
            workspaces=self._path.parent, tariffs=self._cast.tariffs, currency="usd", chance=chance, probe=self,
            connect=self._disk.connect,
        )  # fmt: skip
        self._kernel = kernel
        try:
            async with kernel:
                desk = self._people.desk(kernel, self._cast.force, self.clock)
                if self._crashed:
                    self._verify(desk)
                await self._play(desk)
                if self._at >= len(self.plan.actions) and not kernel.halted.is_set():
                    await self._finish(desk)
                    self._over = True
        except JournalError as error:
            self._allow(error)
        except (KernelPanic, ExceptionGroup) as panic:
            raise Broke(PANIC, _first(panic)) from panic
        if kernel.failure is not None:
            self._allow(kernel.failure)
        await self._idle()
        if self._people.busy:
            raise Broke(HANGS, f"{len(self._people.busy)} callers wait for a kernel that has halted")
        self.story.say("halted")

    def _allow(self, error: JournalError) -> None:
        """A journal may fail when its disk did."""
        if not self._disk.failed:
            raise Broke(DURABLE, f"the journal failed on a sound disk: {error}") from error
        self.story.say(f"the disk failed ({self._disk.failed}): {error}")

    def _verify(self, desk: Desk) -> None:
        if faults := [*audit.verify(desk.journal), *reckon.verify(desk.journal)]:
            raise Broke(FOLD, "; ".join(faults))

    async def _idle(self) -> None:
        try:
            await self._stage.idle()
        except TimeoutError as error:
            raise Broke(FORGOTTEN, str(error)) from error

    # the plan

    async def _play(self, desk: Desk) -> None:
        """Let action after action happen until the world is to halt, or has."""
        while self._at < len(self.plan.actions) and not desk.halted.is_set():
            action = self.plan.actions[self._at]
            self._at += 1
            if action.kind == "halt":
                self.story.say("halt")
                return
            self._act(desk, action)
            if action.turns < 0:
                await self._idle()
            else:
                await _turns(action.turns)

    def _act(self, desk: Desk, action: Action) -> None:
        match action.kind:
            case "advance":
                self.story.say(f"{action.value} ms pass")
                self.clock.advance(action.value)
            case "jump":
                self.story.say(f"the wall clock jumps by {action.value} ms")
                self.clock.jump(action.value)
            case "crash":
                self._probe_left = action.value
            case "fault":
                self._disk.arm(action.text, action.value, action.which)
            case "rest":
                pass
            case _:
                self._people.order(desk, action, self._stage)

    # the end

    async def _finish(self, desk: Desk) -> None:
        """No more trouble: within some days everybody has ended. Raises Broke."""
        if self.crashes < self.plan.crashes_min:
            self._cut()
        self.story.say("trouble ends")
        self._cast.calm = True
        self._probe_left = -1
        self._disk.armed = ""
        for _ in range(_ROUNDS_MAX):
            await self._idle()
            if desk.halted.is_set():
                return
            alive = [p for p in self._witness.table.values() if p.state is not State.EXITED]
            if not alive:
                break
            for p in alive:
                self._people.help(desk, p, self._stage)
            await self._idle()
            self.clock.advance(_DAY_MS)
        left = [f"{p.pid} is {p.state} ({p.reason})" for p in self._witness.table.values() if p.exit_code is None]
        if left:
            raise Broke(FORGOTTEN, f"after {_ROUNDS_MAX} days process {'; '.join(left)}")
        await self._idle()
        if self._people.busy:
            raise Broke(HANGS, f"{len(self._people.busy)} callers wait for processes that have ended")
        if desk.busy():
            raise Broke(FORGOTTEN, "everybody has ended, and the kernel says it is busy")
        self._verify(desk)


def _first(panic: BaseException) -> str:
    while isinstance(panic, BaseExceptionGroup):
        panic = panic.exceptions[0]
    return repr(panic)


async def _turns(turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


def _in_memory() -> Path | None:
    """A folder that is no disk, where there is one with room: a world's disk is simulated, a real one only slows it."""
    memory = Path("/dev/shm")  # noqa: S108 - Linux has it; the files get a folder of their own
    if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > _ROOM_BYTES:
        return memory
    return None
