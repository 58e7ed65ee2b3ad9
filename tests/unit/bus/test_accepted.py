"""What was accepted of a device's tools stays, whatever it lists later."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mains.bus import accepted
from mains.bus.accepted import Accepted, difference
from mains.bus.listing import Entry, Listing
from mains.kernel.ports import Tool

names = st.sampled_from("abcdef")
listings = st.dictionaries(names, st.sampled_from(("x", "y"))).map(
    lambda tools: Listing(tuple(Entry(name, Tool(name, text, {"type": "object"})) for name, text in tools.items()))
)


@given(listings, st.lists(listings, min_size=1))
def test_models_are_shown_what_was_accepted_as_far_as_it_is_there(first: Listing, later: list[Listing]) -> None:
    lists = Accepted(first, first)
    for newest in later:
        lists = lists.told(newest, trusted=False)
    shown, agreed, there = lists.offered.by_name(), first.by_name(), later[-1].by_name()
    assert shown.keys() == agreed.keys() & there.keys()
    assert all(shown[name].tool == agreed[name].tool for name in shown)
    assert lists.changed == {name for name in shown if agreed[name].tool != there[name].tool}
    assert bool(lists.changes) == (agreed != there)


@given(listings, listings)
def test_what_is_trusted_or_accepted_has_no_changes(first: Listing, newest: Listing) -> None:
    lists = Accepted(first, first).told(newest, trusted=True)
    assert lists == Accepted(newest, newest)
    assert not lists.changes


def test_changes_are_told_in_a_line() -> None:
    one, two = (Entry(name, Tool(name, "x", {})) for name in "ab")
    other = Entry("a", Tool("a", "y", {}))
    lists = Accepted(Listing((one,)), Listing((other, two)))
    assert difference(lists.changes, 80) == "~a +b"
    assert difference(Accepted(Listing((one, two)), Listing((one,))).changes, 80) == "-b"


def test_lists_are_kept_and_damaged_ones_are_none(tmp_path: Path) -> None:
    path = tmp_path / "d" / "tools.json"
    assert accepted.load(path) is None
    lists = Accepted(Listing((Entry("a", Tool("a", "x", {"type": "object"})),)), Listing())
    accepted.store(path, lists)
    assert accepted.load(path) == lists
    path.write_bytes(path.read_bytes()[:-5])
    assert accepted.load(path) is None
