"""A home of its own for a test of the daemon and the command line: a scripted engine, programs, commands.

The daemon and the commands are real processes. Its socket lies in a folder of its own, so that two tests never meet.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import mains.cli.verbs  # noqa: F401 - all verbs, before the first is typed
from mains.cli.app import run_command
from mains.daemon.client import Client
from mains.errors import DaemonError
from mains.home import Home
from mains.settings import Settings

SRC = Path(__file__).resolve().parents[2] / "src"
COMMAND_S = 30

SCRIPT = """
replies:
  - when: slow
    text: "one two three four"
    delay_ms: 1500
    chunks: 3
  - {when: forever, text: never, delay_ms: 600000}
  - when: code seven
    calls: [{name: exit, arguments: {result: bad luck, code: 7}}]
  - when: /asks/
    calls: [{name: ask, arguments: {question: "May I?"}}]
  - when: breaks
    error: {text: out of order, retryable: false, spent: nothing}
  - {when: number, text: '{"n": 7}'}
  - echo: true
"""

PROGRAMS = {
    "say.md": "---\nname: say\ndescription: Says it.\n---\nSay it.\n",
    "tools.md": "---\nname: tools\ndescription: Uses tools.\ntools: [exit, ask, files.read, code.run]\n---\nUse.\n",
    "number.md": (
        "---\nname: number\ndescription: Gives a number.\n"
        "output: {type: object, properties: {n: {type: integer}}, required: [n]}\n---\nGive a number.\n"
    ),
    "bad.md": "---\nname: Bad Name\nfoo: 3\n---\nSay {{it}}.\n",
}


class Box:
    """A home, and what is typed in it. `close` leaves no process behind."""

    def __init__(self, folder: Path, *, settings: str = "") -> None:
        self.folder = folder
        self.runtime = Path(tempfile.mkdtemp(prefix="mains-"))
        self.home = Home(folder / "home")
        self._before = dict(os.environ)
        path = os.pathsep.join(filter(None, [str(SRC), os.environ.get("PYTHONPATH", "")]))
        os.environ |= {"XDG_RUNTIME_DIR": str(self.runtime), "MAINS_HOME": str(self.home.path), "PYTHONPATH": path}
        os.environ |= {"COLUMNS": "80", "NO_COLOR": "1"}
        os.environ.pop("DASHSCOPE_API_KEY", None)
        self.home.prepare()
        toml = '[engines.test]\nkind = "scripted"\npath = "replies.yaml"\n'
        self.home.config.write_text(f'default_engine = "test"\n[settings]\n{settings}\n{toml}')
        (self.home.path / "replies.yaml").write_text(SCRIPT)
        for name, text in PROGRAMS.items():
            (folder / name).write_text(text)

    def client(self, *, start: bool = True) -> Client:
        """A client of this home's daemon."""
        return Client(self.home, self.home.settings(), start=start)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """A command that runs, in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "mains.cli", *words],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def real(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command that has ended, in a process of its own."""
        with self.start(*words) as running:
            out, err = running.communicate(timeout=COMMAND_S)
        return subprocess.CompletedProcess(words, running.returncode, out, err)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command that has ended, in this process: quicker."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), contextlib.chdir(self.folder):
            code = run_command(words)
        return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())

    def json(self, *words: str) -> Any:
        """What a command prints with --json; it must succeed."""
        done = self.run(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def spawn(self, prompt: str, program: str = "say.md") -> int:
        """A process with this prompt."""
        return self.client().spawn(program, {"prompt": prompt}, cwd=str(self.folder))

    def wait_until_free(self, timeout_s: float = 20) -> None:
        """Wait until no daemon holds the home: ask for its lock, as a kernel would."""
        with self.home.lock_file.open() as file:
            taken = threading.Thread(target=fcntl.flock, args=(file, fcntl.LOCK_SH), daemon=True)
            taken.start()
            taken.join(timeout_s)
            assert not taken.is_alive(), "the home is still held"

    def close(self) -> None:
        """End the daemon, and forget the socket's folder."""
        client = Client(self.home, Settings(request_timeout_s=10), start=False)
        with contextlib.suppress(DaemonError):
            pid = client.hello()["pid"]
            try:
                client.down()
                self.wait_until_free()
            except (DaemonError, AssertionError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.runtime, ignore_errors=True)
        os.environ.clear()
        os.environ |= self._before
