"""The engines of a home: what `mains.toml` says of each, which one a program gets, and known endpoints.

    default_engine = "qwen"          # which engine runs a program that names none; "llama" when not said

    [engines.qwen]
    kind = "openai"                  # "llama" (embedded), "openai" or "anthropic" (an endpoint), "scripted" (a file)
    url = "https://dashscope-intl.aliyuncs.com/compatible-mode/v1"
    model = "qwen-plus"
    key_env = "DASHSCOPE_API_KEY"    # the variable that holds the key; the key itself is never written down

Every key is a field of `EngineSpec`; an unknown one is an error. The engine `llama` is there without being
named. Nothing here makes a call or starts an engine: the composition root builds engines from their specs.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec

from mains.errors import ConfigError
from mains.tomlfile import edited, put_entry

Kind = Literal["llama", "openai", "anthropic", "scripted"]

ENDPOINTS: dict[str, str] = {"openai": "/chat/completions", "anthropic": "/messages"}
"""The kinds that are reached by HTTP, and the path of their calls below `url`."""

DEFAULT_ENGINE = "llama"
DEFAULT_MODEL = "smollm2-135m-instruct"

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_URL_HINT = 'such as url = "http://127.0.0.1:8000/v1", without /chat/completions or /messages'


class EngineSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """An engine as configured. `slots` and `context_tokens` 0: not said; `load_engines` puts the kind's own.

    They stay 0 for a scripted engine, whose file may say them.
    """

    name: str = ""
    kind: Kind
    url: str = ""
    model: str = ""
    key_env: str = ""
    slots: int = 0  # calls at once
    rpm: int = 0  # requests a minute; 0: only what the endpoint itself says
    tpm: int = 0  # tokens a minute, input and output
    context_tokens: int = 0  # of one call: input and output
    cache_tokens: int = 0  # what its prefix cache holds, of all calls; 0: not known
    tokens_field: str = "max_tokens"  # what the endpoint calls the cap of the output
    json_schema: bool = True  # the endpoint takes the schema of an output
    stream: bool = True
    thinking: bool = True  # false: a model of the anthropic dialect is told not to think before it answers
    first_byte_s: float | None = None  # silence before the first output, instead of the setting of this name
    idle_timeout_s: float | None = None  # silence after it, instead of the setting stream_idle_s
    path: str = ""  # of a GGUF (llama) or of a YAML file (scripted)
    threads: int = 0  # of the embedded engine; 0 lets it choose
    price: Any = None  # a table or several (engines/price.py); None: what the tariffs know (engines/tariffs.py)


class Choice(NamedTuple):
    """The engine and model that a program gets; `note` says so when it is not what the program asked for."""

    spec: EngineSpec
    model: str
    note: str


class Preset(NamedTuple):
    """A known endpoint: what `mains engine add NAME` fills in."""

    url: str
    key_env: str
    tokens_field: str = "max_tokens"
    json_schema: bool = True
    kind: Kind = "openai"


_SLOTS: dict[Kind, int] = {"llama": 4, "openai": 8, "anthropic": 8, "scripted": 0}
# SmolLM2 was trained on 8,192; nearly every endpoint takes 32,768. Every current model of Anthropic takes 200,000:
# https://platform.claude.com/docs/en/build-with-claude/context-windows
_CONTEXT_TOKENS: dict[Kind, int] = {"llama": 8_192, "openai": 32_768, "anthropic": 200_000, "scripted": 0}

PRESETS: dict[str, Preset] = {
    # https://platform.claude.com/docs/en/api/overview
    "anthropic": Preset("https://api.anthropic.com/v1", "ANTHROPIC_API_KEY", kind="anthropic"),
    # https://platform.openai.com/docs/api-reference/chat/create (max_tokens is deprecated there)
    "openai": Preset("https://api.openai.com/v1", "OPENAI_API_KEY", tokens_field="max_completion_tokens"),
    # https://www.alibabacloud.com/help/en/model-studio/compatibility-of-openai-with-dashscope
    "dashscope": Preset("https://dashscope.aliyuncs.com/compatible-mode/v1", "DASHSCOPE_API_KEY"),
    "dashscope-intl": Preset("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "DASHSCOPE_API_KEY"),
    # https://docs.ollama.com/api/openai-compatibility
    "ollama": Preset("http://127.0.0.1:11434/v1", ""),
    # https://docs.vllm.ai/en/stable/serving/openai_compatible_server/
    "vllm": Preset("http://127.0.0.1:8000/v1", ""),
    # https://api-docs.deepseek.com/ and https://api-docs.deepseek.com/guides/json_mode (json_object only)
    "deepseek": Preset("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY", json_schema=False),
    # https://openrouter.ai/docs/quickstart
    "openrouter": Preset("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
}


def load_engines(table: Mapping[str, Any], where: str) -> dict[str, EngineSpec]:
    """The engines of the `engines` table of `where` (a file's name), the built-in one included.

    Raises ConfigError that names the engine, the key and what to write instead.
    """
    engines = {DEFAULT_ENGINE: _filled(EngineSpec(name=DEFAULT_ENGINE, kind="llama"))}
    for name, entry in table.items():
        if not isinstance(entry, Mapping):
            raise ConfigError(f"{where}: engines.{name} is no table", hint=f"write [engines.{name}], then keys")
        engines[name] = _filled(_spec(name, entry, f"{where}: [engines.{name}]"))
    return engines


def default_engine(document: Mapping[str, Any], engines: Mapping[str, EngineSpec], where: str) -> str:
    """The `default_engine` of a whole mains.toml, which must name one of its engines."""
    name = document.get("default_engine", DEFAULT_ENGINE)
    if not isinstance(name, str):
        raise ConfigError(f"{where}: default_engine must be an engine's name in quotes, not {name!r}")
    if name not in engines:
        raise ConfigError(f"{where}: default_engine: there is no engine `{name}`", hint=_known(name, engines))
    return name


def new_spec(name: str, where: str = "mains engine add", **fields: Any) -> EngineSpec:
    """A spec from what a person typed (None: not said), with what a preset called `name` or `kind` knows.

    Raises ConfigError as `load_engines` does.
    """
    said = {key: value for key, value in fields.items() if value is not None}
    kind = said.pop("kind", "")
    preset = PRESETS.get(name if kind in ("", "openai") else kind)
    if preset is not None and kind == "openai" != preset.kind:
        preset = None  # the same host, another dialect
    # A preset's key goes to the preset's host only.
    if preset is not None and said.get("url", preset.url) == preset.url:
        said, kind = {**preset._asdict(), **said}, preset.kind
    kind = kind or _kind_of(said)
    if not kind:
        hint = f"give --url and --model, or name one that is known: {', '.join(PRESETS)}"
        raise ConfigError(f"{where}: `{name}` is no known endpoint", hint=hint)
    return _spec(name, {**said, "kind": kind}, where)


def _kind_of(said: Mapping[str, Any]) -> str:
    """The kind that goes without saying; empty when none does."""
    if "url" in said:
        return "openai"
    suffix = PurePath(str(said.get("path", ""))).suffix
    return {".gguf": "llama", ".yaml": "scripted", ".yml": "scripted"}.get(suffix, "")


def _filled(spec: EngineSpec) -> EngineSpec:
    """`spec` with its kind's own figures where none are said."""
    model = spec.model or (DEFAULT_MODEL if spec.kind == "llama" and not spec.path else "")
    return msgspec.structs.replace(
        spec,
        model=model or PurePath(spec.path).stem,
        slots=spec.slots or _SLOTS[spec.kind],
        context_tokens=spec.context_tokens or _CONTEXT_TOKENS[spec.kind],
    )


def _spec(name: str, entry: Mapping[str, Any], where: str) -> EngineSpec:
    """One engine's table, checked."""
    if not _NAME.fullmatch(name):
        hint = "a letter first, then small letters, digits, - and _, at most 40"
        raise ConfigError(f"{where}: `{name}` is no name for an engine", hint=hint)
    known = [field for field in EngineSpec.__struct_fields__ if field != "name"]
    for key in entry:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(known)}"
            raise ConfigError(f"{where}: unknown key `{key}`", hint=hint)
    try:
        spec = msgspec.convert({**entry, "name": name}, EngineSpec)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}", hint='kind is "llama", "openai", "anthropic" or "scripted"') from error
    _check(spec, where)
    return spec


