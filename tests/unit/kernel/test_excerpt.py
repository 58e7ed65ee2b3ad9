"""Excerpts: what of a place is shown."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mains.kernel.excerpt import excerpt

FILLER = "nothing of interest stands here and goes on " * 40


def test_the_wording_itself_comes_first() -> None:
    text = f"{FILLER}the harbour of Bergen. {FILLER}The harbour fee of Oslo is 90 crowns. {FILLER}"
    start, part = excerpt(text, "the harbour fee of oslo", 200)
    assert "The harbour fee of Oslo is 90 crowns." in part and text[start : start + len(part)] == part


def test_else_where_most_words_stand_together() -> None:
    text = f"{FILLER}a fee. {FILLER}Oslo takes a fee of 90 crowns in the harbour. {FILLER}the harbour {FILLER}"
    assert "fee of 90 crowns in the harbour" in excerpt(text, "harbour fee Oslo", 200)[1]


def test_a_script_without_spaces() -> None:
    text = "无关的内容在这里。" * 200 + "项目的截止日期是五月三日。" + "无关的内容在这里。" * 200
    assert "截止日期" in excerpt(text, "截止日期是什么时候", 240)[1]


@given(st.text(max_size=400), st.text(max_size=40), st.integers(1, 300))
def test_it_is_a_part_that_fits(text: str, query: str, bytes_max: int) -> None:
    text = text.encode("utf-8", "replace").decode()
    start, part = excerpt(text, query, bytes_max)
    assert len(part.encode()) <= bytes_max or part == text == ""
    assert text[start : start + len(part)] == part
    assert part or bytes_max < 4 or not text
