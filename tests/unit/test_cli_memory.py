"""The verbs of memory, typed as people type them: mem, show --at, fork --at, diff."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from tests.unit.daemon_box import Box
from tests.unit.terminal import Terminal


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    made = Box(tmp_path_factory.mktemp("memory"))
    yield made
    made.close()


def ended(box: Box, prompt: str, program: str = "say.md") -> int:
    return int(box.json("run", program, f"prompt={prompt}")["pid"])


def event_of(box: Box, pid: int, kind: str) -> int:
    """The number of the last event of this kind."""
    lines = [json.loads(line) for line in box.run("logs", str(pid), "--json").stdout.splitlines()]
    return int(next(line["seq"] for line in reversed(lines) if line["kind"] == kind))


def test_mem_draws_a_page_table(box: Box) -> None:
    pid = ended(box, "hello")
    done = box.run("mem", str(pid))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"process {pid}: say, EXITED"
    assert "opening P^I^" in lines
    assert "mem:0   A" in lines
    assert lines[-1] == "P program, I input, A reply (answer), ^ pinned"
    assert re.search(r"^pages +3 in the frame \(2 pinned\)$", done.stdout, re.MULTILINE)


def test_mem_lists_pages(box: Box) -> None:
    pid = ended(box, "hello there")
    told = box.run("mem", str(pid), "--pages").stdout
    assert re.search(r"^HANDLE +KIND +WHERE +TOKENS +BYTES +TURN +USED +BEGINS", told, re.MULTILINE)
    assert re.search(r"^mem:0 +reply +frame +\d+ +\d+ +1 +hello there", told, re.MULTILINE)


def test_mem_gives_everything_as_json(box: Box) -> None:
    pid = ended(box, "hello")
    found = box.json("mem", str(pid))
    assert [page["kind"] for page in found["pages"]] == ["program", "input", "reply"]
    assert {"high_tokens", "low_tokens", "faults", "stable", "calls", "cached_tokens"} <= found.keys()
    assert found["pages"][2]["handle"] == "mem:0"


def test_mem_shows_the_machine(box: Box) -> None:
    for _ in range(2):
        ended(box, "the same")
    done = box.run("mem")
    assert done.returncode == 0, done.stderr
    told = done.stdout
    assert re.search(r"^sharing +\d+\.\d times: ", told, re.MULTILINE)
    assert re.search(r"^files +database .*, search index none yet$", told, re.MULTILINE)
    assert re.search(r"^ +\d+ +program +\d+ +Say it\.", told, re.MULTILINE)
    found = box.json("mem")
    assert found["shared"][0]["processes"] >= 2
    assert found["frames"][0]["program"] == "say"
    assert found["kinds"]["message"]["pages"] > 0


@pytest.mark.parametrize("columns", [40, 80, 140])
def test_mem_fits_the_terminal(box: Box, columns: int) -> None:
    pid = ended(box, "hello")
    with Terminal(box, "mem", str(pid), columns=columns) as terminal:
        terminal.see("pinned")
        assert terminal.end() == 0


def test_show_at_gives_the_frame_of_then(box: Box) -> None:
    pid = ended(box, "hello there", "tools.md")
    at = event_of(box, pid, "exited")
    done = box.run("show", str(pid), "--at", str(at))
    assert done.returncode == 0, done.stderr
    assert "the hash that was journalled before the call" in done.stdout
    assert "tools    ask, call_tool, exit, files.read, find_tool" in done.stdout
    assert "--- opening user\nhello there\n" in done.stdout
    found = box.json("show", str(pid), "--at", str(at))
    assert (found["agree"], found["turn"], found["seq"]) == (True, 1, event_of(box, pid, "asked"))
    assert [message["text"] for message in found["messages"]] == ["Use.", "hello there"]
    names = [tool["name"] for tool in found["tools"]]
    assert names == ["ask", "call_tool", "exit", "files.read", "find_tool"]


def test_fork_at_starts_an_alternative_history(box: Box) -> None:
    pid = ended(box, "hello")
    at = event_of(box, pid, "asked")
    made = box.json("fork", str(pid), "--at", str(at))["pid"]
    assert box.run("wait", str(made)).stdout == "hello\n"
    told = box.run("fork", str(pid), "--at", str(at)).stdout
    assert re.fullmatch(rf"process \d+ is a fork of {pid} as of event {at}\n", told)
    assert box.json("diff", str(pid), str(made))["same_frame"]


def test_diff_says_where_two_contexts_part(box: Box) -> None:
    one, other = ended(box, "hello"), ended(box, "goodbye")
    done = box.run("diff", str(one), str(other))
    assert done.returncode == 0, done.stderr
    assert f"processes {one} and {other} share 0 pages behind their openings, which differ" in done.stdout
    assert f'input prompt: {one}: "hello"' in done.stdout
    assert "  mem:0 reply (assistant): goodbye" in done.stdout
    full = box.run("diff", str(one), str(other), "--full").stdout
    assert f"--- process {one} mem:0 reply (assistant)\n+++ process {other} mem:0 reply (assistant)\n" in full
    assert "-hello\n+goodbye\n" in full
    found = box.json("diff", str(one), str(other))
    assert found["one"]["behind"][-1]["words"] == "hello"
    same = box.run("diff", str(one), str(one)).stdout
    assert same == f"processes {one} and {one} share 3 pages\nnothing else was said in either\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("mem 999", "error: there is no process 999"),
        ("mem --pages", "error: --pages lists the pages of a process"),
        ("show 999 --at 1", "error: there is no process 999"),
        ("show 1 --at 99999999", r"error: there is no event 99,999,999 yet: the last one is \d+"),
        ("show 1 --at 0", "error: invalid value for '--at'"),
        ("show 1 --at x", "error: invalid value for '--at'"),
        ("show 1 --at 1", "error: process 1 was not there at event 1: it began with event"),
        ("fork 999 --at 1", "error: there is no process 999"),
        ("fork 1 --at 99999999", "error: there is no event"),
        ("fork 1 --at 99999999999999999999999", "error: "),
        ("show 1 --at 99999999999999999999999", "error: "),
        ("diff 1 999", "error: there is no process 999"),
        ("diff 1 99999999999999999999999", "error: "),
        ("diff 1", "error: missing argument 'PID2'"),
    ],
)
def test_bad_input_is_one_clear_line(box: Box, words: str, told: str) -> None:
    ended(box, "hello")
    done = box.run(*words.split())
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert re.match(told, done.stderr), done.stderr
