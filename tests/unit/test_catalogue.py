"""Engines as `mains.toml` configures them: read, checked, chosen and written."""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest

from mains.engines.catalogue import (
    DEFAULT_MODEL,
    PRESETS,
    EngineSpec,
    default_engine,
    load_engines,
    new_spec,
    resolve,
    write_engine,
)
from mains.errors import ConfigError

QWEN = {"kind": "openai", "url": "https://example.com/v1", "model": "qwen-plus", "key_env": "QWEN_KEY"}


def engines(**tables: dict[str, Any]) -> dict[str, EngineSpec]:
    return load_engines(tables, "mains.toml")


def mistake(entry: object, name: str = "e") -> str:
    with pytest.raises(ConfigError) as caught:
        load_engines({name: entry}, "mains.toml")
    return f"{caught.value} | {caught.value.hint}"


# --------------------------------------------------------------------------------------------------- read


def test_the_embedded_engine_is_always_there() -> None:
    (spec,) = engines().values()
    assert (spec.name, spec.kind, spec.model, spec.slots) == ("llama", "llama", DEFAULT_MODEL, 4)
    assert spec.context_tokens == 8_192


def test_it_can_be_overridden() -> None:
    spec = engines(llama={"kind": "llama", "path": "/m/big.gguf", "slots": 1, "threads": 4})["llama"]
    assert (spec.model, spec.path, spec.slots, spec.threads) == ("big", "/m/big.gguf", 1, 4)


def test_every_kind_gets_its_own_figures() -> None:
    loaded = engines(q=QWEN, s={"kind": "scripted", "path": "replies.yaml"})
    assert (loaded["q"].slots, loaded["q"].context_tokens, loaded["q"].stream) == (8, 32_768, True)
    assert (loaded["s"].slots, loaded["s"].context_tokens, loaded["s"].model) == (0, 0, "replies")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"modle": "x"}, "unknown key `modle` | did you mean `model`?"),
        ({"zzz": 1}, "known: kind, url"),
        ({"name": "x"}, "unknown key `name`"),
        ({"kind": "openia"}, "Invalid enum value 'openia'"),
        ({"slots": "many"}, "Expected `int`, got `str` - at `$.slots`"),
        ({"slots": -1}, "`slots` must not be below zero"),
        ({"idle_timeout_s": 0}, "`idle_timeout_s` must be above zero"),
        ({"model": ""}, "`model` is missing"),
        ({"url": ""}, "`url` is missing"),
        ({"url": "example.com/v1"}, "must be http(s)://"),
        ({"url": "ftp://example.com"}, "must be http(s)://"),
        ({"url": "http://:80/v1"}, "must be http(s)://"),
        ({"url": "http://example.com:99999/v1"}, "is no URL"),
        ({"url": "http://[::1/v1"}, "is no URL"),
        ({"url": "http://example.com/v1?x=1"}, "must be http(s)://"),
        ({"url": "https://example.com/v1/chat/completions"}, "must end before /chat/completions"),
        ({"tokens_field": "max tokens"}, "`tokens_field` must be"),
    ],
)
def test_a_mistake_is_named(change: dict[str, Any], text: str) -> None:
    found = mistake({**QWEN, **change})
    assert found.startswith("mains.toml: [engines.e]: ")
    assert text in found


def test_secrets_are_not_shown() -> None:
    assert "sk-123" not in mistake({**QWEN, "key_env": "sk-123"})
    assert "pass" not in mistake({**QWEN, "url": "https://me:pass@example.com/v1"}).replace("password", "")


def test_more_mistakes() -> None:
    assert "is no name for an engine" in mistake(QWEN, name="My Engine")
    assert "is no table" in mistake("x")
    assert "`kind`" in mistake({"model": "x"})
    assert "`path` is missing" in mistake({"kind": "scripted"})
    assert "must name a .gguf file" in mistake({"kind": "llama", "path": "x.bin"})
    assert "a llama engine has no `url`" in mistake({"kind": "llama", "url": "http://example.com"})


