"""The verbs of tariffs: ls, show. They read the home, and need no daemon.

Prices are shown as they are published: in the currency of the price, for a million tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mains.cli.app import app
from mains.cli.options import HomeOption, JsonOption, find_home
from mains.cli.render import console, say, say_json, table
from mains.errors import NotFoundError

if TYPE_CHECKING:
    from mains.engines.tariffs import Catalogue
    from mains.home import Home
    from mains.kernel.price import Rates
    from mains.kernel.tariff import Tariff, Window

tariff_app = typer.Typer(help="Tariffs: what models cost.", rich_markup_mode=None)
app.add_typer(tariff_app, name="tariff")

View = dict[str, Any]

_NANO = 10**9
_RATES = ("input", "output", "cache_read", "cache_write", "cache_write_1h", "reasoning", "request")
_HEADS = ("INPUT", "OUTPUT", "READ", "WRITE", "WRITE 1H", "REASONING", "CALL")


@tariff_app.command("ls", epilog="Example: mains tariff ls")
def tariff_ls(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List what the models of the engines cost now: free, unpriced, or for a million tokens."""
    views = list(_views(find_home(home)))
    if as_json:
        say_json(views)
        return
    rows = [_row(view) for view in views]
    out = console()
    heads = ("MODEL", "INPUT", "CACHED", "OUTPUT", "PRICE", "SOURCE")
    out.print(table(heads, rows, right=("INPUT", "CACHED", "OUTPUT"), give="SOURCE", width=out.width))


