"""The page table of a process as a person sees it: each page, what it is, and where it stands. A reader of the journal.

    table(journal, pid)     every page in order, and how the memory of the process did until now
    kind_of(message, ...)   what a page is, in a word

A page stands in the `frame`, is `pinned` there (the opening and rules are never evicted), or is `evicted`; what stands
in place of evicted pages follows them. Turns are counted along the context: a reply and the results of its calls belong
to its turn, a message to the turn that reads it first. A page was *used* in the last turn whose model saw it, or that
looked it up (a call of `read`, or text that came back and names its handle).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence

import msgspec

from mains.kernel import pages, views
from mains.kernel.context import tokens_of
from mains.kernel.cover import Cover, Span, grown, layout, owners
from mains.kernel.journal import Journal
from mains.kernel.ports import Message
from mains.kernel.process import Asking, Process
from mains.kernel.tx import Row

WORDS_MAX = 160  # characters of the beginning of a page
_LAST = 2**62  # above every event
_HANDLE = re.compile(r"\bmem:(\d{1,9})\b")
_LOOKUPS = ("recall", "read")
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
    window_tokens: int  # 0: not known
    high_tokens: int  # above this something is evicted; 0: there is no mark
    low_tokens: int  # until no more than this is left
    resident: int  # pages in the frame
    pinned: int  # of those
    standing: int  # of those: what stands in place of others
    evicted: int
    evictions: int  # times
    faults: Faults
    calls: int  # of a model, without those that were asked for a summary
    stable: int  # of the calls but the first, those whose frame began with the whole frame before
    input_tokens: int
    cached_tokens: int
    pages: list[Entry]


def table(journal: Journal, pid: int) -> PageTable:
    """See the module's header. Raises NotFoundError."""
    with journal.snapshot():
        p = views.present(journal, pid)
        told = list(_told(journal, p))
        asks, calls, stable = _asks(journal, p, told)
        entries = list(_entries(journal, p, told, asks))
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
        window_tokens=p.context_tokens,
        high_tokens=0,
        low_tokens=0,
        resident=len(where) - where.count("evicted"),
        pinned=where.count("pinned"),
        standing=sum(each.position >= 0 and not each.handle for each in entries),
        evicted=where.count("evicted"),
        evictions=p.covers,
        faults=Faults(
            names.count("recall"),
            names.count("read"),
            sum(each.message.kind == "recall" and each.message.role != "tool" for each in told),
        ),
        calls=calls,
        stable=stable,
        input_tokens=p.input_tokens,
        cached_tokens=p.cached_tokens,
        pages=entries,
    )


def kind_of(message: Message, position: int) -> str:
    """What a page of a context is; its position says whether the program made it (below 0)."""
    if message.kind:
        return message.kind
    match message.role:
        case "system":
            return "program"
        case "user":
            return "input" if position < 0 else "message"
        case "assistant":
            return "reply"
        case "tool":
            return "result"


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


_asked = msgspec.json.Decoder(_Asked).decode


def _asks(journal: Journal, p: Process, told: Sequence[_Page]) -> tuple[list[tuple[int, int]], int, int]:
    """The turns that a model was asked in, as (event, turn), those of whose pages it has included; and of its own
    calls: how many there were, and how many of them began with the whole frame before."""
    replies = [0]
    for each in told[p.opening :]:
        replies.append(replies[-1] + (each.message.role == "assistant"))
    asks: list[tuple[int, int]] = []
    start = 0
    for source in p.maps:
        asks += _asked_in(journal.rows("event_frames", source.pid, source.seq), replies[start])[0]
        start = source.until
    rows = journal.rows("event_frames", p.pid, _LAST)
    own, stable = _asked_in(rows, p.turn - sum(kind == "replied" for _, kind, _ in rows))
    return asks + own, len(own), stable


def _asked_in(rows: Sequence[Row], turn: int) -> tuple[list[tuple[int, int]], int]:
    """The turns that were asked in, after so many of them; how many of the calls but the first began with the whole
    frame before."""
    asks: list[tuple[int, int]] = []
    stable, broken = 0, True
    for at, kind, body in rows:
        if kind == "replied":
            turn += 1
        elif kind != "asked":
            broken = True
        elif _asked(body).asking.summary is None:
            asks.append((at, turn + 1))
            stable += not broken
            broken = False
    return asks, stable


def _entries(journal: Journal, p: Process, told: Sequence[_Page], asks: Sequence[tuple[int, int]]) -> Iterator[Entry]:
    """The pages in order: those in the frame and those that are not, and after these what stands for them."""
    looked, covers = _looked_up(told), pages.covers_of(journal.rows, p)
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
        kept = set(part.pages) if isinstance(part, Cover) else set()
        for each in grew[part.first : part.until]:
            pinned = each.message.kind == "rule"
            if isinstance(part, Span) or (pinned and each.page in kept):
                yield entry(each, "pinned" if pinned else "frame")
                kept.discard(each.page)
            else:
                yield entry(each, "evicted", gone[each.position])
        if isinstance(part, Cover):
            after = bisect_right(seqs, part.seq)
            turn = asks[after][1] if after < len(asks) else p.turn + 1
            for page in (page for page in part.pages if page in kept):
                data = pages.read(journal, page)
                standing = _Page(part.first, page, len(data), _decode(data), turn, turn)
                where = "pinned" if standing.message.kind == "rule" else "frame"
                yield _entry(standing, where, part.until, seen(turn, _LAST), standing=True)


def _entry(each: _Page, where: str, until: int, used: int, *, standing: bool = False) -> Entry:
    message = each.message
    return Entry(
        position=each.position,
        until=until,
        handle="" if standing or each.position < 0 else f"mem:{each.position}",
        kind=kind_of(message, each.position),
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
        texts = [call.arguments for call in message.calls if call.name in _LOOKUPS]
        if message.kind == "recall" or (message.role == "tool" and message.name in _LOOKUPS):
            texts.append(message.text)
        for text in texts:
            found |= {int(position): each.turn for position in _HANDLE.findall(text)}
    return found
