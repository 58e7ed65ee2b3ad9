"""`mains chat` and `mains attach` on real terminals, with a real daemon and a scripted engine."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.unit.daemon_box import Box
from tests.unit.terminal import Terminal

REPLIES = """
replies:
  - {when: slow, text: "one two three four five", delay_ms: 2000, chunks: 5}
  - {when: forever, text: "word %s", delay_ms: 600000, chunks: 4000}
  - {when: lines, text: "first line\\nsecond line\\n\\nlast line"}
  - {when: stumble, text: "half of it, half of it", delay_ms: 400, chunks: 2, times: 1,
     error: {text: it stumbled, spent: nothing}}
  - {when: stumble, text: whole again}
  - {when: refuse, error: {text: it is closed today, retryable: false, spent: nothing}}
  - when: /^asks/
    calls: [{name: ask, arguments: {question: "May I?"}}]
  - when: /^look/
    calls: [{name: files.read, arguments: {path: notes.md}}]
  - when: /^push/
    calls: [{name: press, arguments: {button: red}}]
  - when: /^leave/
    calls: [{name: exit, arguments: {result: so long, code: 4}}]
  - echo: true
""" % ("word " * 4000)

SERVER = """
import functools, sys
from pathlib import Path
import mains
from mains.daemon import server
from mains.daemon.reports import Place
from mains.home import Home

@mains.device
def press(button: str) -> str:
    "Press a button."
    with open(sys.argv[2]) as gate:
        return f"pressed {button} {gate.read()}"

server.boot = functools.partial(server.boot, devices=[press])
sys.exit(server.run(Place(home=Home(Path(sys.argv[1]))), lambda place: print("ready", flush=True)))
"""

TALKER = "---\nname: talker\ndescription: Talks.\ntools: [exit, ask, files.read, press]\n---\nTalk.\n"
TUTOR = "---\nname: tutor\ndescription: Tutors.\ninputs: {subject: text}\n---\nTeach {{subject}}.\n"


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    (made.home.path / "replies.yaml").write_text(REPLIES)
    (tmp_path / "talker.md").write_text(TALKER)
    (tmp_path / "tutor.md").write_text(TUTOR)
    yield made
    made.close()


def pid_of(terminal: Terminal) -> int:
    found = terminal.see(r"process (\d+): ")
    assert found is not None
    return int(found[1])


def until_it_rests(parts: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The parts of a transcript until the process rests; one that rests already says so by how it stands."""
    seen = []
    for part in parts:
        seen.append(part)
        if part["kind"] == "rested" or (part["kind"] == "standing" and part["state"] == "WAITING"):
            return seen
    raise AssertionError(f"the transcript ended before the process rested: {seen}")


def context(box: Box, pid: int) -> list[tuple[str, str]]:
    """What was said, without the program."""
    return [(m["role"], m.get("text", "")) for m in box.client().show(pid)["messages"]][1:]


def kill_daemon(box: Box) -> None:
    os.kill(box.client(start=False).hello()["pid"], signal.SIGKILL)
    box.wait_until_free()


def test_a_conversation_from_its_beginning_to_its_end(box: Box) -> None:
    with Terminal(box, "chat", "talker.md") as terminal:
        pid = pid_of(terminal)
        terminal.see("Ctrl-D leaves; /help; 0 tokens")
        terminal.type("hello\r")
        terminal.see("> hello\nhello\n")
        terminal.type("show lines\r")
        terminal.see("> show lines\nfirst line\nsecond line\n\nlast line\n")
        terminal.type("look at it\r")
        terminal.see(r"> look at it\n· files.read notes.md\n +files.read: error: .*\n")
        terminal.type("/tokens\r")
        terminal.see(r"account of process 1: used \d+, held 0")
        terminal.type("/nonsense\r")
        terminal.see("there is no /nonsense")
        terminal.type("/help\r")
        terminal.see("Ctrl-C interrupts the answer")
        terminal.type("\x03")
        terminal.see("Ctrl-D leaves, and the process goes on; /end ends it")
        terminal.type("\x04")
        assert terminal.end() == 0
        terminal.see(f"mains attach {pid} comes back")
    assert box.client().show(pid)["state"] == "WAITING"
    with Terminal(box, "attach", str(pid)) as terminal:
        terminal.see(
            "> hello\nhello\n\n> show lines\nfirst line\nsecond line\n\nlast line\n\n> look at it\n· files.read"
        )
        terminal.type("again\r")
        terminal.see("> again\nagain\n")
        terminal.type("/end\r")
        assert terminal.end() == 0
        terminal.see(f"process {pid} has ended\n")
    with Terminal(box, "attach", str(pid)) as terminal:
        terminal.see("(?s)> again\nagain\n.*has ended with code 143: terminated")
        assert terminal.end() == 143


