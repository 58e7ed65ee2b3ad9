"""The operations of a turn. Each runs in one transaction; together they are the only way a turn moves.

    begin     READY -> intent: a model call with its hold, or the device calls that are due
    replied   the model's reply: settle the hold, do the syscalls, mark the device calls that go out at once
    failed    the model call failed: settle by what it may have cost; try again later or elsewhere, or stop and say why
    unserved  the engine is not there: try elsewhere, or stop and say why
    returned  a device call's result; what is due next goes out in the same commit
    doubted   a device broke in the middle of a call that may not be repeated
    fire      timers that are due

An operation that comes too late (its process ended or was answered meanwhile) changes nothing and gives None.
"""

from __future__ import annotations

from mains.errors import ConfigError, EngineError, ProgramError, Spent
from mains.kernel import asks, execs, fallback, foreign, intents, ledger, pages, paging, schedules, timers
from mains.kernel.calls import (
    arguments_of,
    awaited,
    counted,
    deliver,
    end,
    find,
    finish,
    give_up_within,
    next_calls,
    over,
    rested,
    return_call,
    share_room,
)
from mains.kernel.context import cut, tokens_of
from mains.kernel.event import Answered, AskFailed, Called, Doubted, Faulted, Replied, Tidied, Woken
from mains.kernel.making import Making
from mains.kernel.ports import Message, Usage
from mains.kernel.process import Call, CallState, Process, State
from mains.kernel.syscalls import End
from mains.kernel.tx import Tx
from mains.kernel.verdict import Toolbox, Verdict
from mains.kernel.world import World


def begin(tx: Tx, world: World, pid: int, engine: str = "") -> Process | None:
    """Record what a READY process does next. None: nothing (it is not READY, or there is no room for its call).

    `engine` has a slot for it: its own, or one that serves it as well, which it takes then.
    """
    p = tx.process(pid)
    if p is None or p.state is not State.READY:
        return None
    if any(c.state is CallState.PENDING for c in p.calls):
        return tx.happen(p, Called(calls=next_calls(p.calls)))
    if p.next is not None:
        execs.take(tx, p)  # its engine may be another: it is queued there when this is committed
        return None
    if fallback.is_due_back(p, tx.now_ms):
        tx.happen(p, fallback.rerouted(p, 0, tx.now_ms, world.settings))  # it is queued there when this is committed
        return None
    if engine and engine != p.engine:
        group, names = p.routes[p.route].group if p.routes else "", [route.engine for route in p.routes]
        if engine not in names or not group or p.routes[names.index(engine)].group != group:
            return None  # it was given another engine meanwhile, and waits for that one
        p = tx.happen(p, fallback.placed(p, names.index(engine)))
    if p.turn - p.idle_turn >= world.settings.turns_max:
        over(tx, p, 1, "", f"the turn limit is reached ({world.settings.turns_max}, turns_max)", world.settings)
        return None
    try:
        asked = asks.ask(tx, world, p)
    except ConfigError as error:
        unserved(tx, world, pid, p.engine, error)
        return None
    if isinstance(asked, str):
        _misfit(tx, world, tx.process(pid) or p, asked)
        return None
    return asked


def _misfit(tx: Tx, world: World, p: Process, why: str) -> None:
    """No frame of a READY process fits its engine: it goes where there is more room, or stops and says why."""
    if roomier := fallback.roomier(p):
        tx.happen(p, fallback.rerouted(p, roomier[0], tx.now_ms, world.settings, why))
        return
    finish(tx, _faulted(tx, p, fallback.told(p, why), unread=True), world.settings)
    share_room(tx, p.accounts)  # room that it was woken for is the next one's


def replied(
    tx: Tx, world: World, pid: int, hold: int, verdict: Verdict, usage: Usage | None, box: Toolbox
) -> Process | None:
    """Record a reply and everything that the kernel can do about it at once."""
    p = _asking(tx, pid, hold)
    if p is None:
        return None
    usage = counted(usage) if usage else None
    charged = ledger.post(tx, p.accounts, hold, usage)
    spent = usage or Usage(output_tokens=charged.tokens)
    turn = Making(tx, world, p, box)
    for index, planned in enumerate(verdict.calls):
        turn.make(index, planned)
    p, page = turn.process, pages.put_message(tx, verdict.message)
    after_pages, after_tokens = _mend_pages(tx, verdict)
    results = [c.page for c in turn.calls]
    before = p
    p = tx.happen(
        p,
        Replied(
            hold=hold, posted=charged.tokens, page=page, tokens=tokens_of(verdict.message) + after_tokens + turn.tokens,
            calls=tuple(turn.calls), after=after_pages, messages=tuple(turn.messages), mended=verdict.bad,
            spawned=turn.spawned, input_tokens=spent.input_tokens, cached_tokens=spent.cached_tokens,
            output_tokens=spent.output_tokens, cost_nano=charged.nano,
            rated=turn.rated, untrusted=turn.untrusted,
        ),
    )  # fmt: skip
    pages.extend(tx, before, [page, *after_pages, *(results if not p.calls else ())])
    for call in p.calls:
        if call.due_ms:
            timers.arm(tx, call.due_ms, pid, call.id)
    share_room(tx, p.accounts)
    if p.mail and turn.ended is None:
        p = deliver(tx, p, world.settings)  # a letter to itself, or one that came while it was asking
    return _after_reply(tx, world, p, verdict, turn.ended)


