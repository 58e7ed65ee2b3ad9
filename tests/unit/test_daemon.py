"""The daemon and its client: real processes, real sockets, a scripted engine."""

from __future__ import annotations

import http.client
import json
import os
import resource
import signal
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest
from tests.unit.daemon_box import Box

from mains.daemon import client as client_module
from mains.daemon import wire
from mains.daemon.guard import token_of
from mains.daemon.listener import listen_unix
from mains.errors import (
    ConfigError,
    DaemonError,
    DiskFullError,
    EngineError,
    LimitError,
    MainsError,
    Mistake,
    NotFoundError,
    ProgramError,
    Spent,
    UsageError,
)


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    made.close()


# ------------------------------------------------------------------------------------------------ what crosses


@pytest.mark.parametrize(
    "error",
    [
        NotFoundError("no such process", hint="look"),
        UsageError("no"),
        LimitError("full"),
        DiskFullError("full"),
        DaemonError("away"),
        ProgramError("a.md", [Mistake(3, "wrong"), Mistake(1, "worse")]),
        EngineError("broken", retryable=True, spent=Spent.UNKNOWN),
    ],
)
def test_an_error_comes_out_as_it_went_in(error: MainsError) -> None:
    out = wire.unpack(json.loads(json.dumps(wire.pack(error))))
    assert type(out) is type(error)
    assert (str(out), out.hint) == (str(error), error.hint)
    assert getattr(out, "mistakes", None) == getattr(error, "mistakes", None)
    assert 400 <= wire.status_of(error) < 600


def test_an_unknown_error_is_still_an_error() -> None:
    assert str(wire.unpack({"error": "KernelPanic", "text": "oh"})) == "oh"


def test_a_process_through_the_client(box: Box) -> None:
    client = box.client()
    pid = client.spawn("say.md", {"prompt": "hello"}, cwd=str(box.folder))
    settled, outcome = client.wait(pid)
    assert settled
    assert (outcome["state"], outcome["exit_code"], outcome["result"]) == ("EXITED", 0, "hello")
    assert [view["pid"] for view in client.ps(every=True)] == [pid]
    assert client.ps() == []
    assert client.show(pid)["inputs"] == {"prompt": "hello"}
    assert [entry["kind"] for entry in client.log(pid) if entry] == ["spawned", "asked", "replied", "exited"]
    assert client.verify("journal") == client.verify("ledger") == []
    exported = list(client.export())
    assert [row["seq"] for row in exported] == list(range(1, len(exported) + 1))


def test_errors_come_out_of_the_client(box: Box) -> None:
    client = box.client()
    with pytest.raises(NotFoundError, match="there is no process 99"):
        client.show(99)
    with pytest.raises(NotFoundError):
        client.wait(2**70)
    with pytest.raises(NotFoundError):
        next(client.log(99))
    with pytest.raises(ProgramError) as caught:
        client.spawn("bad.md", {}, cwd=str(box.folder))
    assert len(caught.value.mistakes) == 3
    with pytest.raises(UsageError, match="no input `nope`"):
        client.spawn("say.md", {"nope": "x"}, cwd=str(box.folder))
    assert client.ps(every=True) == []


def test_a_watch_begins_before_its_first_line(box: Box) -> None:
    client = box.client()
    notices = client.watch()
    assert next(notices)["kind"] == "watching"
    pid = box.spawn("slow")
    kinds = []
    for notice in notices:
        if notice.get("pid") == pid:
            kinds.append(notice["kind"])
        if notice.get("kind") == "exited":
            break
    assert kinds == ["spawned", "asked", "delta", "delta", "delta", "replied", "exited"]
    assert client.wait(pid)[0]


def test_a_watcher_that_hangs_up_is_freed(tmp_path: Path) -> None:
    box = Box(tmp_path, settings="watchers_max = 2")
    try:
        client = box.client()
        for _ in range(12):
            notices = client.watch()
            for _ in range(100):  # the daemon notices a hang-up a moment later
                try:
                    assert next(notices)["kind"] == "watching"
                    break
                except LimitError:
                    notices = client.watch()
            else:
                pytest.fail("the watchers were never freed")
            notices.close()  # type: ignore[attr-defined] # a generator
    finally:
        box.close()


def test_a_body_that_is_too_large_is_refused(tmp_path: Path) -> None:
    box = Box(tmp_path, settings="request_bytes_max = 1000")
    try:
        with pytest.raises(LimitError, match="request_bytes_max"):
            box.client().spawn("say.md", {"prompt": "x" * 5_000}, cwd=str(box.folder))
    finally:
        box.close()


# --------------------------------------------------------------------------------------- who starts, who ends


def test_two_first_clients_talk_to_one_daemon(box: Box) -> None:
    with ThreadPoolExecutor(6) as pool:
        greetings = list(pool.map(lambda _: box.client().hello()["pid"], range(6)))
    assert len(set(greetings)) == 1


def test_a_dead_daemons_work_goes_on(box: Box) -> None:
    pid = box.spawn("slow")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(box.client().wait, pid)
        first = box.client().hello()["pid"]
        os.kill(first, signal.SIGKILL)
        settled, outcome = waiting.result(timeout=30)
    assert settled
    assert outcome["result"] == "one two three four"
    assert box.client().hello()["pid"] != first  # and it took the place of the stale socket
    assert box.client().verify("journal") == box.client().verify("ledger") == []


