"""The tariffs of a home: what each model costs at each engine, and where the figure is from.

The first of these that knows a model counts, at each moment that it speaks of:

1. the `price` of the engine in mains.toml (`price.py`; one that names the model before one that does not);
2. an engine that runs here (llama, scripted, or an endpoint on this machine) is free;
3. our own tables, `prices/*.toml`, by the host of the endpoint: Qwen at DashScope, DeepSeek;
4. `prices/genai-prices.json`, a dated snapshot of the package `genai-prices`, by the endpoint's URL.

A model that none knows is unpriced: `find` gives None, and `Catalogue.why` says why. Files are read when they are first
needed, and what was found is kept (at most KEPT_MAX models).
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from mains.engines.catalogue import DEFAULT_ENGINE, ENDPOINTS, EngineSpec
from mains.engines.price import Money, read_price, tables_of
from mains.errors import ConfigError
from mains.kernel.tariff import FREE, Tariff, link

KEPT_MAX = 1_024

Match = Mapping[str, Any]


class Found(NamedTuple):
    """What is known of a model at an engine: its tariff with all its dates, or why there is none."""

    tariff: Tariff | None
    why: str = ""


class Catalogue:
    """The kernel's `Tariffs` of a home. `specs` gives the engines as they are configured now."""

    def __init__(self, specs: Callable[[], Mapping[str, EngineSpec]], money: Money, where: str) -> None:
        """Raises ConfigError when a price in mains.toml cannot be used, or is in a currency without a rate."""
        self._specs = specs
        self._where = where
        self._found: dict[tuple[str, str], tuple[EngineSpec | None, Found]] = {}
        self.money = money
        for spec in specs().values():
            for model in self.models(spec):
                self._own(spec, model)

    def find(self, engine: str, model: str, now_ms: int) -> Tariff | None:
        """The tariff that is in force now; None: unpriced. Nothing is raised: what cannot be used is unpriced."""
        tariff = self._look(engine, model).tariff
        return tariff.in_force(now_ms) if tariff is not None else None

    def why(self, engine: str, model: str, now_ms: int) -> str:
        """Why there is no tariff now; empty when there is one."""
        found = self._look(engine, model)
        if found.tariff is None:
            return found.why
        return "" if found.tariff.in_force(now_ms) else "its price is not valid now"

    def models(self, spec: EngineSpec) -> list[str]:
        """The models of an engine that mains.toml speaks of: its own first, then those that have a price."""
        tables = tables_of(spec.price, self._place(spec)) if spec.price is not None else []
        named = [table["model"] for table in tables if isinstance(table.get("model"), str)]
        return list(dict.fromkeys([spec.model, *named]))

    def _place(self, spec: EngineSpec) -> str:
        return f"{self._where}: [engines.{spec.name}.price]"

    def _look(self, engine: str, model: str) -> Found:
        spec = self._specs().get(engine)
        known = self._found.get((engine, model))
        if known is not None and known[0] is spec:
            return known[1]
        if len(self._found) >= KEPT_MAX:
            del self._found[next(iter(self._found))]
        try:
            found = self._search(spec, engine, model)
        except ConfigError as error:  # of an engine that came later; at the start it would have been raised
            found = Found(None, _line(error))
        self._found[engine, model] = spec, found
        return found

    def _search(self, spec: EngineSpec | None, engine: str, model: str) -> Found:
        if spec is None and model.endswith(".gguf"):
            # The embedded engine with a model file that a program names has no entry of its own: that engine's counts.
            spec = self._specs().get(DEFAULT_ENGINE)
            if spec is None or spec.kind != "llama":
                return Found(FREE)
        if spec is None:
            return Found(None, f"there is no engine `{engine}`")
        own = self._own(spec, model)
        rest = Found(FREE) if is_local(spec) else self._known(spec, model)
        if not own:
            return rest
        return Found(link(_overlaid(_snapshots(rest.tariff), own)))

    def _own(self, spec: EngineSpec, model: str) -> list[Tariff]:
        """The prices of mains.toml for a model, in order. Raises ConfigError."""
        if spec.price is None:
            return []
        place, name = self._place(spec), f"{spec.name}/{model}"
        tables = tables_of(spec.price, place)
        tables = [table for table in tables if table.get("model", model) == model]
        tables = [table for table in tables if "model" in table] or tables
        prices = [read_price(table, name, self.money, place) for table in tables]
        try:
            return _snapshots(link(prices)) if prices else []
        except ConfigError as error:
            raise ConfigError(f"{place}: {error}", hint=error.hint) from error

    def _known(self, spec: EngineSpec, model: str) -> Found:
        """What our tables or the snapshot know."""
        tables = _of_host(urlsplit(spec.url).hostname or "", model) or _of_snapshot(spec.url, model)
        if not tables:
            return Found(None, f"no price is known of `{model}` at {spec.url}")
        try:
            return Found(link(read_price(table, f"{spec.name}/{model}", self.money, spec.name) for table in tables))
        except ConfigError as error:  # a currency without a rate
            return Found(None, _line(error))


