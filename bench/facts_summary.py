"""The scripted summarisers of `bench facts`: functions of the texts that they are shown. They import nothing of Mains.

A model that summarises keeps a part. `lossy` keeps a sentence with a number one time in four, and a rule nine times in
ten, the newest first, as far as the room goes; a sentence without a number never. What is kept of the same texts is
always the same. `nothing` keeps nothing at all.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence

SUMMARY_TOKENS = 1_024
NUMBERED, RULED = 25, 90  # percent of sentences that are kept
_SENTENCE = re.compile(r"[^\n\u3002]*?(?:[.\u3002](?=\s|$)|\u3002|\n|$)")
_NUMBER = re.compile(r"\d")
Summariser = Callable[[Sequence[str]], str]


def lossy(texts: Sequence[str], tokens: int = SUMMARY_TOKENS) -> str:
    """A part of what they say: see the header."""
    kept: list[str] = []
    room = tokens * 3 - 100
    for text in reversed(texts):
        for sentence in reversed([found[0].strip() for found in _SENTENCE.finditer(text) if found[0].strip()]):
            drawn = zlib.crc32(sentence.encode(), len(texts)) % 100
            keep = drawn < (90 if sentence.startswith("Rule ") else 25) and _NUMBER.search(sentence)
            size = len(sentence.encode()) + 1
            if keep and size <= room:
                kept.append(sentence)
                room -= size
    return "\n".join(reversed(kept)) or "Nothing of note."


def nothing(texts: Sequence[str]) -> str:
    """Keeps nothing."""
    return "Work has been done, and goes on."


SUMMARISERS: dict[str, Summariser] = {"lossy": lossy, "nothing": nothing}
