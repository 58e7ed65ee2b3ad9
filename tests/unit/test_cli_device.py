"""The verbs of devices, typed to a real daemon, with a real MCP server."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.daemon_box import Box

from mains.bus.mechanism import find_mechanism

SERVER = Path(__file__).with_name("bus") / "mcp_server.py"


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A home whose daemon has the device `box`."""
    box = Box(tmp_path_factory.mktemp("box"))
    added = box.run("device", "add", "box", "--read-only", "look", "--", sys.executable, str(SERVER))
    assert added.returncode == 0, added.stderr
    yield box
    box.close()


def test_a_device_is_added_listed_and_called(box: Box) -> None:
    (row,) = [row for row in box.json("device", "ls") if row["name"] == "box"]
    assert (row["health"], row["kind"], row["server"]) == ("up", "stdio", "test-server 7.0")
    assert row["pid"] > 0
    assert "box" in box.run("device", "ls").stdout
    assert box.run("device", "call", "box", "add", "a=2", "b=3").stdout == "5\n"
    assert box.run("device", "call", "box", "add", '{"a": 2, "b": 4}').stdout == "6\n"
    assert box.json("device", "call", "box", "look") == {"text": "seen", "failed": False}


def test_check_knows_the_tools_of_devices(box: Box) -> None:
    (box.folder / "uses.md").write_text("---\nname: uses\ndescription: d\ntools: [box.add, nobody.x]\n---\nUse.\n")
    report = box.json("check", "uses.md")
    assert (report["tools"], report["missing"]) == (["box.add", "call_tool", "find_tool"], ["nobody.x"])


def test_tools_say_what_may_be_repeated(box: Box) -> None:
    tools = {tool["name"]: tool for tool in box.json("device", "tools", "box")["tools"]}
    assert tools["look"]["read_only"] is True
    assert "read_only" not in tools["add"]
    shown = box.run("device", "tools", "box", "--fresh").stdout
    assert "reads" in shown
    assert "Add two numbers." in shown


def test_what_goes_wrong_is_one_line_and_an_exit_code(box: Box) -> None:
    for words, code, said in (
        (["call", "box", "fail"], 1, "error: Error executing tool fail"),
        (["call", "box", "add", "a=2"], 2, 'the arguments do not fit: "b" is a required property'),
        (["call", "box", "add", "a"], 2, "write KEY=VALUE"),
        (["call", "box", "nothing", "a=1"], 2, "the device box has no tool `nothing`"),
        (["call", "nobody", "add"], 2, "there is no device `nobody`"),
        (["rm", "nobody"], 2, "there is no device `nobody`"),
        (["add", "x"], 2, "give it a command, after `--`, or a --url"),
        (["add", "Bad Name", "--", "true"], 2, "is no name for a device"),
        (["add", "wait", "--", "true"], 2, "`wait` is a name that Mains itself uses"),
        (["add", "files", "--", "true"], 2, "`files` is a name that Mains itself uses"),
        (["add", "x", "--", "no-such-command-anywhere"], 1, "cannot be started: No such file or directory"),
        (["add", "x", "--", sys.executable, "-c", "raise SystemExit('I am broken')"], 1, "code 1: I am broken"),
        (["add", "x", "--url", "http://127.0.0.1:9/mcp"], 1, "no connection to 127.0.0.1"),
        (["import", "nowhere.json"], 2, "nowhere.json: No such file"),
    ):
        done = box.run("device", *words)
        assert said in done.stderr
        assert done.returncode == code, (words, done.stderr)
        assert "Traceback" not in done.stderr
    assert [row["name"] for row in box.json("device", "ls")] == ["box"]


def test_progress_goes_to_standard_error(box: Box) -> None:
    done = box.run("device", "call", "box", "steps", "n=2")
    assert done.stdout == "done\n"
    assert "1 of 2 step 1" in done.stderr


def test_a_file_of_a_desktop_assistant_is_imported(box: Box) -> None:
    servers = {
        "broken": {"command": "no-such-command-anywhere"},
        "Good One": {"command": sys.executable, "args": [str(SERVER)], "autoApprove": ["*"]},
        "off": {"command": "x", "disabled": True},
    }
    (box.folder / "desktop.json").write_text(json.dumps({"mcpServers": servers}))
    done = box.run("device", "import", "desktop.json")
    assert done.returncode == 1
    assert "left out: Good One: autoApprove" in done.stderr
    assert "left out: off: it is disabled there" in done.stderr
    assert "error: device broken: no-such-command-anywhere cannot be started" in done.stderr
    assert [row["name"] for row in box.json("device", "ls")] == ["box", "good-one"]
    assert box.run("device", "call", "good-one", "add", "a=1", "b=1").stdout == "2\n"
    assert box.run("device", "rm", "good-one").stdout == "device good-one is removed\n"
    assert [row["name"] for row in box.json("device", "ls")] == ["box"]


