"""Amounts as people type them: what is meant comes out exactly, and nothing else does."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mains.cli.amounts import (
    NANO,
    UNITS_MAX,
    WINDOWS,
    Purse,
    amount,
    brief,
    exact,
    limit_of,
    limits_of,
    midnight_ms,
    nano_of,
    since_ms,
    tokens_of,
)
from mains.errors import UsageError
from mains.kernel.billing import Budget, Unit

USD = Purse("usd", {"eur": 1_070_000_000, "jpy": 6_600_000})
NANOS = st.integers(1, UNITS_MAX * NANO)
WINDOW = st.sampled_from(WINDOWS)


@given(NANOS)
def test_money_comes_out_as_it_went_in(nano: int) -> None:
    assert nano_of(f"{exact(nano)}usd", USD) == nano
    assert nano_of(f" {exact(nano)} USD ", USD) == nano
    assert Decimal(exact(nano)) * NANO == nano
    assert exact(-nano) == f"-{exact(nano)}"
    assert not exact(nano).endswith(".")


@given(NANOS)
def test_brief_money_is_near(nano: int) -> None:
    told = brief(nano)
    if told == "<0.0001":
        assert nano < NANO // 10_000
    else:
        assert abs(Decimal(told.replace(",", "")) * NANO - nano) <= NANO // (200 if nano >= NANO else 20_000)


@given(st.integers(1, 10**12), WINDOW)
def test_a_limit_of_tokens(tokens: int, window: str) -> None:
    for typed in (str(tokens), f"{tokens:,}", f"{tokens:_}"):
        assert limit_of(f"{typed}/{window}", "tokens", USD) == Budget("tokens", window, tokens)  # type: ignore[arg-type]
        assert limit_of(typed, "tokens", USD) == Budget("tokens", "total", tokens)


@given(st.integers(1, 999_999), WINDOW)
def test_thousands_and_millions(number: int, window: str) -> None:
    assert limit_of(f"{number}k/{window}", "tokens", USD).most == number * 1_000
    assert limit_of(f"{number}M/{window.upper()}", "tokens", USD).most == number * 1_000_000
    assert tokens_of(f"{number}.5k") == number * 1_000 + 500


@given(st.decimals(Decimal("0.01"), 10_000, places=2))
def test_a_foreign_currency_is_never_more_than_its_worth(money: Decimal) -> None:
    nano = nano_of(f"{money}eur", USD)
    assert 0 <= money * Decimal("1.07") * NANO - nano < 1
    assert limit_of(f"{money}eur/month", "money", USD) == Budget("money", "month", nano)


@given(st.text(max_size=30))
def test_whatever_is_typed_is_an_amount_above_zero_or_one_clear_line(text: str) -> None:
    units: tuple[Unit, Unit] = ("tokens", "money")
    for unit in units:
        try:
            limit = limit_of(text, unit, USD)
        except UsageError as error:
            assert str(error).isprintable()
            assert len(str(error)) < 250
        else:
            assert limit.most is None or limit.most > 0


@pytest.mark.parametrize(
    ("typed", "unit", "told"),
    [
        ("-5", "tokens", "`-5` is not a number of tokens"),
        ("0", "tokens", "`0` is not a whole number of tokens"),
        ("1,5k", "tokens", "`1,5k` is not a number of tokens"),
        ("12,34", "tokens", "`12,34` is not a number of tokens"),
        ("1.0005k", "tokens", "not a whole number"),
        ("many/day", "tokens", "`many` is not a number of tokens"),
        ("", "tokens", "is not a number of tokens"),
        ("5/fortnight", "tokens", "`5/fortnight`: `fortnight` is no window of a limit"),
        ("5/", "tokens", "no window"),
        ("5/day/week", "tokens", "no window"),
        ("inf", "tokens", "not a number"),
        ("1e9", "tokens", "not a number"),
        ("٣", "tokens", "not a number"),
        ("-5usd", "money", "`-5usd` is not an amount of money: write 5usd or 0.25usd"),
        ("0usd", "money", "`0usd` is not from 1 nano-unit to"),
        ("0,25usd", "money", "not an amount of money"),
        ("0.0000000001usd", "money", "not an amount of money"),
        ("5", "money", "`5` names no currency: write 5usd"),
        ("5gbp/day", "money", "no rate says what 1 gbp is worth in usd"),
        ("1000000001usd", "money", "is not from 1 nano-unit to 1,000,000,000 usd"),
        ("0.000000001jpy", "money", "is not from 1 nano-unit of usd"),
        ("nan", "money", "not an amount"),
        ("1e3usd", "money", "not an amount"),
        ("$5", "money", "not an amount"),
    ],
)
def test_what_cannot_be_meant(typed: str, unit: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        limit_of(typed, unit, USD)  # type: ignore[arg-type]
    assert told in str(caught.value)


def test_limits_are_taken_away_and_given_once() -> None:
    assert limits_of(["none/day", "1k"], ["NONE"], USD) == [
        Budget("tokens", "day", None), Budget("tokens", "total", 1_000), Budget("money", "total", None),
    ]  # fmt: skip
    with pytest.raises(UsageError, match="--tokens: two limits for a day"):
        limits_of(["1k/day", "none/day"], [], USD)
    with pytest.raises(UsageError, match="--money: two limits for the total"):
        limits_of([], ["1usd", "2usd/total"], USD)
    with pytest.raises(UsageError, match="--money: no rate") as caught:
        limits_of([], ["1gbp"], USD)
    assert "[rates]" in caught.value.hint


def test_amounts_for_people() -> None:
    assert amount(1_234_567, "tokens", "usd") == "1,234,567 tokens"
    assert amount(1_500_000_000, "money", "eur") == "1.5 eur"
    assert [brief(n) for n in (0, 1, 99_999, 100_000, 123_450_000, NANO, 1_234_567_890_123)] == [
        "0.00", "<0.0001", "<0.0001", "0.0001", "0.1234", "1.00", "1,234.57",
    ]  # fmt: skip


BERLIN = ZoneInfo("Europe/Berlin")
NOW = int(datetime(2026, 11, 24, 12, tzinfo=UTC).timestamp() * 1_000)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("7d", datetime(2026, 11, 17, 12, tzinfo=UTC)),
        ("90m", datetime(2026, 11, 24, 10, 30, tzinfo=UTC)),
        ("2026-11-01", datetime(2026, 10, 31, 23, tzinfo=UTC)),
        ("2026-07-01", datetime(2026, 6, 30, 22, tzinfo=UTC)),
        ("99999d", datetime(1970, 1, 1, tzinfo=UTC)),
        ("1900-01-01", datetime(1970, 1, 1, tzinfo=UTC)),
    ],
)
def test_since(typed: str, meant: datetime) -> None:
    assert since_ms(typed, NOW, BERLIN) == meant.timestamp() * 1_000


@pytest.mark.parametrize("typed", ["", "yesterday", "2026-13-01", "2026-02-30", "-7d", "7", "7w"])
def test_no_time(typed: str) -> None:
    with pytest.raises(UsageError, match=r"is no (time|day)"):
        since_ms(typed, NOW, BERLIN)


@given(st.dates(date(1980, 1, 1), date(2100, 1, 1)))
def test_a_day_begins_at_midnight(day: date) -> None:
    assert datetime.fromtimestamp(midnight_ms(day, BERLIN) / 1_000, BERLIN).date() == day
