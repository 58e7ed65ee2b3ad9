"""The verbs of secrets: secret set, ls, rm, unlock. A value is never an argument, and never printed."""

from __future__ import annotations

import contextlib
import getpass
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from mains.cli.app import app
from mains.cli.options import HomeOption, JsonOption, daemon_of, find_home
from mains.cli.render import clean, console, note, say, say_json, table
from mains.errors import DaemonError, UsageError

if TYPE_CHECKING:
    from mains.home import Home
    from mains.secretfile import Kind
    from mains.vault import Entry

secret_app = typer.Typer(help="Secrets: values for devices, which no model sees.", rich_markup_mode=None)
app.add_typer(secret_app, name="secret")

_VALUE_BYTES_MAX = 1024 * 1024  # read before the setting is looked at
_BETTER = "better: install `mains[keyring]` for the keyring of the operating system, or --passphrase seals it"

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Its name; `{{secret:NAME}}` stands for its value.")]


@secret_app.command(
    "set", epilog="Examples: mains secret set GITHUB_TOKEN --for git; pass show tracker | mains secret set tracker"
)
def secret_set(
    name: NameArgument,
    whom: Annotated[
        list[str] | None,
        typer.Option("--for", metavar="DEVICE[.TOOL]", help="Who may have it; nobody else (several: with commas)."),
    ] = None,
    sealed: Annotated[
        bool, typer.Option("--passphrase", help="Keep it in the home, sealed with a passphrase.")
    ] = False,
    plaintext: Annotated[
        bool, typer.Option("--plaintext", help="Keep it in the home, for all to read who can.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep a secret, or give it another value. The value comes from standard input, or is typed and not shown.

    It is kept in the keyring of the operating system where there is one, else sealed with a passphrase, which is asked
    for or stands in MAINS_PASSPHRASE. Without --for, those who could have it may still have it.
    """
    from mains.vault import check_name, set_secret

    place = find_home(home)
    check_name(name)
    devices = _devices(whom)
    kind = _kind(sealed=sealed, plaintext=plaintext)
    settings = place.settings()
    value = _value(name)
    passphrase = _passphrase(place) if kind == "passphrase" else ""
    entry = set_secret(place, settings, name, value, devices, kind, passphrase)
    if passphrase:
        with contextlib.suppress(DaemonError):  # none runs: the next one is told
            daemon_of(place.path, start=False).unlock(passphrase)
    if as_json:
        say_json(_view(entry))
        return
    say(f"secret {name} is kept {_where(entry)}, for {', '.join(entry.devices) or 'nobody yet (--for DEVICE)'}")
    for line in _remarks(place, entry):
        note(clean(line))


def _remarks(place: Home, entry: Entry) -> list[str]:
    """What a person should know about a secret that was just set."""
    from mains.bus.spec import load_devices, secrets_of
    from mains.compose import tools_of

    specs = load_devices(place.document().get("devices", {}), str(place.config))
    known = {*specs, *(tool.name.partition(".")[0] for tool in tools_of(place, place.settings()))}
    lines = [f"note: there is no device `{each}` yet" for each in entry.devices if each.partition(".")[0] not in known]
    users = [name for name, spec in specs.items() if entry.name in secrets_of(spec)]
    lines += [f"hint: a device that runs takes it when it starts again: mains device restart {name}" for name in users]
    if entry.kept == "plaintext":
        lines += [f"warning: PLAINTEXT: whoever can read {place.secrets}, or a copy of it, has the value; {_BETTER}"]
    return lines


@secret_app.command("ls", epilog="Example: mains secret ls")
def secret_ls(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List secrets: their names, who may have them, and where their values are kept. No value is shown."""
    from mains.vault import read_entries

    found = read_entries(find_home(home))
    if as_json:
        say_json([_view(entry) for entry in found])
        return
    if not found:
        say("no secrets")
        return
    rows = [(entry.name, ", ".join(entry.devices) or "nobody", _where(entry)) for entry in found]
    out = console()
    out.print(table(("NAME", "FOR", "KEPT"), rows, give=("FOR", "NAME"), width=out.width))


@secret_app.command("rm", epilog="Example: mains secret rm GITHUB_TOKEN")
def secret_rm(name: NameArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Forget a secret.

    A device that was started with it has it until its end.
    """
    from mains.vault import remove_secret

    entry = remove_secret(find_home(home), name)
    if as_json:
        say_json(_view(entry))
    else:
        say(f"secret {name} is gone")


@secret_app.command("unlock", epilog="Example: mains secret unlock")
def secret_unlock(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Give the daemon the passphrase, so that it can open the secrets that are sealed with it.

    A daemon that was started with MAINS_PASSPHRASE in its environment has it already.
    """
    place = find_home(home)
    locked = daemon_of(home).unlock(_passphrase(place))
    if as_json:
        say_json({"locked": locked})
    else:
        say("the daemon has the passphrase until it ends")
        if locked:
            note(clean(f"still locked: {', '.join(locked)}: `mains secret set NAME` sets them again"))


def _devices(whom: list[str] | None) -> list[str] | None:
    """Who is named; None: the option was left out. Raises UsageError."""
    import re

    if whom is None:
        return None
    named = [each.strip().removesuffix(".*") for text in whom for each in text.split(",") if each.strip()]
    for each in named:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]{0,63}(\.[A-Za-z0-9_-]{1,64})?", each):
            raise UsageError(
                f"`{each[:80]}` is no device and no tool of one", hint="write --for git, or --for git.push"
            )
    return named


def _kind(*, sealed: bool, plaintext: bool) -> Kind:
    """Where a value will be kept: never readable without a word from the user. Raises UsageError."""
    from mains.secretfile import PASSPHRASE_VARIABLE, keyring

    if sealed and plaintext:
        raise UsageError("--passphrase and --plaintext say different things: give one of them")
    if plaintext:
        return "plaintext"
    if not sealed and keyring() is not None:
        return "keyring"
    if os.environ.get(PASSPHRASE_VARIABLE) or _has_terminal():
        return "passphrase"
    text = f"there is no keyring of the operating system, {PASSPHRASE_VARIABLE} is not set, and no terminal to ask at"
    raise UsageError(
        text, hint=f"set {PASSPHRASE_VARIABLE}; or --plaintext keeps it as it is, mode 0600; nothing was kept"
    )


def _value(name: str) -> str:
    """The value, from standard input or typed. Raises UsageError."""
    if sys.stdin.isatty():
        return getpass.getpass(f"value of {name} (not shown): ")
    data = sys.stdin.buffer.read(_VALUE_BYTES_MAX)
    try:
        return data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise UsageError("the value is no text in UTF-8", hint="base64 makes one of any bytes") from None


def _passphrase(place: Home) -> str:
    """The passphrase, from the environment or typed; a new one is typed twice. Raises UsageError, ConfigError."""
    from mains.secretfile import PASSPHRASE_VARIABLE, read

    if given := os.environ.get(PASSPHRASE_VARIABLE):
        return given
    if not _has_terminal():
        hint = f"set {PASSPHRASE_VARIABLE}, or do it at a terminal"
        raise UsageError("the passphrase cannot be asked for: there is no terminal", hint=hint)
    if read(place.secrets).check:
        return getpass.getpass("passphrase of the secrets (not shown): ")
    typed = getpass.getpass("a new passphrase for the secrets of this home (not shown): ")
    if getpass.getpass("again: ") != typed:
        raise UsageError("the two are not the same; nothing was kept")
    return typed


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _where(entry: Entry) -> str:
    return {
        "keyring": "in the keyring of the operating system",
        "passphrase": "in the home, sealed with a passphrase",
        "plaintext": "in the home, as PLAINTEXT",
    }[entry.kept]


def _view(entry: Entry) -> dict[str, object]:
    return {"name": entry.name, "for": list(entry.devices), "kept": entry.kept}
