"""`kill -9` while a device asks a person: the question is gone, its call is in doubt or is made (and asked) again."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.unit.daemon_box import Box

SERVER = Path(__file__).parents[1] / "unit" / "bus" / "mcp_server.py"
LIMIT_S = 60
PROGRAM = "---\nname: careful\ndescription: Asks.\ntools: [box.*]\n---\nBe careful.\n"
SCRIPT = "replies:\n  - {turn: 1, calls: [{name: box.careful, arguments: {}}]}\n  - {text: done}\n"
pytestmark = [pytest.mark.crash, pytest.mark.timeout(600)]


def until(box: Box, pid: int, state: str, reason: str) -> dict[str, Any]:
    """What `show` says of a process when it is in a state."""
    client = box.client()
    end_s = time.monotonic() + LIMIT_S
    while True:
        shown: dict[str, Any] = client.show(pid)
        if shown["state"] == state and shown["reason"].startswith(reason):
            return shown
        assert time.monotonic() < end_s, shown
        client.wait_once(pid, 0.2)


def kill(box: Box) -> None:
    """End the daemon as no program can help."""
    os.kill(box.client(start=False).hello()["pid"], signal.SIGKILL)
    box.wait_until_free()


@pytest.mark.parametrize("repeatable", [False, True])
def test_a_question_does_not_outlive_its_daemon(tmp_path: Path, repeatable: bool) -> None:
    box = Box(tmp_path)
    try:
        (tmp_path / "careful.md").write_text(PROGRAM)
        (box.home.path / "replies.yaml").write_text(SCRIPT)
        more = ("--repeatable", "careful") if repeatable else ()
        added = box.run("device", "add", "box", *more, "--", sys.executable, str(SERVER))
        assert added.returncode == 0, added.stderr
        assert box.run("grant", "add", "box.*").returncode == 0
        pid = box.spawn("go", "careful.md")
        for _ in range(2):
            shown = until(box, pid, "RUNNING", "human")
            assert shown["open_calls"][0]["question"].endswith('Its words: "really?"')
            kill(box)
            if not repeatable:
                shown = until(box, pid, "STOPPED", "in doubt")
                assert shown["open_calls"][0]["question"] == ""
                assert "answer `retry`, `skip` or `done=JSON`" in box.run("answer", str(pid), "ok=true").stderr
                assert box.run("answer", str(pid), "retry").returncode == 0
        until(box, pid, "RUNNING", "human")
        assert "does not fit" in box.run("answer", str(pid), "ok=maybe").stderr
        assert box.run("answer", str(pid), "ok=true").returncode == 0
        outcome = box.json("wait", str(pid))
        assert outcome["result"] == "done"
        verified = box.run("journal", "verify")
        assert verified.returncode == 0, verified.stdout + verified.stderr
        logs = box.run("logs", str(pid)).stdout
        assert "sure: True" in logs
        assert "the device box asks a person" in logs
    finally:
        box.close()
