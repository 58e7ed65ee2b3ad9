"""The verbs of notes, typed as people type them, on a real home with a real daemon."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.daemon_box import Box


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    made.close()


def test_notes_are_added_listed_edited_and_taken_away(box: Box) -> None:
    box.json("account", "add", "ann")
    assert box.json("note", "ls") == []
    first = box.json("note", "add", "Answer in French.", "--account", "ann")
    assert (first["id"], first["scope"], first["owners"], first["process"]) == (1, "user", ["ann"], 0)
    assert box.json("note", "add", "Be short.", "--program", "say")["owners"] == ["home/say"]
    pid = box.json("run", "say.md", "prompt=hello")["pid"]
    assert box.json("note", "add", "Go on.", "--pid", str(pid))["owners"] == [str(pid)]
    assert [view["id"] for view in box.json("note", "ls", "--scope", "program")] == [2]
    assert [view["id"] for view in box.json("note", "ls", "--account", "ann")] == [1]
    assert [view["id"] for view in box.json("note", "ls", "--program", "say")] == [2]
    told = box.run("note", "ls").stdout.splitlines()
    assert told[0].split() == ["ID", "SCOPE", "FOR", "BY", "TAINT", "TEXT"]
    assert "user" in told[1] and "a person" in told[1] and "Answer" in told[1]
    edited = box.json("note", "edit", "1", "--text", "Answer in Dutch.")
    assert (edited["id"], edited["replaces"], edited["text"]) == (4, 2, "Answer in Dutch.")
    shown = box.run("note", "show", "4").stdout
    assert "note 4 for user ann: stands" in shown and "in place of note 1" in shown and "| Answer in Dutch." in shown
    old = box.json("note", "show", "1")
    assert (old["state"], old["text"], old["replaced_by"]) == ("replaced", None, 4)
    assert "replaced by note 4" in box.run("note", "show", "1").stdout
    assert box.run("note", "rm", "4").stdout == "note 4 is forgotten\n"
    assert box.json("note", "rm", "2")["state"] == "forgotten"
    assert [view["id"] for view in box.json("note", "ls")] == [3]
    assert len(box.json("note", "ls", "--all")) == 4
    assert box.json("journal", "verify")["faults"] == []


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("show", "9"), 2, "there is no note 9"),
        (("rm", "9"), 2, "there is no note 9"),
        (("edit", "9", "--text", "x"), 2, "there is no note 9"),
        (("add", ""), 2, "the text is empty"),
        (("add", "x" * 3_000), 2, "note_bytes_max"),
        (("add", "x", "--account", "nobody"), 2, "no account"),
        (("add", "x", "--pid", "7"), 2, "no process 7"),
        (("edit", "1"), 2, "--text"),
        (("ls", "--scope", "team"), 2, "team"),
    ],
)
def test_what_is_wrong_is_said(box: Box, words: tuple[str, ...], code: int, told: str) -> None:
    if words == ("edit", "1"):
        box.json("note", "add", "x")
    done = box.run("note", *words)
    assert (done.returncode, told in done.stderr) == (code, True), done.stderr


def test_check_says_what_a_program_may_note(box: Box) -> None:
    text = "---\nname: n\ndescription: n\ntools: note(program, from_tools), note(user)\n---\nNote.\n"
    (box.folder / "n.md").write_text(text)
    assert box.json("check", "n.md")["may_note"] == {
        "process": {"from_tools": True}, "program": {"from_tools": True}, "user": {"from_tools": False},
    }  # fmt: skip
    assert "may note for: process, program, also from tools, user\n" in box.run("check", "n.md").stdout
    assert "may note" not in box.run("check", "say.md").stdout


def test_the_diary_tells_of_notes(box: Box) -> None:
    text = "---\nname: n\ndescription: n\ntools: [note(user)]\n---\nNote.\n"
    (box.folder / "n.md").write_text(text)
    box.json("note", "add", "Be short.")
    pid = box.json("run", "n.md", "prompt=hello")["pid"]
    told = box.run("logs", str(pid)).stdout
    assert "has its notes in mind" in told and "Be short." in told
