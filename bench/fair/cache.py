"""The engine's prefix cache: bounded in tokens; what was used longest ago goes first, from its end.

An entry is the text that all agents of a program open with, or what one agent has said and read since. The tokens of a
call that runs cannot go. That is how engines with paged KV behave, in pieces of one token instead of a block.
"""

from __future__ import annotations

from collections import OrderedDict

from bench.fair.call import Call


class PrefixCache:
    """Entries in the order of their last use."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[str | int, int] = OrderedDict()
        self._running: dict[str | int, int] = {}  # entry -> calls that run on it
        self._held = 0

    def hit(self, call: Call) -> int:
        """How many of the call's first tokens need not be read again."""
        opening = call.opening
        have = min(self._entries.get(call.agent.program, 0), opening) if opening else 0
        if have < opening:
            return have
        return min(opening + self._entries.get(call.agent.number, 0), call.reusable)

    def begin(self, call: Call) -> int:
        """A call gets its slot: what it hits is returned, and room is made for all that it reads and writes."""
        hit = self.hit(call)
        opening = call.opening
        for key in self._keys(call):
            self._running[key] = self._running.get(key, 0) + 1
        if opening:
            self._keep(call.agent.program, max(opening, self._entries.get(call.agent.program, 0)))
        self._keep(call.agent.number, call.step.input_tokens + call.step.output_tokens - opening)
        self._evict()
        return hit

    def end(self, call: Call) -> None:
        """The call's tokens stay as long as there is room."""
        for key in self._keys(call):
            self._running[key] -= 1
            if not self._running[key]:
                del self._running[key]
            self._entries.move_to_end(key)
        self._evict()

    def _keys(self, call: Call) -> tuple[str | int, ...]:
        return (call.agent.program, call.agent.number) if call.opening else (call.agent.number,)

    def _keep(self, key: str | int, tokens: int) -> None:
        self._held += tokens - self._entries.get(key, 0)
        self._entries[key] = tokens
        self._entries.move_to_end(key)

    def _evict(self) -> None:
        excess = self._held - self._capacity
        if excess <= 0:
            return
        gone = []
        for key, tokens in self._entries.items():
            if key in self._running:
                continue
            cut = min(excess, tokens)
            self._held -= cut
            excess -= cut
            if cut == tokens:
                gone.append(key)
            else:
                self._entries[key] = tokens - cut
            if not excess:
                break
        for key in gone:
            del self._entries[key]
