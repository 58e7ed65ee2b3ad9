"""The witness: reads what was committed, on a connection of its own, and checks the rules that never bend.

It keeps a second process table (the fold of the events that it saw), the contexts, the mailboxes and a second ledger
(`meter.py`), across all crashes: what was there once must be there for ever.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import msgspec

from mains.errors import JournalError, KernelPanic
from mains.kernel.event import (
    Answered,
    AnyEvent,
    Asked,
    AskFailed,
    Called,
    Evicted,
    Execed,
    Faulted,
    Refused,
    Reminded,
    Rested,
    Returned,
    Spawned,
    Woken,
)
from mains.kernel.fold import apply
from mains.kernel.ports import CallContext, Message, Request
from mains.kernel.process import Asking, Process, State
from mains.kernel.tx import decode_event, decode_process
from mains.testing.evictions import Evictions
from mains.testing.letters import Letters
from mains.testing.meter import ENDS, Meter
from mains.testing.reader import Reader
from mains.testing.story import Broke, Story

DURABLE = "what was acknowledged survives"
INTENT = "no call without a committed intent and hold"
ONCE = "an effect that must not repeat is not repeated"
FOLD = "the process table is the fold of the journal"
LEGAL = "states change along the table"
EXITED = "an exited process never changes"
WOKEN = "who waits is woken once"
RESULTS = "a call and its result are never apart, results in the order of the calls"
PAGES = "a page in use is never missing or changed"
CLEAN = "callers and programs get clean errors"
FRAME = "the model sees the committed context"

_NEXT = {
    State.READY: set(State) - {State.NEW},
    State.RUNNING: set(State) - {State.NEW},
    State.WAITING: set(State) - {State.NEW, State.RUNNING},
    State.STOPPED: set(State) - {State.NEW, State.RUNNING},
    State.EXITED: {State.EXITED},
}
_PYTHON = re.compile(r"[A-Z]\w*(Error|Exception|Group|Panic): ")
_message = msgspec.json.Decoder(Message)

_BEFORE_ALL = -(2**31)  # positions of an opening are below 0


class _Context:
    """The context of one process as it was seen, and the calls in it that still lack a result. Of a fork, `mapped`
    entries behind the opening are its source's."""

    __slots__ = ("mapped", "messages", "open", "pages")

    def __init__(self) -> None:
        self.mapped = 0
        self.pages: list[str] = []
        self.messages: list[Message] = []
        self.open: list[str] = []


