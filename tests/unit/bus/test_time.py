"""The device `time`: now, elsewhere, and how far apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mains.bus.devices.time import Time
from mains.kernel.ports import CallContext, Done, Failed
from mains.testing.clock import FakeClock

AT_MS = 1_795_859_400_000  # 2026-11-28T09:50:00Z


@pytest.fixture
def device() -> Time:
    return Time(FakeClock(AT_MS), local="Europe/Berlin")


async def tell(device: Time, tool: str, **arguments: Any) -> Done | Failed:
    return await device.call(tool, arguments, CallContext(1, "k", Path("/w"), 1))


@pytest.mark.parametrize(
    ("tool", "arguments", "text"),
    [
        ("now", {}, "2026-11-28T10:50:00+01:00 (Saturday, Europe/Berlin)"),
        ("now", {"zone": "Asia/Tokyo"}, "2026-11-28T18:50:00+09:00 (Saturday, Asia/Tokyo)"),
        ("convert", {"moment": "now", "to": "UTC"}, "2026-11-28T09:50:00+00:00 (Saturday, UTC)"),
        ("convert", {"moment": "2026-07-01T12:00", "to": "UTC"}, "2026-07-01T10:00:00+00:00 (Wednesday, UTC)"),
        ("convert", {"moment": "2026-07-01T12:00Z",
        "to": "Asia/Kolkata"}, "2026-07-01T17:30:00+05:30 (Wednesday, Asia/Kolkata)"),
        ("convert", {"moment": "2026-07-01 12:00", "to": "UTC",
        "zone": "America/New_York"}, "2026-07-01T16:00:00+00:00 (Wednesday, UTC)"),
        ("difference", {"start": "2026-11-28T00:00Z",
        "end": "2026-11-29T01:02:03Z"}, "90123 s: 1 day, 1 hour, 2 minutes, 3 seconds"),
        ("difference", {"start": "now", "end": "now"}, "0 s: nothing"),
        ("difference", {"start": "2026-01-02", "end": "2026-01-01"}, "-86400 s: 1 day, backwards"),
        # a night in which clocks go forward has 23 hours
        ("difference", {"start": "2026-03-29T00:00", "end": "2026-03-30T00:00"}, "82800 s: 23 hours"),
    ],
)  # fmt: skip
async def test_it_tells_the_time(device: Time, tool: str, arguments: dict[str, str], text: str) -> None:
    assert await tell(device, tool, **arguments) == Done(text)


@pytest.mark.parametrize(
    "zone", ["", "Nowhere/City", "../../etc/passwd", "/etc/passwd", "UTC\0", "a" * 10_000, "\ud800", "Europe", "."]
)
async def test_a_zone_that_is_none_is_refused_in_a_line(device: Time, zone: str) -> None:
    answer = await tell(device, "convert", moment="now", to=zone)
    if zone == "":
        assert isinstance(answer, Done)
        return
    assert isinstance(answer, Failed), answer
    assert "no zone" in answer.text
    assert answer.text.isprintable()


@pytest.mark.parametrize(
    "moment",
    ["", "soon", "2026-13-01", "2026-02-30T10:00", "9" * 100_000, "2026-01-01T25:00", "\ud800\n", "0000-01-01"],
)
async def test_a_moment_that_is_none_is_refused_in_a_line(device: Time, moment: str) -> None:
    answer = await tell(device, "difference", start=moment, end="now")
    assert isinstance(answer, Failed), answer
    assert answer.text.isprintable()


async def test_the_ends_of_the_calendar_are_refusals(device: Time) -> None:
    for moment, zone in (("0001-01-01T00:00Z", "America/New_York"), ("9999-12-31T23:59Z", "Asia/Tokyo")):
        assert isinstance(await tell(device, "convert", moment=moment, to=zone), Failed)