def test_messages_of_several_lines(box: Box) -> None:
    with Terminal(box, "chat", "talker.md") as terminal:
        pid = pid_of(terminal)
        for typed, shown in (
            ("a\x1b\rb\r", "> a\n  b\na\nb\n"),
            ("c\\\rd\r", "> c\n  d\nc\nd\n"),
            ('"""\re\rf"""\r', "> e\n  f\ne\nf\n"),
            ("\x1b[200~g\nh\x1b[201~\r", "> g\n  h\ng\nh\n"),
        ):
            terminal.type(typed)
            terminal.see(shown)
        said = [text for role, text in context(box, pid) if role == "user"]
        assert said == ["a\nb", "c\nd", "e\nf", "g\nh"]
        terminal.type("\x1b[A\x1b[A\x1b[A\x1b[A\x1b[A\r")  # up through g, h, and on to the block before
        terminal.see(r"(?s)> e\n  f\ne\nf\n.*> e\n  f\ne\nf\n")
        terminal.type("\x12c")  # Ctrl-R: Enter ends the search, and sends nothing
        terminal.see("> c\n +d\nI-search backward: c")
        terminal.type("\r")
        terminal.see("I-search", gone=True)
        terminal.type("\x03")
        terminal.see("(?m)^>$")
        terminal.type("\x04")
        assert terminal.end() == 0
        assert len(context(box, pid)) == 10
    assert (box.home.path / "history").stat().st_mode & 0o777 == 0o600


def test_ctrl_c_in_the_middle_of_a_stream(box: Box) -> None:
    with Terminal(box, "chat", "talker.md") as terminal:
        pid = pid_of(terminal)
        terminal.type("forever\r")
        terminal.see("> forever\nword word")
        terminal.type("next\x03")  # what is typed meanwhile stays
        terminal.see(r"word\n\(the text above was not kept\)\n\(interrupted\)")
        terminal.type("\r")
        terminal.see("> next\nnext\n")
    assert context(box, pid) == [("user", "forever"), ("user", "next"), ("assistant", "next")]


def test_a_second_attempt_is_not_mixed_with_the_first(box: Box) -> None:
    with Terminal(box, "chat", "talker.md") as terminal:
        terminal.see("Ctrl-D leaves")
        terminal.type("stumble\r")
        told = r"engine test: it stumbled; asked again\)?\nwhole again\n"
        terminal.see(
            rf"> stumble\n(half.*\n\(the text above was not kept: |· ){told}"
        )  # its text may come too late to be shown
        terminal.type("refuse\r")
        terminal.see(r"> refuse\n\(engine test: it is closed today\)\n")
        terminal.type("go on\r")
        terminal.see("> go on\ngo on\n")


def test_two_terminals_see_the_same(box: Box) -> None:
    with Terminal(box, "chat", "talker.md") as one:
        pid = pid_of(one)
        with Terminal(box, "attach", str(pid)) as two:
            two.see("Ctrl-D leaves")
            one.type("slow\r")
            for terminal in (one, two):
                terminal.see("> slow\none two")
                terminal.see("one two three four five\n")
            two.type("and I\r")
            for terminal in (one, two):
                terminal.see("> and I\nand I\n")
                assert terminal.text.count("one two three four five") == 1
            two.type("\x04")
            assert two.end() == 0
        with Terminal(box, "attach", str(pid)) as late:
            one.type("forever\r")
            late.see("> forever")
            with Terminal(box, "attach", str(pid)) as later:  # into the middle of the stream
                later.see(r"> forever\n(.*\n)*….*word")
                one.type("\x03")
                for terminal in (one, late, later):
                    terminal.see(r"\(interrupted\)")
                assert "not kept" not in later.text  # of what was never shown for good


