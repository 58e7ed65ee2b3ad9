"""The verbs of segments, typed as people type them, on a real home with a real daemon."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.daemon_box import Box

from mains.cli import segment as verbs


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path, settings="segment_page_bytes_max = 100")
    (tmp_path / "reader.md").write_text(
        "---\nname: reader\ndescription: reads\nsegments: [brief]\ntools: [append(brief), ask]\n---\nRead.\n"
    )
    yield made
    made.close()


def test_a_segment_is_made_read_and_removed(box: Box) -> None:
    (box.folder / "brief.md").write_text("".join(f"rule {n}\r\n" for n in range(30)))
    made = box.json("segment", "create", "brief", "--file", "brief.md", "--append-only")
    assert made == {"name": "brief", "account": "home", "mode": "append-only", "pages": 3, "bytes": 230}
    told = box.run("segment", "append", "brief", "--text", "one more rule")
    assert told.stdout == "segment brief (account home, append-only): 4 pages, 243 bytes\n"
    [line] = box.run("segment", "ls").stdout.splitlines()[1:]
    assert line.split() == ["brief", "home", "append-only", "4", "243"]
    shown = box.json("segment", "show", "brief")
    assert [page["number"] for page in shown["shown"]] == [0, 1, 2, 3]
    assert "".join(page["text"] for page in shown["shown"]).startswith("rule 0\nrule 1\n")
    assert box.run("segment", "show", "brief", "--page", "3").stdout == "one more rule\n"
    assert "a person" in box.run("segment", "show", "brief").stdout
    pid = box.json("run", "reader.md", "prompt=asks", "--detach")["pid"]  # it asks a person, so that it lives
    refused = box.run("segment", "rm", "brief")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert f"segment brief is mapped by process {pid}" in refused.stderr
    assert f"mapped by: {pid}" in box.run("segment", "show", "brief").stdout
    assert verbs.complete_segments("br") == ["brief"] and verbs.complete_segments("x") == []
    box.run("kill", str(pid))
    assert box.json("segment", "rm", "brief") == {"name": "brief", "pages": 4, "erased": True}
    assert box.json("segment", "ls") == []


def test_what_is_wrong_is_told_and_nothing_is_made(box: Box) -> None:
    (box.folder / "bad.bin").write_bytes(b"\xff\xfe")
    for words, error in (
        (["create", "brief"], "segment brief would be empty for ever: it is read-only"),
        (["create", "Brief", "--text", "x"], "`Brief` is no name for a segment"),
        (["create", "brief", "--file", "bad.bin"], "bad.bin: not UTF-8 text (line 1)"),
        (["create", "brief", "--file", "gone.txt"], "gone.txt: no such file"),
        (["create", "brief", "--text", "x", "--file", "bad.bin"], "give either --file or --text"),
        (["create", "brief", "--text", "x", "--account", "zoe"], "there is no account `zoe`"),
        (["append", "brief", "--text", "x"], "there is no segment `brief`"),
        (["show", "brief"], "there is no segment `brief`"),
        (["rm", "brief"], "there is no segment `brief`"),
    ):
        done = box.run("segment", *words)
        assert done.returncode == 2 and error in done.stderr, words
    lost = box.run("run", "reader.md")
    assert lost.returncode == 2 and "there is no segment `brief`" in lost.stderr
    other = box.run("run", "say.md", "prompt=x", "--segment", "map")
    assert other.returncode == 2 and "there is no segment `map`" in other.stderr
    assert box.json("segment", "ls") == [] and box.json("ps", "--all") == []


def test_run_maps_what_it_is_given(box: Box) -> None:
    for name in ("brief", "map"):
        box.json("segment", "create", name, "--text", f"the {name}")
    done = box.json("run", "say.md", "prompt=hello", "--segment", "brief", "--segment", "map")
    messages = box.json("show", str(done["pid"]))["messages"]
    assert [message["text"] for message in messages if message.get("kind") == "segment"] == [
        "[Shared segment brief, page 0]\nthe brief",
        "[Shared segment map, page 0]\nthe map",
    ]


def test_check_shows_the_segments(box: Box) -> None:
    assert box.json("check", "reader.md")["segments"] == ["brief"]
    assert "maps: segment:brief\n" in box.run("check", "reader.md").stdout


def test_segments_survive_a_killed_daemon(box: Box) -> None:
    box.json("segment", "create", "brief", "--text", "kept")
    os.kill(box.client().hello()["pid"], signal.SIGKILL)
    box.wait_until_free()
    assert box.run("segment", "show", "brief", "--page", "0").stdout == "kept\n"


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("segments: [Brief]", "is no name for a segment"),
        ("segments: {a: b}", "must be a text or a list of texts"),
        (f"segments: [{', '.join(f's{n}' for n in range(17))}]", "at most 16 may be mapped (process_segments_max)"),
        ("tools: [append]", "`append` must say which segments: `append(brief)`"),
        ("tools: [append(Brief)]", "is no name for a segment"),
    ],
)
def test_a_program_that_names_a_segment_wrongly_is_told(box: Box, line: str, error: str) -> None:
    (box.folder / "p.md").write_text(f"---\nname: p\ndescription: p\n{line}\n---\nDo.\n")
    done = box.run("check", "p.md")
    assert done.returncode == 2 and error in done.stderr and "p.md:4:" in done.stderr
