"""What a run is judged by: Jain's index over entitled shares, and percentiles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def entitled(wanted: Mapping[int, float], total: float) -> dict[int, float]:
    """Max-min fair shares of a total: nobody gets more than he wants; the rest is for the others."""
    shares: dict[int, float] = {}
    left = total
    for at, tenant in enumerate(sorted(wanted, key=lambda one: (wanted[one], one))):
        shares[tenant] = min(wanted[tenant], left / (len(wanted) - at))
        left -= shares[tenant]
    return shares


def satisfaction(served: Mapping[int, float], wanted: Mapping[int, float]) -> dict[int, float]:
    """What each tenant was served, as a part of its fair share of all that was served."""
    shares = entitled(wanted, math.fsum(served.values()))
    return {tenant: served.get(tenant, 0) / share for tenant, share in shares.items() if share > 0}


def jain(values: Sequence[float]) -> float:
    """(sum x)^2 / (n * sum x^2): 1 when all are equal, 1/n when one has all (Jain, Chiu, Hawe 1984)."""
    squares = math.fsum(value * value for value in values)
    return math.fsum(values) ** 2 / (len(values) * squares) if squares else 1.0


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that is not below this share of them (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
