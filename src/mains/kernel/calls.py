"""Calls in progress: what is issued next, how a call gets its result, who that wakes, and how a process ends.

counted(usage)                    what an engine reported, within reason
next_calls(calls)                 which pending device calls may go out now (pure)
return_call(tx, p, call, text)    a result; the last one of a turn closes it into the context
deliver(tx, p)                    a message for a process that waits in `receive`
over(tx, p, code, text)           the turn has come to its end: a conversation rests, any other process ends
end(tx, p, code, text)            exit: holds settled, timers gone, a waiting parent told, freed room given on
give_up(tx, p, inquiries, why)    model calls that devices have asked for come to nothing
first_in_line(tx, accounts, ...)  who waits for room already goes before
share_room(tx, accounts)          wake who waits for room that came free
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import msgspec

from mains.kernel import ledger, limits, mailbox, pages, timers
from mains.kernel.context import tokens_of
from mains.kernel.cover import window
from mains.kernel.event import Exited, Refused, Rested, Returned, Woken
from mains.kernel.inquired import SampleEnded
from mains.kernel.ports import Message, Usage
from mains.kernel.process import GRANT, Call, CallState, Inquiry, Process, State
from mains.kernel.toolset import is_untrusted
from mains.kernel.tx import Tx
from mains.settings import Settings

TERM_CODE = 143
KILL_CODE = 137
_COUNT_MAX = 10**9  # tokens of one call: sums of many such still fit into the database's 64 bits
INTERRUPTED = "interrupted: a person stopped this turn before the call was done"


def counted(usage: Usage) -> Usage:
    """What an engine reported, without numbers below zero or above what any call can have."""
    return Usage(*(min(max(0, count), _COUNT_MAX) for count in msgspec.structs.astuple(usage)))


def next_calls(calls: tuple[Call, ...]) -> tuple[str, ...]:
    """The pending calls that may be issued now: read-only ones side by side, others alone and in order."""
    flying = [c for c in calls if c.state in (CallState.IN_FLIGHT, CallState.IN_DOUBT)]
    if any(not c.parallel for c in flying):
        return ()
    chosen: list[str] = []
    for call in calls:
        if call.on == GRANT and not call.parallel:
            break  # those behind it keep their place
        if call.state is not CallState.PENDING:
            continue
        if call.parallel:
            chosen.append(call.id)
            continue
        if not flying and not chosen:
            chosen.append(call.id)
        break
    return tuple(chosen)


def find(process: Process, call_id: str) -> Call | None:
    """An open call of this process by its id."""
    return next((c for c in process.calls if c.id == call_id), None)


def arguments_of(tx: Tx, process: Process, call: Call) -> dict[str, Any]:
    """The arguments of an open call, from the reply that made it."""
    reply = msgspec.json.decode(pages.get(tx, process.reply), type=Message)
    return own_arguments(call, reply.calls[call.index].arguments)


def own_arguments(call: Call, said: str) -> dict[str, Any]:
    """The arguments of a call, from the text that the model wrote."""
    arguments: dict[str, Any] = msgspec.json.decode(said or "{}")
    return arguments["arguments"] if call.late else arguments


def result_message(call_id: str, tool: str, text: str) -> Message:
    """A call's result as a message."""
    return Message(role="tool", text=text, call_id=call_id, name=tool)


def return_call(
    tx: Tx, p: Process, call: Call, text: str, settings: Settings, messages: tuple[int, ...] = ()
) -> Process:
    """Record a call's result. The last one of a turn closes the turn: all results join the context in order."""
    return finish(tx, _returned(tx, p, call, text, messages), settings)


def give_up(tx: Tx, p: Process, inquiries: Iterable[Inquiry], why: str) -> Process:
    """Model calls for a device come to nothing: nobody knows what they have spent, so their holds are posted whole."""
    for each in inquiries:
        if each.asking:
            charged, hold = ledger.post(tx, p.accounts, each.asking.hold, None), each.asking.hold
            ended = SampleEnded(
                inquiry=each.id, hold=hold, posted=charged.tokens, fault=why, output_tokens=charged.tokens,
                cost_nano=charged.nano,
            )  # fmt: skip
            p = tx.happen(p, ended)
    return p