def test_an_idle_daemon_ends_and_never_refuses_anybody(tmp_path: Path) -> None:
    box = Box(tmp_path, settings="idle_s = 0.05")
    try:
        pids = set()
        for number in range(8):
            pid = box.spawn(f"hello {number}")
            settled, outcome = box.client().wait(pid)
            assert (settled, outcome["result"]) == (True, f"hello {number}")
            pids.add(box.client().hello()["pid"])
            if number % 2:
                box.wait_until_free()
        assert len(pids) > 1
        box.wait_until_free()
        assert not box.home.socket.exists()
        assert "ended: idle" in (box.home.logs / "daemon.log").read_text()
    finally:
        box.close()


def test_a_mistake_in_mains_toml_is_told_at_once(box: Box) -> None:
    settings = box.home.settings()
    box.home.config.write_text("[settings]\nturns_maxx = 3\n")
    with pytest.raises(ConfigError, match="unknown setting `turns_maxx`") as caught:
        client_module.Client(box.home, settings).hello()
    assert "turns_max" in caught.value.hint
    assert not isinstance(caught.value, DaemonError), "somebody has to mend the file: starting again does not help"


def test_another_kernel_that_holds_the_home_is_named(box: Box) -> None:
    with box.home.lock(), pytest.raises(DaemonError, match=f"another kernel serves this home.*{os.getpid()}"):
        box.client().hello()


def test_a_client_that_may_not_start_says_so(box: Box) -> None:
    with pytest.raises(DaemonError, match="no daemon answers"):
        box.client(start=False).hello()


def test_a_daemon_of_another_version_gets_no_orders(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    client = box.client()
    client.hello()
    monkeypatch.setattr(client_module, "__version__", "99.0")
    with pytest.raises(DaemonError, match=r"this is 99\.0"):
        client.send(1, "x")
    assert client.down()


def test_down_ends_a_wait_and_keeps_the_process(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = box.spawn("forever")
    sent, main, respond = threading.Event(), threading.current_thread(), HTTPConnection.getresponse

    def getresponse(self: HTTPConnection) -> HTTPResponse:
        """Whoever has not asked yet when the daemon ends would start the next one, and wait for ever."""
        if threading.current_thread() is not main:
            sent.set()
        return respond(self)

    monkeypatch.setattr(HTTPConnection, "getresponse", getresponse)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(box.client().wait, pid)
        assert sent.wait(30)
        while box.client().ps()[0]["state"] != "RUNNING":
            box.client().hello()
        assert box.client().down()
        with pytest.raises(DaemonError, match="told to end"):
            waiting.result(timeout=30)
    box.wait_until_free()


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_daemon_in_order(box: Box, sign: signal.Signals) -> None:
    up = box.start("up")
    assert up.stderr is not None
    up.stderr.readline()
    box.spawn("hello")
    up.send_signal(sign)
    with up:
        up.communicate(timeout=30)
    assert up.returncode == 0
    last = json.loads(box.run("journal", "export").stdout.splitlines()[-1])
    assert last["event"]["text"] == "halt"


@pytest.mark.skipif(sys.platform != "linux", reason="prlimit is Linux's")
def test_a_kernel_that_halts_by_itself_ends_the_daemon(box: Box) -> None:
    up = box.start("up")
    assert up.stderr is not None
    up.stderr.readline()
    box.spawn("hello")
    resource.prlimit(up.pid, resource.RLIMIT_FSIZE, (0, 0))  # from now on every write of the journal fails
    with pytest.raises(MainsError):
        for _ in range(100):
            box.client(start=False).spawn("say.md", {}, cwd=str(box.folder))
    with up:
        _, err = up.communicate(timeout=30)
    assert up.returncode == 1
    assert "the kernel halted" in err


# ----------------------------------------------------------------------------------------------- who may ask


def test_the_socket_is_ours_alone(box: Box) -> None:
    box.client().hello()
    assert stat.S_IMODE(box.home.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(box.home.socket.parent.stat().st_mode) == 0o700


def test_a_socket_folder_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    with pytest.raises(ConfigError, match="mode 0700"):
        listen_unix(folder / "x.sock")
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="mode 0700"):
        listen_unix(tmp_path / "link" / "x.sock")


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with listen_unix(folder / "x.sock"):
        pass
    with listen_unix(folder / "x.sock") as listener, socket.socket(socket.AF_UNIX) as caller:
        caller.connect(listener.getsockname())
        assert caller.getpeername() == str(folder / "x.sock")


def test_a_token_that_others_can_read_is_refused(tmp_path: Path) -> None:
    token = token_of(tmp_path / "token")
    assert token_of(tmp_path / "token") == token
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    (tmp_path / "token").chmod(0o644)
    with pytest.raises(ConfigError, match="mode 0600"):
        token_of(tmp_path / "token")


def test_tcp_needs_the_token_and_a_host_that_fits(box: Box) -> None:
    up = box.start("up", "--port", "0", "--json")
    assert up.stdout is not None
    ready = json.loads(up.stdout.readline())
    port = int(ready["url"].rpartition(":")[2])
    token = Path(ready["token_file"]).read_text()

    def status_of(host: str, shown: str) -> int:
        asked = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        asked.request("GET", "/v1/hello", headers={"Host": host, "Authorization": shown})
        answered = asked.getresponse()
        answered.read()
        asked.close()
        return answered.status

    assert status_of(f"127.0.0.1:{port}", f"Bearer {token}") == 200
    assert status_of(f"[::1]:{port}", f"Bearer {token}") == 200
    assert status_of(f"localhost:{port}", f"Bearer {token}x") == 401
    assert status_of(f"localhost:{port}", "") == 401
    assert status_of("evil.example", f"Bearer {token}") == 421
    assert box.client(start=False).status()["port"] == port
    up.terminate()
    with up:
        up.communicate(timeout=30)
