"""Shared segments: ranges of pages that many processes map: a team's brief, a code base's map. Operations, and readers.

    make(tx, ...)                 a segment, read-only (its content is given now) or append-only
    extend(tx, ...)               a person appends to it
    append(tx, ...)               a process does, which was granted it
    remove(tx, name)              it is gone, unless a live process maps it
    numbers(tx, accounts, names)  the segments that somebody may map, by name
    due(tx, p, ...)               what a process has not read yet

    spaces, documents, text       for `recall` and `read`
    told(rows, ...)               pages with who appended them
    verify(journal)               the tables against their events

A segment belongs to an account, and may be mapped and appended to by processes of that account and of all below it; to
any other process it is not there. Its pages are numbered 0, 1, 2 ... in the order of their commits, which is the one
order for everybody. They never change and are stored once, as those who map it read them (`segment.py`): a page that
joins a context is named there, not copied.

The events of segment N are journalled under the number -N, which no process has: so its pages are named as long as
those are, and `retention` erases them like those of a process that was removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from mains.errors import JournalError, LimitError, NotFoundError, SyscallError, UsageError
from mains.kernel import accounts, pages, segment
from mains.kernel.context import tokens_of
from mains.kernel.event import AnyEvent, Appended, SegmentMade, SegmentRemoved
from mains.kernel.journal import Journal
from mains.kernel.pages import Rows
from mains.kernel.ports import Message
from mains.kernel.process import Mapped, Process
from mains.kernel.tx import Row, Tx, decode_event
from mains.program import SEGMENT_RULE, is_segment
from mains.settings import Settings

_LAST = "segment_last"  # counter: the last number that was given
_TOLD_MAX = 5
_decode = msgspec.json.Decoder(Message).decode


class Shared(NamedTuple):
    """A segment as it stands."""

    id: int
    name: str
    account: int
    append_only: int
    pages: int
    bytes: int


class Due(NamedTuple):
    """What joins a context: pages, their tokens, and up to where each segment is read with them (not with that)."""

    pages: tuple[str, ...] = ()
    tokens: int = 0
    segments: tuple[tuple[int, int], ...] = ()
    untrusted: str = ""  # what of it another process wrote


def make(tx: Tx, settings: Settings, name: str, account: str, texts: Sequence[str], *, append_only: bool) -> Shared:
    """Make a segment with these pages. Raises UsageError, NotFoundError, LimitError."""
    if not is_segment(name):
        raise UsageError(f"`{name}` is no name for a segment", hint=SEGMENT_RULE)
    if tx.one("segment_by_name", name):
        raise UsageError(f"there is a segment `{name}` already", hint=f"`mains segment show {name}` shows it")
    if not texts and not append_only:
        hint = "give --file or --text; or --append-only, to append to it later"
        raise UsageError(f"segment {name} would be empty for ever: it is read-only", hint=hint)
    [count] = tx.one("segment_count") or (0,)
    if count >= settings.segments_max:
        raise LimitError(f"there are {count:,} segments already (segments_max)")
    owner = accounts.named(tx, account or "home")
    if "/" in owner.name:
        raise UsageError(f"account {owner.name} is a program's: a segment belongs to one above it")
    number = int((tx.one("counter_get", _LAST) or (0,))[0]) + 1
    tx.run("counter_put", _LAST, number)
    tx.run("segment_insert", number, name, owner.account, int(append_only))
    tx.append(-number, SegmentMade(name=name, account=owner.account, append_only=append_only))
    made = Shared(number, name, owner.account, int(append_only), 0, 0)
    return _grow(tx, settings, made, texts)


def extend(tx: Tx, settings: Settings, name: str, texts: Sequence[str]) -> Shared:
    """Append pages, as a person. Raises NotFoundError, UsageError, LimitError."""
    found = named(tx.rows, name)
    if not found.append_only:
        raise UsageError(f"segment {name} is read-only: its content was given when it was made")
    if not texts:
        raise UsageError("there is nothing to append", hint="give --file or --text")
    return _grow(tx, settings, found, texts)


def append(tx: Tx, settings: Settings, p: Process, granted: Sequence[str], name: str, text: str) -> str:
    """Append a page, as a process that was granted these segments; where it stands. Raises SyscallError."""
    row = tx.one("segment_by_name", name)
    found = Shared(*row) if row else None
    if name not in granted:
        raise SyscallError(f"append: segment `{name}` is not granted (granted: {', '.join(granted) or 'none'})")
    if found is None or found.account not in p.accounts:
        raise SyscallError(f"append: there is no segment `{name}`")
    if not found.append_only:
        raise SyscallError(f"append: segment `{name}` is read-only")
    size = len(text.encode())
    if not text.strip():
        raise SyscallError("append: the text is empty")
    if size > settings.segment_page_bytes_max:
        most = f"{settings.segment_page_bytes_max:,} at most (segment_page_bytes_max)"
        raise SyscallError(f"append: {size:,} bytes; a page has {most}: append parts")
    if found.pages >= settings.segment_pages_max:
        raise SyscallError(f"append: segment `{name}` is full: {found.pages:,} pages (segment_pages_max)")
    author = Appended(number=0, page="", bytes=0, process=p.pid, program=p.name, account=p.account)
    _grow(tx, settings, found, [text], author)
    return f"appended: {segment.handle(name, found.pages)}"


def _grow(tx: Tx, settings: Settings, found: Shared, texts: Sequence[str], author: Appended | None = None) -> Shared:
    if found.pages + len(texts) > settings.segment_pages_max:
        told = f"segment {found.name} would have {found.pages + len(texts):,} pages"
        raise LimitError(f"{told}, of {settings.segment_pages_max:,} at most (segment_pages_max)")
    by = author or Appended(number=0, page="", bytes=0)
    who = f"process {by.process} ({by.program})" if by.process else ""
    for number, text in enumerate(texts, found.pages):
        page, size = pages.put_message(tx, segment.message(found.name, number, text, who)), len(text.encode())
        tx.append(-found.id, msgspec.structs.replace(by, number=number, page=page, bytes=size))
        tx.run("segment_page_insert", found.id, number, page, tx.seq)
        tx.run("segment_grow", size, found.id)
        found = found._replace(pages=number + 1, bytes=found.bytes + size)
    return found


def remove(tx: Tx, name: str) -> Shared:
    """Remove a segment; `retention.erase` erases it then. Contexts keep the pages that they have read.

    Raises NotFoundError, UsageError (a live process maps it).
    """
    found = named(tx.rows, name)
    pids = mappers(tx.rows, found.id)
    if pids:
        more = f" and {len(pids) - _TOLD_MAX} more" if len(pids) > _TOLD_MAX else ""
        told = f"process {', '.join(map(str, pids[:_TOLD_MAX]))}{more}"
        raise UsageError(f"segment {name} is mapped by {told}", hint="end them first: `mains kill PID`")
    tx.run("segment_pages_delete", found.id)
    tx.run("segment_delete", found.id)
    tx.run("removed_insert", -found.id)
    tx.append(0, SegmentRemoved(segment=found.id, name=name, pages=found.pages))
    return found


def named(rows: Rows, name: str) -> Shared:
    """The segment of this name. Raises NotFoundError."""
    for row in rows("segment_by_name", name):
        return Shared(*row)
    raise NotFoundError(f"there is no segment `{name}`", hint="`mains segment ls` lists them")


def mappers(rows: Rows, number: int) -> list[int]:
    """The live processes that map a segment, or will with the program that is planned. It reads all that map any."""
    found = []
    for (body,) in rows("segment_mappers", b'"segments":'):
        p = msgspec.json.decode(body, type=_Maps)
        own = any(each.segment == number and each.live for each in p.segments)
        if own or (p.next is not None and number in p.next.segments):
            found.append(p.pid)
    return found


class _NextMaps(msgspec.Struct):
    segments: tuple[int, ...] = ()


class _Maps(msgspec.Struct):
    """What of a process's record says what it maps."""

    pid: int
    segments: tuple[Mapped, ...] = ()
    next: _NextMaps | None = None


