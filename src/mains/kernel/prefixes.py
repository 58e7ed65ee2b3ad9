"""Prefixes: what an engine probably still has of earlier prompts, as a radix tree for each tenant. Pure.

An edge is a segment of a prompt (its text has a name: we never look inside). A node is `kept` when the engine read it
lately; whoever is kept has a kept parent, so that a prompt matches from its beginning. The tree is bounded in tokens
and in nodes: the leaf that was used longest ago goes first. It is an estimate, and may be wrong: what an engine reports
at the end of a call corrects the charge. A tenant matches only its own prompts: caches are not shared between tenants.
"""

from __future__ import annotations

from collections.abc import Hashable
from heapq import heappop, heappush, heapreplace

from mains.kernel.waiting import Segment

NODES_MAX = 8_192
TOKENS_MAX = 1 << 20


class Node:
    """The end of a stretch of prompt. `total`: tokens from the beginning to here, when it was used last."""

    __slots__ = (
        "children", "depth", "held", "kept", "kept_children", "key", "parent", "queued", "tenant", "tokens", "total",
        "used",
    )  # fmt: skip

    def __init__(self, tenant: int, key: Hashable, parent: Node | None) -> None:
        self.tenant = tenant
        self.key = key
        self.parent = parent
        self.depth: int = parent.depth + 1 if parent else 0
        self.children: dict[Hashable, Node] = {}
        self.held = 0  # calls that wait or are in flight with a prompt that ends here
        self.kept = parent is None
        self.kept_children = 0
        self.tokens = 0
        self.total = 0
        self.used = 0  # the number of its last use
        self.queued = False  # it stands among the leaves

    @property
    def bucket(self) -> int:
        """The length of what is kept up to here."""
        return bucket_of(self.total)


class Change:
    """What a use of the tree found and changed. There is one of it a tree, and the next use writes over it.

    `cached`: tokens of the prompt that were kept before; nodes that are kept now, that are no more, and whose bucket is
    another.
    """

    __slots__ = ("cached", "closed", "opened", "resized")

    def __init__(self) -> None:
        self.cached = 0
        self.opened: list[Node] = []
        self.closed: list[Node] = []
        self.resized: list[Node] = []

    def __bool__(self) -> bool:
        return bool(self.opened or self.closed or self.resized)

    def begin(self) -> None:
        """A use begins."""
        self.cached = 0
        if self:
            self.opened, self.closed, self.resized = [], [], []


class Prefixes:
    """The tree. `tokens_max` and `nodes_max` bound what is kept (one prompt alone may be more)."""

    def __init__(self, tokens_max: int = TOKENS_MAX, nodes_max: int = NODES_MAX) -> None:
        self._tokens_max = tokens_max
        self._nodes_max = nodes_max
        self._roots: dict[int, Node] = {}
        self._leaves: list[tuple[int, int, Node]] = []  # a heap of (use, depth, leaf); a later use is seen at the top
        self.change = Change()  # what the last use did
        self._uses = 0
        self.tokens = 0
        self.nodes = 0  # that are kept

    def matched(self, tenant: int, prefix: tuple[Segment, ...]) -> int:
        """How many tokens of this prompt are kept. Looking keeps nothing."""
        node, tokens = self._roots.get(tenant), 0
        for key, length in prefix:
            node = node.children.get(key) if node else None
            if node is None or not node.kept:
                break
            if node.tokens < length:
                return tokens + node.tokens
            tokens += length
        return tokens

    def hold(self, tenant: int, prefix: tuple[Segment, ...]) -> list[Node]:
        """The nodes of a prompt that waits, root first; they stay until `drop`."""
        nodes = self._path(tenant, prefix)
        nodes[-1].held += 1
        return nodes

    def drop(self, end: Node) -> None:
        """A prompt waits no more, or is in flight no more."""
        end.held -= 1
        self._prune(end)

    def use(self, tenant: int, prefix: tuple[Segment, ...]) -> Node:
        """The engine reads this prompt, and keeps it: its end, which stays until `drop`. `change` says the rest."""
        self._uses += 1
        change = self.change
        change.begin()
        nodes = self._path(tenant, prefix)
        total, matching = 0, True
        for place, (_, length) in enumerate(prefix, 1):
            node = nodes[place]
            if matching:
                change.cached += node.tokens if node.tokens < length else length
                matching = node.tokens >= length and node.kept
            total += length
            before = node.total
            self.tokens += length - node.tokens
            node.tokens, node.total, node.used = length, total, self._uses
            if not node.kept:
                self._open(node)
                change.opened.append(node)
            elif before != total and bucket_of(before) != bucket_of(total):
                change.resized.append(node)
        end = nodes[-1]
        end.held += 1
        if not end.queued and not end.kept_children and end.parent is not None:
            self._queue(end)
        if self.tokens > self._tokens_max or self.nodes > self._nodes_max:
            self._bound(end)
        return end

    def grow(self, end: Node, tokens: int) -> None:
        """An engine keeps what it has made, too: the last stretch of a prompt that is kept has `tokens` now."""
        self.change.begin()
        if not end.kept or end.parent is None:
            return
        more, before = tokens - end.tokens, end.total
        self.tokens += more
        end.tokens, end.total = tokens, before + more
        if bucket_of(before) != bucket_of(end.total):
            self.change.resized.append(end)
        if self.tokens > self._tokens_max:
            self._bound(end)

    def _bound(self, end: Node) -> None:
        """Forget the leaves that were used longest ago, but not the prompt that is at hand."""
        closed = self.change.closed
        while (self.tokens > self._tokens_max or self.nodes > self._nodes_max) and self._leaves:
            used, depth, node = self._leaves[0]
            if node.kept_children:
                heappop(self._leaves)
                node.queued = False
            elif node.used != used:
                heapreplace(self._leaves, (node.used, depth, node))
            elif node is end:
                break
            else:
                heappop(self._leaves)
                node.queued = False
                self._close(node)
                closed.append(node)
        for node in closed:
            self._prune(node)

    def _queue(self, leaf: Node) -> None:
        leaf.queued = True
        heappush(self._leaves, (leaf.used, leaf.depth, leaf))

    def _path(self, tenant: int, prefix: tuple[Segment, ...]) -> list[Node]:
        node = self._roots.get(tenant)
        if node is None:
            node = self._roots[tenant] = Node(tenant, None, None)
        nodes = [node]
        for key, _ in prefix:
            child = node.children.get(key)
            if child is None:
                child = node.children[key] = Node(tenant, key, node)
            nodes.append(child)
            node = child
        return nodes

    def _open(self, node: Node) -> None:
        assert node.parent is not None
        node.kept = True
        node.parent.kept_children += 1
        self.nodes += 1

    def _close(self, node: Node) -> None:
        """Keep a leaf no more."""
        parent = node.parent
        assert parent is not None
        self.tokens -= node.tokens
        self.nodes -= 1
        node.kept, node.tokens, node.total = False, 0, 0
        parent.kept_children -= 1
        if not parent.kept_children and parent.parent is not None and not parent.queued:
            self._queue(parent)

    def _prune(self, node: Node) -> None:
        """Forget nodes that nobody needs, from here up."""
        while not (node.held or node.children):
            if node.parent is None:
                self._roots.pop(node.tenant, None)
                return
            if node.kept or node.parent.children.get(node.key) is not node:  # or it is forgotten already
                return
            del node.parent.children[node.key]
            node = node.parent


def bucket_of(tokens: int) -> int:
    """A length in powers of two from 256 tokens: 0 is less than that."""
    return (tokens >> 8).bit_length()
