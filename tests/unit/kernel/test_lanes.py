"""What the scheduler is told of a process, and the lanes of several engines."""

from __future__ import annotations

from typing import Any

import pytest

from mains import Settings
from mains.engines.scripted import ScriptedEngine
from mains.errors import ConfigError, EngineError, Spent
from mains.kernel.lanes import Lanes, waiting_of
from mains.kernel.ports import Engine, EngineState, Reply, Usage
from mains.kernel.process import Map, Process, State, replace
from mains.kernel.waiting import OUTPUT_WEIGHT


def process(pid: int = 1, **others: Any) -> Process:
    fields: dict[str, Any] = {
        "name": "p", "program": "prog", "tree": "tree", "inputs": "in", "tools": "tools", "accounts": (pid, 0),
        "output_tokens_max": 1_000, "created_ms": 0, "engine": "a", "model": "m", "state": State.READY,
        "frame_tokens": 500, "opening_tokens": 200, "reserve_tokens": 50, **others,
    }  # fmt: skip
    return Process(pid=pid, **fields)


class Two:
    """Two engines with a slot each."""

    def __init__(self, cache_tokens: int = 0) -> None:
        self._engine = ScriptedEngine.of(lambda request: Reply(""), slots=1)
        self._engine.cache_tokens = cache_tokens

    def find(self, name: str, model: str) -> Engine:
        if name not in ("a", "b"):
            raise ConfigError(f"no engine {name}")
        return self._engine

    def states(self) -> list[EngineState]:
        return []

    async def close(self) -> None:
        return


def test_a_process_is_told_by_its_record() -> None:
    told = waiting_of(process(3, band="batch"))
    assert (told.pid, told.tenant, told.band, told.program) == (3, 0, "batch", 3)
    assert (told.input_tokens, told.output_tokens) == (550, 1_000)
    assert told.prefix == ((("tools", "prog"), 250), ((3, 0), 300))


def test_the_program_is_the_root_of_the_process_tree() -> None:
    named = (1 << 40) + 7
    assert waiting_of(process(9, accounts=(9, 5, 2, 0))).program == 2
    assert waiting_of(process(9, accounts=(9, 5, 2, named, 0))).program == 2
    assert waiting_of(process(9, accounts=(9, named, 0))).program == 9


def test_a_fork_goes_on_with_the_prompt_of_its_source_and_a_child_does_not() -> None:
    forked = process(4, parent=2, maps=(Map(2, 5, 17, 1),))
    assert waiting_of(forked).prefix[1][0] == waiting_of(process(2, breaks=1)).prefix[1][0]
    assert waiting_of(replace(forked, breaks=1)).prefix[1][0] == (4, 1), "something of its own was evicted"
    assert waiting_of(process(4, parent=2, spawned_by="call")).prefix[1][0] == (4, 0)


def test_output_is_estimated_by_what_was_made_before_and_its_cap() -> None:
    assert waiting_of(process(turn=4, output_tokens=400)).output_tokens == 201
    assert waiting_of(process(turn=1, output_tokens=900)).output_tokens == 1_000


def test_a_process_leaves_its_lane_when_it_is_not_ready_or_wants_another_engine() -> None:
    lanes = Lanes(Two(), Settings())
    for p in (process(1), process(2)):
        lanes.queue(p, 0)
    lanes.follow(process(1, state=State.STOPPED))
    lanes.follow(process(2, engine="b"))
    assert len(lanes) == 0
    lanes.queue(process(2, engine="b"), 0)
    assert list(lanes.choices(0)) == [("b", 2)]
    assert len(lanes) == 0


def test_each_engine_gives_its_own_slots_and_may_be_closed() -> None:
    lanes = Lanes(Two(), Settings())
    for pid, engine in ((1, "a"), (2, "b"), (3, "a")):
        lanes.queue(process(pid, engine=engine), 0)
    assert list(lanes.choices(0)) == [("a", 1), ("b", 2)]
    lanes.failed("a", 1, EngineError("busy", retryable=True, spent=Spent.NOTHING, retry_after_s=0.9), 0)
    lanes.release("a", 1, 0)
    assert (list(lanes.choices(0)), lanes.times_ms(0)) == ([], [900])
    assert list(lanes.choices(900)) == [("a", 3)]


@pytest.mark.parametrize(("cache_tokens", "left"), [(0, 300), (600, 0)])
def test_a_lane_believes_in_no_more_than_its_engine_keeps(cache_tokens: int, left: int) -> None:
    """Two prompts of 550 tokens with 250 in common do not fit into 600: the older one's own part is forgotten."""
    lanes = Lanes(Two(cache_tokens), Settings())
    for pid in (1, 2):
        lanes.queue(process(pid), 0)
        assert list(lanes.choices(0)) == [("a", pid)]
        lanes.answered("a", pid, Reply("", usage=Usage(550, 0, 0)), 0)
        lanes.release("a", pid, 0)
    assert 550 - lanes._backends["a"].lane.new_tokens(waiting_of(process(1))) == 250 + left


def test_an_engine_that_is_not_there_is_said_and_leaves_nothing() -> None:
    lanes = Lanes(Two(), Settings())
    with pytest.raises(ConfigError):
        lanes.queue(process(engine="gone"), 0)
    assert len(lanes) == 0


@pytest.mark.parametrize(("spent", "charged"), [(Spent.NOTHING, 0), (Spent.UNKNOWN, 550 + OUTPUT_WEIGHT * 1_000)])
def test_a_call_that_failed_is_charged_what_it_may_have_cost(spent: Spent, charged: int) -> None:
    lanes = Lanes(Two(), Settings())
    lanes.queue(process(1), 0)
    assert list(lanes.choices(0)) == [("a", 1)]
    lanes.queue(process(2), 0)
    tenant = lanes._backends["a"].lane._bands[2].get(0)
    assert tenant is not None
    lanes.failed("a", 1, EngineError("broke", retryable=True, spent=spent), 0)
    lanes.release("a", 1, 0)
    assert tenant.spent == charged
