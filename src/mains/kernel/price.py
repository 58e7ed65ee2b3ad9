"""What a million tokens cost: rates by kind of token, and tiers by the size of the input. Pure; integers only.

    Rates       nano-units for a million tokens
    Tier        rates for calls whose input has more than so many tokens; the whole call is charged at them
    rates_for   the rates of a call with so much input
    lines_of    the most that calls of up to so much input can cost, as straight lines over their output
    is_cheaper  whether some tiers cost less than others, whatever the call

Amounts are in units of 10^-6 nano-units until a tariff rounds them, once.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mains.errors import ConfigError
from mains.kernel.ports import Usage

NANO = 10**9
MILLION = 10**6
RATE_MAX = 10**16
"""Ten million units for a million tokens. With it an amount of 10^8 tokens stays within 64 bits."""


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Nano-units for a million tokens; `request`: nano-units for a call. `Rates.of` fills in what is not said.

    `reasoning_whole`: a call that reasons pays `reasoning` for its whole output, the answer included.
    """

    input: int
    output: int
    cache_read: int
    cache_write: int  # to a cache of 5 minutes
    cache_write_1h: int
    reasoning: int
    request: int = 0
    reasoning_whole: bool = False

    @classmethod
    def of(
        cls,
        input: int,
        output: int,
        *,
        cache_read: int | None = None,
        cache_write: int | None = None,
        cache_write_1h: int | None = None,
        reasoning: int | None = None,
        request: int = 0,
        reasoning_whole: bool = False,
    ) -> Rates:
        """What is not said costs as its like: the cache as input, 1 hour as 5 minutes, reasoning as output."""
        write = input if cache_write is None else cache_write
        return cls(
            input=input,
            output=output,
            cache_read=input if cache_read is None else cache_read,
            cache_write=write,
            cache_write_1h=write if cache_write_1h is None else cache_write_1h,
            reasoning=output if reasoning is None else reasoning,
            request=request,
            reasoning_whole=reasoning_whole,
        )

    @property
    def figures(self) -> tuple[int, ...]:
        """The seven rates, to compare them."""
        cache = (self.cache_read, self.cache_write, self.cache_write_1h)
        return (self.input, self.output, *cache, self.reasoning, self.request)

    def units(self, usage: Usage) -> int:
        """Tokens times rates, in millionths of a nano-unit. Parts that exceed their whole are cut down to it."""
        fresh = max(0, usage.input_tokens)
        units = self.request * MILLION
        parts = (
            (usage.cached_tokens, self.cache_read),
            (usage.cache_write_1h_tokens, self.cache_write_1h),
            (usage.cache_write_tokens, self.cache_write),
        )
        for tokens, rate in parts:
            part = min(max(0, tokens), fresh)
            fresh -= part
            units += part * rate
        output = max(0, usage.output_tokens)
        reasoning = min(max(0, usage.reasoning_tokens), output)
        if reasoning and self.reasoning_whole:
            reasoning = output
        return units + fresh * self.input + reasoning * self.reasoning + (output - reasoning) * self.output

    def check(self, where: str) -> None:
        """Raises ConfigError that names the rate."""
        for name in self.__struct_fields__:
            if getattr(self, name) < 0:
                raise ConfigError(f"{where}: `{name}` is below zero", hint="a rate is 0 or more")
            if getattr(self, name) > RATE_MAX:
                hint = "rates are for a million tokens"
                raise ConfigError(f"{where}: `{name}` is above {RATE_MAX // NANO:,}", hint=hint)


class Tier(msgspec.Struct, frozen=True):
    """Rates of calls with more than `above` input tokens (cached ones included), up to the next tier."""

    above: int
    rates: Rates


Tiers = tuple[Tier, ...]


def check_tiers(tiers: Sequence[Tier], where: str) -> None:
    bounds = [tier.above for tier in tiers]
    if bounds and bounds[0] != 0:
        raise ConfigError(f"{where}: no tier says what holds up to {bounds[0]:,} tokens", hint="the first is above = 0")
    if bounds != sorted(set(bounds)):
        raise ConfigError(f"{where}: its tiers are not in order", hint="each `above` is more than the one before it")
    for tier in tiers:
        tier.rates.check(where)


def rates_for(tiers: Tiers, input_tokens: int) -> Rates:
    rates = tiers[0].rates
    for tier in tiers:
        if tier.above < input_tokens:
            rates = tier.rates
    return rates


def lines_of(tiers: Tiers, input_tokens: int, exchange: int) -> list[tuple[int, int]]:
    """A line for each tier that a call of up to so many input tokens may fall in, with the most input it then has."""
    ends = [*(tier.above for tier in tiers[1:]), input_tokens]
    lines = []
    for tier, end in zip(tiers, ends, strict=True):
        if tier.above and tier.above >= input_tokens:
            break
        rates = tier.rates
        dearest = max(rates.input, rates.cache_read, rates.cache_write, rates.cache_write_1h)
        fixed = rates.request * MILLION + min(end, input_tokens) * dearest
        lines.append((fixed * exchange, max(rates.output, rates.reasoning) * exchange))
    return lines


def is_cheaper(tiers: Tiers, exchange: int, than: Tiers, than_exchange: int) -> bool:
    lower = False
    for above in {tier.above for tier in (*tiers, *than)}:
        ours, theirs = rates_for(tiers, above + 1), rates_for(than, above + 1)
        if ours.reasoning_whole != theirs.reasoning_whole:
            return False
        for our, their in zip(ours.figures, theirs.figures, strict=True):
            if our * exchange > their * than_exchange:
                return False
            lower = lower or our * exchange < their * than_exchange
    return lower
