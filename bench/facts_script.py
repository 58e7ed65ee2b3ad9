"""The script of `bench facts`: what a person, a model and a tool say in a long conversation, and what of it is planted.

An exchange is a message of a person, some calls of a tool with their results, and a reply. Facts stand in results, in
messages and in replies, among sentences of the same kinds that are none; rules stand in the program's prose and are
said on the way. Everything is drawn from a seed: all contestants get the same script.
"""

from __future__ import annotations

import random

import msgspec

from bench import facts_kinds
from bench.facts_kinds import Fact

SEED = 20_261_128
FRAME_TOKENS, OUTPUT_TOKENS = 8_000, 512
_FILLER = (  # words of it in any order
    "the system checks every part of a long report and writes down what was seen so that nobody has to look again "
    "while others wait for an answer that may come late or not at all because one of many small steps has failed "
    "once more and must be done anew after all that stands open is closed and each list is sorted by its age"
)
_WORDS = tuple(_FILLER.split(" "))
_KB = ((0.45, 2_000, 4_000), (0.85, 4_000, 8_000), (1.0, 15_000, 20_000))  # chance, and bytes of a result


class Size(msgspec.Struct, frozen=True):
    """Exchanges, calls of the tool in each, facts, and rules in each of the two ways."""

    exchanges: int
    calls: int
    facts: int
    rules: int

    @property
    def turns(self) -> int:
        """Model calls, but for those that ask for a summary."""
        return self.exchanges * (self.calls + 1)


FULL = Size(80, 4, 200, 10)
QUICK = Size(6, 3, 24, 2)


class Exchange(msgspec.Struct, frozen=True):
    """What is said. `rule`: a message of its own that comes before (empty: none)."""

    rule: str
    message: str
    results: tuple[str, ...]
    reply: str


class Planted(msgspec.Struct, frozen=True):
    """A fact: in which exchange it came, and in what (result, message, reply)."""

    fact: Fact
    exchange: int
    place: str


class Script(msgspec.Struct, frozen=True):
    """All of it. `prose` has half of the rules."""

    size: Size
    prose: str
    prose_rules: tuple[str, ...]
    exchanges: tuple[Exchange, ...]
    planted: tuple[Planted, ...]

    def rules_by(self, exchange: int) -> tuple[str, ...]:
        """The rules that hold in an exchange."""
        said = [each.rule for each in self.exchanges[: exchange + 1] if each.rule]
        return (*self.prose_rules, *said)

    def planted_by(self, exchange: int) -> list[Planted]:
        """The facts that came in the exchanges before `exchange`."""
        return [each for each in self.planted if each.exchange < exchange]


def _rule(number: int, chance: random.Random) -> str:
    what = chance.choice(("sign with", "never mention", "write dates as", "ask before", "count in"))
    return f"Rule {number}: {what} {chance.choice(facts_kinds.FIRMS)} {chance.randrange(1000, 9999)}."


def _paragraphs(chance: random.Random, most: int, facts: list[Fact], twins: int) -> str:
    """Lines of filler of about `most` bytes, with these facts and so many twins anywhere among them."""
    lines: list[str] = []
    left = most - sum(len(fact.text.encode()) for fact in facts)
    while left > 0:
        line = " ".join(chance.choices(_WORDS, k=chance.randrange(8, 24)))
        lines.append(f"{line} {chance.randrange(1_000_000)}.")
        left -= len(lines[-1]) + 1
    for text in [*(fact.text for fact in facts), *(facts_kinds.twin(chance) for _ in range(twins))]:
        lines.insert(chance.randrange(len(lines) + 1), text)
    return "\n".join(lines)


def _bytes(chance: random.Random) -> int:
    drawn = chance.random()
    least, most = next((least, most) for upto, least, most in _KB if drawn < upto)
    return chance.randrange(least, most)


def script(size: Size, seed: int = SEED) -> Script:
    """The script of a seed: of five facts three stand in results, one in a message and one in a reply."""
    chance = random.Random(seed)
    planted = []
    for number, fact in enumerate(facts_kinds.facts(chance, size.facts)):
        exchange = number * size.exchanges // size.facts
        planted.append(Planted(fact, exchange, ("result", "message", "result", "reply", "result")[number % 5]))
    rules = [_rule(number + 1, chance) for number in range(2 * size.rules)]
    every = max(1, size.exchanges // size.rules)
    exchanges = []
    for at in range(size.exchanges):
        said = rules[size.rules + at // every] if at % every == 0 and at // every < size.rules else ""
        here = [each for each in planted if each.exchange == at]
        of = {place: [p.fact for p in here if p.place == place] for place in ("result", "message", "reply")}
        told = [of["result"][n :: size.calls] for n in range(size.calls)]
        results = [_paragraphs(chance, _bytes(chance), facts, 2) for facts in told]
        message = f"Task {at + 1}: read {size.calls} reports.\n{_paragraphs(chance, 300, of['message'], 1)}"
        reply = f"Task {at + 1} is done.\n{_paragraphs(chance, 200, of['reply'], 1)}"
        exchanges.append(Exchange(said, message, tuple(results), reply))
    prose = "You read reports and remember what they say.\n" + "\n".join(rules[: size.rules])
    return Script(size, prose, tuple(rules[: size.rules]), tuple(exchanges), tuple(planted))
