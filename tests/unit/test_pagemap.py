"""The drawing of a page table: every page once, in order, at any width."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mains.cli.mem import handle_of, size, summary
from mains.cli.pagemap import LETTERS, cell, gauge, key, rows

GROWN = st.lists(st.tuples(st.sampled_from(sorted(LETTERS)), st.sampled_from(["frame", "pinned", "evicted"])))


def table(grown: list[tuple[str, str]], opening: int = 2) -> list[dict[str, Any]]:
    """The pages of a context."""
    kinds = [("program" if at == 0 else "input", "pinned") for at in range(opening)] + grown
    return [{"kind": kind, "where": where, "position": at - opening} for at, (kind, where) in enumerate(kinds)]


@given(GROWN, st.integers(0, 2), st.integers(1, 300))
def test_every_page_is_drawn_once_in_order_within_the_width(
    grown: list[tuple[str, str]], opening: int, width: int
) -> None:
    pages = table(grown, opening)
    drawn = list(rows(pages, width))
    assert all(len("".join(text for _, text in row)) <= width for row in drawn)
    labelled = bool(drawn) and drawn[0][0][1].startswith(("opening", "mem:"))
    cells = [piece for row in drawn for piece in (row[1:] if labelled else row)]
    assert [text for _, text in cells] == [cell(page)[:width] for page in pages]
    if labelled:
        at = 0
        for row in drawn:
            first = pages[at]["position"]
            assert row[0][1].strip() == ("opening" if first < 0 else f"mem:{first}")
            at += len(row) - 1


@given(GROWN)
def test_a_cell_says_without_colour_what_and_where_a_page_is(grown: list[tuple[str, str]]) -> None:
    letters = {letter: kind for kind, letter in LETTERS.items()}
    assert len(letters) == len(LETTERS)
    for page in table(grown):
        letter, mark = cell(page)[0], cell(page)[1:]
        assert letters[letter.upper()] == page["kind"]
        assert {"^": "pinned", " ": "frame", "-": "evicted"}[mark] == page["where"]
        assert letter.islower() == (page["where"] == "evicted")
    told = list(key(table(grown)))
    assert {each[0] for each in told if each[0].isupper()} == {LETTERS[page["kind"]] for page in table(grown)}


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.lists(st.integers(0, 10**6), max_size=2), st.integers(3, 200))
def test_a_gauge_has_its_width(used: int, window: int, marks: list[int], width: int) -> None:
    bar = gauge(used, window, marks, width)
    assert len(bar) == width
    assert bar.count("#") <= width - 2


def test_a_gauge_fills_as_the_window_does() -> None:
    assert gauge(0, 100, [], 12) == "[..........]"
    assert gauge(50, 100, [80], 12) == "[#####...|.]"
    assert gauge(200, 100, [], 12) == "[##########]"


@pytest.mark.parametrize(
    ("count", "told"), [(0, "0 bytes"), (999, "999 bytes"), (1_000, "1.0 kB"), (12_345_678, "12.3 MB")]
)
def test_sizes(count: int, told: str) -> None:
    assert size(count) == told


def test_handles() -> None:
    assert handle_of({"handle": "mem:3", "position": 3}) == "mem:3"
    assert handle_of({"handle": "", "position": -1}) == "opening"
    assert handle_of({"handle": "", "position": 3, "until": 4}) == "for mem:3"
    assert handle_of({"handle": "", "position": 3, "until": 9}) == "for mem:3-8"


VIEW: dict[str, Any] = {
    "pid": 7, "program": "digest", "state": "WAITING", "reason": "message", "frame_tokens": 5_000,
    "reserve_tokens": 1_000, "answer_tokens": 500, "context_tokens": 8_000, "window_tokens": 8_000,
    "high_tokens": 6_800, "low_tokens": 4_000, "resident": 23, "pinned": 3, "standing": 2, "evicted": 18,
    "evictions": 3, "parts": 4, "faults": {"recall": 2, "read": 1, "prefetched": 1}, "calls": 26, "stable": 24,
    "input_tokens": 90_000, "cached_tokens": 80_000,
}  # fmt: skip


def test_what_is_told_of_a_memory() -> None:
    told = "\n".join(summary(VIEW, 80))
    assert told.splitlines()[0] == "process 7: digest, WAITING message"
    for part in (
        "about 5,000 of 8,000 tokens (62 %), beside 1,000 of tools and 500 of the answer",
        "above 6,800 it evicts, down to 4,000",
        "23 in the frame (3 pinned, 2 in place of others), 18 evicted",
        "3 times; 4 pages shown in part from the start; looked up again: 2 by recall, 1 by read, 1 unasked",
        "96.0 % of 25 calls after the first",
        "88.9 % of 90,000 input tokens",
    ):
        assert part in told
    quiet = VIEW | {
        "window_tokens": 0, "context_tokens": 0, "high_tokens": 0, "low_tokens": 0, "evictions": 0, "parts": 0,
        "faults": dict.fromkeys(VIEW["faults"], 0), "calls": 1, "input_tokens": 0, "standing": 0, "evicted": 0,
    }  # fmt: skip
    assert list(summary(quiet, 12))[1:] == [
        "frame    about 5,000 of 0 tokens, beside 1,000 of tools and 500 of the answer",
        "         how much the engine takes is not known",
        "         [.]",
        "         above 0 it evicts, down to 0",
        "pages    23 in the frame (3 pinned)",
    ]
