"""The simulator of serving: what it computes can be computed by hand, nothing is lost, and the policies differ."""

from __future__ import annotations

import random
import statistics

import msgspec
import pytest
from bench.fair import pauses, scores, workloads
from bench.fair.adversaries import ADVERSARIES
from bench.fair.cache import PrefixCache
from bench.fair.call import Agent, Call, Step
from bench.fair.engine import Speeds
from bench.fair.gaps import Gaps
from bench.fair.policies import POLICIES
from bench.fair.policies.mains import bound
from bench.fair.simulation import Outcome, Simulation, demands

from mains.kernel.waiting import OUTPUT_WEIGHT

SLOW = Speeds(slots=1, prefill_per_s=100.0, decode_per_s=10.0, cache_tokens=10_000)


def crowd(count: int = 60, seed: int = 5) -> list[Agent]:
    return workloads.agent_mix(Speeds(), load=1.5, agents=count, seed=seed)


def run(policy: str, agents: list[Agent], speeds: Speeds = SLOW, **more: float) -> Outcome:
    return Simulation(agents, POLICIES[policy], speeds, **more).run()


def waits(outcome: Outcome, tenant: int) -> list[float]:
    return [wait for one, wait in outcome.waits if one == tenant]


def test_two_calls_by_hand() -> None:
    """300 tokens read in 3 s, 20 written in 2 s; 4 s of pause; 80 new of 400 read in 0.8 s, 10 written in 1 s."""
    agent = Agent(0, 0, 1.0, (Step(300, 20, 0, 4.0), Step(400, 10, 320)))
    outcome = run("FCFS", [agent])
    assert outcome.completion_s == {0: pytest.approx(5 + 4 + 1.8)}
    assert (outcome.cached, outcome.input_tokens, outcome.output_tokens) == (320, 700, 30)
    assert outcome.served == {0: 300 + 80 + OUTPUT_WEIGHT * 30}
    assert outcome.amplification == 1.0
    assert workloads.ideal_s(agent, SLOW) == pytest.approx(10.8)


def test_slots_decode_side_by_side_and_read_one_after_the_other() -> None:
    agents = [Agent(number, 0, 0.0, (Step(100, 10),)) for number in range(2)]
    outcome = run("FCFS", agents, msgspec.structs.replace(SLOW, slots=2))
    assert outcome.completion_s == {0: pytest.approx(2.0), 1: pytest.approx(3.0)}


@pytest.mark.parametrize("policy", POLICIES)
def test_all_that_is_asked_is_served_and_the_same_again(policy: str) -> None:
    agents = crowd()
    outcome = run(policy, agents, Speeds(cache_tokens=20_000))
    steps = [step for agent in agents for step in agent.steps]
    assert outcome.calls == len(steps)
    assert outcome.unserved == 0
    assert set(outcome.completion_s) == {agent.number for agent in agents}
    assert outcome.input_tokens == sum(step.input_tokens for step in steps)
    assert outcome.output_tokens == sum(step.output_tokens for step in steps)
    uncached = outcome.input_tokens - outcome.cached
    assert sum(outcome.served.values()) == uncached + OUTPUT_WEIGHT * outcome.output_tokens
    assert outcome.amplification >= 1
    assert run(policy, crowd(), Speeds(cache_tokens=20_000)) == outcome


@pytest.mark.parametrize("policy", POLICIES)
def test_what_is_cut_off_is_counted(policy: str) -> None:
    agents = [Agent(number, number % 2, 0.0, (Step(100, 10),)) for number in range(50)]
    outcome = run(policy, agents, until_s=20.0)
    assert outcome.calls + outcome.unserved == len(agents)
    assert outcome.longest_wait_s() == 20.0


def test_another_seed_is_another_crowd() -> None:
    assert crowd(seed=5) == crowd(seed=5) != crowd(seed=6)


def test_fcfs_lets_a_crowd_go_first_and_round_robin_does_not() -> None:
    agents = [Agent(number, 0, 0.0, (Step(100, 10),)) for number in range(9)] + [Agent(9, 1, 0.0, (Step(100, 10),))]
    assert waits(run("FCFS", agents), 1) == [pytest.approx(18.0)]
    assert waits(run("round robin", agents), 1) == [pytest.approx(2.0)]


def test_the_barrier_waits_for_its_batch_and_a_second() -> None:
    """The first sleep ends at 1; the batch ends at 3 and at 12; the next sleep ends at 13, and who came at 1.5 goes."""
    two = msgspec.structs.replace(SLOW, slots=2)
    agents = [
        Agent(0, 0, 0.0, (Step(100, 10),)),
        Agent(1, 0, 0.0, (Step(100, 90),)),
        Agent(2, 0, 1.5, (Step(100, 10),)),
    ]
    outcome = run("1 s barrier", agents, two)
    assert outcome.completion_s == {0: pytest.approx(3.0), 1: pytest.approx(12.0), 2: pytest.approx(13.5)}
    assert run("FCFS", agents, two).completion_s[2] == pytest.approx(2.5)


def test_the_rpm_limit_holds_back_though_the_engine_is_idle() -> None:
    """The limit is the number of slots until the first call has ended: the second call waits for a minute."""
    agents = [Agent(number, 0, 0.0, (Step(1, 1),)) for number in range(2)]
    outcome = run("RPM limit", agents)
    assert waits(outcome, 0) == [0.0, pytest.approx(60.0)]


