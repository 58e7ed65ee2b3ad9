"""The `mcpServers` JSON of desktop assistants -> devices.

    {"mcpServers": {"git": {"command": "uvx", "args": ["mcp-server-git"], "env": {"A": "b"}},
                    "tracker": {"type": "http", "url": "https://...", "headers": {"Authorization": "Bearer ${TOKEN}"}}}}

Some assistants write `servers` instead (and `${env:NAME}` for a variable). Keys that say nothing about how a server is
reached (`disabled`, `autoApprove`, `timeout`, ...) are left out and named. A server that is disabled is left out, too.
What such a file claims about trust (`alwaysAllow`, `trust`) is never taken over: that is the user's word, given here.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mains.bus.confinement import within
from mains.bus.spec import DeviceSpec, checked_spec
from mains.errors import ConfigError

_TABLES = ("mcpServers", "servers")
_TAKEN = ("command", "args", "env", "url", "serverUrl", "httpUrl", "headers", "cwd", "type", "transport")
_HTTP = ("http", "streamable-http", "streamableHttp", "streamable_http")
_DEVICES_MAX = 100
_BYTES_MAX = 1024 * 1024


class Imported(NamedTuple):
    """What a file holds: its devices, and what was left out, a line each."""

    specs: list[DeviceSpec]
    left_out: list[str]


def read_servers(data: bytes, where: str) -> Imported:
    """The devices of a file's content. Raises ConfigError when it is no such file, or one of its devices is wrong."""
    if len(data) > _BYTES_MAX:
        raise ConfigError(f"{where}: {len(data):,} bytes, at most {_BYTES_MAX:,}")
    try:
        document = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: no JSON: {str(error)[:200]}") from error
    table = next((document[key] for key in _TABLES if isinstance(document, dict) and key in document), None)
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: it has no `mcpServers`", hint="docs/devices.md shows such a file")
    if len(table) > _DEVICES_MAX:
        raise ConfigError(f"{where}: {len(table)} servers, at most {_DEVICES_MAX}")
    specs: dict[str, DeviceSpec] = {}
    left_out: list[str] = []
    for title, entry in table.items():
        spec = _spec(title, entry, where, left_out)
        if spec is None:
            continue
        if spec.name in specs:
            raise ConfigError(f"{where}: two servers would have the name `{spec.name}` here", hint="rename one")
        specs[spec.name] = spec
    return Imported([*specs.values()], left_out)


def _spec(title: str, entry: Any, where: str, left_out: list[str]) -> DeviceSpec | None:
    name = device_name(title)
    place = f"{where}: {title[:60]}"
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{place}: it is no object")
    if entry.get("disabled") is True or entry.get("enabled") is False:
        left_out.append(f"{title}: it is disabled there")
        return None
    unknown = sorted(str(key) for key in entry if key not in _TAKEN)
    if unknown:
        left_out.append(f"{title}: {', '.join(unknown)[:200]}")
    if name != title:
        left_out.append(f"{title}: its name here is {name}")
    kind = entry.get("type") or entry.get("transport")
    if kind == "sse":
        raise ConfigError(
            f"{place}: the transport `sse` is no longer spoken",
            hint="ask its maker for the URL of streamable HTTP, often /mcp in place of /sse",
        )
    if kind not in (None, "stdio", *_HTTP):
        raise ConfigError(f"{place}: the transport `{str(kind)[:40]}` is not known", hint="known: stdio, http")
    url = entry.get("url") or entry.get("serverUrl") or entry.get("httpUrl") or ""
    fields: dict[str, Any] = {"url": url} if url else {}
    fields |= {key: entry[key] for key in ("command", "args", "env", "headers") if entry.get(key)}
    if entry.get("cwd"):
        fields["folder"] = entry["cwd"]
    if isinstance(fields.get("args"), list):  # a device has a home of its own: `~` is that of the person who wrote this
        fields["args"] = [_written_out(each) for each in fields["args"]]
    for key in ("env", "headers"):
        if isinstance(fields.get(key), dict):
            fields[key] = {each: _variables(value) for each, value in fields[key].items()}
    for text in (fields.get("command"), *(fields.get("args") or ()), url):
        if isinstance(text, str) and (found := re.search(r"\$\{[^}]*\}", text)):
            raise ConfigError(f"{place}: `{found[0][:60]}` means nothing in a command or a URL", hint="write it out")
    return checked_spec(name, fields, place)


def opened(spec: DeviceSpec, read: Sequence[str], write: Sequence[str], *, unconfined: bool = False) -> DeviceSpec:
    """The device with those of the paths that its command names, or that hold what it names; nothing else of them."""
    import msgspec

    if spec.url:
        return spec
    if unconfined:
        return msgspec.structs.replace(spec, confined=False)
    words = [part for word in (*spec.args, *spec.env.values()) for part in (word, word.partition("=")[2])]
    named = [os.path.normpath(word) for word in words if Path(word).is_absolute()]
    fits = [[path for path in paths if any(within(word, path) for word in named)] for paths in (read, write)]
    return msgspec.structs.replace(spec, read=tuple(fits[0]), write=tuple(fits[1]))


def device_name(title: str) -> str:
    """A device's name for a server's: small letters, digits, - and _."""
    plain = re.sub(r"[^a-z0-9_]+", "-", title.lower()).strip("-_")[:40]
    return plain if plain[:1].isalpha() else f"d-{plain}"[:40].rstrip("-")


def _written_out(word: Any) -> Any:
    return str(Path(word).expanduser()) if isinstance(word, str) and word.startswith("~/") else word


def _variables(value: Any) -> Any:
    """`${env:NAME}`, as some write it, as `${NAME}`; numbers and booleans as texts, as a shell would have them."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    return re.sub(r"\$\{env:([^}]*)\}", r"${\1}", value) if isinstance(value, str) else value