def give_up_within(tx: Tx, p: Process, calls: Collection[str], why: str) -> Process:
    """The same for all that devices have asked for within these calls."""
    return give_up(tx, p, [each for each in p.inquiries if each.call in calls], why)


def _returned(tx: Tx, p: Process, call: Call, text: str, messages: tuple[int, ...] = ()) -> Process:
    p = give_up_within(tx, p, (call.id,), "the device has answered without it")
    message = result_message(call.id, call.tool, text)
    page = pages.put_message(tx, message)
    event = Returned(
        call=call.id, page=page, tokens=tokens_of(message), messages=messages, untrusted=is_untrusted(call)
    )
    after = tx.happen(p, event)
    if not after.calls:
        results = [page if c.id == call.id else c.page for c in p.calls]
        pages.extend(tx, p, results)
    return after


def finish(tx: Tx, p: Process, settings: Settings) -> Process:
    """End a process that was told to (TERM), or its turn (INT), once nothing of it is in flight."""
    if p.state in (State.RUNNING, State.EXITED):
        return p
    if p.ending:
        return end(tx, p, TERM_CODE, "", "terminated", settings)
    if not p.interrupted or any(c.state is CallState.IN_DOUBT for c in p.calls):
        return p  # who is in doubt is asked first
    for call in [c for c in p.calls if c.state is not CallState.DONE]:
        p = _returned(tx, p, call, INTERRUPTED)
    return rested(tx, p, p.detail if p.fault else "interrupted")


def rested(tx: Tx, p: Process, detail: str, *, unread: bool = False, tidy: bool = False) -> Process:
    """The turn of a conversation is over, for whatever reason: the next message begins another.

    So does mail that waits already, but after INT, and when it is to stay `unread`.
    """
    after = tx.happen(p, Rested(detail=detail, unread=unread, tidy=tidy))
    share_room(tx, p.accounts)
    return after


def over(tx: Tx, p: Process, code: int, result: str, detail: str, settings: Settings) -> Process:
    """A turn has come to its end. A conversation waits for the next message; any other process exits.

    What should leave its frame does so while it waits, when nobody does.
    """
    if p.conversation and not p.ending:
        high = window(settings, p) * settings.frame_high_percent // 100
        return rested(tx, p, detail, tidy=not p.mail and p.frame_tokens > high)
    return end(tx, p, code, result, detail, settings)


def deliver(tx: Tx, p: Process, settings: Settings) -> Process:
    """Give the oldest unread message to a process that waits for one in `receive`."""
    call = next((c for c in p.calls if c.state is CallState.WAITING and c.on == "message"), None)
    if call is None or not (mail := mailbox.unread(tx, p, 1)):
        return p
    return return_call(tx, p, call, letter(tx, mail[0]), settings, mailbox.consume(tx, mail))


def letter(tx: Tx, mail: mailbox.Mail) -> str:
    """A message as `receive` gives it: who sent it, and the text."""
    message = msgspec.json.decode(pages.get(tx, mail.page), type=Message)
    return f"from {mail.sender}: {message.text}"


def end(tx: Tx, p: Process, code: int, result: str, detail: str, settings: Settings) -> Process:
    """The end of a process: code, result, and why. A model call in flight is posted whole (it may have run)."""
    if p.asking:
        ledger.post(tx, p.accounts, p.asking.hold, None)
    p = give_up(tx, p, p.inquiries, "the process has ended")
    flying = [c.tool for c in p.calls if c.state in (CallState.IN_FLIGHT, CallState.IN_DOUBT)]
    if flying:
        detail = f"{detail}; in flight, may have happened: {', '.join(flying)}".removeprefix("; ")
    page = pages.put(tx, "result", result.encode()) if result else ""
    timers.disarm(tx, p.pid)
    after = tx.happen(p, Exited(code=code, result=page, detail=detail))
    share_room(tx, p.accounts)
    if p.parent and (parent := tx.process(p.parent)):
        if parent.run == p.pid and parent.slot_ms and parent.state is not State.EXITED:  # slots may wait for this end,
            timers.arm(tx, max(tx.now_ms, parent.slot_ms), parent.pid, timers.SLOT)  # though the clock has gone back
        _tell_parent(tx, parent, settings)
    return after


