"""`kill -9` of the daemon leaves no process of a device behind, however stubborn it is."""

from __future__ import annotations

import os
import select
import signal
import sys
from pathlib import Path

import pytest
from tests.unit.daemon_box import Box

SERVER = Path(__file__).parents[1] / "unit" / "bus" / "mcp_server.py"
LIMIT_S = 10
pytestmark = [
    pytest.mark.crash,
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.platform != "linux", reason="the reaper of orphans is Linux's"),
]


def ends(pids: list[int]) -> list[int]:
    """Descriptors that become readable when these processes end (of those that live)."""
    return [os.pidfd_open(pid) for pid in pids]


def test_no_child_outlives_a_killed_daemon(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    box = Box(tmp_path)
    try:
        assert box.run("device", "add", "one", "--", sys.executable, str(SERVER)).returncode == 0
        assert box.run("device", "add", "two", "--", sys.executable, str(SERVER)).returncode == 0
        for _ in range(20 if request.config.option.torture else 3):
            kill_once(box)
    finally:
        box.close()


def kill_once(box: Box) -> None:
    """Use two devices, one of which starts a stubborn child; kill the daemon; see that all of them end."""
    stubborn = int(box.run("device", "call", "one", "offspring").stdout)
    box.run("device", "call", "two", "add", "a=1", "b=1")
    states = box.client(start=False).devices()
    firsts = [state["pid"] for state in states]
    assert len(firsts) == 2
    assert all(firsts)
    parents = [int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in firsts]
    watched = ends([stubborn, *firsts, *parents])
    with box.start("device", "call", "two", "wait", "name=x") as calling:
        assert calling.stderr is not None
        assert "one third" in calling.stderr.readline()  # the call is in flight
        os.kill(box.client(start=False).hello()["pid"], signal.SIGKILL)
        assert calling.wait(LIMIT_S) == 1
    try:
        for descriptor in watched:
            readable, _, _ = select.select([descriptor], [], [], LIMIT_S)
            assert readable, "a process of a device outlived the daemon"
    finally:
        for descriptor in watched:
            os.close(descriptor)
