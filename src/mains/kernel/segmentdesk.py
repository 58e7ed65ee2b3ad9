"""The desk for shared segments: what a person may do with them, and see of them. A part of `desk.Desk`.

Texts are cut into pages here, off the event loop; each order is one transaction.
"""

from __future__ import annotations

import asyncio

import msgspec

from mains.errors import NotFoundError, UsageError
from mains.kernel import segment, segments
from mains.kernel.care import Care
from mains.kernel.context import whole_text
from mains.kernel.main import Kernel
from mains.kernel.segments import Shared
from mains.kernel.views import stamp

PAGES_SHOWN_MAX = 1_000


class SegmentView(msgspec.Struct, frozen=True):
    """A segment. `bytes` are those of its texts."""

    name: str
    account: str
    mode: str
    pages: int
    bytes: int


class SegmentPage(msgspec.Struct, frozen=True):
    """A page of a segment: its number, its name in the page store, its text, and who appended it when (`process` None:
    a person)."""

    number: int
    page: str
    bytes: int
    process: int | None
    program: str
    account: str
    at: str
    text: str


class SegmentDetail(msgspec.Struct, frozen=True):
    """A segment, the live processes that map it, and some of its pages."""

    segment: SegmentView
    mapped_by: list[int]
    shown: list[SegmentPage]


class SegmentRemoval(msgspec.Struct, frozen=True):
    """A segment was removed. `erased`: what nobody else names of it is erased already; else that goes on."""

    name: str
    pages: int
    erased: bool


class SegmentDesk:
    """What may be asked about segments. Raises UsageError, NotFoundError, LimitError."""

    _kernel: Kernel
    _care: Care

    async def segment_make(
        self, name: str, text: str = "", *, append_only: bool = False, account: str = ""
    ) -> SegmentView:
        """Make a segment with this content: the only one that it gets, unless it is `append_only`.

        It belongs to `account` (empty: the home): processes of that and of all accounts below it may map it.
        """
        settings = self._kernel.settings
        parts = await self._parts(name, text, account)
        made = await self._kernel.order(
            lambda tx: segments.make(tx, settings, name, account, parts, append_only=append_only), "segment make"
        )
        return self._view(made)

    async def segment_append(self, name: str, text: str) -> SegmentView:
        """Append a text to a segment, as pages."""
        settings = self._kernel.settings
        parts = await self._parts(name, text)
        grown = await self._kernel.order(lambda tx: segments.extend(tx, settings, name, parts), "segment append")
        return self._view(grown)

    async def segments(self) -> list[SegmentView]:
        """Every segment, by name."""
        return await asyncio.to_thread(
            lambda: [self._view(Shared(*row)) for row in self._kernel.journal.rows("segment_all")]
        )

    async def segment(self, name: str, start: int = 0, most: int = PAGES_SHOWN_MAX) -> SegmentDetail:
        """A segment with its pages from `start` on, at most `most` of them."""
        return await asyncio.to_thread(self._detail, name, start, min(most, PAGES_SHOWN_MAX))

    async def segment_remove(self, name: str) -> SegmentRemoval:
        """Remove a segment which no live process maps. Whoever has read it keeps the pages."""
        gone = await self._kernel.order(lambda tx: segments.remove(tx, name), "segment rm")
        return SegmentRemoval(gone.name, gone.pages, await self._care.erase())

    async def _parts(self, name: str, text: str, account: str = "") -> list[str]:
        for what, given in (("name", name), ("text", text), ("account", account)):
            if whole_text(given) != given:
                raise UsageError(f"the {what} is no Unicode text: it holds half a character")
        most = self._kernel.settings.input_bytes_max
        if len(text.encode()) > most:
            raise UsageError(f"the text is larger than {most:,} bytes (input_bytes_max)", hint="append it in parts")
        page_bytes = self._kernel.settings.segment_page_bytes_max
        return await asyncio.to_thread(lambda: list(segment.cut(text, page_bytes)))

    def _view(self, found: Shared) -> SegmentView:
        mode = "append-only" if found.append_only else "read-only"
        account = next((row[1] for row in self._kernel.journal.rows("account_place", found.account)), "")
        return SegmentView(found.name, account, mode, found.pages, found.bytes)

    def _detail(self, name: str, start: int, most: int) -> SegmentDetail:
        journal = self._kernel.journal
        with journal.snapshot():
            found = segments.named(journal.rows, name)
            shown = [
                SegmentPage(
                    event.number, event.page, event.bytes, event.process or None, event.program, event.account,
                    stamp(at_ms), text,
                )
                for text, at_ms, event in segments.told(journal.rows, found.id, start, most)
            ]  # fmt: skip
            if start and not shown:
                raise NotFoundError(f"segment {name} has no page {start}: it has {found.pages}")
            return SegmentDetail(self._view(found), segments.mappers(journal.rows, found.id), shown)
