"""Writes `src/mains/engines/prices/genai-prices.json` from the package `genai-prices` (MIT). Run by `make prices`.

The package knows the prices of most endpoints, but brings pydantic and an HTTP client (11 packages, 14 MB), and takes
0.16 s to import; and a price must not change because a package was upgraded. So its facts are taken as a dated
snapshot, in the form that `mains/engines/price.py` reads. Left out: what is not priced by input and output tokens,
texts, and variants (batch, priority) of other interfaces than the one that Mains calls.
"""

from __future__ import annotations

import datetime
import json
import sys
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any

from genai_prices import types
from genai_prices.data import providers

TARGET = Path(__file__).resolve().parents[1] / "src" / "mains" / "engines" / "prices" / "genai-prices.json"
UNITS = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cache_read",
    "cache_write_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h",
    "output_reasoning_mtok": "reasoning",
}
WITHOUT_URL = {"cursor", "github-copilot"}  # products with a price of their own, not endpoints that one calls


def rates_at(price: Any, input_tokens: int) -> dict[str, str]:
    """What a call with so many input tokens pays: threshold prices hold for the whole call, above their start."""
    rates = {}
    for unit, name in UNITS.items():
        value = getattr(price, unit, None)
        if isinstance(value, types.TieredPrices):
            starts = [tier for tier in value.tiers if tier.start < input_tokens]
            value = starts[-1].price if starts else value.base
        if value is not None:
            rates[name] = plain(value)
    requests = getattr(price, "requests_kcount", None)
    if isinstance(requests, Decimal):
        rates["request"] = plain(requests / 1_000)
    return rates


def plain(value: Decimal) -> str:
    return f"{value.normalize():f}"


def table_of(price: Any) -> dict[str, Any] | None:
    """A price with its tiers; None when it is not by input and output tokens."""
    tiered = [getattr(price, unit, None) for unit in UNITS]
    starts = sorted({tier.start for value in tiered if isinstance(value, types.TieredPrices) for tier in value.tiers})
    table: dict[str, Any] = rates_at(price, 0)
    if not {"input", "output"} <= set(table):
        return None
    tiers = [{"above": start, **rates_at(price, start + 1)} for start in starts]
    return {**table, "tiers": tiers} if tiers else table


def snapshots_of(model: Any) -> list[dict[str, Any]] | None:
    """The dated prices of a model, in order. The last one whose condition holds is the one that counts."""
    conditional = model.prices if isinstance(model.prices, list) else [types.ConditionalPrice(prices=model.prices)]
    starts = [
        each.constraint.start_date for each in conditional if isinstance(each.constraint, types.StartDateConstraint)
    ]
    days: list[datetime.date | None] = [None, *sorted(set(starts))]
    found = []
    for day, next_day in zip(days, [*days[1:], None], strict=True):
        table = snapshot_at(conditional, day)
        if table is None:
            return None
        if day is not None:
            table["valid_from"] = day.isoformat()
        if next_day is not None:
            table["valid_to"] = next_day.isoformat()
        found.append(table)
    return found


def snapshot_at(conditional: list[Any], day: datetime.date | None) -> dict[str, Any] | None:
    base = conditional[0].prices
    hours: list[tuple[Any, Any]] = []
    for each in conditional:
        if isinstance(each.constraint, types.TimeOfDateConstraint):
            hours.append((each.constraint, each.prices))
        elif each.constraint is None or (day is not None and each.constraint.start_date <= day):
            base, hours = each.prices, []
    table = table_of(base)
    windows = [(hour, table_of(price)) for hour, price in hours]
    if table is None or any(price is None for _, price in windows):
        return None
    if windows:
        table["windows"] = [
            {"name": "hours", "from": clock(hour.start_time), "to": clock(hour.end_time), **(price or {})}
            for hour, price in windows
        ]
    return table


def clock(time: datetime.time) -> str:
    if time.utcoffset():
        sys.exit(f"{time} is not UTC: the windows of the snapshot are")
    return time.strftime("%H:%M")


def match_of(clause: Any) -> dict[str, Any]:
    match clause:
        case types.ClauseEquals():
            return {"equals": clause.equals}
        case types.ClauseStartsWith():
            return {"starts_with": clause.starts_with}
        case types.ClauseEndsWith():
            return {"ends_with": clause.ends_with}
        case types.ClauseContains():
            return {"contains": clause.contains}
        case types.ClauseRegex():
            return {"regex": clause.regex}
        case types.ClauseOr():
            return {"any": [match_of(each) for each in clause.or_]}
        case types.ClauseAnd():
            return {"all": [match_of(each) for each in clause.and_]}
    sys.exit(f"a match that is not known: {clause}")


def provider_of(provider: Any) -> dict[str, Any]:
    models = []
    for model in provider.models:
        prices = snapshots_of(model)
        # A model without a price stays, so that a wider match further down does not take its name.
        models.append({"id": model.id, "match": match_of(model.match), "prices": prices or []})
    source = (provider.pricing_urls or [""])[0]
    return {"id": provider.id, "url": provider.api_pattern, "source": source, "models": models}


def main() -> None:
    kept = [provider_of(each) for each in providers if each.id not in WITHOUT_URL]
    found = {
        "package": f"genai-prices {version('genai-prices')}",
        "licence": "MIT, Copyright (c) Pydantic Services Inc. 2025 to present",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "providers": [each for each in kept if any(model["prices"] for model in each["models"])],
    }
    TARGET.write_text(json.dumps(found, separators=(",", ":"), ensure_ascii=False) + "\n", encoding="utf-8")


main()
