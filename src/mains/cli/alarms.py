"""Alarms: limits of which 50, 80 or 95 % was used up while a program ran. They are told once, when it has ended.

    before = warned(client, account)
    ...
    tell_alarms(client, account, before)

    warning: 80 % of the limit of account ann is used: 160k of 200k tokens a day

Looked at are the limits of the account that pays and of all above it; `mains account show` tells those of a program or
a process. The journal has each warning as an event.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mains.cli.amounts import brief, count
from mains.cli.render import clean, note
from mains.errors import DaemonError

if TYPE_CHECKING:
    from mains.daemon.client import Client

Warned = Mapping[tuple[str, str, str, str], int]
"""Account, unit, window and when it resets: the last percentage that was warned of."""


def warned(client: Client, account: str) -> Warned:
    """What was warned of so far. Raises NotFoundError for an unknown account."""
    return {_key(view, limit): limit["warned"] for view, limit in _limits(client, account)}


def tell_alarms(client: Client, account: str, before: Warned) -> None:
    """Tell what was warned of since, on standard error. A daemon that is gone by now takes no result away."""
    with contextlib.suppress(DaemonError):
        for view, limit in _limits(client, account):
            if limit["warned"] > before.get(_key(view, limit), 0):
                told = f"{limit['warned']} % of the limit of {_whose(view)} is used: {_told(view, limit)}"
                note(clean(f"warning: {told}"))


def _limits(client: Client, account: str) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    view = client.account(account or "home")
    while True:
        for limit in view["limits"]:
            yield view, limit
        if view["kind"] == "home":
            return
        view = client.account(view["parent"])


def _key(view: Mapping[str, Any], limit: Mapping[str, Any]) -> tuple[str, str, str, str]:
    return view["name"], limit["unit"], limit["window"], limit["resets_at"]


def _whose(view: Mapping[str, Any]) -> str:
    return "the home" if view["kind"] == "home" else f"account {view['name']}"


def _told(view: Mapping[str, Any], limit: Mapping[str, Any]) -> str:
    amount = count if limit["unit"] == "tokens" else brief
    unit = "tokens" if limit["unit"] == "tokens" else view["currency"]
    most = f"{amount(limit['used'])} of {amount(limit['most'] + limit['added'])} {unit}"
    return most if limit["window"] == "total" else f"{most} a {limit['window']}"
