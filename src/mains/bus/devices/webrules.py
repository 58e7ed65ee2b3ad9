"""What the device `web` may reach: the `[web]` table of mains.toml, and whether an address (URL) is within it. Pure.

    [web]
    hosts = ["example.org", "*.example.org", "wiki.example.net:8080"]
    private = ["10.1.2.0/24"]

Without `hosts` nothing may be reached. `*.example.org` are all names below example.org, not itself; `*` is every
host. A host means its ports 80 and 443; another is named (`:8080`, or `:*` for each). `private` are ranges of
addresses that may be reached although they are not public.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from mains.bus.devices.address import Address, Network, literal, why_not
from mains.bus.devices.refused import Refused, is_unseen, shown
from mains.errors import ConfigError

URL_CHARACTERS_MAX = 4_096
_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*")
_RULE = re.compile(r"(?P<any>\*\.)?(?P<host>[^*:/@\s]+|\[[0-9a-fA-F:.]+\]|\*)(?::(?P<port>[0-9]{1,5}|\*))?")


class HostRule(msgspec.Struct, frozen=True):
    """One allowed host: its name (empty: any), whether the names below it are meant, and its ports (empty: any)."""

    host: str
    below: bool
    ports: tuple[int, ...]

    def allows(self, host: str, port: int) -> bool:
        """Whether this rule allows a host and port."""
        if self.ports and port not in self.ports:
            return False
        if self.below:
            return host.endswith("." + self.host)
        return self.host in ("", host)


class Rules(msgspec.Struct, frozen=True):
    """What may be reached. Nothing, when nothing is said."""

    hosts: tuple[HostRule, ...] = ()
    private: tuple[Network, ...] = ()


class Target(msgspec.Struct, frozen=True):
    """An address (URL) that may be asked for. `address` is of a host that is written as one; `rest` path and query."""

    scheme: str
    host: str
    port: int
    rest: str
    address: Address | None

    @property
    def url(self) -> str:
        """The address as it is asked for and shown."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.rest}"


def read_rules(document: Mapping[str, Any], where: str) -> Rules:
    """The rules of a home. Raises ConfigError that names what is wrong."""
    table = document.get("web", {})
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where}: `web` must be a table")
    for key, value in table.items():
        if key not in ("hosts", "private"):
            raise ConfigError(f"{where}: [web] has no key `{key}` (known: hosts, private)")
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise ConfigError(f"{where}: [web] `{key}` must be a list of texts")
    return Rules(
        tuple(_rule(each, where) for each in table.get("hosts", ())),
        tuple(_network(each, where) for each in table.get("private", ())),
    )


def _rule(text: str, where: str) -> HostRule:
    match = _RULE.fullmatch(text.strip())
    if match is None or (match["host"] == "*" and match["any"]):
        hint = "write example.org, *.example.org, example.org:8080 or *"
        raise ConfigError(f"{where}: [web] `hosts`: `{text}` is no host", hint=hint)
    ports = {"*": (), None: tuple(_PORTS.values())}.get(match["port"])
    host = "" if match["host"] == "*" else match["host"].strip("[]")
    try:
        name, _ = _named(host) if host else ("", None)
    except Refused as refused:
        raise ConfigError(f"{where}: [web] `hosts`: {refused}") from refused
    return HostRule(name, bool(match["any"]), (int(match["port"]),) if ports is None else ports)


def _network(text: str, where: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ConfigError(f"{where}: [web] `private`: {error}") from error


def target_of(url: str, rules: Rules) -> Target:
    """What an address asks for, if that is allowed. Raises Refused: a line that says why not."""
    seen = shown(url[:200])
    if len(url) > URL_CHARACTERS_MAX:
        raise Refused(f"{seen}...: an address has at most {URL_CHARACTERS_MAX:,} characters")
    if any(is_unseen(c) or c.isspace() or c == "\\" for c in url):
        raise Refused(f"{seen}: no address has spaces, control characters or backslashes")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Refused(f"{seen}: no address that can be fetched: {error}") from error
    if parts.scheme not in _PORTS or not parts.netloc:
        raise Refused(f"{seen}: only addresses that begin with https:// or http:// can be fetched")
    if "@" in parts.netloc or "%" in parts.netloc:
        raise Refused(f"{seen}: no user, password or escape may stand before or in the host")
    host, address = _named(parts.hostname or "")
    port = _PORTS[parts.scheme] if port is None else port
    if not any(rule.allows(host, port) for rule in rules.hosts):
        told = "is not on the list of allowed hosts (`hosts` of [web] in mains.toml)" if rules.hosts else _NONE
        raise Refused(f"{host}{'' if port in _PORTS.values() else f':{port}'}: {told}")
    if address is not None:
        check_address(host, address, rules)
    query = f"?{parts.query}" if parts.query else ""
    return Target(parts.scheme, host, port, f"{parts.path or '/'}{query}", address)


_NONE = "no host may be fetched from, until [web] of mains.toml has `hosts`"


def check_address(host: str, address: Address, rules: Rules) -> None:
    """Raises Refused when an address of a host may not be reached."""
    if what := why_not(address, rules.private):
        whose = host if literal_or_none(host) is not None else f"{host} leads to an address that"
        raise Refused(f"{whose} is not public ({what}): not reached")


def literal_or_none(host: str) -> Address | None:
    """The address that a host's text is, if it is one."""
    try:
        return literal(host)
    except ValueError:
        return None


def _named(host: str) -> tuple[str, Address | None]:
    """A host in its one spelling (small ASCII letters, no dot at the end), and the address that it is, if any."""
    import idna

    seen = shown(host[:100])
    if ":" not in host:
        try:
            host = idna.encode(host, uts46=True).decode().lower() if not host.isascii() else host.lower()
        except idna.IDNAError as error:
            raise Refused(f"{seen}: no name of a host") from error
        host = host.removesuffix(".")
        if len(host) > 253 or not _HOST.fullmatch(host):
            raise Refused(f"{seen or '(nothing)'}: no name of a host")
    try:
        address = literal(host)
    except ValueError as error:
        raise Refused(f"{seen}: a number that is no plain address; write it as 192.0.2.1 or [2001:db8::1]") from error
    return host if address is None else str(address), address
