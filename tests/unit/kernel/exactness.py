"""What must hold of memory, whatever happened: frames made anew from the journal alone, and nothing lost.

    faults(journal, settings, asked)    each rule that does not hold, as a sentence
    read_back(journal, settings, pid)   each position that `read` does not give back word for word

`asked` is every request that an engine was sent. What is compared with it is worked out from the events.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from mains.kernel import audit, pages, past, reckon, retention, stubs
from mains.kernel.context import tokens_of
from mains.kernel.cover import grown, window
from mains.kernel.journal import Journal
from mains.kernel.lookup import Lookup, text_of
from mains.kernel.past import Past, Shown
from mains.kernel.ports import Message, Request
from mains.kernel.process import CallState, State
from mains.settings import Settings

_decode = msgspec.json.Decoder(Message).decode


def faults(journal: Journal, settings: Settings, asked: Sequence[Request]) -> list[str]:
    """Everything that is wrong."""
    found = audit.verify(journal) + reckon.verify(journal)
    found += [f"page {page}: nobody names it" for page in retention.orphaned(journal)]
    shown: dict[str, Shown] = {}
    for p in journal.processes("process_all"):
        shown |= {_key(each): each for each in past.frames(journal, p.pid)}
        found += [f"process {p.pid}: {fault}" for fault in [*_tokens(journal, p.pid), *_rolled(journal, p.pid)]]
    for request in asked:
        if of := shown.get(request.key):  # else its process was removed
            found += [f"call {request.key}: {fault}" for fault in _frame(journal, settings, request, of)]
    return found


def _rolled(journal: Journal, pid: int) -> Iterator[str]:
    """The hashes that the audit makes of the frames, against those of whole frames."""
    whole = [(each.past.seq, each.journalled, each.past.frame_hash()) for each in past.frames(journal, pid)]
    if list(past.hashes(journal, pid)) != [each for each in whole if each[1]]:
        yield "its hashes that are rolled on are not those of its frames"


def _key(shown: Shown) -> str:
    p = shown.past.process
    assert p.asking is not None
    return f"{p.pid}-{p.turn + 1}-{p.asking.attempt}"


def _frame(journal: Journal, settings: Settings, request: Request, shown: Shown) -> Iterator[str]:
    p = shown.past.process
    assert p.asking is not None
    frame, old = shown.past.frame(), p.asking.summary
    if shown.past.frame_hash() != shown.journalled:
        yield "its frame made anew has another hash"
    messages = [_message(journal, page) for at, page in frame if old is None or at < old.until]
    if old is not None:
        messages.append(stubs.ask(old.first, old.until, p.asking.output_tokens_max))
    if tuple(messages) != request.messages:
        yield f"it was shown {len(request.messages)} messages, and the journal makes others of it"
    tokens, room = sum(map(tokens_of, request.messages)), window(settings, p)
    if tokens > room:
        yield f"{tokens} tokens, where {room} fit"
    if fault := apart(request.messages):
        yield fault
    said = [_message(journal, page) for page in shown.past.grown[: old.until if old else None]]
    if not {m.text for m in said if m.kind == "rule"} <= {m.text for m in request.messages}:
        yield "a rule has left it"
    if tuple(page for _, page in frame[: p.opening]) != shown.past.opening:
        yield "it does not begin with the opening"


def apart(messages: Sequence[Message]) -> str:
    """Calls without results, and results without calls."""
    due: list[str] = []
    for message in messages:
        if message.role == "tool" and due[:1] == [message.call_id]:
            del due[0]
        elif message.role == "tool" or due:
            return f"a call and its result are apart: {due or message.call_id}"
        due += [call.id for call in message.calls]
    return f"calls lack results: {due}" if due else ""


def _message(journal: Journal, page: str) -> Message:
    return _decode(pages.read(journal, page))


def _tokens(journal: Journal, pid: int) -> Iterator[str]:
    """The count of tokens in the record, against the frame that stands there, after every event."""
    walk = past._Walk(journal, pid)
    for seq in walk.steps(2**62):
        at = walk.past()
        if at.process.state is State.EXITED and not at.process.idle:
            continue  # a turn was cut off
        done = [call.page for call in at.process.calls if call.state is CallState.DONE]
        tokens = sum(tokens_of(_message(journal, page)) for page in [*_names(at), *done])
        if tokens != at.process.frame_tokens:
            yield f"event {seq}: its record counts {at.process.frame_tokens} tokens, its frame has {tokens}"
        if at.process.frame and at.process.frame != at.frame_hash():
            yield f"event {seq}: its record has another hash than its frame"


def _names(at: Past) -> list[str]:
    return [page for _, page in at.frame()]


async def read_back(journal: Journal, settings: Settings, pid: int) -> list[str]:
    """Read every position of a process in parts, and compare."""
    lookup, p, wrong = Lookup(journal, None, settings), journal.process(pid), list[str]()
    assert p is not None
    said = past.past(journal, pid, 2**62).grown
    for position, page in enumerate(said):
        whole, got = text_of(_message(journal, page)), ""
        while True:
            arguments = {"handle": f"mem:{position}", "range": f"characters {len(got)}-{len(whole)}"}
            part = await lookup.call(p, "read", arguments)
            text = part if len(got) == 0 and part == whole else part.partition("\n")[2]
            got += text
            if not text or len(got) >= len(whole):
                break
        if got != whole:
            wrong.append(f"process {pid}: mem:{position} is read as {got[:40]!r}")
    assert grown(p) == len(said)
    return wrong
