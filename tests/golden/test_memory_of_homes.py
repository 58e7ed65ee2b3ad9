"""Memory of homes that older versions wrote: every view is drawn, and every event may be forked from."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.golden.test_homes import HOMES, open_home, unpack

from mains.errors import UsageError
from mains.kernel import audit, reckon
from mains.testing import FakeClock

NOW_MS = 1_800_000_000_000


@pytest.mark.parametrize("name", sorted(path.name.partition(".")[0] for path in HOMES.glob("v*.db.gz")))
async def test_the_memory_of_an_old_home_is_seen_and_forked(name: str, tmp_path: Path) -> None:
    unpack(name, tmp_path)
    async with open_home(tmp_path, FakeClock(NOW_MS)) as kernel:
        views = await kernel.ps(every=True)
        seen = forks = 0
        for view in views:
            assert (await kernel.mem(view.pid)).pages
            assert (await kernel.diff(views[0].pid, view.pid)).shared >= 0
            for notice in await kernel.history(view.pid):
                forks += await kernel.fork(view.pid, notice.seq) > 0
                try:
                    seen += (await kernel.seen(view.pid, notice.seq)).agree is not False
                except UsageError as error:
                    assert "no model call" in str(error)
        assert seen > 0
        assert forks > len(views)
        assert (await kernel.memory()).ratio > 1
        assert audit.verify(kernel.journal) + reckon.verify(kernel.journal) == []
