"""What the headers of an answer say of a backend's limits: what is left, and when it is whole again.

OpenAI and those who speak like it: `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`, the reset as a span
(`6m0s`, `120ms`): https://platform.openai.com/docs/guides/rate-limits. Anthropic:
`anthropic-ratelimit-{requests,tokens}-{limit,remaining,reset}`, the reset as a time of RFC 3339:
https://platform.claude.com/docs/en/api/rate-limits.
What cannot be read is as if it were not said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

from mains.kernel.ratelimits import RateLimits

SPAN_MS_MAX = 3_600_000
"""A reset that is further away is taken for one hour: nobody waits for ever because of a header."""

_NUMBER = re.compile(r"\d{1,12}(?:\.\d{1,12})?")
_SPAN = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")


def limits_of(headers: Mapping[str, str], now: float) -> RateLimits | None:
    """The limits that are said; None when none are. `now` is the time in seconds since 1970."""
    said = {
        "requests_left": _count(headers, "remaining", "requests"),
        "requests_reset_ms": _reset_ms(headers, "requests", now),
        "tokens_max": _count(headers, "limit", "tokens"),
        "tokens_left": _count(headers, "remaining", "tokens"),
        "tokens_reset_ms": _reset_ms(headers, "tokens", now),
    }
    if said["requests_left"] < 0 and said["tokens_left"] < 0:
        return None
    return RateLimits(**said)


def _header(headers: Mapping[str, str], what: str, unit: str) -> str:
    return headers.get(f"x-ratelimit-{what}-{unit}") or headers.get(f"anthropic-ratelimit-{unit}-{what}") or ""


def _count(headers: Mapping[str, str], what: str, unit: str) -> int:
    text = _header(headers, what, unit).strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else -1


def _reset_ms(headers: Mapping[str, str], unit: str, now: float) -> int:
    text = _header(headers, "reset", unit).strip()
    return max(0, min(SPAN_MS_MAX, round(_span_ms(text, now)))) if text else 0


def _span_ms(text: str, now: float) -> float:
    """`1h2m3s`, `120ms`, seconds as a number, or a time."""
    if match := _SPAN.fullmatch(text):
        hours, minutes, seconds, millis = (float(part or 0) for part in match.groups())
        return hours * 3_600_000 + minutes * 60_000 + seconds * 1_000 + millis
    if _NUMBER.fullmatch(text):
        return float(text) * 1_000
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return 0.0
    return (at.timestamp() - now) * 1_000 if at.tzinfo else 0.0
