"""How long an agent's tool takes: drawn so that it agrees with what TraceLab measured (`bench/data/tools.json`).

Most calls are short (lognormal below a minute), one in 27 is long (a minute and an exponential rest). The constants are
ours, fitted to the five published figures; `tests/unit/test_fair.py` holds them to those.
"""

from __future__ import annotations

import math
import random

MEDIAN_S = 0.36
SPREAD = 2.4  # of the logarithm
LONG_SHARE = 0.037
LONG_FROM_S = 60.0
LONG_MORE_S = 328.0  # mean, above the minute


def tool_s(chance: random.Random) -> float:
    """One tool call, in seconds."""
    if chance.random() < LONG_SHARE:
        return LONG_FROM_S + chance.expovariate(1 / LONG_MORE_S)
    while True:
        short = chance.lognormvariate(math.log(MEDIAN_S), SPREAD)
        if short < LONG_FROM_S:
            return short
