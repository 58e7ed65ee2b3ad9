"""The front matter of a Markdown file: YAML between two `---` lines, read with the line of every part.

`read_front_matter` never raises: what is wrong is in `FrontMatter.mistakes`, so that all of it is told at
once. The YAML is a safe subset: no tags, anchors or aliases, bounded size and depth; plain scalars follow the
core schema of YAML 1.2 (`yes`, `no`, `on`, `off` and dates stay text). Files written for other assistants are
often not valid YAML (`description: Use this when: the user asks`): where strict YAML fails, a top-level `key:
text` line is plain text.
"""

from __future__ import annotations

import bisect
import math
import re
from collections.abc import Collection, Iterator
from typing import Any, TypeAlias

import msgspec
import yaml

from mains.errors import Mistake

FRONT_MATTER_BYTES_MAX = 64 * 1024
NESTING_MAX = 32

_NO_BREAKS = dict.fromkeys((0x85, 0x2028, 0x2029), " ")  # YAML 1.1 ends a line there, 1.2 and editors do not
_KEY_LINE = re.compile(r"([A-Za-z_][\w-]*):[ \t]+(\S.*)")
_NOT_A_PAIR = "this is not `key: value`"
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]{1,40}|[0-9]{1,40}(?:\.[0-9]{0,40})?)(?:[eE][-+]?[0-9]{1,3})?")
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


class Scalar(msgspec.Struct, frozen=True):
    """Text. `plain`: written without quotes, so it may stand for a number, true, false or null."""

    line: int
    text: str
    plain: bool


class Items(msgspec.Struct, frozen=True):
    """A YAML list."""

    line: int
    nodes: tuple[Node, ...]


class Pairs(msgspec.Struct, frozen=True):
    """A YAML mapping, in its order, duplicates included."""

    line: int
    pairs: tuple[tuple[Scalar, Node], ...]


Node: TypeAlias = Scalar | Items | Pairs


class FrontMatter(msgspec.Struct, frozen=True, kw_only=True):
    """A file taken apart. Lines count from 1. `broken`: the keys whose YAML could not be read."""

    line: int = 1
    fields: Pairs = Pairs(1, ())
    broken: frozenset[str] = frozenset()
    prose: str = ""
    prose_line: int = 0
    mistakes: tuple[Mistake, ...] = ()


def read_front_matter(source: str, own: Collection[str]) -> FrontMatter:
    """Take `source` (its line ends are `\\n`) apart. `own` keys are not read liberally when they begin a
    list.
    """
    lines = source.split("\n")
    first = next((n for n, line in enumerate(lines) if line.strip()), 0)
    if lines[first].rstrip() != "---":
        text = "a program begins with a line `---`, its keys (`name:`, `description:`) and another line `---`"
        return FrontMatter(mistakes=(Mistake(first + 1, text),))
    last = next((n for n in range(first + 1, len(lines)) if lines[n].rstrip() == "---"), 0)
    if not last:
        text = "the front matter that begins here never ends: a line `---` is missing"
        return FrontMatter(mistakes=(Mistake(first + 1, text),))
    prose = "\n".join(lines[last + 1 :])
    body = prose.strip()
    skipped = len(prose) - len(prose.lstrip())
    fields, broken, mistakes = _read_fields("\n".join(lines[first + 1 : last]), first + 2, own)
    return FrontMatter(
        line=first + 1,
        fields=Pairs(first + 1, tuple(fields)),
        broken=frozenset(broken),
        prose=body,
        prose_line=last + 2 + (prose.count("\n", 0, skipped) if body else -1),
        mistakes=tuple(mistakes),
    )


def value_of(node: Node) -> Any:
    """The JSON value of a node. Of a key written twice the last one counts."""
    match node:
        case Items(nodes=nodes):
            return [value_of(each) for each in nodes]
        case Pairs(pairs=pairs):
            return {key.text: value_of(each) for key, each in pairs}
        case Scalar(text=text, plain=True):
            return _plain_value(text)
    return node.text


def duplicates(node: Node) -> Iterator[Mistake]:
    """A mistake for every key that stands twice in one mapping."""
    match node:
        case Items(nodes=nodes):
            for each in nodes:
                yield from duplicates(each)
        case Pairs(pairs=pairs):
            seen: dict[str, int] = {}
            for key, each in pairs:
                if key.text in seen:
                    yield Mistake(key.line, f"`{key.text[:60]}` stands here twice: first in line {seen[key.text]}")
                seen.setdefault(key.text, key.line)
                yield from duplicates(each)


_Fields: TypeAlias = list[tuple[Scalar, Node]]


def _read_fields(text: str, line: int, own: Collection[str]) -> tuple[_Fields, set[str], list[Mistake]]:
    if len(text.encode()) > FRONT_MATTER_BYTES_MAX:
        told = f"the front matter may have at most {FRONT_MATTER_BYTES_MAX:,} bytes: put the text below it"
        return [], set(), [Mistake(line, told)]
    try:
        return _pairs_of(text, line), set(), []
    except yaml.YAMLError as error:
        return _read_blocks(text, line, own, error)


def _read_blocks(
    text: str, line: int, own: Collection[str], whole: yaml.YAMLError
) -> tuple[_Fields, set[str], list[Mistake]]:
    """Read each top-level key by itself. `whole` is what is wrong with all of them together."""
    fields: _Fields = []
    broken: set[str] = set()
    mistakes: list[Mistake] = []
    mended = False
    for start, block in _blocks(text, line):
        try:
            fields += _pairs_of(block, start)
        except yaml.YAMLError as error:
            unreadable = isinstance(error, yaml.reader.ReaderError)
            plain = [] if unreadable else _as_plain_text(block, start, own)
            fields += plain
            mended = mended or bool(plain)
            if not plain:
                mistakes.append(_mistake(error, block, start))
                broken.add(block.partition(":")[0].strip())
    if not mistakes and not mended:
        mistakes.append(_mistake(whole, text, line))
    return fields, broken, mistakes


