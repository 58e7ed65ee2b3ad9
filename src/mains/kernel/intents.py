"""Intents: what a model call needs before it may go out - an hour that is not too dear, a price, and a hold.

    hold_for(tx, world, p, input_tokens)   a Hold; or None: it waits or stands, and its record says why
    spare_hold(...)                        the same for what may as well not be done: nobody waits for its room
    is_hopeless(...)                       there is too little room for it, whoever gives some back
    room(tx, p)                            its window has ended, or was topped up: it waits for room again

A hold that is refused because others hold the room is waited for (WAITING, quota); one for which there would be too
little even then opens the breaker (STOPPED, breaker) until a top-up or a new window. Nothing is lost and nothing fails.
"""

from __future__ import annotations

import msgspec

from mains.errors import ConfigError
from mains.kernel import ledger, limits, timers
from mains.kernel.calls import first_in_line, refuse, share_room
from mains.kernel.event import Deferred, Refused
from mains.kernel.ledger import Hold, Label, Price
from mains.kernel.limits import HOME
from mains.kernel.process import Process
from mains.kernel.tx import Tx
from mains.kernel.window import told
from mains.kernel.world import World

_ROOM = "there is room again"


class _Need(msgspec.Struct, frozen=True):
    """What a model call takes at least, in tokens and in money, and how it is priced."""

    price: Price
    input_tokens: int
    tokens: int
    nano: int


def hold_for(tx: Tx, world: World, p: Process, input_tokens: int) -> Hold | None:
    """A hold for the next model call of `p`. Raises ConfigError when no price is known and money is limited."""
    need = _need_of(tx, world, p, input_tokens)
    if p.band == "batch" and _waits_for_cheaper(tx, world, p, need.price):
        return None
    hold = _hold(tx, world, p, need)
    if isinstance(hold, Hold):
        return hold
    refuse(tx, p, hold, need.tokens, need.nano)
    share_room(tx, p.accounts)  # it waits no more, or elsewhere: the next in line may fit
    return None


def spare_hold(tx: Tx, world: World, p: Process, input_tokens: int) -> Hold | None:
    """A hold for what a conversation at rest does in band batch. None: it waits for a cheaper hour (`retry_ms`), or
    there is no room that nobody else waits for. Raises ConfigError like `hold_for`."""
    need = _need_of(tx, world, p, input_tokens)
    if _waits_for_cheaper(tx, world, p, need.price):
        return None
    hold = _hold(tx, world, p, need)
    return hold if isinstance(hold, Hold) else None


def is_hopeless(tx: Tx, world: World, p: Process, input_tokens: int) -> bool:
    """Whether there would be too little room for a call of `p` though nobody held any."""
    need = _need_of(tx, world, p, input_tokens)
    refused = limits.refusal(limits.of(tx, p.accounts, tx.now_ms), need.tokens, need.nano)
    return refused is not None and refused.hopeless


def _need_of(tx: Tx, world: World, p: Process, input_tokens: int) -> _Need:
    price = Price(world.tariffs.find(p.engine, p.model, tx.now_ms), tx.now_ms + world.reach_ms)
    least = min(world.settings.output_tokens_min, p.output_tokens_max)
    nano = ledger.cost_at_most(price, input_tokens, least, tx.now_ms)
    return _Need(price, input_tokens, input_tokens + least, nano)


def _hold(tx: Tx, world: World, p: Process, need: _Need) -> Hold | limits.Refusal:
    least, label = world.settings.output_tokens_min, Label(p.engine, p.model, p.name, p.tenant)
    hold = first_in_line(tx, p.accounts, p.pid, need.tokens, need.nano) or ledger.take(
        tx, p.accounts, need.input_tokens, p.output_tokens_max, least, label, need.price
    )
    if isinstance(hold, ledger.Unpriced):
        raise ConfigError(hold.text(label), hint=hold.hint)
    return hold


def _waits_for_cheaper(tx: Tx, world: World, p: Process, price: Price) -> bool:
    """Whether batch work waits for a cheaper hour, once for each call."""
    if p.deferred or price.tariff is None:
        return False
    cheaper_ms = price.tariff.cheaper_at_ms(tx.now_ms)
    latest_ms = tx.now_ms + round(world.settings.batch_wait_s * 1_000)
    if cheaper_ms is None or cheaper_ms > latest_ms:
        return False
    _defer(tx, p, cheaper_ms)
    return True


def _defer(tx: Tx, p: Process, until_ms: int) -> None:
    detail = f"batch work waits for a cheaper hour, until {told(until_ms, '')}"
    tx.happen(p, Deferred(until_ms=until_ms, detail=detail))
    timers.arm(tx, until_ms, p.pid, timers.RETRY)
    share_room(tx, p.accounts)  # room that it was woken for is the next one's


def room(tx: Tx, p: Process) -> int | None:
    """One that was refused joins those who wait for room; the account at which it waits, to be shared (`share_room`).

    So a top-up wakes the first, which wakes the next when it has its hold, as long as there is room.
    """
    if p.quota < 0 and p.fault != "breaker":
        return None
    found = limits.of(tx, p.accounts, tx.now_ms)
    refused = limits.refusal(found, p.wanted, p.wanted_nano)
    resets = [limit.span.until_ms for limit in found if limit.span.until_ms]
    if resets:
        timers.arm(tx, min(resets), p.pid, timers.ROOM)  # it may still wait then
    if p.quota >= 0:
        return p.quota
    if refused is not None and refused.hopeless:
        why = limits.explain(tx, refused)
        if why != p.detail:  # another limit than before, or another day
            tx.happen(p, Refused(quota=-1, wanted=p.wanted, detail=why, wanted_nano=p.wanted_nano))
        return None
    waits_at = refused.limit.account if refused else min(found, key=lambda limit: limit.left).account if found else HOME
    tx.happen(p, Refused(quota=waits_at, wanted=p.wanted, detail=_ROOM, wanted_nano=p.wanted_nano))
    return waits_at
