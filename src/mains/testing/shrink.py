"""Shrinking: from a plan that breaks a rule to a short one that breaks the same rule.

Delta debugging (Zeller, Hildebrandt: Simplifying and Isolating Failure-Inducing Input, 2002): take away parts of the
list, larger ones first, and keep what still fails; then see whether it fails without trouble from engines and devices.
"""

from __future__ import annotations

import msgspec

from mains.testing.plan import Action, Plan
from mains.testing.simulation import Simulation
from mains.testing.story import RuleBroken

RUNS_MAX = 300
_REST = Action("rest", turns=-1)


class _Shrinking:
    def __init__(self, broken: RuleBroken) -> None:
        self.best = broken
        self.runs = 0

    def fails(self, plan: Plan) -> bool:
        """Whether this plan breaks the same rule; then it is the best so far."""
        self.runs += 1
        try:
            Simulation(plan.seed, plan).run()
        except RuleBroken as broken:
            if broken.rule == self.best.rule:
                self.best = broken
                return True
        return False


def shrunk(broken: RuleBroken, runs_max: int = RUNS_MAX) -> RuleBroken:
    """The shortest failure that was found in so many runs: the same rule, broken by fewer actions."""
    shrinking = _Shrinking(broken)
    shrinking.fails(msgspec.structs.replace(broken.plan, crashes_min=0))
    shrinking.fails(msgspec.structs.replace(shrinking.best.plan, trouble=0.0))
    size = max(1, len(broken.plan.actions) // 2)
    while size and shrinking.runs < runs_max:
        if not _without_parts(shrinking, size, runs_max):
            size //= 2
    for number, action in enumerate(shrinking.best.plan.actions):
        if action.turns >= 0 and shrinking.runs < runs_max:  # let each order come to its end, where that still fails
            calm = msgspec.structs.replace(action, turns=-1)
            actions = shrinking.best.plan.actions
            if shrinking.fails(
                msgspec.structs.replace(shrinking.best.plan, actions=(*actions[:number], calm, *actions[number + 1 :]))
            ):
                continue
    return shrinking.best


def _without_parts(shrinking: _Shrinking, size: int, runs_max: int) -> bool:
    """Leave out every part of this size that can be left out; whether there was one."""
    start, found = 0, False
    while start < len(shrinking.best.plan.actions) and shrinking.runs < runs_max:
        actions = shrinking.best.plan.actions
        if shrinking.fails(
            msgspec.structs.replace(shrinking.best.plan, actions=actions[:start] + actions[start + size :])
        ):
            found = True
        else:
            start += size
    return found
