"""The command line about a program with several models: what check, show, ps, logs and engine ls say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.daemon_box import Box

DOWN = f"replies:\n  - error: {{text: 'the key is wrong{80 * '!'}', retryable: false, spent: nothing}}\n"
PROGRAM = "---\nname: NAME\ndescription: Says it.\nmodel: [MODELS]\n---\nSay it.\n"


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    (made.home.path / "down.yaml").write_text(DOWN)
    made.run("engine", "add", "down", "--path", str(made.home.path / "down.yaml"))
    for name, models in (("chain", "down, test"), ("lost", "down"), ("odd", "down, sonnet, inherit, down")):
        (tmp_path / f"{name}.md").write_text(PROGRAM.replace("NAME", name).replace("MODELS", models))
    yield made
    made.close()


def test_every_verb_says_what_is_used(box: Box) -> None:
    assert "runs on: down (down), then test (replies)" in box.run("check", "chain.md").stdout
    assert box.json("check", "chain.md")["fallbacks"] == [{"engine": "test", "model": "replies", "equal": False}]
    chained = box.client().spawn("chain.md", {"prompt": "forever"}, cwd=str(box.folder))
    lost = box.client().spawn("lost.md", {"prompt": "x"}, cwd=str(box.folder))
    box.run("wait", str(lost))
    for entry in box.client().log(chained, follow=True):
        if entry and entry["line"].startswith("asks test"):
            break
    shown = box.json("show", str(chained))
    assert (shown["engine"], shown["returns_at"] is not None) == ("test", True)
    about = box.run("show", str(chained)).stdout
    assert "engines in order: down (down), test (replies) *; the first is tried again after 20" in about
    assert "goes to the engine test, because of: engine down: the key is wrong" in box.run("logs", str(chained)).stdout
    lines = box.run("ps").stdout.splitlines()
    assert lines[0].split()[-1] == "ENGINE"
    assert [line.split()[-1] for line in lines[1:]] == ["test", "down"]
    assert all(len(line) <= 80 for line in lines)
    [row] = [row for row in box.json("engine", "ls") if row["name"] == "test"]
    assert row["busy"] == 1
    table = box.run("engine", "ls").stdout.splitlines()
    assert any(f"1/{row['slots']}" in line for line in table)
    assert [line.split()[:2] for line in table] == [
        ["NAME", "KIND"],
        ["llama", "llama"],
        ["test", "*"],
        ["down", "scripted"],
    ]
    assert all(len(line) <= 80 for line in table)
    box.run("kill", str(lost))
    assert "ENGINE" not in box.run("ps").stdout


def test_a_name_that_means_nothing_here_is_the_default_engine_and_no_engine_stands_twice(box: Box) -> None:
    done = box.run("check", "odd.md")
    assert "runs on: down (down), then test (replies)\n" in done.stdout
    assert "`sonnet` is no engine or model that is configured here" in done.stderr
