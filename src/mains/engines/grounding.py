"""Grounding: one sentence that a small model cannot invent, as a grammar (GBNF) for its sampler. Pure.

    prefix_of(output)          the forced beginning: what `pattern: "^This document is about "` of the schema names
    grammar(texts, prefix)     the sentences that may be said of a text

A model of 135M parameters writes fluent English and makes half of it up. So it chooses and shortens instead of writing:
it may go along one of the first sentences of the text, from its beginning or from what its subject *is*, to its end or
to an earlier comma, and may join subject and predicate anew. Every choice between these is the model's:

    Typer is a library for building CLIs, with type hints.    -> Typer, a library for building CLIs.
                                                              -> a library for building CLIs, with type hints.
    Cargo downloads dependencies and compiles your project.   -> Cargo, which downloads dependencies and ...
    The committee met at seven.                               -> how the committee met at seven.
    Add type annotations to your programs.                    -> how to add type annotations to your programs.

What is no prose is left out: brackets, addresses, signs, headings, questions, lines that lead to something (`Usage:`).
A text without a usable sentence is told by its first words; where it has none (another script), the sentence is free.
Only a little English is built in: function words, and common verbs to tell a clause from a phrase.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mains.engines import english
from mains.kernel.ports import Schema

SENTENCES_MAX = 4  # what a text is about stands at its beginning; further down small models get lost
SENTENCE_WORDS_MIN = 4  # fewer is a heading
WORDS_MAX = 60  # of one sentence
END_AT_COMMA_WORDS = 4  # from the start of what is said to the first comma at which it may end
_SUBJECT_WORDS_MAX = 6
_CHARS_MAX = 8_000  # of a text; only its beginning is used

_POSSESSIVES = ("'s", "\u2019s", "s'", "s\u2019")

_BREAKS = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*+•]|\d{1,3}[.)]) |[A-Z][\w -]{0,24}: )")
_STOPS = re.compile(r"(?<=[.!?])\s+(?=[\"'(]?[A-Z0-9À-Þ])|(?<=[a-z)]):\s+|;\s+|\s+$")
_BULLET = re.compile(r"^(?:[-*+•]|\d{1,3}[.)])\s+")
_NOTE = re.compile(r"\[cut: ")
_ADDRESS = re.compile(r"https?://|www\.|\S@\S")
_WORD = re.compile(r"(.*?)([.,;:!?]*)", re.DOTALL)
_ODD = re.compile("[^ -\u024f\u2018\u2019\u2013]")  # beyond Latin letters and a few marks
_FREE = '[^\\n.]{1,200} "."'
_QUOTES = "\"'\u201c\u201d\u2018*_`~#<>|"
_ASIDE = re.compile(r"\([^()]*\)|\[[^\[\]]*\]")
_SIGNS = re.compile(r"[:=(){}\[\]\\/]{2}|[(){}\[\]=\\]|^:")
_DASHES = frozenset(("-", "--", "\u2013", "\u2014"))


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
        return self.low not in english.OPEN_ENDED and not self.low.endswith(_POSSESSIVES)


def prefix_of(output: Schema) -> str:
    """The literal text that `pattern` puts at the beginning; empty when it names none."""
    found = re.fullmatch(r"\^([\w ,':-]+)", str(output.get("pattern", "")))
    return found[1] if found else ""


def grammar(texts: Sequence[str], prefix: str) -> str:
    """GBNF of the sentences; the reply begins with `prefix`. The first of the texts that has any is used."""
    for text in texts:
        starts, rules = _paths(text[:_CHARS_MAX])
        if starts:
            return "\n".join([f"root ::= {_quoted(prefix)} {_any(starts)}", *rules, ""])
    return f"root ::= {_quoted(prefix)} {_first_words(texts)}\n"


def _paths(text: str) -> tuple[list[str], list[str]]:
    """How what is said of a text may begin, and the rules of how it goes on."""
    low = text.lower()
    known = {word for word in set(re.findall(r"[\w+#.-]+", low)) if low.count(word) > 1}
    sentences = [sentence for sentence in _sentences(text) if _is_prose(sentence)]
    rules: list[str] = []
    starts: list[str] = []
    for number, sentence in enumerate(sentences[:SENTENCES_MAX]):
        paths = _Paths(f"s{number}", sentence[:WORDS_MAX], known)
        rules += paths.rules
        starts += paths.starts
    return starts, rules


def _first_words(texts: Sequence[str]) -> str:
    """For texts without a usable sentence: their first words, which may be a heading."""
    for text in texts:
        for words in _sentences(text[:_CHARS_MAX]):
            if words:
                return _quoted(" ".join(word.text for word in words[:WORDS_MAX]) + ".")
    return _FREE


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


# ------------------------------------------------------------------------------------------------------- reading


def _sentences(text: str) -> Iterator[tuple[Word, ...]]:
    for block in _BREAKS.split(text):
        flat = _ASIDE.sub(" | ", _BULLET.sub("", " ".join(block.split())))
        if _NOTE.match(flat):
            continue
        for sentence in _STOPS.split(flat):
            if sentence and not sentence.endswith((":", "?")) and not _ADDRESS.search(sentence):
                yield tuple(_words(sentence))


def _words(sentence: str) -> list[Word]:
    """The words, without what stands in brackets and without signs; the last one ends the sentence."""
    words: list[Word] = []
    for token in sentence.split():
        bare, marks = _split(token)
        if bare:
            words.append(Word(bare, "," if marks == "," else "." if marks else ""))
        elif words:
            words[-1] = Word(words[-1].text, "," if token in _DASHES or marks == "," else ".")
    if words:
        words[-1] = Word(words[-1].text, ".")
    return words


def _split(token: str) -> tuple[str, str]:
    """A token as its word and its closing marks; no word when it is a sign."""
    found = _WORD.fullmatch(token.strip(_QUOTES))
    assert found is not None
    bare = found[1].strip(_QUOTES)
    good = any(char.isalnum() for char in bare) and not (_ODD.search(bare) or _SIGNS.search(bare)) and len(bare) <= 40
    return (bare if good else ""), found[2]


def _is_prose(sentence: tuple[Word, ...]) -> bool:
    enough = len(sentence) >= SENTENCE_WORDS_MIN
    return enough and sentence[0].low not in english.NO_OPENERS and any(word.text.islower() for word in sentence[1:])


# -------------------------------------------------------------------------------------------------------- paths


class _Paths:
    """The ways through one sentence: a rule for each word, which says what may follow it."""

    def __init__(self, name: str, words: tuple[Word, ...], known: set[str]) -> None:
        self._name = name
        self._words = words
        self._be = next((n for n in range(1, min(len(words), _SUBJECT_WORDS_MAX + 1)) if words[n].low in english.BE), 0)
        self._verb = self._be or _verb_of(words)
        self._known = known
        self._follow: dict[int, list[str]] = {}
        for at in reversed(range(len(words))):
            if follow := self._after(at):
                self._follow[at] = follow
        self.starts: list[str] = []
        self.rules: list[str] = []
        if 0 in self._follow:
            self._open()
        said = self._be + 1
        if self._be and len(words) > said and words[said].low in english.BETWEEN:
            said += 1
        if self._be and self._leads(said) and self._is_subject(words[self._be - 1]):
            self.starts.append(self._rule(said))
        self.rules += [f"{self._rule(at)} ::= {_quoted(words[at].text)} {_any(f)}" for at, f in self._follow.items()]

    def _rule(self, at: int) -> str:
        return f"{self._name}w{at}"

    def _is_subject(self, word: Word) -> bool:
        """Whether the text comes back to this: then what it *is* may stand alone."""
        return word.low in self._known or word.low in english.PRONOUNS

    def _leads(self, at: int) -> bool:
        """Whether the word begins a noun phrase from which the end can be reached."""
        return at in self._follow and self._words[at].low in english.ARTICLES

    def _after(self, at: int) -> list[str]:
        """What may follow the word: the next one, an end, or its predicate joined anew."""
        word, follow = self._words[at], []
        if at + 1 in self._follow and at + 1 != self._be:
            follow.append(f"{_quoted(', ' if word.after == ',' else ' ')} {self._rule(at + 1)}")
        if word.may_end and self._ends(at):
            follow.append('"."')
        if self._be and at == self._be - 1 and self._be in self._follow:
            follow.append(f'", which " {self._rule(self._be)}')
        if self._be and at == self._be - 1 and self._leads(self._be + 1):
            follow.append(f'", " {self._rule(self._be + 1)}')
        return follow

    def _ends(self, at: int) -> bool:
        if at == len(self._words) - 1:
            return True
        begun = self._verb + 1 if at > self._verb else 0
        if self._verb and not begun:
            return False
        return bool(self._words[at].after) and at - begun >= END_AT_COMMA_WORDS - 1

    def _open(self) -> None:
        """The ways to begin with the sentence's first word."""
        first, start = self._words[0], f"{self._name}start"
        whole = first.low in self._known or not first.text[0].islower()
        if not whole or (first.low in english.OPEN_ENDED and first.low not in english.OPENERS) or "'" in first.text:
            return  # a part of a sentence, or one whose subject stands elsewhere
        order = first.low in english.VERBS
        forms = [first.low] if order or first.low in english.OPENERS else [first.text]
        if first.text.istitle() and first.text.isalpha() and first.low not in {*self._known, *forms}:
            plural = first.low.endswith("s") and self._verb != 1
            forms = [first.low] if plural else [*forms, first.low]  # a name or not: the model knows
        self.rules.append(f"{start} ::= ({' | '.join(map(_quoted, forms))}) {_any(self._follow[0])}")
        clause = self._verb and not self._be
        self.starts.append(f'"how to " {start}' if order else f'"how " {start}' if clause else start)
        if self._is_named_actor():
            self.starts.append(f'{_quoted(first.text)} ", which " {self._rule(1)}')

    def _is_named_actor(self) -> bool:
        """Whether the sentence is a name that the text uses again, and then what it does."""
        if self._be or 1 not in self._follow:
            return False
        first, verb = self._words[0], self._words[1].text
        named = first.low in self._known and first.may_end and not first.after
        looks_so = not self._verb and verb.islower() and verb.isalpha() and verb.endswith("s")
        return named and (self._verb == 1 or looks_so)


def _verb_of(words: tuple[Word, ...]) -> int:
    """Where the verb of a sentence stands, if it has one that is known; else 0."""
    for at in range(1, len(words)):
        before, word = words[at - 1].low, words[at]
        if word.low in english.RELATIVES:
            return 0
        if before == "to" or not word.text.islower():
            continue
        if word.low in english.FINITE or (
            before not in english.OPEN_ENDED and _is_verb(word.low, plural=before.endswith("s"))
        ):
            return at
    return 0


def _is_verb(word: str, *, plural: bool) -> bool:
    """Whether it is a common verb, in the form that goes with its subject."""
    if plural:
        return word in english.VERBS
    return word.removesuffix("s") in english.VERBS - {word} or word.removesuffix("es") in english.VERBS - {word}


def _any(alternatives: list[str]) -> str:
    return f"({' | '.join(alternatives)})"
