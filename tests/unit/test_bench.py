"""The benchmarks run, at sizes that are far too small for their goals, and give sane figures."""

from __future__ import annotations

import importlib
import math
from pathlib import Path

import msgspec
import pytest
from bench import machine, report
from bench.report import Figure, Report, Saved, at_least, below, table

GIVES = {
    "turns": ("turns at 20", "bare events at 20", "bare rows at 20", "Mains / bare rows at 20", "CPU a turn at 20"),
    "idle": ("bare kernel", "300 idle, made", "300 idle, booted", "50 of them woken", "wake 50"),
    "boot": ("boot, 100 processes, 10 mid-turn", "all model calls made again", "from exec to exit"),
    "decide": ("mixed: decision, p99", "one family: decision, p99", "first come, first served: p99"),
    "facts": (
        "Mains, lossy: frames with all rules",
        "Mains, nothing: of those that left, recalled by question",
        "truncation: facts reachable",
    ),
    "forks": ("whole: 40 forks", "after evictions: database", "whole, rows copied", "whole: frames that differ"),
    "bus": ("memory: overhead, p50", "stdio: bare call, p99", "memory: 16 callers, Mains / bare", "stdio: fsync"),
    "memory": ("boot", "first recall, nothing indexed", "memory.db", "turns, indexed at leisure / alone"),
    "recall": ("Mains, 8 words: p99", "Mains, 20 words: found in 5", "Mains: file", "FTS5, 8 words: p99"),
    "soak": ("minutes", "memory, second quarter", "memory, last quarter", "database at the end"),
    "ledger": ("hold + settle, at 10", "CPU a pair, at 10", "without limits, at 10", "one caller alone", "fsync"),
    "fairness": ("gap, ten to one", "Jain, ServeGen", "longest wait, silent tools"),
    "completion": ("mean, FCFS / Mains, load 1.2", "mean, 1 s barrier / Mains, load 1.2", "P99, FCFS / Mains, load 1"),
    "price": ("billed input, view 3,000, 32k", "prefix stability, 8k", "billed input, magagent, at worst"),
    "start": ("mains --help", "import mains", "bare Python"),
}

NOTHING = ("no result", "gives wrongly", "cut to fit", "that differ", "memory", "times the space", "look", "facts")
EXACT = ("facts", "forks")  # what these find is right or wrong, however small they are


@pytest.mark.parametrize("name", GIVES)
def test_a_quick_run_gives_its_figures(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAINS_BENCH_DIR", str(tmp_path))
    measured: Report = importlib.import_module(f"bench.{name}").main(True)
    values = {figure.what: figure.value for figure in measured.figures}
    assert measured.name == name
    assert set(GIVES[name]) <= set(values)
    assert all(math.isfinite(value) for value in values.values())
    zero = ("idle", "woken", "gap", "longest wait", *NOTHING)  # what may be nothing in a run as short as this
    assert all(value > 0 for what, value in values.items() if not any(word in what for word in zero))
    if name in EXACT:
        assert [figure.what for figure in measured.figures if figure.goal and not figure.goal.startswith("under")]
        assert [each for each in measured.figures if each.met is False and not each.goal.startswith("under")] == []
    assert not list(tmp_path.iterdir()), "the scratch folder is left behind"


def test_a_goal_is_met_or_missed() -> None:
    assert at_least("speed", 3_000, "turns/s", 3_000).met
    assert not at_least("speed", 2_999, "turns/s", 3_000).met
    assert below("span", 1.9, "s", 2.0).met
    assert not below("span", 2.0, "s", 2.0).met


def test_the_table_shows_every_figure_and_note() -> None:
    shown = table([Report("turns", (Figure("speed", 4_051.4, "turns/s"), below("span", 3, "s", 2)), ("five rounds",))])
    assert "4,051  turns/s" in shown
    assert "under 2  MISSED" in shown
    assert "turns: five rounds" in shown


def test_a_report_is_kept(tmp_path: Path) -> None:
    made = Report("turns", (Figure("speed", 1, "turns/s"),))
    report.save(tmp_path, made, machine="a machine", loads=(0.1, 0.2), quick=True)
    saved = msgspec.json.decode((tmp_path / "turns.json").read_bytes(), type=Saved)
    assert (saved.report, saved.load_before, saved.quick) == (made, 0.1, True)


def test_the_machine_can_be_asked(tmp_path: Path) -> None:
    assert machine.fsync_us(tmp_path) > 0
    assert machine.rss_bytes() > 1_000_000
    assert machine.load() >= 0
