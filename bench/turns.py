"""Full turns a second, at 1, 100 and 1,000 processes, against a bare SQLite group commit in the same run.

A turn is a model call with everything around it: the intent with its hold (one commit), the call, the reply judged and
its syscall done, the hold settled, the result recorded (one commit). The engine answers at once and always asks for
`receive` without waiting, so that a process makes one turn after another. The clock runs from the moment when every
process stands in its first call to the moment when every one stands in its last: exactly so many turns were made.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import mains
from bench import bare, kernel, machine
from bench.bare import Measured
from bench.report import Figure, Report, at_least
from mains.engines.scripted import ScriptedEngine
from mains.errors import KernelPanic
from mains.kernel import reckon
from mains.kernel.ports import Reply, Request

GOAL_PER_S = 3_000
ROUNDS = 5
FULL = {1: 400, 100: 60, 1_000: 10}  # processes -> turns of each in a round
QUICK = {1: 20, 20: 5}


class Gate:
    """The engine's answers, and a gate before the first and after the last turn that is measured."""

    def __init__(self, processes: int, turns: int) -> None:
        self._processes = processes
        self._turns = turns
        self._standing = 0
        self._open = asyncio.Event()
        self.all_here = asyncio.Event()

    def answer(self, request: Request) -> Reply | Coroutine[Any, Any, Reply]:
        """One more look; in the first and the last call only after the gate was opened."""
        turn = kernel.turn_of(len(request.messages))
        if turn not in (1, self._turns + 1):
            return kernel.LOOK
        self._standing += 1
        if self._standing == self._processes:
            self.all_here.set()
        return _after(self._open, kernel.END if turn > self._turns else kernel.LOOK)

    def open(self) -> None:
        """Let everybody go; whoever comes next finds it shut."""
        self._standing = 0
        self.all_here.clear()
        self._open.set()
        self._open = asyncio.Event()


async def _after(event: asyncio.Event, reply: Reply) -> Reply:
    await event.wait()
    return reply


async def through_mains(folder: Path, processes: int, turns: int) -> Measured:
    """A round: `turns` turns by each of so many processes of a fresh home."""
    gate = Gate(processes, turns)
    engine = ScriptedEngine.of(gate.answer, slots=processes)
    settings = mains.Settings(turns_max=turns + 2)
    async with mains.open(folder, engines=[engine], settings=settings) as desk:
        program = kernel.write_program(folder)
        pids = await asyncio.gather(*(desk.spawn(program) for _ in range(processes)))
        await gate.all_here.wait()
        machine.settle()
        start, cpu = time.perf_counter(), time.process_time()
        gate.open()
        await gate.all_here.wait()
        measured = Measured(processes * turns, time.perf_counter() - start, time.process_time() - cpu)
        gate.open()
        outcomes = await asyncio.gather(*(desk.wait(pid) for pid in pids))
        if {outcome.turns for outcome in outcomes} != {turns + 1} or reckon.verify(desk.journal):
            raise KernelPanic("the turns that were measured are not in the journal as they should be")
    return measured


class Rounds:
    """All rounds with one number of processes, baselines and Mains in turn so that drift of the machine cancels."""

    def __init__(self, processes: int, turns: int, rounds: int) -> None:
        self.processes = processes
        self.events: list[Measured] = []
        self.rows: list[Measured] = []
        self.mains: list[Measured] = []
        self.fsync_us: list[float] = []
        for _ in range(rounds):
            with machine.scratch() as folder:
                self.fsync_us.append(machine.fsync_us(folder))
                self.events.append(kernel.run(bare.measure(folder / "events.db", processes, turns, bare.events)))
                self.rows.append(kernel.run(bare.measure(folder / "rows.db", processes, turns, bare.rows)))
                self.mains.append(kernel.run(through_mains(folder / "home", processes, turns)))

    def figures(self) -> list[Figure]:
        """The medians, and the ratios within each round."""
        at = f"at {self.processes:,}"
        per_s = statistics.median(m.per_s for m in self.mains)
        judged = self.processes == 100
        return [
            at_least(f"turns {at}", per_s, "turns/s", GOAL_PER_S)
            if judged
            else Figure(f"turns {at}", per_s, "turns/s"),
            Figure(f"CPU a turn {at}", statistics.median(m.cpu_us for m in self.mains), "us"),
            Figure(f"bare events {at}", statistics.median(m.per_s for m in self.events), "turns/s"),
            Figure(f"bare rows {at}", statistics.median(m.per_s for m in self.rows), "turns/s"),
            Figure(f"Mains / bare events {at}", _ratio(self.mains, self.events), "x"),
            Figure(f"Mains / bare rows {at}", _ratio(self.mains, self.rows), "x"),
            Figure(f"fsync {at}", statistics.median(self.fsync_us), "us"),
        ]


def _ratio(ours: list[Measured], theirs: list[Measured]) -> float:
    return statistics.median(mine.per_s / other.per_s for mine, other in zip(ours, theirs, strict=True))


def main(quick: bool) -> Report:
    """All sizes."""
    sizes, rounds = (QUICK, 1) if quick else (FULL, ROUNDS)
    measured = [Rounds(processes, turns, rounds) for processes, turns in sizes.items()]
    figures = [figure for each in measured for figure in each.figures()]
    note = f"medians of {rounds} rounds; turns of each process in a round: {sizes}"
    return Report("turns", tuple(figures), (note,))
