"""The scheduler against its slow reference, and its promises one by one."""

from __future__ import annotations

import random
import tracemalloc
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.unit.kernel.lane_reference import State, choose_reference

from mains.kernel.backlog import AGED, Call
from mains.kernel.bands import BANDS, EARNED, SHARE
from mains.kernel.ports import Usage
from mains.kernel.prefixes import Prefixes
from mains.kernel.programs import IDLE_MAX, Programs, level_of
from mains.kernel.scheduler import Lane
from mains.kernel.waiting import Waiting


def call(pid: int, tenant: int = 1, band: str = "normal", **others: object) -> Waiting:
    """A call of which a test says only what matters to it."""
    fields = {"program": pid, "input_tokens": 100, "output_tokens": 10, "prefix": ((pid, 100),), **others}
    return Waiting(pid=pid, tenant=tenant, band=band, **fields)  # type: ignore[arg-type]


class Twins:
    """A lane and its reference, driven by chance through the same."""

    def __init__(self, seed: int) -> None:
        chance = self._chance = random.Random(seed)
        slots, quantum = chance.choice([1, 2, 4]), chance.choice([1, 500, 8_192, 50_000])
        tokens_max, nodes_max = chance.choice([(500, 3), (8_000, 6), (20_000, 12), (10**9, 999)])
        self._lane = Lane(slots, quantum=quantum, prefix_tokens_max=tokens_max, prefix_nodes_max=nodes_max)
        self._state = State(slots, quantum, tokens_max, nodes_max, aged=chance.choice([2, 5, AGED]))
        self._pids, self._tenants = chance.choice([8, 25]), chance.choice([1, 2, 6])
        self._bands = chance.choice([BANDS, BANDS[2:3]])
        self._keys, self._depth = chance.choice([2, 4, 30]), chance.choice([1, 2, 4])
        self._deadlines = chance.choice([(0,), (0, 9_000, 30_000, 60_000)])

    def step(self) -> int:
        """One thing happens to both; how many calls were chosen (0 or 1)."""
        what = self._chance.random()
        if what < 0.35:
            self._add()
        elif what < 0.7:
            return self._choose()
        elif what < 0.95 and self._state.flights:
            self._end(self._chance.choice(list(self._state.flights)))
        else:
            pid = self._chance.randrange(self._pids)
            self._lane.discard(pid)
            self._state.discard(pid)
        assert (len(self._lane), self._lane.busy) == (len(self._state.queue), len(self._state.flights))
        return 0

    def _tokens(self) -> int:
        return self._chance.choice([0, 1, 100, 255, 256, 700, 3_000, self._chance.randrange(9_000)])

    def _add(self) -> None:
        chance = self._chance
        prefix = [(chance.randrange(self._keys), self._tokens()) for _ in range(chance.randrange(self._depth + 1))]
        new = Waiting(
            pid=chance.randrange(self._pids), tenant=chance.randint(1, self._tenants), band=chance.choice(self._bands),
            program=chance.randrange(4), input_tokens=self._tokens(), output_tokens=chance.choice([0, 10, 2_000]),
            prefix=tuple(prefix), deadline_ms=chance.choice(self._deadlines),
        )  # fmt: skip
        if new.pid not in self._state.flights:
            self._lane.add(new)
            self._state.add(new)

    def _choose(self) -> int:
        now_ms = self._chance.randrange(60_000)
        wanted = choose_reference(self._state, now_ms)
        with mock.patch("mains.kernel.backlog.AGED", self._state.aged):
            assert self._lane.choose(now_ms) == wanted
        if wanted is None:
            return 0
        self._state.take(wanted)
        return 1

    def _end(self, pid: int) -> None:
        usage = self._chance.choice([None, Usage(self._tokens(), 0, self._chance.choice([0, 10, 4_000]))])
        settles, releases = self._chance.random() < 0.9, self._chance.random() < 0.9
        for each in (self._lane, self._state):
            if settles:
                each.settle(pid, usage)
            if releases:
                each.release(pid)


@settings(max_examples=60, deadline=None)
@example(51_103)  # a level changed, and the tenants' index did not know
@given(st.integers(0, 2**32))
def test_the_lane_chooses_as_the_reference_does(seed: int) -> None:
    twins = Twins(seed)
    for _ in range(150):
        twins.step()


def test_the_property_above_makes_choices() -> None:
    worlds = [Twins(seed) for seed in range(10)]
    assert sum(twins.step() for twins in worlds for _ in range(150)) > 200


