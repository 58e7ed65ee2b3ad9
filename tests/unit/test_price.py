"""A price as a person writes it: what becomes of it, and what is said when it is wrong."""

from __future__ import annotations

import tomllib
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from mains.engines.price import Money, check_prices, read_price
from mains.errors import ConfigError
from mains.kernel.ports import Usage
from mains.kernel.price import NANO
from mains.kernel.tariff import Tariff

YUAN = Money("usd", {"cny": 139_000_000})


def ms(text: str, zone: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1_000)


def read(text: str, money: Money = YUAN) -> Tariff:
    return read_price(tomllib.loads(text), "qwen/qwen-plus", money, "mains.toml: [engines.qwen.price]")


def test_a_price_with_everything() -> None:
    tariff = read(
        """
        currency = "cny"
        region = "Beijing"
        input = 0.8
        output = 2
        cache_read = 0.16
        cache_write = 1
        cache_write_1h = 1.6
        reasoning = 8
        reasoning_whole = true
        request = 0.000000001
        zone = "Asia/Shanghai"
        valid_from = 2026-11-01
        valid_to = 2026-12-01T12:00:00Z
        tiers = [{ above = 128_000, input = 2.4, output = 20 }]
        source = "https://example.org/prices"
        source_date = "2026-11-24"
        windows = [{ name = "night", days = "mon-fri", from = "22:00", to = 08:00:00, input = "0.4", output = 1 }]
        """
    )
    rates = tariff.tiers[0].rates
    assert rates.figures == (NANO * 8 // 10, 2 * NANO, 160_000_000, NANO, 1_600_000_000, 8 * NANO, 1)
    assert rates.reasoning_whole
    assert [tier.above for tier in tariff.tiers] == [0, 128_000]
    assert tariff.tiers[1].rates.cache_read == 2_400_000_000
    assert (tariff.currency, tariff.home_currency, tariff.exchange) == ("cny", "usd", 139_000_000)
    assert tariff.valid_from_ms == ms("2026-11-01", "Asia/Shanghai")
    assert tariff.valid_to_ms == ms("2026-12-01 12:00", "UTC")
    assert (tariff.region, tariff.source, tariff.source_date) == (
        "Beijing",
        "https://example.org/prices",
        "2026-11-24",
    )
    night, day = ms("2026-11-21 03:00", "Asia/Shanghai"), ms("2026-11-20 12:00", "Asia/Shanghai")
    assert tariff.window_at(night) == tariff.windows[0]
    assert (
        tariff.cost_nano(Usage(1_000_000), night) == 55_600_001
    )  # 0.4 cny, and a nano-yuan for the call, also at night
    assert tariff.cost_nano(Usage(100_000), day) == 11_120_001


def test_a_price_without_a_source_is_from_the_file() -> None:
    assert read("input = 1\noutput = 2").source == "mains.toml: [engines.qwen.price]"


def test_numbers_mean_what_is_written_and_are_rounded_up() -> None:
    assert read("input = 0.1\noutput = 0.0000000001").tiers[0].rates.figures[:2] == (100_000_000, 1)


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        ('"mon-fri"', (0, 1, 2, 3, 4)),
        ('"Saturday, sun"', (5, 6)),
        ('"fri-mon"', (0, 4, 5, 6)),
        ('["wed", "mon"]', (0, 2)),
        ('"sun"', (6,)),
    ],
)
def test_days_in_words(days: str, expected: tuple[int, ...]) -> None:
    text = f"input = 1\noutput = 1\nwindows = [{{ days = {days}, input = 1, output = 1 }}]"
    assert read(text).windows[0].hours.days == expected


def test_windows_alone_must_cover_the_week() -> None:
    halves = """
    windows = [
      { name = "day", from = "08:00", to = "20:00", input = 2, output = 2 },
      { name = "night", from = "20:00", to = "08:00", input = 1, output = 1 },
    ]
    """
    assert [window.name for window in read(halves).windows] == ["day", "night"]


