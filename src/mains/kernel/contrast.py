"""Where two contexts part: what they share, what each has behind that, and how their programs differ. A reader.

    contrast(journal, pid, other, full=False)

Contexts are compared as they were said, whatever was evicted from a frame since, page by page. Pages are the same when
their names are: nobody has to read them for that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from mains.kernel import pages, views
from mains.kernel.context import StoredInput
from mains.kernel.cover import grown, owners
from mains.kernel.journal import Journal
from mains.kernel.pagetable import words_of
from mains.kernel.ports import Message
from mains.kernel.process import Process
from mains.kernel.stubs import kind_of

_VALUE_MAX = 200  # characters of an input that are told


class Behind(msgspec.Struct, frozen=True):
    """A page that only one of the two has, at this place. `text` only when it was asked for."""

    position: int
    handle: str
    kind: str
    who: str
    page: str
    words: str
    text: str


class Side(msgspec.Struct, frozen=True):
    """One of the two."""

    pid: int
    program: str
    state: str
    pages: int
    frame: str
    behind: list[Behind]


class Differs(msgspec.Struct, frozen=True):
    """A thing that the two do not have alike (None: one has it not at all)."""

    what: str  # program, tool, input
    name: str
    one: str | None
    other: str | None


class Contrast(msgspec.Struct, frozen=True):
    """What two processes share, and what they do not.

    `shared`: the first pages that are the same, the opening's among them. Where the openings differ (another program,
    or other inputs) they stand first behind, and the count is of what grew behind them.
    """

    shared: int
    same_opening: bool
    same_frame: bool
    one: Side
    other: Side
    differs: list[Differs]


def contrast(journal: Journal, pid: int, other: int, *, full: bool = False) -> Contrast:
    """See the module's header. Raises NotFoundError."""
    with journal.snapshot():
        both = views.present(journal, pid), views.present(journal, other)
        names = [_names(journal, p) for p in both]
        openings = [pages.opening_of(journal.rows, p) for p in both]
        same_opening = openings[0] == openings[1]
        shared = 0
        while shared < min(map(len, names)) and names[0][shared] == names[1][shared]:
            shared += 1
        one, that = (_side(journal, p, 0 if same_opening else -p.opening, shared, full) for p in both)
        return Contrast(
            shared=shared + (len(openings[0]) if same_opening else 0),
            same_opening=same_opening,
            same_frame=bool(both[0].frame) and both[0].frame == both[1].frame,
            one=one,
            other=that,
            differs=_differs(journal, *both),
        )


def _names(journal: Journal, p: Process) -> list[str]:
    """The names of the pages behind the opening."""
    found = owners(p.pid, p.maps, 0, grown(p))
    return [page for owner in found for _, page in journal.rows("context_names", *owner)]


def _side(journal: Journal, p: Process, opening: int, shared: int, full: bool) -> Side:
    """One of the two, with its pages from position `opening` on if that is below 0, and from `shared` on."""
    behind = []
    for owner in [(p.pid, opening, 0), *owners(p.pid, p.maps, shared, grown(p))]:
        for position, page, data in journal.scan("context_span", *owner):
            message = msgspec.json.decode(data, type=Message)
            behind.append(
                Behind(
                    position=position,
                    handle=f"mem:{position}" if position >= 0 else "",
                    kind=kind_of(position, message),
                    who=f"{message.role} {message.name}".strip(),
                    page=page,
                    words=words_of(message),
                    text=_text_of(message) if full else "",
                )
            )
    return Side(p.pid, p.name, p.state.value, p.length, p.frame, behind)


def _text_of(message: Message) -> str:
    """A message with its calls, in lines."""
    calls = [f"{call.name}({call.arguments})" for call in message.calls]
    return "\n".join(filter(None, [message.text, *calls]))


def _differs(journal: Journal, one: Process, other: Process) -> list[Differs]:
    found = []
    if one.program != other.program:
        found.append(Differs("program", "", f"{one.name} {one.program[:12]}", f"{other.name} {other.program[:12]}"))
    if one.tools != other.tools:
        found += _unlike("tool", _tools(journal, one), _tools(journal, other))
    if one.inputs != other.inputs:
        found += _unlike("input", _inputs(journal, one), _inputs(journal, other))
    return found


def _unlike(what: str, one: Mapping[str, str], other: Mapping[str, str]) -> list[Differs]:
    names = sorted({*one, *other})
    return [Differs(what, name, one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)]


def _tools(journal: Journal, p: Process) -> dict[str, str]:
    tools: list[dict[str, Any]] = msgspec.json.decode(pages.read(journal, p.tools))
    return {tool["name"]: msgspec.json.encode(tool["parameters"]).decode() for tool in tools}


def _inputs(journal: Journal, p: Process) -> dict[str, str]:
    """Values, or the files with the beginning of their hashes; long ones are cut, with a hash that tells them apart."""
    inputs = msgspec.json.decode(pages.read(journal, p.inputs), type=list[StoredInput])
    return {each.name: _value(each) for each in inputs}


def _value(stored: StoredInput) -> str:
    if stored.files:
        text = ", ".join(f"{file.name} ({file.page[:12]})" for file in stored.files)
    else:
        text = bytes(stored.value).decode()
    if len(text) <= _VALUE_MAX:
        return text
    return f"{text[:_VALUE_MAX]}… ({pages.name_of(text.encode())[:12]})"
