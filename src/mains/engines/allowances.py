"""What the headers of an answer say of a backend's limits. Pure.

| header | of | how it fills |
|---|---|---|
| `anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}` | Anthropic | steadily; `reset` is a time (RFC 3339) |
| `x-ratelimit-{limit,remaining,reset}-{requests,tokens}` | OpenAI, and many after it | steadily; `reset` is a span (`6m0s`, `12ms`, seconds); of some who speak alike, a time |
| `RateLimit` with `RateLimit-Policy` | the IETF's draft, from its 8th version on | at the end of a window |
| `RateLimit-{Limit,Remaining,Reset}` | the same draft before | at the end of a window; `Reset` in seconds |

Sources, read in November 2026: platform.claude.com/docs/en/api/rate-limits, developers.openai.com/api/docs/guides/rate-limits,
draft-ietf-httpapi-ratelimit-headers-11 and -06. The first two say when they are full again, so the speed at which they
fill is known whatever their window is (a day for the requests of some servers that speak as OpenAI does). DashScope
names none (alibabacloud.com/help/en/model-studio/rate-limit): there `rpm` and `tpm` of mains.toml say it. What makes
no sense (a limit of 0 or -1, no reset) is not there.
"""  # noqa: E501 - a table's rows

from __future__ import annotations

import datetime
import email.utils
import math
import re
from collections.abc import Mapping

from mains.errors import Allowance, RateLimits

_DAY_MS = 24 * 3_600_000
_EPOCH_S_MIN = 1_000_000_000  # a number of seconds from here on is a time
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|[smhd])")
_UNIT_MS = {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1_000.0, "m": 60_000.0, "h": 3_600_000.0, "d": _DAY_MS}
_ITEM = re.compile(
    r'\s*("(?:[^"\\]|\\.)*"|[^;,\s"]+)((?:\s*;\s*[a-z*][a-z0-9_.*-]*(?:=(?:"(?:[^"\\]|\\.)*"|[^;,]*))?)*)'
)
_PARAMETER = re.compile(r';\s*([a-z*][a-z0-9_.*-]*)=("(?:[^"\\]|\\.)*"|[^;,]*)')
_TEXT_CHARS_MAX = 2_000  # of a header that is looked at


def limits_of(headers: Mapping[str, str], now: float) -> RateLimits | None:
    """What these headers say; None: nothing. `now` is the wall clock, in seconds, for an answer without a Date."""
    if not any("ratelimit" in name.lower() for name in headers):
        return None  # as most servers that run at home answer: parsing would cost more than the rest of the answer
    limits = _anthropic(headers, now) or _openai(headers, now)
    if limits is None and (requests := _policy(headers) or _old_fields(headers)):
        limits = RateLimits(requests=requests)
    return limits


def _anthropic(headers: Mapping[str, str], now: float) -> RateLimits | None:
    at_s = _sent_s(headers, now)

    def of(what: str) -> Allowance | None:
        name = f"anthropic-ratelimit-{what}"
        full_s = _time_s(headers.get(f"{name}-reset", ""))
        reset_ms = None if full_s is None else max(0.0, (full_s - at_s) * 1_000)
        return _allowance(headers.get(f"{name}-limit"), headers.get(f"{name}-remaining"), reset_ms)

    parts = RateLimits(of("requests"), None, of("input-tokens"), of("output-tokens"))
    if parts.input_tokens is None and parts.output_tokens is None:
        parts = parts._replace(tokens=of("tokens"))
    return parts if any(parts) else None


def _openai(headers: Mapping[str, str], now: float) -> RateLimits | None:
    at_s = _sent_s(headers, now)

    def of(what: str) -> Allowance | None:
        reset_ms = _until_ms(headers.get(f"x-ratelimit-reset-{what}", ""), at_s)
        limit = headers.get(f"x-ratelimit-limit-{what}")
        return _allowance(limit, headers.get(f"x-ratelimit-remaining-{what}"), reset_ms)

    parts = RateLimits(of("requests"), of("tokens"))
    return parts if any(parts) else None


def _policy(headers: Mapping[str, str]) -> Allowance | None:
    """The tightest of the policies that count requests, by what is left of it."""
    left, policies = _items(headers.get("RateLimit", "")), _items(headers.get("RateLimit-Policy", ""))
    found = []
    for name, parameters in left.items():
        policy = policies.get(name, {})
        if policy.get("qu", "requests") not in ("request", "requests"):
            continue
        reset_ms = _span_ms(parameters.get("t", "") or policy.get("w", ""))
        remaining = parameters.get("r")
        allowance = _allowance(policy.get("q", remaining), remaining, reset_ms, steady=False)
        if allowance is not None:
            found.append(allowance)
    return min(found, key=lambda allowance: allowance.remaining, default=None)


def _old_fields(headers: Mapping[str, str]) -> Allowance | None:
    limit = headers.get("RateLimit-Limit", "").partition(",")[0].partition(";")[0]
    reset_ms = _span_ms(headers.get("RateLimit-Reset", ""))
    return _allowance(limit, headers.get("RateLimit-Remaining"), reset_ms, steady=False)


def _allowance(
    limit: str | None, remaining: str | None, reset_ms: float | None, *, steady: bool = True
) -> Allowance | None:
    most, left = _count(limit), _count(remaining)
    if most is None or left is None or most <= 0 or left < 0 or reset_ms is None:
        return None
    return Allowance(most, min(left, most), math.ceil(min(reset_ms, _DAY_MS)), steady)


def _items(text: str) -> dict[str, dict[str, str]]:
    """The members of a list of structured fields (RFC 9651): name -> parameters."""
    return {
        found[1].strip('"'): {key: value.strip().strip('"') for key, value in _PARAMETER.findall(found[2])}
        for found in _ITEM.finditer(text[:_TEXT_CHARS_MAX])
    }


def _count(text: str | None) -> int | None:
    plain = (text or "").strip()
    return int(plain) if plain.isascii() and plain.isdigit() and len(plain) < 16 else None


def _span_ms(text: str) -> float | None:
    """A span as Go writes it (`1m2.5s`), or seconds."""
    plain = text.strip()[:40]
    if plain and _SPAN.sub("", plain) == "":
        return sum(float(number) * _UNIT_MS[unit] for number, unit in _SPAN.findall(plain))
    try:
        seconds = float(plain)
    except ValueError:
        return None
    return seconds * 1_000 if 0 <= seconds < math.inf else None


def _until_ms(text: str, at_s: float) -> float | None:
    """A span, or a time from which it follows: RFC 3339, or seconds or milliseconds since 1970 (no span is so long)."""
    span_ms = _span_ms(text)
    if span_ms is not None and span_ms < _EPOCH_S_MIN * 1_000:
        return span_ms
    full_s = _time_s(text) if span_ms is None else span_ms / (1_000 if span_ms < _EPOCH_S_MIN * 1e6 else 1e6)
    return None if full_s is None else max(0.0, (full_s - at_s) * 1_000)


def _time_s(text: str) -> float | None:
    """A time as RFC 3339 writes it."""
    try:
        time = datetime.datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return time.timestamp() if time.tzinfo is not None else None


def _sent_s(headers: Mapping[str, str], now: float) -> float:
    """When an answer was sent, by its own Date, so that a wrong clock does no harm; else now."""
    try:
        return email.utils.parsedate_to_datetime(headers["Date"]).timestamp()
    except (KeyError, ValueError, OverflowError):
        return now
