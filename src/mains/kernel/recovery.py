"""Recovery: what a kernel does about those who were mid-turn when the one before it died.

Only RUNNING processes are touched. Their model call may have run: its hold is posted whole, and the call is made
again under a new hold. Their device calls are IN DOUBT (`turns.doubted`).
"""

from __future__ import annotations

from mains.errors import ConfigError
from mains.kernel import foreign, ledger
from mains.kernel.calls import finish, share_room
from mains.kernel.event import AskFailed, Noted
from mains.kernel.process import CallState, State
from mains.kernel.turns import doubted
from mains.kernel.tx import Tx
from mains.kernel.world import World

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
    """Make the home's accounts, end foreign calls whose kernel is gone, and note the boot.

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
    tx.run("counter_start", "pruned_ms", tx.now_ms)  # the first prune comes a day after the first boot
    tx.append(0, Noted(text="boot"))


def _has_money(tx: Tx) -> bool:
    """Whether some tariff was ever used, or some limit is of money."""
    return tx.one("tariff_get", 1) is not None or any(unit == "money" for _, unit, *_ in tx.run("budget_all"))


def halt(tx: Tx) -> None:
    """Note an orderly halt."""
    tx.append(0, Noted(text="halt"))
