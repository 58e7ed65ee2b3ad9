"""The process between the daemon and a device: it starts the device, and leaves nothing of it behind.

    python -I -S supervisor.py LEASH MEMORY_MIB CPU_S CAGE COMMAND [ARGUMENT ...]

Run as a file, with the standard library only: it starts in some hundredths of a second and imports nothing of Mains
but the files of `cage/`, which are the same. CAGE says in JSON what the device may touch (`mechanism.Cage`): before it
becomes its command, the child gives up all else, and when it cannot, it is not started. `{}`: it may touch what its
user may. The device gets a folder for temporary files of its own (TMPDIR), which is gone after its end.
Standard input, output and error are the device's; the supervisor itself keeps only the last. LEASH is its end of a
socket. It writes there, as lines of JSON, `{"pid": N}` or `{"error": TEXT}`, and `{"exit": CODE}` when the
device's first process has ended by itself (minus the signal's number for one that was killed). When the other end is
closed - the daemon wants it, or has died, however - or when the device's first process has ended, all that is left of
the device gets SIGTERM and, `GRACE_S` later, SIGKILL.

On Linux "all" means every descendant, also those that left the process group: the supervisor is their reaper
(PR_SET_CHILD_SUBREAPER, prctl(2)), so a process whose parent has ended becomes its child, and it ends when it has none.
Should the supervisor itself be killed, the device's first process dies with it (PR_SET_PDEATHSIG). Elsewhere "all" is
the process group. Limits (setrlimit(2)): RLIMIT_DATA for MEMORY_MIB, since engines like V8 reserve far more address
space than they use; RLIMIT_CPU; no core dumps. They hold for each process of the device by itself.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import select
import signal
import socket
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` takes a millisecond of each start
    from typing import Any

PR_SET_PDEATHSIG = 1  # linux/prctl.h
PR_SET_CHILD_SUBREAPER = 36
GRACE_S = 1.0  # from SIGTERM to SIGKILL
_LOOK_S = 0.02
_MIB = 1024 * 1024


def main() -> int:
    leash = socket.socket(fileno=int(sys.argv[1]))
    leash.set_inheritable(False)
    limits = int(sys.argv[2]) * _MIB, int(sys.argv[3])
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    woken, wakes = os.pipe()
    for end in (woken, wakes):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    for sign in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(sign, lambda *_: None)
    cage = json.loads(sys.argv[4])
    first, failure = _start(sys.argv[5:], limits, cage)
    _say(leash, {"error": failure} if failure else {"pid": first})
    code = _watch(first, leash, woken)
    if code is not None:
        _say(leash, {"exit": code})
    _sweep(first)
    _tidy(cage)
    return 0


_ENDED: dict[int, int] = {}


def _start(command: list[str], limits: tuple[int, int], cage: dict[str, Any]) -> tuple[int, str]:
    """Start the device: its pid, and why it cannot be started (empty: it runs)."""
    reading, writing = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            _become(command, limits, cage, parent)
        except (OSError, ValueError) as error:
            os.write(writing, str(getattr(error, "strerror", None) or error).encode()[:1000])
        finally:
            os._exit(127)
    os.close(writing)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)  # the device's streams end with the device
    os.dup2(nowhere, 1)
    told = os.read(reading, 1000)
    os.close(reading)
    return pid, told.decode(errors="replace")


def _become(command: list[str], limits: tuple[int, int], cage: dict[str, Any], parent: int) -> None:
    os.setsid()
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(127)
    signal.set_wakeup_fd(-1)
    for sign in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(sign, signal.SIG_DFL)
    memory, cpu_s = limits
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_DATA, memory)
    _limit(resource.RLIMIT_CPU, cpu_s)
    if cage.get("tmp"):
        os.environ["TMPDIR"] = _own_tmp(cage["tmp"])
    program = _found(command[0])  # before folders of PATH are closed
    _confine(cage)
    os.execv(program, command)  # noqa: S606 - a command that the user configured, without a shell


def _found(name: str) -> str:
    if "/" in name:
        return name
    for folder in os.environ.get("PATH", os.defpath).split(":"):
        path = f"{folder or '.'}/{name}"
        if os.path.isfile(path) and os.access(path, os.X_OK):  # noqa: PTH113
            return path
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def _confine(cage: dict[str, Any]) -> None:
    """Give up what the cage does not name. Raises OSError."""
    if not cage.get("kind"):
        return
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "cage"))  # noqa: PTH100, PTH118, PTH120
    import capabilities  # type: ignore[import-not-found]
    import landlock  # type: ignore[import-not-found]  # known by this folder only
    import seccomp  # type: ignore[import-not-found]

    try:
        kernel = landlock.Kernel()
        if cage["kind"] == "landlock":
            capabilities.drop(kernel.prctl)
            landlock.restrict(cage["read"], cage["write"], kernel)
        elif cage["kind"] != "bubblewrap":  # which is the command itself
            raise OSError(errno.EINVAL, f"`{cage['kind']}` is not known")
        kernel.prctl(landlock.PR_SET_NO_NEW_PRIVS, 1)
        seccomp.install(kernel.prctl, sockets=cage["sockets"])
    except OSError as error:
        raise OSError(error.errno, f"it cannot be confined: {error.strerror}") from error


def _own_tmp(folder: str) -> str:
    own = f"{folder}/{os.getpid()}"
    os.makedirs(own, mode=0o700, exist_ok=True)  # noqa: PTH103 - see above
    return own


def _tidy(cage: dict[str, Any]) -> None:
    """Throw away what processes that are no more have left in the folder of temporary files."""
    with contextlib.suppress(OSError, RecursionError):
        for name in os.listdir(cage["tmp"]) if cage.get("tmp") else ():  # noqa: PTH208
            if not _lives(name):
                import shutil

                shutil.rmtree(f"{cage['tmp']}/{name}", ignore_errors=True)


def _lives(name: str) -> bool:
    try:
        os.kill(int(name), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _limit(kind: int, value: int) -> None:
    most = resource.getrlimit(kind)[1]
    value = value if most == resource.RLIM_INFINITY else min(value, most)
    resource.setrlimit(kind, (value, value))


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _watch(first: int, leash: socket.socket, woken: int) -> int | None:
    """Until the first process ends (its code), or the leash is let go or a signal says so (None)."""
    poll = select.poll()
    poll.register(leash, select.POLLIN)
    poll.register(woken, select.POLLIN)
    while True:
        _reap()
        if first in _ENDED:
            return _ENDED[first]
        for file, _ in poll.poll():
            if file == woken:
                signs = os.read(woken, 1000)
                if any(sign != signal.SIGCHLD for sign in signs):
                    return None
            elif not _holds(leash):
                return None


def _holds(leash: socket.socket) -> bool:
    try:
        return bool(leash.recv(1000))
    except OSError:
        return False


def _reap() -> bool:
    """Take the ends of children; whether any are left."""
    try:
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            _ENDED[ended[0]] = os.waitstatus_to_exitcode(ended[1])
            while len(_ENDED) > 10_000:
                del _ENDED[next(each for each in _ENDED if each != ended[0])]
    except ChildProcessError:
        return False
    return True


def _sweep(first: int) -> None:
    """End all that is left."""
    due_s = time.monotonic() + GRACE_S
    told: set[int] = set()
    while _reap():
        left = _descendants() or ({first} if first not in _ENDED else set())
        if time.monotonic() < due_s:
            for pid in left - told:
                _kill(pid, signal.SIGTERM)
            told |= left
        else:
            for pid in left:
                _kill(pid, signal.SIGKILL)
        time.sleep(_LOOK_S)
    with contextlib.suppress(OSError):
        os.killpg(first, signal.SIGKILL)  # elsewhere than on Linux: who left its parent but not its group


def _kill(pid: int, sign: signal.Signals) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, sign)


def _descendants() -> set[int]:
    """Every process below us, from /proc (proc(5)); none where there is no such thing."""
    parents: dict[int, int] = {}
    with contextlib.suppress(OSError):
        for entry in os.listdir("/proc"):  # noqa: PTH208 - pathlib takes longer to import than this to run
            if entry.isdecimal():
                with contextlib.suppress(OSError, ValueError), open(f"/proc/{entry}/stat", "rb") as file:  # noqa: PTH123
                    parents[int(entry)] = int(file.read().rpartition(b")")[2].split()[1])
    found = {os.getpid()}
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in found and pid not in found}
        found |= more
        grown = bool(more)
    return found - {os.getpid()}


def _say(leash: socket.socket, what: dict[str, object]) -> None:
    with contextlib.suppress(OSError):
        leash.sendall(json.dumps(what).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
