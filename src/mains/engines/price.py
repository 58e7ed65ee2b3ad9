"""A price as a person writes it: the `price` of an engine, and the tables that Mains ships. Table -> Tariff. Pure.

    [engines.qwen.price]             # or [[engines.qwen.price]] several times: for several models, or several dates
    model = "qwen-plus"              # without it: every model of the engine
    currency = "cny"                 # without it: the home's
    input = 0.8                      # of the currency, for a million tokens
    output = 2
    cache_read = 0.16                # also cache_write, cache_write_1h, reasoning; and request, for each call
    tiers = [{ above = 128_000, input = 2.4, output = 20 }]      # of the whole call, above so much input
    zone = "Asia/Shanghai"
    windows = [{ name = "night", days = "mon-fri", from = "22:00", to = "08:00", input = 0.4, output = 1 }]
    valid_from = 2026-11-01          # a day begins at midnight in the zone; also valid_to

Every key is checked, and so is what the keys mean together (`kernel/tariff.py`): a wrong table raises ConfigError with
the file, the table, what is wrong and what to write, and no part of it is taken.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from mains.errors import ConfigError
from mains.kernel.price import NANO, Rates, Tier, Tiers
from mains.kernel.tariff import CURRENCY, EXCHANGE_MAX, Tariff, Window
from mains.kernel.week import DAY_MINUTES, DAYS, Hours
from mains.program.schedule import zone_of

DEFAULT_CURRENCY = "usd"
AMOUNT_MAX = 10**9
"""More than anybody asks for a million tokens, in any currency; what the kernel takes is less."""

_FIGURES = ("input", "output", "cache_read", "cache_write", "cache_write_1h", "reasoning", "request")
_RATES = (*_FIGURES, "reasoning_whole")
_TIER = (*_RATES, "above")
_WINDOW = (*_RATES, "name", "days", "from", "to", "tiers")
_TEXTS = ("model", "currency", "region", "zone", "source", "source_date")
_PRICE = (*_RATES, *_TEXTS, "valid_from", "valid_to", "tiers", "windows")
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})")

Table = Mapping[str, Any]


class Money(msgspec.Struct, frozen=True):
    """The currency of a home, and what one of each other currency is worth in it, in nano-units."""

    home: str = DEFAULT_CURRENCY
    rates: dict[str, int] = {}

    @classmethod
    def of(cls, document: Table, where: str) -> Money:
        """`currency` and `[rates]` of a whole mains.toml. Raises ConfigError."""
        home = document.get("currency", DEFAULT_CURRENCY)
        if not isinstance(home, str) or not CURRENCY.fullmatch(home):
            hint = 'three small letters (ISO 4217), such as currency = "usd"'
            raise ConfigError(f"{where}: currency is no currency: {home!r}", hint=hint)
        given = document.get("rates", {})
        if not isinstance(given, Mapping):
            raise ConfigError(f"{where}: rates is no table", hint="write [rates], then cny = 0.139")
        rates = {}
        for currency, worth in given.items():
            if not CURRENCY.fullmatch(currency):
                raise ConfigError(f"{where}: [rates]: `{currency}` is no currency", hint="such as cny = 0.139")
            if currency == home:
                raise ConfigError(f"{where}: [rates]: {home} is the home's own currency", hint="remove the line")
            rates[currency] = _nano(worth, currency, f"{where}: [rates]")
            if not 0 < rates[currency] <= EXCHANGE_MAX:
                hint = f"what one {currency} is worth in {home}, above 0 and at most {EXCHANGE_MAX // NANO:,}"
                raise ConfigError(f"{where}: [rates]: {currency} = {worth} cannot be", hint=hint)
        return cls(home, rates)

    def exchange(self, currency: str, where: str) -> int:
        """What one `currency` is worth here, in nano-units. Raises ConfigError when no rate is given."""
        if currency == self.home:
            return NANO
        if currency not in self.rates:
            hint = f"write {currency} = (what one {currency} is worth in {self.home}) under [rates] in mains.toml"
            raise ConfigError(f"{where}: the price is in {currency}, and the home's currency is {self.home}", hint=hint)
        return self.rates[currency]


def tables_of(given: object, where: str) -> list[Table]:
    """The `price` of an engine as a list of tables. Raises ConfigError."""
    tables: list[Table] = []
    for table in given if isinstance(given, list) else [given]:
        if not isinstance(table, Mapping):
            raise ConfigError(f"{where}: `price` is no table", hint="write input and output, for a million tokens")
        tables.append(table)
    return tables


def check_prices(given: object, engine: str, where: str) -> None:
    """Whether each `price` table of an engine can be used, exchange apart. Raises ConfigError."""
    for table in tables_of(given, where):
        currency = table.get("currency", DEFAULT_CURRENCY)
        read_price(table, engine, Money(currency if isinstance(currency, str) else ""), where)


def read_price(table: Table, name: str, money: Money, where: str) -> Tariff:
    """One table as a tariff called `name`. Raises ConfigError."""
    _known(table, _PRICE, where)
    for key in _TEXTS:
        if not isinstance(table.get(key, ""), str):
            raise ConfigError(f"{where}: `{key}` must be in quotes")
    currency = table.get("currency", money.home)
    zone = _zone(table.get("zone", "UTC"), where)
    has_rates = any(key in table for key in (*_RATES, "tiers"))
    if not has_rates and "windows" not in table:
        raise ConfigError(f"{where}: it has no rates", hint="give input and output, for a million tokens")
    tiers = _tiers(table, where) if has_rates else ()
    windows = tuple(_windows(table.get("windows", []), _shared(table), where))
    dates = {key: _instant(table[key], key, zone, where) for key in ("valid_from", "valid_to") if key in table}
    try:
        return Tariff(
            name=name,
            currency=currency,
            home_currency=money.home,
            exchange=money.exchange(currency, where) if CURRENCY.fullmatch(currency) else NANO,
            tiers=tiers,
            windows=windows,
            zone=zone.key,
            region=table.get("region", ""),
            valid_from_ms=dates.get("valid_from", 0),
            valid_to_ms=dates.get("valid_to", 0),
            source=table.get("source", "") or where,
            source_date=table.get("source_date", ""),
        )
    except ConfigError as error:
        told = str(error)
        raise ConfigError(told if told.startswith(where) else f"{where}: {told}", hint=error.hint) from error


def _known(table: Table, keys: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in keys:
            near = difflib.get_close_matches(str(key), keys, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(keys)}"
            raise ConfigError(f"{where}: unknown key `{key}`", hint=hint)


def _tiers(table: Table, where: str) -> Tiers:
    """The rates of a price or of a window, and its tiers after them."""
    more = table.get("tiers", [])
    if not isinstance(more, list) or not all(isinstance(each, Mapping) for each in more):
        raise ConfigError(f"{where}: `tiers` is a list of tables", hint="tiers = [{ above = 128_000, input = 2, ... }]")
    tiers = [Tier(0, _rates(table, where))]
    for each in more:
        _known(each, _TIER, f"{where}: tiers")
        above = each.get("above")
        if not isinstance(above, int) or isinstance(above, bool) or above < 0:
            raise ConfigError(f"{where}: a tier needs `above`, in input tokens", hint="such as above = 128_000")
        tiers.append(Tier(above, _rates({**_shared(table), **each}, f"{where}: above {above:,} tokens")))
    return tuple(tiers)


def _shared(table: Table) -> Table:
    """What goes without saying in a tier or a window: the fee of a call, and how reasoning is counted."""
    return {key: table[key] for key in ("request", "reasoning_whole") if key in table}


def _rates(table: Table, where: str) -> Rates:
    for key in ("input", "output"):
        if key not in table:
            raise ConfigError(f"{where}: `{key}` is missing", hint="its price for a million tokens; 0 when it is free")
    figures = {key: _nano(table[key], key, where) for key in _FIGURES if key in table}
    whole = table.get("reasoning_whole", False)
    if not isinstance(whole, bool):
        raise ConfigError(f"{where}: `reasoning_whole` must be true or false")
    return Rates.of(figures.pop("input"), figures.pop("output"), reasoning_whole=whole, **figures)


def _nano(value: object, key: str, where: str) -> int:
    """An amount in nano-units, rounded up. A number of TOML means what is written: 0.1 is a tenth."""
    try:
        amount = Decimal(repr(value) if isinstance(value, float) else value)  # type: ignore[arg-type] # a str or an int
        if isinstance(value, bool) or not amount.is_finite():
            raise ValueError
    except (InvalidOperation, TypeError, ValueError):
        raise ConfigError(f"{where}: `{key}` must be a number, not {value!r}") from None
    if amount < 0:
        raise ConfigError(f"{where}: `{key}` is below zero", hint="a price is 0 or more")
    if amount > AMOUNT_MAX:
        raise ConfigError(f"{where}: `{key}` is above {AMOUNT_MAX:,}", hint="prices are for a million tokens")
    return int((amount * NANO).to_integral_value(ROUND_CEILING))


def _windows(given: object, shared: Table, where: str) -> Iterator[Window]:
    if not isinstance(given, list) or not all(isinstance(each, Mapping) for each in given):
        hint = 'windows = [{ name = "night", from = "22:00", to = "06:00", input = 1, output = 2 }]'
        raise ConfigError(f"{where}: `windows` is a list of tables", hint=hint)
    for number, each in enumerate(given, 1):
        name = each.get("name", f"window {number}")
        place = f"{where}: {name}"
        _known(each, _WINDOW, place)
        if not isinstance(name, str):
            raise ConfigError(f"{place}: `name` must be in quotes")
        begin = _minute(each.get("from", "00:00"), "from", place)
        hours = Hours(_days(each.get("days", "mon-sun"), place), begin, _minute(each.get("to", "24:00"), "to", place))
        yield Window(name, hours, _tiers({**shared, **each}, place))


def _days(given: object, where: str) -> tuple[int, ...]:
    """`mon-fri`, `sat, sun`, or a list of days."""
    parts = given.split(",") if isinstance(given, str) else given
    hint = 'such as days = "mon-fri" or days = "sat, sun"'
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise ConfigError(f"{where}: `days` are no weekdays: {given!r}", hint=hint)
    days: set[int] = set()
    for part in parts:
        ends = [day.strip().lower()[:3] for day in part.split("-")]
        if len(ends) > 2 or not set(ends) <= set(DAYS):
            raise ConfigError(f"{where}: `{part.strip()}` is no weekday", hint=hint)
        first, last = DAYS.index(ends[0]), DAYS.index(ends[-1])
        days |= {day % 7 for day in range(first, last + 1 if last >= first else last + 8)}
    return tuple(sorted(days))


def _minute(given: object, key: str, where: str) -> int:
    """A time of the day in minutes. `to` may be 24:00, and 00:00 there means the same."""
    if isinstance(given, time):
        given = given.isoformat(timespec="minutes")
    match = _CLOCK.fullmatch(given) if isinstance(given, str) else None
    minute = int(match[1]) * 60 + int(match[2]) if match and int(match[2]) < 60 else -1
    if not 0 <= minute <= DAY_MINUTES or (key == "from" and minute == DAY_MINUTES):
        raise ConfigError(f"{where}: `{key}` is no time of the day: {given!r}", hint='such as from = "22:00"')
    return minute or (DAY_MINUTES if key == "to" else 0)


def _zone(name: str, where: str) -> ZoneInfo:
    try:
        return zone_of(name)
    except ValueError as error:
        raise ConfigError(f"{where}: `zone`: {error}", hint="such as Asia/Shanghai, or UTC") from error


def _instant(given: object, key: str, zone: ZoneInfo, where: str) -> int:
    """A date (its first moment in the zone) or a time, in milliseconds since 1970."""
    try:
        moment = datetime.fromisoformat(given) if isinstance(given, str) else given
    except ValueError:
        moment = None
    if isinstance(moment, date) and not isinstance(moment, datetime):
        moment = datetime.combine(moment, time())
    if not isinstance(moment, datetime) or not 1970 < moment.year < 9999:
        raise ConfigError(f"{where}: `{key}` is no date: {given}", hint=f"such as {key} = 2026-11-01")
    moment = moment if moment.tzinfo else moment.replace(tzinfo=zone)
    return int(moment.timestamp() * 1_000)
