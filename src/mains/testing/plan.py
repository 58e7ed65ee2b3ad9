"""The plan of a simulation: what people, the power and the disk do to a kernel, as a list that a seed gives. Pure.

An action names nobody: `which` chooses among those that there are when its turn comes, so that a plan from which
actions were taken away (`shrink.py`) is still one. `turns` is how many turns of the event loop follow it (-1: until
nothing is left to do).
"""

from __future__ import annotations

import random

import msgspec

from mains.settings import Settings
from mains.testing.disk import FAULTS

STEPS = 200
SIGNALS = ("STOP", "CONT", "CONT", "TERM", "KILL", "INT")
ANSWERS = ("yes", "retry", "skip", "done=1", 'done="so it was"', "done=[", "perhaps")


class Action(msgspec.Struct, frozen=True):
    """One thing that happens to the kernel from outside."""

    kind: str
    which: int = 0
    value: int = 0
    text: str = ""
    turns: int = 0


class Plan(msgspec.Struct, frozen=True):
    """What happens in one simulation, and under which limits."""

    seed: int
    actions: tuple[Action, ...]
    settings: Settings
    slots: tuple[int, int]
    crashes_min: int = 2
    trouble: float = 1.0  # how often engines and devices fail: 0 never, 1 as a seed has it
    junk: float = 0.0  # how many calls of a model are made of anything that JSON can say


_OFTEN = {
    "advance": 36, "send": 22, "spawn": 14, "signal": 14, "answer": 14, "wait": 10, "fork": 6, "look": 4,
    "jump": 3, "odd": 4, "exec": 5, "group": 2, "rest": 12,
}  # fmt: skip


def plan_of(seed: int, steps: int = STEPS, *, grind: bool = False) -> Plan:
    """The plan of a seed: at least five processes, two crashes, and `steps` actions.

    `grind`: most orders and most calls of the models are ones that nobody in his right mind makes.
    """
    chance = random.Random(f"plan {seed}")  # noqa: S311 - a simulation is to be foreseen
    actions = [_spawn(chance) for _ in range(5)]
    often = _OFTEN | {"odd": 150} if grind else _OFTEN
    kinds, weights = list(often), list(often.values())
    while len(actions) < steps:
        kind = chance.choices(kinds, weights)[0]
        actions.append(_spawn(chance) if kind == "spawn" else _action(chance, kind))
    special = [
        Action("crash", value=chance.randrange(40), turns=_turns(chance)) for _ in range(chance.choice((2, 3, 4)))
    ]
    for _ in range(chance.choice((0, 1, 1, 2, 3))):
        times, after = chance.choice((1, 1, 2, 5)), chance.randrange(30)
        special.append(Action("fault", times, after, chance.choice((*FAULTS, "torn")), _turns(chance)))
    special += [Action("halt", turns=-1)] * chance.choice((0, 1, 1, 2))
    for place, action in zip(chance.sample(range(10, steps), len(special)), special, strict=True):
        actions[place] = action
    slots = chance.choice((1, 2, 4)), chance.choice((1, 3))
    return Plan(seed, tuple(actions), _settings(chance), slots, junk=0.7 if grind else 0.0)


def _turns(chance: random.Random) -> int:
    return chance.choice((0, 1, 2, 3, 5, 8, 13, 30, 60, -1, -1, -1, -1))


def _action(chance: random.Random, kind: str) -> Action:
    which, turns = chance.randrange(1 << 16), _turns(chance)
    match kind:
        case "advance":
            return Action(kind, value=chance.choice((1, 20, 300, 1_000, 5_000, 30_000, 200_000, 700_000)), turns=turns)
        case "jump":
            return Action(kind, value=chance.choice((-2_000, -50, -1, 700, 60_000, 4_000_000)), turns=turns)
        case "send":
            return Action(kind, which, chance.randrange(1 << 16), chance.choice(("", "", "key")), turns)
        case "signal":
            return Action(kind, which, text=chance.choice(SIGNALS), turns=turns)
        case "group":
            return Action(kind, which, text=chance.choice(("STOP", "CONT", "CONT", "TERM")), turns=turns)
        case "exec":
            return Action(kind, which, text=chance.choice(("root", "keeper", "worker", "former")), turns=turns)
        case "answer":
            return Action(kind, which, text=chance.choice(ANSWERS), turns=turns)
        case "odd":
            return Action(kind, which, chance.randrange(1 << 16), turns=turns)
        case "rest":
            return Action(kind, turns=-1)
        case _:
            return Action(kind, which, turns=turns)


def _spawn(chance: random.Random) -> Action:
    program = chance.choice(("root", "root", "keeper", "keeper", "worker", "former", "hourly"))
    budget = chance.choice((0, 0, 900, 2_000, 6_000, 20_000))
    kind = chance.choice(("spawn", "spawn", "spawn", "converse", "paused", "keyed"))
    return Action(kind, chance.randrange(1 << 16), budget, program, _turns(chance))


def _settings(chance: random.Random) -> Settings:
    """Small limits, so that a short run meets all of them."""
    return Settings(
        output_tokens_max=64,
        turns_max=chance.choice((8, 15)),
        calls_per_turn_max=4,
        mends_max=1,
        model_attempts_max=chance.choice((1, 3)),
        device_attempts_max=2,
        result_bytes_max=200,
        depth_max=3,
        children_max=chance.choice((4, 12)),
        processes_max=chance.choice((8, 24)),
        mailbox_messages_max=chance.choice((2, 8)),
        message_bytes_max=400,
        wakes_per_commit_max=chance.choice((1, 3, 500)),
        device_calls_max=chance.choice((1, 2, 8)),
        commits_queued_max=chance.choice((3, 1_000, 1_000)),
        commits_per_batch_max=chance.choice((1, 2, 5, 256)),
        checkpoint_events=chance.choice((10, 60, 50_000)),
        wal_pages=chance.choice((8, 60, 1_000)),
        disk_full_wait_s=chance.choice((1, 60)),
        frame_cache_bytes=chance.choice((500, 4_000, 1_000_000)),
        page_cache_bytes=chance.choice((64 * 1024, 1024 * 1024)),
        frame_tokens_max=chance.choice((2_000, 3_000, 4_000, 128_000)),
        view_tokens_max=chance.choice((30, 80, 1_024)),
        summary_tokens_max=chance.choice((40, 200)),
        frame_high_percent=chance.choice((20, 60, 90)),
        frame_low_percent=chance.choice((10, 20, 50)),
    )
