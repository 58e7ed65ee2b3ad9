"""The routes: what may be asked of a kernel, over HTTP. Everything but `hello` stands below `/v1`.

    GET  hello, status, engines                  POST down {only_idle}
    POST processes {program, inputs, ...}        GET  processes[?all=1]
    GET  processes/PID[/below|/outcome|/wait|/history|/log|/watch|/attach]
    POST processes/PID/messages {text, key}, /answer {text, call}, /signal {signal}, /fork {at}
    POST remove {pids}, prune {older_than_days, dry_run}, backup {path, workspaces, replace}
    GET  watch, survey[?all=1&after_seq=N], journal/verify, journal/export, ledger/verify
    and those of accounts (`accounts.py`), memory (`memory.py`), notes (`notes.py`), segments (`segments.py`),
    devices (`devices.py`), files (`files.py`) and secrets (`secrets.py`)

A wait answers within half of `request_timeout_s`, settled or not: the client asks again. Bodies have at most
`request_bytes_max` bytes. While the daemon ends, whatever arrives is refused and nothing of it is done.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from mains.daemon import wire
from mains.daemon.accounts import Accounts
from mains.daemon.body import body_of, number_of, pid_of, respond, seconds_of
from mains.daemon.devices import DeviceRoutes
from mains.daemon.files import Files
from mains.daemon.memory import Memory
from mains.daemon.notes import Notes
from mains.daemon.reports import Reports, View
from mains.daemon.secrets import SecretRoutes
from mains.daemon.segments import Segments
from mains.errors import DaemonError, MainsError, UsageError
from mains.kernel.desk import Desk
from mains.kernel.ports import Outcome, Signal
from mains.settings import Settings

T = TypeVar("T")
_LOOK_S = 0.1  # the shortest wait: time for one look


class SpawnOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a spawn: the arguments of `Control.spawn`."""

    program: str
    inputs: dict[str, Any] = {}
    key: str = ""
    budget: int | None = None
    engine: str = ""
    workspace: str = ""
    cwd: str = ""
    paused: bool = False
    conversation: bool = False
    now: bool = False
    group: str = ""
    account: str = ""
    band: str = ""
    segments: list[str] = []


class Letter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a message."""

    text: str
    key: str = ""
    rule: bool = False


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of an answer. `call`: what the person was asked about."""

    text: str
    call: str = ""


class SignalOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a signal."""

    signal: Signal


class RemoveOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `remove`: ended processes."""

    pids: list[int]


class PruneOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `prune`. Without an age, that of `retention_days` is meant."""

    older_than_days: float | None = None
    dry_run: bool = False


class GroupSignal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a signal to a group."""

    group: str
    signal: Signal


class ExecOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of an exec: the arguments of `Control.exec`."""

    program: str
    inputs: dict[str, Any] = {}
    cwd: str = ""


class ForkOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a fork. Without an event, the process as it stands is meant."""

    at: int | None = None


class DownOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `down`. `only_idle`: not when anything is at work or would wake by time."""

    only_idle: bool = False


class Settled(msgspec.Struct, frozen=True):
    """The answer of a wait: whether there is more to wait for, and how the process stands."""

    settled: bool
    outcome: Outcome


class Tally:
    """Counts requests in flight, and refuses them while the daemon ends. Outermost, around every route."""

    def __init__(self, app: ASGIApp, closing: asyncio.Event) -> None:
        self.in_flight = 0
        self.last_s = time.monotonic()
        self._app = app
        self._closing = closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._closing.is_set():
            refusal = wire.pack(DaemonError("the daemon is ending"), refused=True)
            await respond(refusal, 503)(scope, receive, send)
            return
        self.in_flight += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self.in_flight -= 1
            self.last_s = time.monotonic()


class Orders:
    """The routes that order and ask about processes."""

    def __init__(self, desk: Desk, settings: Settings, closing: asyncio.Event) -> None:
        self._desk = desk
        self._settings = settings
        self._closing = closing

    async def spawn(self, request: Request) -> Response:
        order = await self._body(request, SpawnOrder)
        arguments = msgspec.structs.asdict(order)
        return respond({"pid": await self._desk.spawn(arguments.pop("program"), arguments.pop("inputs"), **arguments)})

    async def ps(self, request: Request) -> Response:
        return respond(await self._desk.ps(every=request.query_params.get("all") == "1"))

    async def show(self, request: Request) -> Response:
        return respond(await self._desk.show(pid_of(request)))

    async def below(self, request: Request) -> Response:
        return respond(await self._desk.below(pid_of(request)))

    async def outcome(self, request: Request) -> Response:
        return respond(await self._desk.outcome(pid_of(request)))

    async def wait(self, request: Request) -> Response:
        """Settled, or how it stands when the time is over."""
        pid = pid_of(request)
        span_s = min(max(seconds_of(request, "timeout_s"), _LOOK_S), self._settings.request_timeout_s / 2)
        settling = asyncio.ensure_future(self._desk.wait(pid))
        ending = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait({settling, ending}, timeout=span_s, return_when=asyncio.FIRST_COMPLETED)
            if settling.done():
                return respond(Settled(True, settling.result()))
        finally:
            settling.cancel()
            ending.cancel()
            await asyncio.gather(settling, ending, return_exceptions=True)
        if self._closing.is_set():
            hint = f"the process is kept; `mains wait {pid}` goes on with it"
            raise DaemonError("the daemon was told to end", hint=hint)
        return respond(Settled(False, await self._desk.outcome(pid)))

    async def history(self, request: Request) -> Response:
        return respond(await self._desk.history(pid_of(request), number_of(request, "after_seq")))

    async def send(self, request: Request) -> Response:
        letter = await self._body(request, Letter)
        return respond({"message": await self._desk.send(pid_of(request), letter.text, letter.key, rule=letter.rule)})

    async def answer(self, request: Request) -> Response:
        answer = await self._body(request, Answer)
        await self._desk.answer(pid_of(request), answer.text, answer.call)
        return respond({})

    async def signal(self, request: Request) -> Response:
        order = await self._body(request, SignalOrder)
        return respond({"pids": await self._desk.signal(pid_of(request), order.signal)})

    async def signal_group(self, request: Request) -> Response:
        order = await self._body(request, GroupSignal)
        return respond({"pids": await self._desk.signal_group(order.group, order.signal)})

    async def exec(self, request: Request) -> Response:
        order = await self._body(request, ExecOrder)
        changed = await self._desk.exec(pid_of(request), order.program, order.inputs, cwd=order.cwd)
        return respond({"changed": changed})

    async def restart(self, request: Request) -> Response:
        return respond({"changed": await self._desk.restart(pid_of(request))})

    async def fork(self, request: Request) -> Response:
        order = await self._body(request, ForkOrder)
        return respond({"pid": await self._desk.fork(pid_of(request), order.at)})

    async def remove(self, request: Request) -> Response:
        order = await self._body(request, RemoveOrder)
        return respond(await self._desk.remove([min(pid, 2**63 - 1) for pid in order.pids]))

    async def prune(self, request: Request) -> Response:
        order = await self._body(request, PruneOrder)
        days = self._settings.retention_days if order.older_than_days is None else order.older_than_days
        return respond(await self._desk.prune(days, dry_run=order.dry_run))

    async def _body(self, request: Request, kind: type[T]) -> T:
        return await body_of(request, kind, self._settings.request_bytes_max)


def _account_routes(accounts: Accounts) -> list[Route]:
    return [
        _post("/v1/accounts", accounts.add),
        _get("/v1/accounts", accounts.list),
        _get("/v1/account", accounts.account),
        _post("/v1/account", accounts.set),
        _post("/v1/budgets", accounts.budget_set),
        _post("/v1/topups", accounts.topup),
        _get("/v1/meter", accounts.meter),
        _get("/v1/statement", accounts.statement),
    ]


def _memory_routes(memory: Memory, notes: Notes, segments: Segments) -> list[Route]:
    at = "/v1/processes/{pid:int}"
    return [
        _get("/v1/memory", memory.machine),
        _get(f"{at}/memory", memory.table),
        _get(f"{at}/seen", memory.seen),
        _get(f"{at}/diff", memory.diff),
        _post("/v1/segments", segments.make),
        _get("/v1/segments", segments.list),
        _post("/v1/segment", segments.append),
        _get("/v1/segment", segments.segment),
        _post("/v1/segment/remove", segments.remove),
        _get("/v1/notes", notes.list),
        _post("/v1/notes", notes.add),
        _get("/v1/notes/{number:int}", notes.show),
        _post("/v1/notes/{number:int}", notes.edit),
        _post("/v1/notes/{number:int}/forget", notes.forget),
    ]


def _device_routes(devices: DeviceRoutes) -> list[Route]:
    return [
        _get("/v1/devices", devices.list),
        _get("/v1/device", devices.device),
        _post("/v1/devices", devices.add),
        _post("/v1/device/remove", devices.remove),
        _post("/v1/device/restart", devices.restart),
        _post("/v1/device/tools", devices.tools),
        _post("/v1/device/call", devices.call),
        _get("/v1/device/changes", devices.changes),
        _post("/v1/device/accept", devices.accept),
    ]


def _file_routes(files: Files) -> list[Route]:
    at = "/v1/processes/{pid:int}"
    return [
        _get(f"{at}/files", files.list),
        _get(f"{at}/versions", files.versions),
        _post(f"{at}/files/undo", files.undo),
    ]


def build(
    orders: Orders,
    accounts: Accounts,
    memory: Memory,
    notes: Notes,
    segments: Segments,
    devices: DeviceRoutes,
    files: Files,
    secrets: SecretRoutes,
    reports: Reports,
    settings: Settings,
    end: Callable[[bool], bool],
) -> Starlette:
    """The application. `end(only_idle)` makes the daemon end; whether it does."""

    async def down(request: Request) -> Response:
        order = await body_of(request, DownOrder, settings.request_bytes_max)
        return respond({"down": end(order.only_idle)})

    at = "/v1/processes/{pid:int}"
    routes = [
        _get("/v1/hello", reports.hello),
        _get("/v1/status", reports.status),
        _get("/v1/engines", reports.engines),
        _post("/v1/down", down),
        _post("/v1/processes", orders.spawn),
        _get("/v1/processes", orders.ps),
        _get(at, orders.show),
        _get(f"{at}/below", orders.below),
        _get(f"{at}/outcome", orders.outcome),
        _get(f"{at}/wait", orders.wait),
        _get(f"{at}/history", orders.history),
        _get(f"{at}/log", reports.log),
        _get(f"{at}/watch", reports.watch),
        _get(f"{at}/attach", reports.attach),
        _post(f"{at}/messages", orders.send),
        _post(f"{at}/answer", orders.answer),
        _post(f"{at}/signal", orders.signal),
        _post(f"{at}/fork", orders.fork),
        _post("/v1/remove", orders.remove),
        _post("/v1/prune", orders.prune),
        _post(f"{at}/exec", orders.exec),
        _post(f"{at}/restart", orders.restart),
        _post("/v1/signals", orders.signal_group),
        *_account_routes(accounts),
        *_memory_routes(memory, notes, segments),
        *_device_routes(devices),
        *_file_routes(files),
        _post("/v1/secrets/unlock", secrets.unlock),
        _get("/v1/watch", reports.watch),
        _get("/v1/survey", reports.survey),
        _get("/v1/journal/verify", reports.verify_journal),
        _get("/v1/journal/export", reports.export),
        _get("/v1/ledger/verify", reports.verify_ledger),
    ]
    handlers: dict[Any, Any] = {MainsError: _refused, HTTPException: _no_route, Exception: _broken}
    return Starlette(routes=routes, exception_handlers=handlers)


def _get(path: str, endpoint: View) -> Route:
    return Route(path, endpoint, methods=["GET"])


def _post(path: str, endpoint: View) -> Route:
    return Route(path, endpoint, methods=["POST"])


async def _refused(_: Request, error: MainsError) -> Response:
    return respond(wire.pack(error), wire.status_of(error))


async def _no_route(request: Request, error: HTTPException) -> Response:
    text = f"{request.method} {request.url.path}: {error.detail}"
    return respond(wire.pack(UsageError(text)), error.status_code)


async def _broken(_: Request, error: Exception) -> Response:
    text = f"the daemon failed: {type(error).__name__}: {error}"
    return respond(wire.pack(DaemonError(text, hint="its log has the whole story: `mains status` says where")), 500)