# what processes map


def numbers(tx: Tx, chain: Sequence[int], names: Iterable[str]) -> tuple[int, ...]:
    """The numbers of segments that a process may map which spends from these accounts. Raises NotFoundError."""
    found = []
    for name in names:
        shared = named(tx.rows, name)
        if shared.account not in chain:  # a stranger's is not there
            raise NotFoundError(f"there is no segment `{name}`", hint="`mains segment ls` lists them")
        found.append(shared.id)
    return tuple(found)


def mapped(program: Sequence[int], own: Sequence[int]) -> tuple[Mapped, ...]:
    """What a new process maps: the segments of its program, and those that whoever runs it names."""
    return tuple(Mapped(each, own=each in own, program=each in program) for each in dict.fromkeys((*program, *own)))


def due(tx: Tx, p: Process, settings: Settings, room_tokens: int, view_tokens: int) -> Due:
    """The pages that a process has not read of the segments that it maps, in their order, as of this transaction.

    Of all segments together at most `segment_turn_pages_max` pages, and as many tokens as there is room for (a page
    counts with `view_tokens` at most: more of it is not shown), but one page if there is any room.
    """
    names: list[str] = []
    upto: list[tuple[int, int]] = []
    tokens = shown = 0
    untrusted = ""
    room = min(room_tokens, settings.segment_turn_tokens_max)
    for each in p.segments:
        if not each.live or len(names) >= settings.segment_turn_pages_max or shown >= room:
            continue
        row = tx.one("segment_get", each.segment)
        if row is None or Shared(*row).pages <= each.until:
            continue
        until = each.until
        for number, page, data in tx.rows(
            "segment_pages", each.segment, until, settings.segment_turn_pages_max - len(names)
        ):
            message = _decode(data)
            size, author = tokens_of(message), segment.author_of(message)
            if names and shown + min(size, view_tokens) > room:
                shown = room  # the rest comes with the next turns
                break
            names.append(page)
            if author and not author.startswith(f"process {p.pid} ("):
                untrusted = untrusted or f"{message.name}, which {author} appended"
            tokens, shown, until = tokens + size, shown + min(size, view_tokens), number + 1
        if until > each.until:
            upto.append((each.segment, until))
    return Due(tuple(names), tokens, tuple(upto), untrusted)