def test_a_daemon_that_dies_in_the_middle(box: Box) -> None:
    with Terminal(box, "chat", "talker.md") as terminal:
        pid = pid_of(terminal)
        terminal.type("first\r")
        terminal.see("> first\nfirst\n")
        terminal.type("slow\r")
        terminal.see("> slow\none two")
        kill_daemon(box)
        terminal.see("the daemon is gone; it is started again")
        terminal.see("the text above was not kept")
        terminal.see("one two three four five\n")
        terminal.type("after\r")
        terminal.see("> after\nafter\n")
        for said in ("> first", "> slow", "one two three four five", "> after"):
            assert terminal.text.count(said) == 1, said
    assert context(box, pid)[-4:-2] == [("user", "slow"), ("assistant", "one two three four five")]


def test_a_daemon_that_is_told_to_end(box: Box) -> None:
    with Terminal(box, "chat", "talker.md") as terminal:
        pid = pid_of(terminal)
        assert box.run("down").returncode == 0
        terminal.see("error: the daemon was told to end")
        terminal.see(f"mains attach {pid} comes back")
        assert terminal.end() == 1
    assert not box.home.held()


def test_a_question_is_asked_and_answered(box: Box) -> None:
    with Terminal(box, "chat", "talker.md") as terminal:
        terminal.see("Ctrl-D leaves")
        terminal.type("asks\r")
        terminal.see(r"> asks\n· ask May I\?\n\? May I\?\n")
        terminal.see("(?m)^answer>")
        terminal.type("you may\r")
        terminal.see("> you may\nyou may\n")
        terminal.type("asks again\r")
        terminal.see(r"(?s)again\n.*\? May I\?\n")
        terminal.type("\x03")
        terminal.see(r"ask: interrupted: .*\n\(interrupted\)")
        terminal.type("leave\r")
        terminal.see("so long\nprocess .* has ended with code 4")
        assert terminal.end() == 4


