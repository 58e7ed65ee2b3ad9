"""Amounts as people type and read them: tokens, money, limits, moments. Pure, and exact: no float touches money.

    tokens_of("200k")                     200_000
    nano_of("0.25eur", purse)             nano-units of the home's currency, by its rate for eur
    limit_of("5usd/month", "money", purse)    a Budget; "none/month" takes the limit away
    exact(nano), brief(nano)              money as text: every digit, or what an eye wants
    since_ms("7d" | "2026-11-01", ...)    the moment that is meant

What cannot be meant raises UsageError with one line. An amount of a foreign currency is rounded down, so that a limit
is never more than what was typed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime, time, tzinfo
from decimal import Decimal
from typing import NamedTuple, get_args

from mains.errors import UsageError
from mains.kernel.billing import Budget, Unit, Window

NANO = 1_000_000_000
"""Nano-units in one unit of a currency."""

UNITS_MAX = 10**9
"""Of money, in one limit or top-up: sums of many such still fit into 64 bits of nano-units."""

WINDOWS: tuple[Window, ...] = get_args(Window)
_MONEY = re.compile(r"([0-9]{1,60}(?:\.[0-9]{1,9})?) ?([A-Za-z]{3})")
_NUMBER = re.compile(r"[0-9]{1,60}(?:\.[0-9]{1,9})?")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_NONE = "none"
_DAY_MS = 86_400_000


class Purse(NamedTuple):
    """The currency of a home, and what one of each other currency is worth in it, in nano-units."""

    currency: str
    rates: Mapping[str, int] = {}


def shown(text: str) -> str:
    """What was typed, as it may stand in a line."""
    line = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text[:60])
    return f"`{line}`"


def tokens_of(text: str) -> int:
    """A number of tokens above zero: 20000, 20_000, 20,000, 200k, 1.5m. Raises UsageError."""
    from mains.program.fields import parse_tokens

    return parse_tokens(text)


def nano_of(text: str, purse: Purse) -> int:
    """An amount of money above zero, as 5usd or 0.25eur, in nano-units of the home's currency. Raises UsageError."""
    typed = text.strip()
    found = _MONEY.fullmatch(typed)
    if not found:
        if _NUMBER.fullmatch(typed):
            raise UsageError(f"{shown(text)} names no currency: write {typed}{purse.currency}")
        raise UsageError(f"{shown(text)} is not an amount of money: write 5{purse.currency} or 0.25{purse.currency}")
    amount, currency = Decimal(found[1]), found[2].lower()
    nano = int(amount * NANO) * _worth(currency, purse) // NANO  # rounded down
    if not 0 < nano <= UNITS_MAX * NANO:
        least = "1 nano-unit" if purse.currency == currency else f"1 nano-unit of {purse.currency}"
        raise UsageError(f"{shown(text)} is not from {least} to {UNITS_MAX:,} {purse.currency}")
    return nano


def _worth(currency: str, purse: Purse) -> int:
    if currency == purse.currency:
        return NANO
    if currency not in purse.rates:
        text = f"no rate says what 1 {currency} is worth in {purse.currency}, the currency of this home"
        raise UsageError(text, hint=f"write `{currency} = ...` under [rates] in mains.toml, or use {purse.currency}")
    return purse.rates[currency]


def limit_of(text: str, unit: Unit, purse: Purse) -> Budget:
    """A limit: AMOUNT, AMOUNT/WINDOW, none or none/WINDOW. Without a window, it is for ever. Raises UsageError."""
    amount, slash, name = text.partition("/")
    window = next((each for each in WINDOWS if each == (name.strip().lower() if slash else "total")), None)
    if window is None:
        listed = ", ".join(WINDOWS)
        raise UsageError(f"{shown(text)}: {shown(name)} is no window of a limit (there are {listed})")
    if amount.strip().lower() == _NONE:
        return Budget(unit=unit, window=window, most=None)
    return Budget(unit=unit, window=window, most=tokens_of(amount) if unit == "tokens" else nano_of(amount, purse))


def limits_of(tokens: list[str], money: list[str], purse: Purse) -> list[Budget]:
    """Every limit that was typed, each once. Raises UsageError."""
    found: dict[tuple[Unit, Window], Budget] = {}
    for unit, texts in (("tokens", tokens), ("money", money)):
        for text in texts:
            try:
                limit = limit_of(text, unit, purse)  # type: ignore[arg-type] # one of the two units
            except UsageError as error:
                raise UsageError(f"--{unit}: {error}", hint=error.hint) from error
            if (limit.unit, limit.window) in found:
                raise UsageError(f"--{unit}: two limits for {_each(limit.window)}", hint="give each window once")
            found[limit.unit, limit.window] = limit
    return list(found.values())


def _each(window: Window) -> str:
    return "the total" if window == "total" else f"a {window}"


def exact(nano: int) -> str:
    """Money with every digit that it has, and no more: 0.0123."""
    sign, (whole, rest) = "-" * (nano < 0), divmod(abs(nano), NANO)
    return f"{sign}{whole}.{rest:09d}".rstrip("0").rstrip(".")


def brief(nano: int) -> str:
    """Money for an eye: two digits, or four below one unit; what is less than the last of them is `<0.0001`."""
    if 0 < nano < NANO // 10_000:
        return "<0.0001"
    digits = 2 if abs(nano) >= NANO or not nano else 4
    return f"{Decimal(nano) / NANO:,.{digits}f}"


def count(tokens: int) -> str:
    """Tokens, as short as they can be said exactly: 200k, 1.5m, 12,345."""
    for size, letter in ((1_000_000, "m"), (1_000, "k")):
        if tokens >= size and not tokens % (size // 10):
            return f"{tokens / size:,.1f}".removesuffix(".0") + letter
    return f"{tokens:,}"


def amount(value: int, unit: Unit, currency: str) -> str:
    """A number of tokens, or an amount of money with its currency, exactly."""
    return f"{value:,} tokens" if unit == "tokens" else f"{exact(value)} {currency}"


def since_ms(text: str, now_ms: int, zone: tzinfo) -> int:
    """The moment that is meant: an age (7d, 12h, 5m, 10s), or midnight of a day (2026-11-01). Raises UsageError."""
    typed = text.strip()
    if _DAY.fullmatch(typed):
        try:
            day = date.fromisoformat(typed)
        except ValueError as error:
            raise UsageError(f"{shown(text)} is no day: {error}") from error
        return max(0, midnight_ms(day, zone))
    from mains.cli.care import parse_age

    try:
        return max(0, now_ms - round(parse_age(typed) * _DAY_MS))
    except UsageError as error:
        raise UsageError(f"{shown(text)} is no time: write 7d, 12h, 5m, or a day as 2026-11-01") from error


def midnight_ms(day: date, zone: tzinfo) -> int:
    """When a day begins on the clock of a time zone, in milliseconds since 1970."""
    return int(datetime.combine(day, time(), zone).timestamp() * 1_000)
