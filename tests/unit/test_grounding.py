"""Grounding: every sentence of a grammar is made of the text's words, begins with the prefix and ends with a period."""

from __future__ import annotations

import random
import re

from hypothesis import given
from hypothesis import strategies as st

from mains.engines import english
from mains.engines.grounding import grammar, prefix_of

PREFIX = "This document is about "
_TOKEN = re.compile(r'\s*("(?:[^"\\]|\\.)*"|[()|]|[a-z]\w*)')


def rules_of(text: str) -> dict[str, list[str]]:
    """The rules of a grammar as tokens."""
    rules = {}
    for line in text.strip().splitlines():
        name, _, body = line.partition(" ::= ")
        tokens, at = [], 0
        while at < len(body):
            found = _TOKEN.match(body, at)
            assert found, body[at:]
            tokens.append(found[1])
            at = found.end()
        rules[name] = tokens
    return rules


class Walk:
    """A random sentence of a grammar: it chooses among alternatives as a model would."""

    def __init__(self, rules: dict[str, list[str]], seed: int) -> None:
        self.rules = rules
        self.chance = random.Random(seed)

    def say(self, name: str = "root") -> str:
        return self._any(self.rules[name], 0)[0]

    def _any(self, tokens: list[str], at: int) -> tuple[str, int]:
        """One of the alternatives from `at` to the closing bracket; where it ends."""
        parts: list[list[int]] = [[at]]
        depth, end = 0, at
        while end < len(tokens) and not (depth == 0 and tokens[end] == ")"):
            depth += (tokens[end] == "(") - (tokens[end] == ")")
            if depth == 0 and tokens[end] == "|":
                parts.append([end + 1])
            end += 1
        return self._sequence(tokens, self.chance.choice(parts)[0]), end

    def _sequence(self, tokens: list[str], at: int) -> str:
        said = ""
        while at < len(tokens) and tokens[at] not in ("|", ")"):
            token = tokens[at]
            if token == "(":
                part, at = self._any(tokens, at + 1)
                said += part
            elif token.startswith('"'):
                said += token[1:-1].replace('\\"', '"').replace("\\\\", "\\")
            else:
                said += self.say(token)
            at += 1
        return said


def sentences_of(text: str, count: int = 40) -> set[str]:
    rules = rules_of(grammar((text,), PREFIX))
    return {Walk(rules, seed).say().removeprefix(PREFIX) for seed in range(count)}


def test_subject_and_predicate_may_be_joined_anew() -> None:
    said = sentences_of("Typer is a library for building CLI applications, with hints. Typer is fast.", 200)
    assert "Typer, a library for building CLI applications." in said
    assert "Typer, which is a library for building CLI applications, with hints." in said
    assert "a library for building CLI applications." in said
    assert not any("Typer is" in each for each in said)


def test_a_clause_gets_a_how_and_an_order_a_how_to() -> None:
    assert sentences_of("The committee met at seven in the hall.") == {"how the committee met at seven in the hall."}
    assert sentences_of("Add type annotations to your programs.") == {"how to add type annotations to your programs."}
    assert "Cargo, which downloads your dependencies." in sentences_of("Cargo\n\nCargo downloads your dependencies.")


def test_what_is_no_prose_is_left_out() -> None:
    text = (
        "Title\n\nSee https://example.org/x for all of it.\n\nUsage of the thing:\n\nA tool (e.g. a knife) for bread."
    )
    assert sentences_of(text) == {"a tool for bread."} | {"a tool."} & sentences_of(text)


def test_a_sentence_never_ends_with_a_word_that_leads_on() -> None:
    text = "A server that supports HTTP, WebSockets, and the, for, of, tools (see below). It works with (other) things."
    for said in sentences_of(text, 200):
        assert re.split(r"[ ,]+", said.removesuffix("."))[-1].lower() not in english.OPEN_ENDED


def test_a_text_without_sentences_is_told_by_its_first_words() -> None:
    assert sentences_of("Lentil soup") == {"Lentil soup."}
    assert '[^\\n.]{1,200} "."' in grammar(("\u65e5\u672c\u8a9e\u306e\u6587\u66f8",), PREFIX)


def test_the_prefix_is_the_literal_beginning_of_the_pattern() -> None:
    assert prefix_of({"pattern": "^This document is about "}) == PREFIX
    assert prefix_of({"pattern": "^[A-Z].*"}) == prefix_of({}) == ""


PIECES = ["a", "The", "tool", "is", "that", "makes", "(x)", "Rich,", "end.", "\n\n", "- ", '"q"', "-", "\\", "to"]
TEXTS = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=8)), max_size=60).map(" ".join)


@given(TEXTS)
def test_every_sentence_is_grounded(text: str) -> None:
    made = grammar((text,), PREFIX)
    if "[^" in made.splitlines()[0]:
        return
    rules = rules_of(made)
    for body in rules.values():
        assert all(token[0] in '"()|' or token in rules for token in body)
    for seed in range(5):
        said = Walk(rules, seed).say()
        assert said.startswith(PREFIX)
        assert said.endswith(".")
        words = re.split(r"[\s,]+", said.removeprefix(PREFIX).removesuffix("."))
        assert all(word.lower() in text.lower() for word in words if word not in ("how", "which", "to"))