def test_the_default_engine() -> None:
    loaded = engines(qwen=QWEN)
    assert default_engine({}, loaded, "mains.toml") == "llama"
    assert default_engine({"default_engine": "qwen"}, loaded, "mains.toml") == "qwen"
    with pytest.raises(ConfigError, match="no engine `qwem`") as caught:
        default_engine({"default_engine": "qwem"}, loaded, "mains.toml")
    assert caught.value.hint == "did you mean `qwen`?"
    with pytest.raises(ConfigError, match="in quotes"):
        default_engine({"default_engine": 3}, loaded, "mains.toml")


# ------------------------------------------------------------------------------------------------ choose


@pytest.mark.parametrize(
    ("name", "engine", "model"),
    [
        ("", "llama", DEFAULT_MODEL),
        ("qwen", "qwen", "qwen-plus"),
        ("qwen-plus", "qwen", "qwen-plus"),
        ("qwen/qwen-max", "qwen", "qwen-max"),
        ("router/meta/llama-3", "router", "meta/llama-3"),
        ("meta/llama-4", "router", "meta/llama-4"),
        (DEFAULT_MODEL, "llama", DEFAULT_MODEL),
    ],
)
def test_what_a_program_gets(name: str, engine: str, model: str) -> None:
    loaded = engines(qwen=QWEN, router={**QWEN, "model": "meta/llama-4"})
    spec, chosen, note = resolve(name, loaded, "llama")
    assert (spec.name, chosen, note) == (engine, model, "")


def test_the_default_engine_wins_where_two_have_one_model() -> None:
    loaded = engines(a=QWEN, b=QWEN)
    assert resolve("qwen-plus", loaded, "b").spec.name == "b"


@pytest.mark.parametrize("name", ["sonnet", "inherit", "nobody/model", "llama/other"])
def test_unknown_names_run_on_the_default_engine_and_say_so(name: str) -> None:
    spec, model, note = resolve(name, engines(), "llama")
    assert (spec.name, model) == ("llama", DEFAULT_MODEL)
    assert name.split("/")[-1] in note


def test_a_path_of_a_gguf_is_an_engine_of_its_own() -> None:
    loaded = engines(llama={"kind": "llama", "threads": 3}, mine={"kind": "llama", "path": "/m/x.gguf"})
    spec, model, note = resolve("/models/Big Model.Q4.gguf", loaded, "llama")
    assert (spec.kind, spec.path, spec.threads, model, note) == (
        "llama",
        "/models/Big Model.Q4.gguf",
        3,
        "Big Model.Q4",
        "",
    )
    assert spec.name.startswith("gguf-big-model-q4-")
    assert resolve("/models/Big Model.Q4.gguf", loaded, "llama").spec == spec
    assert resolve("/other/Big Model.Q4.gguf", loaded, "llama").spec.name != spec.name
    assert resolve("/m/x.gguf", loaded, "llama").spec.name == "mine"
    remote = engines(llama=QWEN)
    assert resolve("x.gguf", remote, "llama").spec.kind == "llama"


# ----------------------------------------------------------------------------------------------- presets


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_preset_needs_only_a_model(name: str) -> None:
    spec = new_spec(name, model="m")
    assert (spec.kind, spec.url, spec.key_env) == (PRESETS[name].kind, PRESETS[name].url, PRESETS[name].key_env)
    assert new_spec("mine", kind=name if name != "openai" else None, model="m", url=spec.url).kind == PRESETS[name].kind
    with pytest.raises(ConfigError, match="`model` is missing"):
        new_spec(name)


def test_a_preset_by_kind() -> None:
    spec = new_spec("work", kind="dashscope", model="qwen-plus", key_env=None)
    assert (spec.name, spec.url, spec.key_env) == ("work", PRESETS["dashscope"].url, "DASHSCOPE_API_KEY")


def test_what_is_said_wins_and_a_key_stays_with_its_host() -> None:
    assert new_spec("openai", model="m", key_env="OTHER").key_env == "OTHER"
    elsewhere = new_spec("openai", model="m", url="http://proxy.example/v1")
    assert (elsewhere.url, elsewhere.key_env) == ("http://proxy.example/v1", "")


def test_specs_without_a_preset() -> None:
    assert new_spec("mine", url="http://127.0.0.1:1/v1", model="m").kind == "openai"
    assert new_spec("mine", path="x.gguf").kind == "llama"
    assert new_spec("mine", path="x.yaml").kind == "scripted"
    with pytest.raises(ConfigError, match="no known endpoint") as caught:
        new_spec("mine", model="m")
    assert "ollama" in caught.value.hint
    with pytest.raises(ConfigError, match="`url` is missing"):
        new_spec("mine", kind="openai", model="m")


