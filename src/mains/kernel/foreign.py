"""Foreign calls: calls that another program makes itself, on an account of this home. Operations.

    take(tx, ...)        a hold, before the call; the same key and body: the same hold
    send(tx, hold)       the call goes out now
    settle(tx, ...)      what it used; after the end, an adjustment
    void(tx, hold)       it did not happen
    expire(tx, hold)     its time is over
    set_back(tx, world)  the clock was set back: no hold lasts longer from now on than one may
    recover(tx, world)   the kernel was gone: calls that were out are posted whole

A process's calls are made by the kernel (`turns.py`); these are somebody else's, who may be slow, late or gone. So each
hold has a time limit, after which it is released, or posted whole when its call was sent.
"""

from __future__ import annotations

import msgspec

from mains.errors import LimitError, NotFoundError, UsageError
from mains.kernel import accounts, ledger, limits, timers
from mains.kernel.calls import first_in_line, share_room
from mains.kernel.ledger import Charge, Hold, Label, Price, Unpriced
from mains.kernel.limits import NAMED, Refusal
from mains.kernel.ports import Usage
from mains.kernel.tx import Row, Tx
from mains.kernel.world import World

NAME_MAX = 200  # characters of a key, an engine, a model
TOKENS_MAX = 10**9
_LATER = "try again when other calls have ended"


class Ask(msgspec.Struct, frozen=True):
    """What a call needs: the account (a name), its tokens, where it goes, its key, and the time until it is over."""

    account: str
    input_tokens: int
    output_tokens_max: int
    engine: str
    model: str
    key: str
    timeout_ms: int

    @property
    def text(self) -> str:
        """What the same key must stand for again."""
        what = (self.account or "home", self.input_tokens, self.output_tokens_max, self.engine, self.model)
        return msgspec.json.encode(what).decode()


def take(tx: Tx, world: World, ask: Ask) -> Hold:
    """A hold for a call. Raises UsageError, NotFoundError, LimitError (there is no room); then nothing is held."""
    _check(world, ask)
    at = accounts.named(tx, ask.account or "home")
    if row := tx.one("hold_by_key", ask.key):
        return _again(row, ask)
    _, slash, program = at.name.partition("/")
    payer = at.chain[1] if slash else at.account
    label = Label(ask.engine, ask.model, program, payer, ask.key, ask.text)
    price = Price(world.tariffs.find(ask.engine, ask.model, tx.now_ms), tx.now_ms + ask.timeout_ms)
    least = world.settings.output_tokens_min
    tokens = ask.input_tokens + min(least, ask.output_tokens_max)
    nano = ledger.cost_at_most(price, ask.input_tokens, tokens - ask.input_tokens, tx.now_ms)
    if waits := first_in_line(tx, at.chain, NAMED, tokens, nano):
        raise LimitError(f"processes wait for room already: {waits.text()}", hint=_LATER)
    hold = ledger.take(tx, at.chain, ask.input_tokens, ask.output_tokens_max, least, label, price, "held")
    if isinstance(hold, Unpriced):
        raise LimitError(hold.text(label), hint=hold.hint)
    if isinstance(hold, Refusal):
        hint = "wait for a new window, or top it up" if hold.hopeless else _LATER
        raise LimitError(limits.explain(tx, hold), hint=hint)
    timers.arm(tx, tx.now_ms + ask.timeout_ms, -hold.id, timers.HOLD)
    return hold


def _check(world: World, ask: Ask) -> None:
    for what, name, least in (("key", ask.key, 1), ("engine", ask.engine, 0), ("model", ask.model, 0)):
        if not least <= len(name) <= NAME_MAX:
            raise UsageError(f"the {what} of a hold has {least} to {NAME_MAX} characters, not {len(name)}")
    counts = ask.input_tokens, ask.output_tokens_max
    if not _whole(counts) or not 0 <= counts[0] <= TOKENS_MAX or not 0 < counts[1] <= TOKENS_MAX:
        told = f"a hold needs input_tokens of 0 or more and output_tokens_max above 0, {TOKENS_MAX:,} at most"
        raise UsageError(f"{told}, in whole tokens")
    if not 0 < ask.timeout_ms <= world.reach_ms:
        raise UsageError(
            f"timeout_ms is above 0 and {world.reach_ms:,} at most (model_timeout_s), not {ask.timeout_ms:,}"
        )


