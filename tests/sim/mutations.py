"""Planted bugs: each replaces a function of the kernel by one with a classic mistake. The rules must catch each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from mains.kernel import calls, ledger, limits, mailbox, orders, pages, recovery
from mains.kernel.event import Woken
from mains.kernel.journal import _OF_ONE_OPERATION, Journal
from mains.kernel.main import Kernel
from mains.kernel.ports import Signal
from mains.kernel.process import Process, State, replace
from mains.kernel.tx import Tx, _encode
from mains.kernel.world import World

Plant = Callable[[], Any]


def act_before_the_intent_commits() -> Any:
    """The turn goes on as soon as its operation has run, and does not wait for the disk."""
    recorded = Kernel._recorded

    async def hasty(self: Kernel, op: Callable[[Tx], Any], name: str) -> Any:
        if name != "begin":
            return await recorded(self, op, name)
        ran: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def tell(tx: Tx) -> Any:
            value = op(tx)
            if not ran.done():
                ran.set_result(value)
            return value

        commit = self.journal.commit(tell, name)
        await asyncio.wait([ran, commit], return_when=asyncio.FIRST_COMPLETED)
        return ran.result() if ran.done() else await commit

    return mock.patch.object(Kernel, "_recorded", hasty)


def lose_a_void() -> Any:
    """A hold that is proven unused is never given back."""
    return mock.patch.object(ledger, "void", lambda tx, accounts, hold: None)


def acknowledge_before_commit() -> Any:
    """Callers get their answers when their operations have run, before the COMMIT."""
    run = Journal._run

    def hasty(self: Journal, tx: Tx, jobs: list[Any]) -> int:
        checkpointed = run(self, tx, jobs)
        for job in jobs:
            if job.bounded and job.error is None and not job.future.done():
                job.future.set_result(job.value)
        return checkpointed

    return mock.patch.object(Journal, "_run", hasty)


def wake_twice() -> Any:
    """A timer stays after it has fired, and so does what it waited for: the retry is woken again."""
    happen = Tx.happen

    def twice(self: Tx, process: Any, *events: Any) -> Any:
        if len(events) == 1 and isinstance(events[0], Woken):
            events = (events[0], events[0])
        return happen(self, process, *events)

    return mock.patch.object(Tx, "happen", twice)


def skip_a_savepoint() -> Any:
    """An operation that fails leaves behind what it had written."""

    def bare(self: Journal, tx: Tx, job: Any) -> None:
        try:
            job.value = job.op(tx)
        except _OF_ONE_OPERATION as refusal:
            job.error = refusal

    return mock.patch.object(Journal, "_savepoint", bare)


def forget_an_ancestors_limit() -> Any:
    """A hold looks at the process's own limit, and at nobody's above it."""
    of = limits.of
    return mock.patch.object(limits, "of", lambda tx, accounts, at_ms: of(tx, accounts[:1], at_ms))


def resurrect_an_exited_process() -> Any:
    """CONT to a tree wakes those in it that have ended."""
    signal = orders._signal

    def wake(tx: Tx, world: Any, pid: int, sign: Signal) -> bool:
        p = orders.present(tx, pid)
        if p.state is State.EXITED and sign is Signal.CONT:
            risen = replace(p, exit_code=None, state=State.READY, reason="")
            tx.run("process_update", risen.state, risen.reason, risen.quota, tx.seq, _encode(risen), pid)
            tx.changed.append(risen)
            return True
        return signal(tx, world, pid, sign)

    return mock.patch.object(orders, "_signal", wake)


def drop_a_message() -> Any:
    """Reading one message marks the next one as read, too."""
    consume = mailbox.consume

    def greedy(tx: Tx, mail: list[mailbox.Mail]) -> tuple[int, ...]:
        numbers = consume(tx, mail)
        if mail:
            tx.run("message_consume", mail[-1].id + 1)
        return numbers

    return mock.patch.object(mailbox, "consume", greedy)


def reorder_two_results() -> Any:
    """The results of a turn join the context in the order in which they came."""
    extend = pages.extend

    def backwards(tx: Tx, process: Process, names: Any) -> None:
        extend(tx, process, list(reversed(names)))

    as_calls_sees_it = mock.Mock(wraps=pages)
    as_calls_sees_it.extend = backwards
    return mock.patch.object(calls, "pages", as_calls_sees_it)


def collect_a_page_in_use() -> Any:
    """A collector that runs at boot takes a page that a context still names for garbage."""
    boot = recovery.boot

    def collect(tx: Tx, world: World) -> None:
        boot(tx, world)
        tx._execute(
            "DELETE FROM page WHERE hash = (SELECT page FROM context JOIN process USING (pid)"
            " WHERE process.state <> 'EXITED' ORDER BY pid DESC, position DESC LIMIT 1)"
        )

    return mock.patch.object(recovery, "boot", collect)


PLANTS: dict[str, Plant] = {
    plant.__name__: plant
    for plant in (
        act_before_the_intent_commits, lose_a_void, acknowledge_before_commit, wake_twice, skip_a_savepoint,
        forget_an_ancestors_limit, resurrect_an_exited_process, drop_a_message, reorder_two_results,
        collect_a_page_in_use,
    )
}  # fmt: skip


@contextmanager
def planted(name: str) -> Iterator[None]:
    """The kernel with one bug."""
    with PLANTS[name]():
        yield