@pytest.mark.parametrize("seed", range(10))
def test_a_lane_of_many_calls_tidies_up_and_still_chooses_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("backlog", "tenants"):
        monkeypatch.setattr(f"mains.kernel.{module}._SLACK", 4)
    twins = Twins(seed)
    for _ in range(200):
        twins.step()


def served(lane: Lane, band_of: dict[int, str], number: int) -> list[str]:
    """Serve so many calls, each at once; their bands."""
    bands = []
    for _ in range(number):
        chosen = lane.choose(0)
        assert chosen is not None
        bands.append(band_of[chosen.pid])
        lane.settle(chosen.pid, None)
        lane.release(chosen.pid)
        lane.add(chosen)
    return bands


def test_batch_work_gets_a_token_for_each_eight() -> None:
    lane = Lane(1)
    lane.add(call(1, band="interactive"))
    lane.add(call(2, band="batch", input_tokens=5_000, prefix=()))
    lane.add(call(3, band="interactive"))
    bands = served(lane, {1: "interactive", 2: "batch", 3: "interactive"}, 3_000)
    batch, other = bands.count("batch") * 5_040, bands.count("interactive") * 40
    assert abs(batch - (other / SHARE)) <= 5_040 + EARNED


def test_the_oldest_call_goes_as_the_book_says() -> None:
    assert State(1, 1, 1, 1).aged == AGED


@pytest.mark.parametrize("others", ["warmer", "newer"])
def test_nobody_in_a_tenant_starves(others: str) -> None:
    """Whoever keeps coming, warmer or of a new program: the oldest call is the 32nd choice at the latest."""
    lane = Lane(1)
    lane.add(call(1, program=1, prefix=(("hot", 2_000),)))
    lane.choose(0)
    lane.settle(1, Usage(0 if others == "warmer" else 10**6, 0, 0))
    lane.release(1)
    cold = call(0, program=1, prefix=(("cold", 9_000),))
    lane.add(cold)
    came, chosen = 1, []
    while cold not in chosen:
        while len(lane) < 3:
            came += 1
            lane.add(call(came, program=1 if others == "warmer" else came, prefix=(("hot", 2_000),)))
        each = lane.choose(0)
        assert each is not None
        chosen.append(each)
        lane.settle(each.pid, Usage())
        lane.release(each.pid)
    assert len(chosen) == AGED


def test_a_closed_lane_chooses_nobody_until_its_time() -> None:
    lane = Lane(1)
    lane.add(call(1))
    lane.closed_until_ms = 500
    assert lane.choose(499) is None
    assert lane.next_ms(499) == 500
    assert lane.choose(500) == call(1)
    assert lane.next_ms(500) is None


class Toll:
    """A gate that lets small calls through at once, and large ones from a time on."""

    def __init__(self) -> None:
        self.passed: list[int] = []

    def allows(self, waiting: Waiting, now_ms: int) -> bool:
        return waiting.input_tokens < 1_000 or now_ms >= 700

    def next_ms(self, waiting: Waiting, now_ms: int) -> int:
        return 700

    def dispatched(self, waiting: Waiting, now_ms: int) -> None:
        self.passed.append(waiting.pid)


def test_nobody_overtakes_a_call_that_waits_at_the_gate() -> None:
    lane = Lane(2, gate=(toll := Toll()))
    for each in (call(1, input_tokens=5_000), call(2), call(3)):
        lane.add(each)
    assert lane.choose(0) is None
    assert lane.next_ms(0) == 700
    assert [lane.choose(700), lane.choose(700)] == [call(1, input_tokens=5_000), call(2)]
    assert toll.passed == [1, 2]


def test_who_is_ready_before_its_slot_is_back_waits_for_that() -> None:
    lane = Lane(2)
    lane.add(call(1))
    assert lane.choose(0) == call(1)
    lane.add(call(1, input_tokens=300))
    assert (1 in lane, len(lane), lane.choose(0)) == (True, 1, None)
    lane.release(1)
    assert lane.choose(0) == call(1, input_tokens=300)
    lane.add(call(1))
    lane.discard(1)
    lane.release(1)
    assert (len(lane), lane.busy) == (0, 0)


def test_a_program_that_had_little_goes_before_one_that_had_much() -> None:
    lane = Lane(1)
    lane.add(call(1, program=7, prefix=()))
    assert lane.choose(0) is not None
    lane.settle(1, Usage(50_000, 0, 0))
    lane.release(1)
    lane.add(call(2, program=7, prefix=()))
    lane.add(call(3, program=8, prefix=()))
    assert lane.choose(0) == call(3, program=8, prefix=())


