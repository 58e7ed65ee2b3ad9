"""The daemon: hold the home's lock, listen, boot a kernel, serve it, halt in order.

    run(place, ready) -> exit code

The listener is there before the kernel boots: a client that comes meanwhile waits in its queue. It goes, and its
file after it, when the kernel has halted and while the lock is still held: who finds the lock taken and the file
there knows that a daemon begins or ends. It ends by SIGTERM, SIGINT, `down`, or (`idle_s`) when nothing was runnable,
at work or timed, and nobody asked, for that long. A kernel that halts by itself ends it with exit code 1.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import uvicorn
import uvloop
from starlette.types import ASGIApp

from mains.compose import Engines, Machine, boot
from mains.daemon import guard
from mains.daemon.accounts import Accounts
from mains.daemon.app import Orders, Tally, build
from mains.daemon.devices import DeviceRoutes
from mains.daemon.files import Files
from mains.daemon.listener import listen_tcp, listen_unix
from mains.daemon.memory import Memory
from mains.daemon.notes import Notes
from mains.daemon.reports import Place, Reports
from mains.daemon.secrets import SecretRoutes
from mains.daemon.segments import Segments
from mains.daemon.stream import Quiet
from mains.discretion import LOG_FORMAT, DiscreetFormatter
from mains.kernel.desk import Desk
from mains.secretfile import PASSPHRASE_VARIABLE
from mains.settings import Settings

_PR_SET_DUMPABLE = 4  # linux/prctl.h
_DRAIN_S = 5  # for requests in flight, when the daemon ends
_LOOK_S = 5.0  # between two looks whether there is anything to do
_log = logging.getLogger("mains.daemon")


class _Server(uvicorn.Server):
    """A server that leaves signals to the daemon."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def run(place: Place, ready: Callable[[Place], None], *, tcp: tuple[str, int] | None = None) -> int:
    """Serve a home until told to end; the exit code. Raises ConfigError, HomeLockedError, JournalError.

    `ready` is called when requests are answered, with the port that was found for `tcp`.
    """
    home = place.home
    home.prepare()
    settings = home.settings()
    Engines.of(home)  # a mistake in mains.toml is told before anything is touched
    with home.lock():
        os.umask(0o077)
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))  # holds secrets
        _close_to_others()
        daemon = _Daemon(place, settings, ready)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(daemon.run(tcp))


def _close_to_others() -> None:
    """Keep other processes of our user out of our memory and environment, which hold keys and secrets.

    PR_SET_DUMPABLE, prctl(2): /proc/PID/mem and environ, and ptrace, are for root only then. It is for devices that are
    UNCONFINED, and for other programs; a confined device is kept out by its cage. What we start is as it always is.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


class _Daemon:
    def __init__(self, place: Place, settings: Settings, ready: Callable[[Place], None]) -> None:
        self._place = place
        self._settings = settings
        self._ready = ready
        self._closing = asyncio.Event()
        self._why = ""

    async def run(self, tcp: tuple[str, int] | None) -> int:
        """From the listener to the end."""
        loop = asyncio.get_running_loop()
        for sign in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sign, self._end, sign.name)
        listener = listen_unix(self._place.home.socket)
        outer = listen_tcp(*tcp) if tcp else None
        if tcp and outer:
            self._place = msgspec.structs.replace(self._place, host=tcp[0], port=outer.getsockname()[1])
        try:
            async with boot(self._place.home, settings=self._settings) as machine:
                os.environ.pop(PASSPHRASE_VARIABLE, None)  # nothing that we start shall inherit it
                for handler in logging.getLogger().handlers:
                    handler.setFormatter(DiscreetFormatter(machine.vault))
                await self._serve(machine, listener, outer)
        finally:
            self._place.home.socket.unlink(missing_ok=True)
            listener.close()
        if (failure := machine.desk.failure) is not None:
            _log.error("the kernel halted: %s", failure)
            return 1
        _log.info("ended: %s", self._why)
        return 0

    def _end(self, why: str) -> None:
        self._why = self._why or why
        self._closing.set()

    async def _serve(self, machine: Machine, listener: socket.socket, outer: socket.socket | None) -> None:
        desk, app = machine.desk, self._app(machine)
        servers = [(self._server(app), listener)]
        if outer is not None:
            token = guard.token_of(self._place.home.token_file)
            servers.append((self._server(guard.Guard(app, token, {self._place.host})), outer))
        async with asyncio.TaskGroup() as group:
            for server, door in servers:
                group.create_task(server.serve(sockets=[door]))
            ends = [group.create_task(self._end_when_halted(desk))]
            if self._place.idle_s is not None:
                ends.append(group.create_task(self._end_when_idle(desk, app, listener, self._place.idle_s)))
            self._ready(self._place)
            await self._closing.wait()
            for end in ends:
                end.cancel()
            for server, _ in servers:
                server.should_exit = True

    def _app(self, machine: Machine) -> Tally:
        desk = machine.desk

        def end(only_idle: bool) -> bool:
            if only_idle and (desk.busy() or tally.in_flight > 1 or self._place.idle_s is None):
                return False
            self._end("down")
            return True

        quiet = Quiet(self._settings.request_timeout_s / 3, self._closing)
        orders = Orders(desk, self._settings, self._closing)
        accounts = Accounts(desk, self._settings.request_bytes_max)
        notes = Notes(desk, self._settings.request_bytes_max)
        reports = Reports(desk, self._place, quiet, self._settings)
        segments = Segments(desk, self._settings.request_bytes_max)
        devices = DeviceRoutes(machine.hub, self._place.home.workspaces, quiet, self._settings.request_bytes_max)
        files = Files(desk, self._settings.request_bytes_max)
        secrets = SecretRoutes(machine.vault)
        routes = (Memory(desk), notes, segments, devices, files, secrets, reports)
        app = build(orders, accounts, *routes, self._settings, end)
        tally = Tally(app, self._closing)
        return tally

    def _server(self, app: ASGIApp) -> _Server:
        options: dict[str, Any] = {
            "http": "httptools",
            "ws": "none",
            "lifespan": "off",
            "log_config": None,
            "access_log": False,
            "server_header": False,
            "proxy_headers": False,
            "limit_concurrency": 4 * self._settings.watchers_max,
            "timeout_graceful_shutdown": _DRAIN_S,
        }
        return _Server(uvicorn.Config(app, **options))

    async def _end_when_halted(self, desk: Desk) -> None:
        await desk.halted.wait()
        self._end("the kernel halted")

    async def _end_when_idle(self, desk: Desk, tally: Tally, listener: socket.socket, idle_s: float) -> None:
        """End when nothing was to be done for `idle_s`, and nobody waits at the door."""
        quiet_s = time.monotonic()
        while True:
            now_s = time.monotonic()
            if tally.in_flight or desk.busy() or _somebody_waits(listener):
                quiet_s = now_s
            quiet_s = max(quiet_s, tally.last_s)
            if now_s - quiet_s >= idle_s:
                self._end("idle")
                return
            await asyncio.sleep(min(idle_s - (now_s - quiet_s), _LOOK_S))


def _somebody_waits(listener: socket.socket) -> bool:
    return bool(select.select([listener], [], [], 0)[0])


def log_to_stderr(level: int, handler: logging.Handler | None = None) -> None:
    """Log lines with their time, to standard error (by `handler`, when one is given)."""
    handlers = [handler or logging.StreamHandler(sys.stderr)]
    logging.basicConfig(handlers=handlers, format=LOG_FORMAT, level=level)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
