"""Covers: what of a context stands in the frame, and what other pages stand in its place. Pure.

A context has an opening, which the program makes (positions -n to -1), and what grew behind it (0, 1, 2 ...), which
never changes. A cover puts pages in place of a range of positions; of covers of the same positions the latest holds.
Ranges are nested or disjoint, and covers are only ever added: the view as of an event is that of the covers up to it.

A fork maps the positions of its source below a bound (`process.Map`), with the covers that its source had then.

The frame's hash is rolling: it begins with the program and its tools, and each page that joins changes it. Two frames
with the same hash are the same bytes, for each page is named by its own hash.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Sequence

import msgspec

from mains.kernel.process import Map, Process
from mains.settings import Settings

_HASH_BYTES = 16  # of BLAKE2b (RFC 7693): 128 bits name a frame among those of one process


class Cover(msgspec.Struct, frozen=True):
    """Pages that stand in place of the positions from `first` to below `until`, from event `seq` on."""

    seq: int
    first: int
    until: int
    pages: tuple[str, ...]


class Span(msgspec.Struct, frozen=True):
    """Positions from `first` to below `until` that stand in the frame as they are."""

    first: int
    until: int


def layout(covers: Sequence[Cover], until: int) -> list[Span | Cover]:
    """What grew behind the opening, below position `until`, as the frame shows it. `covers`: the oldest first."""
    starts: list[int] = []
    shown: list[Cover] = []
    for cover in reversed(covers):
        at = bisect_right(starts, cover.first)
        if at and shown[at - 1].until >= cover.until:
            continue  # a later one covers it
        starts.insert(at, cover.first)
        shown.insert(at, cover)
    parts: list[Span | Cover] = []
    position = 0
    for cover in shown:
        if cover.first > position:
            parts.append(Span(position, cover.first))
        parts.append(cover)
        position = cover.until
    if position < until:
        parts.append(Span(position, until))
    return parts


def owners(pid: int, maps: Sequence[Map], first: int, until: int) -> list[tuple[int, int, int]]:
    """Whose rows hold the positions from `first` to below `until`: (pid, first, until) of each, in order."""
    found = []
    for each in maps:
        if first < each.until and first < until:
            end = min(each.until, until)
            found.append((each.pid, first, end))
            first = end
    if first < until:
        found.append((pid, first, until))
    return found


def seed(program: str, tools: str) -> str:
    """The hash of a frame without messages."""
    return chain("", (program, tools))


def chain(frame: str, pages: Iterable[str]) -> str:
    """The hash of a frame after these pages have joined it."""
    for page in pages:
        frame = hashlib.blake2b((frame + page).encode(), digest_size=_HASH_BYTES).hexdigest()
    return frame


def grown(p: Process) -> int:
    """How many positions a context has behind its opening."""
    return p.length - p.opening


def window(settings: Settings, p: Process) -> int:
    """Tokens that the messages of a frame may have: without the tool list and the answer."""
    sizes = (p.context_tokens, p.frame_tokens_max, settings.frame_tokens_max)
    return max(0, min(size for size in sizes if size) - p.reserve_tokens - p.output_tokens_max)
