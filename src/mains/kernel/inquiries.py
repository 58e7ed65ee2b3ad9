"""Inquiries: what devices want in the middle of a call of a process. Operations.

    ask(tx, world, question)      a person is asked; the inquiry, open
    wish(tx, world, wish)         a model is asked: allowed, denied, or a person decides first (`DEVICE.sampling`)
    answer(tx, world, p, ...)     a person answers
    cancel(tx, pid, ids, why)     those that are open: nobody answers any more
    begin(tx, world, ...)         the intent of a model call that is allowed, with its hold
    ended(tx, ...), failed(...)   its result; what it has cost

The process is RUNNING all the while: its call of the device is in flight. What its model said goes to the device and
never into its context; what it has cost is the process's. Raises UsageError for a call that is not in flight.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from mains.errors import EngineError, LimitError, Spent, UsageError
from mains.kernel import form, ledger, limits, pages, permits
from mains.kernel.calls import counted, find, first_in_line, give_up, share_room
from mains.kernel.context import tokens_of, whole_text
from mains.kernel.cover import window
from mains.kernel.form import Words
from mains.kernel.inquired import Inquired, Resolved, Sampled, SampleEnded
from mains.kernel.ledger import Label, Price
from mains.kernel.ports import CallContext, Question, Reply, Tool, Usage, Wish
from mains.kernel.process import PERMITS, Action, Asking, Call, CallState, Inquiry, InquiryKind, Process, Rated
from mains.kernel.tx import Tx
from mains.kernel.world import World

SAMPLING = "sampling"
"""What a device's wish for a model is called among its tools."""

_PROMPT_CHARS = 2_000  # of what a model is asked, that a person is shown


def ask(tx: Tx, world: World, question: Question) -> Inquiry:
    """Let a person be asked. Raises UsageError (what is no form and no page of the web, too), LimitError."""
    words = Words(question.text, question.schema, question.url)
    form.asked(question.device, words)
    p, call = _flying(tx, world, question.device, question.call)
    return _inquire(tx, world, p, call, question.device, "url" if question.url else "form", words)


def wish(tx: Tx, world: World, wanted: Wish) -> Inquiry:
    """Let a model be asked, if that is allowed: then its action is `accept`; `decline`: `by` says who forbids it."""
    p, call = _flying(tx, world, wanted.device, wanted.call)
    size = sum(len(message.text.encode()) for message in wanted.messages)
    if size > world.settings.message_bytes_max:
        raise LimitError(
            f"{size:,} bytes for a model, at most {world.settings.message_bytes_max:,} (message_bytes_max)"
        )
    prompt = "\n\n".join(f"{message.role}: {message.text}" for message in wanted.messages)
    words = Words(f"at most {_output_tokens(p, wanted):,} tokens", prompt=prompt)
    tool = Tool(f"{wanted.device}.{SAMPLING}", "", {}, attached=True)
    decision, rated = permits.decide(tx, world, p, tool, {}, ())
    actions: dict[str, Action] = {"allow": "accept", "deny": "decline", "ask": ""}
    by = decision.why or decision.by
    return _inquire(tx, world, p, call, wanted.device, "sampling", words, actions[decision.effect], by, rated)


def _flying(tx: Tx, world: World, device: str, context: CallContext) -> tuple[Process, Call]:
    p = tx.process(context.pid)
    call = find(p, context.key.removeprefix(f"{context.pid}-")) if p else None
    if p is None or call is None or call.state is not CallState.IN_FLIGHT or call.attempt != context.attempt:
        raise UsageError("the call that this belongs to is not in flight")
    if call.tool.partition(".")[0] != device:
        raise UsageError(f"that call is none of the device {device}")
    if p.paused or p.ending or p.interrupted:
        raise UsageError(f"process {p.pid} was told to stop: nobody answers")
    if sum(each.call == call.id for each in p.inquiries) >= world.settings.device_asks_max:
        raise LimitError(f"{world.settings.device_asks_max} things were asked within one call (device_asks_max)")
    return p, call


def _inquire(
    tx: Tx, world: World, p: Process, call: Call, device: str, kind: InquiryKind, words: Words, action: Action = "",
    by: str = "", rated: tuple[Rated, ...] = (),
) -> Inquiry:  # fmt: skip
    try:
        data = msgspec.json.encode(words)
    except UnicodeEncodeError as error:
        raise UsageError("what is asked is no Unicode text") from error
    if len(data) > (most := world.settings.message_bytes_max):
        raise LimitError(f"what is asked has {len(data):,} bytes, at most {most:,} (message_bytes_max)")
    count = sum(each.call == call.id for each in p.inquiries) + 1
    inquiry = Inquiry(
        id=f"{call.id}.{call.attempt}.{count}",
        call=call.id,
        device=device,
        kind=kind,
        page=pages.put(tx, "inquiry", data),
        due_ms=0 if action else tx.now_ms + round(world.settings.device_answer_s * 1_000),
        action=action,
        by=by,
    )
    tx.happen(p, Inquired(inquiry=inquiry, rated=rated))
    return inquiry


def told(device: str, kind: str, words: Words) -> str:
    """What a person is asked, whoever reads it."""
    if kind != SAMPLING:
        return form.asked(device, words)
    what = f"may the device {device} put a text to the model, on the account of this process ({words.text})?"
    return f"{what} Answer {', '.join(PERMITS)} or no. The text: {form.quoted(words.prompt, _PROMPT_CHARS)}"


