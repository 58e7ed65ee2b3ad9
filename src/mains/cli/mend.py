"""What `doctor --fix` mends. Nothing here can lose what the journal holds.

    find(home, settings)      what is to be mended, each with the way to do it

`alone`: only while no daemon holds the home (its lock is taken for it). A journal that does not verify is not touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
import stat
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from mains.errors import JournalError

if TYPE_CHECKING:
    from mains.home import Home
    from mains.kernel.journal import Journal
    from mains.settings import Settings

T = TypeVar("T")
_DAY_S = 86_400
_ROWS = 1_000  # erased in one commit: nobody waits
_SQLITE_PAGE_BYTES = 4_096
_FREE_BYTES_MIN = 16 * 1024 * 1024  # less than this is not worth writing the database anew
RESTORE = "restore a backup: mains restore FILE --home NEW"


class Mend(NamedTuple):
    """What is amiss (`told`), and what mends it; `wrong` when it does harm as it is."""

    what: str
    told: str
    do: Callable[[], None]
    alone: bool = False
    wrong: bool = False


def find(home: Home, settings: Settings) -> Iterator[Mend]:
    """What can be mended safely, in the order in which to do it. Changes nothing."""
    if not home.path.is_dir() or not home.writable or home.path.stat().st_uid != os.getuid():
        return
    yield from _modes(home)
    for folder in (home.workspaces, home.logs):
        if not folder.exists():
            yield Mend("folder", f"{folder} is missing", partial(folder.mkdir, 0o700, exist_ok=True))
    yield from _left_over(home, settings)
    if home.database.exists():
        yield from _database(home, settings)


def _modes(home: Home) -> Iterator[Mend]:
    """What others than the owner may read."""
    folders = [home.path, home.workspaces, home.logs]
    files = [*home.path.glob("mains.db*"), home.token_file, home.lock_file, *home.logs.glob("*")]
    for paths, mode in ((folders, 0o700), (files, 0o600)):
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                info = path.lstat()
                known = stat.S_ISDIR(info.st_mode) if mode == 0o700 else stat.S_ISREG(info.st_mode)
                if known and info.st_mode & 0o077 and info.st_uid == os.getuid():
                    told = f"{path} has mode {stat.S_IMODE(info.st_mode):o}, not {mode:o}"
                    yield Mend("mode", told, partial(path.chmod, mode), wrong=path == home.path)


def _left_over(home: Home, settings: Settings) -> Iterator[Mend]:
    """What a crash left: a socket without a daemon, files that were being written; copies that are old."""
    if home.socket.exists() and not home.held():
        told = f"{home.socket} belongs to a daemon that is gone"
        yield Mend("socket", told, partial(home.socket.unlink, missing_ok=True), alone=True)
    half = [*home.path.glob("mains.db.v*.bak.part"), *home.path.glob(".mains.toml.*")]
    half += [*home.path.glob(".mains-backup-*"), *home.path.parent.glob(".mains-restore-*")]
    for path in half:
        if _age_s(path) > _DAY_S:
            yield Mend("left over", f"{path} was never finished", partial(_delete, path))
    for path in home.path.glob("mains.db.v*.bak"):
        if _age_s(path) > settings.retention_days * _DAY_S:
            told = f"{path}, the copy of an old version, is older than {settings.retention_days} days (retention_days)"
            yield Mend("old copy", told, partial(_delete, path))


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.lstat().st_mtime
    except OSError:
        return 0


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _database(home: Home, settings: Settings) -> Iterator[Mend]:
    """What the database carries along. Looked at only while no daemon works with it."""
    from mains.kernel.schema import SCHEMA_VERSION, stored_version

    wal = home.path / f"{home.database.name}-wal"
    most = 4 * settings.wal_pages * _SQLITE_PAGE_BYTES
    work = partial(_work, home, settings)
    with contextlib.suppress(FileNotFoundError):
        if (size := wal.stat().st_size) > most:
            told = f"{wal} has {size:,} bytes, of {most:,} (4 x wal_pages): somebody has been reading for long"
            yield Mend("write-ahead log", told, partial(work, _nothing), alone=True, wrong=True)  # opening it is enough
    if home.held() or stored_version(home.database) != SCHEMA_VERSION:
        return
    with home.lock():
        left, unnamed, free = asyncio.run(_journal(home, settings, _look))
    if left:
        told = f"{left} processes were removed and are not yet erased"
        yield Mend("erase", told, partial(work, _erase), alone=True)
    if unnamed:
        yield Mend("pages", f"{unnamed} pages are named by nobody", partial(work, _orphans), alone=True)
    if free > max(_FREE_BYTES_MIN, home.database.stat().st_size // 4):
        yield Mend(
            "free pages", f"{free:,} bytes of {home.database} are free", partial(_compact, home, settings), alone=True
        )


async def _journal(home: Home, settings: Settings, do: Callable[[Journal], Awaitable[T]]) -> T:
    """Do something with the journal of a home that no kernel serves."""
    from mains.kernel.clock import SystemClock
    from mains.kernel.journal import Journal

    journal = Journal(home.database, settings, SystemClock().now_ms, lambda _: None, migrate=False)
    try:
        return await do(journal)
    finally:
        await journal.close()


def _work(home: Home, settings: Settings, do: Callable[[Journal], Awaitable[None]]) -> None:
    async def verified(journal: Journal) -> None:
        from mains.kernel import audit, reckon

        if faults := audit.verify(journal) + reckon.verify(journal):
            raise JournalError(f"{home.database}: {faults[0]}; it is left as it is", hint=RESTORE)
        await do(journal)

    asyncio.run(_journal(home, settings, verified))


async def _look(journal: Journal) -> tuple[int, int, int]:
    from mains.kernel import retention

    [[free]] = journal.rows("pages_free")
    return len(journal.rows("removed_all")), len(retention.orphaned(journal)), int(free)


async def _nothing(_: Journal) -> None:
    return


async def _erase(journal: Journal) -> None:
    from mains.kernel import retention

    while await journal.commit(lambda tx: retention.erase(tx, _ROWS), "erase"):
        pass


async def _orphans(journal: Journal) -> None:
    from mains.kernel import retention

    await journal.commit(retention.orphans, "orphans")


def _compact(home: Home, settings: Settings) -> None:
    """Write the database anew without the free pages (SQLite does it in one transaction)."""
    _work(home, settings, _nothing)
    with contextlib.closing(sqlite3.connect(home.database, isolation_level=None)) as connection:
        connection.execute("VACUUM")
