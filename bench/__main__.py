"""Run benchmarks: `python -m bench [NAME...] [--quick]`. Without names: the first five, in this order.

turns      full turns a second against a bare SQLite group commit
idle       memory of 100,000 idle processes, and how fast 1,000 of them wake
boot       boot with 10,000 processes, 1,000 of them cut off in the middle of a turn
start      `mains --help` and `import mains`
embedded   tokens a second through Mains against the same engine asked directly

Against what users would pick instead; only when named, for they need the rivals' environment (`make bench-rivals`):

rivals     turns a second, CPU and bytes of a turn, over the same HTTP
kills      ten times `kill -9`: tools that ran twice, agents that were lost
waiting    memory of an agent that waits for the model
"""

from __future__ import annotations

import argparse
import importlib
import sys

from bench import machine
from bench.report import Report, save, table

NAMES = ("turns", "idle", "boot", "start", "embedded")
CONTESTS = ("rivals", "kills", "waiting")


def measure(name: str, *, quick: bool) -> Report:
    """Run one benchmark and keep its report."""
    before = machine.load()
    print(f"{name} (load {before:.2f})", file=sys.stderr, flush=True)
    report: Report = importlib.import_module(f"bench.{name}").main(quick)
    save(machine.RESULTS, report, machine=machine.describe(), loads=(before, machine.load()), quick=quick)
    return report


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="The benchmarks of Mains.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ones ({', '.join(NAMES + CONTESTS)})")
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that all work, not how fast they are")
    asked = parser.parse_args()
    if unknown := set(asked.names) - {*NAMES, *CONTESTS}:
        parser.error(f"there is no benchmark `{min(unknown)}` (known: {', '.join(NAMES + CONTESTS)})")
    before = machine.load()
    reports = [measure(name, quick=asked.quick) for name in asked.names or NAMES]
    print(table(reports))
    print(f"machine: {machine.describe()}; load {before:.2f} before, {machine.load():.2f} after")
    if asked.quick:
        print("quick: sizes are far too small for the goals; only a full run tells")


if __name__ == "__main__":
    main()
