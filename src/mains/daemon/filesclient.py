"""The client's part for the files of processes (`files.py`): answers are plain objects, as the routes give them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

Object = dict[str, Any]


class FilesClient:
    """What may be asked of a daemon about files: a part of `client.Client`."""

    @abstractmethod
    def _ask(self, path: str, **query: object) -> Any: ...

    @abstractmethod
    def _order(self, path: str, body: Mapping[str, Any]) -> Any: ...

    def files(self, pid: int, path: str = "") -> str:
        """A folder of the workspace of a process, a line for each name."""
        return str(self._ask(f"processes/{pid}/files", folder=path)["text"])

    def files_log(self, pid: int) -> list[Object]:
        """What a process changed, oldest first."""
        found: list[Object] = self._ask(f"processes/{pid}/versions")
        return found

    def files_undo(self, pid: int, path: str = "", *, force: bool = False) -> Object:
        """Take back the last change of a process; the change that does it."""
        done: Object = self._order(f"processes/{pid}/files/undo", {"path": path, "force": force})
        return done
