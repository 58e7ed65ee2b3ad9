"""Evictions on order, for tests of what is seen of them: pages take the place of positions when a message arrives."""

from __future__ import annotations

import msgspec

from mains.kernel import orders, pages
from mains.kernel.context import tokens_of
from mains.kernel.desk import Desk
from mains.kernel.event import Evicted, Placed
from mains.kernel.ports import Message
from mains.kernel.process import replace
from mains.kernel.tx import Tx


async def evict(desk: Desk, pid: int, text: str, *covers: tuple[int, int, tuple[Message, ...]]) -> None:
    """Send `text`, and before the model is called let these pages stand in place of (first, until)."""
    kernel = desk._kernel

    def op(tx: Tx) -> None:
        orders.send(tx, kernel.world, pid, "a person", text, "")
        p = tx.process(pid)
        assert p is not None
        placed = tuple(Placed(a, b, tuple(pages.put_message(tx, each) for each in more)) for a, b, more in covers)
        for each in placed:
            tx.run("cover_insert", pid, each.first, tx.seq + 1, each.until, " ".join(each.pages))
        frame = pages.frame(tx.rows, replace(p, covers=p.covers + 1))
        tokens = sum(tokens_of(msgspec.json.decode(place.data, type=Message)) for place in frame)
        hashed = pages.frame_hash(p, [place.page for place in frame])
        tx.happen(p, Evicted(placed, tokens - p.frame_tokens, hashed, reserve_tokens=p.reserve_tokens))

    await kernel.order(op, "evict")
