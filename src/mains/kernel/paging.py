"""Paging: what leaves a frame before a model call, and what stands there instead. Operations.

    fit(tx, world, p, tokens)               room for the next call: what it is (`Room`)
    summed(tx, world, pid, hold, reply)     the summary that was asked for is here
    extracted(tx, world, p)                 no engine made it: an extract stands there instead

What is larger than `view_tokens_max` is shown with its beginning and its end from the start. Above the high mark
`eviction.plan` says what goes: results become stubs, old turns a summary, which is a model call of the process: its
frame up to there and one request behind it, so that the engine has read nearly all of it already. Everything stays in
the page store under its handle (`mem:N`), and `read` and `recall` join the tools of a program that has any. So do, when
something that the model was shown leaves, the granted tools of devices that have come since: what an engine has read of
the frame is of less use then anyway.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from mains.kernel import eviction, ledger, notes, pages, permits, stubs
from mains.kernel.birth import reserve_of
from mains.kernel.calls import counted, share_room
from mains.kernel.context import tokens_of, whole_text
from mains.kernel.cover import chain, window
from mains.kernel.event import Evicted, Placed
from mains.kernel.eviction import Entry, Misfit, Policy, Rates
from mains.kernel.pages import Place
from mains.kernel.ports import Finish, Message, Reply, Tool, Usage
from mains.kernel.process import Process, Stretch, replace
from mains.kernel.toolset import LOOKUPS, with_memory
from mains.kernel.tx import Tx
from mains.kernel.world import World

_decode = msgspec.json.Decoder(Message).decode
_decode_tools = msgspec.json.Decoder(tuple[Tool, ...]).decode
_encode = msgspec.json.Encoder(order="deterministic").encode
_VIEWS_PER_WINDOW = 8  # a first view takes at most so much of a small window
_LEAST = 4_096  # tokens: from here on a frame is looked at anew when it has grown by a tenth
_TOLD_MAX = 5
_LARGE = ("result", "message", "segment")  # a reply is what the model made itself
_MILLION = 1_000_000
_SHARED_PART = 4  # of a window, at most, for what is new in segments
_SEEN, _UNSEEN = Evicted(covers=(), tokens=0, frame=""), Evicted(covers=(), tokens=0, frame="", unseen=True)


class Room(msgspec.Struct, frozen=True):
    """What the next model call of `process` is: an ordinary one; or one that asks for a `summary`, for which the model
    is shown so many `tokens`; or none (`misfit` says why)."""

    process: Process
    summary: Stretch | None = None
    tokens: int = 0
    misfit: str = ""


class _Standing(msgspec.Struct, frozen=True):
    """A page of the frame with its message, and its entry in a plan."""

    place: Place
    message: Message
    entry: Entry


class _Change(msgspec.Struct, frozen=True):
    """These pages in place of positions; `tokens` of theirs."""

    first: int
    until: int
    pages: tuple[str, ...]
    tokens: int


def view(world: World, p: Process) -> int:
    """Tokens of a page that are shown when it joins the frame: of a larger one its beginning and its end."""
    return max(1, min(world.settings.view_tokens_max, window(world.settings, p) // _VIEWS_PER_WINDOW))


def shared_view(world: World, p: Process) -> int:
    """The same of a page of a segment: that is chosen to be in mind, and only a small frame shows it in part."""
    return max(1, window(world.settings, p) // _VIEWS_PER_WINDOW)


def shared_room(world: World, p: Process) -> int:
    """Tokens of what is new in segments that may join before the next call: a part of the window, and less when much
    else has joined since the last one, all of which has to be shown."""
    size = window(world.settings, p)
    return min(size // _SHARED_PART, size // 2 - (p.frame_tokens - p.whole_tokens))


def fit(tx: Tx, world: World, p: Process, joining_tokens: int) -> Room:
    """Make room for the next call of a READY process, to whose frame messages of so many tokens are added.

    Nothing is read while the frame is below its marks, has not grown by a tenth, and nothing large has joined it.
    """
    settings = world.settings
    if p.frame_tokens - p.whole_tokens > (most := view(world, p)):
        p = _shortened(tx, world, p, most)
    size = window(world.settings, p)
    marks = eviction.marks_of(size - joining_tokens, settings.frame_high_percent, settings.frame_low_percent)
    if p.frame_tokens <= marks.high and _step(p.frame_tokens) == _step(p.whole_tokens):
        return Room(p)
    frame = _frame(tx, p)
    policy = _policy(world, p)
    left = eviction.expected_turns(p.turn - p.idle_turn, settings.turns_max)
    planned = eviction.plan([each.entry for each in frame], marks, _rates(tx, world, p), left, policy)
    if isinstance(planned, Misfit):
        return Room(p, misfit=_told(frame, planned, p))
    if planned.summary is not None:
        kept = tuple(at for at in planned.summary.kept if not frame[at].entry.pinned)
        old = Stretch(planned.summary.first, planned.summary.until, kept)
        shown = sum(each.entry.tokens for each in frame if each.place.position < old.until)
        if shown + stubs.ASK_TOKENS <= size:
            return Room(p, summary=old, tokens=shown + stubs.ASK_TOKENS)
        return fit(tx, world, extracted(tx, world, p, old), joining_tokens)
    places = {each.place.position: each for each in frame}
    changes = [_stub(tx, frame, places[position], policy.stub_tokens) for position in planned.stubs]
    if not changes:
        return Room(p)
    p = _evicted(tx, world, p, frame, changes, _SEEN)
    return fit(tx, world, p, joining_tokens) if p.frame_tokens > marks.window else Room(p)


def _shortened(tx: Tx, world: World, p: Process, most: int) -> Process:
    """Let what has joined since the last model call stand with its beginning and end only, where it is too large: by
    itself, or with the others, for none of it can leave the frame before the model has answered."""
    frame = _frame(tx, p, max(0, p.whole_length - p.opening))
    views = {"segment": shared_view(world, p)}
    joined = [each for each in frame if each.entry.kind in _LARGE]
    sizes = [_shown(each, views.get(each.entry.kind, most)) for each in joined]
    others = sum(each.entry.tokens for each in frame) - sum(each.entry.tokens for each in joined)
    level = max(stubs.STUB_TOKENS, _level(sizes, (window(world.settings, p) - p.opening_tokens) // 2 - others))
    large = [(each, min(size, level)) for each, size in zip(joined, sizes, strict=True)]
    made = [(each, _stub(tx, frame, each, size)) for each, size in large if each.entry.tokens > size]
    changes = [change for each, change in made if change.tokens < each.entry.tokens]
    return _evicted(tx, world, p, frame, changes, _UNSEEN) if changes else p


def _level(sizes: Sequence[int], room: int) -> int:
    """How large each may be, so that they have `room` together."""
    for at, size in enumerate(sorted(sizes)):
        if size > (share := max(0, room) // (len(sizes) - at)):
            return share
        room -= size
    return max(sizes, default=0)


def taken(world: World, p: Process, sizes: Sequence[int]) -> int:
    """How many messages of these sizes are read at once: at least one, and as many as a quarter of a frame holds."""
    room = (window(world.settings, p) - p.opening_tokens) // 4
    for at, size in enumerate(sizes):
        room -= min(size, view(world, p))
        if at and room < 0:
            return at
    return len(sizes)


def summed(tx: Tx, world: World, pid: int, hold: int, reply: Reply) -> Process | None:
    """Record the summary that a process was asked for: it stands in place of what it sums up.

    Calls in it are not made. A reply without text, or that refuses, is answered by an extract.
    """
    p = tx.process(pid)
    if p is None or p.asking is None or p.asking.hold != hold or p.asking.summary is None:
        return None
    usage = counted(reply.usage) if reply.usage else None
    charged = ledger.post(tx, p.accounts, hold, usage)
    spent = usage or Usage(output_tokens=charged.tokens)
    event = Evicted(
        covers=(), tokens=0, frame="", hold=hold, posted=charged.tokens, input_tokens=spent.input_tokens,
        cached_tokens=spent.cached_tokens, output_tokens=spent.output_tokens, cost_nano=charged.nano,
    )  # fmt: skip
    text = "" if reply.finish is Finish.REFUSAL else whole_text(reply.text)
    p = _condensed(tx, world, p, p.asking.summary, text, event)
    share_room(tx, p.accounts)
    return p


def extracted(tx: Tx, world: World, p: Process, old: Stretch) -> Process:
    """Put an extract in place of old turns: no model can make the summary now, or what is shown for it does not fit."""
    return _condensed(tx, world, p, old, "", _SEEN)


def _condensed(tx: Tx, world: World, p: Process, old: Stretch, text: str, event: Evicted) -> Process:
    """One page, of this text or else an extract, in place of old turns; what stays of them stands before it."""
    first, until, frame = old.first, old.until, _frame(tx, p)
    most = _policy(world, p).summary_tokens
    within = {at: each for at, each in enumerate(frame) if first <= each.place.position < until}
    staying = [each for at, each in within.items() if each.entry.pinned or at in old.kept]
    if not text.strip():
        going = [each for at, each in within.items() if not each.entry.pinned and at not in old.kept]
        gone = [(each.place.position, each.message) for each in going]
        text = stubs.extract(gone, most // 2)
    message = stubs.shortened(stubs.summary(text, first, until), most)
    page = pages.put_message(tx, message)
    kept = sum(each.entry.tokens for each in staying)
    names = (*[each.place.page for each in staying], page)
    change = _Change(first, until, names, kept + tokens_of(message))
    return reminded(tx, world, _evicted(tx, world, p, frame, [change], event))


def reminded(tx: Tx, world: World, p: Process) -> Process:
    """Let the notes that a process sees stand in its opening as they are now. No call may be open."""
    most = min(world.settings.notes_tokens_max, window(world.settings, p) // _VIEWS_PER_WINDOW)
    return notes.remind(tx, p, most) if p.remembers and p.next is None else p  # an exec comes first, and reminds anew


def _evicted(
    tx: Tx, world: World, p: Process, frame: Sequence[_Standing], changes: Sequence[_Change], event: Evicted
) -> Process:
    """Write what leaves the frame, the `event` of it, which is completed, and the process that it leads to."""
    tx.many("cover_insert", [(p.pid, c.first, tx.seq + 1, c.until, " ".join(c.pages)) for c in changes])
    left = sum(e.entry.tokens for c in changes for e in frame if c.first <= e.place.position < c.until)
    more = sum(c.tokens for c in changes) - left
    tools, reserve = _tools_then(tx, world, p, 0 if event.unseen else p.frame_tokens + more)
    after = replace(p, covers=p.covers + 1, tools=tools or p.tools)
    return tx.happen(
        p,
        replace(
            event,
            covers=tuple(Placed(c.first, c.until, c.pages) for c in changes),
            tokens=more,
            frame=_hash(tx, after, unseen=event.unseen and not tools),
            unseen=event.unseen and not tools,
            tools=tools,
            reserve_tokens=reserve,
        ),
    )


def _hash(tx: Tx, after: Process, *, unseen: bool) -> str:
    """The hash of the frame of a process, which has changed: when no model was shown that, only what is new is read."""
    if unseen and after.whole_frame:
        new = pages.frame(tx.rows, after, max(0, after.whole_length - after.opening))
        return chain(after.whole_frame, [place.page for place in new])
    return pages.frame_hash(after, [place.page for place in pages.frame(tx.rows, after)])


def _tools_then(tx: Tx, world: World, p: Process, frame_tokens: int) -> tuple[str, int]:
    """The page of the tool list from now on, and what every frame carries then; empty: it is as it was.

    `read` and `recall` join, and tools that came late if a frame of so many tokens stays below the high mark beside
    them (0: none join). A program without tools gets none: its engine may know none, and would be shown what it cannot
    use.
    """
    tools = _decode_tools(pages.get(tx, p.tools))
    if not tools:
        return "", p.reserve_tokens
    program = world.program(pages.get(tx, p.program))
    lists = [with_memory(tools)]
    if frame_tokens and (late := permits.late_tools(tx, world, p)):
        lists.insert(0, tuple(sorted((*lists[0], *late), key=lambda tool: tool.name)))
    for more in lists:
        if more == tools:
            break
        data = _encode(more)
        reserve = reserve_of(data, program)
        room = window(world.settings, p) - (reserve - p.reserve_tokens)
        if more is lists[-1] or frame_tokens <= room * world.settings.frame_high_percent // 100:
            return pages.put(tx, "tools", data), reserve
    return "", p.reserve_tokens


def _frame(tx: Tx, p: Process, start: int = -1) -> list[_Standing]:
    found = []
    for place in pages.frame(tx.rows, p, start):
        message = _decode(place.data)
        kind = stubs.kind_of(place.position, message)
        entry = Entry(place.position, place.until, tokens_of(message), kind, message.role == "tool")
        found.append(_Standing(place, message, entry))
    return found


def _stub(tx: Tx, frame: Sequence[_Standing], each: _Standing, tokens: int) -> _Change:
    """A stub of about so many tokens in place of a page."""
    call = next((c for one in frame for c in one.message.calls if c.id == each.message.call_id), None)
    message = stubs.stub(each.message, each.place.position, call, tokens)
    return _Change(each.place.position, each.place.until, (pages.put_message(tx, message),), tokens_of(message))


def _shown(each: _Standing, most: int) -> int:
    """Tokens of a page that are shown when it joins."""
    return min(each.entry.tokens, most) if _is_shown_in_part(each) else each.entry.tokens


def _is_shown_in_part(each: _Standing) -> bool:
    """Whether of a large page only a part is shown. What was looked up is shown as it was asked for."""
    return each.entry.kind in _LARGE and not (each.message.role == "tool" and each.message.name in LOOKUPS)


def _step(tokens: int) -> int:
    """How often a frame has grown by a tenth."""
    return int(math.log(max(tokens, _LEAST), 1.1))


def _policy(world: World, p: Process) -> Policy:
    most = min(world.settings.summary_tokens_max, window(world.settings, p) // 4)
    return Policy(stub_tokens=min(stubs.STUB_TOKENS, view(world, p)), summary_tokens=most)


def _rates(tx: Tx, world: World, p: Process) -> Rates:
    """What tokens cost at the engine in use; where that is free or not known, ten to one for what was read before."""
    tariff = world.tariffs.find(p.engine, p.model, tx.now_ms)
    if tariff is None:
        return Rates()
    kinds = (Usage(_MILLION, _MILLION), Usage(_MILLION), Usage(output_tokens=_MILLION))
    cached, fresh, output = (tariff.cost_nano(usage, tx.now_ms) for usage in kinds)
    return Rates(cached, fresh, output) if fresh else Rates()


def _told(frame: Sequence[_Standing], misfit: Misfit, p: Process) -> str:
    """Why no frame can be made: the pages that must stay, with their sizes."""
    most = [frame[at] for at in misfit.staying[:_TOLD_MAX]]
    named = [f"{each.entry.kind} ({_where(each)}) {each.entry.tokens:,}" for each in most]
    more = f", {len(misfit.staying) - len(most)} more" if len(misfit.staying) > len(most) else ""
    return (
        f"its frame cannot fit: {misfit.tokens:,} tokens must stay and {misfit.window:,} fit, beside "
        f"{p.reserve_tokens:,} for tools and {p.output_tokens_max:,} for the answer; "
        f"the largest: {', '.join(named)}{more}"
    )


def _where(each: _Standing) -> str:
    return "the opening" if each.place.position < 0 else stubs.handle(each.place.position)