def _check(spec: EngineSpec, where: str) -> None:
    for field in ("slots", "context_tokens", "cache_tokens", "threads", "rpm", "tpm"):
        if getattr(spec, field) < 0:
            raise ConfigError(f"{where}: `{field}` must not be below zero")
    for field in ("first_byte_s", "idle_timeout_s"):
        if getattr(spec, field) is not None and getattr(spec, field) <= 0:
            raise ConfigError(f"{where}: `{field}` must be above zero")
    if spec.key_env and not _VARIABLE.fullmatch(spec.key_env):
        hint = 'write the variable\'s name, such as key_env = "OPENAI_API_KEY", and export the key'
        # What stands there may be a key that somebody pasted: it is not shown.
        raise ConfigError(f"{where}: `key_env` is not the name of an environment variable", hint=hint)
    if not _VARIABLE.fullmatch(spec.tokens_field):
        raise ConfigError(f"{where}: `tokens_field` must be a field's name, such as max_completion_tokens")
    if spec.kind in ENDPOINTS:
        if not spec.model:
            raise ConfigError(f"{where}: `model` is missing", hint="the endpoint's name for the model")
        _check_url(spec.url, where)
    elif spec.url:
        raise ConfigError(f"{where}: a {spec.kind} engine has no `url`", hint='did you mean kind = "openai"?')
    elif spec.rpm or spec.tpm:
        raise ConfigError(f"{where}: `rpm` and `tpm` are of endpoints; a {spec.kind} engine has `slots`")
    elif spec.cache_tokens:
        raise ConfigError(f"{where}: `cache_tokens` is of endpoints; a {spec.kind} engine has none")
    if spec.kind == "scripted" and not spec.path:
        raise ConfigError(f"{where}: `path` is missing", hint="a YAML file with replies: docs/scripted.md")
    if spec.kind == "llama" and spec.path and not spec.path.endswith(".gguf"):
        raise ConfigError(f"{where}: `path` must name a .gguf file, not {spec.path}")
    if spec.price is not None:
        from mains.engines.price import check_prices

        check_prices(spec.price, spec.name, f"{where.removesuffix(']')}.price]")


