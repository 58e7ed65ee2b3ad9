"""The page table of a process as a person sees it: each page, what it is, and where it stands. A reader of the journal.

    table(journal, settings, pid)     every page in order, and how the memory of the process did until now

A page stands in the `frame`, is `pinned` there (the opening, rules and notes are never evicted), or is `evicted`; what
stands in place of evicted pages follows them. Turns are counted along the context: a reply and the results of its calls
belong to its turn, a message to the turn that reads it first. A page was *used* in the last turn whose model saw it, or
that looked it up (a call of `read`, or text that came back and names its handle).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence

import msgspec

from mains.kernel import eviction, pages, views
from mains.kernel.context import tokens_of
from mains.kernel.cover import Cover, Span, grown, layout, owners, window
from mains.kernel.journal import Journal
from mains.kernel.ports import Message
from mains.kernel.process import Asking, Process
from mains.kernel.stubs import kind_of
from mains.kernel.toolset import LOOKUPS
from mains.kernel.tx import Row
from mains.settings import Settings

WORDS_MAX = 160  # characters of the beginning of a page
_LAST = 2**62  # above every event
_HANDLE = re.compile(r"\bmem:(\d{1,9})\b")
_decode = msgspec.json.Decoder(Message).decode


class Entry(msgspec.Struct, frozen=True):
    """A page of a context. Turns of 0: the opening's, or never.

    `handle` is empty for the opening, and for what stands in place of the positions from `position` to below `until`.
    """

    position: int
    until: int
    handle: str
    kind: str
    where: str
    role: str
    name: str
    tokens: int  # an estimate
    bytes: int
    turn: int  # of origin
    used: int  # turn
    page: str
    words: str  # how it begins


class Faults(msgspec.Struct, frozen=True):
    """How often something was looked up again: calls of `recall` and `read`, and pages that came unasked."""

    recall: int
    read: int
    prefetched: int


class PageTable(msgspec.Struct, frozen=True, kw_only=True):
    """The memory of a process. Tokens in the frame are an estimate; those of calls are what engines counted."""

    pid: int
    program: str
    state: str
    reason: str
    turns: int
    frame: str  # the frame's hash; empty: not known
    frame_tokens: int  # of the messages
    reserve_tokens: int  # of the tool list and the output's schema
    answer_tokens: int  # that an answer may have
    context_tokens: int  # of the engine; 0: not known
    window_tokens: int  # that messages may have, beside tools and answer
    high_tokens: int  # above this something is evicted
    low_tokens: int  # until no more than this is left
    resident: int  # pages in the frame
    pinned: int  # of those
    standing: int  # of those: what stands in place of others
    evicted: int
    evictions: int  # times that something the model had seen left the frame
    parts: int  # times that something new was shown in part only
    faults: Faults
    calls: int  # of a model, without those that were asked for a summary
    stable: int  # of the calls but the first, those whose frame began with the whole frame before
    input_tokens: int
    cached_tokens: int
    pages: list[Entry]


def table(journal: Journal, settings: Settings, pid: int) -> PageTable:
    """See the module's header. Raises NotFoundError."""
    with journal.snapshot():
        p = views.present(journal, pid)
        told = list(_told(journal, p))
        asks, own = _asks(journal, p, told)
        entries = list(_entries(journal, p, told, asks))
    room = window(settings, p)
    marks = eviction.marks_of(room, settings.frame_high_percent, settings.frame_low_percent)
    where = [each.where for each in entries]
    names = [call.name for each in told for call in each.message.calls]
    return PageTable(
        pid=pid,
        program=p.name,
        state=p.state.value,
        reason=views.reason_of(p),
        turns=p.turn,
        frame=p.frame,
        frame_tokens=p.frame_tokens,
        reserve_tokens=p.reserve_tokens,
        answer_tokens=p.output_tokens_max,
        context_tokens=p.context_tokens,
        window_tokens=room,
        high_tokens=marks.high,
        low_tokens=marks.low,
        resident=len(where) - where.count("evicted"),
        pinned=where.count("pinned"),
        standing=sum(each.position >= 0 and not each.handle for each in entries),
        evicted=where.count("evicted"),
        evictions=own.evictions,
        parts=own.parts,
        faults=Faults(
            names.count("recall"),
            names.count("read"),
            sum(each.message.kind == "recall" and each.message.role != "tool" for each in told),
        ),
        calls=len(own.asks),
        stable=own.stable,
        input_tokens=p.input_tokens,
        cached_tokens=p.cached_tokens,
        pages=entries,
    )


def words_of(message: Message) -> str:
    """How a page begins, on one line."""
    calls = "; ".join(f"{call.name} {call.arguments}" for call in message.calls)
    text = f"{message.text[: 2 * WORDS_MAX]} {calls[: 2 * WORDS_MAX]}"
    return " ".join(text.split())[:WORDS_MAX]


class _Page(msgspec.Struct, frozen=True):
    """A page as it was said: `turn` of origin, and the first turn whose model could see it."""

    position: int
    page: str
    bytes: int
    message: Message
    turn: int
    first: int


def _told(journal: Journal, p: Process) -> Iterator[_Page]:
    """The whole context, whatever was evicted."""
    turn = 0
    for owner in [(p.pid, -p.opening, 0), *owners(p.pid, p.maps, 0, grown(p))]:
        for position, page, data in journal.scan("context_span", *owner):
            message = _decode(data)
            turn += message.role == "assistant"
            if position < 0:
                yield _Page(position, page, len(data), message, 0, 1)
            elif message.role in ("assistant", "tool"):
                yield _Page(position, page, len(data), message, turn, turn + 1)
            else:
                yield _Page(position, page, len(data), message, turn + 1, turn + 1)


