"""The guard of the TCP port: every request shows the home's token and names a host that is meant.

The token keeps other users of the machine out. The `Host` header keeps out web pages whose name was pointed at this
machine (DNS rebinding). Both are checked before anything of a request is read.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Collection
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from mains.errors import ConfigError

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_EVERY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - named to be recognised, not bound
_TOKEN_BYTES = 32


def token_of(path: Path) -> str:
    """The token in this file, which is made when it is not there. Raises ConfigError when others can read it."""
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(_TOKEN_BYTES))
    try:
        info, token = path.lstat(), path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}", hint="remove it: a new token is made") from error
    if info.st_uid != os.getuid() or info.st_mode & 0o077 or len(token) < _TOKEN_BYTES:
        raise ConfigError(f"{path}: must be yours, with mode 0600 and a token in it", hint="remove it")
    return token


class Guard:
    """An ASGI application that lets a request through to `app` when it shows `token` and names one of `hosts`."""

    def __init__(self, app: ASGIApp, token: str, hosts: Collection[str]) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()
        self._hosts = None if _EVERY_ADDRESS & set(hosts) else LOOPBACK | set(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        shown = headers.get("authorization", "").encode("utf-8", "replace")
        if self._hosts is not None and _host_of(headers.get("host", "")) not in self._hosts:
            refusal = _refusal(421, "this host name is not served here")
        elif not secrets.compare_digest(shown, self._expected):
            refusal = _refusal(401, "the token is missing or wrong")
        else:
            await self._app(scope, receive, send)
            return
        await refusal(scope, receive, send)


def _host_of(header: str) -> str:
    """The host of a `Host` header, without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower()


def _refusal(status: int, text: str) -> JSONResponse:
    hint = "send `Authorization: Bearer TOKEN`; the token is in the file `token` of the home"
    headers = {"www-authenticate": "Bearer"} if status == 401 else {}
    return JSONResponse({"error": "UsageError", "text": text, "hint": hint}, status_code=status, headers=headers)
