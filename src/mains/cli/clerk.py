"""A clerk: gives orders to the daemon in a thread of its own, one after the other, so that a screen never waits."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from mains.daemon.client import Client
from mains.errors import MainsError

Order = Callable[[Client], None]
_ORDERS_MAX = 100


class Clerk:
    """`failed` is called, in the clerk's thread, with what an order raised; `done` after each order."""

    def __init__(self, client: Client, failed: Callable[[MainsError], None], done: Callable[[], None]) -> None:
        self._client = client
        self._failed = failed
        self._done = done
        self._orders: queue.Queue[Order | None] = queue.Queue(_ORDERS_MAX)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def give(self, order: Order) -> bool:
        """Have an order given; False when too many wait already."""
        try:
            self._orders.put_nowait(order)
        except queue.Full:
            return False
        return True

    def close(self, timeout_s: float) -> bool:
        """Wait until every order was given; False when the time was over before."""
        if not self._thread.is_alive():
            return True
        try:
            self._orders.put(None, timeout=timeout_s)
        except queue.Full:
            return False
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (order := self._orders.get()) is not None:
            try:
                order(self._client)
            except MainsError as error:
                self._failed(error)
            self._done()
