"""By what a device is confined on this machine - Landlock, else bubblewrap, else nothing - and what a start is told.

Landlock needs no privilege and no program: the kernel has it (Linux 5.13, when it is switched on). bubblewrap (`bwrap`)
needs a kernel that gives namespaces to its users. Whether it works is found by running it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mains.bus.cage import landlock
from mains.bus.confinement import Rules, advice, system_folders

_TRY_S = 5.0
_SCOPES = 6
UNCONFINED = "UNCONFINED"
NOTHING = "this machine has neither Landlock nor a bubblewrap that works"
_POWERS = (
    *("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID"),
    "CAP_NET_BIND_SERVICE",
)
_LINKS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")  # into /usr, on most systems


class Mechanism(NamedTuple):
    """`version`: that of Landlock. `program`: that of bubblewrap."""

    kind: Literal["landlock", "bubblewrap", ""]
    version: int = 0
    program: str = ""

    @property
    def weakness(self) -> str:
        """What it does not keep a device from, in a few words."""
        if self.kind == "landlock" and self.version < _SCOPES:
            return "a device may signal processes of its user, also the daemon (Linux 6.12 has more)"
        return "" if self.kind else NOTHING

    def __str__(self) -> str:
        return f"Landlock, version {self.version}" if self.kind == "landlock" else self.kind or UNCONFINED


def find_mechanism(
    landlock_version: Callable[[], int] = landlock.version, which: Callable[[str], str | None] = shutil.which
) -> Mechanism:
    """The best that works here."""
    if sys.platform != "linux":
        return Mechanism("")
    if version := landlock_version():
        return Mechanism("landlock", version)
    program = which("bwrap")
    if program and _works(program):
        return Mechanism("bubblewrap", program=program)
    return Mechanism("")


def _works(program: str) -> bool:
    words = bubblewrap(program, Rules(tuple(system_folders()), ()), "/", ["true"])
    try:
        return subprocess.run(words, timeout=_TRY_S, capture_output=True, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def bubblewrap(program: str, rules: Rules, folder: str, command: Sequence[str]) -> list[str]:
    """The command within bubblewrap: a system of files that holds what the rules name, and nothing else."""
    words = [program, "--die-with-parent", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    if os.geteuid() == 0:  # root keeps what `cage/capabilities.py` leaves it
        words += ["--cap-drop", "ALL", *(word for power in _POWERS for word in ("--cap-add", power))]
    words += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]  # noqa: S108 - of its own
    binds = [(path, "--ro-bind-try") for path in rules.read if path != "/proc"]
    binds += [(path, "--bind-try") for path in rules.write]
    for path, how in sorted(binds):  # a folder before what lies in it
        words += [how, path, path]
    for link in _LINKS:
        if Path(link).is_symlink():
            words += ["--symlink", str(Path(link).readlink()), link]
    return [*words, "--chdir", os.path.realpath(folder), "--", *command]


class Cage(NamedTuple):
    """What one start of a device is confined to. `private`: folders of its own, made when they are missing."""

    mechanism: Mechanism
    rules: Rules
    private: Sequence[Path]
    tmp: Path | None
    sockets: bool = False

    def told(self) -> dict[str, Any]:
        """For the supervisor, as JSON."""
        return {
            "kind": self.mechanism.kind,
            "read": self.rules.read,
            "write": self.rules.write,
            "tmp": str(self.tmp or ""),
            "sockets": self.sockets,
        }

    def command(self, command: Sequence[str], folder: Path) -> list[str]:
        """What the supervisor starts."""
        if self.mechanism.kind != "bubblewrap":
            return [*command]
        return bubblewrap(self.mechanism.program, self.rules, str(folder), command)

    def advice(self, said: str, name: str) -> str:
        """What to grant, going by what the device said; empty when nothing is known, or it is not confined."""
        return advice(said, self.rules, name) if self.mechanism.kind else ""
