"""The engine: slots, one prefill at a time at its full speed, and decoding in all slots side by side.

The defaults are of the order of an 8B model on one large GPU. Nothing hangs on them but the scale; `completion` shows
how the results move with load and cache.
"""

from __future__ import annotations

import msgspec

from bench.fair.cache import PrefixCache
from bench.fair.call import Call


class Speeds(msgspec.Struct, frozen=True):
    """Slots, tokens a second of prefill (all slots together) and of decoding (each), and the cache in tokens."""

    slots: int = 16
    prefill_per_s: float = 8_000.0
    decode_per_s: float = 50.0
    cache_tokens: int = 200_000

    def seconds(self, uncached: int, output: int) -> float:
        """How long one call holds a slot when nobody else prefills."""
        return uncached / self.prefill_per_s + output / self.decode_per_s


class Started(msgspec.Struct, frozen=True):
    """A call that has a slot: what of it was read anew, and when it ends."""

    call: Call
    began_s: float
    cached: int
    end_s: float

    @property
    def uncached(self) -> int:
        """Input tokens that the engine reads."""
        return self.call.step.input_tokens - self.cached


class Engine:
    """What is running."""

    def __init__(self, speeds: Speeds) -> None:
        self.speeds = speeds
        self.cache = PrefixCache(speeds.cache_tokens)
        self.running = 0
        self._prefill_free_s = 0.0

    @property
    def free(self) -> bool:
        """Whether a slot is empty."""
        return self.running < self.speeds.slots

    def begin(self, call: Call, now: float) -> Started:
        """Take a slot."""
        cached = self.cache.begin(call)
        self.running += 1
        read = max(now, self._prefill_free_s) + (call.step.input_tokens - cached) / self.speeds.prefill_per_s
        self._prefill_free_s = read
        return Started(call, now, cached, read + call.step.output_tokens / self.speeds.decode_per_s)

    def end(self, started: Started) -> None:
        """Give the slot back."""
        self.cache.end(started.call)
        self.running -= 1
