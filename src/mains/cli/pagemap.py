"""The page table as a drawing: each page a cell of two characters, in rows of any width. Pure.

    rows(pages, width)     the drawing, as (style, text) pieces; colours only repeat what the characters say
    key(pages)             what the letters mean
    gauge(...)             how full the frame is, with its marks

A capital stands in the frame, `^` says that it is pinned there; a small letter with `-` was evicted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Entry = Mapping[str, Any]
Row = list[tuple[str, str]]

LETTERS = {
    "program": "P", "rule": "R", "input": "I", "message": "M", "reply": "A", "result": "C", "summary": "S", "stub": "T",
    "recall": "L", "notes": "N", "segment": "G",
}  # fmt: skip
WORDS = {"reply": "reply (answer)", "result": "call result", "stub": "stub (trace)", "recall": "recall (lookup)"}
_STYLES = {
    "program": "magenta", "rule": "red", "input": "cyan", "message": "green", "reply": "bright_white", "result": "blue",
    "summary": "yellow", "stub": "yellow", "recall": "bright_cyan", "notes": "bright_green", "segment": "bright_blue",
}  # fmt: skip
_MARKS = {"pinned": "^", "frame": " ", "evicted": "-"}
_CELL = 2
_CELLS_MIN = 8  # beside a label: below that, the cells have the whole width


def rows(pages: Sequence[Entry], width: int) -> Iterator[Row]:
    """Every page once, in order; each row begins with the handle of its first page, where there is room for it."""
    opening = [page for page in pages if page["position"] < 0]
    last = max((page["position"] for page in pages), default=0)
    label = max(len("opening"), len(f"mem:{last}")) + 1
    if width < label + _CELLS_MIN * _CELL:
        label = 0
    each = max(1, (width - label) // _CELL)
    for part in (opening, pages[len(opening) :]):
        for at in range(0, len(part), each):
            yield _row(part[at : at + each], label, width)


def _row(pages: Sequence[Entry], label: int, width: int) -> Row:
    position = pages[0]["position"]
    begins = "opening" if position < 0 else f"mem:{position}"
    cells = [(_style(page), cell(page)[: max(1, width)]) for page in pages]
    return [("", begins.ljust(label)), *cells] if label else cells


def cell(page: Entry) -> str:
    """A page as two characters."""
    letter = LETTERS.get(page["kind"], "?")
    return (letter.lower() if page["where"] == "evicted" else letter) + _MARKS[page["where"]]


def _style(page: Entry) -> str:
    style = _STYLES.get(page["kind"], "")
    return {"pinned": f"bold {style}", "evicted": f"dim {style}"}.get(page["where"], style).strip()


def key(pages: Sequence[Entry]) -> Iterator[str]:
    """What the letters and marks mean that are there."""
    kinds = {page["kind"] for page in pages}
    for kind, letter in LETTERS.items():
        if kind in kinds:
            yield f"{letter} {WORDS.get(kind, kind)}"
    places = {page["where"] for page in pages}
    if "pinned" in places:
        yield "^ pinned"
    if "evicted" in places:
        yield "small and - evicted"


def gauge(used: int, window: int, marks: Sequence[int], width: int) -> str:
    """A bar of a window, filled as far as it is used, with a stroke at each mark."""
    room = max(1, width - 2)
    filled = min(room, round(room * used / window)) if window else 0
    bar = ["#"] * filled + ["."] * (room - filled)
    for mark in marks:
        if 0 < mark <= window:
            bar[min(room - 1, round(room * mark / window))] = "|"
    return f"[{''.join(bar)}]"
