"""The verbs of engines: ls, add, fetch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mains.cli.app import app
from mains.cli.options import HomeOption, JsonOption, daemon_of, find_home
from mains.cli.render import console, note, say, say_json, shorten, table
from mains.errors import ConfigError, DaemonError, UsageError

if TYPE_CHECKING:
    from mains.engines.catalogue import EngineSpec
    from mains.home import Home

engine_app = typer.Typer(help="Engines: what runs models.", rich_markup_mode=None)
app.add_typer(engine_app, name="engine")

_MEGABYTE = 1_000_000


@engine_app.command("ls", epilog="Example: mains engine ls")
def engine_ls(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List engines: the default one has a star. Health, use and speed are known while a daemon runs."""
    place = find_home(home)
    rows = list(_engines(place))
    if as_json:
        say_json(rows)
        return
    shown: list[tuple[str, ...]] = [
        (
            f"{row['name']}{' *' if row['default'] else ''}",
            row["kind"],
            shorten(row["model"], 24),
            f"{row['busy']}/{row['slots']}" if row["health"] else str(row["slots"] or ""),
            row["health"] or "-",
            _speed_text(row["tokens_per_s"]),
            _key_text(row),
        )
        for row in rows
    ]
    heads: tuple[str, ...] = ("NAME", "KIND", "MODEL", "SLOTS", "HEALTH", "TOKENS/S", "KEY")
    if not any(row["key_env"] for row in rows):
        heads, shown = heads[:-1], [row[:-1] for row in shown]
    out = console()
    out.print(table(heads, shown, right=("TOKENS/S",), give=("MODEL", "HEALTH"), width=out.width))


def _speed_text(tokens_per_s: float) -> str:
    """An output speed: a digit after the point where it says something."""
    return "-" if not tokens_per_s else f"{tokens_per_s:,.{0 if tokens_per_s >= 100 else 1}f}"


def _key_text(row: dict[str, Any]) -> str:
    return f"{'' if row['key_set'] else 'no '}{row['key_env']}" if row["key_env"] else ""


def _engines(home: Home) -> Iterator[dict[str, Any]]:
    """Each engine as configured, and as the daemon sees it."""
    import os

    from mains.compose import Engines

    engines = Engines.of(home)
    states = _states(home)
    for spec in engines.specs.values():
        state = states.get(spec.name, {})
        yield {
            "name": spec.name,
            "kind": spec.kind,
            "model": spec.model,
            "url": spec.url,
            "path": spec.path,
            "key_env": spec.key_env,
            "key_set": bool(spec.key_env and os.environ.get(spec.key_env)),
            "default": spec.name == engines.default,
            "slots": state.get("slots") or spec.slots,
            "rpm": spec.rpm,
            "tpm": spec.tpm,
            "busy": state.get("busy", 0),
            "health": state.get("health", ""),
            "tokens_per_s": state.get("tokens_per_s", 0.0),
        }


def _states(home: Home) -> dict[str, dict[str, Any]]:
    try:
        return {state["name"]: state for state in daemon_of(home.path, start=False).engines()}
    except DaemonError:
        return {}


@engine_app.command("add", epilog="Example: mains engine add dashscope --model qwen-plus --default")
def engine_add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name; that of a known endpoint needs no --url.")],
    url: Annotated[str | None, typer.Option("--url", metavar="URL", help="An endpoint, up to /v1.")] = None,
    model: Annotated[str | None, typer.Option("--model", metavar="MODEL", help="The endpoint's name for it.")] = None,
    key_env: Annotated[
        str | None, typer.Option("--key-env", metavar="VAR", help="The environment variable that holds the key.")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option("--kind", metavar="KIND", help="llama, openai, anthropic, scripted, or a known endpoint."),
    ] = None,
    path: Annotated[
        Path | None, typer.Option("--path", metavar="FILE", help="A .gguf (llama) or a .yaml (scripted).")
    ] = None,
    slots: Annotated[int | None, typer.Option("--slots", metavar="N", min=1, help="Calls at once.")] = None,
    rpm: Annotated[int | None, typer.Option("--rpm", metavar="N", min=1, help="Requests a minute.")] = None,
    tpm: Annotated[int | None, typer.Option("--tpm", metavar="N", min=1, help="Tokens a minute.")] = None,
    default: Annotated[bool, typer.Option("--default", help="Use it for programs that name no model.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add an engine, or replace the one of this name. No call is made."""
    from mains.engines import catalogue

    spec = catalogue.new_spec(
        name, url=url, model=model, key_env=key_env, kind=kind, path=_whole_path(path), slots=slots, rpm=rpm, tpm=tpm
    )
    place = find_home(home)
    place.prepare()
    place.document()  # a mistake that is there already is told before anything is written
    catalogue.write_engine(place.config, spec, default)
    is_default = place.document().get("default_engine", catalogue.DEFAULT_ENGINE) == spec.name
    news = _tell_daemon(place)
    if as_json:
        say_json({"name": spec.name, "kind": spec.kind, "model": spec.model, "default": is_default, "daemon": news})
        return
    say(f"engine {spec.name} is in {place.config}{', and is the default' if is_default else ''}")
    _advise(spec, is_default, news)


def _whole_path(path: Path | None) -> str | None:
    """A path that means the same from every folder. Raises UsageError when there is no such file."""
    if path is None:
        return None
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    return str(path.absolute())


def _advise(spec: EngineSpec, is_default: bool, news: str) -> None:
    import os

    if spec.key_env and not os.environ.get(spec.key_env):
        note(f"hint: {spec.key_env} is not set here: export it before the daemon starts")
    if not is_default:
        note(f"hint: `mains run FILE --engine {spec.name}` uses it; `--default` makes it the default")
    if news == "later":
        note("hint: the daemon that runs has work, and uses the engine from its next start: mains down")


def _tell_daemon(home: Home) -> str:
    """Make a daemon read mains.toml: `none` runs, it was `restarted` (the next command does), or `later`."""
    from mains.cli.daemon import wait_free

    client = daemon_of(home.path, start=False)
    try:
        if not client.down(only_idle=True):
            return "later"
    except DaemonError:
        return "none"
    wait_free(home)
    return "restarted"


@engine_app.command("fetch", epilog="Example: mains engine fetch")
def engine_fetch(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Fetch the model of the embedded engine, and check it. Does nothing when it is there."""
    del home  # the model belongs to the machine's user, not to a home
    try:
        from mains.engines import model_file
    except ImportError as error:
        raise ConfigError(f"this build has no embedded engine: {error}") from error

    with _progress(quiet=as_json) as progress:
        path = model_file.fetch(progress)
    if as_json:
        say_json({"path": str(path)})
    else:
        say(str(path))


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, a line for every tenth elsewhere. It is told bytes done, and bytes in all (0: unknown)."""
    if quiet or not sys.stderr.isatty():
        yield _Tenths(quiet=quiet)
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        fetching = bar.add_task("model", total=None)
        yield lambda done, total: bar.update(fetching, completed=done, total=total or None)


class _Tenths:
    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._told = -1

    def __call__(self, done: int, total: int) -> None:
        tenth = 10 * done // total if total else 0
        if tenth > self._told and not self._quiet:
            self._told = tenth
            note(f"model: {done // _MEGABYTE} of {total // _MEGABYTE} MB")
