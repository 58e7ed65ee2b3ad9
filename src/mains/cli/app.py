"""The Typer application, and the one place where an error becomes a line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer
from typer.main import get_command

from mains import __version__
from mains.cli.render import say_error
from mains.errors import ConfigError, DaemonError, MainsError, ProgramError, UsageError

FAILED, BAD_INPUT, STUCK, INTERRUPTED = 1, 2, 3, 130

app = typer.Typer(
    name="mains",
    help="Mains, the operating system for AI agents: run programs in plain language as durable processes.",
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _first(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"mains {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command line (that of this Python process when none is given)."""
    sys.exit(run_command(arguments))


def run_command(arguments: Sequence[str] | None) -> int:
    """Run a command line; the exit code."""
    try:
        code = get_command(app).main(
            args=None if arguments is None else list(arguments), prog_name="mains", standalone_mode=False
        )
        sys.stdout.flush()
    except typer.TyperException as error:
        say_error(_sentence(error.format_message()), _help_hint(error))
        return error.exit_code
    except MainsError as error:
        _say(error)
        return code_of(error)
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:  # the disk's last word: a line, as everything else that goes wrong
        say_error(told(error))
        return FAILED
    return code if isinstance(code, int) else 0


def told(error: OSError) -> str:
    """What the system says, in a line."""
    said = error.strerror or str(error)
    return f"{error.filename}: {said}" if error.filename else said


def code_of(error: MainsError) -> int:
    """2 for what the caller can mend by typing something else, 1 for everything else."""
    bad_input = isinstance(error, UsageError | ProgramError | ConfigError) and not isinstance(error, DaemonError)
    return BAD_INPUT if bad_input else FAILED


def _say(error: MainsError) -> None:
    if not isinstance(error, ProgramError):
        say_error(str(error), error.hint)
        return
    for line in mistakes_of(error):
        say_error(line)


def mistakes_of(error: ProgramError) -> list[str]:
    """Each mistake as FILE:LINE: what to change."""
    return [f"{error.path}{f':{line}' if line else ''}: {text}" for line, text in error.mistakes]


def _sentence(message: str) -> str:
    """A message of the parser, as ours begin and end."""
    plain = message.strip().replace("Value error, ", "", 1)  # the words of a library of the parser's
    return plain[:1].lower() + plain[1:].removesuffix(".")


def _help_hint(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    return f"`{context.command_path} --help` says how it is used" if context is not None else ""