RATES = "input = 1\noutput = 2\n"
WINDOW = "input = 1, output = 1 }]"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "it has no rates"),
        ("input = 1", "`output` is missing"),
        ("output = 1", "`input` is missing"),
        ("input = -1\noutput = 1", "`input` is below zero"),
        ('input = "free"\noutput = 1', "`input` must be a number, not 'free'"),
        ("input = true\noutput = 1", "`input` must be a number"),
        ("input = nan\noutput = 1", "`input` must be a number"),
        ("input = inf\noutput = 1", "`input` must be a number"),
        ("input = [1]\noutput = 1", "`input` must be a number"),
        ("input = 1e12\noutput = 1", "`input` is above 1,000,000,000"),
        ("input = 1e8\noutput = 1", "`input` is above 10,000,000"),
        (RATES + "inputs = 1", "unknown key `inputs`"),
        (RATES + 'reasoning_whole = "yes"', "`reasoning_whole` must be true or false"),
        (RATES + 'currency = "eur"', "the price is in eur, and the home's currency is usd"),
        (RATES + 'currency = "Euro"', "`Euro` is no currency"),
        (RATES + "currency = 1", "`currency` must be in quotes"),
        (RATES + 'zone = "Mars"', "`Mars` is no time zone"),
        (RATES + 'valid_from = "soon"', "`valid_from` is no date"),
        (RATES + "valid_from = 12:00:00", "`valid_from` is no date"),
        (RATES + "valid_from = 0001-01-01", "`valid_from` is no date"),
        (RATES + "valid_from = 2026-02-01\nvalid_to = 2026-01-01", "it ends before it begins"),
        (RATES + "tiers = 5", "`tiers` is a list of tables"),
        (RATES + "tiers = [{ input = 1, output = 1 }]", "a tier needs `above`"),
        (RATES + "tiers = [{ above = 1.5, input = 1, output = 1 }]", "a tier needs `above`"),
        (RATES + "tiers = [{ above = 10, input = 1 }]", "above 10 tokens: `output` is missing"),
        (RATES + "tiers = [{ above = 0, input = 1, output = 1 }]", "tiers are not in order"),
        (RATES + "windows = 5", "`windows` is a list of tables"),
        (RATES + 'windows = [{ days = "noday", ' + WINDOW, "`noday` is no weekday"),
        (RATES + "windows = [{ days = 5, " + WINDOW, "`days` are no weekdays"),
        (RATES + "windows = [{ days = [], " + WINDOW, "`days` are no weekdays"),
        (RATES + 'windows = [{ from = "24:00", ' + WINDOW, "`from` is no time of the day"),
        (RATES + 'windows = [{ from = "9:75", ' + WINDOW, "`from` is no time of the day"),
        (RATES + 'windows = [{ from = "09:00", to = "09:00", ' + WINDOW, "`from` and `to` are the same"),
        (RATES + 'windows = [{ name = "x", form = "09:00", ' + WINDOW, "x: unknown key `form`"),
        (RATES + "windows = [{ name = 5, " + WINDOW, "`name` must be in quotes"),
        ('windows = [{ name = "x", from = "08:00", ' + WINDOW, "no window says what holds from mon 00:00 to mon 08:00"),
        (
            RATES + 'windows = [{ from = "08:00", to = "12:00", input = 1, output = 1 }, { from = "11:00", ' + WINDOW,
            "two windows are open on mon 11:00",
        ),
    ],
)
def test_a_wrong_price_is_told_in_one_line_with_its_place(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as told:
        read(text)
    assert says in str(told.value)
    assert str(told.value).startswith("mains.toml: [engines.qwen.price]")
    assert "\n" not in f"{told.value}{told.value.hint}"


def test_a_price_is_checked_before_the_currency_of_the_home_is_known() -> None:
    check_prices({"currency": "cny", "input": 1, "output": 2}, "qwen", "here")
    with pytest.raises(ConfigError, match="here: `output` is missing"):
        check_prices([{"input": 1, "output": 2}, {"input": 1}], "qwen", "here")
    with pytest.raises(ConfigError, match="here: `price` is no table"):
        check_prices(0.5, "qwen", "here")
    with pytest.raises(ConfigError, match="`currency` must be in quotes"):
        check_prices({"currency": 5, "input": 1, "output": 2}, "qwen", "here")


def test_the_money_of_a_home() -> None:
    assert Money.of({}, "m") == Money("usd", {})
    assert Money.of({"currency": "eur", "rates": {"usd": 0.92}}, "m") == Money("eur", {"usd": 920_000_000})


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"currency": "dollar"}, "currency is no currency: 'dollar'"),
        ({"currency": 5}, "currency is no currency"),
        ({"rates": 5}, "rates is no table"),
        ({"rates": {"cny": 0}}, "cny = 0 cannot be"),
        ({"rates": {"cny": -1}}, "`cny` is below zero"),
        ({"rates": {"cny": 2_000_000}}, "cny = 2000000 cannot be"),
        ({"rates": {"cny": "x"}}, "`cny` must be a number"),
        ({"rates": {"CNY": 1}}, "`CNY` is no currency"),
        ({"rates": {"usd": 1}}, "usd is the home's own currency"),
    ],
)
def test_wrong_money_is_told(document: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Money.of(document, "mains.toml")
