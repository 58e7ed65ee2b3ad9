"""A process that is confined as a device is, by the real supervisor, and a victim beside it that is not."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mains.bus import supervisor
from mains.bus.mechanism import Mechanism, find_mechanism
from mains.bus.spec import DeviceSpec, environment_of
from mains.bus.warden import Warden

CANARY = "canary-4711"
LIMIT_S = 60
_VICTIM = """
import os, socket, sys
keys = os.environ["KEY"]
file = open(sys.argv[1])
print("ready", flush=True)
sys.stdin.read()
"""
_PREAMBLE = """
import contextlib, ctypes, errno, os, signal, socket, stat, subprocess, sys
from pathlib import Path
HOME, PERSON, OWN, WORK, VICTIM, SOCKET, ABSTRACT = {places!r}
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
def call(number, *given):
    return checked(libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in given)))
def got(what):
    print("GOT", repr(what)[:200], flush=True)
try:
    exec(sys.stdin.read())
    print("end", flush=True)
except (OSError, subprocess.SubprocessError, ValueError) as error:
    print("no:", type(error).__name__, error, flush=True)
"""


class Scene:
    """A home of Mains, a person's home with keys, another device's folder, a victim process and its sockets."""

    def __init__(self, folder: Path, mechanism: Mechanism) -> None:
        self.mechanism = mechanism
        self.person = folder / "ann"
        self.mains = self.person / "mains"
        for name in (".ssh", "notes", "mains/workspaces/7", "mains/devices/other/work", "mains/devices/box/work"):
            (self.person / name).mkdir(parents=True)
        for name in (
            *(".ssh/id", "notes/a", "mains/mains.db", "mains/secrets", "mains/token", "mains/mains.toml"),
            *("mains/devices/other/work/a", "mains/devices/box/tools.json", "mains/workspaces/7/a"),
        ):
            (self.person / name).write_text(CANARY)
        self.socket = folder / "s"
        self._listeners = [socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)]
        self._listeners[0].bind(str(self.socket))
        self.abstract = f"\0mains-{os.getpid()}-{folder.name}"
        self._listeners[1].bind(self.abstract)
        for each in self._listeners:
            each.listen()
        self.victim = subprocess.Popen(
            [sys.executable, "-S", "-c", _VICTIM, str(self.mains / "mains.db")],
            env={"KEY": CANARY},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.victim.stdout is not None
        assert self.victim.stdout.readline() == b"ready\n"

    def attack(self, code: str, **more: object) -> str:
        """What came of some lines of Python that a device runs."""
        own = self.mains / "devices" / "box"
        work = own / "work"
        places = tuple(map(str, (self.mains, self.person, own, work, self.victim.pid, self.socket, self.abstract)))
        preamble = _PREAMBLE.replace("{places!r}", repr(places))
        spec = DeviceSpec(name="box", command=sys.executable, args=("-S", "-c", preamble), **more)  # type: ignore[arg-type]  # the fields of a test
        warden = Warden(self.mains, lambda: self.mechanism)
        cage = warden.cage_of(spec)
        told, command = "{}", [spec.command, *spec.args]
        if cage is not None:
            told, command = json.dumps(cage.told()), cage.command(command, work)
            for folder in cage.private:
                folder.mkdir(parents=True, exist_ok=True)
        leash, theirs = socket.socketpair()
        with leash, theirs:
            done = subprocess.run(
                [sys.executable, "-I", "-S", supervisor.__file__, str(theirs.fileno()), "2048", "60", told, *command],
                input=code,
                text=True,
                capture_output=True,
                timeout=LIMIT_S,
                cwd=work,
                env=environment_of(spec, own=warden.own_home(spec)),
                pass_fds=(theirs.fileno(),),
                check=False,
            )
            report = leash.recv(4000).decode()
        return done.stdout.strip() or f"{report}{done.stderr[-1000:]}"

    def unharmed(self) -> bool:
        """Whether everything is as it was."""
        state = Path(f"/proc/{self.victim.pid}/stat").read_text().rpartition(")")[2].split()[0]
        whole = all(
            (self.person / name).read_text() == CANARY
            for name in (".ssh/id", "mains/mains.db", "mains/devices/other/work/a")
        )
        strangers = {path.name for path in self.mains.iterdir()} - {
            *("devices", "workspaces", "mains.db", "secrets", "token", "mains.toml")
        }
        return self.victim.poll() is None and state in "RS" and whole and not strangers

    def close(self) -> None:
        """End the victim."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.victim.pid, signal.SIGKILL)
        self.victim.wait(LIMIT_S)
        for stream in (self.victim.stdin, self.victim.stdout):
            assert stream is not None
            stream.close()
        for each in self._listeners:
            each.close()


def mechanism_named(kind: str) -> Mechanism:
    """That of this machine of this kind; without it the test is skipped, loudly."""
    found = find_mechanism() if kind == "landlock" else find_mechanism(lambda: 0)
    if found.kind != kind:
        pytest.skip(f"NO {kind.upper()} HERE: no attack on it was tried; devices are {found}")
    return found


@contextlib.contextmanager
def scene_of(folder: Path, mechanism: Mechanism, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """A scene, in which the person's home is the user's."""
    scene = Scene(Path(os.path.realpath(folder)), mechanism)
    monkeypatch.setenv("HOME", str(scene.person))
    try:
        yield scene
    finally:
        scene.close()
