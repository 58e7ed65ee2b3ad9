"""A filter of system calls: no Unix sockets. Landlock does not guard a socket that has a path (up to its version 8).

Behind such paths are the daemon of Mains, Docker, and D-Bus with systemd and the keyring: whoever may speak to them as
this user needs no files. So `socket(AF_UNIX)` is refused (EACCES). A pair of connected sockets is left, as
programs use it between their own processes, but not one of datagrams, which can be connected elsewhere. io_uring, which
opens sockets without that call, and x32 are said not to exist (ENOSYS); a program of another architecture is killed.

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
_NUMBER, _ARCH, _FIRST, _SECOND = 0, 4, 16, 24  # offsets: the call, the architecture, two arguments
_IO_URING_SETUP = 425
_X32 = 0x40000000
_AF_UNIX, _SOCK_DGRAM, _KINDS = 1, 2, 0xF

CALLS = {  # architecture, socket, socketpair
    "x86_64": (0xC000003E, 41, 53),
    "aarch64": (0xC00000B7, 198, 199),
}


def program(machine: str) -> list[tuple[int, int, int, int]] | None:
    """The filter for a machine, as (code, jump when true, jump when false, value); None for one that is not known."""
    if machine not in CALLS:
        return None
    arch, socket, pair = CALLS[machine]
    refused, unknown = REFUSE | errno.EACCES, REFUSE | errno.ENOSYS
    return [
        (LOAD, 0, 0, _ARCH),
        (EQUAL, 1, 0, arch),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, _NUMBER),
        (AT_LEAST, 13, 0, _X32),
        (EQUAL, 12, 0, _IO_URING_SETUP),
        (EQUAL, 2, 0, socket),
        (EQUAL, 3, 0, pair),
        (RETURN, 0, 0, ALLOW),
        (LOAD, 0, 0, _FIRST),  # socket
        (EQUAL, 6, 5, _AF_UNIX),
        (LOAD, 0, 0, _FIRST),  # socketpair
        (EQUAL, 0, 3, _AF_UNIX),
        (LOAD, 0, 0, _SECOND),
        (AND, 0, 0, _KINDS),
        (EQUAL, 1, 0, _SOCK_DGRAM),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, refused),
        (RETURN, 0, 0, unknown),
    ]


def refuse_unix_sockets(prctl: Callable[..., int]) -> bool:
    """Install the filter; whether there is one for this machine. PR_SET_NO_NEW_PRIVS must be set. Raises OSError."""
    steps = program(os.uname().machine)
    if steps is None:
        return False
    code = b"".join(struct.pack("=HBBI", *step) for step in steps)
    buffer = ctypes.create_string_buffer(code, len(code))
    fprog = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(buffer)))
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(fprog))
    return True
