"""Every named query, asked about with EXPLAIN QUERY PLAN: those of the hot path never scan a table."""

from __future__ import annotations

import sqlite3
from importlib import resources
from pathlib import Path

import pytest

import mains
from mains.kernel.tx import load_queries

READS_EVERYTHING = {
    "account_all", "context_scan", "context_missing", "cover_scan", "entry_all", "event_after", "event_scan",
    "hold_all", "page_part_scan", "page_scan", "page_use_scan", "process_all", "process_changed", "checkpoint_copy",
    "timer_next", "event_last", "pid_last", "process_live", "process_count_live", "process_count_quota",
    "process_states", "removed_all", "removed_next", "cut_count", "page_orphans", "pages_free", "account_all_named",
    "budget_all", "event_remembered", "note_scan",
    "segment_all", "segment_count", "segment_mappers", "segment_page_scan",
    "tally_all", "used_all", "hold_counts", "adjusted_counts", "tally_counts",
    "context_sums", "context_most", "context_of_pages", "page_kinds", "cover_count",
}  # fmt: skip


@pytest.fixture(scope="module")
def database() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    connection.executescript(resources.files("mains.kernel").joinpath("schema.sql").read_text())
    return connection


@pytest.mark.parametrize("name", sorted(load_queries()))
def test_a_query_is_valid_and_uses_an_index(database: sqlite3.Connection, name: str) -> None:
    sql = load_queries()[name]
    plan = " | ".join(row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {sql}", (0,) * sql.count("?")))
    if name not in READS_EVERYTHING:
        assert "SCAN process" not in plan, plan
        for few in ("SCAN below", "SCAN wanted", "SCAN CONSTANT ROW", "SCAN hold USING INDEX hold_foreign"):
            plan = plan.replace(few, "")
        assert "SCAN" not in plan, plan


def test_every_query_has_a_user() -> None:
    code = "".join(f.read_text() for f in Path(mains.__file__).parent.rglob("*.py"))
    assert [name for name in load_queries() if f'"{name}"' not in code] == []