def test_vtc_counts_tokens_and_not_calls() -> None:
    large = [Agent(number, 0, 0.0, (Step(1_000, 100),)) for number in range(10)]
    small = [Agent(10 + number, 1, 0.0, (Step(100, 10),)) for number in range(10)]
    vtc, rounds = (run(policy, large + small, until_s=40.5).served for policy in ("VTC", "round robin"))
    assert rounds[0] >= 5 * rounds[1]
    assert vtc[1] == 10 * (100 + OUTPUT_WEIGHT * 10)


def test_plas_prefers_who_has_had_little() -> None:
    """At 14 the slot is free: the veteran has waited since 11.5 and has had 11 s, the newcomer came at 12."""
    veteran = Agent(0, 0, 0.0, (Step(100, 100, 0, 0.5), Step(100, 10)))
    between = Agent(1, 0, 1.0, (Step(100, 20),))
    newcomer = Agent(2, 0, 12.0, (Step(100, 10),))
    agents = [veteran, between, newcomer]
    assert waits(run("PLAS", agents), 0) == pytest.approx([0, 10, 2, 4.5])
    assert waits(run("FCFS", agents), 0) == pytest.approx([0, 10, 2.5, 4])


def test_dlpm_prefers_the_longest_cached_prefix() -> None:
    opener = Agent(0, 0, 0.0, (Step(500, 10),), "warm", 400)
    cold = Agent(1, 0, 1.0, (Step(500, 10),))
    warm = Agent(2, 0, 2.0, (Step(500, 10),), "warm", 400)
    outcome = run("DLPM", [opener, cold, warm])
    assert outcome.completion_s[2] < outcome.completion_s[1]
    assert run("FCFS", [opener, cold, warm]).completion_s[2] > run("FCFS", [opener, cold, warm]).completion_s[1]


@pytest.mark.parametrize("name", ADVERSARIES)
def test_mains_keeps_its_bound_beside_every_adversary(name: str) -> None:
    speeds = Speeds()
    outcome = Simulation(ADVERSARIES[name](speeds, 60.0), POLICIES["Mains"], speeds, until_s=60.0).run()
    assert outcome.gaps[0, 1] < bound(speeds.slots, outcome.dearest)


def test_a_tool_that_never_returns_ends_no_agent_and_holds_nobody_up() -> None:
    stuck = Agent(0, 0, 0.0, (Step(100, 10, 0, float("inf")), Step(100, 10)))
    other = Agent(1, 1, 0.0, (Step(100, 10),))
    assert set(run("Mains", [stuck, other]).completion_s) == {1}
    assert demands([stuck, other], 100.0) == {0: 140, 1: 140}


def test_the_cache_drops_what_was_used_longest_ago_from_its_end() -> None:
    cache = PrefixCache(250)
    old, young = (
        Call(Agent(number, 0, 0.0, (Step(90, 10), Step(150, 10, 100))), 0, 0.0, number) for number in range(2)
    )
    for call in (old, young):
        assert cache.begin(call) == 0
        cache.end(call)
    back = Call(young.agent, 1, 0.0, 2)
    assert cache.begin(back) == 100
    assert cache.hit(Call(old.agent, 1, 0.0, 3)) == 90


def test_an_opening_is_shared_and_what_follows_is_not() -> None:
    cache = PrefixCache(1_000)
    first, other = (Call(Agent(number, 0, 0.0, (Step(100, 10),), "digest", 60), 0, 0.0, number) for number in range(2))
    assert (cache.begin(first), cache.begin(other)) == (0, 60)


def test_a_gap_is_the_worst_over_any_part_of_a_span() -> None:
    """Served +5 -9 +2 within the span: from +5 to -4 they drifted 9 apart. What comes when one has left is no gap."""
    gaps = Gaps()
    gaps.queued(0)
    gaps.served(0, 100)
    gaps.queued(1)
    for tenant, tokens in ((0, 5), (1, 9), (0, 2)):
        gaps.served(tenant, tokens)
    gaps.left(1)
    gaps.served(0, 100)
    gaps.close()
    assert gaps.worst == {(0, 1): 9}


def test_shares_are_max_min_fair() -> None:
    assert scores.entitled({1: 2.0, 2: 8.0, 3: 9.0}, 12.0) == {1: 2.0, 2: 5.0, 3: 5.0}
    assert scores.satisfaction({1: 2.0, 2: 10.0}, {1: 2.0, 2: 20.0}) == {1: 1.0, 2: 1.0}
    assert scores.jain([1.0, 1.0]) == 1.0
    assert scores.jain([1.0, 0.0]) == 0.5
    assert [scores.percentile(range(1, 101), share) for share in (0.5, 0.99, 1.0)] == [50, 99, 100]


def test_tools_take_as_long_as_was_measured() -> None:
    published = msgspec.json.decode((workloads.DATA / "tools.json").read_bytes())
    chance = random.Random(1)
    drawn = [pauses.tool_s(chance) for _ in range(50_000)]
    long = [span for span in drawn if span > published["long_s"]]
    assert statistics.fmean(drawn) == pytest.approx(published["mean_s"], rel=0.05)
    low, high = published["median_s"]
    assert low <= statistics.median(drawn) <= high
    low, high = published["long_share_of_calls"]
    assert low <= len(long) / len(drawn) <= high
    low, high = published["long_share_of_time"]
    assert low <= sum(long) / sum(drawn) <= high


def test_the_figures_that_are_shipped_are_small_and_whole() -> None:
    recorded = workloads.sessions()
    assert sum(len(session.calls) for session in recorded) == 4_073
    assert len(workloads.clients().clients) == 20
    assert sum(path.stat().st_size for path in workloads.DATA.glob("*.json")) < 300_000
    assert all(known <= read for session in recorded for read, known, _ in session.calls)
