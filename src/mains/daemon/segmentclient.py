"""The client's part for shared segments (`segments.py`): answers are plain objects, as the routes give them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

Object = dict[str, Any]


class SegmentClient:
    """What may be asked of a daemon about segments: a part of `client.Client`."""

    @abstractmethod
    def _ask(self, path: str, **query: object) -> Any: ...

    @abstractmethod
    def _order(self, path: str, body: Mapping[str, Any]) -> Any: ...

    def segment_make(self, name: str, text: str, *, append_only: bool, account: str) -> Object:
        """Make a segment."""
        body = {"name": name, "text": text, "append_only": append_only, "account": account}
        made: Object = self._order("segments", body)
        return made

    def segment_append(self, name: str, text: str) -> Object:
        """Append a text to a segment; the segment."""
        grown: Object = self._order("segment", {"name": name, "text": text})
        return grown

    def segments(self) -> list[Object]:
        """Every segment."""
        found: list[Object] = self._ask("segments")
        return found

    def segment(self, name: str, *, start: int = 0, most: int = 0) -> Object:
        """A segment, who maps it, and its pages from `start` on (at most `most`; 0: as many as are given at once)."""
        found: Object = self._ask("segment", name=name, start=start, most=most)
        return found

    def segment_remove(self, name: str) -> Object:
        """Remove a segment; what went."""
        gone: Object = self._order("segment/remove", {"name": name})
        return gone
