"""The routes that report: the daemon itself, its engines, diaries and watches, and the audits of journal and ledger."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, cast

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from mains import __version__
from mains.daemon import diary
from mains.daemon.body import number_of, respond
from mains.daemon.stream import Quiet, after_work, cancel
from mains.daemon.survey import Survey, last_seq, survey
from mains.daemon.transcript import transcript
from mains.home import Home
from mains.kernel import audit, reckon
from mains.kernel.desk import Desk
from mains.kernel.journal import Journal
from mains.kernel.ports import Notice
from mains.settings import Settings

View = Callable[[Request], Awaitable[Response]]

_ROWS = 1_000  # read at once, for an export or a diary
_BACK_MAX = 1_000  # messages of a context that an attached terminal gets at most
_SURVEY_S = 1.0  # the longest wait for something to happen


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a daemon serves. `idle_s` is None for one that ends only when told to; `port` 0: no TCP."""

    home: Home
    host: str = ""
    port: int = 0
    idle_s: float | None = None


class Reports:
    """What can be read of a daemon, other than its processes."""

    def __init__(self, desk: Desk, place: Place, quiet: Quiet, settings: Settings) -> None:
        self._desk = desk
        self._settings = settings
        self._place = place
        self._quiet = quiet
        self._begun_s = time.monotonic()

    async def hello(self, _: Request) -> Response:
        """Who answers; for clients that make sure of it first."""
        return respond({"pid": os.getpid(), "version": __version__})

    async def status(self, _: Request) -> Response:
        states = Counter(view.state for view in await self._desk.ps())
        place = self._place
        return respond(
            {
                "pid": os.getpid(),
                "version": __version__,
                "home": str(place.home.path),
                "socket": str(place.home.socket),
                "log": str(place.home.logs / "daemon.log") if place.idle_s is not None else "",
                "host": place.host,
                "port": place.port,
                "idle_s": place.idle_s,
                "uptime_s": round(time.monotonic() - self._begun_s, 3),
                "busy": self._desk.busy(),
                "processes": dict(sorted(states.items())),
                "engines": self._desk.engines(),
            }
        )

    async def engines(self, _: Request) -> Response:
        return respond(self._desk.engines())

    async def survey(self, request: Request) -> Response:
        """What `mains top` shows: at once, or, with `after_seq`, when anything has happened after that event, or when
        the time is over (a second)."""
        after = number_of(request, "after_seq")
        if after:
            await self._change(after)
        every = request.query_params.get("all") == "1"
        most, engines = self._settings.survey_processes_max, self._desk.engines()

        def read() -> Survey:
            return survey(self._desk.journal, engines, every=every, most=most)

        return respond(await asyncio.to_thread(read))

    async def _change(self, after: int) -> None:
        async with _begun(self._desk.watch()) as notices:
            if await asyncio.to_thread(last_seq, self._desk.journal) > after:  # looked at after the watch has begun
                return
            coming = asyncio.ensure_future(_comes_more(notices, after))
            closing = asyncio.ensure_future(self._quiet.closing.wait())
            try:
                await asyncio.wait({coming, closing}, timeout=_SURVEY_S, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await cancel(coming, closing)

    async def watch(self, request: Request) -> Response:
        """What happens from now on; the first line says that the watch has begun."""
        pid = request.path_params.get("pid")
        if pid is not None:
            await self._desk.outcome(pid)  # NotFoundError before anything is streamed
        return self._quiet.respond(self._watching(pid))

    async def _watching(self, pid: int | None) -> AsyncGenerator[Any, None]:
        async with _begun(self._desk.watch(pid)) as notices:
            yield Notice(kind="watching", pid=pid or 0)
            async for notice in notices:
                yield notice

    async def log(self, request: Request) -> Response:
        """The diary of a process; with `follow=1` until it has ended."""
        pid = int(request.path_params["pid"])
        after = number_of(request, "after_seq")
        await self._desk.outcome(pid)
        follow = request.query_params.get("follow") == "1"
        return self._quiet.respond(self._diary(pid, after, follow))

    async def _diary(self, pid: int, after: int, follow: bool) -> AsyncGenerator[Any, None]:
        async with _begun(self._desk.watch(pid)) as notices:
            ended = (await self._desk.outcome(pid)).exit_code is not None  # looked at after the watch has begun
            while True:
                found = await asyncio.to_thread(diary.entries, self._desk.journal, pid, after, _ROWS)
                if found:
                    yield found
                    after = found[-1].seq
                    ended = ended or found[-1].kind == "exited"
                if len(found) == _ROWS:
                    continue
                if ended or not follow or not await _comes_more(notices, after):
                    return

    async def attach(self, request: Request) -> Response:
        """The transcript of a process: its last `back` messages or what came after `after_seq`, and what happens."""
        pid = int(request.path_params["pid"])
        after, back = number_of(request, "after_seq"), min(number_of(request, "back"), _BACK_MAX)
        await self._desk.outcome(pid)
        return self._quiet.respond(self._attached(pid, after, back))

    async def _attached(self, pid: int, after: int, back: int) -> AsyncGenerator[Any, None]:
        async with (
            _begun(self._desk.watch(pid)) as notices,
            aclosing(transcript(self._desk.journal, notices, pid, after, back)) as parts,
        ):
            async for part in parts:
                yield part

    async def verify_journal(self, _: Request) -> Response:
        journal = self._desk.journal
        return self._quiet.respond(after_work(lambda: {"faults": audit.verify(journal)}))

    async def verify_ledger(self, _: Request) -> Response:
        journal = self._desk.journal
        return self._quiet.respond(after_work(lambda: {"faults": reckon.verify(journal)}))

    async def export(self, _: Request) -> Response:
        return self._quiet.respond(exported(self._desk.journal))


async def exported(journal: Journal) -> AsyncGenerator[Any, None]:
    """Every event of a journal, in lists."""
    after = 0
    while rows := await asyncio.to_thread(journal.rows, "event_after", after, _ROWS):
        yield [diary.export_row(row) for row in rows]
        after = rows[-1][0]


@asynccontextmanager
async def _begun(watched: AsyncIterator[Notice]) -> AsyncIterator[AsyncIterator[Notice]]:
    """What is `watched`, from this moment on and not only from the first look."""
    source = cast("AsyncGenerator[Notice, None]", watched)
    first = asyncio.ensure_future(anext(source))
    rest = _after(first, source)
    try:
        yield rest
    finally:
        await rest.aclose()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await source.aclose()


async def _after(first: asyncio.Future[Notice], source: AsyncIterator[Notice]) -> AsyncGenerator[Notice, None]:
    yield await first
    async for notice in source:
        yield notice


async def _comes_more(notices: AsyncIterator[Notice], after: int) -> bool:
    """Wait until something happened after this event; False when the watch ended."""
    async for notice in notices:
        if notice.kind in ("halt", "cut"):
            return False
        if notice.seq > after:
            return True
    return False
