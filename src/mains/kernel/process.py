"""The process: its record, its states, and the one table of legal transitions. Pure.

A process is a row. Everything about it that may change stands in one frozen `Process`; only an event changes it
(`fold.py`), and its state follows from the rest of the record (`rest`).

    NEW -> READY -> RUNNING -> EXITED           a turn runs while a model or device call is in flight
             ^  \\      |
             |   WAITING (timer, message, child, human, quota)
             +-- STOPPED (paused, in doubt, error, breaker)

Invariants: a state changes only along TRANSITIONS (KernelPanic otherwise); an EXITED process never changes; a turn's
calls stand in the order the model made them and are closed together, so that a call is never without its result.
"""

from __future__ import annotations

import enum
from typing import Literal

import msgspec

from mains.program import Schedule


class State(enum.StrEnum):
    """Where a process stands."""

    NEW = "NEW"
    READY = "READY"
    RUNNING = "RUNNING"
    WAITING = "WAITING"
    STOPPED = "STOPPED"
    EXITED = "EXITED"


_AT_REST = {State.READY, State.RUNNING, State.WAITING, State.STOPPED, State.EXITED}
TRANSITIONS: dict[State, set[State]] = {
    State.NEW: {State.READY, State.WAITING, State.STOPPED},
    State.READY: _AT_REST,
    State.RUNNING: _AT_REST,
    State.WAITING: _AT_REST - {State.RUNNING},
    State.STOPPED: _AT_REST - {State.RUNNING},
    State.EXITED: set(),
}
"""Which state may follow which. A process that stays where it is makes no transition (and only READY, RUNNING,
WAITING and STOPPED may be left and entered again). Nobody starts to run but from READY."""


class CallState(enum.StrEnum):
    """Where one call of a turn stands."""

    PENDING = "pending"
    IN_FLIGHT = "in flight"
    WAITING = "waiting"
    IN_DOUBT = "in doubt"
    DONE = "done"


class Call(msgspec.Struct, frozen=True, omit_defaults=True):
    """One call of a turn. Its arguments stand in the reply's page at `index`; its result in the page `page`.

    `on` says what a waiting call waits for (timer, message, child, human; grant: a person decides whether it is made);
    `due_ms` bounds that wait (0: no bound). `by` is what allowed a device's call, or why a person is asked. `late`: it
    was made through `call_tool`, whose arguments hold its own.
    `repeatable`: may be issued again after a crash without asking anybody. `attempt` counts its issues.
    """

    id: str
    tool: str
    index: int
    state: CallState
    repeatable: bool = False
    parallel: bool = False
    attempt: int = 0
    on: str = ""
    due_ms: int = 0
    page: str = ""
    by: str = ""
    late: bool = False


class Stretch(msgspec.Struct, frozen=True, array_like=True):
    """Positions from `first` to below `until` that a summary is to stand for. `kept`: what of them stays besides what
    is pinned, as places in the frame (the pages of one cover have one position)."""

    first: int
    until: int
    kept: tuple[int, ...] = ()


class Asking(msgspec.Struct, frozen=True, omit_defaults=True):
    """A model call in flight: its hold (the hold's number and tokens), the engine, and the attempt."""

    hold: int
    tokens: int
    output_tokens_max: int
    engine: str
    attempt: int
    nano: int = 0
    tariff: int = 0
    summary: Stretch | None = None  # it asks for a summary of these positions, and is no turn


Action = Literal["", "accept", "decline", "cancel"]
"""What came of something that a device wants; empty: nothing yet."""

InquiryKind = Literal["form", "url", "sampling"]


