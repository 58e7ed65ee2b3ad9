"""The tools of a device as its user accepted them, beside those that it lists now. Pure, but for `load` and `store`.

Adding a device accepts what it lists then. What it lists later is another thing: a description is read by models, and
a schema says what a call can do. So models are shown what was accepted. A tool that has changed since is shown as it
was, and each of its calls asks a person; a new one is offered to nobody; until `mains device accept` has taken the list
over. A device with `trust_hints` is taken at its word.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from mains.bus.listing import Entry, Listing
from mains.kernel.ports import Tool

_FILE_BYTES_MAX = 128 * 1024 * 1024
_encode = msgspec.json.Encoder(order="deterministic").encode


class Change(msgspec.Struct, frozen=True):
    """How one tool differs: `~` changed, `+` new, `-` gone; as it was accepted, and as it is now."""

    kind: Literal["~", "+", "-"]
    name: str
    before: Tool | None = None
    after: Tool | None = None


class Accepted(msgspec.Struct, frozen=True, omit_defaults=True):
    """The list that was accepted, and the newest one."""

    accepted: Listing
    newest: Listing

    def told(self, newest: Listing, *, trusted: bool) -> Accepted:
        """After the device has listed its tools. A list that shows models the same is taken over."""
        same = newest.digest == self.accepted.digest
        return Accepted(newest if trusted or same else self.accepted, newest)

    @property
    def changes(self) -> tuple[Change, ...]:
        """What `mains device accept` would take over, by name."""
        old, new = self.accepted.by_name(), self.newest.by_name()
        return tuple(
            Change(_kind(old.get(name), new.get(name)), name, _tool(old.get(name)), _tool(new.get(name)))
            for name in sorted(old.keys() | new.keys())
            if _tool(old.get(name)) != _tool(new.get(name))
        )

    @property
    def changed(self) -> frozenset[str]:
        """The names of those that were accepted and differ now."""
        return frozenset(change.name for change in self.changes if change.kind == "~")

    @property
    def offered(self) -> Listing:
        """What models are shown: what was accepted, as far as the device still has it."""
        here = self.newest.by_name()
        entries = tuple(each for each in self.accepted.entries if each.tool.name in here)
        return msgspec.structs.replace(self.newest, entries=entries)


def difference(changes: tuple[Change, ...], chars_max: int) -> str:
    """Changes in a line: `~log +push -old`."""
    return " ".join(f"{change.kind}{change.name}" for change in changes)[:chars_max]


def _kind(before: Entry | None, after: Entry | None) -> Literal["~", "+", "-"]:
    return "+" if before is None else "-" if after is None else "~"


def _tool(entry: Entry | None) -> Tool | None:
    return entry.tool if entry is not None else None


def load(path: Path, of: str = "") -> Accepted | None:
    """What was kept of this very command or URL; None when there is none (then the device is asked, and its list
    accepted)."""
    try:
        if path.stat().st_size > _FILE_BYTES_MAX:
            return None
        kept = msgspec.json.decode(path.read_bytes(), type=Accepted)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return kept if kept.accepted.of == kept.newest.of == of else None


def store(path: Path, accepted: Accepted) -> None:
    """Keep it. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(_encode(accepted))
    new.replace(path)