@contextmanager
def served(box: Box) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A daemon with the device `press`, which waits until something is written to its gate."""
    gate = box.folder / "gate"
    os.mkfifo(gate)
    words = [sys.executable, "-c", SERVER, str(box.home.path), str(gate)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == "ready\n"
        try:
            yield daemon, gate
        finally:
            daemon.kill()


def test_ctrl_c_in_the_middle_of_a_device_call(box: Box) -> None:
    with served(box) as (_, gate), Terminal(box, "chat", "talker.md") as terminal:
        pid = pid_of(terminal)
        terminal.type("push\r")
        terminal.see("> push\n· press red\n")
        with gate.open("w") as opened:  # the call is in flight
            terminal.type("\x03")
            terminal.see("(?m)RUNNING|interrupted;|answering")
            while box.client().show(pid)["reason"] != "interrupted":
                pass
            opened.write("well")
        terminal.see(r"\(interrupted\)")
        terminal.type("next\r")
        terminal.see("> next\nnext\n")
        assert context(box, pid) == [
            ("user", "push"), ("assistant", ""), ("tool", "pressed red well"), ("user", "next"), ("assistant", "next"),
        ]  # fmt: skip


def test_a_call_in_doubt_is_decided(box: Box) -> None:
    with served(box) as (daemon, gate), Terminal(box, "chat", "talker.md") as terminal:
        pid_of(terminal)
        terminal.type("push\r")
        terminal.see("> push\n· press red\n")
        with gate.open("w"):
            daemon.kill()
            daemon.wait()
        terminal.see(r'may or may not have happened: press \{"button":"red"\}')
        terminal.see("retry makes the call again, skip does not, done=JSON gives its result")
        terminal.type("perhaps\r")
        terminal.see(r"answer `retry`,\s+`skip` or `done=JSON`, not 'perhaps'")
        terminal.type("skip\r")
        terminal.see("press: skipped: ")
        terminal.see("(?m)^skipped: a person decided")  # the model's echo


def test_attach_to_a_process_that_is_no_conversation(box: Box) -> None:
    pid = box.spawn("slow", "say.md")
    with Terminal(box, "attach", str(pid)) as terminal:
        terminal.see(f"process {pid}: say on test")
        terminal.type("and this\r")
        terminal.see("· message from a person: and this")
        terminal.see("(?s)one two three four five\n.*> and this\nand this\n")
        terminal.see(f"process {pid} has ended\n")
        assert terminal.end() == 0


def test_the_same_key_is_the_same_conversation(box: Box) -> None:
    for _ in range(2):
        with Terminal(box, "chat", "tutor.md", "subject=heat", "--key", "k") as terminal:
            terminal.see("Ctrl-D leaves")
            terminal.type("hello\r")
            terminal.see(r"(?s)> hello\nhello\n.*tokens")
            terminal.type("\x04")
            assert terminal.end() == 0
    assert [view["program"] for view in box.client().ps()] == ["tutor"]
    assert len(context(box, 1)) == 4


def piped(box: Box, typed: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mains.cli", "chat", *words],
        cwd=box.folder, input=typed, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def test_piped_input_is_one_message(box: Box) -> None:
    done = piped(box, "line one\nline two\n", "say.md")
    assert (done.returncode, done.stdout) == (0, "line one\nline two\n")
    shown = json.loads(piped(box, "hi", "say.md", "--json").stdout)
    ran = box.json("run", "say.md", "prompt=hi")
    assert shown | {"pid": 0} == ran | {"pid": 0}
    done = piped(box, "what is it?", "tutor.md", "subject=heat")
    assert (done.returncode, done.stdout) == (0, "what is it?\n")
    assert [view["state"] for view in box.client().ps()] == []


@pytest.mark.parametrize(
    ("typed", "words", "code", "told"),
    [
        ("", "say.md", 2, "error: standard input is empty"),
        ("hi", "gone.md", 2, "error: .*gone.md: no such file"),
        ("hi", "tutor.md", 2, "error: .*subject"),
        ("refuse", "say.md", 3, "(?s).*cannot go on by itself"),
    ],
)
def test_piped_input_that_leads_nowhere(box: Box, typed: str, words: str, code: int, told: str) -> None:
    done = piped(box, typed, *words.split())
    assert (done.returncode, done.stdout) == (code, "")
    assert re.match(told, done.stderr), done.stderr


def test_without_a_terminal(box: Box) -> None:
    pid = box.spawn("hello")
    assert "attach needs a terminal" in box.run("attach", str(pid)).stderr
    done = box.run("attach", str(pid), "--json")
    parts: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    assert (parts[0]["kind"], parts[-1]["kind"], parts[-1]["text"]) == ("heard", "exited", "hello")


def test_an_interrupted_turn_does_not_repeat_the_answer_before(box: Box) -> None:
    client = box.client()
    pid = client.spawn("talker.md", {"prompt": "hello"}, cwd=str(box.folder), conversation=True)
    until_it_rests(client.attach(pid, back=10))
    client.send(pid, "forever")
    for part in client.attach(pid, back=10):
        if part["kind"] == "delta":
            client.signal(pid, "INT")
            break
    until_it_rests(client.attach(pid, back=10))
    kinds = []
    for part in client.attach(pid, back=10):
        kinds.append(part["kind"])
        if part["kind"] == "standing":
            break
    assert kinds == ["heard", "said", "heard", "standing"]


def test_the_transcript_goes_on_after_what_was_heard(box: Box) -> None:
    client = box.client()
    pid = client.spawn("talker.md", {}, cwd=str(box.folder), conversation=True)
    client.send(pid, "slow")
    first = until_it_rests(client.attach(pid, back=10))
    said = next(part for part in first if part["kind"] == "said")
    streamed = [part for part in first if part["kind"] == "delta"]
    assert {(part["turn"], part["attempt"]) for part in streamed} <= {(1, 1)}
    client.send(pid, "more")
    rest = []
    for part in client.attach(pid, after_seq=said["seq"]):
        rest.append(part)
        if part.get("kind") == "said":
            break
    kinds = [part["kind"] for part in rest if part["kind"] not in ("standing", "delta")]
    assert kinds == ["rested", "sent", "heard", "said"]
    assert rest[-1]["text"] == "more"
