"""The scheduler: which call an engine gets next. Late binding: our queue is the queue. Pure: no clock, no I/O.

A lane is one engine: its slots, who has one, and who waits. Who waits is compared in this order:

    1. feasible   a slot is free, nobody has closed the lane, and its gate allows the call that is next. A gate that
                  does not holds the lane: nobody overtakes, or a large call would starve behind small ones
    2. band       the best that has work, above a floor in tokens for the others (`bands.py`)
    3. tenant     fair by tokens, with a stated bound (`tenants.py`)
    4. within it  age, deadline, attained service, warm prompt, kept prefix, arrival (`backlog.py`)

When all waiting calls are one tenant's and there is a slot for each, there is nothing to choose: they go by arrival,
and no index is made of them.

A call is charged when it is chosen: what it reads anew and what it makes, by estimate; `settle` corrects that with what
the engine reports, and `release` gives the slot back (a call that was never made is charged nothing).
"""

from __future__ import annotations

from collections import OrderedDict

from mains.kernel.backlog import Backlog, Call
from mains.kernel.bands import BANDS, Floors
from mains.kernel.ports import Usage
from mains.kernel.prefixes import NODES_MAX, TOKENS_MAX, Prefixes
from mains.kernel.programs import Programs
from mains.kernel.tenants import QUANTUM, Tenant, Tenants
from mains.kernel.waiting import Gate, Waiting, charge

_NUMBER = {band: number for number, band in enumerate(BANDS)}


