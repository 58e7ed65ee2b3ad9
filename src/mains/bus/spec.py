"""A device as configured: `[devices.NAME]` of a home's mains.toml, checked.

    [devices.git]
    command = "uvx"                                  # a child process that speaks MCP over its standard streams
    args = ["mcp-server-git", "--repository", "."]
    env = {GIT_AUTHOR_NAME = "Ann", TOKEN = "{{secret:git-token}}"}
    read_only = ["git_status", "git_log"]            # the user's word: these calls change nothing

    [devices.tracker]
    url = "https://tracker.example.org/mcp"          # or a server that speaks MCP over streamable HTTP
    headers = {Authorization = "Bearer ${TRACKER_TOKEN}"}

`${NAME}` in a value of `env` or `headers` is a variable of Mains' own environment, read when the device starts: the
value itself stands nowhere. `{{secret:NAME}}` is a secret of the home, when it is for this device. Nothing else of that
environment reaches a device but PATH, HOME, LANG and the like.
Every key is a field of `DeviceSpec`; an unknown one is an error. Nothing here starts anything.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from mains.bus.secrets import PLACEHOLDER, NoSecrets, Secrets
from mains.errors import ConfigError
from mains.tomlfile import drop_entry, edited, put_entry

INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "USER", "SHELL", "TERM", "TMPDIR", "TZ")
"""What a child gets of our environment without being named (the SDK's own list, a language and a time zone)."""

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")  # RFC 9110, section 5.6.2
_REFERENCE = re.compile(r"\$\{([^}]*)\}")
_EITHER = re.compile(f"{_REFERENCE.pattern}|{PLACEHOLDER.pattern}")
_SECRET = re.compile(r"token|secret|passw|passphrase|credential|authorization|cookie|(^|[_-]|api)key$", re.IGNORECASE)
_OURS = ("accept", "accept-encoding", "connection", "content-length", "content-type", "host", "transfer-encoding")
_ENTRIES_MAX = 256  # of one list or table
_TEXT_CHARS_MAX = 32 * 1024  # of one value
_MOST = {"calls": 10_000, "start_s": 10**7, "call_s": 10**7, "idle_s": 10**9, "memory_mib": 2**24, "cpu_s": 2**31 - 1}


class DeviceSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A device as configured: `command` or `url`. None: the setting of the comment holds."""

    name: str = ""
    command: str = ""
    args: tuple[str, ...] = ()
    env: dict[str, str] = {}
    folder: str = ""  # where it works; else a folder of its own in the home
    read: tuple[str, ...] = ()  # files and folders that it may read, besides what it needs to run
    write: tuple[str, ...] = ()  # files and folders that it may read and change
    local_sockets: bool = False  # it may speak to services of this machine over Unix sockets
    confined: bool = True  # false: it may touch whatever its user may
    url: str = ""
    headers: dict[str, str] = {}
    protocol: Literal["", "2025-11-25", "2026-07-28"] = (
        ""  # the revision that is spoken; else the newest that both know
    )
    trust_hints: bool = False  # what the server says of its tools (readOnlyHint, idempotentHint) is taken as fact
    read_only: tuple[str, ...] = ()  # tools that change nothing
    repeatable: tuple[str, ...] = ()  # tools whose calls may be made twice
    calls: int | None = None  # at once; device_calls
    start_s: float | None = None  # device_start_s
    call_s: float | None = None  # device_timeout_s, which bounds it
    idle_s: float | None = None  # device_idle_s
    memory_mib: int | None = None  # device_memory_mib_max
    cpu_s: int | None = None  # device_cpu_s_max

    @property
    def kind(self) -> str:
        """How it is reached."""
        return "http" if self.url else "stdio"

    @property
    def reach(self) -> str:
        """A short hash of the command or URL: what another one lists is another list."""
        return hashlib.sha256(msgspec.json.encode((self.command, self.args, self.url))).hexdigest()[:16]


def look_of(name: str) -> str:
    """What a reader sees of a name at a glance: two names of one look are easily taken for each other."""
    for seen, meant in (("-", ""), ("_", ""), ("1", "l"), ("i", "l"), ("0", "o"), ("5", "s"), ("rn", "m"), ("vv", "w")):
        name = name.replace(seen, meant)
    return name


def load_devices(table: object, where: str) -> dict[str, DeviceSpec]:
    """The devices of the `devices` table of `where` (a file's name).

    Raises ConfigError that names the device, the key and what to write instead.
    """
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where}: `devices` is no table", hint="write [devices.NAME], then keys")
    devices = {}
    for name, entry in table.items():
        if not isinstance(entry, Mapping):
            raise ConfigError(f"{where}: devices.{name} is no table", hint=f"write [devices.{name}], then keys")
        devices[name] = checked_spec(name, entry, f"{where}: [devices.{name}]")
    return devices


def checked_spec(name: str, entry: Mapping[str, Any], where: str) -> DeviceSpec:
    """A spec from plain values. Raises ConfigError as `load_devices` does."""
    if not _NAME.fullmatch(name):
        hint = "a letter first, then small letters, digits, - and _, at most 40"
        raise ConfigError(f"{where}: `{name[:60]}` is no name for a device", hint=hint)
    known = [field for field in DeviceSpec.__struct_fields__ if field != "name"]
    for key in entry:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(known)}"
            raise ConfigError(f"{where}: unknown key `{str(key)[:60]}`", hint=hint)
    try:
        spec = msgspec.convert({**entry, "name": name}, DeviceSpec)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}", hint="docs/devices.md describes every key") from error
    _check(spec, where)
    return spec


def _check(spec: DeviceSpec, where: str) -> None:
    if bool(spec.command) == bool(spec.url):
        raise ConfigError(f"{where}: give it a `command` or a `url`, one of them")
    for field, most in _MOST.items():
        value = getattr(spec, field)
        if value is not None and not 0 < value <= most:
            raise ConfigError(f"{where}: `{field}` must be above zero, and at most {most:,}")
    _check_texts(spec, where)
    if spec.url:
        for field in ("args", "env", "folder", "memory_mib", "cpu_s", "read", "write", "local_sockets"):
            if getattr(spec, field):
                raise ConfigError(f"{where}: `{field}` is of a command; a device with a `url` has none")
        if not spec.confined:
            raise ConfigError(f"{where}: `confined` is of a command; a device with a `url` runs elsewhere")
        _check_url(spec.url, where)
    elif spec.headers:
        raise ConfigError(f"{where}: `headers` are of a `url`; a command has `env`")
    _check_paths(spec, where)
    for header in spec.headers:
        if not _HEADER.fullmatch(header) or header.lower() in _OURS or header.lower().startswith("mcp-"):
            raise ConfigError(f"{where}: `{header[:60]}` is no header that a device can be given")
    for name in spec.env:
        if not _VARIABLE.fullmatch(name):
            raise ConfigError(f"{where}: `{name[:60]}` is no name of an environment variable")
    for text in (*spec.env.values(), *spec.headers.values()):
        for name in _REFERENCE.findall(text):
            if not _VARIABLE.fullmatch(name):
                hint = "write ${NAME}, the name of a variable in the environment of Mains"
                raise ConfigError(f"{where}: `${{{name[:60]}}}` names no variable", hint=hint)


def _check_paths(spec: DeviceSpec, where: str) -> None:
    for path in (*spec.read, *spec.write):
        if not path.startswith(("/", "~/")):
            raise ConfigError(
                f"{where}: `{path[:60]}` in `read` or `write` is no whole path", hint="begin with / or ~/"
            )
    if not spec.confined and (spec.read or spec.write or spec.local_sockets):
        hint = "with `confined = false` it may touch all that you may; leave one of the two out"
        raise ConfigError(f"{where}: `read`, `write` and `local_sockets` are for a confined device", hint=hint)


def _check_texts(spec: DeviceSpec, where: str) -> None:
    texts = [spec.command, spec.folder, spec.url]
    for many in (spec.args, spec.read, spec.write, spec.read_only, spec.repeatable, spec.env, spec.headers):
        if len(many) > _ENTRIES_MAX:
            raise ConfigError(f"{where}: {len(many):,} entries in one list or table, at most {_ENTRIES_MAX}")
        texts += [*many, *(many.values() if isinstance(many, Mapping) else ())]
    for text in texts:
        if "\0" in text or len(text) > _TEXT_CHARS_MAX:  # what may be a secret is not shown
            raise ConfigError(f"{where}: a value holds a zero byte, or more than {_TEXT_CHARS_MAX:,} characters")
        if any("\ud800" <= char <= "\udfff" for char in text):
            raise ConfigError(f"{where}: a value is no UTF-8", hint="mains.toml is UTF-8")
    if any(PLACEHOLDER.search(text) for text in (spec.command, *spec.args, spec.folder, spec.url)):
        hint = "everybody on this machine can read a command; a URL stands in logs"
        raise ConfigError(f"{where}: a secret can stand in `env` and in `headers` only", hint=hint)
    if any(char in text for text in spec.headers.values() for char in "\r\n"):
        raise ConfigError(f"{where}: a header's value is one line")


def _check_url(url: str, where: str) -> None:
    hint = "such as https://HOST/mcp; what is secret goes into `headers`"
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ConfigError(f"{where}: `url` is no URL", hint=hint) from None
    if parts.username or parts.password:
        raise ConfigError(f"{where}: `url` must not hold a password", hint=hint)
    if not whole or parts.fragment or any(char.isspace() or not char.isprintable() or char == "\\" for char in url):
        raise ConfigError(f"{where}: `url` must be http(s)://HOST[:PORT]/PATH", hint=hint)


def environment_of(
    spec: DeviceSpec, ours: Mapping[str, str] | None = None, secrets: Secrets | None = None, own: Path | None = None
) -> dict[str, str]:
    """The whole environment of a child: what is inherited, and what the spec gives. Raises ConfigError.

    With `own`, that folder is its HOME.
    """
    ours = os.environ if ours is None else ours
    inherited = {name: ours[name] for name in INHERITED if name in ours}
    if own is not None:
        inherited = inherited | {"HOME": str(own)}
    given = {name: _resolved(spec, text, ours, secrets or NoSecrets()) for name, text in spec.env.items()}
    for name, value in given.items():
        if "\0" in value:
            raise ConfigError(f"the value of the variable `{name}` holds a zero byte")
    return inherited | given


def headers_of(
    spec: DeviceSpec, ours: Mapping[str, str] | None = None, secrets: Secrets | None = None
) -> dict[str, str]:
    """The headers of a request, with the variables and secrets that they name. Raises ConfigError."""
    ours = os.environ if ours is None else ours
    headers = {name: _resolved(spec, text, ours, secrets or NoSecrets()) for name, text in spec.headers.items()}
    for name, value in headers.items():
        # RFC 9110, section 5.5. An HTTP client that refuses a value may quote it.
        if not value.isascii() or not value.replace("\t", " ").isprintable() or value != value.strip():
            raise ConfigError(f"the value of the header `{name}` is no line of ASCII")
    return headers


def secrets_of(spec: DeviceSpec) -> list[str]:
    """The names of the secrets that its environment or its headers name."""
    texts = (*spec.env.values(), *spec.headers.values())
    return sorted({found[1] for text in texts for found in PLACEHOLDER.finditer(text)})


def plain_secrets(spec: DeviceSpec) -> list[str]:
    """The variables and headers whose value stands in mains.toml and should not, going by their name."""
    given = {**spec.env, **spec.headers}
    return [name for name, text in given.items() if text and _SECRET.search(name) and not _EITHER.search(text)]


def _resolved(spec: DeviceSpec, text: str, ours: Mapping[str, str], secrets: Secrets) -> str:
    """One pass: what a value holds means nothing."""

    def value_of(found: re.Match[str]) -> str:
        if found[2] is not None:
            return secrets.value(found[2], spec.name)
        if found[1] not in ours:
            hint = "export it before the daemon starts (`mains down` ends one that runs)"
            raise ConfigError(f"the variable {found[1]} is not set", hint=hint)
        return ours[found[1]]

    return _EITHER.sub(value_of, text)


def write_device(toml_path: Path, spec: DeviceSpec) -> None:
    """Add the device to the file, or replace it there; comments stay. Raises ConfigError when it is no TOML."""
    fields = {key: value for key, value in msgspec.to_builtins(spec).items() if key != "name"}
    with edited(toml_path) as document:
        put_entry(document, "devices", spec.name, fields)


def remove_device(toml_path: Path, name: str) -> bool:
    """Take the device out of the file; whether it was there. Raises ConfigError when it is no TOML."""
    with edited(toml_path) as document:
        return drop_entry(document, "devices", name)