def test_who_returns_with_a_warm_prompt_goes_first() -> None:
    lane = Lane(1)
    lane.add(call(1, prefix=(("image", 400), (1, 100))))
    lane.choose(0)
    lane.settle(1, Usage(500, 0, 100))
    lane.release(1)
    lane.add(call(2, prefix=(("image", 400), (2, 5_000))))
    lane.add(back := call(1, prefix=(("image", 400), (1, 300))))
    assert lane.choose(0) == back


def test_a_program_that_had_little_goes_before_one_that_is_warm_and_had_much() -> None:
    lane = Lane(1)
    lane.add(call(1, program=7, prefix=(("image", 400), (7, 9_000))))
    assert lane.choose(0) is not None
    lane.settle(1, Usage(9_400, 0, 0))
    lane.release(1)
    lane.add(call(2, program=7, prefix=(("image", 400), (7, 9_000))))
    lane.add(new := call(3, program=8, prefix=(("other", 400), (8, 9_000))))
    assert lane.choose(0) == new


def test_a_tenant_is_weighed_by_the_call_that_it_would_send() -> None:
    """The warm call of tenant 2 is not its next one, so it brings tenant 2 nothing; what is equal goes by number."""
    lane = Lane(1)
    lane.add(call(1, 2, program=7, prefix=(("image", 9_000),)))
    assert lane.choose(0) is not None
    lane.settle(1, Usage(9_000, 0, 0))
    lane.release(1)
    lane.add(call(2, 2, program=7, prefix=(("image", 9_000),)))
    lane.add(call(3, 2, program=8, prefix=(("new", 9_000),)))
    lane.add(call(4, 1, program=9, prefix=(("new", 9_000),)))
    assert [each.pid for each in (lane.choose(0),) if each] == [4]


def test_a_program_that_reaches_a_level_changes_what_its_tenants_would_send() -> None:
    """The cold call 4 was next of tenant 2; when its program has had much, the warm 3 is, and brings tenant 2 up."""
    lane = Lane(2)
    lane.add(call(1, 2, program=8, prefix=(("hot", 400),)))
    assert lane.choose(0) is not None
    lane.settle(1, Usage(5_000, 0, 0))
    lane.release(1)
    lane.add(call(2, 3, program=7))
    assert lane.choose(0) is not None
    lane.add(call(3, 2, program=8, prefix=(("hot", 400),)))
    lane.add(call(4, 2, program=7))
    lane.add(call(5, 1, program=9))
    lane.settle(2, Usage(10**6, 0, 0))
    lane.release(2)
    assert [each.pid for each in (lane.choose(0),) if each] == [3]


def test_levels_are_powers_of_four() -> None:
    assert [level_of(t) for t in (0, 4_095, 4_096, 16_383, 16_384, 65_535, 65_536)] == [0, 0, 1, 1, 2, 2, 3]


def test_programs_and_prompts_are_forgotten_in_bounds() -> None:
    programs = Programs()
    for program in range(IDLE_MAX + 5):
        programs.waits(program, each := Call(call(program), program))
        programs.leaves(program, each)
        programs.ended(program, 5_000)
    assert (programs.level(0), programs.level(5)) == (0, 1)
    prefixes = Prefixes(tokens_max=1_000, nodes_max=50)
    for number in range(500):
        prefixes.drop(prefixes.use(1, (("image", 100), (number, 40))))
        assert prefixes.tokens <= 1_000
        assert prefixes.nodes <= 50
    for tenant, number, cached in ((1, 499, 140), (1, 1, 100), (2, 499, 0)):
        prefixes.use(tenant, (("image", 100), (number, 40)))
        assert prefixes.change.cached == cached


def test_calls_that_come_and_go_while_the_engine_is_busy_leave_nothing() -> None:
    """A tenant that has overdrawn waits in vain behind one long call, again and again."""
    lane = Lane(1)
    for each in (call(1, tenant=1), call(2, tenant=2, input_tokens=50_000)):
        lane.add(each)
    served(lane, {1: "", 2: ""}, 2)
    lane.discard(2)
    while (chosen := lane.choose(0)) is None:
        lane.add(call(3, tenant=3))
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(30_000):
        lane.add(call(10 + number, tenant=2, program=2))
        lane.discard(10 + number)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert chosen.tenant != 2
    assert grown < 1_000_000, "what these calls leave in an index is bounded"
