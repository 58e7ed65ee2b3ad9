"""Recorded runs of agents, replayed as frames: what a policy sends at each turn, and what an engine bills for it.

A run is its opening and its steps. `bench/data/agents.json` has of each call the input, what of it the call before had,
and the output, in tokens (characters / 4). What the input grew by from one call to the next is a reply and a result:
the reply is the output, but at most the growth (some of these agents keep only a part of it), the result is the rest.
A call that does not extend the one before (agents that take turns in one session) begins a run of its own.

A policy makes of the history the frames; a frame is a list of items, and an item that changed is another item. What an
engine has of a frame is the longest common beginning with the frame before, so nothing here believes what a policy
says of itself. Prices: 1 for a token that the engine still has, 10 for one it reads, 50 for one it writes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from mains.kernel.eviction import Rates

DATA = Path(__file__).resolve().parent / "data" / "agents.json"
RATES = Rates(1.0, 10.0, 50.0)
INSTRUCTION = 60  # tokens that ask for a summary
CALL = 30  # tokens of a call that reads something back


class Step(NamedTuple):
    """What one turn adds to the frame, in tokens, and what the model wrote for the next one. `back`: read back."""

    reply: int
    result: int
    output: int
    back: bool = False


class Run(NamedTuple):
    """An agent's life: the opening, of which the engine had `known`; `steps[0]` adds nothing."""

    opening: int
    known: int
    steps: tuple[Step, ...]


class Item(NamedTuple):
    """A piece of a frame: what stands at `place`, in which form; the same item again is the same text."""

    place: int
    form: str
    tokens: int


class Frame(NamedTuple):
    """What is sent in one turn; before it, the policy may have let the model write a summary of a beginning."""

    items: list[Item]
    asked: int = 0  # tokens of the summary's own call that the engine has
    written: int = 0  # tokens of the summary
    fits: bool = True


class Policy(Protocol):
    """Makes frames out of what came. One object for one run."""

    def frame(self, turn: int, step: Step) -> Frame:
        """The frame of this turn, after `step` has joined the history."""
        ...

    def wants_back(self) -> list[int]:
        """Tokens of things that the model reads back before the next turn, each with a call of its own."""
        ...


class _Session(msgspec.Struct):
    suite: str
    calls: list[tuple[int, int, int]]


def runs(suite: str) -> list[Run]:
    """The recorded runs of a suite."""
    sessions = msgspec.json.decode(DATA.read_bytes(), type=list[_Session])
    return [run for session in sessions if session.suite == suite for run in _split(session.calls)]


def _split(calls: list[tuple[int, int, int]]) -> Iterator[Run]:
    opening, known, steps = calls[0][0], calls[0][1], [Step(0, 0, calls[0][2])]
    for (before, _, wrote), (size, common, output) in pairwise(calls):
        if common < before:
            yield Run(opening, known, tuple(steps))
            opening, known, steps = size, common, [Step(0, 0, output)]
        else:
            reply = min(wrote, size - before)
            steps.append(Step(reply, size - before - reply, output))
    yield Run(opening, known, tuple(steps))


class Bill:
    """What a policy cost over many runs, in prices of a cached token, and how its frames behaved."""

    def __init__(self) -> None:
        self.input = 0.0
        self.output = 0.0
        self.turns = self.sent = self.read = self.pairs = self.extended = self.summaries = self.misfits = (
            self.faults
        ) = 0

    @property
    def total(self) -> float:
        """Input and output."""
        return self.input + self.output

    @property
    def stability(self) -> float:
        """Of the turns that have one before them, the share whose frame only extends the one before."""
        return self.extended / self.pairs if self.pairs else 1.0

    def call(self, known: int, fresh: int, output: int) -> None:
        """A model call is billed."""
        self.input += known * RATES.cached + fresh * RATES.uncached
        self.output += output * RATES.output
        self.sent += known + fresh
        self.read += fresh

    def turn(self, run: Run, before: list[Item], frame: Frame, output: int) -> None:
        """A turn is billed, with the summary that came before it."""
        if frame.written:
            self.call(frame.asked, INSTRUCTION, frame.written)
            self.summaries += 1
        same = _common(before, frame.items)
        known = sum(item.tokens for item in frame.items[:same]) if before else run.known
        self.call(known, sum(item.tokens for item in frame.items) - known, output)
        self.turns += 1
        self.misfits += not frame.fits
        if before:
            self.pairs += 1
            self.extended += same == len(before)


def _common(before: list[Item], after: list[Item]) -> int:
    pairs = enumerate(zip(before, after, strict=False))
    return next((at for at, (old, new) in pairs if old != new), min(len(before), len(after)))


def replay(bill: Bill, run: Run, policy: Policy) -> None:
    """Let a run pass through a policy; what is read back becomes turns of its own."""
    before: list[Item] = []
    turn = 0
    for step in run.steps:
        wanted = policy.wants_back() if turn else []
        for step_now in (*(Step(CALL, size, CALL, back=True) for size in wanted), step):
            frame = policy.frame(turn, step_now)
            bill.turn(run, before, frame, step_now.output)
            before, turn = frame.items, turn + 1
        bill.faults += len(wanted)


def chance_of(seed: int, number: int) -> random.Random:
    """The chance of one run: the same for every policy."""
    return random.Random(f"{seed}/{number}")
