"""The backlog of one tenant in one band: its waiting calls, and which of them is next. Pure.

The order within a tenant, best first:

    every `AGED`-th choice    the call that has waited longest: nobody waits for ever, whatever the rules below prefer
    a deadline at risk        the earliest deadline that is less than `RISK_MS` away (or over)
    level                     the service that its program has had, in powers of four (`programs.py`)
    rank                      warm: all of its prompt but what came since is kept, for it returns from a tool;
                              then by how much of its prompt is kept, in powers of two
    arrival

The level stands before the rank: a warm prompt saves some reading, but an agent that is nearly done and waits behind
one that has long to go loses more. Age is dear, for whom it takes is mostly long and cold: at a load of 1.2, agents
took a fifth longer with every eighth choice than with every 32nd (docs/design.md, 2026-11-28).

A call's rank changes whenever a prompt that it shares is read or forgotten, and ten thousand calls may share one. So no
index holds ranks of calls. A call stands at the end of its prompt in the tree of `prefixes.py`, and each node knows its
least call by (level, arrival): of those that end here (`_own`), and of those below that reach no kept node before this
one (`_open`; the least of each child is enough). Calls in the same one of the two have the same rank, so a kept node
hands its two least calls, with their ranks, to the heap that is chosen from (`_best`). When a node begins or ceases to
be kept, only its own entries move: O(depth x log n), however many wait below.

Heaps are cleaned lazily: an entry counts while its call waits, has this level (and rank), and belongs there. The top of
`_own` and `_open` always counts; what changes that cleans it at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from heapq import heappop, heappush

from mains.kernel.prefixes import Node
from mains.kernel.waiting import Waiting

AGED = 32
RISK_MS = 10_000
COLD = 64
_SLACK = 4_096

_Entry = tuple[int, int]  # level, arrival
_Heap = list[_Entry]


class Call:
    """A call that waits or is made. `nodes`: its prompt in the tree, root first; none while it is not indexed."""

    __slots__ = ("arrival", "by_floor", "charged", "end", "level", "nodes", "settled", "waiting")

    by_floor: bool | None  # its band was chosen by the floor; None: there was nothing to choose
    charged: int
    end: Node  # of its prompt
    settled: bool  # these four: once it is made

    def __init__(self, waiting: Waiting, arrival: int) -> None:
        self.waiting = waiting
        self.arrival = arrival
        self.level = 0
        self.nodes: Sequence[Node] = ()


def rank_of(node: Node, warm: bool) -> int:
    """The rank of calls whose prompt is kept up to this node: the lower, the better."""
    rank = COLD - 1 - node.bucket
    return rank if warm and node.parent is not None else rank + COLD


class Backlog:
    """Who waits, of one tenant in one band."""

    def __init__(self) -> None:
        self._calls: OrderedDict[int, Call] = OrderedDict()  # by arrival
        self._own: dict[Node, _Heap] = {}
        self._open: dict[Node, _Heap] = {}
        self._best: list[tuple[int, int, int]] = []  # level, rank, arrival
        self._deadlines: list[_Entry] = []
        self._choices = 0
        self._pushes = 0
        self._pushes_max = _SLACK

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def oldest(self) -> int:
        """The arrival of the call that has waited longest."""
        return next(iter(self._calls))

    def add(self, call: Call) -> None:
        """Put a call in its place. Its `nodes` and `level` stand."""
        self._calls[call.arrival] = call
        if call.waiting.deadline_ms:
            heappush(self._deadlines, (call.waiting.deadline_ms, call.arrival))
        self._place(call)
        self._tidy()

    def remove(self, call: Call) -> None:
        """Take a call out."""
        del self._calls[call.arrival]
        if self._calls:
            self._withdraw(call, call.level)
            self._tidy()
        else:
            self._clear()
            self._deadlines.clear()

    def promote(self, call: Call, level: int) -> None:
        """The program of a call has another level now."""
        before, call.level = call.level, level
        self._withdraw(call, before)
        self._place(call)
        self._tidy()

    def chosen(self) -> None:
        """The call that `head` named was taken."""
        self._choices += 1

    def head(self, now_ms: int) -> Call:
        """The call that is next."""
        if (self._choices + 1) % AGED == 0:
            return next(iter(self._calls.values()))
        deadlines = self._deadlines
        while deadlines:
            deadline_ms, arrival = deadlines[0]
            if arrival in self._calls:
                if deadline_ms - RISK_MS <= now_ms:
                    return self._calls[arrival]
                break
            heappop(deadlines)
        return self._calls[self._top()[2]]

    def rank(self) -> int:
        """The rank of its best call (age and deadlines aside)."""
        return self._top()[1]

    # what happens to the tree

    def opened(self, node: Node) -> None:
        """A node is kept now: it stands for itself, and no more within its parent."""
        if heap := self._own.get(node):
            self._rank(node, True, heap[0])
        if top := self._clean(self._open, node):
            self._rank(node, False, top)
        if node.parent is not None and (top := self._clean(self._open, node.parent)):
            self._rise(node.parent, top)
        self._tidy()

    def closed(self, node: Node) -> None:
        """A node is not kept any more: it stands within its parent again."""
        for heap in (self._own.get(node), self._open.get(node)):
            if heap:
                self._rise(node, heap[0])
        self._tidy()

    def resized(self, node: Node) -> None:
        """The bucket of a kept node is another."""
        if heap := self._own.get(node):
            self._rank(node, True, heap[0])
        if top := self._clean(self._open, node):
            self._rank(node, False, top)
        self._tidy()

    # places

    def _place(self, call: Call) -> None:
        entry, node = (call.level, call.arrival), call.nodes[-1]
        heap = self._own.setdefault(node, [])
        heappush(heap, entry)
        self._pushes += 1
        if heap[0] == entry:
            self._rise(node, entry, True)

    def _rise(self, node: Node, entry: _Entry, warm: bool = False) -> None:
        """`entry` may be the least of a node: let it be known above, as far as it is the least there."""
        while not node.kept:
            assert node.parent is not None
            node, warm = node.parent, False
            heap = self._open.setdefault(node, [])
            heappush(heap, entry)
            self._pushes += 1
            if heap[0] != entry:
                return
        self._rank(node, warm, entry)

    def _withdraw(self, call: Call, level: int) -> None:
        """Take an entry out wherever it was the least, and let the next one be known there."""
        entry, node = (level, call.arrival), call.nodes[-1]
        if self._own[node][0] != entry:
            return
        top, warm = self._clean(self._own, node), True
        while not node.kept:
            assert node.parent is not None
            node, warm = node.parent, False
            heap = self._open[node]
            if top is not None:
                heappush(heap, top)
                self._pushes += 1
            if heap[0] != entry:
                return
            top = self._clean(self._open, node)
        if top is not None:
            self._rank(node, warm, top)

    def _rank(self, node: Node, warm: bool, entry: _Entry) -> None:
        level, arrival = entry
        heappush(self._best, (level, rank_of(node, warm), arrival))
        self._pushes += 1

    def _clean(self, heaps: dict[Node, _Heap], node: Node) -> _Entry | None:
        """The least entry of a node's heap that counts."""
        heap = heaps.get(node)
        if heap is None:
            return None
        below = node.depth + 1
        while heap:
            call = self._calls.get(heap[0][1])
            if call is not None and call.level == heap[0][0] and _is_in(call.nodes, below):
                return heap[0]
            heappop(heap)
        del heaps[node]
        return None

    def _top(self) -> tuple[int, int, int]:
        """The least entry that counts."""
        best = self._best
        while not self._counts(*best[0]):
            heappop(best)
        return best[0]

    def _counts(self, level: int, rank: int, arrival: int) -> bool:
        call = self._calls.get(arrival)
        if call is None or call.level != level:
            return False
        nodes = call.nodes
        at = len(nodes) - 1
        while not nodes[at].kept:
            at -= 1
        return rank_of(nodes[at], at == len(nodes) - 1) == rank

    def _tidy(self) -> None:
        """When entries that do not count may be most of all: begin anew. What it costs was paid by as many pushes."""
        if self._pushes <= self._pushes_max:
            return
        self._clear()
        for call in self._calls.values():
            self._place(call)
        self._pushes_max = 4 * self._pushes + _SLACK

    def _clear(self) -> None:
        self._own.clear()
        self._open.clear()
        self._best.clear()
        self._pushes = 0


def _is_in(nodes: Sequence[Node], below: int) -> bool:
    """Whether a prompt ends above this depth, or nothing is kept from there on."""
    return len(nodes) == below or not nodes[below].kept