# -------------------------------------------------------------------------------------------------- write

WRITTEN = """\
# my home
default_engine = "old" # the good one

[settings]
turns_max = 20

# the old engine
[engines.old]
kind = "openai" # as always
url = "http://127.0.0.1:1/v1"
model = "m1" # small
slots = 3

[engines.other]
kind = "llama"
"""


def written(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text("utf-8"))


def test_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "mains.toml"
    write_engine(path, new_spec("ollama", model="llama3"), make_default=True)
    assert written(path) == {
        "default_engine": "ollama",
        "engines": {"ollama": {"kind": "openai", "url": PRESETS["ollama"].url, "model": "llama3"}},
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["mains.toml"]


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mains.toml"
    specs = [new_spec(name, model="m") for name in PRESETS]
    for spec in [*specs, new_spec("s", path="s.yaml"), new_spec("openai", model="m2")]:
        write_engine(path, spec, make_default=False)
    loaded = load_engines(written(path)["engines"], "mains.toml")
    assert set(loaded) == {"llama", "s", *PRESETS}
    assert loaded["openai"].model == "m2"
    assert loaded["deepseek"].json_schema is False


def test_comments_and_the_rest_stay(tmp_path: Path) -> None:
    path = tmp_path / "mains.toml"
    path.write_text(WRITTEN)
    write_engine(path, new_spec("old", url="http://127.0.0.1:1/v1", model="m2", stream=False), make_default=False)
    write_engine(path, new_spec("new", url="http://127.0.0.1:2/v1", model="m3"), make_default=True)
    text = path.read_text("utf-8")
    for comment in ("# my home", "# the good one", "# the old engine", "# as always", "# small"):
        assert comment in text
    assert written(path) == {
        "default_engine": "new",
        "settings": {"turns_max": 20},
        "engines": {
            "old": {"kind": "openai", "url": "http://127.0.0.1:1/v1", "model": "m2", "stream": False},
            "other": {"kind": "llama"},
            "new": {"kind": "openai", "url": "http://127.0.0.1:2/v1", "model": "m3"},
        },
    }


@pytest.mark.parametrize(
    "before", ["[settings]\nturns_max = 1\n", "engines = {}\n", "[engines]\n", "[engines.new]\n", "x.y = 1\n"]
)
def test_every_shape_of_a_file_takes_an_engine(tmp_path: Path, before: str) -> None:
    path = tmp_path / "mains.toml"
    path.write_text(before)
    write_engine(path, new_spec("new", path="s.yaml"), make_default=True)
    document = written(path)
    assert document["default_engine"] == "new"
    assert document["engines"] == {"new": {"kind": "scripted", "path": "s.yaml"}}
    assert tomllib.loads(before).get("settings") == document.get("settings")


def test_a_broken_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "mains.toml"
    for broken in ("not [ toml", 'engines = "x"\n'):
        path.write_text(broken)
        with pytest.raises(ConfigError):
            write_engine(path, new_spec("ollama", model="m"), make_default=True)
        assert path.read_text() == broken
        assert [entry.name for entry in tmp_path.iterdir()] == ["mains.toml"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "real.toml", tmp_path / "mains.toml"
    target.write_text("# kept\n")
    link.symlink_to(target)
    write_engine(link, new_spec("ollama", model="m"), make_default=False)
    assert link.is_symlink()
    assert "# kept" in target.read_text()


# ------------------------------------------------------------------------------------------- rates


def test_rates_are_of_endpoints() -> None:
    spec = new_spec("dashscope", model="qwen-plus", rpm=60, tpm=100_000)
    assert (spec.rpm, spec.tpm) == (60, 100_000)
    assert "`rpm` must not be below zero" in mistake({**QWEN, "rpm": -1})
    assert "are of endpoints" in mistake({"kind": "scripted", "path": "replies.yaml", "tpm": 5})


def test_what_a_cache_holds_is_said_of_endpoints() -> None:
    assert "`cache_tokens` must not be below zero" in mistake({**QWEN, "cache_tokens": -1})
    assert "`cache_tokens` is of endpoints" in mistake({"kind": "llama", "cache_tokens": 5})
