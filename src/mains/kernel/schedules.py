"""Schedules: a process that starts a run of its program at each slot.

A program with a `schedule` becomes a process that never asks a model: it waits for the next slot, and starts one child
for it. Each slot is one event: run, or skipped with the reason. The slot to come stands in the record, and only that
one can happen, so that no slot is run twice, whatever a clock or a crash does. The run's key names its slot.

Slots that passed while no kernel ran, or the machine slept, are missed; `catch_up` says what becomes of them. `all`
runs them one after the other, never side by side, `catch_up_slots_max` of them at most: no burst after a long sleep.
"""

from __future__ import annotations

from itertools import islice, takewhile

import msgspec

from mains.errors import LimitError, ProgramError, UsageError
from mains.kernel import timers
from mains.kernel.birth import bear_run
from mains.kernel.event import Faulted, Slotted
from mains.kernel.process import Process, State
from mains.kernel.tx import Tx
from mains.kernel.world import World
from mains.program import Schedule
from mains.settings import Settings

_SLOTS_PER_WAKE_MAX = 20_000  # 4 microseconds each (cronsim 2.8)
_EVENTS_PER_WAKE_MAX = 200  # of more missed slots than this, the oldest share one event


class Plan(msgspec.Struct, frozen=True):
    """What becomes of the slots that have come: the first `skipped` are skipped (`why`); the next one is `run`."""

    skipped: int
    why: str
    run: bool


def decide(schedule: Schedule, slots: list[int], now_ms: int, held: str, running: str, settings: Settings) -> Plan:
    """What to do about `slots`, the oldest first, of which one at least has come. Pure.

    `held`: why nothing may run at all; `running`: that the run before has not ended, in words. What neither runs nor is
    skipped waits for the end of that run.
    """
    if held:
        return Plan(len(slots), held, run=False)
    if schedule.catch_up == "all":
        too_many = max(0, len(slots) - settings.catch_up_slots_max)
        free = not running or (schedule.overlap == "allow" and len(slots) == 1)
        return Plan(too_many, f"missed: more than {settings.catch_up_slots_max} (catch_up_slots_max)", run=free)
    missed = f"missed: nothing ran then (catch_up: {schedule.catch_up})"
    late = now_ms - slots[-1] > settings.schedule_grace_s * 1_000
    if len(slots) == _SLOTS_PER_WAKE_MAX or (schedule.catch_up == "none" and late):
        return Plan(len(slots), missed, run=False)
    if running and schedule.overlap == "skip":
        return Plan(len(slots), running, run=False)
    return Plan(len(slots) - 1, missed, run=True)


def due(tx: Tx, world: World, p: Process) -> None:
    """Do what is to be done about the slots of a schedule that have come.

    One whose stored program or time zone is not taken any more (lower limits, another machine) stops and says why.
    """
    try:
        _due(tx, world, p)
    except (ProgramError, ValueError) as error:
        tx.happen(tx.process(p.pid), Faulted(detail=str(error)))


def _due(tx: Tx, world: World, p: Process) -> None:
    schedule, slots = p.schedule, _come(tx, p)
    if schedule is None or not slots:
        return
    held = p.reason if p.state is State.STOPPED else ""
    plan = decide(schedule, slots, tx.now_ms, held, _running(tx, p), world.settings)
    p = _skip(tx, p, slots[: plan.skipped], plan.why)
    if plan.run:
        p = _run(tx, world, p)
    if p.slot_ms > tx.now_ms or plan.skipped == len(slots) or not _running(tx, p):
        arm(tx, p)  # else the end of the run wakes it (`calls.end`)


def pass_over(tx: Tx, p: Process, why: str) -> Process:
    """Skip the slots of a schedule that have come and wait."""
    while slots := _come(tx, p):
        p = _skip(tx, p, slots, why)
    return p


def _come(tx: Tx, p: Process) -> list[int]:
    """The slots that have come, the oldest first, as many as one wake looks at; of no schedule, none."""
    if p.schedule is None or not 0 < p.slot_ms <= tx.now_ms:
        return []
    later = takewhile(lambda slot_ms: slot_ms <= tx.now_ms, p.schedule.slots(p.slot_ms))
    return [p.slot_ms, *islice(later, _SLOTS_PER_WAKE_MAX - 1)]


def arm(tx: Tx, p: Process) -> None:
    """Wake a schedule at its next slot."""
    if p.slot_ms:
        timers.arm(tx, p.slot_ms, p.pid, timers.SLOT)


def _running(tx: Tx, p: Process) -> str:
    run = tx.process(p.run) if p.run else None
    if run is None or run.state is State.EXITED:
        return ""
    return f"the run before, process {run.pid}, has not ended: {run.state}{f' ({run.reason})' if run.reason else ''}"


def _skip(tx: Tx, p: Process, slots: list[int], why: str) -> Process:
    oldest = max(0, len(slots) - _EVENTS_PER_WAKE_MAX)
    if oldest:
        p = _slotted(tx, p, slots[oldest - 1], 0, why, oldest)
    for slot_ms in slots[oldest:]:
        p = _slotted(tx, p, slot_ms, 0, why)
    return p


def _run(tx: Tx, world: World, p: Process) -> Process:
    try:
        run = bear_run(tx, world, p)
    except (LimitError, UsageError) as error:
        return _slotted(tx, p, p.slot_ms, 0, str(error))
    return _slotted(tx, p, p.slot_ms, run.pid, "")


def _slotted(tx: Tx, p: Process, slot_ms: int, run: int, why: str, count: int = 1) -> Process:
    """Record the slots from the next one to `slot_ms`."""
    assert p.schedule is not None
    next_ms = next(p.schedule.slots(slot_ms), 0)
    return tx.happen(p, Slotted(slot_ms=p.slot_ms, next_ms=next_ms, run=run, reason=why, count=count))
