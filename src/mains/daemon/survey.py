"""A survey: all that `mains top` shows, read at one moment and bounded by `survey_processes_max`. Reader only.

    survey(journal, engines, every, most) -> Survey

When more processes are there than that, those at work are taken first, then those that need a person, then those that
wait, and of each the newest. With `every`, ended ones are taken from among the newest `most` pids.
"""

from __future__ import annotations

import msgspec

from mains.kernel import limits
from mains.kernel.journal import Journal
from mains.kernel.ports import EngineState, ProcessView
from mains.kernel.process import Process, State
from mains.kernel.views import view

_URGENT_FIRST = (State.RUNNING, State.READY, State.STOPPED, State.NEW, State.WAITING)


class Survey(msgspec.Struct, frozen=True):
    """`seq` is the last event that it knows of; `states` counts every live process, also those that are left out;
    `tokens` is what the home was ever charged."""

    seq: int
    tokens: int
    states: dict[str, int]
    engines: list[EngineState]
    processes: list[ProcessView]


def survey(journal: Journal, engines: list[EngineState], *, every: bool, most: int) -> Survey:
    """Read it. Costs about 11 microseconds a process: 0.11 s for 10,000 (measured, 2 shared cores)."""
    with journal.snapshot():
        [(_, _, posted, overrun, *_)] = journal.rows("account_get", limits.HOME)
        found = _live(journal, most)
        if every:
            found += _ended(journal, most)[: most - len(found)]
        return Survey(
            seq=last_seq(journal),
            tokens=posted + overrun,
            states=dict(journal.rows("process_states")),
            engines=engines,
            processes=[view(p) for p in sorted(found, key=lambda p: p.pid)],
        )


def last_seq(journal: Journal) -> int:
    """The number of the last event."""
    return next((int(row[0]) for row in journal.rows("event_last")), 0)


def _live(journal: Journal, most: int) -> list[Process]:
    found: list[Process] = []
    for state in _URGENT_FIRST:
        if len(found) < most:
            found += journal.processes("process_newest_in", state, most - len(found))
    return found


def _ended(journal: Journal, most: int) -> list[Process]:
    """The newest first."""
    last = int(journal.rows("pid_last")[0][0])
    newest = journal.processes("process_above", max(0, last - most), most)
    return [p for p in reversed(newest) if p.state is State.EXITED]
