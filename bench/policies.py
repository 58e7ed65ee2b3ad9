"""The order of policies on the real embedded engine: 16 processes on 2 slots, wall clock, beside the simulator.

The same processes run under each policy: nine of one tenant with four turns each, four of another with three and a tool
that takes a while, three of a third with one. All come at once. What is compared is the mean time from there to the end
of a process, and asked is whether the policies come in the same order as in the simulator (`bench/fair`), which gets
the very same calls: their sizes and pauses as they were measured in the first run, and the engine's measured speeds.

Every process is one of the kernel (spawn, holds, journal, timers) and every call is made by llama.cpp. Mains is the
kernel's own scheduler; the others are the policy classes of the simulator at a door before the engine (`door.py`, which
says how). Each run has a fresh engine and a fresh home. Two sides: with files of what was read of each process
("swap"), and with nothing but what the slots hold ("no swap"). Of more rounds every second is in the opposite order.

Other work on the machine lengthens a run, and so may change the order. The notes tell how fast the engine was in each
run: the tokens that it read and wrote, by the measured speeds, against the time in which it was busy. Where that
differs from run to run by as much as the means do, the order says nothing.

The numbers of processes, turns and tokens were chosen with the simulator alone, so that neighbours in the order are at
least 5 % apart. The opening prose was cut and mended after runs had shown two steps that the simulator does not know
(see `_PROSE`; docs/performance.md tells what came before).

Not run where xllamacpp or the model's file is missing: `mains engine fetch` gets it.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

import mains
from bench import kernel, machine
from bench.door import Door, Job, Seen
from bench.fair.call import Agent, Step
from bench.fair.engine import Speeds
from bench.fair.policies import POLICIES
from bench.fair.simulation import Simulation
from bench.report import Figure, Report, at_least
from mains.engines.catalogue import EngineSpec
from mains.engines.llama import LlamaEngine
from mains.engines.llama_child import ChildConfig
from mains.errors import ConfigError, KernelPanic
from mains.kernel.desk import Desk
from mains.kernel.ports import Engine, Message, Request, Sampling, Signal

SLOTS = 2
COMPARED = ("FCFS", "round robin", "1 s barrier", "Mains")  # the first one's calls are those of the simulator
_ROOM = 10**6  # tokens; files have room for all
_HELLO = Request((Message("user", "Hello."),), 1)  # the child starts at its first call
# The engine shares 48 tokens or more (4 bytes each). With the tool that the kernel counts it is less than 256:
# from there on the scheduler's locality lets a tenant keep the engine for a quantum, which is all that is done here.
_PROSE = {
    "long": """You are a patient storyteller in a small harbour town. You use plain words and never hurry. Each part
goes on where the last one ended, with the same people and ships. You never say that a story has come to its end.""",
    "mid": """You are a clerk in the office of a harbour. You write the log of the day: which ship came, what it had on
