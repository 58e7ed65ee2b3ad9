"""Landlock: a process gives up all files but some, for itself and everything that it starts, for ever.

    version()                  what the kernel has; 0: nothing
    restrict(read, write)      from now on; raises OSError, and then nothing may be started

The numbers are those of linux/landlock.h and of the kernel's Documentation/userspace-api/landlock.rst; system calls
444 to 446 have the same numbers on nearly every architecture. The kernel's version decides what is asked: 1 files,
2 renames between folders, 3 truncation, 5 ioctl of devices, 6 signals and abstract sockets. 4 (TCP) is not used:
a device is there to reach something.

A rule is made of an open file, not of a name, so a link that somebody puts into its place later changes nothing. One
that stands there already does: a path is used only when what it opens is really called so (`/proc/self/fd`).
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterable

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
CREATE_RULESET_VERSION = 1
RULE_PATH_BENEATH = 1
PR_SET_NO_NEW_PRIVS = 38

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_DIR, REMOVE_FILE = 1 << 4, 1 << 5
MAKE_CHAR, MAKE_DIR, MAKE_REG, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK, MAKE_SYM = (1 << bit for bit in range(6, 13))
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
SCOPE_ABSTRACT_UNIX_SOCKET, SCOPE_SIGNAL = 1 << 0, 1 << 1

OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
"""What a rule about a single file may hold."""
READ = EXECUTE | READ_FILE | READ_DIR
WRITE = (
    READ | WRITE_FILE | TRUNCATE | REMOVE_DIR | REMOVE_FILE | REFER
    | MAKE_DIR | MAKE_REG | MAKE_SOCK | MAKE_FIFO | MAKE_SYM
)  # fmt: skip
NODE = READ_FILE | WRITE_FILE | TRUNCATE | IOCTL_DEV
NODES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


class Kernel:
    """The two doors into the kernel that are needed; a test may put another in their place."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.syscall.restype = ctypes.c_long

    def call(self, number: int, *arguments: int | bytes) -> int:
        """A system call. Raises OSError."""
        given = [ctypes.c_char_p(each) if isinstance(each, bytes) else ctypes.c_long(each) for each in arguments]
        return self._checked(int(self._libc.syscall(ctypes.c_long(number), *given)))

    def prctl(self, option: int, *arguments: int) -> int:
        """prctl(2), whose number differs between architectures. Raises OSError."""
        padded = [ctypes.c_ulong(each) for each in (*arguments, 0, 0, 0, 0)[:4]]
        return self._checked(int(self._libc.prctl(ctypes.c_int(option), *padded)))

    def _checked(self, result: int) -> int:
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return result


def version(kernel: Kernel | None = None) -> int:
    """The version of the kernel's interface; 0 where there is none, or it is switched off."""
    try:
        return (kernel or Kernel()).call(CREATE_RULESET, 0, 0, CREATE_RULESET_VERSION)
    except OSError:
        return 0


def handled(abi: int) -> tuple[int, int]:
    """Rights about files, and scopes, that a kernel of this version knows: all of them are taken away."""
    files = (1 << 13) - 1
    for since, right in ((2, REFER), (3, TRUNCATE), (5, IOCTL_DEV)):
        files |= right if abi >= since else 0
    return files, (SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL) if abi >= 6 else 0


def ruleset_attr(abi: int) -> bytes:
    """struct landlock_ruleset_attr, as long as this version has it: handled_access_fs, handled_access_net, scoped."""
    files, scopes = handled(abi)
    return struct.pack("=QQQ", files, 0, scopes)[: 24 if abi >= 6 else 16 if abi >= 4 else 8]


def path_beneath_attr(rights: int, descriptor: int) -> bytes:
    """struct landlock_path_beneath_attr: allowed_access and parent_fd, packed."""
    return struct.pack("=Qi", rights, descriptor)


def restrict(read: Iterable[str], write: Iterable[str], kernel: Kernel | None = None) -> None:
    """Leave this process, and what it becomes, no files but those below `read`, `write`, and some of /dev.

    A path that is not there is passed over. Raises OSError when the kernel has no Landlock or refuses.
    """
    kernel = kernel or Kernel()
    abi = version(kernel)
    if not abi:
        raise OSError(errno.ENOSYS, "the kernel has no Landlock")
    attr = ruleset_attr(abi)
    ruleset = kernel.call(CREATE_RULESET, attr, len(attr), 0)
    try:
        for paths, rights in ((read, READ), (write, WRITE), (NODES, NODE)):
            for path in paths:
                _allow(kernel, ruleset, path, rights & handled(abi)[0])
        kernel.prctl(PR_SET_NO_NEW_PRIVS, 1)
        kernel.call(RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(kernel: Kernel, ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    try:
        if os.readlink(f"/proc/self/fd/{descriptor}") != path:  # noqa: PTH115 - see supervisor.py
            return  # a link stands there that was none when the rules were made
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= OF_FILES
        kernel.call(ADD_RULE, ruleset, RULE_PATH_BENEATH, path_beneath_attr(rights, descriptor), 0)
    finally:
        os.close(descriptor)
