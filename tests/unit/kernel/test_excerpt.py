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


def test_a_rare_word_tells_more_than_many_common_ones() -> None:
    """Counted alike, the many words that stand everywhere decided, and the part began before the answer."""
    text = f"{FILLER}Bergen: the code is K-4417. {FILLER}"
    part = excerpt(text, "What stands here and goes on of interest in the Bergen office?", 300)[1]
    assert "Bergen: the code is K-4417." in part


def test_what_is_found_is_in_the_middle() -> None:
    """The answer may stand before the words of the question, or far behind them."""
    text = f"{FILLER}K-4417 and a long way to go, and after it: the door of Bergen. {FILLER}"
    start, part = excerpt(text, "Bergen door", 400)
    assert "K-4417" in part and 100 < text.index("door of Bergen") - start < 300


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
