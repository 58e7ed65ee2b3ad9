"""Tenants of one band, fair by tokens: who had less goes first, within a quantum in which locality decides. Pure.

Each tenant has `spent`: what its calls were charged, by estimate when they leave, corrected when they end. The band has
a `line`. A tenant below the line may be served; when nobody who waits is below it, the line rises by whole quanta until
somebody is. Of those below, the one whose next call has the best rank goes first (so a tenant with a warm prompt keeps
the engine until its quantum is spent: deficit longest prefix match, DLPM, 2025), then who has spent least (VTC, OSDI
2024). `line - spent` is the deficit of DLPM; a quantum of 0 would be VTC.

Who comes, or comes back, stands at most one quantum below the line: no credit for time away. What it spent while nobody
else wanted the engine is no debt, for the line rose with it; what it overdrew of this round stays, or a tenant that
leaves after each giant call would pay for none. When nobody waits or runs in a band, all is forgotten.

**The bound.** Let Q be the quantum, C_max the most that one call is charged (by estimate or in fact), B the most calls
that a tenant has in flight at once. Two tenants that both have calls waiting in this band all the time from t1 to t2
are served weighted tokens W in it that differ by

    |W_i(t1, t2) - W_j(t1, t2)|  <=  2 (Q + 2 B C_max)          whatever the estimates were
                                 <=  2 (Q + (B + 1) C_max)      when no estimate is too low

however many tenants, programs and prompts there are. A token counts when it is read or made. The proof stands in
docs/book/11-scheduler.md. (The plan said `2 (Q w + B C_max)`: it left out calls in flight of the other tenant, whose
estimates may be too high. Our Q is in weighted tokens already.)
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from mains.kernel.backlog import Backlog

QUANTUM = 8_192
"""Weighted tokens: some two calls of a small agent. Locality gets a run of calls, a rival waits seconds."""


_SLACK = 4_096


class Tenant:
    """One tenant in one band. `rank` and `shown`: what the index knows of it."""

    __slots__ = ("backlog", "flying", "id", "rank", "shown", "spent", "waiting")

    def __init__(self, number: int, spent: int) -> None:
        self.id = number
        self.spent = spent
        self.waiting = 0  # calls, those that are not indexed included
        self.flying = 0
        self.backlog = Backlog()
        self.rank = -1  # of its best call; -1: not in the index
        self.shown = 0  # `spent`, as the index has it


class Tenants:
    """The tenants of one band."""

    def __init__(self, quantum: int = QUANTUM) -> None:
        self._quantum = quantum
        self.line = quantum
        self._tenants: dict[int, Tenant] = {}
        self._ranks: dict[int, list[tuple[int, int]]] = {}  # rank -> (spent, tenant)
        self._away: list[tuple[int, int]] = []  # (spent, tenant) of who neither waits nor runs, and overdrew
        self._active = 0  # tenants that wait or run
        self._pushes = 0  # into both heaps, since they were last begun anew
        self._pushes_max = _SLACK

    def get(self, number: int) -> Tenant | None:
        """A tenant that waits, runs, or has overdrawn."""
        return self._tenants.get(number)

    def come(self, number: int) -> Tenant:
        """A call of a tenant waits from now on."""
        tenant = self._tenants.get(number)
        if tenant is None:
            tenant = self._tenants[number] = Tenant(number, self.line - self._quantum)
        if not tenant.waiting:
            tenant.spent = max(tenant.spent, self.line - self._quantum)
            if not tenant.flying:
                self._active += 1
        tenant.waiting += 1
        return tenant

    def withdraw(self, tenant: Tenant) -> None:
        """A call waits no more, and is not made."""
        tenant.waiting -= 1
        self._rest(tenant)

    def leave(self, tenant: Tenant, tokens: int) -> None:
        """A call is made, charged by estimate."""
        if tenant.spent >= self.line:  # it was alone: `head`, which raises the line, was not asked
            self._raise_above(tenant.spent)
        tenant.waiting -= 1
        tenant.flying += 1
        tenant.spent += tokens

    def correct(self, tenant: Tenant, tokens: int) -> None:
        """A call was charged too little (or, below 0, too much)."""
        tenant.spent += tokens

    def land(self, tenant: Tenant) -> None:
        """A call has ended."""
        tenant.flying -= 1
        self._rest(tenant)

    def touch(self, tenant: Tenant) -> None:
        """Its calls, their ranks or what it spent have changed: bring the index up to date."""
        if not tenant.backlog:
            tenant.rank = -1
            return
        rank = tenant.backlog.rank()
        if rank != tenant.rank or tenant.spent != tenant.shown:
            tenant.rank, tenant.shown = rank, tenant.spent
            heappush(self._ranks.setdefault(rank, []), (tenant.spent, tenant.id))
            self._tidy()

    def head(self) -> Tenant:
        """The tenant that is next; the line rises when nobody is below it. Somebody must wait."""
        while True:
            least = None
            for rank in sorted(self._ranks):
                heap = self._ranks[rank]
                while heap and not self._counts(heap[0], rank):
                    heappop(heap)
                if not heap:
                    del self._ranks[rank]
                elif heap[0][0] < self.line:
                    return self._tenants[heap[0][1]]
                elif least is None or heap[0][0] < least:
                    least = heap[0][0]
            assert least is not None, "nobody waits"
            self._raise_above(least)

    def _counts(self, entry: tuple[int, int], rank: int) -> bool:
        tenant = self._tenants.get(entry[1])
        return tenant is not None and tenant.rank == rank and tenant.shown == entry[0]

    def _raise_above(self, spent: int) -> None:
        self.line += ((spent - self.line) // self._quantum + 1) * self._quantum
        start = self.line - self._quantum
        while self._away and self._away[0][0] <= start:
            before, number = heappop(self._away)
            tenant = self._tenants.get(number)
            if tenant is not None and tenant.spent == before and not (tenant.waiting or tenant.flying):
                del self._tenants[number]

    def _rest(self, tenant: Tenant) -> None:
        if tenant.waiting or tenant.flying:
            return
        self._active -= 1
        if not self._active:
            self._tenants.clear()
            self._away.clear()
            self._ranks.clear()
            self.line = self._quantum
        elif tenant.spent <= self.line - self._quantum:
            del self._tenants[tenant.id]
        else:
            heappush(self._away, (tenant.spent, tenant.id))
            self._tidy()

    def _tidy(self) -> None:
        """When entries that do not count may be most of all: begin anew. Calls that come and go without being made
        leave some each time."""
        self._pushes += 1
        if self._pushes <= self._pushes_max:
            return
        self._ranks.clear()
        self._away.clear()
        for tenant in self._tenants.values():
            if tenant.rank >= 0:
                self._ranks.setdefault(tenant.rank, []).append((tenant.shown, tenant.id))
            if not (tenant.waiting or tenant.flying):
                self._away.append((tenant.spent, tenant.id))
        for heap in (self._away, *self._ranks.values()):
            heapify(heap)
        self._pushes, self._pushes_max = 0, 4 * len(self._tenants) + _SLACK
