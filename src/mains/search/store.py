"""The file of the index: which chunks each space has, and which terms stand in them.

One SQLite database (tables in `queries.sql`), in WAL mode with one connection. It belongs to the thread that opened it.
It holds terms, but no text: a hit's text comes from the source. Postings are kept per space and term, in blocks of
1,024 chunks, so a search reads what its own spaces have, and forgetting a space costs what the space has.

The file can always be made again, so nothing is precious in it: missing, damaged, of another version or no database at
all, it is made anew (`Store.open`). What a `DamagedError` meets while it is used is made anew, too, by the index.
Any other failure of the disk is a `StoreError`: the index then searches without it.

What is forgotten is overwritten (`secure_delete`), and the write-ahead log is cut off.
"""

from __future__ import annotations

import array
import contextlib
import re
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from mains.search.chunks import chunks_of
from mains.search.scoring import LEVELS, impacts
from mains.search.source import Doc
from mains.search.terms import terms_of

VERSION = 2
BLOCK_CHUNKS = 1_024
CACHE_BYTES = 8 * 1024 * 1024
_APPLICATION = 0x4D656D31  # "Mem1": the database is ours
_DAMAGE = frozenset({"SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_FORMAT", "SQLITE_IOERR_SHORT_READ"})
_SIDES = ("", "-wal", "-shm", "-journal")


class StoreError(Exception):
    """The file cannot be read or written (a full disk, a folder that is read-only). Says why."""


class DamagedError(StoreError):
    """What stands in the file is not what was written."""


class Space(NamedTuple):
    """What is indexed of a space: its positions before `next`; `page` is the last one of those."""

    id: int
    next: int
    page: str
    chunks: int


class Place(NamedTuple):
    """Where a chunk comes from: characters `first` to `until` of the document at `position`."""

    position: int
    first: int
    until: int