class _Asked(msgspec.Struct, frozen=True):
    asking: Asking


class _Evicted(msgspec.Struct, frozen=True):
    unseen: bool = False


_asked = msgspec.json.Decoder(_Asked).decode
_evicted = msgspec.json.Decoder(_Evicted).decode


class _Course(msgspec.Struct):
    """What the events of one process say of its frames: the turns that were asked in, as (event, turn); how many of
    these calls but the first began with the whole frame before; and how often something left the frame."""

    asks: list[tuple[int, int]]
    stable: int = 0
    evictions: int = 0
    parts: int = 0


def _asks(journal: Journal, p: Process, told: Sequence[_Page]) -> tuple[list[tuple[int, int]], _Course]:
    """The turns that a model was asked in, those of whose pages it has included; and the course of its own events."""
    replies = [0]
    for each in told[p.opening :]:
        replies.append(replies[-1] + (each.message.role == "assistant"))
    asks: list[tuple[int, int]] = []
    start = 0
    for source in p.maps:
        asks += _course(journal.rows("event_frames", source.pid, source.seq), replies[start]).asks
        start = source.until
    rows = journal.rows("event_frames", p.pid, _LAST)
    own = _course(rows, p.turn - sum(kind == "replied" for _, kind, _ in rows))
    return asks + own.asks, own


def _course(rows: Sequence[Row], turn: int) -> _Course:
    """The course of events that begins after so many turns."""
    found = _Course([])
    broken = True
    for seq, kind, body in rows:
        match kind:
            case "replied":
                turn += 1
            case "execed":
                broken = True
            case "evicted" if _evicted(body).unseen:
                found.parts += 1
            case "evicted":
                found.evictions += 1
                broken = True
            case _ if _asked(body).asking.summary is None:
                found.asks.append((seq, turn + 1))
                found.stable += not broken
                broken = False
    return found


def _entries(journal: Journal, p: Process, told: Sequence[_Page], asks: Sequence[tuple[int, int]]) -> Iterator[Entry]:
    """The pages in order: those in the frame and those that are not, and after these what stands for them."""
    looked, covers = _looked_up(told), pages.every_cover(journal.rows, p)
    gone: dict[int, int] = {}  # when a position left the frame
    for cover in covers:
        gone = dict.fromkeys(range(cover.first, cover.until), cover.seq) | gone
    seqs = [seq for seq, _ in asks]

    def seen(first: int, until_seq: int) -> int:
        """The last turn that was asked in before an event, if it was not before turn `first`."""
        at = bisect_right(seqs, until_seq)
        return asks[at - 1][1] if at and asks[at - 1][1] >= first else 0

    def entry(each: _Page, where: str, since: int = _LAST) -> Entry:
        used = max(seen(each.first, since), looked.get(each.position, 0))
        return _entry(each, where, each.position + 1, used)

    opening, grew = told[: p.opening], told[p.opening :]
    yield from (entry(each, "pinned") for each in opening)
    for part in layout(covers, grown(p)):
        within = grew[part.first : part.until]
        staying, standing = _split(within, part)
        for each in within:
            if each.position in staying:
                yield entry(each, _place(each.message))
            else:
                yield entry(each, "evicted", gone[each.position])
        if isinstance(part, Cover):
            after = bisect_right(seqs, part.seq)
            turn = asks[after][1] if after < len(asks) else p.turn + 1
            for page in standing:
                data = pages.read(journal, page)
                stands = _Page(part.first, page, len(data), _decode(data), turn, turn)
                yield _entry(stands, _place(stands.message), part.until, seen(turn, _LAST), standing=True)


def _split(within: Sequence[_Page], part: Span | Cover) -> tuple[set[int], list[str]]:
    """The positions of a part that stand in the frame as they are, and the pages that stand there for the others. Of
    pages with the same name the last one stays: what was said last."""
    if isinstance(part, Span):
        return {each.position for each in within}, []
    places = {each.page: each.position for each in within}
    return {places[page] for page in part.pages if page in places}, [page for page in part.pages if page not in places]


def _place(message: Message) -> str:
    """Where a page stands that stands in the frame."""
    return "pinned" if message.kind in eviction.PINNED and message.role != "tool" else "frame"


def _entry(each: _Page, where: str, until: int, used: int, *, standing: bool = False) -> Entry:
    message = each.message
    return Entry(
        position=each.position,
        until=until,
        handle="" if standing or each.position < 0 else f"mem:{each.position}",
        kind=kind_of(each.position, message),
        where=where,
        role=message.role,
        name=message.name,
        tokens=tokens_of(message),
        bytes=each.bytes,
        turn=each.turn,
        used=used,
        page=each.page,
        words=words_of(message),
    )


def _looked_up(told: Sequence[_Page]) -> dict[int, int]:
    """When a position was last looked up: position -> turn."""
    found: dict[int, int] = {}
    for each in told:
        message = each.message
        texts = [call.arguments for call in message.calls if call.name in LOOKUPS]
        if message.kind == "recall" or (message.role == "tool" and message.name in LOOKUPS):
            texts.append(message.text)
        for text in texts:
            found |= {int(position): each.turn for position in _HANDLE.findall(text)}
    return found
