"""The verbs of the meter: meter, meter watch, statement."""

from __future__ import annotations

import csv
import enum
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer

from mains.cli.amounts import brief, exact, since_ms
from mains.cli.app import app
from mains.cli.options import AccountArgument, HomeOption, JsonOption, complete_accounts, daemon_of
from mains.cli.reading import zone_named
from mains.cli.render import clean, console, note, say, say_json, shorten, table
from mains.errors import UsageError

Row = Mapping[str, Any]

meter_app = typer.Typer(rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]})
app.add_typer(meter_app, name="meter")

ScopeOption = Annotated[
    str,
    typer.Option(
        "--account", metavar="ACCOUNT", help="This account and all below it.", autocompletion=complete_accounts
    ),
]


class By(enum.StrEnum):
    """What the meter sums by."""

    PROGRAM = "program"
    USER = "user"
    MODEL = "model"
    DAY = "day"


class Format(enum.StrEnum):
    """How a statement is written."""

    CSV = "csv"
    JSON = "json"


@meter_app.callback(
    invoke_without_command=True,
    epilog="Examples: mains meter --by model --since 7d; mains meter --account acme --by user",
)
def meter(
    context: typer.Context,
    by: Annotated[By | None, typer.Option("--by", help="Sum by program, user (account), model or day.")] = None,
    account: ScopeOption = "",
    since: Annotated[
        str,
        typer.Option(
            "--since", metavar="WHEN", help="7d, 12h, or from a day on: 2026-11-01 (else from the beginning)."
        ),
    ] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """What ran, what it cost, and what was saved.

    Each row counts model calls, tokens in (cached ones beside) and out, money, and what cached input and off-peak hours
    saved against the dearest price. `mains meter watch` is a live dial.
    """
    if context.invoked_subcommand is not None:
        if by or account or since or home or as_json:
            raise UsageError("options come after `watch`", hint="mains meter watch --account NAME")
        return
    client = daemon_of(home)
    query: dict[str, str | int] = {"by": by.value if by else "", "account": account}
    if since:
        zone = zone_named(client.account(account or "home")["zone"])
        query["from_ms"] = since_ms(since, int(time.time() * 1_000), zone)
    rows = client.meter(**query)
    if as_json:
        say_json(rows)
    elif rows:
        _print(rows, by)
    else:
        note("nothing was metered" + (" since then" if since else ""))


@meter_app.command("watch", epilog="Example: mains meter watch --account acme")
def meter_watch(
    account: ScopeOption = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """A live dial of what is used.

    Tokens a minute, money an hour, today, limits, and who burns most. On a terminal q ends it. Elsewhere, or with
    --json: how things stand, once.
    """
    from mains.cli.dial import Dial
    from mains.cli.reading import read

    client = daemon_of(home)
    dial = Dial()
    dial.take(read(client, account, int(time.time() * 1_000), first=True))
    if as_json:
        say_json(dial.as_object())
    elif sys.stdin.isatty() and sys.stdout.isatty():
        from mains.cli.dialscreen import DialScreen

        DialScreen(client.home, account, dial).run()
    else:
        for line in dial.plain(console().width):
            say(line)


@app.command(epilog="Example: mains statement acme --month 2026-11 --format csv > acme.csv")
def statement(
    account: AccountArgument,
    month: Annotated[str, typer.Option("--month", metavar="YYYY-MM", help="The month, on the account's clock.")],
    form: Annotated[
        Format, typer.Option("--format", help="csv: a line for each day, program and model; json: with sums.")
    ] = (Format.CSV),
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """A month of an account, to the last digit.

    A line for each day, program and model. Money has every digit that was counted: the lines add up to the sums.
    """
    found = daemon_of(home).statement(account, month)
    if as_json or form is Format.JSON:
        say_json(found)
        return
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(CSV_HEADS)
    for row in found["rows"]:
        writer.writerow(csv_line(row))


# what is printed

_Column = tuple[str, Callable[[Row], str]]

_SEVERAL = "(several)"
_SAVED = ("cache_saved_nano", "off_peak_saved_nano")
_NUMBERS: tuple[_Column, ...] = (
    ("CALLS", lambda row: f"{row['calls']:,}"),
    ("INPUT", lambda row: f"{row['input_tokens']:,}"),
    ("CACHED", lambda row: f"{row['cached_tokens']:,}"),
    ("OUTPUT", lambda row: f"{row['output_tokens']:,}"),
    ("COST", lambda row: brief(row["cost_nano"])),
    ("SAVED", lambda row: brief(sum(row[each] for each in _SAVED))),
)
_NAMES: Mapping[By | None, tuple[str, ...]] = {
    None: ("account", "program", "model"),
    By.PROGRAM: ("account", "program"),
    By.USER: ("account",),
    By.MODEL: ("model",),
    By.DAY: ("day",),
}
_SUMMED = ("calls", "input_tokens", "cached_tokens", "output_tokens", "cost_nano", "overrun_tokens", *_SAVED)


def _print(rows: Sequence[Row], by: By | None) -> None:
    out = console()
    names = _NAMES[by]
    cells = [
        [*(shorten(row[name] or _SEVERAL, 32) for name in names), *(show(row) for _, show in _NUMBERS)] for row in rows
    ]
    total = summed(rows)
    if len(rows) > 1:
        cells.append(["total", *[""] * (len(names) - 1), *(show(total) for _, show in _NUMBERS)])
    heads = [*(name.upper() for name in names), *(head for head, _ in _NUMBERS)]
    right = [head for head, _ in _NUMBERS]
    out.print(table(heads, cells, right=right, give=heads[len(names) - 1], width=out.width))
    say(clean(told(total, rows[0]["currency"])))


def summed(rows: Sequence[Row]) -> dict[str, int]:
    """The sums of rows."""
    return {name: sum(row[name] for row in rows) for name in _SUMMED}


def told(total: Row, currency: str) -> str:
    """What it cost and what was saved, in a sentence."""
    parts = [f"cost {exact(total['cost_nano'])} {currency}"]
    cache, off_peak = (total[name] for name in _SAVED)
    if cache or off_peak:
        parts.append(f"saved {exact(cache)} by cached input and {exact(off_peak)} by off-peak hours")
    if total["overrun_tokens"]:
        parts.append(f"{total['overrun_tokens']:,} tokens above their holds")
    return "; ".join(parts)


CSV_HEADS = (
    *(
        "day",
        "account",
        "program",
        "model",
        "calls",
        "input_tokens",
        "cached_tokens",
        "output_tokens",
        "overrun_tokens",
    ),
    *("cost", "currency", "cache_saved", "off_peak_saved"),
)


def csv_line(row: Row) -> list[str]:
    """A line of a statement; money as an exact decimal number."""
    texts = [str(row[name]) for name in CSV_HEADS[:9]]
    return [*texts, exact(row["cost_nano"]), row["currency"], *(exact(row[name]) for name in _SAVED)]
