"""The sockets that a daemon listens on. Whoever calls this holds the home's lock.

The unix socket stands in a folder of mode 0700 that is ours, and is itself of mode 0600: who can connect is who could
read the home. A socket file that is there already belongs to a daemon that is dead, because we hold the lock.
"""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from mains.errors import ConfigError

_BACKLOG = 128


def listen_unix(path: Path) -> socket.socket:
    """Listen on a unix socket at `path`. Raises ConfigError when its folder is not safe."""
    _check_folder(path.parent)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(f"{path}: {error.strerror or error}", hint="the daemon's socket cannot be made") from error
    listener.setblocking(False)
    return listener


def _check_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        info = folder.lstat()
    except OSError as error:
        raise ConfigError(f"{folder}: {error.strerror}", hint="the daemon's socket needs this folder") from error
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid() or stat.S_IMODE(info.st_mode) & 0o077:
        hint = "somebody else made it; remove it, or set XDG_RUNTIME_DIR to a folder of your own"
        raise ConfigError(f"{folder}: must be a folder of your own with mode 0700", hint=hint)


def listen_tcp(host: str, port: int) -> socket.socket:
    """Listen on a TCP port (0: any free one). Raises ConfigError."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
    except OSError as error:
        raise ConfigError(f"{host}: {error.strerror or error}", hint="name an address of this machine") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(f"{host}:{port}: {error.strerror or error}", hint="take another --port") from error
    listener.setblocking(False)
    return listener
