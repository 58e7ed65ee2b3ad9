"""Mailboxes as a witness sees them: each message once, none lost, read in order and exactly once."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import msgspec

from mains.kernel.ports import Message
from mains.kernel.process import CallState, Process, State
from mains.testing.reader import Reader
from mains.testing.story import Broke

MAIL = "a message is kept once, and read once, in order"


class Letters:
    """Checks the mailbox of a process against what its context shows."""

    def __init__(self) -> None:
        self._inherited: dict[int, int] = {}  # messages that a process was born with

    def born(self, pid: int, length: int) -> None:
        """A process begins with so many messages in its context: what they tell was read by another."""
        self._inherited[pid] = length

    def reborn(self, pid: int, more: int) -> None:
        """The opening of a context has become longer (or shorter) by so many messages."""
        self._inherited[pid] += more

    def look(self, p: Process, context: list[Message], reader: Reader) -> None:
        """Compare mailbox and context of a process. Raises Broke."""
        rows = reader.rows("messages", p.pid)
        if not rows and not p.mail:
            return
        keys = [key for _, _, _, key, _ in rows if key]
        if len(keys) != len(set(keys)):
            raise Broke(MAIL, f"process {p.pid}: a key stands twice in its mailbox: {keys}")
        unread = sum(not consumed for *_, consumed in rows)
        if unread != p.mail:
            raise Broke(MAIL, f"process {p.pid}: {unread} messages are unread, its record says {p.mail}")
        taken = [self._text(reader, page) for _, _, page, _, consumed in rows if consumed]
        if any(a[-1] < b[-1] for a, b in pairwise(rows)):
            raise Broke(MAIL, f"process {p.pid}: a message was taken before an older one")
        shown = list(_shown(context[self._inherited[p.pid] :]))
        pending = [c.page for c in p.calls if c.state is CallState.DONE and c.tool == "receive"]
        waiting = list(_shown(self._message(reader, page) for page in pending))
        if p.state is State.EXITED and taken[: len(shown)] == shown:
            return  # what a last, unfinished turn received is in no context
        if shown + sorted(waiting, key=lambda text: taken.index(text) if text in taken else -1) != taken:
            raise Broke(MAIL, f"process {p.pid}: {taken} were taken, its context shows {shown} and then {waiting}")

    def _message(self, reader: Reader, page: str) -> Message:
        row = reader.one("page", page)
        if row is None:
            raise Broke(MAIL, f"page {page[:8]} of a message does not exist")
        return msgspec.json.decode(row[0], type=Message)

    def _text(self, reader: Reader, page: str) -> str:
        return self._message(reader, page).text


def _shown(messages: Iterable[Message]) -> Iterable[str]:
    """The texts of messages from others, as a context shows them."""
    for message in messages:
        if message.role == "user" and message.name:
            yield message.text
        elif message.role == "tool" and message.name == "receive" and message.text.startswith("from "):
            yield message.text.partition(": ")[2]
