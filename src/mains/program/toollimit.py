"""What a grant of a device's tool allows: `web.fetch(host=*.example.org, rate=10/hour, ask)`. Pure.

    argument=pattern    only calls whose argument fits; `a|b`: either; two arguments: both
    rate=N/minute       so many calls of one process, and all below it, in a minute, an hour or a day
    ask                 a person decides each call

In a pattern `*` stands for any characters (in the scheme and the host of a URL: for any that stay there), all else for
itself. A number, `true` and `false` fit as JSON writes them, a list when each of its items does. `host` is that of the
argument `url`, and the argument of that name: whatever of both is there must fit. What could be read in two ways (a
`..` or an empty part within a path, also when it is escaped; a URL with anything odd before its path) fits only `*`.

For who forbids, all is the other way round (`may_fit`): one item of a list is enough, case and compatible characters
(Unicode's NFKC) make no difference, and what is missing, empty, odd, or a folder above what is meant counts as meant.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from mains.errors import UsageError
from mains.program.fields import shown

PER_S = {"minute": 60, "hour": 3_600, "day": 86_400}
_CALLS_MAX = 1_000_000
_WHERE = re.compile(r"([A-Za-z_][A-Za-z0-9_-]*)\s*=\s*(.+)", re.DOTALL)
_RATE = re.compile(r"rate\s*=\s*([1-9][0-9]{0,6})\s*/\s*([a-z]+)")
_NETLOC = re.compile(r"[A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?")
_URL = re.compile(r"([A-Za-z*][A-Za-z0-9+.*-]*)://([^/?#]*)(.*)", re.DOTALL)
_LOCAL = frozenset({"file", "data", "javascript"})  # URLs whose host says nothing of where they lead
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")
_ANY = "*"
_UNESCAPES_MAX = 3


class Where(msgspec.Struct, frozen=True):
    """An argument, and the patterns of which it has to fit one."""

    argument: str
    patterns: tuple[str, ...]


class Limits(msgspec.Struct, frozen=True):
    """What stood in the parentheses of a grant. `calls` in `per_s` seconds; 0: as many as it likes."""

    where: tuple[Where, ...] = ()
    calls: int = 0
    per_s: int = 0
    ask: bool = False

    def fit(self, arguments: Mapping[str, Any]) -> bool:
        """Whether a call with these arguments is within the limits (`ask` and `rate` aside)."""
        return all(_fits(each, arguments) for each in self.where)

    def may_fit(self, arguments: Mapping[str, Any]) -> bool:
        """The same, where what is unclear counts as fitting: for a rule that forbids."""
        return all(_may_fit(each, arguments) for each in self.where)

    @property
    def destinations(self) -> frozenset[str]:
        """The arguments that are limited to something in particular. Of a URL that is its host."""
        named = set()
        for where in self.where:
            urls = [_URL.fullmatch(pattern) for pattern in where.patterns]
            said = [url[2] if url else pattern for url, pattern in zip(urls, where.patterns, strict=True)]
            if all(any(char.isalnum() for char in text) for text in said):
                named.add("host" if any(urls) else where.argument)
        return frozenset(named)


def parse_limits(name: str, arguments: tuple[str, ...]) -> Limits:
    """The limits of a grant of the tool `name`. Raises UsageError for what is none."""
    where, calls, per_s, ask = [], 0, 0, False
    for text in arguments:
        if text == "ask":
            ask = True
        elif (rate := _RATE.fullmatch(text)) and not calls:
            calls, per_s = int(rate[1]), PER_S.get(rate[2], 0)
            if not per_s or calls > _CALLS_MAX:
                raise UsageError(f"`{name}`: {shown(text)} is no rate: write `rate=10/minute`, `/hour` or `/day`")
        elif (found := _WHERE.fullmatch(text)) and found[1] != "rate":
            patterns = tuple(part.strip() for part in found[2].split("|"))
            if found[1] == "host":
                patterns = tuple(part.lower().rstrip(".") for part in patterns)
            if not all(patterns):
                raise UsageError(f"`{name}`: {shown(text)} has an empty pattern")
            if found[1] == "host" and not found[2].isascii():
                raise UsageError(f"`{name}`: {shown(text)}: write a host as it is looked up (xn--...)")
            where.append(Where(found[1], patterns))
        else:
            told = f"`{name}` takes argument=pattern, rate=10/hour and ask between parentheses, not {shown(text)}"
            raise UsageError(told)
    return Limits(tuple(where), calls, per_s, ask)


def _fits(where: Where, arguments: Mapping[str, Any]) -> bool:
    values = _values(where.argument, arguments)
    return bool(values) and all(any(_matches(pattern, value) for pattern in where.patterns) for value in values)


def _may_fit(where: Where, arguments: Mapping[str, Any]) -> bool:
    values = _values(where.argument, arguments)
    return not values or any(_may_match(pattern, value) for value in values for pattern in where.patterns)


def _values(name: str, arguments: Mapping[str, Any]) -> list[str | None]:
    """The texts that have to fit; None is one that fits nothing. Empty: the argument is not there."""
    found = [_text_of(item) for item in _items(arguments, name)]
    if name != "host":
        return found
    urls = [_host_of(item) if isinstance(item, str) else None for item in _items(arguments, "url")]
    return [*(text and text.lower() for text in found), *urls]


def _items(arguments: Mapping[str, Any], name: str) -> list[Any]:
    value = arguments.get(name, [])
    return value if isinstance(value, list) else [value]


def _text_of(value: Any) -> str | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 1.0 and 1e0 are the number 1 (RFC 8259 leaves it to the reader)
    if isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode() if isinstance(value, bool | int | float) else None


def _host_of(url: str) -> str | None:
    """The host of a URL, if every reader finds the same one."""
    try:
        parts = urlsplit(url.strip())
    except ValueError:
        return None
    if not _NETLOC.fullmatch(parts.netloc) or "\\" in url or not url.isprintable() or parts.scheme in _LOCAL:
        return None
    host = (parts.hostname or "").lower().removesuffix(".")
    labels = host.split(".")
    if not all(labels) or (_NUMBER.fullmatch(labels[-1]) and not _is_address(host)):
        return None
    return host


def _is_address(host: str) -> bool:
    """Whether it is an IPv4 address as everybody writes it: 127.1 and 2130706433 mean one, too."""
    try:
        return str(ipaddress.IPv4Address(host)) == host
    except ValueError:
        return False


def _is_odd(value: str) -> bool:
    """Whether a path in it might mean another one than it says: to who undoes escapes, or compatible characters."""
    for _ in range(_UNESCAPES_MAX):
        if any(_is_odd_path(form) for form in {value, unicodedata.normalize("NFKC", value)}):
            return True
        value, before = unquote(value), value
        if value == before:
            return False
    return True


def _is_odd_path(value: str) -> bool:
    scheme, mark, rest = value.partition("://")
    parts = (rest if mark and scheme.isalnum() else value).replace("\\", "/").split("/")
    steps = (part.partition(";")[0] for part in parts)
    return "\0" in value or "" in parts[1:-1] or any(step and not step.strip(". ") for step in steps)


def _matches(pattern: str, value: str | None) -> bool:
    if pattern == _ANY:
        return True
    if value is None or ("*" in pattern and _is_odd(value)):
        return False
    if _URL.fullmatch(value) and "://" not in pattern:
        pattern = f"{_ANY}://{pattern}"  # what it says first is the host
    return re.fullmatch(_expression(pattern), value, re.DOTALL) is not None


def _expression(pattern: str) -> str:
    url = _URL.fullmatch(pattern)
    if url is None or (url[2] == _ANY and not url[3]):  # https://*: every such URL
        return _starred(pattern, ".*")
    return f"{_starred(url[1], '[A-Za-z0-9+.-]*')}://{_starred(url[2], '[A-Za-z0-9.:-]*')}{_starred(url[3], '.*')}"


def _starred(pattern: str, star: str) -> str:
    return star.join(re.escape(piece) for piece in pattern.split(_ANY))


def _may_match(pattern: str, value: str | None) -> bool:
    """Whether a value may mean what a pattern does."""
    if value is None or not value.strip() or _is_odd(value):
        return True
    meant, text = _plain(pattern), _plain(value)
    above = meant.partition(_ANY)[0].startswith(f"{text}/")
    return above or re.fullmatch(_starred(meant, ".*"), text, re.DOTALL) is not None


def _plain(text: str) -> str:
    """A text in the one form in which those that may mean the same are equal."""
    text = unicodedata.normalize("NFKC", text).casefold().strip()
    url = _URL.fullmatch(text)
    if url is None:
        return text.strip("/").rstrip(". ")
    host = url[2].rpartition("@")[2]
    return f"{url[1]}://{re.sub(':(80|443)?$', '', host).rstrip('.')}{url[3] or '/'}"
