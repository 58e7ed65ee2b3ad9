"""Grounding: one sentence that a small model cannot invent, as a grammar (GBNF) for its sampler. Pure.

    prefix_of(output)          the forced beginning: what `pattern: "^This document is about "` of the schema names
    grammar(text, prefix)      the sentences that may be said of `text`; "" when it holds no prose

A model of 135M parameters writes fluent English and makes half of it up. So it chooses and shortens instead of writing:
it may go along one of the first sentences of the text, from its beginning or from what its subject *is*, to its end or
to an earlier comma, and may join subject and predicate anew:

    Typer is a library for building CLIs, with type hints.    -> Typer, a library for building CLIs.
                                                              -> a library for building CLIs, with type hints.
    Cargo downloads dependencies and compiles your project.   -> Cargo, which downloads dependencies and ...
    The committee met at seven.                               -> how the committee met at seven.

Every choice between these is the model's. What is no prose is left out: parentheses, addresses, symbols, headings
beside sentences. Only the grammar of English is built in; text in another script gives no grammar.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import NamedTuple

from mains.kernel.ports import Schema

SENTENCES_MAX = 4  # what a text is about stands at its beginning; further down small models get lost
SENTENCE_WORDS_MIN = 4  # fewer is a heading
WORDS_MAX = 60  # of one sentence
END_AT_COMMA_WORDS = 4  # from the start of what is said to the first comma at which it may end
_SUBJECT_WORDS_MAX = 6
_CHARS_MAX = 20_000  # of a text; only its beginning is used

_BE = frozenset("is are was were".split())
_FINITE = _BE | frozenset(
    "has have had can could will would may might must should does do did met went came said made took gave got".split()
)
_PRONOUNS = frozenset("it they this these that those we you i he she there here what who which how".split())
_ARTICLES = frozenset("a an the one".split())
_OPEN_ENDED = _FINITE | _ARTICLES | _PRONOUNS | frozenset(
    "of for to and or nor in on at with by from as into onto over under between through about than but if when where"
    " while so because not no also very more most all any such each every other another both its his her their our"
    " your my some be been being via per".split()
)
_NO_OPENERS = frozenset("see read click note please copyright".split())

_BREAKS = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*+•]|\d{1,3}[.)]) )")
_STOPS = re.compile(r"(?<=[.!?])\s+(?=[\"'(]?[A-Z0-9À-Þ])|(?<=[a-z)]):\s+|;\s+|\s+$")
_BULLET = re.compile(r"^(?:[-*+•]|\d{1,3}[.)])\s+")
_NOTE = re.compile(r"\[cut: ")
_ADDRESS = re.compile(r"https?://|www\.|\S@\S")
_WORD = re.compile(r"(.*?)([.,;:!?]*)", re.DOTALL)
_ODD = re.compile("[^ -\u024f\u2018\u2019\u2013]")  # beyond Latin letters and a few marks
_QUOTES = "\"'“”‘*_`~#<>|"
_DASHES = frozenset(("-", "–", "—", "--"))


class Word(NamedTuple):
    """A word of a sentence and what follows it: nothing, a comma, or `.` for any end (of a clause, by a bracket)."""

    text: str
    after: str

    @property
    def low(self) -> str:
        return self.text.lower()

    @property
    def may_end(self) -> bool:
        """Whether a sentence may end with this word."""
        return self.low not in _OPEN_ENDED


def prefix_of(output: Schema) -> str:
    """The literal text that `pattern` puts at the beginning; empty when it names none."""
    found = re.fullmatch(r"\^([\w ,'’:-]+)", str(output.get("pattern", "")))
    return found[1] if found else ""


def grammar(text: str, prefix: str) -> str:
    """GBNF of the sentences; the reply begins with `prefix`."""
    sentences = [sentence for sentence in _sentences(text[:_CHARS_MAX]) if _is_prose(sentence)]
    names = {word for word in re.findall(r"[\w+#.-]+", text.lower()) if text.lower().count(word) > 1}
    rules: list[str] = []
    starts: list[str] = []
    for number, sentence in enumerate(sentences[:SENTENCES_MAX]):
        paths = _Paths(f"s{number}", sentence[:WORDS_MAX], names)
        rules += paths.rules
        starts += paths.starts
    if not starts:
        return ""
    return "\n".join([f"root ::= {_quoted(prefix)} ({' | '.join(starts)})", *rules, ""])


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


# ------------------------------------------------------------------------------------------------------- reading


def _sentences(text: str) -> Iterator[tuple[Word, ...]]:
    for block in _BREAKS.split(text):
        flat = _BULLET.sub("", " ".join(block.split()))
        if _NOTE.match(flat):
            continue
        for sentence in _STOPS.split(flat):
            if sentence and not _ADDRESS.search(sentence):
                yield tuple(_words(sentence))


def _words(sentence: str) -> list[Word]:
    """The words, without what stands in brackets and without signs; the last one ends the sentence."""
    words: list[Word] = []
    depth = 0
    for token in sentence.split():
        depth += token.startswith(("(", "["))
        bare, marks = _split(token)
        if depth or not bare:
            if words:
                words[-1] = Word(words[-1].text, _joint(words[-1].after, token, marks, depth))
            depth -= bool(depth) and token.rstrip(".,;:!?").endswith((")", "]"))
            continue
        words.append(Word(bare, "," if marks == "," else "." if marks else ""))
    if words:
        words[-1] = Word(words[-1].text, ".")
    return words


def _split(token: str) -> tuple[str, str]:
    """A token as its word and its closing marks; no word when it is a sign."""
    found = _WORD.fullmatch(token.strip(_QUOTES))
    assert found is not None
    bare = found[1].strip(_QUOTES)
    good = any(char.isalnum() for char in bare) and not _ODD.search(bare) and len(bare) <= 40
    return (bare if good else ""), found[2]


def _joint(after: str, token: str, marks: str, depth: int) -> str:
    """What follows a word once the bracket or sign behind it is left out."""
    if token in _DASHES or marks == ",":
        return ","
    return "." if marks or not depth else after


def _is_prose(sentence: tuple[Word, ...]) -> bool:
    enough = len(sentence) >= SENTENCE_WORDS_MIN
    return enough and sentence[0].low not in _NO_OPENERS and any(word.text.islower() for word in sentence[1:])


# -------------------------------------------------------------------------------------------------------- paths


class _Paths:
    """The ways through one sentence: a rule for each word, which says what may follow it."""

    def __init__(self, name: str, words: tuple[Word, ...], known: set[str]) -> None:
        self._name = name
        self._words = words
        self._be = next((n for n in range(1, min(len(words), _SUBJECT_WORDS_MAX + 1)) if words[n].low in _BE), 0)
        self._known = known
        self._follow: dict[int, list[str]] = {}
        for at in reversed(range(len(words))):
            if follow := self._after(at):
                self._follow[at] = follow
        self.starts: list[str] = []
        self.rules: list[str] = []
        if 0 in self._follow:
            self._open()
        if self._be and self._leads(self._be + 1):
            self.starts.append(self._rule(self._be + 1))
        self.rules += [f"{self._rule(at)} ::= {_quoted(words[at].text)} {_any(f)}" for at, f in self._follow.items()]

    def _rule(self, at: int) -> str:
        return f"{self._name}w{at}"

    def _leads(self, at: int) -> bool:
        """Whether the word begins a noun phrase from which the end can be reached."""
        return at in self._follow and self._words[at].low in _ARTICLES

    def _after(self, at: int) -> list[str]:
        """What may follow the word: the next one, an end, or its predicate joined anew."""
        word, follow = self._words[at], []
        if at + 1 in self._follow and at + 1 != self._be:
            follow.append(f"{_quoted(', ' if word.after == ',' else ' ')} {self._rule(at + 1)}")
        if word.may_end and self._ends(at):
            follow.append('"."')
        if at + 1 in self._follow and self._joins(at):
            follow.append(f'", which " {self._rule(at + 1)}')
        if self._be and at == self._be - 1 and self._leads(self._be + 1):
            follow.append(f'", " {self._rule(self._be + 1)}')
        return follow

    def _ends(self, at: int) -> bool:
        if at == len(self._words) - 1:
            return True
        begun = self._be + 1 if self._be and at > self._be else 0
        return bool(self._words[at].after) and at - begun >= END_AT_COMMA_WORDS - 1

    def _joins(self, at: int) -> bool:
        """Whether `, which` may stand between this word, the end of the subject, and its verb."""
        if self._be:
            return at == self._be - 1
        verb = self._words[at + 1].text
        named = at == 0 and self._words[0].low in self._known and self._words[0].may_end
        return named and not self._words[0].after and verb.islower() and verb.endswith("s") and verb.isalpha()

    def _open(self) -> None:
        """The ways to begin with the sentence's first word."""
        first, start = self._words[0], f"{self._name}start"
        if first.low in _PRONOUNS:
            return
        forms = [first.low] if first.low in _OPEN_ENDED else [first.text]
        if first.text.istitle() and first.low not in self._known and first.low not in forms:
            forms.append(first.low)
        opening = f"({' | '.join(map(_quoted, forms))}) {_any(self._follow[0])}"
        self.rules.append(f"{start} ::= {opening}")
        clause = not self._be and any(word.low in _FINITE for word in self._words[1:])
        self.starts.append(f'"how " {start}' if clause else start)


def _any(alternatives: list[str]) -> str:
    return f"({' | '.join(alternatives)})"
