"""The bound of `tenants.py` as a property, under adversaries; and that it breaks when a part of the rule is taken away.

A world without a clock: calls get tokens bit by bit, in an order drawn by chance, and end when they have all of them.
Tenants 1 and 2 always have calls waiting from the moment when both are there; others come and go.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from unittest import mock

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mains.kernel.ports import Usage
from mains.kernel.scheduler import Lane
from mains.kernel.tenants import Tenant, Tenants
from mains.kernel.waiting import OUTPUT_WEIGHT, Waiting, charge

QUANTUM = 2_000


class Plan(msgspec.Struct, frozen=True):
    """A call that an adversary makes: what it says, and what it will use."""

    program: int
    input_tokens: int
    said: int  # output tokens
    made: int
    key: str
    cached: int = 0


Adversary = Callable[[random.Random, int], Plan]
ADVERSARIES: dict[str, Adversary] = {
    "many tiny programs": lambda chance, n: Plan(n, 20, 5, 5, f"own {n}"),
    "giant prompts": lambda chance, n: Plan(0, 12_000, 10, 10, f"own {n}"),
    "a giant prompt now and then": lambda chance, n: Plan(n, 16_000 if n % 40 == 0 else 50, 10, 10, f"own {n}"),
    "a prefix hog": lambda chance, n: Plan(0, 4_000, 50, 50, "the same", cached=4_000),
    "a hog whose cache is not there": lambda chance, n: Plan(0, 4_000, 50, 50, "the same"),
    "long answers, said to be short": lambda chance, n: Plan(n, 100, 1, 3_000, f"own {n}"),
    "short answers, said to be long": lambda chance, n: Plan(n, 100, 3_000, 1, f"own {n}"),
    "anything": lambda chance, n: Plan(
        chance.randrange(9), chance.randrange(9_000), chance.randrange(2_000), chance.randrange(2_000),
        f"some {chance.randrange(5)}", chance.randrange(500),
    ),
}  # fmt: skip


class Service:
    """A lane under calls of many tenants, and the weighted tokens that each was given."""

    def __init__(self, slots: int, plans: dict[int, Adversary], chance: random.Random) -> None:
        self.lane = Lane(slots, quantum=QUANTUM)
        self.given = dict.fromkeys(plans, 0)
        self.largest = 0  # C_max
        self._plans = plans
        self._chance = chance
        self._slots = slots
        self._pids = 0
        self._waiting: dict[int, Plan] = {}
        self._left: dict[int, int] = {}
        self._flying: dict[int, tuple[Waiting, Plan]] = {}

    def send(self, tenant: int) -> None:
        """A tenant has one call more."""
        self._pids += 1
        plan = self._plans[tenant](self._chance, self._pids)
        prefix = ((plan.key, plan.input_tokens),)
        self.lane.add(
            Waiting(self._pids, tenant, "normal", plan.program + 1_000 * tenant, plan.input_tokens, plan.said, prefix)
        )
        self._waiting[self._pids] = plan

    def backlog(self, tenant: int) -> int:
        return sum(call.waiting.tenant == tenant for call in self.lane._calls.values())

    def step(self) -> None:
        """Fill the slots, and give one of the calls some tokens."""
        while (chosen := self.lane.choose(0)) is not None:
            plan = self._waiting.pop(chosen.pid)
            self._flying[chosen.pid] = chosen, plan
            self._left[chosen.pid] = charge(plan.input_tokens, plan.cached, plan.made)
            said = plan.input_tokens + OUTPUT_WEIGHT * plan.said
            self.largest = max(self.largest, said, self._left[chosen.pid])
        pid = self._chance.choice(list(self._flying))
        waiting, plan = self._flying[pid]
        some = self._left[pid] if self._chance.random() < 0.5 else self._chance.randint(0, self._left[pid])
        self._left[pid] -= some
        self.given[waiting.tenant] += some
        if not self._left[pid]:
            del self._left[pid], self._flying[pid]
            self.lane.settle(pid, Usage(plan.input_tokens, plan.cached, plan.made))
            self.lane.release(pid)


def gap(seed: int, slots: int, kinds: tuple[str, str, str]) -> tuple[int, int]:
    """The largest difference of service of tenants 1 and 2 in any stretch of time; C_max."""
    chance = random.Random(seed)
    service = Service(slots, {tenant: ADVERSARIES[kind] for tenant, kind in enumerate(kinds, 1)}, chance)
    for _ in range(chance.randrange(200)):  # tenant 1 has the engine for itself
        for _ in range(2 * slots - service.backlog(1)):
            service.send(1)
        service.step()
    differences = []
    for _ in range(400):
        for tenant in (1, 2):
            for _ in range(chance.choice([1, 1, 20]) + slots - service.backlog(tenant)):
                service.send(tenant)
        if chance.random() < 0.1:
            service.send(3)
        differences.append(service.given[1] - service.given[2])
        service.step()
    return max(differences) - min(differences), service.largest


def bound(slots: int, largest: int) -> int:
    return 2 * (QUANTUM + 2 * slots * largest)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 4), st.tuples(*[st.sampled_from(sorted(ADVERSARIES))] * 3))
def test_the_service_of_two_backlogged_tenants_stays_within_the_bound(
    seed: int, slots: int, kinds: tuple[str, str, str]
) -> None:
    largest_gap, largest = gap(seed, slots, kinds)
    assert largest_gap <= bound(slots, largest)


class Uncorrected(Tenants):
    def correct(self, tenant: Tenant, tokens: int) -> None:
        """What an engine reports is not heeded."""


class Creditor(Tenants):
    def come(self, number: int) -> Tenant:
        """Who was away has credit for all that time."""
        new = self.get(number) is None
        tenant = super().come(number)
        if new:
            tenant.spent = 0
        return tenant


class Lineless(Tenants):
    def leave(self, tenant: Tenant, tokens: int) -> None:
        """Calls are free: rank alone decides."""
        super().leave(tenant, 0)


BROKEN = [
    (Uncorrected, ("long answers, said to be short", "short answers, said to be long", "anything")),
    (Creditor, ("a hog whose cache is not there", "a hog whose cache is not there", "anything")),
    (Lineless, ("a prefix hog", "giant prompts", "anything")),
]


@pytest.mark.parametrize(("broken", "kinds"), BROKEN)
def test_the_bound_breaks_without_each_part_of_the_rule(broken: type[Tenants], kinds: tuple[str, str, str]) -> None:
    with mock.patch("mains.kernel.scheduler.Tenants", broken):
        gaps = [(gap(seed, 1, kinds)) for seed in range(12)]
    assert any(largest_gap > bound(1, largest) for largest_gap, largest in gaps)
    assert all(g <= bound(1, largest) for g, largest in [gap(seed, 1, kinds) for seed in range(12)])


def test_a_tenant_that_waits_for_a_tool_holds_nothing_up() -> None:
    """A program whose tool never returns has no call here: the others go on as if it had never been."""
    service = Service(1, {1: ADVERSARIES["many tiny programs"], 2: ADVERSARIES["giant prompts"]}, random.Random(1))
    service.send(2)
    service.step()
    for _ in range(50):
        service.send(1)
    for _ in range(400):
        if not len(service.lane) and not service.lane.busy:
            break
        service.step()
    assert service.backlog(1) == 0
    assert service.given[1] == 50 * charge(20, 0, 5)
