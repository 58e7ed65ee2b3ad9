"""The dial of `mains meter watch`: speeds, limits, what fits on a screen; and on a real terminal."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.daemon_box import Box
from tests.unit.terminal import Terminal

from mains.cli.board import cells_of
from mains.cli.dial import Dial
from mains.cli.reading import Reading, Row

NOON = int(datetime(2026, 11, 24, 12, tzinfo=UTC).timestamp() * 1_000)
MIDNIGHT = NOON - 12 * 3_600_000
DAY = 86_400_000


def row(tokens: int, account: str = "ann", program: str = "say", cost: int = 0, **other: Any) -> dict[str, Any]:
    return {
        "account": account, "program": program, "model": "m", "calls": 1, "input_tokens": tokens, "cached_tokens": 0,
        "output_tokens": 0, "cost_nano": cost, "currency": "usd", "cache_saved_nano": 0, "off_peak_saved_nano": 0,
    } | other  # fmt: skip


def limit(used: int, most: int = 100, held: int = 0, **other: Any) -> dict[str, Any]:
    return {
        "unit": "tokens", "window": "day", "most": most, "added": 0, "used": used, "held": held,
        "left": most - used - held, "resets_at": "2026-11-25T00:00:00+00:00", "warned": 0,
    } | other  # fmt: skip


def reading(
    after_s: float,
    *today: Row,
    minute: Sequence[Row] = (),
    limits: Sequence[tuple[str, Row]] = (),
    midnight: int = MIDNIGHT,
) -> Reading:
    at_ms = NOON + round(after_s * 1_000)
    return Reading(at_ms, midnight, UTC, "home", "usd", today, minute, limits)


def drawn(dial: Dial, width: int = 80, height: int = 24) -> list[str]:
    return ["".join(text for _, text in line) for line in dial.lines(width, height)]


# ------------------------------------------------------------------------------------------------- the figures


def test_the_first_reading_knows_the_last_minute() -> None:
    dial = Dial()
    dial.take(reading(0, row(1_000, cost=9_000), minute=[row(300, cost=2_000)]))
    assert dial.speed().tokens_a_minute == 300
    assert dial.speed().nano_an_hour == 120_000
    dial.take(reading(30, row(1_000, cost=9_000)))  # nothing more was charged in half a minute
    assert dial.speed().tokens_a_minute == 200


def test_a_speed_is_of_the_last_minute() -> None:
    dial = Dial()
    for second in range(0, 300, 2):
        dial.take(reading(second, row(100 * second), row(second, "bob")))
    assert dial.speed().tokens_a_minute == pytest.approx(6_060, rel=0.05)
    assert dial.speed(("ann", "say", "m")).tokens_a_minute == pytest.approx(6_000, rel=0.05)
    assert dial.speed(("nobody", "say", "m")).tokens_a_minute == 0
    dial.take(reading(400, row(29_800), row(298, "bob")))
    dial.take(reading(460, row(29_800), row(298, "bob")))
    assert dial.speed().tokens_a_minute == 0


def test_a_new_day_begins_at_nothing() -> None:
    dial = Dial()
    dial.take(reading(0, row(5_000)))
    later = reading(13 * 3_600, row(600), midnight=MIDNIGHT + DAY)
    dial.take(later)
    assert 0 < dial.speed().tokens_a_minute <= 600
    assert dial.as_object()["today"]["tokens"] == 600


def test_what_is_less_than_before_is_no_speed() -> None:
    dial = Dial()
    dial.take(reading(0, row(5_000), row(10, "bob")))
    dial.take(reading(10, row(10, "bob")))  # the other was erased
    assert dial.speed().tokens_a_minute == 0


def test_who_burns_most_comes_first() -> None:
    dial = Dial()
    dial.take(reading(0, row(9_000, "big"), row(10, "quick"), row(20, "slow")))
    dial.take(reading(10, row(9_000, "big"), row(900, "quick"), row(100, "slow")))
    assert [each["account"] for each, _ in dial.burners()] == ["quick", "slow", "big"]
    assert [each["account"] for each in dial.as_object()["rows"]] == ["quick", "slow", "big"]


def test_the_fullest_limit_comes_first() -> None:
    dial = Dial()
    limits = [("a", limit(10)), ("b", limit(99)), ("c", limit(100, added=100)), ("d", limit(0, most=0))]
    dial.take(reading(0, limits=limits))
    assert [name for name, _ in dial.limits()] == ["d", "b", "c", "a"]


# ------------------------------------------------------------------------------------------------- the screen


def test_the_screen_says_it_all() -> None:
    dial = Dial()
    limits = [
        ("ann", limit(97, held=2)),
        ("acme", limit(6_400_000_000, 10_000_000_000, unit="money", window="month", resets_at="2026-12-01T00:00:00Z")),
        ("home", limit(5, window="total", resets_at="")),
    ]
    dial.take(reading(0, row(1_234_567, cost=2_310_000_000), minute=[row(4_200, cost=7_000_000)], limits=limits))
    lines = drawn(dial)
    text = "\n".join(lines)
    assert lines[0].startswith(" mains meter: home")
    assert lines[0].endswith("Tue 24 Nov 12:00:00 UTC ")
    assert "4,200" in text
    assert "1,234,567" in text
    assert "2.31" in text
    ann, acme, home = (next(line for line in lines if line.startswith(f" {name} ")) for name in ("ann", "acme", "home"))
    assert " 97 % 97 of 100" in ann
    assert " 64 % 6.40 of 10.00" in acme
    assert "  5 % 5 of 100" in home
    assert (ann.count("▆") > acme.count("▆") > home.count("▆")) and "▂" not in acme
    assert home.count("╎") == 3
    assert "in 12h" in "\n".join(drawn(dial, 120, 40))
    assert "never" in "\n".join(drawn(dial, 120, 40))
    styles = {style for line in dial.lines(80, 24) for style, _ in line}
    assert {"ansired", "ansigreen"} <= styles


def test_marks_on_a_narrow_screen_do_not_run_into_each_other() -> None:
    dial = Dial()
    dial.take(reading(0, limits=[("ann", limit(10))]))
    assert next(line for line in drawn(dial, 50) if line.startswith(" LIMITS")).split() == ["LIMITS", "50", "80"]


def test_the_marks_stand_under_their_figures() -> None:
    dial = Dial()
    dial.take(reading(0, limits=[("ann", limit(0))]))
    ruler, bar = next((a, b) for a, b in zip(drawn(dial), drawn(dial)[1:], strict=False) if a.startswith(" LIMITS"))
    assert [ruler.index(mark) for mark in ("50", "80", "95")] == [at for at, char in enumerate(bar) if char == "╎"]


@given(st.integers(0, 2_000), st.integers(0, 2_000), st.integers(0, 1_000), st.integers(20, 200), st.integers(1, 60))
def test_everything_fits_every_size(used: int, held: int, most: int, width: int, height: int) -> None:
    dial = Dial()
    limits = [(name, limit(used, most, held)) for name in ("ann", "日本語の口座", "c" * 40, *"defghijkl")]
    dial.take(reading(0, *(row(used, name) for name, _ in limits), limits=limits))
    lines = drawn(dial, width, height)
    assert len(lines) <= height
    if width >= 70:
        assert all(cells_of(line) <= width for line in lines)
    shown = next((line for line in lines if "tokens/day" in line), "")
    assert ("·" in shown) <= (used < most)  # only what is used up fills the bar


def test_no_limits_and_nothing_used() -> None:
    dial = Dial()
    assert dial.lines(80, 24) == []
    dial.take(reading(0))
    text = "\n".join(dial.plain(80))
    assert "nothing was used today" in text
    assert "LIMITS" not in text


# ----------------------------------------------------------------------------------------------- on a terminal


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    made.close()


def test_it_is_live_on_a_terminal(box: Box) -> None:
    box.json("account", "add", "ann")
    box.json("budget", "set", "ann", "--tokens", "100/day")
    with Terminal(box, "meter", "watch") as terminal:
        terminal.see(r"ann +tokens/day +·+.* 0 %")
        terminal.see("nothing was used today")
        box.json("run", "say.md", "prompt=hello", "--account", "ann")
        terminal.see(r"ann +tokens/day +▆+.* 12 %")
        terminal.see(r"(?m)^ ann +say +replies +\d+ ")
        terminal.resize(40, 120)
        terminal.see("12 of 100 +in ")
        daemon = box.client().hello()["pid"]
        os.kill(daemon, signal.SIGKILL)
        terminal.see("looking again")
        box.json("account", "ls")
        terminal.see("looking again", gone=True)
        terminal.type("q")
        assert terminal.end() == 0


def test_once_without_a_terminal(box: Box) -> None:
    box.json("account", "add", "ann")
    box.json("budget", "set", "ann", "--tokens", "100/day", "--money", "1usd")
    pid = box.json("run", "say.md", "prompt=hello", "--account", "ann")["pid"]
    told = box.run("meter", "watch").stdout
    assert " 12 % 12 of 100" in told
    assert "\x1b" not in told
    shown = box.json("meter", "watch", "--account", "ann")
    assert shown["today"]["tokens"] == shown["tokens_a_minute"] == 12
    assert [each["account"] for each in shown["limits"]] == ["ann", "ann"]
    assert shown["rows"][0]["program"] == "say"
    below = box.json("meter", "watch", "--account", "ann/say")
    assert [each["account"] for each in below["limits"]] == ["ann", "ann"]
    assert len(box.json("meter", "watch", "--account", str(pid))["limits"]) == 2
    box.json("account", "add", "bob")
    assert box.json("meter", "watch", "--account", "bob")["limits"] == []
