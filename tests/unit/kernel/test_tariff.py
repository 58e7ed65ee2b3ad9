"""Tariffs: amounts, holds that no call exceeds, dates and content; and what a wrong one says."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from fractions import Fraction
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mains.errors import ConfigError
from mains.kernel.ports import Usage
from mains.kernel.price import NANO, RATE_MAX, Rates, Tier
from mains.kernel.tariff import FREE, Tariff, Window, link
from mains.kernel.week import DAY_MINUTES, Hours
from mains.program.fields import TOKENS_MAX

DAY_MS = 86_400_000
ZONES = ("UTC", "Europe/Berlin", "Asia/Shanghai", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu")


def ms(text: str, zone: str = "UTC") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1_000)


def flat(input_rate: int, output: int) -> tuple[Tier, ...]:
    return (Tier(0, Rates.of(input_rate * NANO, output * NANO)),)


def tariff(**more: object) -> Tariff:
    given = {"name": "a/b", "currency": "usd", "home_currency": "usd", "tiers": flat(2, 8), **more}
    return Tariff(**given)  # type: ignore[arg-type] # fields of many types, given by name


NIGHT = Window("off-peak", Hours((0, 1, 2, 3, 4), 22 * 60, 6 * 60), flat(1, 4))
BERLIN = tariff(windows=(NIGHT,), zone="Europe/Berlin")

# ------------------------------------------------------------------------------------------------ the amounts


def test_a_call_costs_tokens_times_rates_rounded_up_once() -> None:
    assert tariff().cost_nano(Usage(1_000, 0, 100), 0) == 1_000 * 2_000 + 100 * 8_000
    odd = tariff(tiers=(Tier(0, Rates.of(1, 1)),))  # a millionth of a nano-unit for each token
    assert odd.cost_nano(Usage(1, 0, 1), 0) == 1
    assert odd.cost_nano(Usage(1_000_000, 0, 1), 0) == 2
    assert odd.cost_nano(Usage(), 0) == 0


def test_every_kind_of_token_has_its_rate() -> None:
    rates = Rates.of(
        1_000_000, 100_000_000, cache_read=10, cache_write=2_000_000, cache_write_1h=3_000_000, reasoning=7_000_000
    )
    usage = Usage(10, 3, 5, cache_write_tokens=2, cache_write_1h_tokens=1, reasoning_tokens=4)
    fresh, written, answer = 4 * 1, 2 * 2 + 1 * 3, 1 * 100 + 4 * 7
    assert tariff(tiers=(Tier(0, rates),)).cost_nano(usage, 0) == fresh + written + answer + 1  # 3 x 10 millionths


def test_what_is_not_said_costs_as_its_like() -> None:
    rates = Rates.of(5, 9, cache_write=7)
    assert (rates.cache_read, rates.cache_write, rates.cache_write_1h, rates.reasoning) == (5, 7, 7, 9)


def test_a_request_has_a_price_of_its_own() -> None:
    assert tariff(tiers=(Tier(0, Rates.of(0, 0, request=123)),)).cost_nano(Usage(1_000, 0, 9), 0) == 123


def test_a_call_that_reasons_may_pay_for_its_whole_output() -> None:
    rates = Rates.of(0, 1_000_000, reasoning=4_000_000, reasoning_whole=True)
    priced = tariff(tiers=(Tier(0, rates),))
    assert priced.cost_nano(Usage(0, 0, 10), 0) == 10
    assert priced.cost_nano(Usage(0, 0, 10, reasoning_tokens=1), 0) == 40


def test_the_size_of_the_input_decides_the_rates_of_the_whole_call() -> None:
    tiers = (Tier(0, Rates.of(1_000_000, 1_000_000)), Tier(100, Rates.of(3_000_000, 5_000_000)))
    priced = tariff(tiers=tiers)
    assert priced.cost_nano(Usage(100, 0, 1), 0) == 101
    assert priced.cost_nano(Usage(101, 50, 1), 0) == 308  # cached tokens count for the size
    assert priced.hold_nano(100, 1, 0, 0) == 101
    assert priced.hold_nano(101, 1, 0, 0) == 308


def test_a_cheap_tier_above_a_dear_one_does_not_lower_the_hold() -> None:
    tiers = (Tier(0, Rates.of(9_000_000, 9_000_000)), Tier(100, Rates.of(1_000_000, 1_000_000)))
    assert tariff(tiers=tiers).hold_nano(101, 1, 0, 0) == 909  # the call may turn out to have 100


def test_another_currency_is_exchanged_before_the_rounding() -> None:
    yuan = tariff(currency="cny", exchange=139_000_000, tiers=(Tier(0, Rates.of(8 * NANO // 10, 2 * NANO)),))
    exact = Fraction(139, 1_000) * (Fraction(8, 10) * 1_001 + 2 * 7) * NANO / 10**6
    assert yuan.cost_nano(Usage(1_001, 0, 7), 0) == math.ceil(exact)


def test_free_costs_nothing_and_buys_more_than_anybody_asks_for() -> None:
    assert FREE.cost_nano(Usage(10**6, 0, 10**6), 0) == FREE.hold_nano(10**6, 10**6, 0, DAY_MS) == 0
    assert FREE.output_tokens_for(0, 10**6, 0, DAY_MS) == TOKENS_MAX
    assert FREE.cheaper_at_ms(0) is None


# -------------------------------------------------------------------------------------------- windows and time


def test_a_window_past_midnight_belongs_to_the_day_on_which_it_begins() -> None:
    usage = Usage(1_000, 0, 0)
    day, night = 2_000_000, 1_000_000
    for at, cost in (
        ("2026-11-20 21:59", day),  # a Friday
        ("2026-11-20 22:00", night),
        ("2026-11-21 05:59", night),  # Saturday, but of Friday's window
        ("2026-11-21 06:00", day),
        ("2026-11-21 23:00", day),  # none begins on Saturday
        ("2026-11-23 03:00", day),  # Monday morning: Sunday has none
    ):
        assert BERLIN.cost_nano(usage, ms(at, "Europe/Berlin")) == cost, at


def test_a_hold_takes_the_dearest_window_that_can_be_reached() -> None:
    night = ms("2026-11-20 23:00", "Europe/Berlin")
    six = ms("2026-11-21 06:00", "Europe/Berlin")
    assert BERLIN.hold_nano(1_000, 0, night, six - 1) == 1_000_000
    assert BERLIN.hold_nano(1_000, 0, night, six) == 2_000_000
    assert BERLIN.hold_nano(1_000, 0, night, night + 400 * DAY_MS) == 2_000_000


def test_when_a_cheaper_window_opens() -> None:
    friday = ms("2026-11-20 12:00", "Europe/Berlin")
    assert BERLIN.cheaper_at_ms(friday) == ms("2026-11-20 22:00", "Europe/Berlin")
    assert BERLIN.cheaper_at_ms(ms("2026-11-20 23:00", "Europe/Berlin")) is None
    saturday = ms("2026-11-21 12:00", "Europe/Berlin")
    assert BERLIN.cheaper_at_ms(saturday) == ms("2026-11-23 22:00", "Europe/Berlin")
    assert tariff().cheaper_at_ms(friday) is None


def test_a_window_that_is_not_cheaper_in_everything_is_not_waited_for() -> None:
    other = Window("night", Hours((0, 1, 2, 3, 4, 5, 6), 0, 60), flat(1, 9))
    assert tariff(windows=(other,)).cheaper_at_ms(ms("2026-11-20 12:00")) is None


def test_the_hour_that_summer_time_skips_and_the_hour_that_comes_twice() -> None:
    two_to_three = Window("x", Hours((6,), 120, 180), flat(1, 4))
    priced = tariff(windows=(two_to_three,), zone="Europe/Berlin")
    usage = Usage(1_000, 0, 0)
    # 2026-03-29: 02:00 becomes 03:00 at 01:00 UTC
    assert {priced.cost_nano(usage, ms(f"2026-03-29 {clock}")) for clock in ("00:59", "01:00", "01:30")} == {2_000_000}
    # 2026-10-25: 03:00 becomes 02:00 at 01:00 UTC
    for clock, cost in (("00:00", 1), ("00:59", 1), ("01:00", 1), ("01:59", 1), ("02:00", 2)):
        assert priced.cost_nano(usage, ms(f"2026-10-25 {clock}")) == cost * 1_000_000, clock
    saturday = ms("2026-03-28 12:00")
    assert priced.cheaper_at_ms(saturday) == ms("2026-04-05 00:00")  # this week's is skipped


def test_what_was_saved() -> None:
    rates = Rates.of(2 * NANO, 8 * NANO, cache_read=NANO // 5, cache_write=3 * NANO)
    priced = tariff(tiers=(Tier(0, rates),), windows=(NIGHT,), zone="Europe/Berlin")
    noon = ms("2026-11-20 12:00", "Europe/Berlin")
    assert priced.saved(Usage(1_000, 500, 0), noon) == (900_000, 0)
    assert priced.saved(Usage(1_000, 0, 0, cache_write_tokens=500), noon) == (0, 0)  # a cache that only cost
    cache, hour = priced.saved(Usage(1_000, 0, 10), ms("2026-11-20 23:00", "Europe/Berlin"))
    assert (cache, hour) == (0, 1_040_000)


# ---------------------------------------------------------------------------------------------------- dates


def dated() -> Tariff:
    return link(
        [
            tariff(valid_from_ms=ms("2026-12-01"), tiers=flat(3, 9)),
            tariff(valid_from_ms=ms("2026-11-01"), valid_to_ms=ms("2026-12-01")),
        ]
    )


def test_the_snapshot_in_force() -> None:
    snapshots = dated()
    assert snapshots.in_force(ms("2026-10-31 23:59")) is None
    assert snapshots.in_force(ms("2026-11-30 23:59")) is snapshots
    later = snapshots.in_force(ms("2026-12-01"))
    assert later is snapshots.then
    assert later is not None
    assert later.tiers == flat(3, 9)
    assert later.id != snapshots.id


def test_a_hold_foresees_the_next_snapshot_and_the_cost_is_the_one_of_its_day() -> None:
    snapshots = dated()
    before, after = ms("2026-11-30 23:50"), ms("2026-12-01")
    assert snapshots.hold_nano(1_000, 0, before, after - 1) == 2_000_000
    assert snapshots.hold_nano(1_000, 0, before, after) == 3_000_000
    assert snapshots.hold_nano(1_000, 0, before, after + 900 * DAY_MS) == 3_000_000
    assert snapshots.cost_nano(Usage(1_000), before) == 2_000_000
    assert snapshots.cost_nano(Usage(1_000), after) == 3_000_000


def test_a_price_that_ends_is_none_afterwards() -> None:
    assert tariff(valid_to_ms=DAY_MS).in_force(DAY_MS) is None


def test_an_id_says_what_a_tariff_contains() -> None:
    assert tariff().id == tariff().id
    others = [tariff(tiers=flat(2, 9)), tariff(region="x"), BERLIN, dated(), tariff(source_date="2026-11-24")]
    assert len({tariff().id, *(each.id for each in others)}) == 6
    for each in (tariff(), *others):
        assert msgspec.json.decode(msgspec.json.encode(each), type=Tariff) == each


def test_an_altered_row_is_found() -> None:
    row = msgspec.json.encode(tariff()).replace(b'"output":8000000000', b'"output":1000000000')
    with pytest.raises(ConfigError, match="its content is not that of"):
        msgspec.json.decode(row, type=Tariff)


# ------------------------------------------------------------------------------------------- what is refused

WORKDAY = Hours((0, 1, 2, 3, 4), 8 * 60, 20 * 60)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: tariff(tiers=flat(-1, 1)), "`input` is below zero"),
        (lambda: tariff(tiers=(Tier(0, Rates.of(1, RATE_MAX + 1)),)), "`output` is above 10,000,000"),
        (lambda: tariff(tiers=(Tier(0, Rates.of(1, 1, request=-1)),)), "`request` is below zero"),
        (lambda: tariff(tiers=()), "it has no rates"),
        (lambda: tariff(tiers=(Tier(10, Rates.of(1, 1)),)), "no tier says what holds up to 10 tokens"),
        (lambda: tariff(tiers=(Tier(0, Rates.of(1, 1)), Tier(0, Rates.of(1, 1)))), "tiers are not in order"),
        (lambda: tariff(zone="Mars/Olympus", windows=(NIGHT,)), "'Mars/Olympus' is no time zone"),
        (lambda: tariff(windows=(NIGHT, NIGHT)), "two windows are open on mon 22:00"),
        (
            lambda: tariff(tiers=(), windows=(Window("x", WORKDAY, flat(1, 1)),)),
            "no window says what holds from mon 00",
        ),
        (lambda: tariff(windows=(Window("x", Hours((7,)), flat(1, 1)),)), "`days` are no weekdays"),
        (lambda: tariff(windows=(Window("x", Hours((0,), 60, 60), flat(1, 1)),)), "`from` and `to` are the same"),
        (lambda: tariff(windows=(Window("x", Hours((0,), 60, 2_000), flat(1, 1)),)), "hours run from 00:00 to 24:00"),
        (lambda: tariff(currency="Dollars"), "`Dollars` is no currency"),
        (lambda: tariff(currency="cny", exchange=0), "the rate of cny"),
        (lambda: tariff(exchange=2 * NANO), "usd is exchanged for itself"),
        (lambda: tariff(valid_from_ms=5, valid_to_ms=5), "it ends before it begins"),
        (lambda: link([tariff(valid_to_ms=5), tariff(valid_from_ms=6)]), "no price holds from 1970"),
        (lambda: link([tariff(valid_to_ms=7), tariff(valid_from_ms=6)]), "two prices hold at the same time"),
        (lambda: link([tariff(), tariff()]), "two prices hold at the same time"),
    ],
)
def test_a_wrong_tariff_is_never_made(make: Callable[[], Tariff], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as told:
        make()
    assert "a/b" in str(told.value)
    assert "\n" not in str(told.value)


# ------------------------------------------------------------------------------------------------ properties

RATE = st.integers(0, 50 * NANO) | st.integers(0, 9)
RATES = st.builds(
    Rates,
    input=RATE,
    output=RATE,
    cache_read=RATE,
    cache_write=RATE,
    cache_write_1h=RATE,
    reasoning=RATE,
    request=st.integers(0, NANO),
    reasoning_whole=st.booleans(),
)
BOUNDS = st.lists(st.integers(1, 3_000), max_size=3, unique=True).map(lambda bounds: [0, *sorted(bounds)])
TIERS = BOUNDS.flatmap(lambda bounds: st.tuples(*(st.builds(Tier, st.just(bound), RATES) for bound in bounds)))
CUTS = st.lists(st.integers(1, DAY_MINUTES - 1), min_size=2, max_size=5, unique=True).map(sorted)
FROM = st.integers(ms("2026-03-01"), ms("2026-12-01"))
"""Summer time begins and ends in between, in the north and in the south."""


@st.composite
def windows(draw: st.DrawFn) -> tuple[Window, ...]:
    """Windows that do not overlap: each cut of a day begins one, the last goes past midnight."""
    if draw(st.booleans()):
        return ()
    cuts = draw(CUTS)
    spans = list(zip(cuts, [*cuts[1:], cuts[0]], strict=True))
    days = tuple(draw(st.sets(st.integers(0, 6), min_size=1)))
    kept = draw(st.lists(st.sampled_from(spans), min_size=1, unique=True))
    return tuple(Window("x", Hours(days, begin, end), draw(TIERS)) for begin, end in kept)


@st.composite
def tariffs(draw: st.DrawFn) -> Tariff:
    more = {"currency": "cny", "exchange": draw(st.integers(1, 10**12))} if draw(st.booleans()) else {}
    first = tariff(tiers=draw(TIERS), windows=draw(windows()), zone=draw(st.sampled_from(ZONES)), **more)
    if draw(st.booleans()):
        return first
    return link([first, tariff(valid_from_ms=draw(FROM), tiers=draw(TIERS), windows=draw(windows()))])


@st.composite
def usages(draw: st.DrawFn, input_max: int, output_max: int) -> Usage:
    """A call within so many tokens; now and then its parts are more than their whole, as a bad engine counts."""
    read, written = draw(st.integers(0, input_max)), draw(st.integers(0, output_max))
    part = st.integers(0, read + 5)
    return Usage(read, draw(part), written, draw(part), draw(part), draw(st.integers(0, written + 5)))


CALM = settings(deadline=None, suppress_health_check=list(HealthCheck))  # the machine may be busy with other things
SPAN_MS = st.integers(0, 3_600_000) | st.integers(0, 12 * DAY_MS)
CALLS = st.tuples(st.integers(0, 4_000), st.integers(0, 4_000))


@CALM
@given(st.data(), tariffs(), FROM, SPAN_MS, CALLS)
def test_no_call_costs_more_than_its_hold(
    data: st.DataObject, priced: Tariff, begin: int, span: int, call: tuple[int, int]
) -> None:
    held = priced.hold_nano(*call, begin, begin + span)
    for _ in range(5):
        usage = data.draw(usages(*call))
        assert priced.cost_nano(usage, begin + data.draw(st.integers(0, span))) <= held


@CALM
@given(tariffs(), FROM, SPAN_MS, CALLS, st.integers(0, 10**8))
def test_what_a_sum_buys_is_the_largest_output_that_it_holds(
    priced: Tariff, begin: int, span: int, call: tuple[int, int], nano: int
) -> None:
    most = priced.output_tokens_for(nano, call[0], begin, begin + span)
    assert -1 <= most <= TOKENS_MAX
    assert most < 0 or priced.hold_nano(call[0], most, begin, begin + span) <= nano
    assert most == TOKENS_MAX or priced.hold_nano(call[0], most + 1, begin, begin + span) > nano
    held = priced.hold_nano(*call, begin, begin + span)
    assert priced.output_tokens_for(held, call[0], begin, begin + span) >= call[1]


@CALM
@given(st.data(), tariffs(), FROM, CALLS)
def test_nothing_is_saved_below_zero(data: st.DataObject, priced: Tariff, at: int, call: tuple[int, int]) -> None:
    usage = data.draw(usages(*call))
    cache, hour = priced.saved(usage, at)
    assert cache >= 0
    assert hour >= 0
    bare = Usage(usage.input_tokens, 0, usage.output_tokens, reasoning_tokens=usage.reasoning_tokens)
    assert priced.saved(bare, at)[0] == 0


@CALM
@given(tariffs(), FROM)
def test_a_cheaper_window_is_cheaper_when_it_opens_and_not_before(priced: Tariff, now: int) -> None:
    at = priced.cheaper_at_ms(now)
    if at is None:
        return
    assert now < at <= now + 8 * DAY_MS
    for call in (Usage(5_000, 0, 5_000), Usage(1, 0, 1), Usage(2_000, 1_000, 3, reasoning_tokens=2)):
        assert priced.cost_nano(call, at) <= priced.cost_nano(call, now)


@CALM
@given(tariffs())
def test_a_tariff_comes_back_from_its_row_as_it_was(priced: Tariff) -> None:
    row = msgspec.json.encode(priced)
    back = msgspec.json.decode(row, type=Tariff)
    assert back == priced
    assert back.id == priced.id
    assert msgspec.json.encode(back) == row


@CALM
@given(st.sampled_from(ZONES), FROM, windows())
def test_the_windows_change_when_they_do(zone: str, begin: int, given_windows: tuple[Window, ...]) -> None:
    """Against the clock on the wall, asked for each half of an hour."""
    priced = tariff(windows=given_windows, zone=zone)
    begin -= begin % 1_800_000
    for step in range(0, DAY_MS, 1_800_000):
        at = begin + step
        wall = datetime.fromtimestamp(at / 1_000, ZoneInfo(zone))
        minute = wall.hour * 60 + wall.minute
        open_ = [w for w in given_windows if _open(w.hours, wall.weekday(), minute)]
        assert len(open_) <= 1
        expected = open_[0].tiers if open_ else priced.tiers
        assert priced.tiers_at(at) == expected


def _open(hours: Hours, day: int, minute: int) -> bool:
    if hours.end > hours.begin:
        return day in hours.days and hours.begin <= minute < hours.end
    return (day in hours.days and minute >= hours.begin) or ((day - 1) % 7 in hours.days and minute < hours.end)
