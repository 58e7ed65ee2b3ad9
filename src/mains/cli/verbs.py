"""Every verb: importing a file adds its verbs to the application. `ORDER` is how `mains --help` lists them."""

from __future__ import annotations

from typer.models import CommandInfo

from mains.cli import (
    acceptance,
    account,
    audits,
    care,
    check,
    daemon,
    device,
    diff,
    doctor,
    engine,
    files,
    grant,
    inspect,
    mem,
    meter,
    note,
    process,
    run,
    secret,
    segment,
    talk,
    tariff,
    top,
)
from mains.cli.app import app, main

__all__ = [
    "acceptance",
    "account",
    "app",
    "audits",
    "care",
    "check",
    "daemon",
    "device",
    "diff",
    "doctor",
    "engine",
    "files",
    "grant",
    "inspect",
    "main",
    "mem",
    "meter",
    "note",
    "process",
    "run",
    "secret",
    "segment",
    "talk",
    "tariff",
    "top",
]

ORDER = (
    *("run", "chat", "attach", "check", "ps", "top", "show", "logs", "mem", "diff", "wait", "send", "answer"),
    *("pause", "resume", "kill", "restart", "exec_", "fork", "rm"),
    *("topup", "statement"),
    *("up", "down", "status", "doctor", "prune", "backup", "restore"),
)


def _place(command: CommandInfo) -> int:
    return ORDER.index(getattr(command.callback, "__name__", ""))


app.registered_commands.sort(key=_place)