def _check_url(url: str, where: str) -> None:
    if not url:
        raise ConfigError(f"{where}: `url` is missing", hint=_URL_HINT)
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ConfigError(f"{where}: `url` is no URL", hint=_URL_HINT) from None
    if parts.username or parts.password:
        raise ConfigError(f"{where}: `url` must not hold a password", hint="name a variable that does: key_env")
    if not whole or parts.query or parts.fragment or any(char.isspace() for char in url):
        raise ConfigError(f"{where}: `url` must be http(s)://HOST[:PORT]/PATH, not {url}", hint=_URL_HINT)
    for path in ENDPOINTS.values():
        if parts.path.rstrip("/").endswith(path):
            raise ConfigError(f"{where}: `url` must end before {path}", hint=_URL_HINT)


def resolve(name: str, engines: Mapping[str, EngineSpec], default: str) -> Choice:
    """Which engine and model a program gets that asks for `name`.

    An engine's name; the model that an engine is configured with; the path of a .gguf; `engine/model`.
    Anything else (a name from another tool, such as `sonnet`) is the default engine, and the note says so.
    """
    if not name:
        return Choice(engines[default], engines[default].model, "")
    if name in engines:
        return Choice(engines[name], engines[name].model, "")
    for spec in (engines[default], *engines.values()):
        if spec.model == name:
            return Choice(spec, spec.model, "")
    if name.endswith(".gguf"):
        return _from_gguf(name, engines)
    engine, slash, model = name.partition("/")
    if slash and model and engine in engines:
        return _of_engine(engines[engine], model)
    spec = engines[default]
    why = "the caller's model" if name == "inherit" else "no engine or model that is configured here"
    note = f"`{name}` is {why}; it runs on the default engine `{default}` ({spec.model})"
    return Choice(spec, spec.model, note)


def replicas(name: str, engines: Mapping[str, EngineSpec]) -> tuple[EngineSpec, ...]:
    """The endpoints that serve the model of this name together; none when there is one, or it is an engine's name."""
    same = [spec for spec in engines.values() if spec.kind in ENDPOINTS and spec.model == name and name not in engines]
    return tuple(sorted(same, key=lambda spec: spec.name)) if len(same) > 1 else ()


def _of_engine(spec: EngineSpec, model: str) -> Choice:
    """An endpoint has many models; any other engine has the one that it is configured with."""
    if spec.kind in ENDPOINTS:
        return Choice(spec, model, "")
    return Choice(spec, spec.model, f"engine `{spec.name}` runs `{spec.model}` only, not `{model}`")


def _from_gguf(path: str, engines: Mapping[str, EngineSpec]) -> Choice:
    """The embedded engine with another model file; one name for one path, so that two programs share it."""
    for spec in engines.values():
        if spec.kind == "llama" and spec.path == path:
            return Choice(spec, spec.model, "")
    embedded = engines[DEFAULT_ENGINE]
    if embedded.kind != "llama":
        embedded = _filled(EngineSpec(name=DEFAULT_ENGINE, kind="llama"))
    stem = PurePath(path).stem
    mark = hashlib.blake2s(path.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    plain = re.sub(r"[^a-z0-9_-]+", "-", stem.lower())[:28]
    spec = msgspec.structs.replace(embedded, name=f"gguf-{plain}-{mark}"[:42], path=path, model=stem)
    return Choice(spec, stem, "")


def _known(name: str, engines: Mapping[str, EngineSpec]) -> str:
    near = difflib.get_close_matches(name, engines, n=1)
    return f"did you mean `{near[0]}`?" if near else f"known: {', '.join(engines)}"


def write_engine(toml_path: Path, spec: EngineSpec, make_default: bool) -> None:
    """Add the engine to the file or replace it there; everything else, comments included, stays as it is.

    The file is replaced in one step and is readable by its owner only. Raises ConfigError when it is no TOML.
    """
    fields = {key: value for key, value in msgspec.to_builtins(spec).items() if key != "name"}
    with edited(toml_path) as document:
        put_entry(document, "engines", spec.name, fields)
        if make_default:
            document["default_engine"] = spec.name
