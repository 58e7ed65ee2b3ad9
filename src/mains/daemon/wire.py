"""How an error crosses: `{"error": class, "text", "hint", ...}` with a fitting HTTP status. Imports are light.

The client raises the same class with the same text and hint. `refused` is set when nothing of the request was done
because the daemon was ending: it may be made again, to the next daemon.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mains import errors
from mains.errors import (
    ConfigError,
    DaemonError,
    DeviceError,
    DiskFullError,
    EngineError,
    JournalError,
    LimitError,
    MainsError,
    Mistake,
    NotFoundError,
    ProgramError,
    Spent,
    UsageError,
)

END = {"end": True}
"""The last line of a stream that has said everything."""

_STATUS: tuple[tuple[type[MainsError], int], ...] = (
    (NotFoundError, 404),
    (UsageError, 400),
    (ProgramError, 422),
    (LimitError, 429),
    (DiskFullError, 507),
    (JournalError, 500),
    (DaemonError, 503),
    (ConfigError, 500),
    (DeviceError, 502),
)


def status_of(error: MainsError) -> int:
    """The HTTP status that fits an error."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def pack(error: MainsError, *, refused: bool = False) -> dict[str, Any]:
    """An error as a JSON object."""
    packed: dict[str, Any] = {"error": type(error).__name__, "text": str(error), "hint": error.hint}
    if isinstance(error, ProgramError):
        packed |= {"path": error.path, "mistakes": [list(mistake) for mistake in error.mistakes]}
    if isinstance(error, DeviceError):
        packed["retryable"] = error.retryable
    return packed | ({"refused": True} if refused else {})


def unpack(packed: Mapping[str, Any]) -> MainsError:
    """The error that `pack` packed; an unknown class becomes a DaemonError with its text."""
    kind = getattr(errors, str(packed.get("error")), None)
    text, hint = str(packed.get("text", "")), str(packed.get("hint", ""))
    if not isinstance(kind, type) or not issubclass(kind, MainsError):
        return DaemonError(text, hint=hint)
    if issubclass(kind, ProgramError):
        return kind(str(packed["path"]), [Mistake(int(line), str(told)) for line, told in packed["mistakes"]])
    if issubclass(kind, EngineError):
        return kind(text, retryable=bool(packed.get("retryable")), spent=Spent.UNKNOWN, hint=hint)
    return kind(text, hint=hint)
