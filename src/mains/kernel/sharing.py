"""The memory of a whole home: what its pages weigh, and how much is stored once for many. A reader of the journal.

    memory(journal)     of one moment

A page is *shared* when several processes have it in their contexts: a fork has what it maps of its source. The ratio
says how many times more the contexts would weigh if each were a list of its own, with everything in it.

The tables are read once each and summed in SQL: a home of 10,000 processes with 50 pages each takes about a second
(measured, 2 shared cores), however many forks there are: the rows of a source are read once for all of them.
"""

from __future__ import annotations

from collections import Counter
from heapq import nlargest

import msgspec

from mains.kernel import pages
from mains.kernel.cover import owners
from mains.kernel.journal import Journal
from mains.kernel.pagetable import words_of
from mains.kernel.ports import Message
from mains.kernel.stubs import kind_of
from mains.kernel.tx import decode_process

INDEX_FILE = "memory.db"
"""The search index, beside the home's database (it may be missing: it is made when it is first needed)."""

_MOST = 10  # of each list
_LIKELY = 50  # pages of which it is counted exactly who has them


class Held(msgspec.Struct, frozen=True):
    """Pages of one kind."""

    pages: int
    bytes: int


class Shared(msgspec.Struct, frozen=True):
    """A page that several processes have."""

    page: str
    kind: str
    processes: int
    bytes: int
    words: str


class Large(msgspec.Struct, frozen=True):
    """A process with a large frame. `window_tokens` 0: not known."""

    pid: int
    program: str
    state: str
    frame_tokens: int
    window_tokens: int
    pages: int


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What a home holds. Bytes are those of the pages themselves, unless a file is named."""

    pages: Held
    kinds: dict[str, Held]
    contexts: int  # processes
    entries: int  # pages of their contexts, those included that forks map
    entry_bytes: int  # of those, all of them
    stored_bytes: int  # of those, each page counted once
    ratio: float  # of the two; 1 when there is nothing
    covers: int  # pages that stand in place of others, as often as something was evicted
    database_bytes: int  # of the file, and what is not in it yet
    index_bytes: int  # of the search index's file
    shared: list[Shared]
    frames: list[Large]


def memory(journal: Journal) -> Memory:
    """See the module's header."""
    with journal.snapshot():
        kinds = {kind: Held(count, size) for kind, count, size in journal.rows("page_kinds")}
        entries, entry_bytes, stored_bytes = (value or 0 for value in journal.rows("context_sums")[0])
        forks, frames, contexts = _of_processes(journal)
        mapped = _Mapped(journal, forks)
        entries, entry_bytes = entries + mapped.entries, entry_bytes + mapped.bytes
        return Memory(
            pages=Held(sum(each.pages for each in kinds.values()), sum(each.bytes for each in kinds.values())),
            kinds=kinds,
            contexts=contexts,
            entries=entries,
            entry_bytes=entry_bytes,
            stored_bytes=stored_bytes,
            ratio=round(entry_bytes / stored_bytes, 4) if stored_bytes else 1.0,
            covers=journal.rows("cover_count")[0][0],
            database_bytes=_bytes_of(journal, journal.path.name),
            index_bytes=_bytes_of(journal, INDEX_FILE),
            shared=_most_shared(journal, mapped, forks),
            frames=frames,
        )


_Forks = dict[int, list[tuple[int, int, int]]]  # source -> (first, until, fork) of each that maps positions of it


def _of_processes(journal: Journal) -> tuple[_Forks, list[Large], int]:
    """Who maps what of whom; the largest frames; how many contexts there are."""
    forks: _Forks = {}
    large: list[Large] = []
    contexts = 0
    for (body,) in journal.scan("process_all"):
        p = decode_process(body)
        contexts += 1
        for source, first, until in owners(p.pid, p.maps, 0, p.maps[-1].until) if p.maps else ():
            forks.setdefault(source, []).append((first, until, p.pid))
        if len(large) < _MOST or p.frame_tokens > large[-1].frame_tokens:
            most = min((size for size in (p.context_tokens, p.frame_tokens_max) if size), default=0)
            large.append(Large(p.pid, p.name, p.state.value, p.frame_tokens, most, p.length))
            large = sorted(large, key=lambda each: -each.frame_tokens)[:_MOST]
    return forks, large, contexts


class _Mapped:
    """What forks map: entries and bytes, each counted for each fork; and by how many forks each page is, at most."""

    def __init__(self, journal: Journal, forks: _Forks) -> None:
        self.entries = 0
        self.bytes = 0
        self.forks: Counter[str] = Counter()
        for source, mapped in forks.items():
            steps: Counter[int] = Counter()  # by how many more forks a position is mapped than the one before
            for first, until, _ in mapped:
                steps[first] += 1
                steps[until] -= 1
            more, known = 0, set()
            for position, page, size in journal.scan("context_sizes", source, min(steps), max(steps)):
                more += steps.get(position, 0)
                self.entries += more
                self.bytes += more * size
                if page not in known:
                    self.forks[page] += more
                    known.add(page)


def _most_shared(journal: Journal, mapped: _Mapped, forks: _Forks) -> list[Shared]:
    """The pages that most processes have, the largest first of those that equally many have: the most of those that
    most have for themselves, and of those that most forks map."""
    having: dict[str, int] = {}
    places: dict[str, int] = {}
    for page, pids, position in journal.rows("context_most", _LIKELY):
        having[page], places[page] = pids, position
    likely = [page for page, more in mapped.forks.most_common(_LIKELY) if more]
    having |= _having(journal, likely + [page for page in having if page in mapped.forks], forks)
    most = nlargest(_LIKELY, having, key=lambda page: (having[page], page))
    shared = [_shared(journal, page, having[page], places.get(page, 0)) for page in most if having[page] > 1]
    return sorted(shared, key=lambda each: (-each.processes, -each.bytes, each.page))[:_MOST]


def _having(journal: Journal, likely: list[str], forks: _Forks) -> dict[str, int]:
    """How many processes have each of these pages that forks map, each fork once."""
    having: dict[str, set[int]] = {page: set() for page in likely}
    if likely:
        for pid, position, page in journal.scan("context_of_pages", msgspec.json.encode(likely).decode()):
            having[page].add(pid)
            having[page].update(fork for first, until, fork in forks.get(pid, ()) if first <= position < until)
    return {page: len(pids) for page, pids in having.items()}


def _shared(journal: Journal, page: str, processes: int, position: int) -> Shared:
    data = pages.read(journal, page)
    message = msgspec.json.decode(data, type=Message)
    return Shared(page, kind_of(position, message), processes, len(data), words_of(message))


def _bytes_of(journal: Journal, name: str) -> int:
    """Of a file of the home with its write-ahead log."""
    files = (journal.path.with_name(f"{name}{end}") for end in ("", "-wal"))
    return sum(file.stat().st_size for file in files if file.exists())
