"""The verbs that check the truth: journal verify, journal export, ledger verify.

They ask a daemon when one runs. When none does they read the home themselves, holding its lock: a kernel does not
boot on a journal with faults, and then these verbs must still work.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import typer

from mains.cli.app import FAILED, app
from mains.cli.options import HomeOption, JsonOption, daemon_of, settings_of
from mains.cli.render import say, say_error, say_json
from mains.errors import DaemonError, NotFoundError

if TYPE_CHECKING:
    from mains.daemon.client import Client
    from mains.home import Home
    from mains.kernel.journal import Journal

journal_app = typer.Typer(help="The journal: the one truth of a home.", rich_markup_mode=None)
ledger_app = typer.Typer(help="The ledger: every token that was held and spent.", rich_markup_mode=None)
app.add_typer(journal_app, name="journal")
app.add_typer(ledger_app, name="ledger")


@journal_app.command("verify", epilog="Example: mains journal verify")
def journal_verify(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Check every row, page and context of the journal. Exits with 1 when anything is wrong."""
    _tell("journal", faults_of("journal", daemon_of(home, start=False)), as_json)


@ledger_app.command("verify", epilog="Example: mains ledger verify")
def ledger_verify(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Check that every hold has ended or is in flight, and that all sums to zero. Exits with 1 otherwise."""
    _tell("ledger", faults_of("ledger", daemon_of(home, start=False)), as_json)


@journal_app.command("export", epilog="Example: mains journal export > journal.jsonl")
def journal_export(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Print every event as a line of JSON, oldest first (with or without --json)."""
    del as_json
    client = daemon_of(home, start=False)
    try:
        client.hello()
    except DaemonError:
        asyncio.run(_export_offline(client.home))
        return
    for line in client.export():
        say_json(line)


def faults_of(what: str, client: Client) -> list[str]:
    """The faults of the `journal` or the `ledger`."""
    try:
        return client.verify(what)
    except DaemonError:
        return asyncio.run(_verify(what, client.home))


async def _verify(what: str, home: Home) -> list[str]:
    from mains.kernel import audit, reckon

    async with _reading(home) as journal:
        return audit.verify(journal) if what == "journal" else reckon.verify(journal)


async def _export_offline(home: Home) -> None:
    from mains.daemon.reports import exported

    async with _reading(home) as journal:
        async for rows in exported(journal):
            for row in rows:
                say_json(row | {"event": json.loads(bytes(row["event"]))})


@asynccontextmanager
async def _reading(home: Home) -> AsyncIterator[Journal]:
    """The journal of a home that no kernel serves. Raises NotFoundError, HomeLockedError, JournalError."""
    from mains.kernel.clock import SystemClock
    from mains.kernel.journal import Journal

    if not home.database.exists():
        raise NotFoundError(f"{home.database}: there is no journal yet", hint="the first `mains run` makes it")
    with home.lock():
        journal = Journal(home.database, settings_of(home), SystemClock().now_ms, lambda _: None, migrate=False)
        try:
            yield journal
        finally:
            await journal.close()


def _tell(what: str, faults: list[str], as_json: bool) -> None:
    if as_json:
        say_json({"ok": not faults, "faults": faults})
    elif not faults:
        say(f"{what}: all is well")
    for fault in () if as_json else faults:
        say_error(fault)
    if faults:
        raise typer.Exit(FAILED)
