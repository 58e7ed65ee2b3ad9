"""What a built-in device says no to, within the device: it leaves it as a `Failed`."""

from __future__ import annotations

import unicodedata

_UNSEEN = ("Cc", "Cs", "Zl", "Zp")  # control characters, halves of pairs, separators of lines and paragraphs
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class Refused(Exception):  # noqa: N818 - becomes a Failed, never leaves the device
    """An order that cannot be served, in words for the model: one line."""


def is_unseen(character: str) -> bool:
    """Whether a character is none that a line of text can show."""
    return unicodedata.category(character) in _UNSEEN


def shown(text: str) -> str:
    """A name, a path or an address as one line: what cannot be seen, or would turn the line round, is escaped."""
    return "".join(_seen(character) for character in text)


def _seen(character: str) -> str:
    if character not in _TURNING and not is_unseen(character):
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a name that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
