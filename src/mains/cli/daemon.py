"""The verbs of the daemon: up, down, status."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mains.cli.app import FAILED, app
from mains.cli.options import HomeOption, JsonOption, daemon_of, find_home
from mains.cli.render import note, say, say_json, span
from mains.errors import DaemonError, HomeLockedError, UsageError

if TYPE_CHECKING:
    from mains.daemon.reports import Place
    from mains.home import Home

_END_S = 30.0
_LOOK_S = 0.02


@app.command(epilog="Example: mains up --port 8420")
def up(
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65_535, help="Serve TCP too, with a token (0: any free port).")
    ] = None,
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Where the TCP port listens.")] = "127.0.0.1",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the daemon in the foreground, until Ctrl-C or `mains down`."""
    place = find_home(home)
    _refuse_second(place)
    import logging

    from mains.daemon import server
    from mains.daemon.reports import Place

    def ready(found: Place) -> None:
        if as_json:
            say_json(_address(found))
        else:
            _say_ready(found)

    server.log_to_stderr(logging.WARNING)
    code = server.run(Place(home=place), ready, tcp=None if port is None else (host, port))
    if code:
        raise typer.Exit(code)


def _refuse_second(home: Home) -> None:
    from mains.daemon.client import Client
    from mains.settings import Settings

    try:
        pid = Client(home, Settings(), start=False).hello()["pid"]
    except DaemonError:
        return
    raise UsageError(f"a daemon serves this home already: process {pid}", hint="`mains down` ends it")


def _address(place: Place) -> dict[str, Any]:
    import os

    home = place.home
    url = f"http://{place.host}:{place.port}" if place.port else ""
    token = str(home.token_file) if place.port else ""
    return {"pid": os.getpid(), "home": str(home.path), "socket": str(home.socket), "url": url, "token_file": token}


def _say_ready(place: Place) -> None:
    address = _address(place)
    note(f"mains serves {address['home']} (process {address['pid']}); Ctrl-C ends it")
    if address["url"]:
        note(f"also at {address['url']}, with the token in {address['token_file']}")
    if place.host not in ("", "127.0.0.1", "localhost", "::1"):
        note("warning: this is plain HTTP and not only for this machine: whoever reads along reads the token")


@app.command(epilog="Example: mains down")
def down(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """End the daemon in good order. Processes are kept and go on when a daemon starts again."""
    client = daemon_of(home, start=False)
    try:
        pid = client.status()["pid"]
        client.down()
    except DaemonError:
        if client.home.held():
            owner = client.home.owner()
            raise HomeLockedError(f"process {owner} holds this home and does not answer", hint="mains doctor") from None
        say_json({"pid": None}) if as_json else say("no daemon runs")
        return
    wait_free(client.home)
    say_json({"pid": pid}) if as_json else say(f"the daemon (process {pid}) has ended")


def wait_free(home: Home) -> None:
    """Wait until nobody holds the home. Raises DaemonError."""
    due_s = time.monotonic() + _END_S
    while home.held():
        if time.monotonic() > due_s:
            raise DaemonError(f"the daemon has not ended within {_END_S:g} s", hint=f"process {home.owner()}")
        time.sleep(_LOOK_S)


@app.command(epilog="Example: mains status")
def status(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Whether a daemon runs, and what it has to do. Exits with 1 when none answers."""
    client = daemon_of(home, start=False)
    try:
        found = client.status()
    except DaemonError as error:
        if as_json:
            say_json({"pid": None, "home": str(client.home.path)})
        else:
            say(f"no daemon runs for {client.home.path}" if not client.home.held() else f"no answer: {error}")
        raise typer.Exit(FAILED) from None
    if as_json:
        say_json(found)
        return
    counts = ", ".join(f"{count} {state}" for state, count in found["processes"].items()) or "none alive"
    say(f"daemon: process {found['pid']}, Mains {found['version']}, up {span(found['uptime_s'])}")
    say(f"home: {found['home']}")
    if found["port"]:
        say(f"TCP: http://{found['host']}:{found['port']}")
    if found["idle_s"] is not None:
        say(f"ends after {span(found['idle_s'])} with nothing to do; its log: {found['log']}")
    say(f"processes: {counts}")
    say(f"engines: {', '.join(engine['name'] + ' (' + engine['health'] + ')' for engine in found['engines'])}")
