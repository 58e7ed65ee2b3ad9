"""What the meter shows: budgets to set, limits and accounts as they stand, meter rows and statements. Values only.

Tokens are counted as engines count them; money is in integer nano-units of the home's currency (1 unit = 10^9).
"""

from __future__ import annotations

from typing import Literal

import msgspec

Unit = Literal["tokens", "money"]
Window = Literal["total", "day", "week", "month"]
By = Literal["", "program", "user", "model", "day"]


class Budget(msgspec.Struct, frozen=True):
    """A limit to set: at most `most` tokens, or nano-units of the home's currency, in each window (None: no limit)."""

    unit: Unit
    window: Window
    most: int | None


class LimitView(msgspec.Struct, frozen=True):
    """A limit as it stands in its current window. `added`: top-ups of this window; `used`: posted and overrun."""

    unit: Unit
    window: Window
    most: int
    added: int
    used: int
    held: int
    left: int
    resets_at: str
    warned: int


class AccountView(msgspec.Struct, frozen=True):
    """An account with everything below it. Money is in nano-units of `currency`."""

    name: str
    path: str
    kind: Literal["home", "account", "program", "process"]
    parent: str
    zone: str
    unknown_price: Literal["refuse", "allow"]
    currency: str
    held_tokens: int
    posted_tokens: int
    overrun_tokens: int
    held_nano: int
    posted_nano: int
    overrun_nano: int
    limits: list[LimitView]


class MeterRow(msgspec.Struct, frozen=True, kw_only=True):
    """What was metered, summed: model calls, their tokens, and what they cost or saved. `day`: when asked by day."""

    account: str
    program: str
    model: str
    calls: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost_nano: int
    currency: str
    overrun_tokens: int = 0
    cache_saved_nano: int = 0
    off_peak_saved_nano: int = 0
    day: str = ""


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """A month of an account: a row for each day, program and model, and the sums."""

    account: str
    month: str
    zone: str
    currency: str
    rows: list[MeterRow]
    calls: int
    tokens: int
    cost_nano: int
    adjustments_nano: int
    open_holds: int
