"""The verbs of accounts: account add, ls, show; budget set; topup."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mains.cli.amounts import Purse, amount, brief, count, exact, limits_of, nano_of, tokens_of
from mains.cli.app import app
from mains.cli.options import (
    AccountArgument,
    HomeOption,
    JsonOption,
    KeyOption,
    complete_accounts,
    daemon_of,
    given_name,
    purse_of,
)
from mains.cli.render import clean, console, say, say_json, shorten, table
from mains.errors import UsageError

if TYPE_CHECKING:
    from mains.daemon.client import Client

View = Mapping[str, Any]

account_app = typer.Typer(help="Accounts: who pays.", rich_markup_mode=None)
budget_app = typer.Typer(help="Budgets: how much an account may use.", rich_markup_mode=None)
app.add_typer(account_app, name="account")
app.add_typer(budget_app, name="budget")

_DEPTH_SHOWN = 12


@account_app.command("add", epilog="Example: mains account add ann --under acme --zone Europe/Berlin")
def account_add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Small letters, digits, `.`, `-`, `_`; a letter first.")],
    under: Annotated[
        str,
        typer.Option(
            "--under",
            metavar="PARENT",
            help="The account above (else home).",
            autocompletion=complete_accounts,
            callback=given_name,
        ),
    ] = "",
    zone: Annotated[
        str,
        typer.Option("--zone", metavar="ZONE", help="The clock of its days, weeks, months (else of the one above)."),
    ] = "",
    unknown_price: Annotated[
        str,
        typer.Option(
            "--unknown-price", metavar="refuse|allow", help="Under a limit of money: a model whose price nobody knows."
        ),
    ] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an account: an organisation, a team, a user."""
    made = daemon_of(home).account_add(name, under=under, zone=zone, unknown_price=unknown_price)
    say_json(made) if as_json else say(f"account {made['name']} is under {made['parent'] or 'home'}")


