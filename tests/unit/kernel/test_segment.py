"""A text cut into pages is the text: at line ends where that goes, never more bytes than a page has."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mains.kernel import segment


@given(st.text(st.sampled_from("ab\n\r\u2028\u00e9\u4e16\U0001f600"), max_size=200), st.integers(1, 40))
def test_pages_are_the_text(text: str, bytes_max: int) -> None:
    parts = list(segment.cut(text, bytes_max))
    assert "".join(parts) == text
    assert all(0 < len(part.encode()) <= max(4, bytes_max) for part in parts)


def test_lines_stay_whole_where_they_can() -> None:
    assert list(segment.cut("aaa\nbbb\ncccccccccccc\nd", 8)) == ["aaa\nbbb\n", "cccccccc", "cccc\nd"]


def test_a_page_says_what_it_is_and_gives_its_text_back() -> None:
    page = segment.message("brief", 3, "[first]\nsecond", "process 7 (writer)")
    assert page.text.startswith("[Shared segment brief, page 3, appended by process 7 (writer)]\n[first]")
    assert (page.name, page.kind, page.role) == ("segment:brief/3", "segment", "user")
    assert segment.text_of(page) == "[first]\nsecond"