def test_what_a_device_changes_is_shown_and_accepted(box: Box) -> None:
    added = box.run("device", "add", "fickle", "--protocol", "2025-11-25", "--", sys.executable, str(SERVER))
    assert added.returncode == 0, added.stderr
    assert box.run("device", "accept", "fickle").stdout == "the tools of fickle are those that you accepted\n"
    box.run("device", "call", "fickle", "alter", "description=Look at everything.")
    box.run("device", "tools", "fickle", "--fresh")
    assert "its tools have changed: ~look" in box.run("device", "ls").stderr
    shown = box.run("device", "accept", "fickle")
    assert shown.returncode == 2 and "nothing was taken over" in shown.stderr
    assert "look: changed" in shown.stdout and "  + Look at everything." in shown.stdout
    assert "Look at" not in json.dumps(box.json("device", "tools", "fickle")["tools"])
    assert box.run("device", "accept", "fickle", "--yes").stdout.endswith("tools are accepted\n")
    assert "Look at everything." in json.dumps(box.json("device", "tools", "fickle")["tools"])
    assert box.json("device", "accept", "fickle")["changes"] == []
    assert box.run("device", "rm", "fickle").returncode == 0


def test_a_device_is_restarted_and_survives_its_daemon(box: Box) -> None:
    before = box.json("device", "ls")[0]["pid"]
    assert box.json("device", "restart", "box")["pid"] != before
    box.run("down")
    box.wait_until_free()
    (row,) = box.json("device", "ls")  # no daemon: as mains.toml has it
    assert (row["name"], row["health"], row["pid"]) == ("box", "", 0)
    assert box.run("device", "call", "box", "add", "a=2", "b=3").stdout == "5\n"


def test_what_a_device_may_touch_is_a_persons_word(box: Box) -> None:
    """A command that names a folder is added when somebody has said what it may do there."""
    notes = box.folder / "notes"
    notes.mkdir(exist_ok=True)
    serve = ["--", sys.executable, str(SERVER), str(notes)]
    (box.folder / "fs.json").write_text(
        json.dumps({"mcpServers": {"fs": {"command": sys.executable, "args": [str(SERVER), str(notes)]}}})
    )
    kind = find_mechanism().kind
    if kind:
        for words in (["add", "fs", *serve], ["import", "fs.json"]):
            done = box.run("device", *words)
            assert done.returncode in (1, 2)
            assert f"its command names {notes}, which it may not touch" in done.stderr
            assert f"--write {notes}" in done.stderr
        done = box.run("device", "import", "fs.json", "--write", str(notes))
        assert (done.returncode, f"it may change: {notes}" in done.stderr) == (0, True), done.stderr
        assert kind in box.run("device", "ls").stdout
    added = box.run("device", "add", "fs", "--unconfined", *serve)
    assert "UNCONFINED, it may touch all that you may" in added.stderr
    assert "UNCONFINED" in box.run("device", "ls").stdout
    row = next(row for row in box.json("device", "ls") if row["name"] == "fs")
    assert row["confined"]["by"] == "UNCONFINED"
    assert "device fs: UNCONFINED" in box.run("doctor").stdout
    assert "confinement: " in box.run("doctor").stdout
    assert box.run("device", "rm", "fs").returncode == 0


def test_an_untried_device_is_written_and_not_started(box: Box) -> None:
    assert box.run("device", "add", "later", "--untried", "--", "not-installed-yet").returncode == 0
    row = next(row for row in box.json("device", "ls") if row["name"] == "later")
    assert row["health"] == "idle"
    assert box.run("device", "rm", "later").returncode == 0


@pytest.mark.parametrize("schema", [True, False, {}, {"type": ["string", "null"]}, []])
def test_a_value_for_whatever_a_schema_is(schema: object) -> None:
    from mains.cli.device import _value

    assert _value("7", schema) == 7
    assert _value("x", schema) == "x"