def _again(row: Row, ask: Ask) -> Hold:
    """The hold that has this key already."""
    number, tokens, nano, tariff, asked = row
    if asked != ask.text:
        raise UsageError(
            f"the key `{ask.key}` belongs to hold {number}, which is another call's", hint="take another key"
        )
    return Hold(number, tokens, tokens - ask.input_tokens, nano, tariff)


def send(tx: Tx, hold: int) -> None:
    """The call goes out now. Raises NotFoundError, UsageError."""
    _, state = _row(tx, hold)
    if state == "held":
        ledger.dispatch(tx, hold)
    elif state != "dispatched":
        raise UsageError(f"hold {hold} has ended: it is {state}", hint="take another one")


def settle(tx: Tx, hold: int, usage: Usage | None) -> Charge:
    """What a call used (None: not known, so all of its hold). After its end: the difference, as an adjustment."""
    _check_usage(usage)
    chain, state = _row(tx, hold)
    if state in ("held", "dispatched"):
        charge = ledger.post(tx, chain, hold, usage)
        timers.disarm(tx, -hold)
    elif usage is None:
        return Charge()
    else:
        charge = ledger.adjust(tx, chain, hold, usage)
    share_room(tx, chain)
    return charge


def _check_usage(usage: Usage | None) -> None:
    """Raises UsageError for what no call can have used."""
    if usage is None:
        return
    counts = msgspec.structs.astuple(usage)
    if not _whole(counts) or not all(0 <= count <= TOKENS_MAX for count in counts):
        raise UsageError(f"usage is counted in whole tokens from 0 to {TOKENS_MAX:,}")
    if usage.cached_tokens > usage.input_tokens:
        told = f"{usage.cached_tokens:,} cached tokens are more than {usage.input_tokens:,} tokens of input"
        raise UsageError(f"{told}, of which they are a part")


def _whole(counts: tuple[object, ...]) -> bool:
    """Whether these are whole numbers: a caller in Python may give anything."""
    return all(type(count) is int for count in counts)


def void(tx: Tx, hold: int) -> None:
    """A call that did not happen. Raises UsageError when its hold has ended otherwise."""
    chain, state = _row(tx, hold)
    if state == "voided":
        return
    if state not in ("held", "dispatched"):
        raise UsageError(f"hold {hold} has ended: it is {state}")
    ledger.void(tx, chain, hold)
    timers.disarm(tx, -hold)
    share_room(tx, chain)


def expire(tx: Tx, hold: int) -> None:
    """The time of a call is over."""
    chain, state = _row(tx, hold)
    if state in ("held", "dispatched"):
        ledger.expire(tx, chain, hold)
        share_room(tx, chain)


def set_back(tx: Tx, world: World) -> None:
    """Let no hold last longer than `model_timeout_s` from now on.

    The time of a hold is an hour of the wall clock. One that was taken before the clock went back would last until that
    hour comes again, and take room away from others meanwhile.
    """
    timers.no_later(tx, timers.HOLD, tx.now_ms + world.reach_ms)


def recover(tx: Tx, world: World) -> None:
    """Post whole what was out when the kernel ended: its usage can still come, as an adjustment."""
    set_back(tx, world)
    for hold, owner, _, _, state, *_ in tx.run("hold_foreign").fetchall():
        if state == "dispatched":
            chain = accounts.place(tx, owner).chain
            ledger.post(tx, chain, hold, None)
            timers.disarm(tx, -hold)
            share_room(tx, chain)


def _row(tx: Tx, hold: int) -> tuple[tuple[int, ...], str]:
    row = tx.one("hold_get", hold) if 0 < hold < 1 << 63 else None
    if row is None or 0 < row[0] < NAMED:
        raise NotFoundError(f"there is no hold {hold}")
    return accounts.place(tx, row[0]).chain, row[1]
