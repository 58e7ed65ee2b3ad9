"""Exec: a process gets another image - program, tools, inputs - and keeps its context, budget, children and mailbox.

The image is planned at once and taken when no turn is open: right away, or before the next model call. Until then the
old program goes on, so that a call it has made is answered to it. Only the opening of the context changes; pages are
immutable, and a fork made before keeps the old one.
"""

from __future__ import annotations

from mains.kernel import pages, timers
from mains.kernel.cover import chain, seed
from mains.kernel.event import Exec, Execed
from mains.kernel.process import Image, Process, State
from mains.kernel.tx import Tx


def plan(tx: Tx, p: Process, image: Image) -> Process:
    """Give `p` this image: now, when it is at rest between two turns, else at its next one."""
    after = tx.happen(p, Exec(image=image))
    whole = after.asking is None and not after.calls
    return take(tx, after) if whole and after.state is not State.READY else after  # a READY one is in a queue: `begin`


def take(tx: Tx, p: Process) -> Process:
    """Take the planned image. No turn may be open."""
    image = p.next
    assert image is not None
    kept = [place.page for place in pages.frame(tx.rows, p) if place.position >= 0]
    pages.open_with(tx, p.pid, image.opening)
    frame = chain(seed(image.program, image.tools), [*image.opening, *kept])
    slot_ms = next(image.schedule.slots(tx.now_ms), 0) if image.schedule else 0
    if slot_ms:
        timers.arm(tx, slot_ms, p.pid, timers.SLOT)
    return tx.happen(p, Execed(slot_ms=slot_ms, frame=frame))


def is_new(p: Process, image: Image) -> bool:
    """Whether `image` differs from what `p` runs, or is about to run."""
    if p.next is not None:
        return image != p.next
    now = (p.program, p.tree, p.inputs, p.tools, p.above, p.schedule)
    return now != (image.program, image.tree, image.inputs, image.tools, image.above, image.schedule)
