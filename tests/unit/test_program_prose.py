"""Prose: the beginning of a text, Markdown reduced to plain prose, and the estimate of tokens."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mains.program import estimate_tokens, head, plain_text

README = """\
<p align="center">
  <img src="logo.svg" alt="logo">
</p>

# httpthing ![version](https://img.example/v.svg)

[![Build](https://img.example/b.svg)](https://ci.example) [![Cov][cov]][cov-page]

<!-- a
comment -->
**httpthing** is a [client](https://example.org/a_(b) "title") for `HTTP/2` &amp; *friends*, see [docs][].
It calls `__init__` when a < b and 2**10 > c.

```python
import httpthing  # [not](a link)
~~~
```

    $ pip install httpthing

| option | default |
|--------|---------|
| retry  | 3       |

name | value
---- | -----
a    | b

> Quoted [text](x) here.

- [ ] first
- second

***

[cov]: https://img.example/c.svg
Ask <help@example.org>, or open [an issue][1]. See [1] and f(x)[0].
"""

PLAIN = """\
httpthing

httpthing is a client for HTTP/2 & *friends*, see docs.
It calls __init__ when a < b and 2**10 > c.

Quoted text here.

- [ ] first
- second

Ask , or open an issue. See [1] and f(x)[0]."""

REST = """\
thing
=====

.. image:: https://img.example/b.svg
   :target: https://example.org

A `link <https://example.org>`_ and ``code``.

.. code:: python

   import thing

Done.
"""


def test_markdown_becomes_plain_prose() -> None:
    assert plain_text(README) == PLAIN


def test_restructured_text_becomes_readable() -> None:
    assert plain_text(REST) == "thing\n\nA link and code.\n\nDone."


@pytest.mark.parametrize(
    ("markdown", "plain"),
    [
        ("", ""),
        ("a\r\nb\r\n\r\n\r\n\r\nc", "a\nb\n\nc"),
        ("```\nnever closed", ""),
        ("````\n```\n````\nafter", "after"),
        ("- item\n\n    more of the item", "- item\n\n    more of the item"),
        ("text\n\n    code\n\n    code\n\ntext", "text\n\ntext"),
        ("[text](unclosed", "[text](unclosed"),
        ("[[a](b)](c)", "a"),
        ("a <b\nclass='x'>c</b> d", "a c d"),
        ("<<b>script>x", "x"),
        ("<pre>code</pre>a<table><tr><td>1</td></tr></table>b", "ab"),
        ("a | b", "a | b"),
        ("+---+---+\n| a | b |\n+===+===+\ntext", "text"),
        ("1. one\n2. two", "1. one\n2. two"),
        ("`_private` and snake_case and a*b*c", "_private and snake_case and a*b*c"),
        ("# C# in **5** days #1", "C# in 5 days #1"),
        ("&lt;b&gt; stays", "&lt;b&gt; stays"),
    ],
)
def test_what_goes_and_what_stays(markdown: str, plain: str) -> None:
    assert plain_text(markdown) == plain


PIECES = st.sampled_from(
    [
        *("[", "]", "(", ")", "![", "](", "<", ">", "<b", "</", "<!--", "-->", "`", "```", "~~~", "|", "|-|", "\n"),
        *("\n\n", "    ", "\t", "# ", "> ", "- ", "1. ", "**", "*", "_", "`_", "&amp;", "&nbsp;", ".. ", "+-", "a"),
        *("word", " ", "\r", "[a]: b", "<pre>", "</pre>", "==", "--", "é", "\u2028", "\ud800", "!"),
    ]
)
MARKDOWN = st.one_of(st.text(), st.lists(PIECES, max_size=60).map("".join))


@given(MARKDOWN)
def test_plain_text_is_idempotent_and_never_longer(markdown: str) -> None:
    plain = plain_text(markdown)
    assert len(plain) <= len(markdown)
    assert plain_text(plain) == plain


HOSTILE = [
    *("[", "<", "<a", "![", "[](", "<!--", "`", "**a ", "|", "|a|\n", "[a](", "> ", "&amp;", "[![a](b)](c)", "- \n"),
    *("**", "|-", "# ", "[a]: ", "(a", "]", "```\n", "&#", ".. a\n", "\n", " ", "a", "<b>", "{{", "{{ ", "<table"),
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_a_megabyte_of_anything_takes_no_time(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    began = time.process_time()
    plain = plain_text(text)
    assert len(head(text, 1_000)) <= 4_000
    assert time.process_time() - began < 5, "not linear: a megabyte takes half a second where this was written"
    assert len(plain) <= len(text)


def test_nesting_deeper_than_the_passes() -> None:
    text = "<" * 1_000 + "b>" * 1_000
    assert plain_text(plain_text(text)) == plain_text(text)


# ------------------------------------------------------------------------------------------------------- head


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("word " * 100, "word word word word"),
        ("One two three. Four five six. Seven " + "x" * 300, "One two three. Four five six."),
        ("A paragraph of words here.\n\nNext one. And " + "x" * 300, "A paragraph of words here."),
        ("A sentence! " + "x" * 300, "A sentence!"),
        ("\u5b57" * 300, "\u5b57" * 88),
        ("\u5b57" * 60 + "\u3002" + "\u5b57" * 300, "\u5b57" * 60 + "\u3002"),
    ],
)
def test_the_head_ends_where_something_ends(text: str, kept: str) -> None:
    cut = head(text, 32)
    assert cut.startswith(kept)
    body, _, note = cut.partition("\n\n[cut: ")
    assert note == f"{len(body):,} of {len(text):,} characters]"
    assert text.startswith(body) and len(cut) <= 128


def test_a_short_text_is_whole() -> None:
    assert head("x" * 400, 100) == "x" * 400
    assert head("", 0) == ""
    assert head("abcdef", 1) == "abcd"
    assert head("abc", -1) == ""


@given(MARKDOWN, st.integers(-1, 200))
def test_head_is_idempotent_bounded_and_never_longer(text: str, tokens_max: int) -> None:
    cut = head(text, tokens_max)
    assert len(cut) <= min(len(text), max(tokens_max, 0) * 4)
    assert head(cut, tokens_max) == cut


# --------------------------------------------------------------------------------------------- estimate_tokens


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 0), ("a", 1), ("abc", 1), ("abcd", 2), ("\u5b57", 1), ("\U0001f600", 2)]
)
def test_an_estimate(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == tokens


@given(st.text(st.characters(codec=None)), st.text())
def test_the_estimate_is_above_zero_and_nearly_additive(one: str, two: str) -> None:
    assert (estimate_tokens(one) > 0) == bool(one)
    assert estimate_tokens(one + two) <= estimate_tokens(one) + estimate_tokens(two)