class Lane:
    """One engine's queue. A process has at most one call in it that waits, and one that is made."""

    def __init__(
        self,
        slots: int,
        *,
        gate: Gate | None = None,
        quantum: int = QUANTUM,
        prefix_tokens_max: int = TOKENS_MAX,
        prefix_nodes_max: int = NODES_MAX,
    ) -> None:
        self.slots = slots
        self.closed_until_ms = 0  # a backend that asked everybody to wait
        self.gate = gate
        self._calls: OrderedDict[int, Call] = OrderedDict()  # by pid, in order of arrival: who waits
        self._fresh: dict[int, Call] = {}  # those of them that are not indexed
        self._flights: dict[int, Call] = {}  # by pid: who has a slot
        self._later: dict[int, Waiting] = {}  # by pid: who has a slot, and waits again when it gives that back
        self._arrivals = 0
        self._bands = [Tenants(quantum) for _ in BANDS]
        self._waiting = [0] * len(BANDS)  # calls
        self._tenants: dict[int, int] = {}  # tenant -> calls that wait, in all bands
        self._floors = Floors()
        self._programs = Programs()
        self._prefixes = Prefixes(prefix_tokens_max, prefix_nodes_max)
        self._held: Waiting | None = None  # the call that the gate did not allow

    def __len__(self) -> int:
        return len(self._calls) + len(self._later)

    def __contains__(self, pid: int) -> bool:
        return pid in self._calls or pid in self._later

    @property
    def busy(self) -> int:
        """Slots that are taken."""
        return len(self._flights)

    def new_tokens(self, waiting: Waiting) -> int:
        """How much of a call's input the engine would have to read."""
        return max(0, waiting.input_tokens - self._prefixes.matched(waiting.tenant, waiting.prefix))

    def add(self, waiting: Waiting) -> None:
        """Queue a call; one that is queued already keeps its place, unless it is another's now."""
        if waiting.pid in self._flights:
            self._later[waiting.pid] = waiting
            return
        known = self._calls.get(waiting.pid)
        if known is not None:
            if _same_place(known.waiting, waiting):
                known.waiting = waiting
                return
            self.discard(waiting.pid)
        self._arrivals += 1
        call = self._calls[waiting.pid] = Call(waiting, self._arrivals)
        band = _NUMBER[waiting.band]
        self._waiting[band] += 1
        self._tenants[waiting.tenant] = self._tenants.get(waiting.tenant, 0) + 1
        self._bands[band].come(waiting.tenant)
        self._programs.waits(waiting.program, call)
        self._fresh[waiting.pid] = call
        if not self._all_fit():
            self._index()

    def discard(self, pid: int) -> None:
        """Take a call out of the queue."""
        self._later.pop(pid, None)
        call = self._calls.get(pid)
        if call is not None:
            self._programs.gone(call.waiting.program, call)
            tenants, tenant = self._out(call)
            tenants.touch(tenant)
            tenants.withdraw(tenant)

    def choose(self, now_ms: int) -> Waiting | None:
        """The call that takes the next free slot, or None. It has the slot until `release`."""
        self._held = None
        if not self._calls or self.busy >= self.slots or now_ms < self.closed_until_ms:
            return None
        by_floor: bool | None = None
        if self._all_fit():
            call = next(iter(self._calls.values()))
            band = _NUMBER[call.waiting.band]
        else:
            self._index()
            band, by_floor = self._floors.pick(self._waiting)
            call = self._bands[band].head().backlog.head(now_ms)
        waiting = call.waiting
        if self.gate is not None:
            if not self.gate.allows(waiting, now_ms):
                self._held = waiting
                return None
            self.gate.dispatched(waiting, now_ms)
        self._take(call, band, by_floor)
        return waiting

    def settle(self, pid: int, usage: Usage | None) -> None:
        """The call of a process has ended, and used this; None: nobody knows, so the estimate stands."""
        flight = self._flights.get(pid)
        if flight is None or flight.settled:
            return
        waiting = flight.waiting
        if usage is None:
            self._settle(flight, flight.charged)
            return
        self._settle(flight, charge(usage.input_tokens, usage.cached_tokens, usage.output_tokens))
        if usage.output_tokens > 0 and waiting.prefix:
            self._prefixes.grow(flight.end, waiting.prefix[-1][1] + usage.output_tokens)
            if len(self._fresh) != len(self._calls):
                self._noted()

    def release(self, pid: int) -> None:
        """Give a slot back. A call that was not settled was not made."""
        flight = self._flights.pop(pid, None)
        if flight is None:
            return
        if not flight.settled:
            self._settle(flight, 0)
        self._prefixes.drop(flight.end)
        tenants, tenant = self._account(flight)
        tenants.land(tenant)
        if again := self._later.pop(pid, None):
            self.add(again)

    def next_ms(self, now_ms: int) -> int | None:
        """When to look again though nothing happens; None: there is no such time."""
        if not self._calls or self.busy >= self.slots:
            return None
        if now_ms < self.closed_until_ms:
            return self.closed_until_ms
        return self.gate.next_ms(self._held, now_ms) if self.gate is not None and self._held is not None else None

    # inside

    def _all_fit(self) -> bool:
        """Whether there is nothing to choose: one tenant, and a slot for each call."""
        return len(self._calls) <= self.slots - len(self._flights) and len(self._tenants) == 1

    def _index(self) -> None:
        """Put the calls that were never compared into their backlogs."""
        for call in self._fresh.values():
            waiting = call.waiting
            call.nodes = self._prefixes.hold(waiting.tenant, waiting.prefix)
            tenants, tenant = self._account(call)
            tenant.backlog.add(call)
            tenants.touch(tenant)
        self._fresh.clear()

    def _take(self, call: Call, band: int, by_floor: bool | None) -> None:
        """Charge a call, and let it go."""
        waiting = call.waiting
        self._programs.leaves(waiting.program, call)
        tenants, tenant = self._out(call)
        call.end = self._prefixes.use(waiting.tenant, waiting.prefix)
        call.charged = charge(waiting.input_tokens, self._prefixes.change.cached, waiting.output_tokens)
        call.by_floor, call.settled = by_floor, False
        tenants.leave(tenant, call.charged)
        if by_floor is not None:
            tenant.backlog.chosen()
            self._floors.charge(band, by_floor, call.charged, self._waiting)
        self._flights[waiting.pid] = call
        if len(self._fresh) != len(self._calls):
            self._noted()
        tenants.touch(tenant)

    def _out(self, call: Call) -> tuple[Tenants, Tenant]:
        """Take a call out of all indexes but its tenant's account."""
        waiting = call.waiting
        band = _NUMBER[waiting.band]
        tenants, tenant = self._account(call)
        del self._calls[waiting.pid]
        self._waiting[band] -= 1
        if not self._waiting[band]:
            self._floors.emptied(band)
        self._tenants[waiting.tenant] -= 1
        if not self._tenants[waiting.tenant]:
            del self._tenants[waiting.tenant]
        if self._fresh.pop(waiting.pid, None) is None:
            tenant.backlog.remove(call)
            self._prefixes.drop(call.nodes[-1])
        return tenants, tenant

    def _account(self, call: Call) -> tuple[Tenants, Tenant]:
        """The tenant of a call that waits or is made, and its band's tenants."""
        tenants = self._bands[_NUMBER[call.waiting.band]]
        tenant = tenants.get(call.waiting.tenant)
        assert tenant is not None
        return tenants, tenant

    def _settle(self, flight: Call, tokens: int) -> None:
        """Correct what was charged."""
        flight.settled = True
        more = tokens - flight.charged
        if more:
            tenants, tenant = self._account(flight)
            tenants.correct(tenant, more)
            tenants.touch(tenant)
            if flight.by_floor is not None:
                self._floors.charge(_NUMBER[flight.waiting.band], flight.by_floor, more, self._waiting)
        level, calls = self._programs.ended(flight.waiting.program, tokens)
        moved: dict[Tenant, Tenants] = {}
        for call in calls:
            if call.nodes:
                tenants, tenant = self._account(call)
                tenant.backlog.promote(call, level)
                moved[tenant] = tenants
            else:
                call.level = level
        for tenant, tenants in moved.items():  # another of its calls may be next now, with another rank
            tenants.touch(tenant)

    def _noted(self) -> None:
        """Tell the backlogs what a use of the tree has changed."""
        change = self._prefixes.change
        if not change:
            return
        for tenants in self._bands:
            touched = set()
            for nodes, tell in (
                (change.opened, Backlog.opened),
                (change.closed, Backlog.closed),
                (change.resized, Backlog.resized),
            ):
                for node in nodes:
                    tenant = tenants.get(node.tenant)
                    if tenant is not None and tenant.backlog:
                        tell(tenant.backlog, node)
                        touched.add(tenant)
            for tenant in touched:
                tenants.touch(tenant)


def _same_place(one: Waiting, other: Waiting) -> bool:
    """Whether two calls of a process differ in sizes only."""
    return (
        one.tenant == other.tenant
        and one.band == other.band
        and one.program == other.program
        and one.deadline_ms == other.deadline_ms
        and [key for key, _ in one.prefix] == [key for key, _ in other.prefix]
    )
