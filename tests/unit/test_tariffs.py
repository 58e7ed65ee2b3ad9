"""The tariffs of a home: which source counts, what is free and what is unpriced; and the tables that we ship."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from mains.compose import tariffs_of
from mains.engines.catalogue import EngineSpec, load_engines, write_engine
from mains.engines.price import Money, read_price
from mains.engines.tariffs import KEPT_MAX, Catalogue, _snapshot, _tables, is_local
from mains.errors import ConfigError
from mains.home import Home
from mains.kernel.ports import Usage
from mains.kernel.tariff import FREE, link

INTL = "https://dashscope-intl.aliyuncs.com/compatible-mode/v1"
BEIJING = "https://dashscope.aliyuncs.com/compatible-mode/v1"
NOW = 1_795_600_000_000  # 2026-11-25 09:46 UTC, a Wednesday
DAY_MS = 86_400_000


def endpoint(url: str, model: str, **more: object) -> dict[str, object]:
    return {"kind": "openai", "url": url, "model": model, **more}


def catalogue(money: Money | None = None, **engines: Mapping[str, object]) -> Catalogue:
    specs = load_engines(engines, "mains.toml")
    return Catalogue(lambda: specs, money or Money(), "mains.toml")


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("UTC")).timestamp() * 1_000)


def test_engines_that_run_here_are_free() -> None:
    found = catalogue(
        ollama=endpoint("http://127.0.0.1:11434/v1", "llama3"),
        script={"kind": "scripted", "path": "s.yaml"},
    )
    for engine, model in (("llama", "smollm2"), ("ollama", "llama3"), ("script", "s"), ("gguf-x-1", "/m/x.gguf")):
        assert found.find(engine, model, NOW) is FREE
        assert found.why(engine, model, NOW) == ""


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://localhost:8000/v1", True),
        ("http://127.1.2.3/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://gpu.localhost/v1", True),
        ("http://192.168.1.5/v1", False),
        ("http://localhost.example.org/v1", False),
        ("https://api.openai.com/v1", False),
    ],
)
def test_what_runs_here(url: str, local: bool) -> None:
    assert is_local(EngineSpec(name="x", kind="openai", url=url, model="m")) is local


def test_a_local_engine_with_a_price_has_it() -> None:
    found = catalogue(ollama=endpoint("http://127.0.0.1:1/v1", "llama3", price={"input": 1, "output": 2}))
    tariff = found.find("ollama", "llama3", NOW)
    assert tariff is not None
    assert tariff.cost_nano(Usage(1_000, 0, 1_000), NOW) == 3_000_000
    assert tariff.name == "ollama/llama3"


def test_the_price_of_the_embedded_engine_holds_for_model_files_that_programs_name() -> None:
    found = catalogue(llama={"kind": "llama", "price": {"input": 1, "output": 2}})
    for engine, model in (("llama", "smollm2-135m-instruct"), ("gguf-x-1", "/m/x.gguf")):
        tariff = found.find(engine, model, NOW)
        assert tariff is not None
        assert tariff.cost_nano(Usage(1_000_000), NOW) == 1_000_000_000


def test_what_nobody_knows_is_unpriced_and_says_why() -> None:
    found = catalogue(x=endpoint("https://llm.example.org/v1", "m"), oa=endpoint("https://api.openai.com/v1", "m-9"))
    assert found.find("x", "m", NOW) is None
    assert found.why("x", "m", NOW) == "no price is known of `m` at https://llm.example.org/v1"
    assert found.find("oa", "m-9", NOW) is None
    assert found.find("nobody", "m", NOW) is None
    assert found.why("nobody", "m", NOW) == "there is no engine `nobody`"


def test_qwen_by_the_region_of_the_endpoint() -> None:
    found = catalogue(
        Money("usd", {"cny": 139_000_000}), intl=endpoint(INTL, "qwen-plus"), cn=endpoint(BEIJING, "qwen-plus")
    )
    intl, beijing = found.find("intl", "qwen-plus", NOW), found.find("cn", "qwen-plus", NOW)
    assert intl is not None
    assert beijing is not None
    assert (intl.currency, intl.region, beijing.currency, beijing.region) == ("usd", "Singapore", "cny", "Beijing")
    assert intl.cost_nano(Usage(1_000_000 // 4, 0, 0), NOW) == 100_000_000
    assert intl.cost_nano(Usage(1_000_000, 0, 0), NOW) == 1_200_000_000  # the upper tier, for the whole call
    assert beijing.cost_nano(Usage(100_000, 0, 0), NOW) == 11_120_000
    assert intl.cost_nano(Usage(0, 0, 1_000, reasoning_tokens=1), NOW) == 4_000_000  # thought: the whole output


def test_a_price_in_a_currency_without_a_rate_is_unpriced_and_says_what_to_write() -> None:
    found = catalogue(cn=endpoint(BEIJING, "qwen-plus"))
    assert found.find("cn", "qwen-plus", NOW) is None
    assert "the price is in cny, and the home's currency is usd" in found.why("cn", "qwen-plus", NOW)
    assert "write cny = (what one cny is worth in usd) under [rates]" in found.why("cn", "qwen-plus", NOW)


def test_a_price_of_ones_own_needs_no_rate_for_the_list_price() -> None:
    found = catalogue(cn=endpoint(BEIJING, "qwen-plus", price={"input": 1, "output": 1, "valid_to": "2027-01-01"}))
    assert found.find("cn", "qwen-plus", NOW) is not None
    assert found.find("cn", "qwen-plus", ms("2027-01-01")) is None


def test_a_local_engine_is_free_until_its_price_begins() -> None:
    later = {"input": 1, "output": 1, "valid_from": "2027-01-01"}
    found = catalogue(ollama=endpoint("http://127.0.0.1:1/v1", "llama3", price=later))
    tariff = found.find("ollama", "llama3", NOW)
    assert tariff is not None
    assert tariff.cost_nano(Usage(1_000), NOW) == 0
    assert tariff.hold_nano(1_000, 0, NOW, ms("2027-01-01")) == 1_000_000


def test_a_price_of_ones_own_in_a_currency_without_a_rate_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"\[engines.x.price\]: the price is in eur"):
        catalogue(x=endpoint(INTL, "m", price={"currency": "eur", "input": 1, "output": 1}))


def test_deepseek_has_a_peak() -> None:
    found = catalogue(ds=endpoint("https://api.deepseek.com/v1", "deepseek-flash"))
    tariff = found.find("ds", "deepseek-flash", NOW)
    assert tariff is not None
    assert tariff.cost_nano(Usage(1_000_000), ms("2026-11-25 09:59")) == 300_000_000
    assert tariff.cost_nano(Usage(1_000_000), ms("2026-11-25 10:00")) == 150_000_000
    assert tariff.cost_nano(Usage(1_000_000), ms("2026-11-28 09:00")) == 150_000_000  # a Saturday
    assert tariff.cheaper_at_ms(ms("2026-11-25 09:00")) == ms("2026-11-25 10:00")


def test_the_snapshot_of_genai_prices_knows_others() -> None:
    found = catalogue(
        an={"kind": "anthropic", "url": "https://api.anthropic.com/v1", "model": "claude-haiku-4-5"},
        oa=endpoint("https://api.openai.com/v1", "gpt-4o"),
    )
    claude, gpt = found.find("an", "claude-haiku-4-5-20251001", NOW), found.find("oa", "gpt-4o", NOW)
    assert claude is not None
    assert gpt is not None
    rates = claude.tiers[0].rates
    assert (rates.cache_write, rates.cache_write_1h, rates.cache_read) == (1_250_000_000, 2_000_000_000, 100_000_000)
    assert gpt.source.startswith("genai-prices ")
    assert gpt.source_date == _snapshot().date


def test_dated_prices_of_the_snapshot_follow_one_another() -> None:
    dated = [
        (provider, model) for provider in _snapshot().providers for model in provider.models if len(model.prices) > 1
    ]
    assert dated
    for _, model in dated:
        tariff = link(read_price(price, model.id, Money(), "x") for price in model.prices)
        assert tariff.then is not None
        later = tariff.in_force(tariff.valid_to_ms)
        assert later is tariff.then


def test_every_price_that_we_ship_can_be_used() -> None:
    ours = [price for models in _tables().values() for price in models.values()]
    theirs = [price for provider in _snapshot().providers for model in provider.models for price in model.prices]
    assert len(ours) > 20
    assert len(theirs) > 1_000
    for price in [*ours, *theirs]:
        tariff = read_price(price, "x", Money(price.get("currency", "usd")), "x")
        assert tariff.hold_nano(1_000, 1_000, NOW, NOW + DAY_MS) >= tariff.cost_nano(Usage(1_000, 0, 1_000), NOW)
    assert all(price["source"] and price["source_date"] for price in ours)


# ---------------------------------------------------------------------------------------------- one's own prices


def test_a_price_that_names_the_model_comes_before_one_that_does_not() -> None:
    prices = [{"input": 1, "output": 1}, {"model": "big", "input": 9, "output": 9}]
    found = catalogue(x=endpoint(INTL, "small", price=prices))
    costs = {}
    for model in ("small", "big", "other"):
        tariff = found.find("x", model, NOW)
        assert tariff is not None
        costs[model] = tariff.cost_nano(Usage(1_000_000), NOW)
    assert costs == {"small": 10**9, "big": 9 * 10**9, "other": 10**9}
    assert found.models(load_engines({"x": endpoint(INTL, "small", price=prices)}, "m")["x"]) == ["small", "big"]


def test_before_and_after_a_price_of_ones_own_the_list_price_holds() -> None:
    promotion = {"input": 0.1, "output": 0.1, "valid_from": "2026-12-01", "valid_to": "2027-01-01"}
    found = catalogue(intl=endpoint(INTL, "qwen-plus", price=promotion))
    costs = []
    for at in ("2026-11-30 23:59", "2026-12-01", "2026-12-31 23:59", "2027-01-01"):
        tariff = found.find("intl", "qwen-plus", ms(at))
        assert tariff is not None
        costs.append(tariff.cost_nano(Usage(100_000), ms(at)))
    assert costs == [40_000_000, 10_000_000, 10_000_000, 40_000_000]
    first = found.find("intl", "qwen-plus", ms("2026-11-30 23:59"))
    assert first is not None
    assert first.hold_nano(100_000, 0, ms("2026-12-15"), ms("2027-01-01")) == 40_000_000


def test_a_price_that_is_not_valid_now_is_none() -> None:
    later = {"input": 1, "output": 1, "valid_from": "2027-01-01", "valid_to": "2028-01-01"}
    found = catalogue(x=endpoint("https://llm.example.org/v1", "m", price=later))
    assert found.find("x", "m", NOW) is None
    assert found.why("x", "m", NOW) == "its price is not valid now"
    assert found.find("x", "m", ms("2027-06-01")) is not None
    assert found.find("x", "m", ms("2028-01-01")) is None


@pytest.mark.parametrize(
    ("price", "says"),
    [
        ([{"input": 1, "output": 1}, {"input": 2, "output": 2}], "two prices hold at the same time"),
        (
            [
                {"input": 1, "output": 1, "valid_to": "2026-01-01"},
                {"input": 2, "output": 2, "valid_from": "2026-02-01"},
            ],
            "no price holds from 2026-01-01T00:00",
        ),
        ({"input": 1}, "`output` is missing"),
        ({"input": -1, "output": 1}, "`input` is below zero"),
    ],
)
def test_a_wrong_price_stops_the_start(price: object, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as told:
        catalogue(x=endpoint(INTL, "m", price=price))
    assert "mains.toml: [engines.x.price]" in str(told.value)


def test_an_engine_that_comes_later_is_seen_and_its_wrong_price_is_unpriced() -> None:
    specs = load_engines({}, "m")
    found = Catalogue(lambda: specs, Money(), "mains.toml")
    assert found.find("x", "m", NOW) is None
    specs = load_engines({"x": endpoint(INTL, "m", price={"input": 1, "output": 1})}, "m")
    assert found.find("x", "m", NOW) is not None
    specs = load_engines({"x": endpoint(INTL, "m", price={"currency": "eur", "input": 1, "output": 1})}, "m")
    assert found.find("x", "m", NOW) is None
    assert "the price is in eur" in found.why("x", "m", NOW)


def test_the_same_tariff_is_given_each_time_and_the_memory_of_them_is_bounded() -> None:
    found = catalogue(x=endpoint(INTL, "m", price={"input": 1, "output": 1}))
    assert found.find("x", "m", NOW) is found.find("x", "m", NOW)
    for number in range(2 * KEPT_MAX):
        found.find("x", f"m{number}", NOW)
    assert len(found._found) == KEPT_MAX


def test_the_tariffs_of_a_home(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.config.write_text(
        'currency = "eur"\n[rates]\nusd = 0.5\n[engines.q]\nkind = "openai"\n'
        f'url = "{INTL}"\nmodel = "qwen-plus"\n[engines.y]\nkind = "openai"\nurl = "{INTL}"\nmodel = "z"\n'
        "[engines.y.price]\ninput = 1\noutput = 2\n"
    )
    specs = load_engines(home.document()["engines"], "mains.toml")
    tariffs = tariffs_of(home, lambda: specs)
    list_price, own = tariffs.find("q", "qwen-plus", NOW), tariffs.find("y", "z", NOW)
    assert list_price is not None
    assert own is not None
    assert list_price.cost_nano(Usage(100_000), NOW) == 20_000_000
    assert (own.currency, own.cost_nano(Usage(100_000), NOW)) == ("eur", 100_000_000)


def test_an_engine_that_is_added_leaves_the_prices_of_others(tmp_path: Path) -> None:
    config = tmp_path / "mains.toml"
    price: Any = {"input": 1, "output": 2, "valid_from": "2026-01-01"}
    config.write_text('[engines.a]\nkind = "openai"\nurl = "http://h/v1"\nmodel = "m"\n')
    write_engine(config, EngineSpec(name="b", kind="openai", url="http://h/v1", model="m", price=price), False)
    write_engine(config, EngineSpec(name="a", kind="openai", url="http://h/v1", model="m2"), False)
    document = Home(tmp_path).document()
    assert load_engines(document["engines"], "m")["b"].price == price
