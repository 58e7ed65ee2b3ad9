"""Lookup: `read` and `recall`, the calls that bring back what has left a frame. Readers; they change nothing.

    await lookup.call(p, "read", arguments)      a handle, word for word, or a range of it
    await lookup.call(p, "recall", arguments)    where something is said in all that is the process's own

They run off the event loop, on what is committed, and reach only the memory of the process that calls: what it (or whom
it was forked from) said and heard, the files of its inputs, and what it has read of shared segments. Spaces are what is
searched: `p7` (what process 7 said and heard), `f<hash>` (a file's text, in pieces), `s3` (segment 3, a page each).
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec

from mains.errors import MainsError
from mains.kernel import notes, pages, segments, stubs
from mains.kernel.context import StoredInput
from mains.kernel.cover import Span, grown, layout, owners, window
from mains.kernel.excerpt import excerpt, words_of
from mains.kernel.journal import Journal
from mains.kernel.ports import Message
from mains.kernel.process import Process
from mains.kernel.toolset import LOOKUPS
from mains.program import BYTES_PER_TOKEN
from mains.settings import Settings

T = TypeVar("T")
PIECE = 48_000  # characters of a file that are one document; the next begins so many before its end:
OVERLAP = 2_000
_READS_PER_WINDOW = 4
_AROUND_BYTES = 80  # of a place that is told, besides its text
_LEAST_BYTES = 120
_NOTES_MAX = 3
_HITS = 5
_HITS_MAX = 20
_RANGE = re.compile(r"(lines?|characters?|chars?)?\s*(\d{1,15})\s*(?:-|to|\u2013)\s*(\d{1,15})")
_MEM = re.compile(r"mem:(\d{1,9})")
_decode = msgspec.json.Decoder(Message).decode


class Found(Protocol):
    """A place that answers a query: a document of a space, and the part of it that fits best."""

    @property
    def space(self) -> str:
        """Where."""
        ...

    @property
    def position(self) -> int:
        """Of the document."""
        ...

    @property
    def page(self) -> str:
        """Of the document: names its content."""
        ...

    @property
    def first(self) -> int:
        """Where the part begins, in characters."""
        ...

    @property
    def until(self) -> int:
        """And ends."""
        ...

    @property
    def text(self) -> str:
        """The part."""
        ...


class Search(Protocol):
    """Searches spaces. `mains.search.Index` is one."""

    async def recall(self, spaces: Sequence[tuple[str, int | None]], query: str, k: int) -> Sequence[Found]:
        """The best documents, of each space those below its bound. Raises MainsError."""
        ...

    def touch(self, space: str) -> None:
        """A space has grown."""
        ...

    async def spaces(self) -> list[str]:
        """Of which spaces something is kept."""
        ...

    async def forget(self, spaces: Sequence[str]) -> None:
        """Keep nothing of these spaces. Raises MainsError."""
        ...

    async def close(self) -> None:
        """End."""
        ...


class _Reach(NamedTuple):
    """What a process may search, and what of that its frame shows."""

    spaces: list[tuple[str, int | None]]
    names: dict[str, str]  # handles of inputs and segments, by their space
    positions: set[int]
    pages: set[str]  # only where segments are read
    opening: str  # only where there are inputs

    def shows(self, hit: Found) -> bool:
        """Whether a place stands in the frame."""
        if hit.space not in self.names:
            return hit.position in self.positions
        return hit.page in self.pages if hit.space.startswith("s") else hit.text in self.opening


class Lookup:
    """What processes look up in their memory."""

    def __init__(self, journal: Journal, search: Search | None, settings: Settings) -> None:
        self._journal = journal
        self._search = search
        self._settings = settings

    def touch(self, p: Process) -> None:
        """A process that may recall has said or heard more."""
        if self._search is not None and p.covers:
            self._search.touch(f"p{p.pid}")

    async def call(self, p: Process, tool: str, arguments: Mapping[str, Any]) -> str:
        """The text of a lookup; what cannot be looked up is text too."""
        assert tool in LOOKUPS
        aside = _Aside(self._journal, self._settings.device_timeout_s)
        try:
            if tool == "read":
                return await aside.run(lambda: self._read(p, arguments["handle"], arguments.get("range", "")))
            return await self._recall(p, arguments["query"], min(arguments.get("k", _HITS), _HITS_MAX), aside)
        except MainsError as error:
            return f"error: {error}"

    def _most(self, p: Process) -> int:
        """Tokens that are given at once."""
        return max(1, min(self._settings.read_tokens_max, window(self._settings, p) // _READS_PER_WINDOW))

    # read

    def _read(self, p: Process, handle: str, wanted: str) -> str:
        handle = handle.strip()
        with self._journal.snapshot():
            text = self._text(p, handle)
        if text is None:
            return f"error: there is no `{handle:.80}` in your memory (handles are such as mem:0, input:NAME)"
        return _part(handle, text, wanted, self._most(p))

    def _text(self, p: Process, handle: str) -> str | None:
        if found := _MEM.fullmatch(handle):
            places = pages.span(self._journal.rows, p, int(found[1]), int(found[1]) + 1)
            return text_of(_decode(places[0].data)) if places and int(found[1]) < grown(p) else None
        if handle.startswith("segment:"):
            return segments.text(self._journal.rows, p, handle)
        kind, _, name = handle.partition(":")
        if kind == "note":
            found_notes = notes.notes_of(self._journal.rows, p)
            return next((told.text for told in found_notes if str(told.id) == name), None)
        if kind == "input":
            for given, page in _inputs(self._journal, p):
                if given == name:
                    return pages.read(self._journal, page).decode()
        return None

    # recall

    async def _recall(self, p: Process, query: str, most: int, aside: _Aside) -> str:
        if self._search is None:
            return "error: nothing can be searched here: this kernel has no search index"
        reach = await aside.run(lambda: self._reach(p))
        found = await self._search.recall(reach.spaces, query, most * 2)
        chosen = ([hit for hit in found if not reach.shows(hit)] or list(found))[:most]
        noted = await aside.run(lambda: self._noted(p, query))
        if not chosen:
            return noted or "nothing in your memory fits that"
        told = await aside.run(lambda: self._tell(p, chosen, reach.names, query))
        return f"{told}\n\n{noted}" if noted else told

    def _noted(self, p: Process, query: str) -> str:
        """The notes in which most of the query's words stand, the best first."""
        words = words_of(query)
        with self._journal.snapshot():
            found = notes.notes_of(self._journal.rows, p)
        held = [(sum(word in told.text.casefold() for word in words), told) for told in found]
        fitting = sorted((-count, told.id, told.text) for count, told in held if count * 2 > len(words))
        return "\n\n".join(f"note:{number}:\n{stubs.quoted(text)}" for _, number, text in fitting[:_NOTES_MAX])

    def _reach(self, p: Process) -> _Reach:
        rows = self._journal.rows
        with self._journal.snapshot():
            inputs = {f"f{page}": f"input:{name}" for name, page in _inputs(self._journal, p)}
            shared = segments.spaces(rows, p)
            parts = layout(pages.covers_of(rows, p), grown(p))
            spans = [
                owner
                for part in parts
                if isinstance(part, Span)
                for owner in owners(p.pid, p.maps, part.first, part.until)
            ]
            read = [row for span in spans for row in rows("context_names", *span)] if shared else []
            opening = [pages.read(self._journal, page) for page in pages.opening_of(rows, p)] if inputs else []
        own: list[tuple[str, int | None]] = [(f"p{each.pid}", each.until) for each in p.maps]
        return _Reach(
            [*own, (f"p{p.pid}", None), *[(space, None) for space in inputs], *[each[:2] for each in shared]],
            inputs | {space: f"segment:{name}" for space, _, name in shared},
            {position for _, first, until in spans for position in range(first, until)},
            {page for _, page in read},
            "\n".join(_decode(page).text for page in opening),
        )

    def _tell(self, p: Process, hits: Sequence[Found], names: Mapping[str, str], query: str) -> str:
        """The places, best first: each with its handle, and the part of it that fits best.

        Room is given from the last to the first: what the last do not need is left to the best.
        """
        room, told = self._most(p) * BYTES_PER_TOKEN - _AROUND_BYTES * len(hits), list[str]()
        for left, hit in zip(range(len(hits), 0, -1), reversed(hits), strict=True):
            texts, used = self._place(p, hit, names, query, max(_LEAST_BYTES, room // left))
            room -= used
            told[:0] = texts
        return "\n\n".join(told)

    def _place(self, p: Process, hit: Found, names: Mapping[str, str], query: str, room: int) -> tuple[list[str], int]:
        """A place as it is told (nothing when it is gone), and how many bytes its text has."""
        if hit.space in names:
            start, part, shown = _quoted(hit.text, query, room)
            start += hit.first + (0 if hit.space.startswith("s") else hit.position * (PIECE - OVERLAP))
            name = names[hit.space] + (f"/{hit.position}" if hit.space.startswith("s") else "")
            return [f"{_in_a_line(name)} (characters {start}-{start + len(part)}):\n{shown}"], len(shown.encode())
        told, used = list[str](), 0
        for place in pages.span(self._journal.rows, p, hit.position, hit.position + 1):
            message = _decode(place.data)
            whole = text_of(message)
            start, part, shown = 0, whole, stubs.quoted(whole)
            if len(shown.encode()) > room:
                start, part, shown = _quoted(hit.text, query, room)
                start += hit.first
            size = "" if part == whole else f", characters {start}-{start + len(part)} of {len(whole):,}"
            told.append(f"mem:{hit.position} ({stubs.kind_of(hit.position, message)}{size}):\n{shown}")
            used += len(shown.encode())
        return told, used


def _quoted(text: str, query: str, room: int) -> tuple[int, str, str]:
    """The part of a text that answers a query best: where it begins, the part, and how it is shown, in `room` bytes."""
    size = room
    while True:
        start, part = excerpt(text, query, size)
        shown = stubs.quoted(part)
        if len(shown.encode()) <= room or not part:
            return start, part, shown
        size = size * room // len(shown.encode())


def _in_a_line(name: str) -> str:
    """A name that others gave, as a part of a line of ours: a file of a folder may be called anything."""
    return name if name.isprintable() else name.encode("unicode_escape").decode()


class _Aside:
    """Runs the parts of one call in threads, each of which ends by itself when the time of the call is over: whoever
    waited has gone then, and a thread that reads on would be one of few."""

    def __init__(self, journal: Journal, limit_s: float) -> None:
        self._journal = journal
        self._end_s = time.monotonic() + limit_s

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` gives. Raises what it raises, and LimitError."""

        def timed() -> T:
            with self._journal.until(self._end_s):
                return work()

        return await asyncio.to_thread(timed)


class Documents:
    """What there is to search: gives a search index the documents of a space (`mains.search.Source`)."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def documents(self, space: str, start: int, most: int) -> list[tuple[int, str, str]]:
        """(position, page, text) of at most `most` documents from a position on. For any thread."""
        if space.startswith("s"):
            return segments.documents(self._journal.rows, int(space[1:]), start, most)
        if space.startswith("f"):
            return self._pieces(space[1:], start, most)
        found: list[tuple[int, str, str]] = []
        while len(found) < most:
            rows = self._journal.rows("context_from", int(space[1:]), max(0, start), most)
            for position, page, data in rows:
                if text := _said(_decode(data)):
                    found.append((position, page, text))
            if len(rows) < most:
                break
            start = rows[-1][0] + 1
        return found[:most]

    def gone(self, spaces: Sequence[str]) -> list[str]:
        """Those of these spaces that are not there any more. For any thread."""
        query = {"p": "process_state", "f": "page_known"}
        return [space for space in spaces if not self._journal.rows(query[space[0]], space[1:])]

    def _pieces(self, page: str, start: int, most: int) -> list[tuple[int, str, str]]:
        rows = self._journal.rows("page_get", page)
        text, step = (rows[0][0].decode() if rows else ""), PIECE - OVERLAP
        numbers = range(start, min(start + most, -(-max(1, len(text) - OVERLAP) // step) if text else 0))
        return [(number, page, text[number * step : number * step + PIECE]) for number in numbers]


def text_of(message: Message) -> str:
    """What is said in a message, the calls that it makes included."""
    calls = [f"{call.name} {call.arguments}" for call in message.calls]
    return "\n".join([message.text, *calls] if message.text else calls)


def _said(message: Message) -> str:
    """What a message says that stands nowhere else in the memory: no page of a segment, nothing that was looked up."""
    if message.kind in ("recall", "segment") or (message.role == "tool" and message.name in LOOKUPS):
        return ""
    return text_of(msgspec.structs.replace(message, calls=tuple(c for c in message.calls if c.name not in LOOKUPS)))


def _inputs(journal: Journal, p: Process) -> list[tuple[str, str]]:
    """The texts of a process's inputs: (name, page). A file of a folder is NAME/FILE."""
    found = []
    for stored in msgspec.json.decode(pages.read(journal, p.inputs), type=list[StoredInput]):
        if stored.page:
            found.append((stored.name, stored.page))
        of_folder = stored.type == "folder"
        found += [(f"{stored.name}/{file.name}" if of_folder else stored.name, file.page) for file in stored.files]
    return found


def _part(handle: str, text: str, wanted: str, tokens_max: int) -> str:
    """A range of a text, or as much of its beginning as so many tokens hold; and what there is besides."""
    *begun, last = text.split("\n")
    lines = [*[f"{line}\n" for line in begun], last]
    first, until = 0, len(text)
    if wanted.strip():
        found = _RANGE.fullmatch(wanted.strip().lower())
        if found is None or int(found[2]) > int(found[3]):
            return f"error: `{wanted:.40}` is no range; write `lines 10-40` or `characters 0-4000`"
        low, high = int(found[2]), int(found[3])
        if (found[1] or "line").startswith("line"):
            first = sum(map(len, lines[: max(0, low - 1)]))
            until = first + len("".join(lines[max(0, low - 1) : high]).removesuffix("\n"))
        else:
            first, until = min(low, len(text)), min(high, len(text))
    shown = text[first:until].encode()[: tokens_max * BYTES_PER_TOKEN].decode(errors="ignore")
    end = first + len(shown)
    if (first, end) == (0, len(text)):
        return shown
    line = text.count("\n", 0, first) + 1
    more = "" if end == len(text) else f"; characters {end}-... come next"
    where = f"characters {first}-{end} of {len(text)}, lines {line}-{line + shown.count(chr(10))} of {len(lines)}"
    return f"[{handle}: {where}{more}]\n{shown}"
