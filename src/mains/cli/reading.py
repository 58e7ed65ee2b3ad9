"""A reading of the meter: all that the dial shows, asked of the daemon at one moment.

    read(client, account, now_ms)     today's rows, and every limit at or below the account, and above it

The first reading of a dial has also what the last minute used, so that its needle does not begin at zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any, NamedTuple

from mains.cli.amounts import midnight_ms

if TYPE_CHECKING:
    from mains.daemon.client import Client

MINUTE_MS = 60_000

Row = Mapping[str, Any]


class Reading(NamedTuple):
    """`minute` is empty but for the first reading. `limits` are (account's name, limit)."""

    at_ms: int
    midnight_ms: int
    zone: tzinfo
    account: str
    currency: str
    today: Sequence[Row]
    minute: Sequence[Row]
    limits: Sequence[tuple[str, Row]]


def read(client: Client, account: str, now_ms: int, *, first: bool = False) -> Reading:
    """Take a reading. Raises NotFoundError for an unknown account."""
    view = client.account(account or "home")
    zone = zone_named(view["zone"])
    start_ms = midnight_ms(datetime.fromtimestamp(now_ms / 1_000, UTC).astimezone(zone).date(), zone)
    return Reading(
        at_ms=now_ms,
        midnight_ms=start_ms,
        zone=zone,
        account=view["name"],
        currency=view["currency"],
        today=client.meter(account=account, from_ms=start_ms),
        minute=client.meter(account=account, from_ms=max(start_ms, now_ms - MINUTE_MS)) if first else [],
        limits=_limits(client, view),
    )


def _limits(client: Client, view: Row) -> list[tuple[str, Row]]:
    """The limits of an account, of those below it, and of those above it, which hold for it as well."""
    found = [(view["name"], limit) for limit in view["limits"]]
    top = view
    while top["kind"] == "process":  # a chain as deep as spawns may be
        top = client.account(top["parent"])
        found += [(top["name"], limit) for limit in top["limits"]]
    for each in client.accounts():
        below = view is top and f"{each['path']}/".startswith(f"{top['path']}/")
        above = f"{top['path']}/".startswith(f"{each['path']}/")
        if each["name"] != top["name"] and (below or above):
            found += [(each["name"], limit) for limit in each["limits"]]
    return found


def zone_named(name: str) -> tzinfo:
    """The time zone of this name; of no name, this machine's."""
    from zoneinfo import ZoneInfo

    import tzlocal

    return ZoneInfo(name) if name else tzlocal.get_localzone()
