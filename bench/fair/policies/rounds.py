"""Round robin by tenant: a call each, whatever its size."""

from __future__ import annotations

from collections import OrderedDict, deque

from bench.fair.call import Call
from bench.fair.policy import Quiet, Site


class Rounds(Quiet):
    """A queue a tenant; who was served goes to the end."""

    def __init__(self, site: Site) -> None:
        self._queues: OrderedDict[int, deque[Call]] = OrderedDict()

    def add(self, call: Call, now: float) -> None:
        """To the end of the tenant's queue."""
        self._queues.setdefault(call.tenant, deque()).append(call)

    def choose(self, now: float) -> Call | None:
        """The oldest call of the tenant whose turn it is."""
        if not self._queues:
            return None
        tenant, queue = self._queues.popitem(last=False)
        call = queue.popleft()
        if queue:
            self._queues[tenant] = queue
        return call