def answer(tx: Tx, p: Process, inquiry: Inquiry, text: str) -> None:
    """A person answers an open inquiry. Raises UsageError that says what does not fit; it stays open."""
    verb = text.strip().lower()
    if inquiry.kind == SAMPLING:
        _permit(tx, p, inquiry, verb)
    elif verb in ("decline", "cancel"):
        tx.happen(p, Resolved(inquiry=inquiry.id, action="decline" if verb == "decline" else "cancel", by="a person"))
    elif inquiry.kind == "url":
        if verb != "accept":
            raise UsageError(f"answer accept, decline or cancel, not {text[:40]!r}")
        tx.happen(p, Resolved(inquiry=inquiry.id, action="accept", by="a person"))
    else:
        words = msgspec.json.decode(pages.get(tx, inquiry.page), type=Words)
        values = form.answer_of(form.form_of(words.schema), text)
        page = pages.put(tx, "answer", msgspec.json.encode(values))
        tx.happen(p, Resolved(inquiry=inquiry.id, action="accept", by="a person", answer=page))


def _permit(tx: Tx, p: Process, inquiry: Inquiry, verb: str) -> None:
    if verb not in (*PERMITS, "no"):
        told = f"process {p.pid} asks whether {inquiry.device} may use the model: answer {', '.join(PERMITS)} or no"
        raise UsageError(f"{told}, not {verb[:40]!r}")
    approved = f"{inquiry.device}.{SAMPLING}" if verb in ("process", "always") else ""
    action: Action = "decline" if verb == "no" else "accept"
    tx.happen(p, Resolved(inquiry=inquiry.id, action=action, by=f"a person ({verb})", approved=approved))


def cancel(tx: Tx, pid: int, why: str, ids: Collection[str] = ()) -> None:
    """Nobody answers these any more (none named: any), and what a model was asked comes to nothing."""
    p = tx.process(pid)
    if p is None:
        return
    for each in p.inquiries:
        if (not ids or each.id in ids) and not each.action:
            p = tx.happen(p, Resolved(inquiry=each.id, action="cancel", by=why))
    give_up(tx, p, [each for each in p.inquiries if not ids or each.id in ids], why)
    share_room(tx, p.accounts)


# ------------------------------------------------------------------------------------------------------- a model


def input_tokens(wanted: Wish) -> int:
    """An estimate of what the model must read."""
    return sum(map(tokens_of, wanted.messages))


def _output_tokens(p: Process, wanted: Wish) -> int:
    return max(1, min(wanted.output_tokens_max, p.output_tokens_max))


def begin(tx: Tx, world: World, pid: int, number: str, wanted: Wish) -> Asking:
    """Take the hold of a model call that is allowed. It waits for no room: a device's call is in flight meanwhile.

    Raises LimitError: there is no room. UsageError: it is not wanted any more.
    """
    p = tx.process(pid)
    inquiry = next((each for each in p.inquiries if each.id == number), None) if p else None
    if p is None or inquiry is None or p.paused or p.ending or p.interrupted:
        raise UsageError("the call that this belongs to is not in flight")
    reads, output = input_tokens(wanted), _output_tokens(p, wanted)
    if (room := window(world.settings, p) + p.reserve_tokens) < reads:
        raise LimitError(f"some {reads:,} tokens to read, at most {room:,} fit")
    price = Price(world.tariffs.find(p.engine, p.model, tx.now_ms), tx.now_ms + world.reach_ms)
    least = min(world.settings.output_tokens_min, output)
    nano = ledger.cost_at_most(price, reads, least, tx.now_ms)
    label = Label(p.engine, p.model, p.name, p.tenant)
    hold = first_in_line(tx, p.accounts, p.pid, reads + least, nano) or ledger.take(
        tx, p.accounts, reads, output, least, label, price
    )
    if isinstance(hold, ledger.Unpriced):
        raise LimitError(hold.text(label), hint=hold.hint)
    if isinstance(hold, limits.Refusal):
        raise LimitError(limits.explain(tx, hold))
    asking = Asking(hold.id, hold.tokens, hold.output_tokens_max, p.engine, 1, nano=hold.nano, tariff=hold.tariff)
    tx.happen(p, Sampled(inquiry=number, asking=asking))
    return asking


def ended(tx: Tx, pid: int, number: str, hold: int, reply: Reply) -> None:
    """The model has answered. Nothing when the call has ended meanwhile: then its hold was posted whole."""
    p = _sampling(tx, pid, number, hold)
    if p is None:
        return
    usage = counted(reply.usage) if reply.usage else None
    charged = ledger.post(tx, p.accounts, hold, usage)
    spent = usage or Usage(output_tokens=charged.tokens)
    page = pages.put(tx, "answer", whole_text(reply.text).encode())
    tx.happen(
        p,
        SampleEnded(
            inquiry=number, hold=hold, posted=charged.tokens, answer=page, input_tokens=spent.input_tokens,
            cached_tokens=spent.cached_tokens, output_tokens=spent.output_tokens, cost_nano=charged.nano,
        ),
    )  # fmt: skip
    share_room(tx, p.accounts)


def failed(tx: Tx, pid: int, number: str, hold: int, error: EngineError) -> None:
    """The model call has failed. It is not made again: the device may ask once more."""
    p = _sampling(tx, pid, number, hold)
    if p is None:
        return
    if error.spent is Spent.NOTHING:
        ledger.void(tx, p.accounts, hold)
        tx.happen(p, SampleEnded(inquiry=number, hold=hold, posted=0, fault=str(error)))
    else:
        give_up(tx, p, [each for each in p.inquiries if each.id == number], str(error))
    share_room(tx, p.accounts)


def _sampling(tx: Tx, pid: int, number: str, hold: int) -> Process | None:
    p = tx.process(pid)
    if p is None:
        return None
    return p if any(each.id == number and each.asking and each.asking.hold == hold for each in p.inquiries) else None
