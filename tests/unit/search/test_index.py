"""The index through its public doors, over real files: what is found, in which order, and what never is."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.search.shelf import IN_MEMORY, Shelf, index_over, indexed

from mains.errors import DeviceError, JournalError, LimitError
from mains.search.source import Doc, Hit

pytestmark = pytest.mark.filterwarnings("error")

FACTS = ["Ann likes the red bicycle", "the deadline is on Friday", "Bob likes the blue car", "rain is likely on Friday"]


def texts(hits: list[Hit]) -> list[str]:
    return [hit.text for hit in hits]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.db"


async def test_the_best_comes_first(path: Path) -> None:
    async with index_over(Shelf(p1=FACTS), path) as index:
        hits = await index.recall([("p1", None)], "when is the deadline", 2)
        assert hits[0].text == FACTS[1]
        assert (hits[0].space, hits[0].position, hits[0].first, hits[0].until) == ("p1", 1, 0, len(FACTS[1]))
        assert len(hits) == 2
        assert hits[0].score > hits[1].score > 0


async def test_the_exact_sentence_comes_before_the_same_words(path: Path) -> None:
    same = [" ".join(words) for words in (["dog", "bites", "the", "man"], ["man", "the", "bites", "dog"])] * 3
    shelf = Shelf(p1=[*same, "yesterday the man bites dog " + "and then some more happens " * 20, *same])
    async with index_over(shelf, path) as index:
        assert texts(await index.recall([("p1", None)], "the man bites dog", 3))[0].startswith("yesterday")


async def test_exact_wording_is_found_among_many_that_fit_as_well(path: Path) -> None:
    words = ["the", "red", "car", "of", "the", "town", "is", "at", "the", "old", "gate"]
    chance = random.Random(5)
    others = [" ".join(chance.sample(words, len(words))) for _ in range(150)]
    exact = "once upon a time " * 30 + " ".join(words)
    async with index_over(Shelf(p1=[exact, *others]), path) as index:
        for query in (" ".join(words), "at the old gate"):
            hits = await index.recall([("p1", None)], query, 5)
            assert any(query in hit.text for hit in hits)
            assert query in hits[0].text


async def test_a_chunk_with_all_words_comes_before_shorter_ones_without_the_rarest(path: Path) -> None:
    """Found by `bench facts`: messages with other invoices came before the report with the one that was asked for."""
    short = [f"Task {n}. Invoice {n * 77} of Fir Limited amounts to {n * 31} euros." for n in range(10, 22)]
    filler = "the system checks every part of a report and writes down what was seen " * 25
    long = [f"{filler} {n}" for n in range(300)] + [f"Invoice 90003 of Fir Limited amounts to 12 euros. {filler}"]
    async with index_over(Shelf(p1=[*short, *long]), path) as index:
        hits = await index.recall([("p1", None)], "amounts in euros: Fir Limited, invoice 90003", 5)
        assert hits[0].text.startswith("Invoice 90003 ")


@pytest.mark.parametrize("many", [3, 40], ids=["scanned", "indexed"])
@pytest.mark.parametrize("query", ["会議", "東京", "한국", "タワー", "員"])
async def test_words_of_two_characters_are_found(path: Path, many: int, query: str) -> None:
    own = {
        "会議": "来週の会議は中止です",
        "東京": "彼は東京に住む",
        "한국": "나는 한국에 간다",
        "タワー": "高いタワーが見える",
        "員": "委員が来た",
    }
    shelf = Shelf(p1=[*(f"無関係な文章その{n}、天気は晴れ 날씨 맑음" for n in range(many)), *own.values()])
    async with index_over(shelf, path) as index:
        assert texts(await index.recall([("p1", None)], query, 5)) == [own[query]]


async def test_only_words_that_stand_everywhere_are_looked_for_too(path: Path) -> None:
    async with index_over(Shelf(p1=["to be or not to be", "not so"] * 30), path) as index:
        assert texts(await index.recall([("p1", None)], "to be or not", 1)) == ["to be or not to be"]


async def test_a_long_document_is_found_by_its_part(path: Path) -> None:
    long = "".join(f"Line {n} of the log says nothing.\n" for n in range(2_000))
    at = long.index("Line 1234")
    text = long[:at] + "The cache of node seven overflowed.\n" + long[at:]
    async with index_over(Shelf(f1=[text, "something else"]), path) as index:
        (hit, *_) = await index.recall([("f1", None)], "which node's cache overflowed", 3)
        assert "node seven overflowed" in hit.text
        assert hit.text == text[hit.first : hit.until]
        assert len(hit.text) <= 2_000


async def test_other_spaces_and_what_comes_after_a_fork_are_not_seen(path: Path) -> None:
    shelf = Shelf(p1=[f"secret number {n}" for n in range(50)], p2=["secret number 1000"])
    async with index_over(shelf, path) as index:
        await index.recall([("p1", None), ("p2", None)], "secret", 1)
        assert {hit.position for hit in await index.recall([("p1", 7)], "secret number", 50)} == set(range(7))
        both = await index.recall([("p2", None), ("p1", 3)], "secret number", 50)
        assert {(hit.space, hit.position) for hit in both} == {("p2", 0), *(("p1", n) for n in range(3))}


async def test_what_came_a_moment_ago_is_found(path: Path) -> None:
    shelf = Shelf(p1=FACTS * 10)
    async with index_over(shelf, path) as index:
        await index.recall([("p1", None)], "car", 1)
        for number in range(40):
            shelf.put("p1", f"the code is {number}xyz")
            assert texts(await index.recall([("p1", None)], f"{number}xyz", 1)) == [f"the code is {number}xyz"]


async def test_one_hit_for_each_page(path: Path) -> None:
    shelf = Shelf(p1=["the same result", *FACTS, "the same result"], p2=["the same result"])
    async with index_over(shelf, path) as index:
        hits = await index.recall([("p1", None), ("p2", None)], "the same result", 9)
        assert texts(hits).count("the same result") == 1
        assert hits[0].position == 5


async def test_what_was_touched_is_indexed_in_its_own_time(path: Path) -> None:
    shelf = Shelf(p1=[f"w{n}" for n in range(200)])
    async with index_over(shelf, path) as index:
        index.touch("p1")
        await indexed(index)
        shelf.reads.clear()
        assert texts(await index.recall([("p1", None)], "w77", 1)) == ["w77"]
        assert all(most == 1 for _, start, most in shelf.reads if start < 199)


async def test_a_restart_goes_on_from_there(path: Path) -> None:
    shelf = Shelf(p1=[f"w{n}" for n in range(200)])
    async with index_over(shelf, path) as index:
        index.touch("p1")
        await indexed(index)
    shelf.reads.clear()
    async with index_over(shelf, path) as index:
        assert texts(await index.recall([("p1", None)], "w3", 1)) == ["w3"]
    assert min(start for _, start, _ in shelf.reads) == 3


async def test_another_process_of_the_same_number_is_indexed_anew(path: Path) -> None:
    async with index_over(Shelf(p1=["old things"] * 40), path) as index:
        await index.recall([("p1", None)], "old", 1)
    async with index_over(Shelf(p1=["new things"] * 50), path) as index:
        assert await index.recall([("p1", None)], "old", 1) == []
        assert texts(await index.recall([("p1", None)], "new", 1)) == ["new things"]


async def test_a_document_that_the_source_has_lost_is_no_hit(path: Path) -> None:
    shelf = Shelf(p1=[f"w{n}" for n in range(40)])
    async with index_over(shelf, path) as index:
        await index.recall([("p1", None)], "w3", 1)
        await indexed(index)
        del shelf.docs["p1"][3]
        assert await index.recall([("p1", None)], "w3", 1) == []


# ------------------------------------------------------------------------------------------------------ any text

WORDS = st.sampled_from(["alpha", "beta", "gamma", "delta", "parse_grant", "会議", "東京", "E12", "the", "of"])
SENTENCES = st.lists(WORDS, min_size=1, max_size=7).map(" ".join)
SPACES = st.dictionaries(st.sampled_from(["p1", "p2", "f1"]), st.lists(SENTENCES, max_size=40), min_size=1)
WILD = st.text(st.characters(exclude_categories=()), max_size=200)


@settings(max_examples=40, deadline=None)
@given(spaces=SPACES, data=st.data())
def test_exact_wording_is_found_within_bounds_whether_indexed_or_scanned(
    spaces: dict[str, list[str]], data: st.DataObject
) -> None:
    space = data.draw(st.sampled_from(sorted(spaces)))
    until = data.draw(st.none() | st.integers(0, len(spaces[space])))
    seen = spaces[space][:until]
    query = data.draw(st.sampled_from(seen) if seen else SENTENCES)

    async def run(folder: Path) -> None:
        found: list[list[Hit]] = []
        for first in ([], sorted(spaces)):
            async with index_over(Shelf(**spaces), folder / f"{len(found)}.db") as index:
                for each in first:
                    index.touch(each)
                await indexed(index)
                found.append(await index.recall([(space, until)], query, 5))
        for hits in found:
            assert all(hit.space == space and hit.text in seen for hit in hits)
            assert all(until is None or hit.position < until for hit in hits)
            assert not seen or any(query in text for text in texts(hits))
        assert [(hit.page, round(hit.score, 9)) for hit in found[0]] == [(h.page, round(h.score, 9)) for h in found[1]]

    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        asyncio.run(run(Path(folder)))


@settings(max_examples=40, deadline=None)
@given(docs=st.lists(WILD, max_size=30), query=WILD, k=st.integers(-1, 200))
def test_any_documents_and_any_query(docs: list[str], query: str, k: int) -> None:
    async def run(folder: Path) -> None:
        async with index_over(Shelf(p1=docs), folder / "memory.db") as index:
            hits = await index.recall([("p1", None), ("nothing", 5)], query, k)
            assert len(hits) <= max(0, min(k, 100))
            assert all(hit.text in docs[hit.position] for hit in hits)

    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        asyncio.run(run(Path(folder)))


async def test_a_query_of_100_kb(path: Path) -> None:
    async with index_over(Shelf(p1=FACTS), path) as index:
        assert await index.recall([("p1", None)], "deadline " + "\"'(*^:" * 20_000, 1)


# ------------------------------------------------------------------------------------------------------- waiting


class Gated(Shelf):
    """A source that waits for somebody."""

    def __init__(self, **spaces: list[str]) -> None:
        super().__init__(**spaces)
        self.gate, self.asked = threading.Event(), threading.Event()

    def read(self, space: str, start: int, most: int) -> list[Doc]:
        self.asked.set()
        assert self.gate.wait(60)
        return super().read(space, start, most)


async def test_the_queue_has_a_bound(path: Path) -> None:
    shelf = Gated(p1=FACTS)
    async with index_over(shelf, path, recalls_max=2) as index:
        waiting = [asyncio.create_task(index.recall([("p1", None)], "car", 1)) for _ in range(2)]
        await asyncio.to_thread(shelf.asked.wait, 60)
        with pytest.raises(LimitError):
            await index.recall([("p1", None)], "car", 1)
        shelf.gate.set()
        assert all(await asyncio.gather(*waiting))
        assert index.state().recalls == 0


async def test_every_wait_has_an_end(path: Path) -> None:
    shelf = Gated(p1=FACTS)
    async with index_over(shelf, path, wait_s=0.05) as index:
        with pytest.raises(DeviceError) as caught:
            await index.recall([("p1", None)], "car", 1)
        assert caught.value.retryable
        assert index.state().recalls == 0
        shelf.gate.set()
    async with index_over(shelf, path) as index:
        assert await index.recall([("p1", None)], "car", 1)


async def test_a_long_space_delays_others_by_steps_only(path: Path) -> None:
    shelf = Shelf(long=["many words of this and that " * 50] * 200, p1=FACTS)
    async with index_over(shelf, path) as index:
        long = asyncio.create_task(index.recall([("long", None)], "words", 1))
        await asyncio.sleep(0)
        assert await index.recall([("p1", None)], "car", 1)
        assert not long.done()
        assert await long


async def test_an_error_of_the_source_goes_to_who_recalls(path: Path) -> None:
    class Broken(Shelf):
        def read(self, space: str, start: int, most: int) -> list[Doc]:
            if space == "p1":
                raise JournalError("no disk")
            return super().read(space, start, most)

    async with index_over(Broken(p2=FACTS), path) as index:
        with pytest.raises(JournalError):
            await index.recall([("p1", None)], "car", 1)
        index.touch("p1")
        await indexed(index)
        assert "no disk" in index.state().fault
        assert await index.recall([("p2", None)], "car", 1)


async def test_who_waits_when_it_closes_is_told(path: Path) -> None:
    shelf = Shelf(long=["many words of this and that " * 50] * 200)
    async with index_over(shelf, path) as index:
        long = asyncio.create_task(index.recall([("long", None)], "words", 1))
        await asyncio.sleep(0)
    with pytest.raises(DeviceError, match="closed"):
        await long


async def test_a_closed_index_says_so(path: Path) -> None:
    async with index_over(Shelf(p1=FACTS), path) as index:
        await index.recall([("p1", None)], "car", 1)
    with pytest.raises(DeviceError):
        await index.recall([("p1", None)], "car", 1)
    index.touch("p1")
    await index.close()
    assert not path.with_name("memory.db-wal").exists()


def connect_to(full: list[bool]) -> Any:
    """`sqlite3.connect`, for a disk that is full while `full` says so."""

    class Connection(sqlite3.Connection):
        def executemany(self, *arguments: Any) -> sqlite3.Cursor:
            if full[0]:
                error = sqlite3.OperationalError("database or disk is full")
                error.sqlite_errorname = "SQLITE_FULL"
                raise error
            return super().executemany(*arguments)

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        return sqlite3.connect(*arguments, factory=Connection, **options)

    return connect


async def test_with_a_full_disk_what_is_not_indexed_is_read_through(path: Path) -> None:
    full = [True]
    shelf = Shelf(p1=[f"w{n}" for n in range(300)], big=["x " * 30_000] * 50)
    async with index_over(shelf, path, connect=connect_to(full)) as index:
        assert texts(await index.recall([("p1", None)], "w222", 1)) == ["w222"]
        assert "full" in index.state().fault
        with pytest.raises(DeviceError, match="full"):
            await index.recall([("big", None)], "x", 1)
        full[0] = False
        assert await index.recall([("big", None)], "x", 1)
        await indexed(index)
        assert index.state().fault == ""
