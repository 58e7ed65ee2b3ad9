"""How long a person waits for the command line: `mains --help`, beside a Python that does nothing."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from bench.child import ROOT
from bench.report import Figure, Report, below

GOAL_S = 0.3
ROUNDS = 7
_COMMANDS = {
    "mains --help": ("-m", "mains.cli", "--help"),
    "import mains": ("-c", "import mains"),
    "import the Python API": ("-c", "import mains; mains.open, mains.Settings"),
    "bare Python": ("-c", "pass"),
}


def span_s(arguments: tuple[str, ...]) -> float:
    """From the start of a Python with these arguments to its end."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def main(quick: bool) -> Report:
    """Every command once to warm the files' cache, then rounds over all of them."""
    rounds = 1 if quick else ROUNDS
    spans: dict[str, list[float]] = {name: [] for name in _COMMANDS}
    for number in range(rounds + 1):
        for name, arguments in _COMMANDS.items():
            taken = span_s(arguments)
            if number:
                spans[name].append(taken)
    figures = [Figure(name, statistics.median(each), "s") for name, each in spans.items()]
    figures[0] = below(figures[0].what, figures[0].value, "s", GOAL_S)
    return Report("start", tuple(figures), (f"median of {rounds} rounds, after one that is not counted",))
