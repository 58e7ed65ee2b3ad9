"""The scripted summarisers of `bench facts`: functions of the texts that they are shown. They import nothing of Mains.

A model that summarises keeps a part. `lossy` tells facts from filler. It keeps a rule nine times in ten, then one of
two facts and of their twins (it cannot know which is which), word for word, the newest first, as far as 1,024 tokens
go. What is kept of the same texts is always the same. `nothing` keeps nothing at all.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence

SUMMARY_TOKENS = 1_024
STATED, RULED = 50, 90  # percent of sentences that are kept
_SENTENCE = re.compile(r"[^\n\u3002]*?(?:[.\u3002](?=\s|$)|\u3002|\n|$)")
_NUMBER = re.compile(r"\d")
Summariser = Callable[[Sequence[str]], str]


def lossy(texts: Sequence[str], tokens: int = SUMMARY_TOKENS) -> str:
    """A part of what they say: see the header."""
    kept: list[str] = []
    room = tokens * 3 - 100
    sentences = [found[0].strip() for text in texts for found in _SENTENCE.finditer(text) if found[0].strip()]
    rules = [each for each in sentences if each.startswith("Rule ") and _drawn(each, len(texts)) < RULED]
    stated = [each for each in sentences if _is_stated(each) and _drawn(each, len(texts)) < STATED]
    for sentence in [*reversed(rules), *reversed(stated)]:
        size = len(sentence.encode()) + 1
        if size <= room:
            kept.append(sentence)
            room -= size
    return "\n".join(reversed(kept)) or "Nothing of note."


def _drawn(sentence: str, salt: int) -> int:
    return zlib.crc32(sentence.encode(), salt) % 100


def _is_stated(sentence: str) -> bool:
    """Whether it is a fact or like one: filler begins with a small letter."""
    is_first = sentence[0].isupper() or not sentence[0].isascii()
    return is_first and bool(_NUMBER.search(sentence)) and not sentence.startswith(("Rule ", "Task "))


def nothing(texts: Sequence[str]) -> str:
    """Keeps nothing."""
    return "Work has been done, and goes on."


SUMMARISERS: dict[str, Summariser] = {"lossy": lossy, "nothing": nothing}
