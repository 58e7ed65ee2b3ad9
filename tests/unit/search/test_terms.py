"""Which words a text is found under, and which a query asks for."""

from __future__ import annotations

import string
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mains.search.chunks import CHUNK_CHARS_MAX, OVERLAP_CHARS, chunks_of
from mains.search.scoring import LEVELS, impacts, rarity, wording
from mains.search.terms import QUERY_TERMS_MAX, TERM_CHARS_MAX, query_of, terms_of

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=300)  # lone surrogates, NUL and all


def found_under(text: str) -> set[str]:
    line, inner = terms_of(text)
    return {*line, *inner}


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("def parse_grant(text):", "parse_grant"),
        ("def parse_grant(text):", "grant"),
        ("see src/mains/kv_store.py, line 7", "kv_store.py"),
        ("class HTTPServerPool:", "server pool"),
        ("failed with E1234 again", "E1234"),
        ("failed with E1234 again", "1234"),
        ("the price is 3,141.59 dollars", "3,141.59"),
        ("Straße und Maß", "STRASSE"),
        ("\uff26\uff35\uff2c\uff2c width", "full width"),
        ("会議は明日です", "会議"),
        ("会議は明日です", "明日"),
        ("会議は明日です", "議"),
        ("東京タワーへ行く", "タワー"),
        ("ひらがなで書く", "がな"),
        ("ﾊﾝｶｸ", "ハンカク"),
        ("한국어 검색", "한국"),
        ("北京\n大学", "京大"),
        ("ที่นี่อากาศดี", "อากาศ"),
        ("हिन्दी सीखो", "हिन्दी"),
        ("launch 🚀 now", "🚀"),
        ("20 € each", "€"),
        ("use GPT模型 here", "模型"),
    ],
)
def test_what_a_text_is_found_under(text: str, asked: str) -> None:
    query = query_of(asked)
    assert query.terms
    assert query.terms <= found_under(text)


def test_other_words_are_not_asked_for() -> None:
    assert not query_of("会社").terms & found_under("会議は明日です")
    assert not query_of("grants").terms & found_under("parse_grant")


@given(ANY_TEXT, ANY_TEXT)
def test_any_text_has_terms_that_can_be_stored(text: str, around: str) -> None:
    for term in (*found_under(text), *query_of(text + around).terms):
        term.encode()
        assert "\0" not in term
        assert term.strip()


@given(ANY_TEXT)
def test_a_text_is_found_under_its_own_wording(text: str) -> None:
    assert query_of(text).terms <= found_under(text)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ('"', ""),
        ("a AND b OR NOT c", "a and b or not c"),
        ("NEAR(a b, 2)", "near a b 2"),
        ("col:x* ^y -z", "col x y z"),
        ("'; DROP", "drop"),
        ("\0 \ud800 !?", ""),
        ("", ""),
    ],
)
def test_a_query_has_no_syntax(text: str, terms: str) -> None:
    assert query_of(text).terms == set(terms.split())


def test_a_query_is_bounded() -> None:
    many = query_of(" ".join(f"word{n}" for n in range(50_000)))
    assert len(many.terms) <= QUERY_TERMS_MAX
    assert all(len(term) <= TERM_CHARS_MAX for term in query_of("x" * 100_000).terms)


@given(st.text(st.sampled_from(string.ascii_letters + " \n.。"), max_size=9_000))
def test_chunks_are_the_whole_text(text: str) -> None:
    chunks = list(chunks_of(text))
    assert (chunks[0][0], chunks[-1][1]) == (0, len(text))
    for (first, until), (after, _) in pairwise(chunks):
        assert until - OVERLAP_CHARS == after > first
    assert all(until - first <= CHUNK_CHARS_MAX for first, until in chunks)


def test_rare_words_and_short_texts_weigh_more() -> None:
    assert rarity(1, 100) > rarity(50, 100) > rarity(100, 100) > 0
    short, long = impacts(terms_of("a deadline")), impacts(terms_of("a deadline " + "and more " * 200))
    assert 0 < long["deadline"] < short["deadline"] < LEVELS
    assert impacts(terms_of("so so so"))["so"] > impacts(terms_of("so it is"))["so"]


def test_wording_is_compared_without_case_and_line_breaks() -> None:
    query = query_of("Ships on  Friday")
    exact, near, far = (wording(query, text) for text in ("It ships\non friday.", "ships on a friday", "friday ships"))
    assert exact > near > far == 0
