"""Prefixes: what an engine probably still has of earlier prompts, as a radix tree for each tenant. Pure.

An edge is a segment of a prompt (its text has a name: we never look inside). A node is `kept` when the engine read it
lately; whoever is kept has a kept parent, so that a prompt matches from its beginning. The tree is bounded in tokens
and in nodes: the leaf that was used longest ago goes first. It is an estimate, and may be wrong: what an engine reports
at the end of a call corrects the charge. A tenant matches only its own prompts: caches are not shared between tenants.
"""

from __future__ import annotations

from collections.abc import Hashable
from heapq import heapify, heappop, heappush

from mains.kernel.waiting import Segment

NODES_MAX = 8_192
TOKENS_MAX = 1 << 20


class Node:
    """The end of a stretch of prompt. `total`: tokens from the beginning to here, when it was used last."""

    __slots__ = (
        "children", "depth", "held", "kept", "kept_children", "key", "parent", "tenant", "tokens", "total", "used",
    )  # fmt: skip

    def __init__(self, tenant: int, key: Hashable, parent: Node | None) -> None:
        self.tenant = tenant
        self.key = key
        self.parent = parent
        self.depth: int = parent.depth + 1 if parent else 0
        self.children: dict[Hashable, Node] = {}
        self.held = 0  # calls that wait with a prompt that ends here
        self.kept = parent is None
        self.kept_children = 0
        self.tokens = 0
        self.total = 0
        self.used = 0  # the number of its last use

    @property
    def bucket(self) -> int:
        """The length of what is kept up to here, in powers of two from 256 tokens: 0 is less than that."""
        return (self.total >> 8).bit_length()


class Change:
    """What a use of the tree changed: nodes that are kept now, that are no more, and whose bucket is another."""

    __slots__ = ("closed", "opened", "resized")

    def __init__(self) -> None:
        self.opened: list[Node] = []
        self.closed: list[Node] = []
        self.resized: list[Node] = []

    def __bool__(self) -> bool:
        return bool(self.opened or self.closed or self.resized)


class Prefixes:
    """The tree. `tokens_max` and `nodes_max` bound what is kept (one prompt alone may be more)."""

    def __init__(self, tokens_max: int = TOKENS_MAX, nodes_max: int = NODES_MAX) -> None:
        self._tokens_max = tokens_max
        self._nodes_max = nodes_max
        self._roots: dict[int, Node] = {}
        self._leaves: list[tuple[int, int, Node]] = []  # a heap of (use, depth, leaf); one that was used since is old
        self._uses = 0
        self.tokens = 0
        self.nodes = 0  # that are kept

    def matched(self, tenant: int, prefix: tuple[Segment, ...]) -> int:
        """How many tokens of this prompt are kept."""
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

    def drop(self, nodes: list[Node]) -> None:
        """A prompt waits no more."""
        nodes[-1].held -= 1
        self._prune(nodes[-1])

    def use(self, tenant: int, prefix: tuple[Segment, ...], more: int = 0) -> Change:
        """The engine reads this prompt, and keeps it with `more` tokens behind it. What that changed."""
        change = Change()
        self._uses += 1
        nodes = self._path(tenant, prefix)
        total, last = 0, len(prefix) - 1
        for place, (_, length) in enumerate(prefix):
            node = nodes[place + 1]
            tokens = length + more if place == last else length
            total += tokens
            bucket = node.bucket
            self.tokens += tokens - node.tokens
            node.tokens, node.total, node.used = tokens, total, self._uses
            if not node.kept:
                self._open(node)
                change.opened.append(node)
            elif node.bucket != bucket:
                change.resized.append(node)
        end = nodes[-1]
        if end.parent is not None and not end.kept_children:
            heappush(self._leaves, (end.used, end.depth, end))
        self._bound(end, change.closed)
        for node in (*change.closed, end):
            self._prune(node)
        return change

    def _bound(self, end: Node, closed: list[Node]) -> None:
        """Forget the leaves that were used longest ago, but not the prompt that is read now."""
        while (self.tokens > self._tokens_max or self.nodes > self._nodes_max) and self._leaves:
            used, _, node = self._leaves[0]
            if node is end and used == end.used:
                break
            heappop(self._leaves)
            if _is_leaf(node, used):
                self._close(node)
                closed.append(node)
        if len(self._leaves) > 4 * self.nodes + 64:
            self._leaves = [(used, depth, node) for used, depth, node in self._leaves if _is_leaf(node, used)]
            heapify(self._leaves)

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
        if not parent.kept_children and parent.parent is not None:
            heappush(self._leaves, (parent.used, parent.depth, parent))

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


def _is_leaf(node: Node, used: int) -> bool:
    return node.kept and node.used == used and not node.kept_children
