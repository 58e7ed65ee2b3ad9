"""Retention: how ended processes are removed, and everything that was theirs is erased. Operations, and two readers.

    doomed(journal, pids)     ended processes and the ended trees below, children first; refused while any lives
    remove(tx, pids)          they are gone: from the process table, the keys, the ledger's accounts
    index(tx, most)           who names which page, noted for events that are not noted yet
    erase(tx, most)           contexts, events, holds, messages, and the pages that nobody else names; a part at a time
    erase_notes(tx, ...)      notes about the home that are older than the retention
    erase_forgotten(tx, ...)  the pages of notes that were forgotten
    erase_old(tx, ...)        what is left of notes that were forgotten before the retention
    begin_prune(tx)           when the home was last pruned
    due(journal, before_ms)   the processes that ended before a time and may be removed

Two steps, so that no commit is long: `remove` writes a row in `removed`, which `erase` works off; a crash between loses
nothing. Erased events leave a gap in the journal's chain: a row in `cut` says from where to where, with the checksum of
the last, so that the chain can still be verified; runs that touch become one, so that there are never more runs than
events are left. What an account had goes to the `gone_*` of all above it, and what its
holds had to `tally`: sums, meter and statements stay what they were.

A page is erased when no event of another process names it (`page_use`) and no page that is kept does (`page_part`).
`page_use` is an index of the journal that is made late, up to the event `uses_seq`: a turn would pay for it at every
event (measured: 20 % of its CPU), and only an erasure reads it, which brings it up to date first.
A child is kept as long as its parent lives, which may still read its result. Nobody waits for a fork, or for the run of
a schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from mains.errors import ConfigError, JournalError, KernelPanic, NotFoundError, UsageError
from mains.kernel import limits, notes
from mains.kernel.event import Asked, Removed, Sent, named
from mains.kernel.inquired import Sampled
from mains.kernel.journal import Journal
from mains.kernel.process import Process, State
from mains.kernel.tx import Row, Tx, decode_event

_READ = 1_000  # rows at once
_INDEXED_PER_ERASED = 10  # an event is noted in a tenth of the time that it takes to erase one
_UNAWAITED = ("", "schedule")  # who was spawned so has no parent that may read its result: forks, runs of a schedule


def doomed(journal: Journal, pids: Sequence[int]) -> list[int]:
    """These processes and all below them, children before parents. Raises NotFoundError, UsageError."""
    if len(pids) > _READ:
        raise UsageError(f"{len(pids):,} processes in one order, of {_READ:,} at most")
    found: set[int] = set()
    with journal.snapshot():
        asked = [_ended_process(journal, pid) for pid in pids]
        for p in asked:
            found |= {p.pid, *(row[0] for row in journal.rows("process_tree_below", p.pid))}
            for (alive,) in journal.rows("process_alive_below", p.pid):
                hint = f"`mains kill {alive}` first"
                raise UsageError(f"process {alive}, below process {p.pid}, has not ended", hint=hint)
        for p in asked:
            if p.parent not in found and _awaited(journal.rows, p):
                raise UsageError(
                    f"process {p.parent}, the parent of process {p.pid}, lives and may still read its result",
                    hint=f"remove it when process {p.parent} has ended",
                )
    return sorted(found, reverse=True)  # a child has a higher number than its parent


def _ended_process(journal: Journal, pid: int) -> Process:
    p = journal.process(pid)
    if p is None:
        raise NotFoundError(f"there is no process {pid}", hint="`mains ps --all` lists every process")
    if p.state is not State.EXITED:
        raise UsageError(f"process {pid} has not ended: it is {p.state.value}", hint=f"`mains kill {pid}` first")
    return p


def remove(tx: Tx, pids: Iterable[int]) -> list[int]:
    """Take these out of the process table, children first; those that may (still) be removed."""
    removed = []
    for pid in pids:
        p = tx.process(pid)
        if p is None or p.state is not State.EXITED or _awaited(tx.run, p) or tx.one("process_child", pid):
            continue
        _remove(tx, p)
        removed.append(pid)
    return removed


def _awaited(run: Callable[..., Iterable[Row]], p: Process) -> bool:
    """Whether the parent lives and may read the result. `run` gives the rows of a named query."""
    if not p.parent or p.spawned_by in _UNAWAITED:
        return False
    return any(state != State.EXITED for (state,) in run("process_state", p.parent))


def _remove(tx: Tx, p: Process) -> None:
    row = tx.one("account_sums", p.pid)
    if row is None or any(row[8:]):
        raise KernelPanic(f"process {p.pid} has ended and its account is not settled: {row}")
    own = [had - gone for had, gone in zip(row[:4], row[4:8], strict=True)]  # who was below it is carried already
    for account in p.accounts[1:]:
        tx.run("account_carry", *own, account)
    for unit, kind, *_ in limits.budgets_of(tx, p.pid):
        tx.run("budget_delete", p.pid, unit, kind)
        tx.run("used_delete", p.pid, unit, kind)
    limits.forget(tx, p.pid)
    tx.run("account_delete", p.pid)
    if p.key:
        tx.run("key_delete", p.key, p.pid)
    tx.run("process_delete", p.pid)
    tx.run("checkpoint_delete", p.pid)
    tx.run("counter_raise", "pid_last", p.pid)  # a number is never given twice
    tx.run("removed_insert", p.pid)
    tx.append(
        0,
        Removed(
            process=p.pid,
            program=p.program,
            turns=p.turn,
            input_tokens=p.input_tokens,
            output_tokens=p.output_tokens,
            exit_code=p.exit_code or 0,
        ),
    )


def index(tx: Tx, most: int) -> bool:
    """Note for at most `most` events which pages they name; whether there are more."""
    rows = tx.run("event_after", _indexed(tx.one("counter_get", "uses_seq")), most).fetchall()
    if rows:
        uses = {(page, pid) for _, _, pid, _, body in rows for page in named(decode_event(body))}
        tx.many("page_use_insert", sorted(uses))
        tx.run("counter_put", "uses_seq", rows[-1][0])
    return len(rows) == most


def _indexed(row: Row | None) -> int:
    """The last event that `page_use` covers."""
    return int(row[0]) if row else 0


def erase(tx: Tx, most: int) -> bool:
    """Erase at most `most` rows (and what hangs on them) of processes that were removed; whether there is more."""
    row = tx.one("removed_next")
    if row is None:
        return False
    if index(tx, most * _INDEXED_PER_ERASED):
        return True
    pid: int = row[0]
    if tx.process(pid) is not None:
        raise ConfigError(f"process {pid} is to be erased, but it was not removed", hint="`mains journal verify`")
    left = most - tx.run("context_erase", pid, pid, most).rowcount
    if left <= 0:
        return True
    events = tx.run("event_first_of", pid, left).fetchall()
    for seq, body, crc in events:
        _erase(tx, pid, body)
        _cut(tx, seq, crc)
    if len(events) < left:
        for held in notes.of_process(tx.rows, pid):
            _erase_note(tx, held)
        tx.run("cover_delete", pid)
        tx.run("removed_delete", pid)
    return tx.one("removed_next") is not None


def _erase(tx: Tx, pid: int, body: bytes) -> None:
    """What an event of a removed process left elsewhere."""
    try:
        event = decode_event(body)
    except JournalError as error:  # a damaged row is no reason to halt: nothing new depends on it
        raise ConfigError(f"process {pid} cannot be erased: {error}", hint="`mains journal verify`") from error
    match event:
        case Asked() | Sampled():
            tx.run("hold_tally", event.asking.hold)
            tx.run("entry_delete", event.asking.hold)
            tx.run("hold_delete", event.asking.hold)
        case Sent():
            tx.run("message_delete", event.message, pid)
        case _:
            pass
    for page in named(event):
        tx.run("page_use_delete", page, pid)
        _drop(tx, page)


def _drop(tx: Tx, page: str) -> None:
    """Erase a page that nobody names, and then those that only it named."""
    if tx.one("page_named", page, page, page):
        return
    parts = tx.run("page_parts", page).fetchall()
    tx.run("page_delete", page)
    tx.run("page_part_delete", page)
    for (part,) in parts:
        _drop(tx, part)


def erase_forgotten(tx: Tx, most: int) -> bool:
    """Erase the pages of at most `most` notes that were forgotten or replaced; whether there may be more."""
    rows = tx.rows("note_to_erase", most)
    if rows and index(tx, most * _INDEXED_PER_ERASED):
        return True
    for number, owner, page in rows:
        tx.run("note_erased", number, owner)
        _drop(tx, page)
    return len(rows) == most


def erase_old(tx: Tx, before_ms: int, most: int) -> bool:
    """Erase at most `most` notes of programs and users that ended before a time; whether there may be more."""
    rows = tx.rows("note_old", tx.seq, before_ms, most)
    for row in rows:
        _erase_note(tx, notes.Note(*row))
    return len(rows) == most


def _erase_note(tx: Tx, held: notes.Note) -> None:
    """Erase a note with its events. The event that replaced it is another note's."""
    tx.run("note_delete", held.id, held.owner)
    for seq in (held.seq, 0 if held.replaced_by else held.ended):
        if seq and (row := tx.one("event_crc", seq)):
            _cut(tx, seq, row[0])
    _drop(tx, held.page)


