"""What every verb takes, and the way from there to a home and its daemon."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mains.errors import ConfigError, DaemonError, UsageError
from mains.home import Home

if TYPE_CHECKING:
    from mains.cli.amounts import Purse
    from mains.daemon.client import Client
    from mains.settings import Settings

_COMPLETE_S = 1.0


def complete_pids(incomplete: str) -> list[tuple[str, str]]:
    """Live processes, for shell completion; none when no daemon runs."""
    from mains.daemon.client import Client
    from mains.settings import Settings

    quick = Settings(request_timeout_s=_COMPLETE_S)
    try:
        views = Client(Home.find(), quick, start=False).ps()
    except DaemonError:
        return []
    found = [(str(view["pid"]), f"{view['program']} {view['state']}") for view in views]
    return [each for each in found if each[0].startswith(incomplete)]


def complete_accounts(incomplete: str) -> list[str]:
    """Names of accounts, for shell completion; none when no daemon runs."""
    from mains.daemon.client import Client
    from mains.settings import Settings

    quick = Settings(request_timeout_s=_COMPLETE_S)
    try:
        names = [str(view["name"]) for view in Client(Home.find(), quick, start=False).accounts()]
    except DaemonError:
        return []
    return [name for name in names if name.startswith(incomplete)]


def given_name(context: typer.Context, parameter: typer.CallbackParam, name: str) -> str:
    """A name that was typed, or the default one. Raises UsageError for an empty one: a variable of a script that is not
    set must not let the home pay for it."""
    source = context.get_parameter_source(parameter.name or "")
    if not name and source is not None and source.name == "COMMANDLINE":
        raise UsageError(f"{parameter.opts[0]} is empty", hint="name an account, or leave the option out")
    return name


HomeOption = Annotated[
    Path | None,
    typer.Option("--home", metavar="DIR", help="The home (else MAINS_HOME, else the platform's data folder)."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
GroupOption = Annotated[str, typer.Option("--group", metavar="NAME", help="Every process of this group.")]
OptionalPid = Annotated[
    int | None,
    typer.Argument(metavar="PID", min=1, help="A process; `mains ps` lists them.", autocompletion=complete_pids),
]
PidArgument = Annotated[
    int, typer.Argument(metavar="PID", min=1, help="A process; `mains ps` lists them.", autocompletion=complete_pids)
]
AtOption = Annotated[
    int | None,
    typer.Option("--at", metavar="SEQ", min=1, help="As of this event; `mains logs PID --json` has their numbers."),
]
KeyOption = Annotated[str, typer.Option("--key", metavar="KEY", help="Do it once: the same key again changes nothing.")]
AccountArgument = Annotated[
    str,
    typer.Argument(
        metavar="ACCOUNT",
        help="A name, NAME/PROGRAM, a pid, or home; `mains account ls` lists them.",
        autocompletion=complete_accounts,
    ),
]


def find_home(given: Path | None) -> Home:
    """The home that is meant. Raises UsageError when its path is no folder."""
    home = Home.find(given)
    if home.path.exists() and not home.path.is_dir():
        raise UsageError(f"{home.path}: is no folder", hint="--home names a folder")
    return home


def settings_of(home: Home) -> Settings:
    """The settings of a home; the defaults when its mains.toml is broken (a daemon that starts says so)."""
    from mains.settings import Settings

    try:
        return home.settings()
    except ConfigError:
        return Settings()


def purse_of(home: Home) -> Purse:
    """The currency of a home and its rates, as mains.toml has them. Raises ConfigError."""
    from mains.cli.amounts import Purse
    from mains.engines.price import Money

    money = Money.of(home.document(), str(home.config))
    return Purse(money.home, money.rates)


def daemon_of(given: Path | None, *, start: bool = True) -> Client:
    """The client of a home's daemon, which is started when none answers."""
    from mains.daemon.client import Client

    home = find_home(given)
    return Client(home, settings_of(home), start=start)


# of the verbs that start a program: run and chat

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A Markdown file, or a folder with a SKILL.md.")]
InputsArgument = Annotated[list[str] | None, typer.Argument(metavar="NAME=VALUE", help="The program's inputs.")]
StartKeyOption = Annotated[
    str, typer.Option("--key", metavar="KEY", help="The same key again goes on with the process it started.")
]
BudgetOption = Annotated[
    str, typer.Option("--budget", metavar="TOKENS", help="Tokens that it and its children may use: 20000, 20k.")
]
EngineOption = Annotated[
    str, typer.Option("--engine", metavar="NAME", help="Run it, and its children, on this engine.")
]
WorkspaceOption = Annotated[
    Path | None, typer.Option("--workspace", metavar="DIR", help="The folder that its file tools reach.")
]
AccountOption = Annotated[
    str,
    typer.Option(
        "--account",
        metavar="NAME",
        help="The account that pays (else home).",
        autocompletion=complete_accounts,
        callback=given_name,
    ),
]
BelowOption = Annotated[
    str,
    typer.Option(
        "--account",
        metavar="ACCOUNT",
        help="This account and all below it.",
        autocompletion=complete_accounts,
        callback=given_name,
    ),
]


class Band(enum.StrEnum):
    """How urgent a program is."""

    INTERACTIVE = "interactive"
    NORMAL = "normal"
    BATCH = "batch"


BandOption = Annotated[
    Band | None, typer.Option("--band", help="How urgent it is; batch waits for cheap hours (else what the file says).")
]
SegmentOption = Annotated[
    list[str] | None,
    typer.Option("--segment", metavar="NAME", help="A shared segment that it maps, too (may be repeated)."),
]
