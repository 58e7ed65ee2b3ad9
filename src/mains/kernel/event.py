"""Events: what happens to a process. The journal is a list of them; `fold.py` says what each makes of it. Pure."""

from __future__ import annotations

import msgspec

from mains.kernel.billing import Unit, Window
from mains.kernel.inquired import Event, Inquired, OfInquiry, Resolved, Sampled, SampleEnded
from mains.kernel.process import Asking, Call, Image, Process, Rated


class Placed(msgspec.Struct, frozen=True, array_like=True):
    """Pages in place of the positions from `first` to below `until`."""

    first: int
    until: int
    pages: tuple[str, ...]


class Spawned(Event, tag="spawned", frozen=True):
    """A process was made (by spawn or fork). `context` are its first pages, in order: of a fork only its opening, and
    `process.maps` says where the others are (forks of an older Mains have all)."""

    process: Process
    context: tuple[str, ...]
    forked: bool = False


class Asked(Event, tag="asked", frozen=True):
    """The intent of a model call, with its hold. `pages` are messages from the mailbox that join the context for it."""

    asking: Asking
    pages: tuple[str, ...] = ()
    tokens: int = 0
    messages: tuple[int, ...] = ()
    frame: str = ""  # the hash of what the model is shown (empty: an older Mains)


class Replied(Event, tag="replied", frozen=True):
    """The result of a model call. `calls` as they stand after everything that the kernel could do at once;
    `after` are pages that follow the reply without a call (a mend), `closed` the results of a turn that is over."""

    hold: int
    posted: int
    page: str
    tokens: int
    calls: tuple[Call, ...] = ()
    after: tuple[str, ...] = ()
    messages: tuple[int, ...] = ()
    mended: bool = False
    spawned: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    cost_nano: int = 0
    untrusted: bool = False  # results of children, or what devices say of their tools, are among those of its calls
    rated: tuple[Rated, ...] = ()  # grants with a rate, with these calls

    @property
    def source(self) -> str:
        """What untrusted is among those results; empty: nothing."""
        found = [call.tool for call in self.calls if call.page] if self.untrusted else []
        return f"a result of {'a child' if {'wait', 'spawn_each'} & {*found} else 'find_tool'}" if found else ""


class Joined(Event, tag="joined", frozen=True):
    """Pages joined the context before its next model call: large messages, what a message names of what was evicted,
    and what is new in segments: each of `segments` was read up to a page (not with it)."""

    pages: tuple[str, ...]
    tokens: int
    messages: tuple[int, ...] = ()
    segments: tuple[tuple[int, int], ...] = ()
    untrusted: str = ""  # what of it was written by another process


class Reminded(Event, tag="reminded", frozen=True):
    """The notes that a process sees were looked up, as of event `upto`: they are `page` of its opening (empty: none).

    `opening` are all its pages from now on (empty: as they were), `tokens` what that changes and `frame` the hash of
    the frame. `tainted`: which of the notes was made from what tools said.
    """

    upto: int
    page: str = ""
    opening: tuple[str, ...] = ()
    tokens: int = 0
    frame: str = ""
    tainted: str = ""


class Evicted(Event, tag="evicted", frozen=True):
    """Positions of the context left the frame: pages stand in their place. `tokens` is what that changes (below zero:
    less), `frame` the hash of the frame after it.

    `hold` and what follows: it is the result of a model call that was asked for a summary.
    """

    covers: tuple[Placed, ...]
    tokens: int
    frame: str
    unseen: bool = False  # no model was shown what left: frames begin as they did
    tools: str = ""  # the page of the tool list from now on (empty: as it was)
    reserve_tokens: int = 0
    hold: int = 0
    posted: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    cost_nano: int = 0


class AskFailed(Event, tag="ask_failed", frozen=True):
    """A model call failed. `posted` tokens were charged; it is made again at `retry_ms` (0: not, or at once).

    `crashed`: it was our own end that cut it off, which does not count against the retry budget. `refused`: its backend
    had too much to do and took nothing, which counts against `refusals_max` instead.
    """

    hold: int
    posted: int
    reason: str
    retry_ms: int = 0
    crashed: bool = False
    cost_nano: int = 0
    refused: bool = False


class Rerouted(Event, tag="rerouted", frozen=True):
    """The process takes another of its routes: `index`, which is `engine`. `reason`: why the one in use could not
    serve; empty when the first route is tried again (after `return_ms`), or one that serves as well is taken."""

    index: int
    engine: str
    reason: str = ""
    return_ms: int = 0


class Called(Event, tag="called", frozen=True):
    """The intent of device calls: these are now in flight."""

    calls: tuple[str, ...]


class Returned(Event, tag="returned", frozen=True):
    """A call has its result. `messages` are what a `receive` consumed."""

    call: str
    page: str
    tokens: int
    messages: tuple[int, ...] = ()
    untrusted: bool = False  # a device or a child said it


class Doubted(Event, tag="doubted", frozen=True):
    """Calls that were in flight when the kernel died: nobody knows whether they happened."""

    calls: tuple[str, ...]


class Answered(Event, tag="answered", frozen=True):
    """Calls in doubt are issued again; or calls that a person allowed are made, later too if `approved`."""

    calls: tuple[str, ...]
    by: str
    approved: str = ""


class Signalled(Event, tag="signalled", frozen=True):
    """A signal changed the process (TERM and KILL end it with an Exited of their own)."""

    signal: str


class Refused(Event, tag="refused", frozen=True):
    """The hold was refused: others hold the room of account `quota` (wait), or the breaker is open (-1: stop).

    The next one needs `wanted` tokens and `wanted_nano` money at least.
    """

    quota: int
    wanted: int
    detail: str
    wanted_nano: int = 0