def _after_reply(tx: Tx, world: World, p: Process, verdict: Verdict, ended: End | None) -> Process:
    settings = world.settings
    if ended is not None:
        return end(tx, p, ended.code, ended.result, "", settings)
    if verdict.bad and p.mends > settings.mends_max:
        why = verdict.mend or verdict.calls[0].error
        return over(tx, p, 1, "", f"the model did not mend its reply in {settings.mends_max} tries: {why}", settings)
    if not verdict.calls and not verdict.mend:
        if p.mail and not p.reads_mail and not (p.ending or p.interrupted):
            return p  # somebody wrote meanwhile: the next turn reads it
        return over(tx, p, verdict.code, verdict.result, verdict.detail, settings)
    return _go_on(tx, finish(tx, p, settings))


def _go_on(tx: Tx, p: Process) -> Process:
    """Issue what is due, unless the process was paused, is ending or interrupted, or is in doubt."""
    if (
        p.paused
        or p.ending
        or p.interrupted
        or p.exit_code is not None
        or any(c.state is CallState.IN_DOUBT for c in p.calls)
    ):
        return p
    due = next_calls(p.calls)
    return tx.happen(p, Called(calls=due)) if due else p


def _mend_pages(tx: Tx, verdict: Verdict) -> tuple[tuple[str, ...], int]:
    if not verdict.mend:
        return (), 0
    message = Message(role="user", text=verdict.mend)
    return (pages.put_message(tx, message),), tokens_of(message)


def failed(tx: Tx, world: World, pid: int, hold: int, error: EngineError, backoff_ms: int) -> Process | None:
    """Record that a model call failed, and when it is made again."""
    p = _asking(tx, pid, hold)
    if p is None:
        return None
    assert p.asking is not None
    charged, asking = ledger.Charge(), p.asking
    if error.spent is Spent.NOTHING:
        ledger.void(tx, p.accounts, hold)
    else:
        charged = ledger.post(tx, p.accounts, hold, None)
    going_on = not (p.ending or p.interrupted or p.idle)
    step = fallback.after_failure(p, error, world.settings) if going_on else None
    retry_ms = tx.now_ms + backoff_ms if step == fallback.AGAIN else 0
    p = tx.happen(p, _ask_failed(hold, charged, str(error), retry_ms, fallback.is_refusal(error)))
    if step == fallback.AGAIN:
        timers.arm(tx, retry_ms, pid, timers.RETRY)
    elif step is not None:
        wish_ms = fallback.wish_ms(error, world.settings)  # for which its lane is closed, to everybody
        p = tx.happen(p, fallback.rerouted(p, step, tx.now_ms, world.settings, str(error), wish_ms / 1_000))
    elif going_on and (old := asking.summary) is not None:
        p = paging.extracted(tx, world, p, old)
    elif going_on:
        tries = f" ({tried} tries)" if (tried := p.failures + p.refusals) > 1 else ""
        p = _faulted(tx, p, f"{fallback.told(p, str(error))}{tries}")
    share_room(tx, p.accounts)
    return finish(tx, p, world.settings)


def _ask_failed(hold: int, charged: ledger.Charge, reason: str, retry_ms: int, refused: bool = False) -> AskFailed:
    return AskFailed(
        hold=hold, posted=charged.tokens, cost_nano=charged.nano, reason=reason, retry_ms=retry_ms, refused=refused
    )


def _faulted(tx: Tx, p: Process, why: str, *, unread: bool = False) -> Process:
    """No engine can serve it: a conversation tells whoever talks with it, any other process stops."""
    return rested(tx, p, why, unread=unread) if p.conversation else tx.happen(p, Faulted(detail=why))


def unserved(tx: Tx, world: World, pid: int, engine: str, error: ConfigError) -> Process | None:
    """`engine` of a READY process is not there: take the next one, or stop and say why.

    A conversation rests with its mail unread: nothing could read it, and it would be READY again and again.
    """
    why = f"{error} ({error.hint})" if error.hint else str(error)
    p = tx.process(pid)
    if p is None or p.state is not State.READY or p.engine != engine:
        return None
    if p.next is not None:
        return execs.take(tx, p)  # which may not need that engine
    if p.idle:
        return tx.happen(p, Tidied())
    index = fallback.after_absence(p)
    if index is None:
        p = finish(tx, _faulted(tx, p, fallback.told(p, why), unread=True), world.settings)
        share_room(tx, p.accounts)  # room that it was woken for is the next one's
        return p
    return tx.happen(p, fallback.rerouted(p, index, tx.now_ms, world.settings, why))


