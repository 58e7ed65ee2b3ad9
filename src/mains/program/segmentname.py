"""Names of shared segments, as programs write them: `segments: [brief, map]` and the grant `append(brief)`.

Whether there is such a segment is known when the program runs.
"""

from __future__ import annotations

import re

from mains.errors import Mistake
from mains.program.fields import read_texts, shown
from mains.program.frontmatter import Node

SEGMENT_RULE = "a small letter first, then small letters, digits, `.`, `-` and `_`, at most 40"
_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,39}")


def is_segment(text: str) -> bool:
    """Whether a segment can be called so."""
    return _NAME.fullmatch(text) is not None


def read_segments(node: Node, most: int, faults: list[Mistake]) -> tuple[str, ...]:
    """The segments that a program maps, each once; at most `most` (process_segments_max)."""
    named = read_texts(node, "segments", faults)
    faults += [
        Mistake(each.line, f"`segments`: {shown(each.text)} is no name for a segment: {SEGMENT_RULE}")
        for each in named
        if not is_segment(each.text)
    ]
    names = tuple(dict.fromkeys(each.text for each in named))
    if len(names) > most:
        told = f"`segments` names {len(names)}; at most {most} may be mapped (process_segments_max)"
        faults.append(Mistake(node.line, told))
    return names
