"""Quotas: what the files of a workspace may be. In bytes, in number (folders count), and each by itself.

    room = quota.of(workspace)            what is there
    room.take(bytes=..., files=...)       Refused when it would be more than is allowed

A workspace in the home is counted, all of it, whoever wrote there. In a folder that a person gave, only what calls
add is counted, since this device began: what the person keeps there is not ours to limit. A count is trusted for a
short time, and made anew before anything is refused.
"""

from __future__ import annotations

import time
from pathlib import Path

from mains.bus.devices.beneath import Root, TooManyError, walk
from mains.bus.devices.refused import Refused
from mains.settings import Settings

_TRUSTED_S = 30.0
_COUNT_S = 10.0  # a count may take so long; what is not counted by then is not there
_ROOMS_MAX = 1_000  # workspaces of which a count is kept


class Room:
    """What is in one workspace, and what may be. Used by one call at a time."""

    def __init__(self, root: Root, settings: Settings, *, counted: bool) -> None:
        self._root = root
        self._settings = settings
        self._counted = counted
        self._bytes = 0
        self._files = 0
        self._known_s = float("-inf")

    def take(self, *, bytes: int = 0, files: int = 0) -> None:
        """Count so much more, or less. Raises Refused when there is no room for it: then nothing is counted."""
        if self._counted and time.monotonic() - self._known_s > _TRUSTED_S:
            self._count()
        if self._full(bytes, files) and self._counted:
            self._count()
        if refused := self._full(bytes, files):
            raise Refused(refused)
        self.count(bytes=bytes, files=files)

    def count(self, *, bytes: int = 0, files: int = 0) -> None:
        """Count so much more, or less, whether it is allowed or not: a person did it, or it was not done after all."""
        self._bytes += bytes
        self._files += files

    def _full(self, more_bytes: int, more_files: int) -> str:
        for more, now, most, unit, name in (
            (more_bytes, self._bytes, self._settings.workspace_bytes_max, "bytes", "workspace_bytes_max"),
            (more_files, self._files, self._settings.workspace_files_max, "files", "workspace_files_max"),
        ):
            if more > 0 and now + more > most:
                return f"the workspace is full: {now:,} of {most:,} {unit} are used ({name}), {more:,} more do not fit"
        return ""

    def _count(self) -> None:
        self._bytes = self._files = 0
        self._known_s = time.monotonic()
        try:
            for entry in walk(self._root, (), time.monotonic() + _COUNT_S):
                self._files += 1
                self._bytes += entry.info.st_size if entry.is_file else 0
        except FileNotFoundError:
            return  # nothing was written yet
        except (TimeoutError, TooManyError):
            self._files = max(self._files, self._settings.workspace_files_max)


class Quota:
    """The rooms of the workspaces that calls have written to. `home`: the folder whose workspaces are counted."""

    def __init__(self, settings: Settings, home: Path | None) -> None:
        self._settings = settings
        self._home = home
        self._rooms: dict[Path, Room] = {}

    def of(self, workspace: Path) -> Room:
        """The room of a workspace."""
        room = self._rooms.pop(workspace, None)
        if room is None:
            counted = self._home is None or workspace.is_relative_to(self._home)
            room = Room(Root(workspace), self._settings, counted=counted)
        self._rooms[workspace] = room
        if len(self._rooms) > _ROOMS_MAX:
            del self._rooms[next(iter(self._rooms))]
        return room
