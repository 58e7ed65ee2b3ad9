"""The scheduler: which process gets the next model call of an engine. Late binding: our queue is the queue.

A lane is one engine: its slots, who has one, and who waits. Choice: the best band first, then arrival; every
`_FLOOR`-th choice goes to whoever has waited longest, whatever its band, so that batch work never starves. Pure: no
clock, no I/O. (Fairness by tokens comes with the tariffs; its door is `Lane.choose`.)
"""

from __future__ import annotations

from collections import OrderedDict

BANDS = ("system", "interactive", "normal", "batch")
_FLOOR = 8


class Lane:
    """One engine's queue. A process stands in at most one place of it."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.busy = 0  # slots that are taken
        self.closed_until_ms = 0  # a backend that asked everybody to wait
        self._queues: dict[str, OrderedDict[int, int]] = {band: OrderedDict() for band in BANDS}  # pid -> arrival
        self._band_of: dict[int, str] = {}
        self._arrivals = 0
        self._choices = 0

    def __len__(self) -> int:
        return len(self._band_of)

    def __contains__(self, pid: int) -> bool:
        return pid in self._band_of

    def add(self, pid: int, band: str) -> None:
        """Queue a process; one that is queued already keeps its place."""
        if pid in self._band_of:
            return
        self._arrivals += 1
        self._queues[band][pid] = self._arrivals
        self._band_of[pid] = band

    def discard(self, pid: int) -> None:
        """Take a process out of the queue."""
        if band := self._band_of.pop(pid, None):
            del self._queues[band][pid]

    def choose(self, now_ms: int) -> int | None:
        """The process that takes the next free slot, or None. It holds the slot until `release`."""
        if not self._band_of or self.busy >= self.slots or now_ms < self.closed_until_ms:
            return None
        self._choices += 1
        heads = [(arrival, pid) for queue in self._queues.values() for pid, arrival in _head(queue)]
        _, pid = min(heads) if self._choices % _FLOOR == 0 else heads[0]
        self.discard(pid)
        self.busy += 1
        return pid

    def release(self) -> None:
        """Give a slot back."""
        self.busy -= 1


def _head(queue: OrderedDict[int, int]) -> list[tuple[int, int]]:
    return [next(iter(queue.items()))] if queue else []