def _cut(tx: Tx, seq: int, crc: int) -> None:
    """Erase an event, and let its place join the runs beside it."""
    first, last = seq, seq
    before, after = tx.one("cut_until", seq), tx.one("cut_from", seq + 1)
    if before and before[1] == seq - 1:
        first = before[0]
    if after:
        last, crc = after
        tx.run("cut_delete", seq + 1)
    tx.run("cut_put", first, last, crc)
    tx.run("event_delete", seq)


def begin_prune(tx: Tx) -> None:
    """Note when the home was pruned: the next time is a day later, even if this one is cut off."""
    tx.run("counter_put", "pruned_ms", tx.now_ms)


def erase_notes(tx: Tx, before_ms: int, most: int) -> bool:
    """Erase at most `most` notes about the home that are older; whether there may be more. The last event stays."""
    notes = tx.run("event_notes", tx.seq, before_ms, most).fetchall()
    for seq, crc in notes:
        _cut(tx, seq, crc)
    return len(notes) == most


def orphaned(journal: Journal) -> list[str]:
    """The pages that nobody names. There should be none."""
    with journal.snapshot():
        late: set[str] = set()
        after = _indexed(next(iter(journal.rows("counter_get", "uses_seq")), None))
        while rows := journal.rows("event_after", after, _READ):
            late.update(page for *_, body in rows for page in named(decode_event(body)))
            after = rows[-1][0]
        return [page for (page,) in journal.scan("page_orphans") if page not in late]


