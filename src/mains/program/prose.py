"""Prose: what a program or an input says, as text. Pure functions; all take linear time on any text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

CHARACTERS_PER_TOKEN = 4
"""How many characters `head` takes for one token: about right for English in the tokenizers of current
models.
"""

BYTES_PER_TOKEN = 3
"""How many bytes `estimate_tokens` takes for one token: fewer than in most text, so that a budget holds."""

_PLACEHOLDER = re.compile(r"\{\{[ \t]*([A-Za-z_][A-Za-z0-9_]*)[ \t]*\}\}")
_SENTENCE_ENDS = (". ", "! ", "? ", ".\n", "!\n", "?\n", "\u3002", "\uff01", "\uff1f")  # the last: CJK


def estimate_tokens(text: str) -> int:
    """Tokens of `text`, from above for nearly all text: one for every 3 bytes of UTF-8, at least 1 if not
    empty.
    """
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN)


def head(text: str, tokens_max: int) -> str:
    """`text`, or its beginning and a note of how much was cut: together at most 4 characters for each token.

    The cut is at the last end of a paragraph or sentence in the second half of what fits, else at the last
    end of a word, else where the room ends. Where there is no room for the note (under some 20 tokens) it is
    left out.
    """
    room = max(tokens_max, 0) * CHARACTERS_PER_TOKEN
    if len(text) <= room:
        return text
    note = f"\n\n[cut: {room:,} of {len(text):,} characters]"
    if room < 2 * len(note):
        return text[:room]
    kept = text[: _cut_at(text, room - len(note))].rstrip()
    return f"{kept}\n\n[cut: {len(kept):,} of {len(text):,} characters]"


def placeholders(prose: str) -> Iterator[tuple[str, int]]:
    """The names in `{{name}}`, each with its line in `prose` (the first is 0)."""
    line, seen = 0, 0
    for found in _PLACEHOLDER.finditer(prose):
        line += prose.count("\n", seen, found.start())
        seen = found.start()
        yield found[1], line


def replace_placeholders(prose: str, text_of: Callable[[str], str | None]) -> str:
    """`prose` with each `{{name}}` replaced by its text, or left as it is when that is None. One pass."""

    def text(found: re.Match[str]) -> str:
        filled = text_of(found[1])
        return found[0] if filled is None else filled

    return _PLACEHOLDER.sub(text, prose)


def _cut_at(text: str, room: int) -> int:
    half = room // 2
    paragraph = text.rfind("\n\n", half, room + 2)
    if paragraph >= 0:
        return paragraph
    sentence = max(text.rfind(end, half, room + 1) + len(end.rstrip()) for end in _SENTENCE_ENDS)
    if sentence > half:
        return sentence
    word = max(text.rfind(space, half, room + 1) for space in (" ", "\n", "\t"))
    return word if word > 0 else room