class Witness:
    """See the module's header."""

    def __init__(self, story: Story) -> None:
        self._story = story
        self.table: dict[int, Process] = {}
        self.meter = Meter()
        self.letters = Letters()
        self.retries: Counter[int] = Counter()  # how often a person said `retry`, by pid
        self._evictions = Evictions()
        self._shown: dict[str, tuple[list[Message], bool]] = {}  # by the key of a call that is due: what it must show
        self._contexts: dict[int, _Context] = {}
        self._openings: dict[int, int] = {}
        self.seq = 0
        self._crc = 0
        self._wakeable: set[int] = set()
        self._returned: set[tuple[int, str]] = set()
        self._issues: Counter[str] = Counter()
        self._decided: Counter[str] = Counter()
        self._asked: set[str] = set()
        self._intents: dict[str, int] = {}  # key of a model call -> its hold
        self._flown: Counter[str] = Counter()  # key of a device call -> how often its intent was recorded
        self._dead: set[int] = set()
        self._excused: set[int] = set()
        self._commits = 0

    def open(self, path: Path) -> None:
        """A home is booted over what the last world left: everything that was seen must be there."""
        self.reader = Reader(path)

    def booted(self) -> None:
        """After a boot: what was seen before is still there. Raises Broke."""
        self.committed()
        for pid, context in self._contexts.items():
            rows, opening = self.reader.rows("context", pid, _BEFORE_ALL), self._openings[pid]
            own = [*range(opening), *range(opening + context.mapped, len(context.pages))]
            if [page for page, _ in rows] != [context.pages[at] for at in own]:
                raise Broke(PAGES, f"the context of process {pid} is not what it was")
            for at, (page, data) in zip(own, rows, strict=True):
                if data is None or _message.decode(data) != context.messages[at]:
                    raise Broke(PAGES, f"process {pid}: page {page[:8]} of its context is missing or changed")
        self._compare_table()

    def close(self) -> None:
        """The world has ended."""
        self.reader.close()

    # at each commit

    def committed(self) -> None:
        """Follow what was committed since the last look. Raises Broke."""
        changed: dict[int, None] = {}
        if self.seq and self.reader.one("event_crc", self.seq) != (self._crc,):
            raise Broke(DURABLE, f"event {self.seq} was committed, and is gone or another")
        for seq, _, pid, kind, body, crc in self.reader.rows("events_since", self.seq):
            if seq != self.seq + 1:
                raise Broke(DURABLE, f"event {seq} follows event {self.seq}")
            self.seq, self._crc = seq, crc
            if pid > 0:
                changed[pid] = None
                self._event(seq, pid, kind, body)
            else:
                self._story.say(f"event {seq}: {body.decode()}")
        self.meter.committed(self.reader)
        for pid in changed:
            self._row(pid)
            self._context(self.table[pid])
            self.letters.look(self.table[pid], self._contexts[pid].messages, self.reader)
            if (p := self.table[pid]).asking is not None and (key := _key(p, p.asking)) not in self._asked:
                expected = self._evictions.asked(pid, p.asking, self._contexts[pid].messages, p.opening)
                self._shown[key] = expected, p.asking.summary is not None
        flying = {each.hold: pid for pid, p in self.table.items() for each in p.flights}
        if flying != self.meter.open:
            raise Broke(ENDS, f"open holds are {self.meter.open}, model calls in flight {flying}")
        self._commits += 1
        if self._commits % 16 == 0:
            self._compare_table()

    def _event(self, seq: int, pid: int, kind: str, body: bytes) -> None:
        before = self.table.get(pid)
        if before is not None and before.state is State.EXITED:
            raise Broke(EXITED, f"event {seq}: process {pid} had exited, and then: {kind}")
        try:
            event = decode_event(body)
            after = self.table[pid] = apply(before, event)
        except (KernelPanic, JournalError) as error:
            raise Broke(LEGAL, f"event {seq}: {error}") from error
        if before is not None and after.state not in _NEXT[before.state]:
            raise Broke(LEGAL, f"event {seq} ({kind}): process {pid} went from {before.state} to {after.state}")
        self._follow(seq, pid, event)
        self._story.say(f"event {seq}: process {pid} {kind}: {after.state}{f' ({after.reason})' * bool(after.reason)}")

    def _follow(self, seq: int, pid: int, event: AnyEvent) -> None:
        match event:
            case Spawned():
                self._contexts[pid] = _Context()
                self._openings[pid] = self.table[pid].opening
                self.letters.born(pid, self.table[pid].length)
                maps = self.table[pid].maps
                self._evictions.born(pid, maps[-1].pid if maps else 0, maps[-1].until if maps else 0)
            case Evicted():
                self._evictions.evicted(seq, pid, event, self.reader)
            case Refused() if event.quota >= 0:
                self._wakeable.add(pid)
            case AskFailed() if event.retry_ms:
                self._wakeable.add(pid)
            case Asked(asking=asking):
                self._wakeable.discard(pid)
                self._intents[_key(self.table[pid], asking)] = asking.hold
            case Execed() | Reminded():
                self._other_opening(pid)
            case Rested():
                self._wakeable.discard(pid)
            case Faulted() if _PYTHON.match(event.detail) and pid not in self._excused:
                raise Broke(CLEAN, f"event {seq}: process {pid} stops: {event.detail}")
            case Called():
                self._flown.update(f"{pid}-{call}" for call in event.calls)
            case Woken():
                if pid not in self._wakeable:
                    raise Broke(WOKEN, f"event {seq}: process {pid} is woken, but waits for nothing")
                self._wakeable.discard(pid)
            case Returned():
                if (pid, event.call) in self._returned:
                    raise Broke(RESULTS, f"event {seq}: {event.call} of process {pid} has a second result")
                self._returned.add((pid, event.call))
            case Answered() if event.by != "repeatable":
                for call in event.calls:
                    self._decided[f"{pid}-{call}"] += 1
                if event.by == "a person":
                    self.retries[pid] -= 1
                    if self.retries[pid] < 0:
                        raise Broke(ONCE, f"event {seq}: nobody said `retry` to process {pid}")

    def _other_opening(self, pid: int) -> None:
        """Another program begins the context otherwise; all that came after stays."""
        before, context = self._openings[pid], self._contexts[pid]
        rows = self.reader.rows("context", pid, _BEFORE_ALL)[: self.table[pid].opening]
        context.pages[:before] = [page for page, _ in rows]
        context.messages[:before] = [_message.decode(data or b"") for _, data in rows]
        self._openings[pid] = self.table[pid].opening
        self.letters.reborn(pid, self.table[pid].opening - before)

    def _row(self, pid: int) -> None:
        row, p = self.reader.one("process", pid), self.table[pid]
        if row is None or decode_process(row[3]) != p or row[:2] != (p.state.value, p.reason):
            raise Broke(FOLD, f"process {pid} is {p.state} ({p.reason}), its row says {row[:3] if row else 'nothing'}")

    def _compare_table(self) -> None:
        rows = self.reader.rows("processes")
        if [row[0] for row in rows] != sorted(self.table):
            raise Broke(FOLD, f"the table has {[row[0] for row in rows]}, the journal {sorted(self.table)}")
        for pid, state, _, _, body in rows:
            if decode_process(body) != self.table[pid] or state != self.table[pid].state:
                raise Broke(FOLD, f"process {pid} changed without an event")

    def _context(self, p: Process) -> None:
        context = self._contexts[p.pid]
        if not context.pages and p.maps:
            self._map(p, context)
        for page, data in self.reader.rows("context", p.pid, len(context.pages) - p.opening):
            if data is None:
                raise Broke(PAGES, f"process {p.pid}: page {page[:8]} of its context does not exist")
            message = _message.decode(data)
            if message.role == "tool":
                if context.open[:1] != [message.call_id]:
                    raise Broke(RESULTS, f"process {p.pid}: {message.call_id} has a result, {context.open} are open")
                context.open.pop(0)
                if message.text.startswith(f"{message.name} ") and not message.text.endswith(f"-{message.call_id}"):
                    raise Broke(RESULTS, f"process {p.pid}: the result of {message.call_id} is {message.text!r}")
            elif context.open:
                raise Broke(RESULTS, f"process {p.pid}: a {message.role} message, but {context.open} lack results")
            else:
                context.open = [call.id for call in message.calls]
            context.pages.append(page)
            context.messages.append(message)
        if len(context.pages) != p.length:
            raise Broke(RESULTS, f"process {p.pid}: {len(context.pages)} pages, and its record says {p.length}")
        if bool(context.open) != bool(p.calls) and p.state is not State.EXITED:
            raise Broke(RESULTS, f"process {p.pid}: open in the context {context.open}, in its record {p.calls}")

    def _map(self, p: Process, context: _Context) -> None:
        """A fork begins with an opening of its own, and what its source had."""
        source = self._contexts[p.maps[-1].pid]
        if p.maps[-1].pid in self.table:
            self._context(self.table[p.maps[-1].pid])
        rows = self.reader.rows("context", p.pid, _BEFORE_ALL)[: p.opening]
        start, context.mapped = self._openings[p.maps[-1].pid], p.maps[-1].until
        context.pages = [page for page, _ in rows] + source.pages[start : start + context.mapped]
        context.messages = [_message.decode(data or b"") for _, data in rows]
        context.messages += source.messages[start : start + context.mapped]

    # at each act

    def excuse(self, pid: int) -> None:
        """This process may stop with an error of Python: its engine has a bug."""
        self._excused.add(pid)

    def told_dead(self, pid: int) -> None:
        """A caller was told that this process is killed: nothing of it may act from here on."""
        self._dead.add(pid)

    def model_called(self, request: Request) -> None:
        """A model call reached its engine. Raises Broke."""
        pid = int(request.key.partition("-")[0])
        intent = self._intents.get(request.key)
        if intent is None or pid in self._dead:
            raise Broke(INTENT, f"model call {request.key}: its process recorded {intent}, killed: {pid in self._dead}")
        hold = self.reader.one("hold", intent)
        asking = self.table[pid].asking  # none: a commit that ended the call is on the disk, and not yet told
        if hold is None or (asking is not None and hold != (pid, asking.tokens, "dispatched")):
            raise Broke(INTENT, f"model call {request.key}: its hold {intent} is {hold}")
        if request.key in self._asked:
            raise Broke(INTENT, f"model call {request.key} is made twice under one intent")
        self._asked.add(request.key)
        expected, more = self._shown.pop(request.key)
        if list(request.messages[: len(expected)]) != expected or len(request.messages) != len(expected) + more:
            raise Broke(FRAME, f"model call {request.key}: its frame is not the context of process {pid}")
        self._story.say(f"model call {request.key}")

    def device_called(self, tool: str, context: CallContext, *, repeatable: bool) -> None:
        """A device call reached its device. Raises Broke."""
        intents, dead = self._flown[context.key], context.pid in self._dead
        if intents != context.attempt or dead:
            what = f"{tool} is called as {context.key}, attempt {context.attempt}"
            raise Broke(INTENT, f"{what}; recorded: {intents} intents, killed: {dead}")
        self._issues[context.key] += 1
        if not repeatable and self._issues[context.key] > 1 + self._decided[context.key]:
            raise Broke(ONCE, f"{tool} is called again as {context.key}, and nobody decided so")
        self._story.say(f"device call {tool} {context.key}, attempt {context.attempt}")


def _key(p: Process, asking: Asking) -> str:
    """The key of a model call, as an engine is told it."""
    return f"{p.pid}-{p.turn + 1}-{asking.attempt}"