board, who signed for it, and what was missing at the quay. You never say that the day is over.""",
    "short": "You answer questions about a harbour town in one plain sentence.",
}
_ASKED = {
    "long": "Tell a long story about the family who lived in house number {number} by the sea, and begin with winter.",
    "mid": "Write the log of pier number {number}, from early in the morning on.",
    "short": "What do people in house number {number} see when they look out of the window?",
}


class Size(msgspec.Struct, frozen=True):
    """The mix, the sides, rounds, and how many prompts are read to measure the engine (before all runs, and after)."""

    mix: tuple[Job, ...]
    sides: tuple[str, ...]
    rounds: int
    probes: int


_MIX = (Job("long", 4, 12),) * 9 + (Job("mid", 3, 8, 0.3),) * 4 + (Job("short", 1, 8),) * 3
FULL = Size(_MIX, ("swap", "no swap"), 1, 3)
QUICK = Size((Job("long", 2, 2),) * 2 + (Job("mid", 2, 2, 0.05), Job("short", 1, 2)), ("swap",), 1, 1)


class Measured(msgspec.Struct, frozen=True):
    """One run: completion of each process by its place in the mix, its calls, and how long the engine was busy."""

    spans_s: tuple[float, ...]
    seen: tuple[Seen, ...]
    first_pid: int
    busy_s: float

    @property
    def mean_s(self) -> float:
        """The mean completion."""
        return statistics.fmean(self.spans_s)


class SlotsOnly(LlamaEngine):
    """The engine with nothing behind its slots: who loses one reads all again."""

    def _config(self, key: str) -> ChildConfig:
        return msgspec.structs.replace(super()._config(key), cache_ram_mib=0)


def _engine(folder: Path, side: str) -> LlamaEngine:
    spec = EngineSpec(name="llama", kind="llama", model="small", slots=SLOTS, context_tokens=8_192)
    if side == "swap":
        return LlamaEngine(spec, folder / "llama.log", mains.Settings(), kv=folder / "kv")
    return SlotsOnly(spec, folder / "llama.log", mains.Settings())


async def run(folder: Path, engine: Engine, policy: str, mix: Sequence[Job]) -> Measured:
    """All processes under one policy, in a fresh home. The engine is closed at the end."""
    await engine.complete(_HELLO, lambda _: None)
    tenants = sorted({job.program for job in mix})
    door = Door(engine, len(mix), None if policy == "Mains" else POLICIES[policy], len(tenants))
    async with mains.open(folder / "home", engines=[door]) as desk:
        for name in tenants:
            await desk.account_add(name)
            (folder / f"{name}.md").write_text(_program(name))
        pids = [await _spawned(desk, folder, door, number, job) for number, job in enumerate(mix)]
        door.open()
        begun = time.perf_counter()

        async def ended(pid: int) -> float:
            outcome = await desk.wait(pid)
            if outcome.exit_code != 0 or outcome.turns != door.jobs[pid].turns:
                raise KernelPanic(f"process {pid}: {outcome.state} {outcome.reason}, {outcome.turns} turns")
            return time.perf_counter() - begun

        for pid in pids:
            await desk.signal(pid, Signal.CONT)
        spans = await asyncio.gather(*(ended(pid) for pid in pids))
    return Measured(tuple(spans), tuple(door.seen), pids[0], door.busy_s)


def _program(name: str) -> str:
    head = f"name: {name}\ndescription: a part of the mix\ntools: [receive]\ntemperature: 0"
    return f"---\n{head}\n---\n{_PROSE[name]}\n"


async def _spawned(desk: Desk, folder: Path, door: Door, number: int, job: Job) -> int:
    """A process that may not run yet; its pid."""
    prompt = _ASKED[job.program].format(number=101 + 7 * number)
    pid = await desk.spawn(folder / f"{job.program}.md", {"prompt": prompt}, account=job.program, paused=True)
    door.jobs[pid] = job
    return pid


# ------------------------------------------------------------------------------------------------------- the engine


async def _rates(folder: Path, start: int, probes: int) -> tuple[list[float], list[float]]:
    """Tokens a second of reading alone, and of writing in each slot while all write."""
    folder.mkdir()
    engine = _engine(folder, "no swap")
    reads, writes = [], []
    try:
        await engine.complete(_HELLO, lambda _: None)
        for number in range(start, start + probes):
            text = " ".join(f"Line {at} of file {number} names item {number * 7_919 + at * 31}." for at in range(12))
            begun = time.perf_counter()
            reply = await engine.complete(_probe(text, 1), lambda _: None)
            assert reply.usage is not None
            reads.append((reply.usage.input_tokens - reply.usage.cached_tokens) / (time.perf_counter() - begun))
            asked = [_probe(_ASKED["long"].format(number=number * 10 + slot), 24) for slot in range(SLOTS)]
            writes += await asyncio.gather(*(_written_per_s(engine, request) for request in asked))
    finally:
        await engine.close()
    return reads, writes


def _probe(text: str, output_tokens: int) -> Request:
    return Request((Message("user", text),), output_tokens, sampling=Sampling(temperature=0.0))


async def _written_per_s(engine: LlamaEngine, request: Request) -> float:
    times: list[float] = []
    await engine.complete(request, lambda _: times.append(time.perf_counter()))
    return (len(times) - 1) / (times[-1] - times[0])


# ---------------------------------------------------------------------------------------------------- the simulator


def agents_of(run: Measured, mix: Sequence[Job]) -> list[Agent]:
    """The processes as the simulator takes them: sizes and pauses of the calls that were made."""
    tenants = sorted({job.program for job in mix})
    calls = {(one.pid - run.first_pid, one.turn): one for one in run.seen}
    made = []
    for number, job in enumerate(mix):
        mine = [calls[number, turn] for turn in range(1, job.turns + 1)]
        gaps = [*(one.gap_s for one in mine[1:]), 0.0]
        known = [0, *(one.usage.total for one in mine)]
        steps = tuple(
            Step(one.usage.input_tokens, max(1, one.usage.output_tokens), before, gap_s)
            for one, before, gap_s in zip(mine, known, gaps, strict=False)
        )
        opening = round(mine[0].opening * mine[0].usage.input_tokens)
        made.append(Agent(number, tenants.index(job.program), 0.0, steps, job.program, opening))
    return made


def simulated_s(agents: Sequence[Agent], speeds: Speeds) -> dict[str, float]:
    """The mean completion under each policy."""
    return {
        name: statistics.fmean(Simulation(agents, POLICIES[name], speeds).run().completion_s.values())
        for name in COMPARED
    }


def slot_tokens(run: Measured) -> int:
    """What all slots hold together, on average: the cache where there is no other."""
    return round(SLOTS * statistics.fmean(one.usage.total for one in run.seen))


# ------------------------------------------------------------------------------------------------------- the report


def same_order(one: Mapping[str, float], other: Mapping[str, float]) -> int:
    """How many pairs of policies are in the same order in both."""
    return sum((one[a] < one[b]) == (other[a] < other[b]) for a, b in itertools.combinations(one, 2))


def _order(means: Mapping[str, float]) -> str:
    return " < ".join(f"{name} ({means[name]:.1f} s)" for name in sorted(means, key=lambda name: means[name]))


def _judged(side: str, real: Mapping[str, float], simulated: Mapping[str, float]) -> tuple[list[Figure], list[str]]:
    figures = []
    for name in COMPARED:
        figures.append(Figure(f"mean, {name}, {side}", real[name], "s"))
        figures.append(Figure(f"mean, {name}, {side}, simulated", simulated[name], "s"))
    pairs = len(COMPARED) * (len(COMPARED) - 1) // 2
    same = same_order(real, simulated)
    figures.append(at_least(f"pairs in the same order, {side}", same, f"of {pairs}", pairs))
    tau = 2 * same / pairs - 1
    notes = [f"{side}, engine:    {_order(real)}", f"{side}, simulator: {_order(simulated)}; Kendall's tau {tau:.2f}"]
    return figures, notes


def _sum(run: Measured, field: str) -> int:
    return sum(getattr(one.usage, field) for one in run.seen)


def speed_of(run: Measured, speeds: Speeds) -> float:
    """How fast the engine was while it was busy; 1: as it was measured."""
    read = _sum(run, "input_tokens") - _sum(run, "cached_tokens")
    return (read / speeds.prefill_per_s + _sum(run, "output_tokens") / speeds.decode_per_s / SLOTS) / run.busy_s


def _used(side: str, policy: str, run: Measured, speeds: Speeds) -> str:
    read, cached, wrote = (_sum(run, field) for field in ("input_tokens", "cached_tokens", "output_tokens"))
    tokens = f"{len(run.seen)} calls, {read} tokens in, {cached} cached, {wrote} out"
    return f"{side}, {policy}: mean {run.mean_s:.1f} s, {tokens}, engine at {100 * speed_of(run, speeds):.0f} %"


async def _measure(folder: Path, size: Size) -> tuple[list[Figure], list[str]]:
    before = await _rates(folder / "before", 1, size.probes)
    runs: dict[str, dict[str, list[Measured]]] = {side: {policy: [] for policy in COMPARED} for side in size.sides}
    each = [(side, policy) for side in size.sides for policy in COMPARED]
    for number in range(size.rounds):
        for side, policy in reversed(each) if number % 2 else each:
            place = folder / f"{number}-{side}-{policy}".replace(" ", "-")
            place.mkdir()
            runs[side][policy].append(await run(place, _engine(place, side), policy, size.mix))
    after = await _rates(folder / "after", 1_001, size.probes)
    reads, writes = (statistics.median([*first, *last]) for first, last in zip(before, after, strict=True))
    figures = [Figure("read", reads, "tokens/s"), Figure(f"written in each of {SLOTS} slots", writes, "tokens/s")]
    notes = []
    for side, measured in runs.items():
        first = measured[COMPARED[0]][0]
        speeds = Speeds(SLOTS, reads, writes, _ROOM if side == "swap" else slot_tokens(first))
        real = {policy: statistics.fmean(one.mean_s for one in rounds) for policy, rounds in measured.items()}
        judged, told = _judged(side, real, simulated_s(agents_of(first, size.mix), speeds))
        figures += judged
        level = {
            policy: statistics.fmean(one.mean_s * speed_of(one, speeds) for one in rounds)
            for policy, rounds in measured.items()
        }
        notes += [*told, f"{side}, engine, each mean times the engine's speed in its run: {_order(level)}"]
        notes += [_used(side, policy, one, speeds) for policy, rounds in measured.items() for one in rounds]
    return figures, notes


def main(quick: bool) -> Report:
    """All policies on all sides."""
    size = QUICK if quick else FULL
    try:
        import xllamacpp  # noqa: F401 - is it there?

        from mains.engines import model_file

        model_file.find()
    except (ImportError, ConfigError) as error:
        return Report("policies", (), (f"not measured: {error}",))
    with machine.scratch() as folder:
        figures, notes = kernel.run(_measure(folder, size))
    rounds = f"rounds: {size.rounds}, a fresh engine and home for each run"
    note = f"{len(size.mix)} processes on {SLOTS} slots, all at once; {rounds}"
    return Report("policies", tuple(figures), (note, *notes))
