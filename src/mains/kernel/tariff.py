"""Tariffs: what a model call costs, and the most that one can cost. Pure; integers only.

    Rates     nano-units for a million tokens, by kind of token; `Tier` by the size of the input (kernel/price.py)
    Window    tiers that hold at some hours of the week (peak, off-peak)
    Tariff    a dated snapshot of what one model costs at one engine; `then` is the snapshot that follows it
    Tariffs   where the kernel finds them

An amount is `ceil(sum(tokens x rate) x exchange)`: one sum and one rounding, upwards, for each entry of the ledger.
What is guaranteed: `hold_nano(input, output, from, until)` is never less than `cost_nano` of a call with at most so
many tokens that is dispatched in between, however its input is split into fresh, read and written, and its output into
reasoning and answer. A tariff that exists is whole: a wrong one raises ConfigError when it is made.

A tariff says in `id` what it contains (16 hex digits of its SHA-256): a ledger can pin it, and an altered row is found.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import cached_property
from typing import Protocol

import msgspec

from mains.errors import ConfigError
from mains.kernel.ports import Usage
from mains.kernel.price import MILLION, NANO, Rates, Tier, Tiers, check_tiers, is_cheaper, lines_of, rates_for
from mains.kernel.week import REST, Hours, Week
from mains.program.fields import TOKENS_MAX

__all__ = ["CURRENCY", "EXCHANGE_MAX", "FREE", "NANO", "Rates", "Tariff", "Tariffs", "Tier", "Window", "link"]

CURRENCY = re.compile(r"[a-z]{3}")  # ISO 4217, in small letters
EXCHANGE_MAX = 10**15  # nano-units: one of a currency is worth at most a million of another

_SCALE = MILLION * NANO
_AHEAD_MS = 8 * 86_400_000  # in a week and a day every window has opened, summer time or not


class Window(msgspec.Struct, frozen=True):
    """What holds at some hours of the week, instead of the tariff's own tiers."""

    name: str
    hours: Hours
    tiers: Tiers