class Faulted(Event, tag="faulted", frozen=True):
    """The process cannot go on by itself: STOPPED (error) until somebody resumes or ends it."""

    detail: str


class Woken(Event, tag="woken", frozen=True):
    """A retry is due, or room may have come free."""


class Sent(Event, tag="sent", frozen=True):
    """A message was put into the mailbox of the process."""

    message: int
    page: str
    sender: str


class Deferred(Event, tag="deferred", frozen=True):
    """The model call waits for a cheaper hour, which begins at `until_ms`."""

    until_ms: int
    detail: str


class Exec(Event, tag="exec", frozen=True):
    """The process is to run another program from its next turn on."""

    image: Image


class Execed(Event, tag="execed", frozen=True):
    """The process has taken the image that was planned; a schedule's next slot is `slot_ms`. `frame`: of its frame."""

    slot_ms: int = 0
    frame: str = ""


class Slotted(Event, tag="slot", frozen=True):
    """A slot of a schedule has come: the process `run` was started for it, or (0) it was skipped for a `reason`.

    `count` slots, from `slot_ms` on, were skipped together. The next one is at `next_ms`.
    """

    slot_ms: int
    next_ms: int
    run: int = 0
    reason: str = ""
    count: int = 1


class Rested(Event, tag="rested", frozen=True):
    """The turn of a conversation is over: it waits for the next message. `detail`: why, when that is no answer.

    `unread`: mail that waits already begins no turn. `tidy`: its frame is large, and is to be smaller before then.
    """

    detail: str = ""
    unread: bool = False
    tidy: bool = False


class Tidied(Event, tag="tidied", frozen=True):
    """A conversation at rest is tidy: nothing more leaves its frame now, because it does not pay or cannot be done."""


class Exited(Event, tag="exited", frozen=True):
    """The end."""

    code: int
    result: str = ""
    detail: str = ""


class Removed(Event, tag="removed", frozen=True):
    """An ended process was removed (an event of the home, pid 0): what is left of it are numbers and a hash."""

    process: int
    program: str
    turns: int
    input_tokens: int
    output_tokens: int
    exit_code: int


class Opened(Event, tag="opened", frozen=True):
    """A named account was made below `parent` (an event of the home, pid 0)."""

    account: int
    parent: int
    name: str


class Limited(Event, tag="limited", frozen=True):
    """A limit of an account was set (None: taken away), or its window from `start_ms` on was topped up by `added`.

    It holds for the entries after number `entry` (pid 0).
    """

    account: int
    unit: Unit
    window: Window
    most: int | None
    entry: int
    added: int = 0
    start_ms: int = 0


class Warned(Event, tag="warned", frozen=True):
    """So many percent of a limit are used: said once in a window for each step (pid 0)."""

    account: int
    unit: Unit
    window: Window
    percent: int
    most: int


class Remembered(Event, tag="remembered", frozen=True):
    """A note was made (pid 0). With `replaces`, in place of that note of the same owner.

    `process` made it in turn `turn` (0: a person). Forks have the notes of their source under the same number.
    """

    id: int
    scope: str
    owner: str
    page: str
    process: int
    program: str
    turn: int
    tainted: str
    replaces: int
    made_ms: int


class Forgotten(Event, tag="forgotten", frozen=True):
    """A note was forgotten (pid 0), by a person or by a process."""

    id: int
    owner: str
    by_person: bool


class OfSegment(Event, frozen=True):
    """Something that happened to a shared segment."""


class SegmentMade(OfSegment, tag="segment_made", frozen=True):
    """A shared segment was made. The events of segment N are those of number -N, so that they go when it is erased."""

    name: str
    account: int
    append_only: bool


class Appended(OfSegment, tag="appended", frozen=True):
    """A page was appended to segment N (-N): by a person, or by `process`, which ran `program`, for `account`."""

    number: int
    page: str
    bytes: int  # of its text
    process: int = 0
    program: str = ""
    account: str = ""


class SegmentRemoved(OfSegment, tag="segment_removed", frozen=True):
    """A shared segment was removed (an event of the home, pid 0)."""

    segment: int
    name: str
    pages: int


class Noted(Event, tag="noted", frozen=True):
    """Something about the home, not about a process (pid 0): boot, halt, recovery."""

    text: str


AnyEvent = (
    Spawned | Asked | Joined | Replied | Evicted | AskFailed | Rerouted | Called | Returned | Doubted | Answered
    | Signalled | Refused | Faulted | Woken | Sent | Exec | Execed | Slotted | Rested | Exited | Removed | Noted
    | Deferred | Tidied | Opened | Limited | Warned | Reminded | Remembered | Forgotten
    | SegmentMade | Appended | SegmentRemoved | Inquired | Resolved | Sampled | SampleEnded
)  # fmt: skip


def named(event: AnyEvent) -> list[str]:
    """The pages that an event names: they are kept as long as the event is."""
    match event:
        case Spawned(process=p):
            pages = [p.program, p.tree, p.inputs, p.tools, p.above, *event.context]
        case Asked() | Joined():
            return list(event.pages)
        case Replied():
            pages = [event.page, *event.after, *[call.page for call in event.calls]]
        case Returned() | Sent() | Appended():
            return [event.page]
        case Evicted():
            pages = [event.tools, *[page for placed in event.covers for page in placed.pages]]
        case Reminded():
            return list(event.opening)
        case Exited():
            pages = [event.result]
        case Exec(image=i):
            pages = [i.program, i.tree, i.inputs, i.tools, i.above, *i.opening]
        case OfInquiry():
            pages = list(event.pages)
        case _:
            return []
    return [page for page in pages if page]
