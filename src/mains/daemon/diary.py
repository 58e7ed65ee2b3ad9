"""The diary of a process: its journalled events in words, with the text of the messages they name. Readers only.

    entries(journal, pid, after_seq, most)    oldest first

An event names its messages by page; here each is looked up, so that a person reads what was said.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from mains.errors import NotFoundError
from mains.kernel import event as ev
from mains.kernel import inquired as inq
from mains.kernel import pages
from mains.kernel.journal import Journal
from mains.kernel.ports import Message
from mains.kernel.tx import decode_event
from mains.kernel.views import stamp

TEXT_BYTES_MAX = 64 * 1024
_PLACES_MAX = 5
PageOf = Callable[[str], str]


class Entry(msgspec.Struct, frozen=True):
    """One event: a short `line`, and the `text` that came with it (may be long, may be empty)."""

    seq: int
    at: str
    pid: int
    kind: str
    line: str
    text: str = ""


def entries(journal: Journal, pid: int, after_seq: int, most: int) -> list[Entry]:
    """The events of a process after `after_seq`, at most `most`."""

    def text_of(page: str) -> str:
        return _text_of(journal, page)

    found = []
    for seq, at_ms, of, kind, body in journal.rows("event_of", pid, after_seq, most):
        line, text = tell(decode_event(body), text_of)
        cut = text.encode()[:TEXT_BYTES_MAX].decode(errors="ignore")
        found.append(Entry(seq, stamp(at_ms), of, kind, line, cut))
    return found


def _text_of(journal: Journal, page: str) -> str:
    """The text of a page: of a message, its text and calls; of a result, all of it."""
    try:
        data = pages.read(journal, page)
    except NotFoundError:
        return "(erased)"
    try:
        message = msgspec.json.decode(data, type=Message)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return data.decode(errors="replace")
    calls = [f"{call.name}({call.arguments})" for call in message.calls]
    return "\n".join(filter(None, [message.text, *calls]))


def tell(event: ev.AnyEvent, text_of: PageOf) -> tuple[str, str]:
    """An event as a line and a text."""
    match event:
        case ev.Spawned() | ev.Sent() | ev.Exited():
            return _tell_life(event, text_of)
        case ev.Asked() | ev.Replied() | ev.AskFailed() | ev.Refused() | ev.Evicted() | ev.Joined():
            return _tell_model(event, text_of)
        case ev.Rerouted(engine=engine, reason=reason):
            return f"goes to the engine {engine}{f', because of: {reason}' if reason else ' again'}", ""
        case ev.Called(calls=calls):
            return f"calls {', '.join(calls)}", ""
        case ev.Returned(call=call, page=page):
            return f"result of {call}", text_of(page)
        case ev.Doubted(calls=calls):
            return f"in doubt: {', '.join(calls)} may or may not have happened", ""
        case ev.Answered(calls=calls, by=by):
            return f"{by} decided to make {', '.join(calls)} again", ""
        case ev.Signalled(signal=signal):
            return f"signal {signal}", ""
        case ev.Faulted(detail=detail):
            return f"stopped: {detail}", ""
        case ev.Woken():
            return "woken", ""
        case ev.Removed(process=process):
            return f"process {process} was removed", ""
        case ev.Exec(image=image):
            return f"is to run {image.name} from its next turn on", ""
        case ev.Execed():
            return "runs it now", ""
        case ev.Slotted():
            return _tell_slot(event), ""
        case ev.Rested(detail=detail):
            return f"waits for the next message{f': {detail}' if detail else ''}", ""
        case ev.Tidied():
            return "nothing more leaves its frame now", ""
        case ev.Noted(text=text) | ev.Deferred(detail=text):
            return text, ""
        case ev.SegmentMade() | ev.Appended() | ev.SegmentRemoved():
            return _tell_segment(event, text_of)
        case ev.Opened() | ev.Limited() | ev.Warned():
            return _tell_account(event), ""
        case ev.Reminded() | ev.Remembered() | ev.Forgotten():
            return _tell_note(event, text_of)
        case inq.Inquired() | inq.Resolved() | inq.Sampled() | inq.SampleEnded():
            return _tell_inquiry(event, text_of)


def _tell_inquiry(
    event: inq.Inquired | inq.Resolved | inq.Sampled | inq.SampleEnded, text_of: PageOf
) -> tuple[str, str]:
    match event:
        case inq.Inquired(inquiry=inquiry):
            what = "a model" if inquiry.kind == "sampling" else "a person"
            decided = f", {inquiry.action} ({inquiry.by})" if inquiry.action else ""
            return f"the device {inquiry.device} asks {what} (inquiry {inquiry.id}{decided})", text_of(inquiry.page)
        case inq.Resolved(inquiry=number, action=action, by=by, answer=page):
            return f"inquiry {number}: {action}, by {by}", text_of(page) if page else ""
        case inq.Sampled(inquiry=number, asking=asking):
            return f"inquiry {number} asks {asking.engine} (holds {asking.tokens:,} tokens)", ""
        case inq.SampleEnded(inquiry=number, fault=fault, posted=posted) if fault:
            return f"inquiry {number}: no reply: {fault} ({posted:,} tokens charged)", ""
        case inq.SampleEnded(inquiry=number, answer=page):
            used = f"{event.input_tokens:,} tokens in, {event.output_tokens:,} out"
            return f"inquiry {number}: reply ({used})", text_of(page)


def _tell_note(event: ev.Reminded | ev.Remembered | ev.Forgotten, text_of: PageOf) -> tuple[str, str]:
    match event:
        case ev.Reminded(opening=()):
            return "its notes are as they were", ""
        case ev.Reminded(page=page):
            return "has its notes in mind" if page else "has no notes in mind any more", text_of(page) if page else ""
        case ev.Remembered(id=number, scope=scope, owner=owner):
            return f"note {number} was made for {scope} {owner}", text_of(event.page)
        case ev.Forgotten(id=number, owner=owner):
            return f"note {number} of {owner} was forgotten{' by a person' if event.by_person else ''}", ""


def _tell_segment(event: ev.SegmentMade | ev.Appended | ev.SegmentRemoved, text_of: PageOf) -> tuple[str, str]:
    match event:
        case ev.SegmentMade(name=name):
            return f"segment {name} was made", ""
        case ev.Appended(number=number, page=page, process=process):
            return f"page {number} was appended{f' by process {process}' if process else ''}", text_of(page)
        case ev.SegmentRemoved(name=name):
            return f"segment {name} was removed", ""


def _tell_account(event: ev.Opened | ev.Limited | ev.Warned) -> str:
    match event:
        case ev.Opened(name=name):
            return f"account {name} was made"
        case ev.Limited(account=account, most=None):
            return f"account {account}: no limit of {event.unit} ({event.window}) any more"
        case ev.Limited(account=account, most=most):
            more = f", topped up by {event.added:,}" if event.added else ""
            return f"account {account}: at most {most:,} {_unit(event.unit)} ({event.window}){more}"
        case ev.Warned(account=account, percent=percent):
            return f"account {account}: {percent} % of {event.most:,} {_unit(event.unit)} ({event.window}) are used"


def _unit(unit: str) -> str:
    return "tokens" if unit == "tokens" else "nano-units of money"


def _tell_slot(event: ev.Slotted) -> str:
    slot = stamp(event.slot_ms)
    if event.run:
        return f"slot {slot}: process {event.run} runs"
    more = f" and {event.count - 1:,} more" if event.count > 1 else ""
    return f"slot {slot}{more}: skipped, {event.reason}"


def _tell_life(event: ev.Spawned | ev.Sent | ev.Exited, text_of: PageOf) -> tuple[str, str]:
    match event:
        case ev.Spawned(process=process, context=context, forked=forked):
            how = f"forked from {process.parent}" if forked else "spawned"
            line = f"{how}: {process.name} on {process.engine} ({process.model})"
            return line, "" if forked else "\n\n".join(map(text_of, context))
        case ev.Sent(page=page, sender=sender):
            return f"message from {sender}", text_of(page)
        case ev.Exited(code=code, result=result, detail=detail):
            return f"exited with code {code}{f': {detail}' if detail else ''}", text_of(result) if result else ""


def _tell_model(
    event: ev.Asked | ev.Replied | ev.AskFailed | ev.Refused | ev.Evicted | ev.Joined, text_of: PageOf
) -> tuple[str, str]:
    match event:
        case ev.Asked(asking=asking, pages=read):
            again = f", attempt {asking.attempt}" if asking.attempt > 1 else ""
            what = (
                f" for a summary of {_positions(asking.summary.first, asking.summary.until)}" if asking.summary else ""
            )
            line = f"asks {asking.engine}{what} (holds {asking.tokens:,} tokens{again})"
            return line, "\n\n".join(map(text_of, read))
        case ev.Replied(page=page, after=after):
            cached = f", {event.cached_tokens:,} cached" if event.cached_tokens else ""
            line = f"reply ({event.input_tokens:,} tokens in{cached}, {event.output_tokens:,} out)"
            return line, "\n\n".join(map(text_of, (page, *after)))
        case ev.AskFailed(reason=reason, posted=posted):
            return f"model call failed: {reason} ({posted:,} tokens charged)", ""
        case ev.Refused(detail=detail):
            return f"no hold: {detail}", ""
        case ev.Joined(pages=read):
            return f"reads {len(read)} pages", "\n\n".join(map(text_of, read))
        case ev.Evicted(covers=covers):
            return _evicted(event), "\n\n".join(text_of(each.pages[-1]) for each in covers)


def _evicted(event: ev.Evicted) -> str:
    gone = sum(each.until - each.first for each in event.covers)
    places = ", ".join(_positions(each.first, each.until) for each in event.covers[:_PLACES_MAX])
    more = f" and {len(event.covers) - _PLACES_MAX:,} more places" if len(event.covers) > _PLACES_MAX else ""
    used = f", summed up with {event.input_tokens:,} tokens in, {event.output_tokens:,} out" if event.hold else ""
    what = "shows in part" if event.unseen else "evicted"
    return f"{what} {gone:,} page{'s' * (gone != 1)}, {places}{more} ({-event.tokens:,} tokens less{used})"


def _positions(first: int, until: int) -> str:
    return f"mem:{first}" if until <= first + 1 else f"mem:{first}-{until - 1}"


def export_row(row: tuple[Any, ...]) -> dict[str, Any]:
    """A row of the journal as `journal export` gives it."""
    seq, at_ms, pid, kind, body = row
    return {"seq": seq, "at": stamp(at_ms), "pid": pid, "kind": kind, "event": msgspec.Raw(body)}
