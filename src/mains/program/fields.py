"""Reading one field of the front matter: each reader takes a node and gives a value, or adds to `faults`.

A reader that found a fault gives its default, so that the rest of the file is still checked.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from decimal import Decimal
from typing import Any

from mains.errors import Mistake, UsageError
from mains.program.frontmatter import Items, Node, Pairs, Scalar, value_of

TOKENS_MAX = 10**12
"""More tokens than anybody buys; keeps every sum of nano-units within 64 bits of a journal row."""

BOOLEANS = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}

_TOKENS = re.compile(r"((?:[0-9]{1,60}|[0-9]{1,3}(?:,[0-9]{3}){1,19})(?:\.[0-9]{1,9})?)\s?([kKmM]?)")
_SHOWN_MAX = 60


def shown(text: object) -> str:
    """`text` as it may stand in a one-line message: in backticks, cut, without control characters."""
    line = " ".join(str(text)[: 4 * _SHOWN_MAX].split())
    line = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)
    return f"`{line if len(line) <= _SHOWN_MAX else line[:_SHOWN_MAX] + '…'}`"


def nearest(name: str, known: Collection[str]) -> str:
    """` (did you mean `x`?)` with the nearest known name, or nothing when none is near."""
    by_lower = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name[:64].lower(), by_lower, n=1)
    return f" (did you mean `{by_lower[near[0]]}`?)" if near else ""


def parse_tokens(text: str) -> int:
    """A number of tokens as people write it: `20000`, `20_000`, `20,000`, `20k`, `1.5M`. Raises UsageError."""
    found = _TOKENS.fullmatch(text.strip()[:64].replace("_", ""))
    if not found:
        comma = "; a comma is followed by three digits, as in 20,000" if "," in text else ""
        raise UsageError(f"{shown(text)} is not a number of tokens: write 20000, 20k or 1.5M{comma}")
    tokens = Decimal(found[1].replace(",", "")) * {"": 1, "k": 1_000, "m": 1_000_000}[found[2].lower()]
    if tokens != int(tokens) or not 0 < tokens <= TOKENS_MAX:
        raise UsageError(f"{shown(text)} is not a whole number of tokens from 1 to {TOKENS_MAX:,}")
    return int(tokens)


def is_null(node: Node) -> bool:
    """Whether nothing is written behind the key (or `null`)."""
    return isinstance(node, Scalar) and node.plain and value_of(node) is None


def read_text(node: Node, key: str, faults: list[Mistake]) -> str:
    """Text, without white space around it. A number counts as its text; nothing is a fault."""
    if isinstance(node, Scalar) and not is_null(node) and node.text.strip():
        return node.text.strip()
    what = "says nothing" if isinstance(node, Scalar) else "must be text"
    faults.append(Mistake(node.line, f"`{key}` {what}"))
    return ""


def read_tokens(node: Node, key: str, least: int, faults: list[Mistake]) -> int | None:
    """A number of tokens, at least `least`; None when nothing is written."""
    if is_null(node):
        return None
    try:
        tokens = parse_tokens(read_text(node, key, []))
    except UsageError as error:
        faults.append(Mistake(node.line, f"`{key}`: {error}"))
        return None
    if tokens < least:
        faults.append(Mistake(node.line, f"`{key}` must be at least {least} tokens, not {tokens}"))
    return tokens


def read_choice(node: Node, key: str, choices: Collection[str], default: str, faults: list[Mistake]) -> str:
    """One of `choices`; `default` when nothing is written."""
    if is_null(node):
        return default
    text = node.text.strip() if isinstance(node, Scalar) else ""
    if text in choices:
        return text
    listed = ", ".join(f"`{each}`" for each in choices)
    told = f"{shown(text)} is none of {listed}{nearest(text, choices)}" if text else f"must be one of {listed}"
    faults.append(Mistake(node.line, f"`{key}`: {told}"))
    return default


def read_boolean(node: Node, key: str, default: bool, faults: list[Mistake]) -> bool:
    """true or false (also yes, no, on, off); `default` when nothing is written."""
    if is_null(node):
        return default
    word = node.text.strip().lower() if isinstance(node, Scalar) else ""
    if word not in BOOLEANS:
        faults.append(Mistake(node.line, f"`{key}` must be true or false"))
    return BOOLEANS.get(word, default)


def read_number(node: Node, key: str, least: float, most: float, faults: list[Mistake]) -> float | None:
    """A number from `least` to `most`; None when nothing is written."""
    number = value_of(node)
    if number is None:
        return None
    if isinstance(number, bool) or not isinstance(number, int | float) or not least <= number <= most:
        faults.append(Mistake(node.line, f"`{key}` must be a number from {least:g} to {most:g}"))
        return None
    return float(number)


def read_texts(node: Node, key: str, faults: list[Mistake]) -> tuple[Scalar, ...]:
    """A text or a list of texts, each with its line; nothing when nothing is written."""
    if is_null(node):
        return ()
    nodes = node.nodes if isinstance(node, Items) else (node,)
    texts = [each for each in nodes if isinstance(each, Scalar) and each.text.strip()]
    if len(texts) < len(nodes):
        faults.append(Mistake(node.line, f"`{key}` must be a text or a list of texts"))
    return tuple(Scalar(each.line, each.text.strip(), each.plain) for each in texts)


def read_pairs(node: Node, key: str, faults: list[Mistake]) -> tuple[tuple[Scalar, Node], ...]:
    """The pairs of a mapping; nothing when nothing is written."""
    if isinstance(node, Pairs):
        return node.pairs
    if not is_null(node):
        faults.append(Mistake(node.line, f"`{key}` must be a mapping: lines `name: value` below it"))
    return ()


def read_mapping(node: Node, key: str, faults: list[Mistake]) -> dict[str, Any]:
    """A mapping as a JSON object."""
    return {name.text: value_of(each) for name, each in read_pairs(node, key, faults)}