class Store:
    """An open file. Every method blocks and raises StoreError or DamagedError."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._queries = _load_queries()

    @classmethod
    def open(cls, path: Path, connect: Callable[..., sqlite3.Connection] = sqlite3.connect) -> Store:
        """The file at `path`; one that cannot be used is removed and made anew."""
        try:
            return cls._open(path, connect)
        except DamagedError:
            erase(path)
            return cls._open(path, connect)

    @classmethod
    def _open(cls, path: Path, connect: Callable[..., sqlite3.Connection]) -> Store:
        with _told(path), contextlib.ExitStack() as unless_ready:
            connection = connect(path, isolation_level=None, cached_statements=64, timeout=1)
            unless_ready.callback(connection.close)
            store = cls(path, connection)
            store._prepare()
            unless_ready.pop_all()
        return store

    def _prepare(self) -> None:
        execute = self._connection.execute
        execute("PRAGMA locking_mode = EXCLUSIVE")
        execute("PRAGMA secure_delete = ON")
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = NORMAL")  # after a power loss the last batches are missing, not damaged
        execute(f"PRAGMA cache_size = -{CACHE_BYTES // 1024}")
        found = (self._one("PRAGMA application_id"), self._one("PRAGMA user_version"))
        if found == (_APPLICATION, VERSION):
            return
        if self._one("PRAGMA schema_version"):
            raise DamagedError(f"{self.path}: of another version")
        with self._transaction():
            for name in ("make_space", "make_chunk", "make_posting", "make_vector"):
                execute(self._queries[name])
            execute(f"PRAGMA application_id = {_APPLICATION}")
            execute(f"PRAGMA user_version = {VERSION}")
        self.path.chmod(0o600)

    def _one(self, sql: str) -> Any:
        return self._connection.execute(sql).fetchone()[0]

    def _rows(self, query: str, *parameters: Any) -> list[Any]:
        return self._connection.execute(self._queries[query], parameters).fetchall()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        done = False
        try:
            yield
            self._connection.execute("COMMIT")
            done = True
        finally:
            if not done and self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    # ---------------------------------------------------------------------------------------------------- writing

    def add(self, name: str, docs: Sequence[Doc]) -> None:
        """Index documents that follow on those of the space, in the order of their positions. One transaction."""
        with _told(self.path), self._transaction():
            space = self._space(name) or Space(self._rows("space_add", name)[0][0], 0, "", 0)
            places: list[tuple[int, int, int, int, int]] = []
            entries: dict[int, dict[str, array.array[int]]] = {}
            ordinal = space.chunks
            for doc in docs:
                for first, until in chunks_of(doc.text):
                    places.append((space.id, ordinal, doc.position, first, until))
                    _enter(entries, ordinal, doc.text[first:until])
                    ordinal += 1
            self._connection.executemany(self._queries["chunk_add"], places)
            for block, terms in entries.items():
                rows = ((space.id, term, block, _packed(terms[term])) for term in sorted(terms))
                self._connection.executemany(self._queries["posting_add"], rows)
            last = docs[-1]
            self._rows("space_grow", last.position + 1, last.page, ordinal, space.id)

    def forget(self, name: str) -> None:
        """Remove and overwrite what there is of a space. `cut` must follow: until then the log still has it."""
        with _told(self.path), self._transaction():
            if (space := self._space(name)) is not None:
                for query in ("posting_delete", "chunk_delete", "vector_delete", "space_delete"):
                    self._rows(query, space.id)

    def keep(self, space: Space, model: str, ordinal: int, numbers: Sequence[bytes]) -> None:
        """Keep the vectors of chunks from `ordinal` on; those that other models made of this space go.

        `numbers`: of each chunk, the vectors of its pieces one after the other.
        """
        with _told(self.path), self._transaction():
            self._rows("vector_delete_others", space.id, model)
            rows = ((space.id, model, ordinal + at, each) for at, each in enumerate(numbers))
            self._connection.executemany(self._queries["vector_add"], rows)

    def cut(self) -> None:
        """Move the write-ahead log into the file and cut it off."""
        with _told(self.path):
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Close the file. Raises nothing: what was committed is in it or in its log."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    # ---------------------------------------------------------------------------------------------------- reading

    def space(self, name: str) -> Space | None:
        """What is indexed of a space; None: nothing."""
        with _told(self.path):
            return self._space(name)

    def _space(self, name: str) -> Space | None:
        rows = self._rows("space_get", name)
        if not rows:
            return None
        if not all(isinstance(number, int) and number > 0 for number in (rows[0][1], rows[0][3])):
            raise DamagedError(f"{self.path}: a space is damaged")
        return Space(*rows[0])

    def names(self) -> list[str]:
        """The spaces of which something is indexed."""
        with _told(self.path):
            return [name for (name,) in self._rows("space_names")]

    def counts(self) -> tuple[int, int]:
        """How many spaces and chunks are indexed."""
        with _told(self.path):
            spaces, chunks = self._rows("space_count")[0]
            return spaces, chunks

    def postings(self, space: Space, term: str) -> list[tuple[int, array.array[int]]]:
        """For each block (the ordinal of its first chunk) the entries of a term: `ordinal % 1024 * LEVELS + impact`."""
        with _told(self.path):
            rows = self._rows("posting_get", space.id, term)
        return [(block * BLOCK_CHUNKS, _unpacked(entries, self.path)) for block, entries in rows]

    def place(self, space: Space, ordinal: int) -> Place:
        """Where a chunk comes from."""
        with _told(self.path):
            rows = self._rows("chunk_get", space.id, ordinal)
        if not rows:
            raise DamagedError(f"{self.path}: a chunk is missing")
        return Place(*rows[0])

    def vectors_next(self, space: Space, model: str) -> int:
        """The first chunk that has no vector."""
        with _told(self.path):
            return int(self._rows("vector_next", space.id, model)[0][0])

    def vectors(self, space: Space, model: str, start: int, most: int) -> list[tuple[int, Place, bytes]]:
        """Vectors of chunks from `start` on, with their ordinals and places."""
        with _told(self.path):
            rows = self._rows("vector_scan", space.id, model, start, most)
        if not all(isinstance(row[-1], bytes) for row in rows):
            raise DamagedError(f"{self.path}: a vector is damaged")
        return [(ordinal, Place(position, first, until), numbers) for ordinal, position, first, until, numbers in rows]

    def chunks_before(self, space: Space, position: int) -> int:
        """How many chunks come from documents before a position."""
        low, high = 0, space.chunks
        while low < high:
            middle = (low + high) // 2
            if self.place(space, middle).position < position:
                low = middle + 1
            else:
                high = middle
        return low


def erase(path: Path) -> None:
    """Remove the file and what SQLite keeps beside it. Raises StoreError."""
    try:
        for side in _SIDES:
            path.with_name(path.name + side).unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error


def _enter(entries: dict[int, dict[str, array.array[int]]], ordinal: int, text: str) -> None:
    block, within = divmod(ordinal, BLOCK_CHUNKS)
    terms = entries.setdefault(block, {})
    place = within * LEVELS
    for term, impact in impacts(terms_of(text)).items():
        if term in terms:
            terms[term].append(place + impact)
        else:
            terms[term] = array.array("H", (place + impact,))


def _packed(entries: array.array[int]) -> bytes:
    if sys.byteorder == "big":
        entries.byteswap()
    return entries.tobytes()


def _unpacked(data: object, path: Path) -> array.array[int]:
    entries = array.array("H")
    if not isinstance(data, bytes) or len(data) % 2:
        raise DamagedError(f"{path}: a posting is damaged")
    entries.frombytes(data)
    if sys.byteorder == "big":
        entries.byteswap()
    return entries


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """SQLite's errors as ours."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:  # in what SQLite says of a damaged schema
        raise DamagedError(f"{path}: {error.reason}") from error
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")
        # SQLITE_ERROR: a table is missing. Without a name: a text that is not UTF-8.
        strange = isinstance(error, sqlite3.OperationalError) and name in ("SQLITE_ERROR", "")
        if strange or isinstance(error, sqlite3.IntegrityError) or any(name.startswith(each) for each in _DAMAGE):
            raise DamagedError(f"{path}: {error}") from error
        raise StoreError(f"{path}: {error}") from error


def _load_queries() -> dict[str, str]:
    text = resources.files("mains.search").joinpath("queries.sql").read_text(encoding="utf-8")
    parts: Iterable[str] = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)[1:]
    each = iter(parts)
    return {name: sql.strip() for name, sql in zip(each, each, strict=True)}
