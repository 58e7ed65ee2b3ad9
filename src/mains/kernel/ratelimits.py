"""Rate limits as a backend states them with an answer: a value that crosses the kernel's edge."""

from __future__ import annotations

import msgspec


class RateLimits(msgspec.Struct, frozen=True):
    """What a backend says is left, and in how many milliseconds it is whole again; -1: it does not say."""

    requests_left: int = -1
    requests_reset_ms: int = 0
    tokens_max: int = -1
    tokens_left: int = -1
    tokens_reset_ms: int = 0
