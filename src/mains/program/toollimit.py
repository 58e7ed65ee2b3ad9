"""What a grant of a device's tool allows: `web.fetch(host=*.example.org, rate=10/hour, ask)`. Pure.

    argument=pattern    only calls whose argument fits; `a|b`: either; two arguments: both
    rate=N/minute       so many calls of one process in a minute, an hour or a day
    ask                 a person decides each call

In a pattern `*` stands for any characters, all else for itself. A number, `true` and `false` fit as JSON writes
them, a list when each of its items does. `host` is that of the argument `url` when the tool has no `host`. What could
be read in two ways (a `..` or an empty part within a path, a URL with anything odd before its path) fits only `*`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from mains.errors import UsageError
from mains.program.fields import shown

PER_S = {"minute": 60, "hour": 3_600, "day": 86_400}
_CALLS_MAX = 1_000_000
_WHERE = re.compile(r"([A-Za-z_][A-Za-z0-9_-]*)\s*=\s*(.+)", re.DOTALL)
_RATE = re.compile(r"rate\s*=\s*([1-9][0-9]{0,6})\s*/\s*([a-z]+)")
_NETLOC = re.compile(r"[A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?")
_ANY = "*"


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
        return all(_fits(each, arguments) or _is_unclear(each, arguments) for each in self.where)


def parse_limits(name: str, arguments: tuple[str, ...]) -> Limits:
    """The limits of a grant of the tool `name`. Raises UsageError for what is none."""
    where, calls, per_s, ask = [], 0, 0, False
    for text in arguments:
        if text == "ask":
            ask = True
        elif rate := _RATE.fullmatch(text):
            calls, per_s = int(rate[1]), PER_S.get(rate[2], 0)
            if not per_s or calls > _CALLS_MAX:
                raise UsageError(f"`{name}`: {shown(text)} is no rate: write `rate=10/minute`, `/hour` or `/day`")
        elif (found := _WHERE.fullmatch(text)) and found[1] != "rate":
            patterns = tuple(part.strip() for part in found[2].split("|"))
            if not all(patterns):
                raise UsageError(f"`{name}`: {shown(text)} has an empty pattern")
            where.append(Where(found[1], patterns))
        else:
            told = f"`{name}` takes argument=pattern, rate=10/hour and ask between parentheses, not {shown(text)}"
            raise UsageError(told)
    return Limits(tuple(where), calls, per_s, ask)


def _fits(where: Where, arguments: Mapping[str, Any]) -> bool:
    values = _values(where.argument, arguments)
    return bool(values) and all(any(_matches(pattern, value) for pattern in where.patterns) for value in values)


def _is_unclear(where: Where, arguments: Mapping[str, Any]) -> bool:
    values = _values(where.argument, arguments)
    return not values or any(value is None or _is_odd(value) for value in values)


def _values(name: str, arguments: Mapping[str, Any]) -> list[str | None]:
    """The texts that have to fit; None is one that fits nothing. Empty: the argument is not there."""
    if name == "host" and name not in arguments and isinstance(url := arguments.get("url"), str):
        return [_host_of(url)]
    if name not in arguments:
        return []
    value = arguments[name]
    return [_text_of(item) for item in value] if isinstance(value, list) else [_text_of(value)]


def _text_of(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode() if isinstance(value, bool | int | float) else None


def _host_of(url: str) -> str | None:
    try:
        parts = urlsplit(url.strip())
    except ValueError:
        return None
    if not _NETLOC.fullmatch(parts.netloc) or "\\" in url or not url.isprintable():
        return None
    return (parts.hostname or "").lower().rstrip(".") or None


def _is_odd(value: str) -> bool:
    """Whether a path in it might mean another one than it says."""
    scheme, mark, rest = value.partition("://")
    parts = (rest if mark and scheme.isalnum() else value).replace("\\", "/").split("/")
    return "\0" in value or "" in parts[1:-1] or any(part in (".", "..") for part in parts)


def _matches(pattern: str, value: str | None) -> bool:
    if pattern == _ANY:
        return True
    if value is None or ("*" in pattern and _is_odd(value)):
        return False
    pieces = [re.escape(piece) for piece in pattern.split("*")]
    return re.fullmatch(".*".join(pieces), value, re.DOTALL) is not None
