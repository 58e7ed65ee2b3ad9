"""Recovery: what a kernel does about those who were mid-turn when the one before it died.

Only RUNNING processes are touched. Their model call may have run: its hold is posted whole, and the call is made
again under a new hold. Their device calls are IN DOUBT (`turns.doubted`).
"""

from __future__ import annotations

from mains.errors import ConfigError
from mains.kernel import execs, foreign, ledger, pages
from mains.kernel.calls import finish, share_room
from mains.kernel.event import AskFailed, Noted
from mains.kernel.process import CallState, Image, Process, Route, State, replace
from mains.kernel.sized import sized
from mains.kernel.turns import doubted
from mains.kernel.tx import Tx, decode_process
from mains.kernel.world import World

_SIZED = b'"context_tokens":'  # in the record of a process that knows it
_WHY = "the kernel ended while the call was in flight"


def recover(tx: Tx, world: World, pids: list[int]) -> None:
    """Bring these processes, which were RUNNING, to a known state."""
    for pid in pids:
        p = tx.process(pid)
        if p is None or p.state is not State.RUNNING:
            continue
        if p.asking:
            charged = ledger.post(tx, p.accounts, p.asking.hold, None)
            failed = AskFailed(
                hold=p.asking.hold, posted=charged.tokens, cost_nano=charged.nano, reason=_WHY, crashed=True
            )
            p = tx.happen(p, failed)
            share_room(tx, p.accounts)
            p = finish(tx, tx.process(pid) or p, world.settings)
        flying = tuple(c.id for c in p.calls if c.state is CallState.IN_FLIGHT)
        if flying:
            doubted(tx, world, pid, flying, _WHY)


def boot(tx: Tx, world: World) -> None:
    """Make the home's accounts, end foreign calls whose kernel is gone, size old processes, and note the boot.

    Raises ConfigError when the world's currency is not that of the money in the ledger: what was charged, and limits.
    """
    currency = world.currency
    ledger.open_home(tx)
    row = tx.one("account_currency")
    if row and row[0] not in ("", currency) and _has_money(tx):
        told = f"the ledger counts in {row[0]}, and mains.toml says {currency}"
        raise ConfigError(told, hint=f'write currency = "{row[0]}": amounts that were charged cannot be converted')
    tx.run("account_currency_put", currency)
    foreign.recover(tx, world)
    learn(tx, world)
    tx.run("counter_start", "pruned_ms", tx.now_ms)  # the first prune comes a day after the first boot
    tx.append(0, Noted(text="boot"))


def _has_money(tx: Tx) -> bool:
    """Whether some tariff was ever used, or some limit is of money."""
    return tx.one("tariff_get", 1) is not None or any(unit == "money" for _, unit, *_ in tx.run("budget_all"))


def halt(tx: Tx) -> None:
    """Note an orderly halt."""
    tx.append(0, Noted(text="halt"))


def learn(tx: Tx, world: World) -> None:
    """Let live processes that an older Mains started know what their engines take in one call.

    They exec the image that they have: all that changes is its route. One whose engine was forced has no other route,
    notes in an opening are no part of an image, and a schedule makes no calls: its runs are sized at their birth.
    """
    for (body,) in tx.rows("process_unsized", _SIZED):
        p = decode_process(body)
        after = sized(world.route, p)
        as_it_is = p.engine_forced or p.notes_page or p.schedule or p.next or p.route
        if after.context_tokens and not as_it_is:
            first, *rest = after.routes or (Route(p.engine, p.model, after.context_tokens),)
            execs.plan(tx, p, _image(tx, p, replace(first, then=tuple(rest))))


def _image(tx: Tx, p: Process, route: Route) -> Image:
    """The image that `p` has, with another route."""
    return Image(
        name=p.name,
        path=p.path,
        program=p.program,
        tree=p.tree,
        inputs=p.inputs,
        tools=p.tools,
        above=p.above,
        opening=pages.opening_of(tx.rows, p),
        opening_tokens=p.opening_tokens,
        reads_mail=p.reads_mail,
        remembers=p.remembers,
        band=p.band,
        route=route,
        reserve_tokens=p.reserve_tokens,
        output_tokens_max=p.output_tokens_max,
        frame_tokens_max=p.frame_tokens_max,
        segments=tuple(each.segment for each in p.segments if each.program),
        schedule=p.schedule,
    )
