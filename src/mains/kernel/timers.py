"""Timers: rows that wake a process at a time. A sleeping process costs a row and no memory.

A timer names a process and a call (`RETRY`: its model call is made again; `SLOT`: its schedule looks again; `ROOM`:
there may be room for its hold). One that fires for a call that is over does nothing. Due times are wall-clock
milliseconds, compared with `<=`, so that a clock that jumps forward fires once.
"""

from __future__ import annotations

from mains.kernel.journal import Journal
from mains.kernel.tx import Tx

RETRY = ""
SLOT = "@"  # of a schedule; no call has this name
ROOM = "$"  # a window has ended, or an account was topped up
AT_ONCE = 0  # due since 1970: whatever the clock says
HOLD = "#"  # of a foreign call, whose number stands below zero in place of a pid


def arm(tx: Tx, due_ms: int, pid: int, call: str) -> None:
    """Wake process `pid` for `call` at `due_ms`."""
    tx.run("timer_insert", due_ms, pid, call)
    tx.armed_ms = due_ms if tx.armed_ms is None else min(tx.armed_ms, due_ms)


def take_due(tx: Tx, most: int) -> list[tuple[int, str]]:
    """Remove the timers that are due, at most `most`, oldest first: (pid, call) of each."""
    due = list(tx.run("timer_due", tx.now_ms, most))
    tx.many("timer_delete", due)
    return [(pid, call) for _, pid, call in due]


def disarm(tx: Tx, pid: int) -> None:
    """Remove every timer of a process."""
    tx.run("timer_delete_pid", pid)


def no_later(tx: Tx, call: str, due_ms: int) -> None:
    """Let every timer of this kind be due at `due_ms`, or before as it was."""
    tx.run("timer_no_later", due_ms, call, due_ms)


def next_due_ms(journal: Journal) -> int | None:
    """When the next timer is due."""
    rows = journal.rows("timer_next")
    return int(rows[0][0]) if rows else None