class Inquiry(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a device wants while it serves a call: a person's answer (`form`, `url`) or a model's (`sampling`).

    `page` has the device's words, `due_ms` is when nobody need answer any more. `action` is what came of it (accept,
    decline or cancel; empty: a person is asked), `by` who or what decided so, `answer` the page of what was said.
    `asking` is the model call in flight. It is forgotten when the call has its result.
    """

    id: str
    call: str
    device: str
    kind: InquiryKind
    page: str
    due_ms: int = 0
    action: Action = ""
    by: str = ""
    answer: str = ""
    asking: Asking | None = None


class Rated(msgspec.Struct, frozen=True, array_like=True):
    """Calls that a grant with a rate has allowed since `since_ms`."""

    grant: str
    since_ms: int
    calls: int


class Map(msgspec.Struct, frozen=True, array_like=True):
    """Positions below `until` (and not below those of the map before) are those of process `pid`, with the covers that
    it had at event `seq`, after so many `breaks` of its frames."""

    pid: int
    until: int
    seq: int
    breaks: int


class Mapped(msgspec.Struct, frozen=True, array_like=True):
    """A shared segment: its pages below `until` have joined the context, and those below `whole` before the last model
    call. It is mapped `own` (by whoever ran the process) or `program` wide; else only the place is kept."""

    segment: int
    until: int = 0
    whole: int = 0
    own: bool = False
    program: bool = False

    @property
    def live(self) -> bool:
        """Whether its new pages join."""
        return self.own or self.program


class Route(msgspec.Struct, frozen=True, omit_defaults=True):
    """An engine and one of its models. `context_tokens`: of one call, 0 when not known; `then`: what to take when it
    cannot serve, in order; `group`: routes of the same one serve equally well."""

    engine: str
    model: str
    context_tokens: int = 0
    group: str = ""
    then: tuple[Route, ...] = ()

    @property
    def chain(self) -> tuple[Route, ...]:
        """All routes in order, when there are several."""
        return (replace(self, then=()), *self.then) if self.then else ()


class GivenUp(msgspec.Struct, frozen=True):
    """A route that could not serve in this turn, and why."""

    route: int
    why: str


GRANT = "grant"
"""What a call waits for (`on`) until a person has decided whether it is made."""

PERMITS = ("once", "process", "always")
"""How a person can allow a call: this one; all of the tool by this process; also those of all later processes."""

TIDYING = "tidying"
"""The reason of a conversation at rest whose frame is made smaller meanwhile."""

UNKNOWN_SOURCES = "what was read under an older Mains"


class Image(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a program makes of a process: all of it that `exec` replaces. Pages are named by their hash."""

    name: str
    path: str  # the program's file; empty when it was spawned by another process
    program: str  # page
    tree: str  # page
    inputs: str  # page
    tools: str  # page
    above: str = ""  # page
    opening: tuple[str, ...]  # pages: the beginning of the context
    opening_tokens: int
    reads_mail: bool
    remembers: tuple[str, ...] = ()
    band: str
    route: Route
    reserve_tokens: int
    output_tokens_max: int
    frame_tokens_max: int = 0  # as the program says
    segments: tuple[int, ...] = ()  # that it maps
    schedule: Schedule | None = None


