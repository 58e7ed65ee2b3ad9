"""What is left of root's powers when Mains runs as root: those over files, which Landlock bounds, and users.

With the others a cage is none: CAP_PERFMON reads the environment of every process past Landlock (mm_access() in the
kernel's fork.c), CAP_SYS_ADMIN and CAP_SYS_MODULE do what they like. Numbers: linux/capability.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Callable

PR_CAPBSET_DROP = 24
LEFT = {0, 1, 3, 4, 5, 6, 7, 10}  # CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID NET_BIND_SERVICE
_LAST = 63
_VERSION_3 = 0x20080522


def drop(prctl: Callable[..., int]) -> None:
    """Give up what is not in LEFT, for ever. A process that has no powers keeps none. Raises OSError."""
    for power in range(_LAST + 1 if os.geteuid() == 0 else 0):  # for others PR_SET_NO_NEW_PRIVS is enough
        if power not in LEFT:
            with contextlib.suppress(OSError):  # the kernel has no such power, or we have none to give up
                prctl(PR_CAPBSET_DROP, power)
    libc = ctypes.CDLL(None, use_errno=True)
    header = ctypes.create_string_buffer(struct.pack("=Ii", _VERSION_3, 0), 8)
    data = ctypes.create_string_buffer(24)
    if libc.capget(header, data) < 0:
        raise OSError(ctypes.get_errno(), "capget failed")
    mask = sum(1 << power for power in LEFT)
    words = [word & (mask if at < 3 else 0) for at, word in enumerate(struct.unpack("=6I", data.raw))]
    if libc.capset(header, ctypes.create_string_buffer(struct.pack("=6I", *words), 24)) < 0:
        raise OSError(ctypes.get_errno(), "capset failed")