def interrupted(tx: Tx, world: World, pid: int) -> Process | None:
    """A model call that we broke off ourselves (TERM, INT). What it spent is not known."""
    p = tx.process(pid)
    if p is None or p.asking is None:
        return None
    return failed(tx, world, pid, p.asking.hold, EngineError("interrupted", retryable=False, spent=Spent.UNKNOWN), 0)


def returned(tx: Tx, world: World, pid: int, call_id: str, text: str) -> Process | None:
    """Record a device call's result, and issue what is due after it."""
    p = tx.process(pid)
    call = find(p, call_id) if p else None
    if p is None or call is None or call.state is not CallState.IN_FLIGHT:
        return None
    return _go_on(tx, return_call(tx, p, call, cut(text, world.settings.result_bytes_max), world.settings))


def doubted(tx: Tx, world: World, pid: int, call_ids: tuple[str, ...], why: str) -> Process | None:
    """Calls of which nobody knows whether they happened: repeated where that is safe, else by the program's policy."""
    p = tx.process(pid)
    if p is None or p.state is State.EXITED:
        return None
    flying = [c for c in p.calls if c.id in call_ids and c.state is CallState.IN_FLIGHT]
    p = give_up_within(tx, p, [c.id for c in flying], why)
    safe = tuple(c.id for c in flying if c.repeatable)
    rest = tuple(c.id for c in flying if not c.repeatable)
    policy = _on_doubt(tx, world, p)
    if safe:
        p = tx.happen(p, Doubted(calls=safe), Answered(calls=safe, by="repeatable"))
    if rest:
        p = tx.happen(p, Doubted(calls=rest))
        tried = max(c.attempt for c in p.calls if c.id in rest)
        if policy == "retry" and tried < world.settings.device_attempts_max:
            p = tx.happen(p, Answered(calls=rest, by="on_doubt: retry"))
        elif policy == "skip":
            for call in [c for c in p.calls if c.id in rest]:
                p = return_call(tx, p, call, f"skipped: it may or may not have happened ({why})", world.settings)
    return finish(tx, p, world.settings)


def _on_doubt(tx: Tx, world: World, p: Process) -> str:
    """The program's policy. Of one that is not taken any more (lower limits, a stricter Mains): a person is asked."""
    try:
        return world.program(pages.get(tx, p.program)).on_doubt
    except ProgramError:
        return "ask"


def faulted(tx: Tx, world: World, pid: int, detail: str) -> Process | None:
    """Stop a process whose turn failed in a way that nobody foresaw. Its hold is posted whole."""
    p = tx.process(pid)
    if p is None or p.state is State.EXITED:
        return None
    if p.asking:
        charged = ledger.post(tx, p.accounts, p.asking.hold, None)
        p = tx.happen(p, _ask_failed(p.asking.hold, charged, detail, 0))
    flying = tuple(c.id for c in p.calls if c.state is CallState.IN_FLIGHT)
    if flying:
        p = tx.happen(give_up_within(tx, p, flying, detail), Doubted(calls=flying))
    p = tx.happen(p, Faulted(detail=detail))
    share_room(tx, p.accounts)  # of its hold, or for which it was woken
    return finish(tx, p, world.settings)


def fire(tx: Tx, world: World) -> int:
    """Wake whom the due timers name; how many there were (at most `wakes_per_commit_max`)."""
    due = timers.take_due(tx, world.settings.wakes_per_commit_max)
    roomy: dict[int | None, None] = {}
    for pid, call_id in due:
        if call_id == timers.HOLD:
            foreign.expire(tx, -pid)
            continue
        p = tx.process(pid)
        if p is None or p.state is State.EXITED:
            continue
        if call_id == timers.SLOT:
            schedules.due(tx, world, p)
            continue
        if call_id == timers.ROOM:
            roomy[intents.room(tx, p)] = None
            continue
        if call_id == timers.RETRY:
            if p.retry_ms and p.retry_ms <= tx.now_ms:
                tx.happen(p, Woken())
            continue
        call = find(p, call_id)
        if call and call.state is CallState.WAITING:
            return_call(tx, p, call, _late(tx, p, call), world.settings)
    share_room(tx, tuple(account for account in roomy if account is not None))
    return len(due)


def _late(tx: Tx, p: Process, call: Call) -> str:
    """The result of a call whose time is over."""
    if call.on == "child":
        return awaited(tx, p, call.id, call.tool, arguments_of(tx, p, call), late=True)
    return "no message came in time" if call.on == "message" else "slept"


def _asking(tx: Tx, pid: int, hold: int) -> Process | None:
    p = tx.process(pid)
    return p if p and p.asking and p.asking.hold == hold else None