def is_local(spec: EngineSpec) -> bool:
    """Whether an engine runs on this machine."""
    if spec.kind not in ENDPOINTS:
        return True
    host = urlsplit(spec.url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761, section 6.3
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _line(error: ConfigError) -> str:
    return f"{error} ({error.hint})" if error.hint else str(error)


def _snapshots(tariff: Tariff | None) -> list[Tariff]:
    """A tariff's snapshots, each for itself."""
    found = []
    while tariff is not None:
        found.append(msgspec.structs.replace(tariff, then=None, id=""))
        tariff = tariff.then
    return found


def _overlaid(below: list[Tariff], above: list[Tariff]) -> list[Tariff]:
    """The snapshots of `above`, and before and after them those of `below` where they join without a gap."""
    begin, end = above[0].valid_from_ms, above[-1].valid_to_ms
    before = [_cut(each, each.valid_from_ms, begin) for each in below if each.valid_from_ms < begin]
    if before and before[-1].valid_to_ms < begin:
        before = []
    after = [_cut(each, max(end, each.valid_from_ms), each.valid_to_ms) for each in below if _lasts(each, end)]
    return [*before, *above, *after]


def _lasts(tariff: Tariff, end_ms: int) -> bool:
    return end_ms > 0 and (tariff.valid_to_ms == 0 or tariff.valid_to_ms > end_ms)


def _cut(tariff: Tariff, from_ms: int, to_ms: int) -> Tariff:
    to_ms = min(to_ms, tariff.valid_to_ms) if tariff.valid_to_ms and to_ms else to_ms or tariff.valid_to_ms
    return msgspec.structs.replace(tariff, valid_from_ms=from_ms, valid_to_ms=to_ms, id="")


# ---------------------------------------------------------------------------------------- the tables that we ship


@cache
def _tables() -> dict[str, dict[str, dict[str, Any]]]:
    """Our own tables: host -> model -> price."""
    hosts: dict[str, dict[str, dict[str, Any]]] = {}
    for file in sorted(files("mains.engines").joinpath("prices").iterdir(), key=lambda file: file.name):
        if not file.name.endswith(".toml"):
            continue
        table = tomllib.loads(file.read_text("utf-8"), parse_float=Decimal)
        shared = {key: table[key] for key in ("region", "currency", "source", "source_date") if key in table}
        for host in table["hosts"]:
            for entry in table["models"]:
                price = {**shared, **{key: value for key, value in entry.items() if key != "names"}}
                hosts.setdefault(host, {}).update(dict.fromkeys(entry["names"], price))
    return hosts


def _of_host(host: str, model: str) -> list[dict[str, Any]]:
    price = _tables().get(host, {}).get(model)
    return [price] if price is not None else []


class _Model(msgspec.Struct, frozen=True):
    id: str
    match: dict[str, Any]
    prices: list[dict[str, Any]]


class _Provider(msgspec.Struct, frozen=True):
    id: str
    url: str
    source: str
    models: list[_Model]


class _Snapshot(msgspec.Struct, frozen=True):
    package: str
    date: str
    providers: list[_Provider]


@cache
def _snapshot() -> _Snapshot:
    text = files("mains.engines").joinpath("prices", "genai-prices.json").read_bytes()
    return msgspec.json.decode(text, type=_Snapshot)


def _of_snapshot(url: str, model: str) -> list[dict[str, Any]]:
    """The prices of the first model that matches, at the provider of this URL; its dates in order."""
    snapshot = _snapshot()
    provider = next((each for each in snapshot.providers if re.match(each.url, url)), None)
    if provider is None:
        return []
    found = next((each for each in provider.models if _matches(each.match, model.lower())), None)
    if found is None:
        return []
    source = f"{snapshot.package}, {provider.source}" if provider.source else snapshot.package
    return [{"currency": "usd", "source": source, "source_date": snapshot.date, **price} for price in found.prices]


def _matches(match: Match, model: str) -> bool:
    """Whether a model's name is meant, as the package's clauses say (a clause has one key)."""
    ((kind, value),) = match.items()
    if kind in ("any", "all"):
        found = [_matches(each, model) for each in value]
        return any(found) if kind == "any" else all(found)
    if kind == "regex":
        return bool(re.search(value, model))
    text = str(value).lower()
    outcome = {
        "equals": model == text,
        "starts_with": model.startswith(text),
        "ends_with": model.endswith(text),
        "contains": text in model,
    }
    return outcome[kind]