@account_app.command("set", epilog="Example: mains account set ann --unknown-price allow")
def account_set(
    account: AccountArgument,
    unknown_price: Annotated[
        str,
        typer.Option(
            "--unknown-price",
            metavar="refuse|allow|inherit",
            help="Under its limits of money: a model whose price nobody knows.",
        ),
    ],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change an account: what its limits of money do about a model whose price nobody knows."""
    view = daemon_of(home).account_set(account, "" if unknown_price == "inherit" else unknown_price)
    say_json(view) if as_json else say(clean(f"{_kind(view)} {view['name']}: unknown prices: {view['unknown_price']}"))


@account_app.command("ls", epilog="Example: mains account ls")
def account_ls(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List accounts and the programs that ran on them, each below the one above it."""
    views = daemon_of(home).accounts()
    if as_json:
        say_json(views)
        return
    out = console()
    rows = [
        (
            "  " * depth + shorten(view["name"], max(12, 36 - 2 * depth)),
            f"{view['posted_tokens'] + view['overrun_tokens']:,}",
            f"{view['held_tokens']:,}",
            f"{brief(view['posted_nano'] + view['overrun_nano'])} {view['currency']}",
            ", ".join(limit_told(limit, view["currency"]) for limit in in_order(view["limits"])),
        )
        for depth, view in by_depth(views)
    ]
    heads = ("ACCOUNT", "TOKENS", "HELD", "COST", "LIMITS USED")
    out.print(table(heads, rows, right=("TOKENS", "HELD", "COST"), give="LIMITS USED", width=out.width))


@account_app.command(
    "show", epilog="Examples: mains account show ann; mains account show ann/digest; mains account show 7"
)
def account_show(account: AccountArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show an account with everything below it: what it used, and its limits."""
    view = daemon_of(home).account(account)
    if as_json:
        say_json(view)
        return
    where = f"below {view['parent']}" if view["kind"] == "process" else view["path"]
    say(clean(f"{_kind(view)} {view['name']} ({where})"))
    for line in _about(view):
        say(clean(f"  {line}"))
    tell_limits(view)


@budget_app.command("set", epilog="Example: mains budget set ann --tokens 200k/day --money 5usd/month")
def budget_set(
    account: AccountArgument,
    tokens: Annotated[
        list[str] | None,
        typer.Option("--tokens", metavar="N[/WINDOW]", help="200k/day, 1.5m/month, 50k (for ever), none/day."),
    ] = None,
    money: Annotated[
        list[str] | None,
        typer.Option(
            "--money", metavar="AMOUNT[/WINDOW]", help="5usd/month, 0.25eur/day, 20usd (for ever), none/month."
        ),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set limits of an account, for it and all below it; `none` takes one away.

    Windows: total, day, week, month. What was used in the current window counts. All limits are set, or none.
    """
    client = daemon_of(home)
    purse = purse_of(client.home) if money else Purse("")
    limits = limits_of(tokens or [], money or [], purse)
    if not limits:
        raise UsageError("there is no limit to set", hint="--tokens 200k/day, --money 5usd/month")
    if money:
        _check_currency(client, purse)
    view = client.budget_set(account, limits)
    if as_json:
        say_json(view)
        return
    say(clean(f"{_kind(view)} {view['name']}"))
    tell_limits(view)


@app.command(epilog="Examples: mains topup ann --tokens 50k; mains topup ann --money 2usd; mains topup 7 --tokens 5k")
def topup(
    account: AccountArgument,
    tokens: Annotated[str, typer.Option("--tokens", metavar="N", help="So many tokens more: 50k.")] = "",
    money: Annotated[str, typer.Option("--money", metavar="AMOUNT", help="So much money more: 2usd.")] = "",
    key: KeyOption = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give an account more room.

    It counts in the current window of each of its limits of tokens, or of money. Processes that stopped because it was
    used up go on where they were.
    """
    if bool(tokens) == bool(money):
        raise UsageError(
            "give either --tokens or --money", hint=f"such as: mains topup {shorten(account, 40)} --tokens 50k"
        )
    client = daemon_of(home)
    purse = purse_of(client.home) if money else Purse("")
    try:
        more = {"tokens": tokens_of(tokens)} if tokens else {"nano": nano_of(money, purse)}
    except UsageError as error:
        raise UsageError(f"--{'tokens' if tokens else 'money'}: {error}", hint=error.hint) from error
    if money:
        _check_currency(client, purse)
    view = client.topup(account, key=key, **more)
    if as_json:
        say_json(view)
        return
    told = amount(more["tokens"], "tokens", "") if tokens else amount(more["nano"], "money", view["currency"])
    say(clean(f"{_kind(view)} {view['name']} has {told} more"))
    tell_limits(view)


def _check_currency(client: Client, purse: Purse) -> None:
    """Raises UsageError when the daemon counts in another currency than what was just read."""
    counted = client.account("home")["currency"]
    if counted != purse.currency:
        text = f"the daemon counts in {counted}, and mains.toml says {purse.currency}: nothing was changed"
        raise UsageError(text, hint="`mains down` ends it; the next command starts one that has read mains.toml")


# what is told


def by_depth(views: Sequence[View]) -> Iterator[tuple[int, View]]:
    """Accounts in their order, each with its depth below the home."""
    depths: dict[str, int] = {}
    for view in views:
        depths[view["name"]] = depth = depths.get(view["parent"], -1) + 1 if view["kind"] != "home" else 0
        yield min(depth, _DEPTH_SHOWN), view


def room(limit: View) -> int:
    """The most that may be used in this window, top-ups included."""
    return int(limit["most"] + limit["added"])


def percent(limit: View) -> int:
    """How much of a limit is used, in percent, rounded down (a limit of nothing is used up)."""
    return int(100 * limit["used"] // room(limit)) if room(limit) > 0 else 100


def limit_name(limit: View) -> str:
    """Unit and window: tokens/day."""
    return f"{limit['unit']}/{limit['window']}"


def limit_told(limit: View, currency: str) -> str:
    """How much of which limit is used: 62 % of 200k tokens a day."""
    most = f"{count(room(limit))} tokens" if limit["unit"] == "tokens" else f"{brief(room(limit))} {currency}"
    return f"{percent(limit)} % of {most}{'' if limit['window'] == 'total' else ' a ' + limit['window']}"


def in_order(limits: Sequence[View]) -> list[View]:
    """Tokens before money, short windows before long ones."""
    places = ("day", "week", "month", "total")
    return sorted(limits, key=lambda limit: (limit["unit"] != "tokens", places.index(limit["window"])))


def tell_limits(view: View) -> None:
    """The limits of an account, as a table; a line when it has none."""
    if not view["limits"]:
        say("  no limits")
        return
    rows = []
    for limit in in_order(view["limits"]):
        shown = exact if limit["unit"] == "money" else "{:,}".format
        unit = view["currency"] if limit["unit"] == "money" else "tokens"
        added = f" + {shown(limit['added'])}" if limit["added"] else ""
        rows.append(
            (
                f"  {unit} {'in all' if limit['window'] == 'total' else 'a ' + limit['window']}",
                f"{shown(limit['most'])}{added}",
                shown(limit["used"]),
                shown(limit["held"]),
                shown(limit["left"]),
                f"{percent(limit)} %",
                limit["resets_at"][:16].replace("T", " "),  # to the minute, on the account's clock
            )
        )
    heads = ("  LIMIT", "MOST", "USED", "HELD", "LEFT", "%", "RESETS AT")
    out = console()
    out.print(table(heads, rows, right=("MOST", "USED", "HELD", "LEFT", "%"), give="RESETS AT", width=out.width))


def _kind(view: View) -> str:
    """What it is, before its name."""
    return {"program": "program", "process": "process"}.get(view["kind"], "account")


def _about(view: View) -> Iterator[str]:
    if view["zone"]:
        yield f"time zone: {view['zone']}"
    yield f"a model without a known price, under a limit of money: {view['unknown_price']}"
    overrun = f" ({view['overrun_tokens']:,} of them above their holds)" if view["overrun_tokens"] else ""
    yield f"tokens: {view['posted_tokens'] + view['overrun_tokens']:,} used{overrun}, {view['held_tokens']:,} held"
    cost, currency = exact(view["posted_nano"] + view["overrun_nano"]), view["currency"]
    over = f" ({exact(view['overrun_nano'])} above their holds)" if view["overrun_nano"] else ""
    yield f"cost: {cost} {currency}{over}, {exact(view['held_nano'])} held"
