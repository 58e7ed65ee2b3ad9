"""Inquired: what devices want in the middle of their calls, as events, and what these make of a process. Pure.

An inquiry is open until a person, a rule, time or the end of something else has decided; of one that a model is to
answer the call follows, with its hold. Once the call of the device has its result, its inquiries are forgotten. Who is
told to pause or to end waits for nobody: its open inquiries are cancelled by that.

    happened(process, event)    the process after an event of an inquiry
    kept(process)               without those whose call is not in flight any more
"""

from __future__ import annotations

import msgspec

from mains.errors import KernelPanic
from mains.kernel.process import Action, Asking, CallState, Inquiry, Process, Rated, replace


class Event(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind"):
    """Something that happened. Events are the truth; the process table is their fold."""


class OfInquiry(Event, frozen=True):
    """Something that happened to what a device wants."""

    @property
    def pages(self) -> list[str]:
        """The pages that it names."""
        return []


class Inquired(OfInquiry, tag="inquired", frozen=True):
    """A device wants something within a call. `rated`: the grants with a rate in which it counts."""

    inquiry: Inquiry
    rated: tuple[Rated, ...] = ()

    @property
    def pages(self) -> list[str]:
        """The device's words."""
        return [self.inquiry.page]


class Resolved(OfInquiry, tag="resolved", frozen=True):
    """An open inquiry was decided (see `Inquiry`), and from now on also those of the name `approved`."""

    inquiry: str
    action: Action
    by: str
    answer: str = ""
    approved: str = ""

    @property
    def pages(self) -> list[str]:
        """What was answered."""
        return [self.answer]


class Sampled(OfInquiry, tag="sampled", frozen=True):
    """The intent of a model call that a device asked for, with its hold."""

    inquiry: str
    asking: Asking


class SampleEnded(OfInquiry, tag="sample_ended", frozen=True):
    """Such a call has ended: `answer` is the page of what the model said, or there is a `fault`."""

    inquiry: str
    hold: int
    posted: int
    answer: str = ""
    fault: str = ""
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    cost_nano: int = 0

    @property
    def pages(self) -> list[str]:
        """What the model said."""
        return [self.answer]


def happened(p: Process, event: OfInquiry) -> Process:
    """The process after an event of an inquiry. Raises KernelPanic for one that cannot happen."""
    match event:
        case Inquired(inquiry=new):
            flying = any(call.id == new.call and call.state is CallState.IN_FLIGHT for call in p.calls)
            _require(p, flying and all(each.id != new.id for each in p.inquiries), event)
            rated = {each.grant: each for each in (*p.rated, *event.rated)}
            return replace(p, inquiries=(*p.inquiries, new), rated=tuple(rated.values()))
        case Resolved():
            old = _of(p, event.inquiry, event)
            _require(p, not old.action, event)
            approved = dict.fromkeys((*p.approved, *([event.approved] if event.approved else [])))
            new = replace(old, action=event.action, by=event.by, answer=event.answer)
            return replace(_with(p, new), approved=tuple(approved))
        case Sampled():
            old = _of(p, event.inquiry, event)
            _require(p, old.kind == "sampling" and old.action == "accept" and not (old.asking or old.answer), event)
            return _with(p, replace(old, asking=event.asking))
        case SampleEnded():
            old = _of(p, event.inquiry, event)
            _require(p, old.asking is not None and old.asking.hold == event.hold, event)
            p = _with(p, replace(old, asking=None, answer=event.answer, by=event.fault or old.by))
            return replace(
                p, input_tokens=p.input_tokens + event.input_tokens,
                cached_tokens=p.cached_tokens + event.cached_tokens,
                output_tokens=p.output_tokens + event.output_tokens, cost_nano=p.cost_nano + event.cost_nano,
            )  # fmt: skip
    raise KernelPanic(f"{type(event).__name__} is no event of an inquiry")


def _of(p: Process, inquiry: str, event: OfInquiry) -> Inquiry:
    found = next((each for each in p.inquiries if each.id == inquiry), None)
    _require(p, found is not None, event)
    assert found is not None
    return found


def _with(p: Process, new: Inquiry) -> Process:
    return replace(p, inquiries=tuple(new if each.id == new.id else each for each in p.inquiries))


def _require(p: Process, holds: bool, event: OfInquiry) -> None:
    if not holds:
        raise KernelPanic(f"process {p.pid}: {type(event).__name__} cannot happen to an inquiry of it")


def kept(p: Process) -> Process:
    """The process with those inquiries that still concern it. Raises KernelPanic for a hold that would be forgotten."""
    if not p.inquiries:
        return p
    flying = {call.id for call in p.calls if call.state is CallState.IN_FLIGHT}
    left = p.paused or p.ending or p.interrupted
    if any(each.asking and each.call not in flying for each in p.inquiries):
        raise KernelPanic(f"process {p.pid}: a model call for a device is in flight, and the device's call is not")
    found = tuple(_left(each) if left and not each.action else each for each in p.inquiries if each.call in flying)
    return p if found == p.inquiries else replace(p, inquiries=found)


def _left(inquiry: Inquiry) -> Inquiry:
    return replace(inquiry, action="cancel", by="a signal")
