"""Programs by the service that they have had: who has had little goes first (PLAS of Autellix, 2025). Pure.

A program here is a process tree, named by its root. Its attained service is what its calls were charged, children's
included, counted when they end. Most programs are short, and nobody knows which: whoever has had little is most likely
to end soon. Levels are powers of four from 4,096 weighted tokens, so that a program changes its level a few times in
its life, and neighbours are taken by arrival and not by turns.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from mains.kernel.backlog import Call

IDLE_MAX = 4_096


class Attained:
    """One program: its service, and its calls that wait."""

    __slots__ = ("flying", "level", "tokens", "waiting")

    def __init__(self) -> None:
        self.tokens = 0
        self.level = 0
        self.flying = 0
        self.waiting: dict[int, Call] = {}  # by arrival


class Programs:
    """All programs that wait or run, and those that did lately (`IDLE_MAX`)."""

    def __init__(self) -> None:
        self._active: dict[int, Attained] = {}
        self._idle: OrderedDict[int, Attained] = OrderedDict()

    def waits(self, program: int, call: Call) -> None:
        """A call of it waits; the call gets its level."""
        each = self._of(program)
        each.waiting[call.arrival] = call
        call.level = each.level

    def gone(self, program: int, call: Call) -> None:
        """A call of it waits no more."""
        each = self._active[program]
        del each.waiting[call.arrival]
        self._rest(program, each)

    def leaves(self, program: int, call: Call) -> None:
        """A call of it that waited is made."""
        each = self._active[program]
        del each.waiting[call.arrival]
        each.flying += 1

    def ended(self, program: int, tokens: int) -> tuple[int, Sequence[Call]]:
        """A call of it has ended and was charged this. Its level, and its waiting calls when that is a new one."""
        each = self._active[program]
        each.flying -= 1
        each.tokens += tokens
        level = level_of(each.tokens)
        changed: Sequence[Call] = ()
        if level != each.level:
            changed, each.level = list(each.waiting.values()), level
        self._rest(program, each)
        return level, changed

    def level(self, program: int) -> int:
        """The level of a program."""
        each = self._active.get(program) or self._idle.get(program)
        return each.level if each else 0

    def _of(self, program: int) -> Attained:
        each = self._active.get(program)
        if each is None:
            each = self._active[program] = self._idle.pop(program) if program in self._idle else Attained()
        return each

    def _rest(self, program: int, each: Attained) -> None:
        if each.flying or each.waiting:
            return
        del self._active[program]
        self._idle[program] = each
        if len(self._idle) > IDLE_MAX:
            self._idle.popitem(last=False)


def level_of(tokens: int) -> int:
    """0 below 4,096 weighted tokens, one more for each factor of four."""
    return ((tokens >> 12).bit_length() + 1) // 2