# readers, for `recall` and `read`


def spaces(rows: Rows, p: Process) -> list[tuple[str, int, str]]:
    """What a process may search of segments: (space, the first position that it has not read, the name)."""
    read = [each for each in p.segments if each.until]
    found = [(each, Shared(*row)) for each in read for row in rows("segment_get", each.segment)]
    return [(f"s{shared.id}", each.until, shared.name) for each, shared in found]


def documents(rows: Rows, number: int, start: int, most: int) -> list[tuple[int, str, str]]:
    """(position, page, text) of at most `most` pages of a segment from `start` on."""
    found = rows("segment_pages", number, max(0, start), most)
    return [(position, page, segment.text_of(_decode(data))) for position, page, data in found]


def text(rows: Rows, p: Process, handle: str) -> str | None:
    """What a process has read of a segment: all for `segment:NAME`, one page for `segment:NAME/N`. None: nothing."""
    name, _, page = handle.removeprefix("segment:").partition("/")
    if not handle.startswith("segment:") or (page and not (page.isascii() and page.isdecimal() and len(page) < 10)):
        return None
    for space, until, known in spaces(rows, p):
        if known == name:
            start, most = (int(page), min(1, max(0, until - int(page)))) if page else (0, until)
            found = documents(rows, int(space[1:]), start, most)
            return "".join(said for _, _, said in found) if found else None
    return None


def told(rows: Rows, number: int, start: int, most: int) -> list[tuple[str, int, Appended]]:
    """Of pages of a segment from `start` on: the text, when it was appended (ms since 1970), and by whom."""
    found = []
    for _, _, data, at_ms, body in rows("segment_told", number, start, most):
        event = decode_event(body)
        assert isinstance(event, Appended)
        found.append((segment.text_of(_decode(data)), at_ms, event))
    return found


# the audit


def verify(journal: Journal) -> list[str]:
    """Where the tables of segments are not the fold of their events. Those that are being erased are left out."""
    gone = {pid for (pid,) in journal.rows("removed_all") if pid < 0}
    folded, faults = _Folded(), []
    for seq, pid, body in journal.scan("event_of_segments"):
        if pid in gone:
            continue
        try:
            folded.apply(seq, -pid, decode_event(body))
        except JournalError as error:
            faults.append(f"event {seq}: {error}")
    stored = sorted(Shared(*row) for row in journal.rows("segment_all"))
    if stored != sorted(folded.segments.values()):
        faults.append("segment: the table is not what the events made")
    if list(journal.scan("segment_page_scan")) != sorted(folded.pages):
        faults.append("segment_page: the table is not what the events made")
    return faults


class _Folded:
    """The segments as their events make them."""

    def __init__(self) -> None:
        self.segments: dict[int, Shared] = {}
        self.pages: list[Row] = []

    def apply(self, seq: int, number: int, event: AnyEvent) -> None:
        """Raises JournalError for what cannot follow."""
        known = self.segments.get(number)
        if isinstance(event, SegmentMade) and known is None:
            self.segments[number] = Shared(number, event.name, event.account, int(event.append_only), 0, 0)
        elif isinstance(event, Appended) and known is not None and event.number == known.pages:
            self.pages.append((number, event.number, event.page, seq))
            self.segments[number] = known._replace(pages=known.pages + 1, bytes=known.bytes + event.bytes)
        else:
            raise JournalError(f"{type(event).__name__} cannot happen to segment {number}")