def _tell_parent(tx: Tx, parent: Process, settings: Settings) -> None:
    for call in parent.calls:
        if call.state is not CallState.WAITING or call.on != "child":
            continue
        if text := awaited(tx, parent, call.id, call.tool, arguments_of(tx, parent, call), late=False):
            parent = return_call(tx, parent, call, text, settings)


def awaited(tx: Tx, parent: Process, call_id: str, tool: str, arguments: dict[str, Any], *, late: bool) -> str:
    """The results that a `wait` (JSON) or a `spawn_each` (a Markdown list, in the order of the items) waits for.

    Empty while some are missing, unless `late`: then those say how they stand.
    """
    if tool == "spawn_each":
        if not late and tx.one("process_spawned_alive", parent.pid, call_id):
            return ""
        return "\n".join(_line_of(tx, child) for child in tx.processes("process_spawned", parent.pid, call_id))
    pids = arguments.get("pids")
    spawned = [c for c in tx.processes("process_children", parent.pid) if c.spawned_by]  # forks are not waited for
    children = [c for c in spawned if pids is None or c.pid in pids]
    if not late and any(c.state is not State.EXITED for c in children):
        return ""
    return msgspec.json.format(msgspec.json.encode([_told(tx, child) for child in children])).decode()


def _line_of(tx: Tx, child: Process) -> str:
    """A list item: what the child was spawned for, and its result (below it, indented, when it has several lines)."""
    told = _told(tx, child)
    text = told["result"] if told.get("exit_code") == 0 else f"(no result: {told.get('reason') or told['exit_code']})"
    lines = str(text).strip().splitlines() or [""]
    body = f" {lines[0]}" if len(lines) == 1 else "".join(f"\n  {line}" for line in lines)
    return f"- **{child.item}**:{body}"


def _told(tx: Tx, child: Process) -> dict[str, Any]:
    told: dict[str, Any] = {"pid": child.pid}
    if child.exit_code is None:
        return told | {"state": child.state.value, "reason": child.reason}
    result = pages.get(tx, child.result).decode() if child.result else ""
    return told | {"exit_code": child.exit_code, "result": result} | ({"reason": child.detail} if child.detail else {})


def refuse(tx: Tx, p: Process, refused: limits.Refusal, tokens: int, nano: int) -> Process:
    """No room for the next call of `p`: it waits for those who hold it, or stands (breaker) when nobody does."""
    if refused.resets_ms:
        timers.arm(tx, refused.resets_ms, p.pid, timers.ROOM)
    quota = -1 if refused.hopeless else refused.limit.account
    return tx.happen(p, Refused(quota=quota, wanted=tokens, detail=limits.explain(tx, refused), wanted_nano=nano))


def first_in_line(tx: Tx, accounts: tuple[int, ...], pid: int, tokens: int, nano: int) -> limits.Refusal | None:
    """Who waits for room and came before `pid` goes before: else a stream of small calls would starve a large one.

    A limit of which a call takes nothing has no line for it: what is free does not wait for money.
    """
    if not tx.quota_waiters:
        return None
    for limit in limits.of(tx, accounts, tx.now_ms):
        if not (wanted := tokens if limit.unit == "tokens" else nano):
            continue
        row = tx.one("process_quota_first", limit.account, pid)
        waiter = tx.process(row[0]) if row else None
        if waiter is not None and not waiter.paused:
            return limits.Refusal(limit, wanted, hopeless=False)
    return None


def share_room(tx: Tx, accounts: tuple[int, ...]) -> None:
    """Wake the first process that waits for room of each of these accounts, when there is room for it now.

    One whose limit is spent meanwhile stops (breaker): there is nothing to wait for. One that another limit holds up by
    now is woken: it must wait there. One that is paused takes no room: the next is looked at.
    """
    if not tx.quota_waiters:
        return
    for account in accounts:
        while row := tx.one("process_quota_next", account):
            waiter = tx.process(row[0])
            assert waiter is not None
            if waiter.paused:
                tx.happen(waiter, Woken())
                continue
            found = limits.of(tx, waiter.accounts, tx.now_ms)
            refused = limits.refusal(found, waiter.wanted, waiter.wanted_nano)
            if refused and not refused.hopeless and refused.limit.account == account:
                break
            if refused and refused.hopeless:
                refuse(tx, waiter, refused, waiter.wanted, waiter.wanted_nano)
                continue
            if tx.happen(waiter, Woken()).state is State.READY:
                break
