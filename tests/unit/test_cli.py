"""The command line, typed as people type it: exit codes, error lines, JSON."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.daemon_box import SRC, Box
from typer.main import get_command
from typer.testing import CliRunner

from mains.cli import app
from mains.cli.app import run_command
from mains.cli.render import as_tree, clean, shorten, span
from mains.cli.run import parse_inputs
from mains.errors import UsageError


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    made = Box(tmp_path_factory.mktemp("cli"))
    yield made
    made.close()


# --------------------------------------------------------------------------------------------------- the whole


def verbs() -> list[tuple[str, ...]]:
    """Every verb, as its words."""
    found: list[tuple[str, ...]] = []
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined] # it is a group
        children = getattr(command, "commands", None)
        found += [(name, child) for child in children] if children else [(name,)]
    return found


@pytest.mark.parametrize("verb", verbs(), ids=" ".join)
def test_every_verb_has_an_example_a_home_and_json(verb: tuple[str, ...]) -> None:
    told = CliRunner().invoke(app, [*verb, "--help"])
    assert told.exit_code == 0
    assert f"mains {' '.join(verb)}" in told.output.partition("Example")[2]
    assert "--home" in told.output
    assert "--json" in told.output


def test_help_lists_the_verbs_whole() -> None:
    told = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80"}).output
    assert "..." not in told.partition("Commands:")[2]


def test_a_quick_command_imports_nothing_heavy() -> None:
    code = (
        "import sys, mains.cli, mains.daemon.client;"
        "heavy = ('rich', 'prompt_toolkit', 'uvicorn', 'starlette', 'asyncio', 'sqlite3', 'yaml');"
        "print([n for n in heavy if n in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SRC), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("[]", "['asyncio']", "['asyncio', 'sqlite3']"), done.stdout


def test_an_error_through_the_real_command(box: Box) -> None:
    done = box.real("show", "999")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[0] == "error: there is no process 999"


def test_completion_knows_the_verbs(box: Box) -> None:
    environment = {**os.environ, "_MAINS_COMPLETE": "complete_bash", "COMP_WORDS": "mains st", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "mains.cli"], env=environment, capture_output=True, text=True, check=False
    )
    assert "status" in done.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("pss", "error: no such command 'pss'. Did you mean 'ps'?"),
        ("run", "error: missing argument 'FILE'"),
        ("run gone.md", "error: .*gone.md: no such file"),
        ("run say.md nope=1", "error: say: no input `nope`"),
        ("run say.md hello", "error: `hello` is no input: write name=value"),
        ("run say.md prompt=a prompt=b", "error: input `prompt` is given twice"),
        ("run say.md --budget many", "error: --budget: `many` is not a number of tokens"),
        ("run say.md --engine gone", "error: there is no engine `gone`"),
        ("run say.md --output gone/x.md", "error: gone/x.md: its folder does not exist"),
        ("run say.md --detach --watch", "error: --detach does not wait"),
        ("run say.md --dettach", "error: no such option: --dettach"),
        ("run bad.md", "error: .*bad.md:1: `description:` is missing"),
        ("show 999", "error: there is no process 999"),
        ("show x", "error: invalid value for 'PID'"),
        ("logs 999", "error: there is no process 999"),
        ("wait 999", "error: there is no process 999"),
        ("send 999 hi", "error: there is no process 999"),
        ("kill 999", "error: there is no process 999"),
        ("kill 1 --signal HUP", "error: invalid value for '--signal'"),
        ("fork 999", "error: there is no process 999"),
        ("engine add nowhere", "error: mains engine add: `nowhere` is no known endpoint"),
        ("engine add x --path gone.gguf", "error: gone.gguf: no such file"),
        ("ps --home say.md", "error: .*say.md: is no folder"),
    ],
)
def test_bad_input_is_one_clear_line(box: Box, words: str, told: str) -> None:
    done = box.run(*words.split())
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert re.match(told, done.stderr), done.stderr
    assert all(line.startswith(("error: ", "hint: ")) for line in done.stderr.splitlines())


def test_a_version_and_no_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["--version"]) == 0
    assert capsys.readouterr().out.startswith("mains 0.")
    assert run_command([]) == 0
    assert "Commands:" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------- run and wait


def test_run_prints_the_result_alone(box: Box) -> None:
    done = box.real("run", "say.md", "prompt=hello there")
    assert (done.returncode, done.stdout) == (0, "hello there\n")


def test_run_and_wait_give_one_object(box: Box) -> None:
    shown = box.json("run", "say.md", "prompt=hello")
    assert shown | {"pid": 0} == {
        "pid": 0,
        "program": "say",
        "state": "EXITED",
        "exit_code": 0,
        "result": "hello",
        "usage": {"input_tokens": 10, "cached_tokens": 0, "output_tokens": 2},
        "turns": 1,
        "reason": "",
    }
    assert box.json("wait", str(shown["pid"])) == shown


def test_a_result_by_schema_is_a_value(box: Box, tmp_path: Path) -> None:
    assert box.json("run", "number.md", "prompt=number")["result"] == {"n": 7}
    target = tmp_path / "n.json"
    done = box.run("run", "number.md", "prompt=number", "--output", str(target))
    assert (done.returncode, done.stdout) == (0, "")
    assert json.loads(target.read_text()) == {"n": 7}
    assert [path.name for path in tmp_path.iterdir()] == ["n.json"]


def test_detach_then_wait_over_a_killed_daemon(box: Box) -> None:
    pid = str(box.json("run", "say.md", "prompt=slow", "--detach")["pid"])
    os.kill(box.json("status")["pid"], signal.SIGKILL)
    done = box.real("wait", pid)
    assert (done.returncode, done.stdout) == (0, "one two three four\n")
    assert box.json("journal", "verify") == box.json("ledger", "verify") == {"ok": True, "faults": []}


def test_the_same_key_is_the_same_process(box: Box) -> None:
    first = box.json("run", "say.md", "prompt=keyed", "--key", "k")
    assert box.json("run", "say.md", "prompt=keyed", "--key", "k") == first
    other = box.run("run", "say.md", "prompt=other", "--key", "k")
    assert other.returncode == 2
    assert "belongs to process" in other.stderr


def test_the_exit_code_of_a_process_is_passed_on(box: Box) -> None:
    done = box.real("run", "tools.md", "prompt=code seven")
    assert done.returncode == 7
    assert done.stdout == "bad luck\n"
    assert "exited with code 7" in done.stderr


def test_a_stopped_process_is_3_and_says_how_to_go_on(box: Box) -> None:
    done = box.run("run", "say.md", "prompt=breaks")
    assert done.returncode == 3
    assert done.stdout == ""
    assert "out of order" in done.stderr
    assert re.search(r"hint: mains resume \d+ tries again", done.stderr)


def test_a_used_up_budget_is_3(box: Box) -> None:
    done = box.run("run", "say.md", "prompt=hello", "--budget", "5", "--json")
    assert done.returncode == 3
    shown = json.loads(done.stdout)
    assert (shown["state"], shown["exit_code"]) == ("STOPPED", None)
    assert shown["reason"].startswith("breaker")


def test_wait_ends_when_its_time_is_over(box: Box) -> None:
    pid = box.spawn("forever")
    done = box.run("wait", str(pid), "--timeout", "0.2")
    assert done.returncode == 1
    assert f"process {pid} has not ended: R" in done.stderr  # RUNNING, or READY on a busy machine
    assert box.run("kill", str(pid), "--signal", "KILL").returncode == 0
    assert box.run("wait", str(pid)).returncode == 137


def test_watch_shows_the_text_and_keeps_the_result_apart(box: Box) -> None:
    done = box.run("run", "say.md", "prompt=slow", "--watch")
    assert (done.returncode, done.stdout) == (0, "one two three four\n")
    assert "one two three four\n" in done.stderr


def test_ctrl_c_ends_the_process_in_order(box: Box) -> None:
    running = box.start("run", "say.md", "prompt=forever")
    assert running.stderr is not None
    while "RUNNING" not in (line := running.stderr.readline()):
        assert line
    running.send_signal(signal.SIGINT)
    with running:
        _, err = running.communicate(timeout=30)
    assert running.returncode == 143
    assert "is told to end (TERM)" in err


def test_a_second_ctrl_c_leaves(box: Box) -> None:
    running = box.start("run", "tools.md", "prompt=forever")
    assert running.stderr is not None
    while "RUNNING" not in (line := running.stderr.readline()):
        assert line
    os.kill(daemon := box.json("status")["pid"], signal.SIGSTOP)  # so that TERM has no answer
    try:
        running.send_signal(signal.SIGINT)
        assert "told to end" in running.stderr.readline()
        running.send_signal(signal.SIGINT)
        with running:
            _, err = running.communicate(timeout=30)
    finally:
        os.kill(daemon, signal.SIGCONT)
    assert running.returncode == 130
    assert "left; mains show" in err


def test_a_live_table_on_a_terminal(box: Box) -> None:
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "mains.cli", "run", "say.md", "prompt=slow"],
        cwd=box.folder,
        env={**os.environ, "TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=follower,
        stdin=follower,
    ) as running:
        os.close(follower)
        shown = b""
        while b"1 of 1 ended" not in shown:
            shown += os.read(leader, 65_536)
        out, _ = running.communicate(timeout=30)
    os.close(leader)
    assert out == b"one two three four\n"
    assert b"TOKENS" in shown
    assert b"RUNNING" in shown


def test_a_question_is_told_and_answered(box: Box) -> None:
    running = box.start("run", "tools.md", "prompt=it asks")
    assert running.stderr is not None
    while not (asked := re.search(r"process (\d+) asks: May I\?", line := running.stderr.readline())):
        assert line
    assert box.run("answer", asked[1], "you may").stdout == f"process {asked[1]} has its answer\n"
    with running:
        out, _ = running.communicate(timeout=30)
    assert (running.returncode, out) == (0, "you may\n")


# ----------------------------------------------------------------------------------------------- look and steer


def test_ps_show_and_logs(box: Box) -> None:
    pid = box.json("run", "say.md", "prompt=look at me")["pid"]
    views = box.json("ps", "--all")
    assert set(views[0]) >= {
        *("pid", "parent", "program", "account", "band", "state", "reason", "turns", "tokens", "created_at"),
    }
    table = box.run("ps", "--all").stdout
    assert table.split()[:7] == ["PID", "PROGRAM", "STATE", "REASON", "TURNS", "TOKENS", "AGE"]
    assert max(map(len, table.splitlines())) <= 80
    assert "look at me" in box.run("show", str(pid)).stdout
    told = box.run("logs", str(pid)).stdout
    assert "spawned: say on test" in told
    assert "look at me" in told
    lines = box.run("logs", str(pid), "--json").stdout.splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["spawned", "asked", "replied", "exited"]


def test_logs_follow_until_the_end(box: Box) -> None:
    pid = box.spawn("slow")
    done = box.run("logs", str(pid), "-f")
    assert done.returncode == 0
    assert done.stdout.rstrip().endswith("one two three four")


def test_signals_and_forks(box: Box) -> None:
    pid = str(box.spawn("forever"))
    assert box.json("pause", pid)["changed"] == [int(pid)]
    assert "nothing changed" in box.run("pause", pid).stdout
    assert box.run("resume", pid).stdout == f"process {pid} goes on\n"
    twin = box.json("fork", pid)["pid"]
    message = box.json("send", str(twin), "hi", "--key", "a")
    assert box.json("send", str(twin), "hi", "--key", "a") == message
    assert f"process {pid} is killed (and 1 below it)" in box.run("kill", pid, "--signal", "KILL").stdout
    assert box.run("send", str(twin), "hi").returncode == 2


# ------------------------------------------------------------------------------------------------------- check


def test_check_says_what_a_program_is(box: Box) -> None:
    done = box.run("check", "tools.md")
    assert done.returncode == 0
    for line in (
        "tools: ask, call_tool, exit, files.read, find_tool",
        "missing tools: code.run",
        "runs on: test (replies)",
    ):
        assert line in done.stdout
    shown = box.json("check", "number.md")
    assert shown["output"]["type"] == "object"
    assert shown["fixed_tokens"] > 0
    assert [each["name"] for each in shown["inputs"]] == ["prompt"]


def test_check_tells_every_mistake(box: Box) -> None:
    done = box.run("check", "bad.md")
    assert done.returncode == 2
    assert done.stdout == ""
    assert [int(line.split(":")[1]) for line in done.stderr.splitlines()] == [1, 2, 3]


# ---------------------------------------------------------------------------------------------------- rendering


def test_text_cannot_steer_a_terminal() -> None:
    assert clean("a\x1b[31mb\nc") == "a [31mb c"
    assert clean("a\x1b\nb", lines=True) == "a \nb"
    assert shorten("one\ntwo  three", 9) == "one two …"


def test_children_stand_below_their_parents() -> None:
    parents = {5: None, 6: 5, 7: None, 8: 6, 9: 99}
    ordered = as_tree([{"pid": pid, "parent": parent} for pid, parent in parents.items()])
    assert [(depth, view["pid"]) for depth, view in ordered] == [(0, 5), (1, 6), (2, 8), (0, 7), (0, 9)]


def test_spans_and_inputs() -> None:
    assert [span(s) for s in (-1, 59, 119, 120, 7_200, 200_000)] == ["0s", "59s", "119s", "2m", "2h", "2d"]
    assert parse_inputs(["a=b=c", "d="]) == {"a": "b=c", "d": ""}
    with pytest.raises(UsageError):
        parse_inputs(["=x"])
