"""A filter of system calls, for what Landlock (up to its version 8) does not guard: sockets with a path, limits.

Behind Unix sockets are the daemon of Mains, Docker, and D-Bus with systemd and the keyring: whoever may speak to them
as this user needs no files. So `socket(AF_UNIX)` is refused (EACCES). A pair of connected sockets is left, as
programs use it between their own processes, but not one of datagrams, which can be connected elsewhere. io_uring,
which opens sockets without that call, is said not to exist (ENOSYS). prlimit(2) is for oneself only (EPERM): a limit
of processor time would end the daemon. Programs of another architecture are killed, x32 does not exist.

Numbers: linux/seccomp.h, linux/filter.h, linux/audit.h and the table of system calls of each machine. Offsets are those
of struct seccomp_data on a little-endian machine.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000  # SECCOMP_RET_ALLOW, _KILL_PROCESS, _ERRNO
LOAD, AND, EQUAL, AT_LEAST, RETURN = (
    0x20,
    0x54,
    0x15,
    0x35,
    0x06,
)  # BPF_LD|W|ABS, ALU|AND|K, JMP|JEQ|K, JMP|JGE|K, RET|K
CALLS = {  # architecture, socket, socketpair, prlimit64
    "x86_64": (0xC000003E, 41, 53, 302),
    "aarch64": (0xC00000B7, 198, 199, 261),
}
_IO_URING_SETUP = 425
_NUMBER, _ARCH, _FIRST, _SECOND = 0, 4, 16, 24  # offsets: the call, the architecture, two arguments
_X32 = 0x40000000
_AF_UNIX, _SOCK_DGRAM, _KINDS = 1, 2, 0xF
Step = tuple[int, int, int, int]
"""Code, steps to skip when true, when false, and a value."""


def program(machine: str, *, sockets: bool = False) -> list[Step] | None:
    """The filter for a machine, with Unix sockets or without; None for a machine that is not known."""
    if machine not in CALLS:
        return None
    arch, socket, pair, prlimit = CALLS[machine]
    unknown = (RETURN, 0, 0, REFUSE | errno.ENOSYS)
    refused = [(RETURN, 0, 0, REFUSE | errno.EACCES), (RETURN, 0, 0, ALLOW)]
    looks: list[tuple[int, list[Step]]] = [
        (prlimit, [(LOAD, 0, 0, _FIRST), (EQUAL, 1, 0, 0), (RETURN, 0, 0, REFUSE | errno.EPERM), (RETURN, 0, 0, ALLOW)])
    ]
    if not sockets:
        of_pair = [(LOAD, 0, 0, _SECOND), (AND, 0, 0, _KINDS), (EQUAL, 0, 1, _SOCK_DGRAM), *refused]
        looks += [
            (_IO_URING_SETUP, [unknown]),
            (socket, [(LOAD, 0, 0, _FIRST), (EQUAL, 0, 1, _AF_UNIX), *refused]),
            (pair, [(LOAD, 0, 0, _FIRST), (EQUAL, 0, len(of_pair) - 1, _AF_UNIX), *of_pair]),
        ]
    steps = [(LOAD, 0, 0, _ARCH), (EQUAL, 1, 0, arch), (RETURN, 0, 0, KILL), (LOAD, 0, 0, _NUMBER)]
    steps += [(AT_LEAST, 0, 1, _X32), unknown]
    for call, then in looks:
        steps += [(EQUAL, 0, len(then), call), *then]
    return [*steps, (RETURN, 0, 0, ALLOW)]


def install(prctl: Callable[..., int], *, sockets: bool = False) -> bool:
    """Install the filter; whether there is one for this machine. PR_SET_NO_NEW_PRIVS must be set. Raises OSError."""
    steps = program(os.uname().machine, sockets=sockets)
    if steps is None:
        return False
    code = b"".join(struct.pack("=HBBI", *step) for step in steps)
    buffer = ctypes.create_string_buffer(code, len(code))
    fprog = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(buffer)))
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(fprog))
    return True