class Tariff(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, dict=True):
    """What a model costs at an engine, from `valid_from_ms` up to `valid_to_ms` (0: no end is known).

    `tiers` hold where no window is open; without them the windows must cover the week. Rates are in nano-units of
    `currency`; amounts in nano-units of the home's currency, of which one `currency` is worth `exchange` nano-units.
    `source` says where the figures are from (a URL or a file), `source_date` when they were read there.
    """

    name: str
    currency: str
    home_currency: str
    exchange: int = NANO
    tiers: Tiers = ()
    windows: tuple[Window, ...] = ()
    zone: str = "UTC"
    region: str = ""
    valid_from_ms: int = 0
    valid_to_ms: int = 0
    source: str = ""
    source_date: str = ""
    then: Tariff | None = None
    id: str = ""

    def __post_init__(self) -> None:
        if self.id == "-":  # the copy that is hashed
            return
        content = msgspec.json.encode(msgspec.structs.replace(self, id="-"))
        made = hashlib.sha256(content).hexdigest()[:16]
        if self.id and self.id != made:
            raise ConfigError(f"tariff {self.name}: its content is not that of {self.id}", hint="it was altered")
        msgspec.structs.force_setattr(self, "id", made)
        _check(self)

    @cached_property
    def _week(self) -> Week:
        hours = [window.hours for window in self.windows]
        return Week(self.zone, hours, whole=not self.tiers, where=f"tariff {self.name}")

    def in_force(self, at_ms: int) -> Tariff | None:
        """This tariff or the one that follows it, as of an instant; None before the first and after the last."""
        if at_ms < self.valid_from_ms:
            return None
        if not self.valid_to_ms or at_ms < self.valid_to_ms:
            return self
        return self.then.in_force(at_ms) if self.then else None

    def cost_nano(self, usage: Usage, at_ms: int) -> int:
        """What a call costs that was dispatched at `at_ms`, in nano-units of the home's currency, rounded up once.

        Before its time a tariff counts as if it had begun; after its time, with none that follows, as if it went on.
        """
        tariff = self._at(at_ms)
        return tariff._amount(tariff.tiers_at(at_ms), usage)

    def hold_nano(self, input_tokens: int, output_tokens: int, from_ms: int, until_ms: int) -> int:
        """The most that a call of so many tokens can cost, dispatched from `from_ms` to `until_ms` (both included)."""
        output_tokens = max(0, output_tokens)
        lines = self._lines(input_tokens, from_ms, until_ms)
        return _ceil(max(fixed + output_tokens * each for fixed, each in lines))

    def output_tokens_for(self, nano: int, input_tokens: int, from_ms: int, until_ms: int) -> int:
        """The largest n with `hold_nano(input_tokens, n, ...) <= nano`; -1: not even the input; at most TOKENS_MAX."""
        most = TOKENS_MAX
        for fixed, each in self._lines(input_tokens, from_ms, until_ms):
            left = nano * _SCALE - fixed
            if left < 0:
                return -1
            if each:
                most = min(most, left // each)
        return most

    def cheaper_at_ms(self, now_ms: int) -> int | None:
        """When a cheaper window opens, at most eight days ahead; None: now is the cheapest, or it is always the same.

        Cheaper: some rate is lower and none is higher, in the home's currency, whatever the size of the input.
        """
        if not self._changes:
            return None
        spans = self._spans(now_ms, now_ms + _AHEAD_MS)
        _, tariff, tiers = next(spans)
        for at_ms, other, others in spans:
            if is_cheaper(others, other.exchange, tiers, tariff.exchange):
                return at_ms
        return None

    def saved(self, usage: Usage, at_ms: int) -> tuple[int, int]:
        """What the cache and the hour have saved, in nano-units, each 0 or more.

        Against a call with all its input fresh, and against the same call in the dearest window. A cache that cost more
        than it brought (writing is dearer than reading) has saved 0.
        """
        tariff = self._at(at_ms)
        tiers = tariff.tiers_at(at_ms)
        cost = tariff._amount(tiers, usage)
        fresh = msgspec.structs.replace(usage, cached_tokens=0, cache_write_tokens=0, cache_write_1h_tokens=0)
        dearest = max(tariff._amount(each, usage) for each in tariff._every)
        return max(0, tariff._amount(tiers, fresh) - cost), max(0, dearest - cost)

    @property
    def free(self) -> bool:
        """Whether it never costs anything."""
        every = [tier.rates for tiers in (self.tiers, *(window.tiers for window in self.windows)) for tier in tiers]
        return not any(any(rates.figures) for rates in every) and (self.then is None or self.then.free)

    @property
    def _changes(self) -> bool:
        return bool(self.windows) or self.then is not None

    @property
    def _every(self) -> Iterator[Tiers]:
        """The tiers of every hour of the week."""
        for window in self.windows:
            yield window.tiers
        if not self.windows or self._week.has_rest:
            yield self.tiers

    def _at(self, at_ms: int) -> Tariff:
        if self.then is None or at_ms < self.valid_to_ms:
            return self
        return self.then._at(at_ms)

    def window_at(self, at_ms: int) -> Window | None:
        """The window of this snapshot that is open at an instant."""
        index = self._week.at(at_ms) if self.windows else REST
        return self.windows[index] if index != REST else None

    def tiers_at(self, at_ms: int) -> Tiers:
        """The tiers of this snapshot that hold at an instant."""
        window = self.window_at(at_ms)
        return window.tiers if window else self.tiers

    def _amount(self, tiers: Tiers, usage: Usage) -> int:
        return _ceil(rates_for(tiers, usage.input_tokens).units(usage) * self.exchange)

    def _spans(self, from_ms: int, until_ms: int) -> Iterator[tuple[int, Tariff, Tiers]]:
        """What holds at `from_ms`, then what comes after it up to `until_ms`, with the instant at which it begins."""
        tariff: Tariff | None = self._at(from_ms)
        while tariff is not None and from_ms <= until_ms:
            last = tariff.then is None
            end_ms = until_ms if last else min(until_ms, tariff.valid_to_ms - 1)
            changes = tariff._week.changes(from_ms, end_ms) if tariff.windows else iter([(from_ms, REST)])
            for at_ms, index in changes:
                yield at_ms, tariff, tariff.windows[index].tiers if index != REST else tariff.tiers
            from_ms, tariff = tariff.valid_to_ms, tariff.then

    def _reachable(self, from_ms: int, until_ms: int) -> Iterator[tuple[Tariff, Tiers]]:
        """What may hold between two instants. Far apart, every window does; a skipped hour too, which does no harm."""
        if until_ms - from_ms <= _AHEAD_MS:
            for _, tariff, tiers in self._spans(from_ms, until_ms):
                yield tariff, tiers
            return
        reached: Tariff | None = self._at(from_ms)
        while reached is not None:
            for tiers in reached._every:
                yield reached, tiers
            reached = reached.then if reached.valid_to_ms <= until_ms else None

    def _lines(self, input_tokens: int, from_ms: int, until_ms: int) -> list[tuple[int, int]]:
        """What a call may cost as straight lines over its output: fixed part and each token, in 10^-15 nano-units."""
        input_tokens = max(0, input_tokens)
        if not self._changes:
            return lines_of(self.tiers, input_tokens, self.exchange)
        every = self._reachable(from_ms, max(from_ms, until_ms))
        return [line for tariff, tiers in every for line in lines_of(tiers, input_tokens, tariff.exchange)]


class Tariffs(Protocol):
    """Where the kernel finds what a model costs."""

    def find(self, engine: str, model: str, now_ms: int) -> Tariff | None:
        """The tariff of a model at an engine that is in force now; None: no price is known (unpriced)."""
        ...


def link(snapshots: Iterable[Tariff]) -> Tariff:
    """Dated snapshots of one model (at least one) as a tariff that knows what follows. Raises ConfigError.

    They must neither overlap nor leave a gap: a snapshot ends where the next one begins (one without an end: is cut).
    """
    ordered = sorted(snapshots, key=lambda tariff: tariff.valid_from_ms)
    linked: Tariff | None = None
    for tariff in reversed(ordered):
        linked = tariff if linked is None else _followed(tariff, linked)
    assert linked is not None
    return linked


def _followed(tariff: Tariff, by: Tariff) -> Tariff:
    end, begin = tariff.valid_to_ms, by.valid_from_ms
    if tariff.valid_from_ms == begin or end > begin:
        told = f"tariff {tariff.name}: two prices hold at the same time, from {_date(begin)}"
        raise ConfigError(told, hint="mend valid_from or valid_to")
    if 0 < end < begin:
        hint = "let each price be valid to the moment at which the next one begins (a date begins in its zone)"
        raise ConfigError(f"tariff {tariff.name}: no price holds from {_date(end)} to {_date(begin)}", hint=hint)
    return msgspec.structs.replace(tariff, valid_to_ms=by.valid_from_ms, then=by, id="")


def _date(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms // 1_000, UTC).isoformat(timespec="minutes")


def _check(tariff: Tariff) -> None:
    where = f"tariff {tariff.name}"
    for currency in (tariff.currency, tariff.home_currency):
        if not CURRENCY.fullmatch(currency):
            hint = "a currency is three small letters, such as usd (ISO 4217)"
            raise ConfigError(f"{where}: `{currency}` is no currency", hint=hint)
    if tariff.currency == tariff.home_currency and tariff.exchange != NANO:
        raise ConfigError(f"{where}: {tariff.currency} is exchanged for itself", hint="remove it from [rates]")
    if not 0 < tariff.exchange <= EXCHANGE_MAX:
        raise ConfigError(f"{where}: the rate of {tariff.currency} is not between 0 and a million")
    if tariff.valid_from_ms < 0 or (tariff.valid_to_ms and tariff.valid_to_ms <= tariff.valid_from_ms):
        raise ConfigError(f"{where}: it ends before it begins", hint="valid_to comes after valid_from")
    if tariff.then is not None and tariff.then.valid_from_ms != tariff.valid_to_ms:
        raise ConfigError(f"{where}: the price that follows does not begin where this one ends")
    if not tariff.tiers and not tariff.windows:
        raise ConfigError(f"{where}: it has no rates", hint="give input and output")
    for tiers in (tariff.tiers, *(window.tiers for window in tariff.windows)):
        check_tiers(tiers, where)
    if tariff.windows:
        _ = tariff._week  # made here, so that a gap or an overlap is told now


def _ceil(amount: int) -> int:
    return -(-amount // _SCALE)


FREE = Tariff(name="free", currency="usd", home_currency="usd", tiers=(Tier(0, Rates.of(0, 0)),), source="local")
"""The tariff of an engine that runs here: it costs nothing in money."""