@tariff_app.command("show", epilog="Example: mains tariff show qwen/qwen-plus")
def tariff_show(
    name: Annotated[str, typer.Argument(metavar="ENGINE[/MODEL]", help="An engine, or one of its models.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a model costs: its rates, tiers and windows, how long they hold, and where they are from."""
    view = next(_views(find_home(home), name))
    if as_json:
        say_json(view)
    elif view["price"] == "unpriced":
        say(f"{view['engine']}/{view['model']}: unpriced: {view['why']}")
    elif view["price"] == "free":
        say(f"{view['engine']}/{view['model']}: free ({view['source']})")
    else:
        _say_tariff(view)


def _views(home: Home, name: str | None = None) -> Iterator[View]:
    """The tariffs that are meant: one, or that of each engine's own model and of those that have a price."""
    from mains.compose import Engines, tariffs_of
    from mains.kernel.clock import SystemClock

    engines = Engines.of(home)
    tariffs = tariffs_of(home, lambda: engines.specs)
    now_ms = SystemClock().now_ms()
    if name is not None:
        engine, _, model = name.partition("/")
        if engine not in engines.specs:
            known = ", ".join(sorted(engines.specs))
            raise NotFoundError(f"there is no engine `{engine}` (known: {known})", hint="`mains engine ls` lists them")
        yield _view(tariffs, engine, model or engines.specs[engine].model, now_ms)
        return
    for spec in engines.specs.values():
        for model in tariffs.models(spec):
            yield _view(tariffs, spec.name, model, now_ms)


def _view(tariffs: Catalogue, engine: str, model: str, now_ms: int) -> View:
    tariff = tariffs.find(engine, model, now_ms)
    view: View = {"engine": engine, "model": model, "home_currency": tariffs.money.home}
    if tariff is None:
        return {**view, "price": "unpriced", "why": tariffs.why(engine, model, now_ms)}
    if tariff.free:
        return {**view, "price": "free", "source": tariff.source, "id": tariff.id}
    return {**view, "price": "priced", **_told(tariff, now_ms)}


def _told(tariff: Tariff, now_ms: int) -> View:
    cheaper = tariff.cheaper_at_ms(now_ms)
    window = tariff.window_at(now_ms)
    return {
        "id": tariff.id,
        "currency": tariff.currency,
        "exchange": _number(tariff.exchange),
        "region": tariff.region,
        "zone": tariff.zone,
        "source": tariff.source,
        "source_date": tariff.source_date,
        "window": window.name if window else "",
        "cheaper_at": _iso(cheaper, tariff.zone) if cheaper is not None else "",
        "now": _rates(tariff.tiers_at(now_ms)[0].rates),
        "snapshots": list(_snapshots(tariff)),
    }


def _snapshots(tariff: Tariff | None) -> Iterator[View]:
    while tariff is not None:
        yield {
            "valid_from": _iso(tariff.valid_from_ms, tariff.zone) if tariff.valid_from_ms else "",
            "valid_to": _iso(tariff.valid_to_ms, tariff.zone) if tariff.valid_to_ms else "",
            "tiers": [{"above": tier.above, **_rates(tier.rates)} for tier in tariff.tiers],
            "windows": [_window(window) for window in tariff.windows],
        }
        tariff = tariff.then


def _window(window: Window) -> View:
    from mains.kernel.week import DAYS

    hours = window.hours
    return {
        "name": window.name,
        "days": [DAYS[day] for day in hours.days],
        "from": f"{hours.begin // 60:02}:{hours.begin % 60:02}",
        "to": f"{hours.end // 60:02}:{hours.end % 60:02}",
        "tiers": [{"above": tier.above, **_rates(tier.rates)} for tier in window.tiers],
    }


def _rates(rates: Rates) -> View:
    """Rates as numbers of the currency: for a million tokens, `request` for a call."""
    return {**{name: _number(getattr(rates, name)) for name in _RATES}, "reasoning_whole": rates.reasoning_whole}


def _number(nano: int) -> float:
    return float(Decimal(nano) / _NANO)


def _iso(at_ms: int, zone: str) -> str:
    from zoneinfo import ZoneInfo

    moment = datetime.fromtimestamp(at_ms / 1_000, UTC).astimezone(ZoneInfo(zone))
    return moment.isoformat(timespec="minutes")


def _text(number: float) -> str:
    """A price as short as it can be written, without an exponent."""
    return f"{Decimal(str(number)).normalize():f}"


def _row(view: View) -> tuple[str, ...]:
    name = f"{view['engine']}/{view['model']}"
    if view["price"] != "priced":
        return (name, "-", "-", "-", view["price"], view.get("source", "") or view.get("why", ""))
    now = view["now"]
    more = [view["window"]] if view["window"] else []
    more += ["tiers"] if any(len(each["tiers"]) > 1 for each in view["snapshots"]) else []
    price = f"{view['currency']} ({', '.join(more)})" if more else view["currency"]
    return (name, _text(now["input"]), _text(now["cache_read"]), _text(now["output"]), price, view["source"])


def _say_tariff(view: View) -> None:
    place = f", {view['region']}" if view["region"] else ""
    say(f"{view['engine']}/{view['model']}: {view['currency']} for a million tokens{place}")
    for snapshot in view["snapshots"]:
        dates = [f"{word} {snapshot[f'valid_{word}']}" for word in ("from", "to") if snapshot[f"valid_{word}"]]
        if dates:
            say(f"valid {' '.join(dates)}")
        out = console()
        rows = list(_lines(snapshot))
        out.print(table(("WHEN", "TOKENS", *_HEADS), rows, right=("TOKENS", *_HEADS), give="WHEN", width=out.width))
        for window in snapshot["windows"]:
            hours = f"{_days(window['days'])} {window['from']}-{window['to']}"
            say(f"{window['name']}: {hours} ({view['zone']})")
    if view["window"] or view["cheaper_at"]:
        cheaper = f"; cheaper from {view['cheaper_at']}" if view["cheaper_at"] else ""
        say(f"now: {view['window'] or 'other hours'}{cheaper}")
    if view["currency"] != view["home_currency"]:
        say(f"exchange: 1 {view['currency']} = {_text(view['exchange'])} {view['home_currency']}")
    say(f"source: {', '.join(filter(None, (view['source'], view['source_date'])))}")
    say(f"id: {view['id']}")


def _lines(snapshot: View) -> Iterator[tuple[str, ...]]:
    """A line for each tier: those of the windows, then those of the other hours."""
    seen: list[tuple[str, list[View]]] = []
    for window in snapshot["windows"]:
        if (window["name"], window["tiers"]) not in seen:
            seen.append((window["name"], window["tiers"]))
            yield from _tiers(window["name"], window["tiers"])
    yield from _tiers("other hours" if snapshot["windows"] else "always", snapshot["tiers"])


def _tiers(when: str, tiers: list[View]) -> Iterator[tuple[str, ...]]:
    for number, tier in enumerate(tiers):
        size = f"> {tier['above']:,}" if tier["above"] else "any" if len(tiers) == 1 else f"<= {tiers[1]['above']:,}"
        yield (when if not number else "", size, *(_text(tier[name]) for name in _RATES))


def _days(days: list[str]) -> str:
    """`mon-fri`, or the days one by one."""
    from mains.kernel.week import DAYS

    first = DAYS.index(days[0])
    run = list(DAYS[first : first + len(days)])
    return f"{days[0]}-{days[-1]}" if len(days) > 2 and days == run else ",".join(days)
