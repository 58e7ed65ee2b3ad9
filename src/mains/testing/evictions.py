"""What the witness knows of evictions: which pages stand in a frame, worked out position by position.

It shares no code with the kernel's page table: for each position the last eviction of it holds, and that is all.
"""

from __future__ import annotations

import msgspec

from mains.kernel.event import Evicted
from mains.kernel.ports import Message
from mains.kernel.process import Asking
from mains.testing.reader import Reader
from mains.testing.story import Broke

STAYS = "the opening and what is pinned are in every frame, a call is never without its result"
_message = msgspec.json.Decoder(Message)
_Gone = tuple[int, int, list[Message]]


class Evictions:
    """What has left the frames of all processes."""

    def __init__(self) -> None:
        self._gone: dict[int, list[_Gone]] = {}

    def born(self, pid: int, source: int, until: int) -> None:
        """A process begins with the evictions of its source (0: it has none) among the positions that it has of it."""
        self._gone[pid] = [gone for gone in self._gone.get(source, ()) if gone[1] <= until]

    def evicted(self, seq: int, pid: int, event: Evicted, reader: Reader) -> None:
        """Pages stand in place of others from here on. Raises Broke."""
        for placed in event.covers:
            rows = [reader.one("page", page) for page in placed.pages]
            if not rows or None in rows or placed.first < 0 or placed.until <= placed.first:
                raise Broke(STAYS, f"event {seq}: process {pid}: {placed} cannot stand in a frame")
            self._gone[pid].append((placed.first, placed.until, [_message.decode(row[0]) for row in rows if row]))

    def frame(self, pid: int, messages: list[Message], opening: int) -> list[Message]:
        """What a model must be shown of this context. Raises Broke when that is no whole frame."""
        shown, drawn = messages[:opening], None
        for position, message in enumerate(messages[opening:]):
            last = next((gone for gone in reversed(self._gone[pid]) if gone[0] <= position < gone[1]), None)
            if last is None:
                shown.append(message)
            elif last is not drawn:
                shown += last[2]
            drawn = last
            if last is not None and message.kind == "rule" and message not in last[2]:
                raise Broke(STAYS, f"process {pid}: the rule at position {position} has left the frame")
        _check_pairs(pid, shown)
        return shown

    def asked(self, pid: int, asking: Asking, messages: list[Message], opening: int) -> list[Message]:
        """What the model is shown in this call, but for what asks for a summary."""
        if asking.summary is None:
            return self.frame(pid, messages, opening)
        return self.frame(pid, messages[: opening + asking.summary.until], opening)


def _check_pairs(pid: int, shown: list[Message]) -> None:
    due: list[str] = []
    for message in shown:
        if message.role == "tool" and due[:1] == [message.call_id]:
            del due[0]
        elif message.role == "tool" or due:
            raise Broke(STAYS, f"process {pid}: in its frame {due or message.call_id} and the result are apart")
        due += [call.id for call in message.calls]
