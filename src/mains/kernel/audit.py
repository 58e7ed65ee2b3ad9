"""The audit: does the journal hold what it should? Readers; they change nothing.

    replay(journal)    from the last checkpoint: checksums, and the process table as the fold of the events
    verify(journal)    from the first event, and every page and context besides

Both give every fault as a sentence; an empty list when all is well.
"""

from __future__ import annotations

from mains.errors import JournalError, KernelPanic
from mains.kernel import pages
from mains.kernel.event import apply
from mains.kernel.journal import Journal
from mains.kernel.process import Process
from mains.kernel.tx import decode_event, decode_process, row_crc


def replay(journal: Journal) -> list[str]:
    """Faults since the last checkpoint. A kernel that was killed boots only when there are none."""
    start = journal.checkpoint_seq()
    rows = journal.rows("event_crc", start)
    fold = _Fold(journal, start, rows[0][0] if rows else 0)
    return fold.run()


def verify(journal: Journal) -> list[str]:
    """Faults of the whole journal, of the page store and of the contexts."""
    with journal.snapshot():
        return _Fold(journal, 0, 0).run() + pages.verify(journal) + _verify_contexts(journal)


class _Fold:
    """Folds the events after `start` over the checkpoint at `start`, and compares."""

    def __init__(self, journal: Journal, start: int, crc: int) -> None:
        self._journal = journal
        self._start = start
        self._crc = crc
        self._table: dict[int, Process | None] = {}
        self._faults: list[str] = []

    def run(self) -> list[str]:
        last = self._start
        for seq, at_ms, pid, kind, body, stored in self._journal.scan("event_scan", self._start):
            if seq != last + 1:
                self._faults.append(f"event {seq}: follows {last}; {seq - last - 1} rows are missing")
            crc = row_crc(self._crc, seq, at_ms, pid, kind, body)
            self._crc, last = stored, seq
            if crc != stored:
                self._faults.append(f"event {seq}: its checksum does not fit")
            elif pid:
                self._apply(seq, pid, body)
        self._compare()
        return self._faults

    def _apply(self, seq: int, pid: int, body: bytes) -> None:
        if pid not in self._table:
            self._table[pid] = self._at_checkpoint(pid)
        try:
            self._table[pid] = apply(self._table[pid], decode_event(body))
        except (JournalError, KernelPanic) as error:
            self._faults.append(f"event {seq}: {error}")

    def _at_checkpoint(self, pid: int) -> Process | None:
        rows = self._journal.rows("checkpoint_get", pid) if self._start else []
        return decode_process(rows[0][0]) if rows else None

    def _compare(self) -> None:
        for p in self._journal.processes("process_changed", self._start):
            if self._table.pop(p.pid, None) != p:
                self._faults.append(f"process {p.pid}: the table does not agree with its events")
        self._faults += [f"process {pid}: has events, but the table does not know them" for pid in self._table]


def _verify_contexts(journal: Journal) -> list[str]:
    counts = {pid: tuple(rest) for pid, *rest in journal.scan("context_counts")}
    return [
        f"process {p.pid}: its context has {counts.get(p.pid, (0,))[0]} pages, its record says {p.length}"
        for p in journal.processes("process_all")
        if counts.get(p.pid) != (p.length, 0, p.length - 1)
    ]
