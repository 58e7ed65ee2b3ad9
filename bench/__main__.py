"""Run benchmarks: `python -m bench [NAME...] [--quick]`. Without names: the first eleven, in this order.

turns      full turns a second against a bare SQLite group commit
idle       memory of 100,000 idle processes, and how fast 1,000 of them wake
boot       boot with 10,000 processes, 1,000 of them cut off in the middle of a turn
start      `mains --help` and `import mains`
decide     a scheduling decision with 10,000 waiting calls
ledger     holds and settlements a second under limits of four accounts above the process
overshoot  200 processes on a small account, a bad engine, kill -9: no hold above a limit at any place in the journal
fairness   how far tenants drift apart under eight policies, adversaries beside them (a simulator)
completion how long agents take under eight policies, at several loads (the same simulator)
price      what a growing context costs through the planner and with what others do (recorded runs, replayed)
embedded   tokens a second through Mains against the same engine asked directly
kv         rounds of 16 processes on 2 slots of the embedded engine, with and without files (only when it is named)
policies   the order of four policies on the embedded engine, beside the simulator's (only when it is named)
recall     a search in the memory of one process in a home of 500,000 pages, beside FTS5 (only when it is named)
facts      400 turns in a frame of 8,000 tokens: what of 200 facts and 20 rules is left (only when it is named)
forks      a thousand forks of a process with 100,000 tokens (only when it is named)
bus        a granted, journalled call of a device beside the bare SDK call (only when it is named)
memory     a home of 10,000 processes with 50 pages; what indexing costs the turns (only when it is named)
soak       200 processes living on with faults: memory and descriptors (only when it is named; --minutes 60)

Against what users would pick instead; only when named, for they need the rivals' environment (`make bench-rivals`):

rivals     turns a second, CPU and bytes of a turn, over the same HTTP
kills      ten times `kill -9`: tools that ran twice, agents that were lost
waiting    memory of an agent that waits for the model
cap        50 agents that want 300 calls under a cap of 37: how many calls the upstream saw
"""

from __future__ import annotations

import argparse
import importlib
import sys

from bench import machine
from bench.report import Report, save, table

NAMES = (
    "turns",
    "idle",
    "boot",
    "start",
    "decide",
    "ledger",
    "overshoot",
    "fairness",
    "completion",
    "price",
    "embedded",
)
NAMED = ("kv", "policies", "recall", "facts", "forks", "bus", "memory")  # run only when they are named
LONG = ("soak",)  # run only when they are named
CONTESTS = ("rivals", "kills", "waiting", "cap")
EVERY = (*NAMES, *NAMED, *LONG, *CONTESTS)


def measure(name: str, *, quick: bool, minutes: float) -> Report:
    """Run one benchmark and keep its report."""
    before = machine.load()
    print(f"{name} (load {before:.2f})", file=sys.stderr, flush=True)
    more = {"minutes": minutes} if name in LONG else {}
    report: Report = importlib.import_module(f"bench.{name}").main(quick, **more)
    save(machine.RESULTS, report, machine=machine.describe(), loads=(before, machine.load()), quick=quick)
    return report


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="The benchmarks of Mains.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which ones ({', '.join(EVERY)}); without: the first eleven"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that all work, not how fast they are")
    parser.add_argument("--minutes", type=float, default=60.0, help="how long a soak lasts (default 60)")
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(EVERY):
        parser.error(f"there is no benchmark `{min(unknown)}` (known: {', '.join(EVERY)})")
    before = machine.load()
    reports = [measure(name, quick=asked.quick, minutes=asked.minutes) for name in asked.names or NAMES]
    print(table(reports))
    print(f"machine: {machine.describe()}; load {before:.2f} before, {machine.load():.2f} after")
    if asked.quick:
        print("quick: sizes are far too small for the goals; only a full run tells")


if __name__ == "__main__":
    main()
