"""The memory of a whole home: what its pages weigh, and how much is stored once for many. A reader of the journal.

    memory(journal)     of one moment

A page is *shared* when several processes have it in their contexts: a fork has what it maps of its source. The ratio
says how many times more the contexts would weigh if each process had its pages for itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import msgspec

from mains.kernel import pages
from mains.kernel.cover import owners
from mains.kernel.journal import Journal
from mains.kernel.pagetable import kind_of, words_of
from mains.kernel.ports import Message
from mains.kernel.process import Map
from mains.kernel.tx import decode_process

INDEX_FILE = "memory.db"
"""The search index, beside the home's database (it may be missing: it is made when it is first needed)."""

_MOST = 10  # of each list


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
    entry_bytes: int  # of those, each counted for each process
    stored_bytes: int  # of those, each counted once
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
        mapped, frames, contexts = _of_processes(journal)
        names: dict[str, int] = {}
        opening = set()
        for page, uses, position in journal.scan("context_uses"):
            names[page] = uses
            if position < 0:
                opening.add(page)
        for page, more in _mapped(journal, mapped):
            names[page] = names.get(page, 0) + more
        sizes: dict[str, int] = dict(journal.rows("page_sizes"))
        most = sorted(names, key=lambda page: (-names[page], -sizes.get(page, 0), page))[:_MOST]
        shared = [_shared(journal, page, names[page], -1 if page in opening else 0) for page in most if names[page] > 1]
        entry_bytes = sum(sizes.get(page, 0) * uses for page, uses in names.items())
        stored_bytes = sum(sizes.get(page, 0) for page in names)
        return Memory(
            pages=Held(sum(each.pages for each in kinds.values()), sum(each.bytes for each in kinds.values())),
            kinds=kinds,
            contexts=contexts,
            entries=sum(names.values()),
            entry_bytes=entry_bytes,
            stored_bytes=stored_bytes,
            ratio=round(entry_bytes / stored_bytes, 4) if stored_bytes else 1.0,
            covers=journal.rows("cover_count")[0][0],
            database_bytes=_bytes_of(journal, journal.path.name),
            index_bytes=_bytes_of(journal, INDEX_FILE),
            shared=shared,
            frames=frames,
        )


def _of_processes(journal: Journal) -> tuple[Counter[tuple[int, int, int]], list[Large], int]:
    """How many forks map which positions of whom; the largest frames; how many contexts there are."""
    mapped: Counter[tuple[int, int, int]] = Counter()
    large: list[Large] = []
    contexts = 0
    for (body,) in journal.scan("process_all"):
        p = decode_process(body)
        contexts += 1
        if p.maps:
            _count(mapped, p.maps)
        if len(large) < _MOST or p.frame_tokens > large[-1].frame_tokens:
            large.append(Large(p.pid, p.name, p.state.value, p.frame_tokens, p.context_tokens, p.length))
            large = sorted(large, key=lambda each: -each.frame_tokens)[:_MOST]
    return mapped, large, contexts


def _count(mapped: Counter[tuple[int, int, int]], maps: tuple[Map, ...]) -> None:
    mapped.update(owners(0, maps, 0, maps[-1].until))


def _mapped(journal: Journal, mapped: Counter[tuple[int, int, int]]) -> Iterator[tuple[str, int]]:
    """Each page that forks map, and by how many. The rows of a source are read once, however many forks it has."""
    sources: dict[int, Counter[int]] = {}
    for (pid, first, until), forks in mapped.items():
        steps = sources.setdefault(pid, Counter())
        steps[first] += forks
        steps[until] -= forks
    for pid, steps in sources.items():
        more = 0
        for position, page in journal.scan("context_names", pid, min(steps), max(steps)):
            more += steps.pop(position, 0)
            if more:
                yield page, more


def _shared(journal: Journal, page: str, processes: int, position: int) -> Shared:
    data = pages.read(journal, page)
    message = msgspec.json.decode(data, type=Message)
    return Shared(page, kind_of(message, position), processes, len(data), words_of(message))


def _bytes_of(journal: Journal, name: str) -> int:
    """Of a file of the home with its write-ahead log."""
    files = (journal.path.with_name(f"{name}{end}") for end in ("", "-wal"))
    return sum(file.stat().st_size for file in files if file.exists())