class Process(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A process as it stands. Pages are named by their hash; token counts are what engines reported."""

    # written at spawn, some of it again by exec
    pid: int
    parent: int = 0  # 0: none
    spawned_by: str = ""  # the parent's call that spawned it
    item: str = ""  # what of the parent's input it was spawned for
    name: str  # of the program
    path: str = ""
    program: str  # page
    tree: str  # page: the programs it may spawn, by name
    inputs: str  # page
    tools: str  # page: the frozen tool list
    above: str = ""  # page: what its ancestors were granted, and what it was itself before an exec of its own
    accounts: tuple[int, ...]  # its own, every ancestor's, their programs', the named one and all above it, the home's
    account: str = "home"  # the named account that pays
    tenant: int = 0  # its number
    band: str = "normal"
    band_given: bool = False  # by whoever ran it: no other program changes it
    group: str = ""
    key: str = ""
    routes: tuple[Route, ...] = ()  # where several engines may serve it: all of them, in order
    engine_forced: bool = False  # by whoever ran it: its children run there too
    reads_mail: bool = False  # it was granted `receive`: messages come when it asks, not by themselves
    remembers: tuple[str, ...] = ()  # the scopes of the notes that it sees
    schedule: Schedule | None = None  # it starts a run at each slot, and does nothing else
    conversation: bool = False  # it does not end with an answer: it waits for the next message
    workspace: str = ""
    depth: int = 0
    budget: int | None = None
    reserve_tokens: int = 0  # estimate of what every frame carries besides: the tool list, the output's schema
    output_tokens_max: int  # of one model call
    frame_tokens_max: int = 0  # of its frames, answer and tools included, as its program says; 0: as the engine has
    created_ms: int
    maps: tuple[Map, ...] = ()  # of a fork: whose pages it has, the oldest first

    # written at spawn, and by a turn that takes another of the routes
    engine: str = ""
    model: str = ""
    route: int = 0  # the index of these in `routes`
    return_ms: int = 0  # when the first route is tried again
    context_tokens: int = 0  # of the engine in use; 0: not known

    segments: tuple[Mapped, ...] = ()  # shared; written by exec, too

    # written by exec
    next: Image | None = None  # what it takes before its next model call
    opening: int = 2  # how many context entries the program made
    opening_tokens: int = 0  # estimate of those

    # written when its notes are looked up
    noted: int = 0  # as of which event; 0: not yet
    notes_page: str = ""  # which page of the opening they are; empty: none

    # written by calls of devices
    approved: tuple[str, ...] = ()  # tools that a person has allowed it, whenever it asks
    rated: tuple[Rated, ...] = ()  # of its grants with a rate

    # written by turns
    tainted: str = UNKNOWN_SOURCES  # what untrusted has entered its context first; empty: nothing
    state: State = State.NEW
    reason: str = ""
    turn: int = 0
    whole_length: int = 0  # context length before this turn's reply: a fork starts from here
    whole_tokens: int = 0
    whole_turn: int = 0
    length: int = 0  # context entries
    frame_tokens: int = 0  # estimate of those that stand in the frame
    frame: str = ""  # the frame's hash; empty: not known (of a process that an older Mains started)
    whole_frame: str = ""
    covers: int = 0  # how often something was evicted
    breaks: int = (
        0  # how often so that the beginning of its frames changed: what an engine has read of them is of no use
    )
    reply: str = ""  # page of the reply whose calls are open
    calls: tuple[Call, ...] = ()
    inquiries: tuple[Inquiry, ...] = ()  # of devices, within those calls that are in flight
    asking: Asking | None = None
    attempts: int = 0  # of this turn's model call, those included that a crash cut off
    failures: int = 0  # of this turn's model call: the retry budget is counted in these
    failures_here: int = 0  # those of them that the engine in use made, its refusals included
    refusals: int = 0  # of this turn's model call: a backend had too much to do
    given_up: tuple[GivenUp, ...] = ()  # of this turn's model call: who could not serve
    retry_ms: int = 0  # when it is made again
    mends: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    cost_nano: int = 0  # what its calls have cost, in nano-units of the home's currency
    deferred: bool = False  # its next model call has waited for a cheaper hour
    quota: int = -1  # the account whose room it waits for
    wanted: int = 0  # tokens that its next hold needs at least
    wanted_nano: int = 0  # and money
    mail: int = 0  # unread messages
    children: int = 0
    slot_ms: int = 0  # the next slot of its schedule
    run: int = 0  # the process that it started last
    idle: bool = False  # a conversation whose turn is over
    tidy: bool = False  # and whose frame is to be smaller before the next one: in band batch, for nobody waits
    idle_turn: int = 0  # the turn after which it was idle last

    # written by signals, faults and the end
    paused: bool = False
    ending: bool = False
    interrupted: bool = False  # the turn of a conversation is to end as soon as nothing is in flight
    fault: str = ""  # error or breaker
    detail: str = ""  # the sentence that goes with the reason
    exit_code: int | None = None
    result: str = ""  # page

    @property
    def tokens(self) -> int:
        """Tokens that it was charged for, its own calls only."""
        return self.input_tokens + self.output_tokens

    @property
    def flights(self) -> list[Asking]:
        """Its model calls in flight: its own, and those that devices have asked for."""
        return [each for each in (self.asking, *[inquiry.asking for inquiry in self.inquiries]) if each]


def rest(process: Process) -> tuple[State, str]:
    """The state and reason that follow from everything else in the record."""
    calls = process.calls
    if process.exit_code is not None:
        return State.EXITED, ""
    if process.asking or any(c.state is CallState.IN_FLIGHT for c in calls):
        return State.RUNNING, _leaving(process)
    if process.paused:
        return State.STOPPED, "paused"
    if any(c.state is CallState.IN_DOUBT for c in calls):
        return State.STOPPED, "in doubt"
    if process.fault:
        return State.STOPPED, process.fault
    if process.schedule is not None:
        return State.WAITING, "timer"
    if process.quota >= 0:
        return State.WAITING, "quota"
    for call in calls:
        if call.state is CallState.PENDING:
            return State.READY, ""
        if call.on == GRANT and not call.parallel:  # those behind it keep their place
            return State.WAITING, "human"
    for call in calls:
        if call.state is CallState.WAITING:
            return State.WAITING, "human" if call.on == GRANT else call.on
    if process.retry_ms:
        return State.WAITING, "message" if process.idle else "timer"
    if process.idle and not process.tidy:
        return State.WAITING, "message"
    return State.READY, TIDYING if process.idle else ""


def _leaving(process: Process) -> str:
    if process.paused:
        return "pausing"
    if process.ending:
        return "ending"
    if any(not each.action for each in process.inquiries):
        return "human"
    return "interrupted" if process.interrupted else TIDYING if process.idle else ""


replace = msgspec.structs.replace
