"""The route of secrets.

POST secrets/unlock {passphrase}      open those that are sealed; `locked`: the names of those that stay closed

Nothing else of secrets is asked of a daemon: the command line changes their file, and the daemon sees that. No route
gives a value.
"""

from __future__ import annotations

import asyncio

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from mains.daemon.body import body_of, respond
from mains.vault import Vault

_BYTES_MAX = 64 * 1024


class Unlock(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `unlock`."""

    passphrase: str

    def __repr__(self) -> str:
        return "Unlock()"


class SecretRoutes:
    """What may be asked about secrets."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def unlock(self, request: Request) -> Response:
        order = await body_of(request, Unlock, _BYTES_MAX)
        self._vault.unlock(await asyncio.to_thread(self._vault.key_of, order.passphrase))
        return respond({"locked": self._vault.locked()})
