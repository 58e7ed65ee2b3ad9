"""The file of the index: made again when it is damaged, and empty of what was forgotten."""

from __future__ import annotations

import os
import random
import sqlite3
from pathlib import Path

import pytest
from tests.unit.search.shelf import Shelf, index_over, indexed

import mains.search
from mains.errors import DeviceError
from mains.search.store import _load_queries, erase

DOCS = [f"canary{n:05d} sings of things number {n % 7}" for n in range(300)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.db"


async def fill(path: Path, **spaces: list[str]) -> None:
    async with index_over(Shelf(**spaces), path) as index:
        for space in spaces:
            index.touch(space)
        await indexed(index)


async def check(path: Path) -> None:
    """All is found, and the file is a sound index afterwards."""
    async with index_over(Shelf(p1=DOCS), path) as index:
        for number in (0, 150, 299):
            hits = await index.recall([("p1", None)], f"canary{number:05d}", 1)
            assert [hit.position for hit in hits] == [number]
        await indexed(index)
        assert index.state().fault == ""
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


async def test_a_missing_file_is_made(path: Path) -> None:
    await check(path)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("data", [b"", b"no database at all " * 1_000, b"SQLite format 3\0" + b"\xff" * 8_000])
async def test_what_is_no_database_is_made_anew(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    await check(path)


async def test_a_database_of_another_version_is_made_anew(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE posting (other TEXT)")
    connection.close()
    await check(path)


@pytest.mark.parametrize("seed", range(25))
async def test_a_damaged_file_is_made_anew(path: Path, seed: int) -> None:
    await fill(path, p1=DOCS)
    chance, data = random.Random(seed), bytearray(path.read_bytes())
    if seed % 5 == 0:
        del data[chance.randrange(len(data)) :]
    for _ in range(chance.choice((1, 30, 3_000))):
        if data:
            at = chance.randrange(len(data))
            data[at : at + 8] = chance.randbytes(8)[: len(data) - at]
    path.write_bytes(data)
    async with index_over(Shelf(p1=DOCS), path) as index:  # a flipped bit may cost a hit, but never an error
        for number in range(0, 300, 30):
            hits = await index.recall([("p1", None)], f"canary{number:05d} sings", 5)
            assert all(hit.text == DOCS[hit.position] for hit in hits)


@pytest.mark.parametrize("seed", range(6))
async def test_what_was_forgotten_is_not_in_the_file(path: Path, seed: int) -> None:
    chance = random.Random(seed)
    shelf = Shelf()
    async with index_over(shelf, path) as index:
        for _ in range(60):
            space = f"p{chance.randrange(4)}"
            shelf.put(space, *(f"canary{space}x{chance.randrange(2_000)} and others" for _ in range(30)))
            index.touch(space)
            await indexed(index)
        assert b"canaryp1x" in path.read_bytes() + path.with_name("memory.db-wal").read_bytes()
        for space in ("p1", "p3"):
            del shelf.docs[space]
        await index.forget(["p1", "p3", "never there"])
        left = b"".join(file.read_bytes() for file in path.parent.iterdir())
        assert b"canaryp1x" not in left
        assert b"canaryp3x" not in left
        assert b"canaryp0x" in left
        assert await index.recall([("p1", None)], "canary others", 5) == []
        assert await index.recall([("p0", None)], "canary others", 5)


async def test_to_forget_in_a_damaged_file_removes_it(path: Path) -> None:
    await fill(path, p1=DOCS)
    data = path.read_bytes()
    path.write_bytes(data[:100] + b"\xee" * 8_000 + data[8_100:])
    async with index_over(Shelf(), path) as index:
        await index.forget(["p1"])
        assert not any(b"canary00" in file.read_bytes() for file in path.parent.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_folder_that_is_read_only(path: Path) -> None:
    path.parent.chmod(0o500)
    try:
        await read_only(path)
    finally:
        path.parent.chmod(0o700)


async def test_a_place_where_no_file_can_be(tmp_path: Path) -> None:
    await read_only(tmp_path / "missing" / "memory.db")


async def read_only(path: Path) -> None:
    async with index_over(Shelf(p1=DOCS, big=["x " * 30_000] * 50), path) as index:
        assert (await index.recall([("p1", None)], "canary00123", 1))[0].position == 123
        assert str(path) in index.state().fault
        with pytest.raises(DeviceError, match="too long") as caught:
            await index.recall([("big", None)], "x", 1)
        assert str(path.parent) in caught.value.hint


async def test_a_folder_in_its_place_cannot_be_erased(path: Path) -> None:
    (path / "within").mkdir(parents=True)
    async with index_over(Shelf(p1=DOCS), path) as index:
        assert await index.recall([("p1", None)], "canary00123", 1)
        with pytest.raises(DeviceError, match="still in the index"):
            await index.forget(["p1"])


def test_to_erase_what_is_not_there(path: Path) -> None:
    path.with_name(f"{path.name}-wal").write_bytes(b"of a file that is gone")
    for _ in range(2):
        erase(path)
        assert list(path.parent.iterdir()) == []


def test_every_query_has_a_user_and_an_index() -> None:
    queries = _load_queries()
    code = "".join(file.read_text() for file in Path(mains.search.__file__).parent.glob("*.py"))
    assert [name for name in queries if f'"{name}"' not in code] == []
    connection = sqlite3.connect(":memory:")
    for name in ("make_space", "make_chunk", "make_posting", "make_vector"):
        connection.execute(queries.pop(name))
    del queries["space_count"], queries["space_names"]  # read all of a small table
    for sql in queries.values():
        plan = connection.execute(f"EXPLAIN QUERY PLAN {sql}", (0,) * sql.count("?")).fetchall()
        assert not [row for row in plan if row[3].startswith("SCAN")], plan
    connection.close()