def orphans(tx: Tx) -> int:
    """Erase pages that nobody names (there should be none); how many there were."""
    while index(tx, _READ):
        pass
    found = tx.run("page_orphans").fetchall()
    for (page,) in found:
        _drop(tx, page)
    return len(found)


def due(journal: Journal, before_ms: int) -> list[int]:
    """Who ended before a time, with everybody below, and is awaited by nobody; children before parents."""
    with journal.snapshot():
        ended = _ended(journal, before_ms)
        kept: set[int] = set()
        for pid in sorted(ended, reverse=True):
            parent, awaited = ended[pid]
            children = [row[0] for row in journal.rows("process_child_pids", pid)]
            state = journal.rows("process_state", parent) if awaited and parent not in ended else []
            lives = bool(state) and state[0][0] != State.EXITED
            if lives or any(child not in ended or child in kept for child in children):
                kept.add(pid)
        return sorted(ended.keys() - kept, reverse=True)


def _ended(journal: Journal, before_ms: int) -> dict[int, tuple[int, bool]]:
    """Who ended before a time: pid -> its parent, and whether that may read its result."""
    found: dict[int, tuple[int, bool]] = {}
    after = 0
    while rows := journal.rows("process_ended", after, _READ):
        found |= {pid: (parent, by not in _UNAWAITED) for pid, parent, by, _, at_ms in rows if at_ms < before_ms}
        after = rows[-1][3]
    return found
