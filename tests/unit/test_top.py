"""`mains top` on a real terminal: what it shows, its keys, another size, a daemon that goes away."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.daemon_box import Box
from tests.unit.terminal import Terminal


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    made.close()


def test_without_a_terminal_it_is_a_table_once(box: Box) -> None:
    assert "none alive" in box.run("top").stdout
    pid = box.spawn("forever")
    ended = box.json("run", "say.md", "prompt=hello")["pid"]
    told = box.run("top").stdout
    assert "1 RUNNING; engines: " in told
    assert f"{pid}  say" in told
    shown = box.json("top")
    assert [view["pid"] for view in shown["processes"]] == [pid]
    assert shown["states"] == {"RUNNING": 1}
    assert shown["tokens"] == 12
    assert "test" in {engine["name"] for engine in shown["engines"]}
    assert [view["pid"] for view in box.json("top", "--all")["processes"]] == [pid, ended]


def test_a_survey_is_bounded_and_takes_the_busy_first(tmp_path: Path) -> None:
    box = Box(tmp_path, settings="survey_processes_max = 2")
    try:
        busy = box.spawn("forever")
        for _ in range(3):
            box.client().spawn("say.md", {"prompt": "x"}, cwd=str(box.folder), paused=True)
        while box.client().show(busy)["state"] != "RUNNING":
            pass
        shown = box.client().survey()
        assert [view["pid"] for view in shown["processes"]] == [busy, busy + 3]
        assert shown["states"] == {"RUNNING": 1, "STOPPED": 3}
    finally:
        box.close()


def test_it_shows_what_happens_and_obeys(box: Box) -> None:
    first, second = box.spawn("forever"), box.spawn("breaks")
    with Terminal(box, "top") as terminal:
        terminal.see(rf"{first} +say +RUNNING")
        terminal.see(rf"{second} +say +STOPPED +error: engine test: out")
        terminal.see("2 processes: 1 RUNNING, 1 STOPPED")
        third = box.spawn("forever")
        terminal.see(rf"{third} +say +RUNNING")
        terminal.type("jjp")  # the third
        terminal.see(f"process {third} pauses")
        terminal.see(rf"{third} +say +RUNNING pausing")
        terminal.type("p")
        terminal.see(f"process {third} goes on")
        terminal.type("kx")  # the second
        terminal.see(rf"end process {second} \(say\) and all below it\? y/n")
        terminal.type("n")
        terminal.see("y/n", gone=True)
        terminal.type("xy")
        terminal.see(f"process {second} is told to end")
        terminal.see(rf"(?m)^ *{second} +say", gone=True)
        terminal.type("a")
        terminal.see(rf"{second} +say +EXITED")
        terminal.type("q")
        assert terminal.end() == 0
    assert box.client().show(third)["state"] == "RUNNING"


def test_filter_sort_help_and_details(box: Box) -> None:
    box.spawn("forever")
    stopped = box.spawn("breaks")
    with Terminal(box, "top") as terminal:
        terminal.see("STOPPED +error")
        terminal.type("/STOP")
        terminal.see("1 listed")
        terminal.type("\r")
        terminal.see("filter: STOP")
        terminal.type("/\x1b")
        terminal.see("listed", gone=True)
        terminal.type("s")
        terminal.see("by state")
        terminal.type("?")
        terminal.see("leave; processes go on")
        terminal.type("\x1b")
        terminal.see("leave; processes", gone=True)
        terminal.type("S")
        terminal.see("by state reversed")
        terminal.type("\x1b[H\r")  # the first: it is the stopped one
        terminal.see(f"(?s)process {stopped}\n.*prompt: breaks")
        terminal.type("q")
        terminal.see("by state reversed")
        terminal.type("\x03")
        assert terminal.end() == 0


def test_it_fits_every_size(box: Box) -> None:
    pids = [box.spawn("forever") for _ in range(12)]
    with Terminal(box, "top") as terminal:
        terminal.see(rf"(?m)^ *{pids[-1]} +say")
        terminal.resize(8, 50)
        terminal.see(rf"(?m)^ *{pids[-1]} +say", gone=True)
        terminal.see("(?m)^by pid  q quit.*…")
        terminal.type("\x1b[F")
        terminal.see(rf"(?m)^ *{pids[-1]} +say")
        assert len(terminal.screen) == 8
        terminal.resize(30, 120)
        terminal.see(rf"(?m)^ *{pids[0]} +say")
        terminal.type("q")
        assert terminal.end() == 0


def test_a_daemon_that_goes_away_is_told_and_found_again(box: Box) -> None:
    box.spawn("forever")
    with Terminal(box, "top") as terminal:
        terminal.see("RUNNING")
        os.kill(json.loads(box.run("status", "--json").stdout)["pid"], signal.SIGKILL)
        box.wait_until_free()
        terminal.see("looking again every second")
        box.spawn("breaks")
        terminal.see("looking again", gone=True)
        terminal.see("STOPPED +error")
        terminal.type("q")
        assert terminal.end() == 0


def test_a_quiet_screen_is_not_drawn_again(box: Box) -> None:
    box.spawn("forever")
    with Terminal(box, "top") as terminal:
        terminal.see("3s")
        before = len(terminal.raw)
        terminal.see("5s")
        assert len(terminal.raw) - before < 900  # two ages: not a screen of 1,920 characters
        terminal.type("q")
        assert terminal.end() == 0
