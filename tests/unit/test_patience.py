"""A time limit that stands still while somebody thinks."""

from __future__ import annotations

import asyncio

import pytest

from mains.patience import Patience


async def pass_s(span_s: float) -> None:
    """Let time pass."""
    await asyncio.wait([asyncio.ensure_future(asyncio.Event().wait())], timeout=span_s)


async def test_it_ends_what_takes_too_long() -> None:
    with pytest.raises(TimeoutError):
        async with Patience(0.05):
            await asyncio.Event().wait()


async def test_it_waits_for_all_who_think_and_goes_on_where_it_stood() -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    with pytest.raises(TimeoutError):
        async with Patience(0.2) as patience:
            with patience.thinking():
                with patience.thinking():
                    await pass_s(0.3)
                await pass_s(0.3)
            await asyncio.Event().wait()
    assert loop.time() - begun >= 0.8


async def test_who_thinks_after_the_end_changes_nothing() -> None:
    patience = Patience(0.05)
    with pytest.raises(TimeoutError):
        async with patience:
            await asyncio.Event().wait()
    with patience.thinking():
        pass


async def test_it_may_be_endless() -> None:
    async with Patience(float("inf")) as patience:
        with patience.thinking():
            await pass_s(0)
