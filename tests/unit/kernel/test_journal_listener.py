"""A journal whose listener breaks: its callers hear of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import mains
from mains.errors import JournalError
from mains.kernel.event import Noted
from mains.kernel.journal import Batch, Journal


async def test_callers_are_told_when_the_listener_breaks(tmp_path: Path) -> None:
    def broken(batch: Batch) -> None:
        raise AttributeError("a bug in the kernel's memory")

    journal = Journal(tmp_path / "mains.db", mains.Settings(), lambda: 5, broken)
    try:
        async with asyncio.timeout(1):
            await journal.commit(lambda tx: tx.append(0, Noted(text="x")), "note")  # it is written, and stands
            with pytest.raises(JournalError):
                await journal.commit(lambda tx: None, "the next one")
    finally:
        with pytest.raises(AttributeError):
            await journal._writer
