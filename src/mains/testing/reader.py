"""A reader of committed rows: what an independent observer sees of a home, on a connection of its own."""

from __future__ import annotations

import re
import sqlite3
from importlib import resources
from pathlib import Path
from typing import Any

Row = tuple[Any, ...]


def _queries() -> dict[str, str]:
    text = resources.files("mains.testing").joinpath("reads.sql").read_text(encoding="utf-8")
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    return {name: sql.strip() for name, sql in zip(parts[1::2], parts[2::2], strict=True)}


class Reader:
    """Named queries (`reads.sql`) over a database that somebody else writes."""

    def __init__(self, path: Path) -> None:
        self._queries = _queries()
        self._connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)

    def rows(self, query: str, *parameters: Any) -> list[Row]:
        """All rows of a named query."""
        return self._connection.execute(self._queries[query], parameters).fetchall()

    def one(self, query: str, *parameters: Any) -> Row | None:
        """The first row of a named query."""
        row: Row | None = self._connection.execute(self._queries[query], parameters).fetchone()
        return row

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
