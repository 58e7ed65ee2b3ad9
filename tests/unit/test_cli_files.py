"""`mains files` on a real home with a real daemon: changes, undo, shared workspaces, and what `rm` takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.daemon_box import Box

SCRIPT = """
replies:
  - first: first
    sequence:
      - calls: [{name: files.write, arguments: {path: plan.md, text: first}}]
      - text: done
  - first: second
    sequence:
      - calls: [{name: files.write, arguments: {path: plan.md, text: second words}}]
      - text: done
"""


def program(name: str, more: str = "") -> str:
    return f"---\nname: {name}\ndescription: Writes.\ntools: [files, time, web]\n{more}---\nWrite.\n"


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    (made.home.path / "replies.yaml").write_text(SCRIPT)
    (tmp_path / "own.md").write_text(program("own"))
    (tmp_path / "team.md").write_text(program("team", "workspace: brief\n"))
    yield made
    made.close()


def test_what_a_process_wrote_is_listed_and_undone(box: Box) -> None:
    pid = box.json("run", "own.md", "prompt=first")["pid"]
    own = box.home.workspaces / str(pid)
    assert (own / "plan.md").read_text() == "first"
    assert box.run("files", "ls", str(pid)).stdout == "plan.md  5 bytes\n"
    [change] = box.json("files", "log", str(pid))
    assert (change["tool"], change["path"], change["before"], change["bytes_after"]) == (
        "write",
        "plan.md",
        "nothing",
        5,
    )
    assert "plan.md" in box.run("files", "log", str(pid)).stdout
    (own / "plan.md").write_text("by hand")
    refused = box.run("files", "undo", str(pid))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "changed again" in refused.stderr
    done = box.run("files", "undo", str(pid), "plan.md", "--force")
    assert done.stdout == "plan.md: removed, as it was before (change 1 is undone)\n"
    assert not (own / "plan.md").exists()
    assert "undone" in box.run("files", "log", str(pid)).stdout
    assert "no change" in box.run("files", "undo", str(pid)).stderr
    for words in (
        ("ls", "999"),
        ("log", "999"),
        ("undo", "999"),
        ("ls", str(pid), "../.."),
        ("undo", str(pid), "x\ny"),
    ):
        wrong = box.run("files", *words)
        assert wrong.returncode == 2, words
        assert len(wrong.stderr.splitlines()) <= 2
    assert (box.home.versions / str(pid)).is_dir()
    box.run("rm", str(pid))
    assert not (box.home.versions / str(pid)).exists()


def test_a_shared_workspace_needs_a_person_and_a_program(box: Box) -> None:
    told = box.run("run", "team.md", "prompt=first")
    assert told.returncode == 2
    assert "`mains files share brief`" in told.stderr
    assert box.run("files", "ls").stdout == "no shared workspaces\n"
    assert box.run("files", "share", "../x").returncode == 2
    assert box.json("files", "share", "brief")["name"] == "brief"
    assert box.json("files", "ls") == ["brief"]
    box.run("files", "share", "other")
    assert box.run("files", "ls").stdout == "brief\nother\n"
    for word in ("first", "second"):
        box.json("run", "team.md", f"prompt={word}")
    assert (box.home.workspaces / "brief" / "plan.md").read_text() == "second words"
    assert "workspace: shared, `brief`" in box.run("check", "team.md").stdout
    other = box.folder / "elsewhere"
    other.mkdir()
    box.json("run", "team.md", "prompt=first", "--workspace", "elsewhere")
    assert (other / "plan.md").read_text() == "first"
    assert (box.home.workspaces / "brief" / "plan.md").read_text() == "second words"


def test_check_knows_the_devices_and_the_name_of_a_workspace(box: Box) -> None:
    tools = box.json("check", "own.md")["tools"]
    assert {"files.edit", "files.find", "files.search", "time.now", "web.fetch"} <= set(tools)
    (box.folder / "bad.md").write_text(program("bad", "workspace: ../up\n"))
    assert "`workspace`" in box.run("check", "bad.md").stderr
