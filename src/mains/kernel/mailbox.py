"""Mailboxes: messages that wait for a process, at least once from the sender, consumed exactly in one transaction.

A message is put with an optional key (the same key again is the same message) and read in the transaction of the
event that consumes it, so that a crash either leaves it unread or shows it in the context.
"""

from __future__ import annotations

import msgspec

from mains.errors import LimitError, UsageError
from mains.kernel import pages
from mains.kernel.event import Sent
from mains.kernel.ports import Message
from mains.kernel.process import Process, State
from mains.kernel.tx import Tx
from mains.settings import Settings


class Mail(msgspec.Struct, frozen=True):
    """A message as it lies in a mailbox."""

    id: int
    sender: str
    page: str


def put(
    tx: Tx, to: Process, sender: str, text: str, key: str, settings: Settings, *, rule: bool = False
) -> tuple[int, Process]:
    """Put a message into the mailbox of `to`: its number, and the process after it. A `rule` never leaves its frames.

    Raises UsageError when the process has exited or is a schedule, or the message is too large, or it is a rule and the
    process reads its mail itself; and LimitError when the mailbox is full.
    """
    if key and (row := tx.one("message_by_key", to.pid, key)):
        return int(row[0]), to
    if to.state is State.EXITED:
        raise UsageError(f"process {to.pid} has exited and reads no more messages")
    if to.schedule is not None:
        raise UsageError(f"process {to.pid} is a schedule and reads no messages", hint="send them to one of its runs")
    if len(text.encode()) > settings.message_bytes_max:
        raise UsageError(f"the message is larger than {settings.message_bytes_max} bytes (message_bytes_max)")
    if to.mail >= settings.mailbox_messages_max and not to.idle:  # one that rests with mail (INT) waits for one more
        raise LimitError(f"the mailbox of process {to.pid} is full: {to.mail} unread (mailbox_messages_max)")
    if rule and to.reads_mail:
        told = f"process {to.pid} reads its messages itself (`receive`): none of them can be a rule"
        raise UsageError(told, hint="write the rule into its program, and `mains restart` it")
    page = pages.put_message(tx, Message(role="user", text=text, name=sender, kind="rule" if rule else ""))
    number = tx.run("message_insert", to.pid, sender, page, key).lastrowid
    assert number is not None
    return number, tx.happen(to, Sent(message=number, page=page, sender=sender))


def unread(tx: Tx, process: Process, most: int) -> list[Mail]:
    """The oldest unread messages of a process, at most `most`."""
    if not process.mail:
        return []
    return [Mail(*row) for row in tx.run("message_unread", process.pid, most)]


def consume(tx: Tx, mail: list[Mail]) -> tuple[int, ...]:
    """Mark messages as read; their numbers, which the event of this transaction must name."""
    tx.many("message_consume", [(m.id,) for m in mail])
    return tuple(m.id for m in mail)
