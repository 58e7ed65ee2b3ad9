"""Every exception of Mains, sorted by whose fault it is.

    MainsError                      has .hint: what to do about it
      ProgramError                  the author: a program file that cannot be used (.mistakes, with lines)
      UsageError                    the caller: bad input, unknown process, a verb that does not fit the state
        NotFoundError               the caller: what was named does not exist
      SyscallError                  the program: a call it made cannot be served; the model may mend it
      LimitError                    the operator: a limit in settings or a budget is reached
      DeviceError                   the world: a device failed (.retryable)
        EngineError                 the world: a model engine failed (.retryable, .spent, .blame)
      JournalError                  the disk: nothing was acknowledged; the kernel halts
        DiskFullError               the disk is full: nothing was acknowledged; work resumes when there is room
      BackupError                   a backup cannot be made, or is damaged: nothing was left behind or restored
      ConfigError                   the operator: this home or its mains.toml cannot be booted
        HomeLockedError             another kernel serves this home
        DaemonError                 the daemon did not start, answer or agree in time
    KernelPanic                     our bug; stands outside the tree so that no handler hides it

Errors are raised, never returned, printed or turned into `None`.
"""

from __future__ import annotations

import enum
from typing import NamedTuple


class MainsError(Exception):
    """Anything that Mains reports to a person. The text says what and where; `hint` says what to do."""

    def __init__(self, text: str, *, hint: str = "") -> None:
        super().__init__(text)
        self.hint = hint


class Mistake(NamedTuple):
    """One fault in a program file: its line (1 is the first; 0 when no line is to blame) and what to change."""

    line: int
    text: str


class ProgramError(MainsError):
    """A program file that cannot be used. `mistakes` holds every fault found, in the order of their lines."""

    def __init__(self, path: str, mistakes: list[Mistake]) -> None:
        self.path = path
        self.mistakes = sorted(mistakes)
        shown = "; ".join(f"line {m.line}: {m.text}" if m.line else m.text for m in self.mistakes)
        super().__init__(f"{path}: {shown}", hint="run `mains check FILE` to see every mistake")


class UsageError(MainsError):
    """The caller asked for something that cannot be: bad input, or a verb that does not fit the state."""


class NotFoundError(UsageError):
    """What the caller named (a process, an engine, a page) does not exist."""


class SyscallError(MainsError):
    """A program's call cannot be served as it was made. Its text goes back to the model, which may mend it."""


class LimitError(MainsError):
    """A limit of `settings.py` or of a budget is reached. Nothing was started or changed."""


class DeviceError(MainsError):
    """A device failed. `retryable` says whether the same call may succeed later."""

    def __init__(self, text: str, *, hint: str = "", retryable: bool = False) -> None:
        super().__init__(text, hint=hint)
        self.retryable = retryable


class Spent(enum.StrEnum):
    """What a failed model call has cost: proven nothing, or possibly anything up to its hold."""

    NOTHING = "nothing"
    UNKNOWN = "unknown"


class Blame(enum.StrEnum):
    """What a model call failed of: the engine, the request, or a request that is too long for this engine."""

    ENGINE = "engine"
    REQUEST = "request"
    LENGTH = "length"


class Allowance(NamedTuple):
    """How much of something a backend says is left: `remaining` of `limit`, which is full again after `reset_ms`.

    `steady`: it fills all the time until then (a token bucket); else nothing comes before then (a fixed window).
    """

    limit: int
    remaining: int
    reset_ms: int
    steady: bool = True


class RateLimits(NamedTuple):
    """What a backend says of its limits, in an answer or a refusal. None: it says nothing of that.

    `tokens` are those of input and output together.
    """

    requests: Allowance | None = None
    tokens: Allowance | None = None
    input_tokens: Allowance | None = None
    output_tokens: Allowance | None = None


class EngineError(DeviceError):
    """A model call failed.

    `throttled`: it was refused because there are too many calls (RFC 6585, section 4), and `limits` is what the backend
    says of its limits. `spent` decides what becomes of its hold (voided or
    posted whole); `retry_after_s` is the time that the
    backend asked everybody to wait (RFC 9110, section 10.2.3), 0 when it named none; `blame` says whether
    another engine may serve the same request.
    """

    def __init__(
        self,
        text: str,
        *,
        retryable: bool,
        spent: Spent,
        retry_after_s: float = 0.0,
        blame: Blame = Blame.ENGINE,
        throttled: bool = False,
        limits: RateLimits | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(text, hint=hint, retryable=retryable)
        self.throttled = throttled
        self.limits = limits
        self.spent = spent
        self.blame = blame
        self.retry_after_s = retry_after_s


class JournalError(MainsError):
    """The journal could not be written or read. Nobody in the batch was acknowledged; the kernel halts."""


class DiskFullError(JournalError):
    """The disk is full. Nothing of the batch was acknowledged; new work is refused until there is room."""


class BackupError(MainsError):
    """A backup cannot be made, or what should be one is damaged. Nothing was left behind or restored."""


class ConfigError(MainsError):
    """This home, or its mains.toml, cannot be booted."""


class HomeLockedError(ConfigError):
    """Another kernel serves this home. Two kernels never share one."""


class DaemonError(ConfigError):
    """The daemon did not start or answer in time."""


class KernelPanic(Exception):  # noqa: N818 - a panic is not an error that anybody handles
    """A rule that must hold inside the kernel does not. Always our bug."""
