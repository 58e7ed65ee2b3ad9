"""Holds and settlements a second, under limits of four accounts above the process, in both units and with windows.

A pair is what a turn asks of the ledger: a commit with the hold (against every limit), then a commit with what was used.
The journal is the real one (synchronous=FULL, group commit); so many callers are at work at once, each with a process of
its own: home (tokens a day, money a week) > organisation (money a month) > team (tokens a week) > user (tokens in all) >
program > process. The same pairs on accounts without any limit show what the limits cost.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path
from typing import NamedTuple

import mains
from bench import kernel, machine
from bench.metered import OUTPUT_TOKENS, prepare
from bench.report import Figure, Report, at_least
from mains.errors import KernelPanic
from mains.kernel import ledger, reckon
from mains.kernel.billing import Budget
from mains.kernel.desk import Desk
from mains.kernel.ledger import Hold, Label, Price
from mains.kernel.ports import Usage
from mains.kernel.process import Process
from mains.kernel.tx import Tx

GOAL_PER_S = 2_000
ROUNDS = 5
CALLERS = 100
PAIRS = 60  # of each caller in a round
INPUT_TOKENS = 1_000
USED = Usage(input_tokens=900, output_tokens=OUTPUT_TOKENS // 2)
_MOST = 10**14
LIMITS = (
    ("home", Budget("tokens", "day", _MOST)),
    ("home", Budget("money", "week", _MOST)),
    ("acme", Budget("money", "month", _MOST)),
    ("team", Budget("tokens", "week", _MOST)),
    ("ann", Budget("tokens", "total", _MOST)),
)


class Measured(NamedTuple):
    """A round."""

    pairs: int
    span_s: float
    cpu_s: float

    @property
    def per_s(self) -> float:
        """Pairs a second."""
        return self.pairs / self.span_s

    @property
    def cpu_us(self) -> float:
        """CPU time of a pair, in microseconds."""
        return 1e6 * self.cpu_s / self.pairs


async def pairs(folder: Path, callers: int, each: int, *, limited: bool) -> Measured:
    """So many pairs by each caller, in a fresh home."""
    folder.mkdir()
    async with mains.open(prepare(folder, 9)) as desk:
        processes = await _processes(desk, folder, callers, limited=limited)
        engine = processes[0].engine
        tariff = desk._kernel.world.tariffs.find(engine, processes[0].model, int(time.time() * 1_000))
        price, label = Price(tariff, int(time.time() * 1_000) + 600_000), Label(engine)

        async def call(p: Process) -> None:
            def take(tx: Tx) -> object:
                return ledger.take(tx, p.accounts, INPUT_TOKENS, OUTPUT_TOKENS, 16, label, price)

            for _ in range(each):
                hold = await desk.journal.commit(take, "begin")
                if not isinstance(hold, Hold):
                    raise KernelPanic("there was no room")
                number = hold.id
                await desk.journal.commit(
                    lambda tx, number=number: ledger.post(tx, p.accounts, number, USED), "replied"
                )

        machine.settle()
        start, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*map(call, processes))
        measured = Measured(callers * each, time.perf_counter() - start, time.process_time() - cpu)
        if reckon.verify(desk.journal):
            raise KernelPanic("the pairs that were measured are not in the ledger as they should be")
    return measured


async def _processes(desk: Desk, folder: Path, callers: int, *, limited: bool) -> list[Process]:
    for name, under in (("acme", "home"), ("team", "acme"), ("ann", "team")):
        await desk.account_add(name, under=under, zone="Europe/Berlin")
    for account, budget in LIMITS if limited else ():
        await desk.budget_set(account, [budget])
    pids = [await desk.spawn(folder / "looker.md", account="ann", paused=True) for _ in range(callers)]
    return [p for pid in pids if (p := desk.journal.process(pid)) is not None]


def main(quick: bool) -> Report:
    """With limits, without, and one caller alone, in turn."""
    callers, each, rounds = (10, 5, 1) if quick else (CALLERS, PAIRS, ROUNDS)
    with_limits: list[Measured] = []
    without: list[Measured] = []
    alone: list[Measured] = []
    fsyncs_us: list[float] = []
    for _ in range(rounds):
        with machine.scratch() as folder:
            fsyncs_us.append(machine.fsync_us(folder))
            with_limits.append(kernel.run(pairs(folder / "limits", callers, each, limited=True)))
            without.append(kernel.run(pairs(folder / "free", callers, each, limited=False)))
            alone.append(kernel.run(pairs(folder / "alone", 1, each, limited=True)))
    at = f"at {callers}"
    figures = (
        at_least(f"hold + settle, {at}", _median(with_limits), "pairs/s", GOAL_PER_S),
        Figure(f"CPU a pair, {at}", statistics.median(each.cpu_us for each in with_limits), "us"),
        Figure(f"without limits, {at}", _median(without), "pairs/s"),
        Figure("one caller alone", _median(alone), "pairs/s"),
        Figure("fsync", statistics.median(fsyncs_us), "us"),
    )
    note = f"{len(LIMITS)} limits on 4 accounts above the process; medians of {rounds} rounds; two commits a pair"
    return Report("ledger", figures, (note,))


def _median(measured: list[Measured]) -> float:
    return statistics.median(each.per_s for each in measured)