def _blocks(text: str, line: int) -> Iterator[tuple[int, str]]:
    """The top-level keys with the lines that belong to them, each with the line it begins in."""
    start, block = line, list[str]()
    for number, each in enumerate(text.split("\n"), start=line):
        if each[:1] not in ("", " ", "\t", "#", "-", "]", "}") and block:
            yield start, "\n".join(block)
            start, block = number, []
        block.append(each)
    yield start, "\n".join(block)


def _as_plain_text(block: str, line: int, own: Collection[str]) -> _Fields:
    """`key: text with: colons`, and indented lines below it, as one text; nothing when that is not what it
    is.
    """
    first, *rest = block.split("\n")
    found = _KEY_LINE.fullmatch(first)
    if not found or any(each[:1] not in ("", " ", "\t") for each in rest):
        return []
    key, text = found[1], found[2].strip()
    lost_quote = text[0] in "\"'" and text.count(text[0]) == 1
    if text[0] in "|>" or lost_quote or (text[0] in "[{" and key in own):
        return []
    folded = " ".join([text, *filter(None, map(str.strip, rest))])
    return [(Scalar(line, key, plain=True), Scalar(line, folded, plain=False))]


def _pairs_of(text: str, line: int) -> _Fields:
    """The pairs of a YAML mapping; nothing for an empty text. Raises yaml.YAMLError."""
    node = _Composer(text, line).document()
    if node is None:
        return []
    if not isinstance(node, Pairs):
        raise yaml.YAMLError(_NOT_A_PAIR)
    return list(node.pairs)


class _Composer:
    """YAML events to nodes. It stops at the first thing that the subset does not allow."""

    def __init__(self, text: str, line: int) -> None:
        self._breaks = [found.start() for found in re.finditer("\n", text)]
        self._line = line
        self._events = yaml.parse(text.translate(_NO_BREAKS), Loader=yaml.SafeLoader)

    def document(self) -> Node | None:
        next(self._events)  # the stream begins
        event = next(self._events)
        if isinstance(event, yaml.StreamEndEvent):
            return None
        node = self._node(next(self._events), NESTING_MAX)
        next(self._events)  # the document ends
        after = next(self._events)
        if not isinstance(after, yaml.StreamEndEvent):
            raise self._refused(after, "a second YAML document begins here")
        return node

    def _node(self, event: Any, levels: int) -> Node:
        self._check(event, levels)
        line = self._line_of(event)
        if isinstance(event, yaml.ScalarEvent):
            return Scalar(line, str(event.value), plain=event.style is None)
        if isinstance(event, yaml.SequenceStartEvent):
            nodes = [self._node(each, levels - 1) for each in self._until(yaml.SequenceEndEvent)]
            return Items(line, tuple(nodes))
        pairs = [self._pair(each, levels - 1) for each in self._until(yaml.MappingEndEvent)]
        return Pairs(line, tuple(pairs))

    def _pair(self, event: Any, levels: int) -> tuple[Scalar, Node]:
        key = self._node(event, levels)
        if not isinstance(key, Scalar):
            raise self._refused(event, "a key must be text")
        return key, self._node(next(self._events), levels)

    def _until(self, end: type[yaml.Event]) -> Iterator[Any]:
        for event in self._events:
            if isinstance(event, end):
                return
            yield event

    def _check(self, event: Any, levels: int) -> None:
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise self._refused(event, "YAML anchors and aliases (`&`, `*`) are not allowed: quote the text")
        if getattr(event, "tag", None) is not None:
            raise self._refused(event, "YAML tags (`!`) are not allowed: quote the text")
        if levels < 0:
            raise self._refused(event, f"more than {NESTING_MAX} levels inside each other")

    def _line_of(self, event: Any) -> int:
        return self._line + bisect.bisect_left(self._breaks, int(event.start_mark.index))

    def _refused(self, event: Any, text: str) -> yaml.MarkedYAMLError:
        return yaml.MarkedYAMLError(problem=text, problem_mark=event.start_mark)


def _mistake(error: yaml.YAMLError, text: str, line: int) -> Mistake:
    """What PyYAML says, at the line to blame: where a quote or bracket opens when it is never closed."""
    at, told = 0, str(error)
    if isinstance(error, yaml.MarkedYAMLError):
        told = error.problem or "not valid YAML"
        unclosed = "end of stream" in told or "stream end" in told
        mark = (error.context_mark if unclosed else None) or error.problem_mark
        at = mark.index if mark else 0
    elif isinstance(error, yaml.reader.ReaderError):
        at, told = error.position, f"the character U+{_code(error.character):04X} is not allowed"
    line += text.count("\n", 0, at)
    if "mapping values are not allowed" in told:
        return Mistake(line, "not valid YAML: a colon within the text: put the text in quotes")
    if "could not find expected ':'" in told or told == _NOT_A_PAIR:
        return Mistake(line, _NOT_A_PAIR)
    return Mistake(line, told if told.startswith("YAML") else f"not valid YAML: {told}")


def _code(character: int | str) -> int:
    return character if isinstance(character, int) else ord(character)


def _plain_value(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    return text
