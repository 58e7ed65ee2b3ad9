"""The contest with the rivals: its upstream answers as the dialect wants, its sums are right. No rival is needed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from bench import cap, kills, rivals
from bench.contest import contestant, ring
from bench.contest.embeddings import Vectors
from bench.contest.upstream import FINAL, Connection, Endpoint

from mains.engines.catalogue import new_spec
from mains.engines.embeddings import EndpointEmbedder
from mains.engines.stream import Assembly, EventLines

USER = {"role": "user", "content": "Count for agent-17."}


class Client:
    """Asks the upstream."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = url

    async def ask(self, path: str, results: int = 0, *, stream: bool = False) -> bytes:
        """The body of the answer to a request with so many tool results."""
        messages = [USER, *({"role": "tool", "content": "counted"} for _ in range(results))]
        body = {"messages": messages, "stream": stream}
        async with self._http.post(f"{self._url}/{path}/v1/chat/completions", json=body) as response:
            return await response.read()

    async def state(self, what: str = "state") -> dict[str, int]:
        """What the upstream says of itself."""
        async with self._http.get(f"{self._url}/{what}") as response:
            found: dict[str, int] = json.loads(await response.read())
            return found


@pytest_asyncio.fixture
async def client() -> AsyncIterator[Client]:
    endpoint = Endpoint()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(endpoint), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, aiohttp.ClientSession() as http:
        yield Client(http, f"http://127.0.0.1:{port}")


async def test_it_asks_for_the_tool_until_there_are_results_enough(client: Client) -> None:
    for done in range(2):
        message = json.loads(await client.ask("2", done))["choices"][0]["message"]
        function = message["tool_calls"][0]["function"]
        assert (function["name"], json.loads(function["arguments"])) == ("count", {"agent": "agent-17", "n": done})
    last = json.loads(await client.ask("2", 2))["choices"][0]
    assert (last["message"]["content"], last["finish_reason"]) == (FINAL, "stop")
    assert await client.state() == {"calls": 3, "held": 0}


async def test_a_stream_says_the_same_to_our_own_reader(client: Client) -> None:
    assembly = Assembly({}, "seed")
    for data in EventLines().feed(await client.ask("2", 1, stream=True)):
        if data.strip() != b"[DONE]":
            assembly.add(data)
    reply = assembly.reply()
    assert [(call.id, call.name, json.loads(call.arguments)["n"]) for call in reply.calls] == [("call_1", "count", 1)]
    assert reply.usage is not None
    assert reply.usage.output_tokens == 12


async def test_calls_are_held_until_they_are_released(client: Client) -> None:
    held = asyncio.create_task(client.ask("hold"))
    while (await client.state())["held"] == 0:
        pass
    assert not held.done()
    await client.state("release")
    assert json.loads(await held)["choices"][0]["message"]["content"] == FINAL
    assert await client.state() == {"calls": 1, "held": 0}


def test_both_sides_agree_on_the_last_word() -> None:
    assert contestant.FINAL == FINAL


async def test_a_crowd_runs_each_agent_once_and_so_many_at_once() -> None:
    ran: list[str] = []
    at_work, most = 0, 0

    async def run(agent: str) -> str:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await asyncio.sleep(0)
        at_work -= 1
        ran.append(agent)
        return FINAL

    await contestant.crowd(run, 5, 7, 3)
    assert sorted(ran) == sorted(f"agent-{number}" for number in range(5, 12))
    assert most == 3


async def test_an_agent_that_does_not_end_as_it_should_stops_the_contest() -> None:
    async def run(agent: str) -> str:
        return "no"

    with pytest.raises(RuntimeError, match="agent-1 ended with 'no'"):
        await contestant.crowd(run, 1, 1, 1)


async def test_answers_come_after_the_time_that_is_drawn_for_them(client: Client) -> None:
    for done in range(3):
        message = json.loads(await client.ask("2@5", done))["choices"][0]["message"]
        assert (message["content"] == FINAL) == (done == 2)
    assert await client.state() == {"calls": 3, "held": 0}


async def test_a_cap_refuses_some_and_lets_others_end(tmp_path: Path) -> None:
    @contextlib.asynccontextmanager
    async def opened(job: contestant.Job) -> AsyncIterator[contestant.RunAgent]:
        async def run(agent: str) -> str:
            return FINAL if agent in ("agent-1", "agent-4") else contestant.REFUSED

        yield run

    job = contestant.Job("cap", str(tmp_path), 1, 5, 4, 4)
    assert await contestant.cap(opened, job) == contestant.Ended(2, 0, {"refused": 2})
    assert job.url == f"http://127.0.0.1:1/5@{contestant.CAP_LATENCY_MS}/v1"


def test_under_the_cap_only_exactly_so_many_calls_will_do() -> None:
    def judged(*calls: int) -> bool | None:
        rounds = [cap.Seen(each, {"after_top_up": cap.AGENTS}) for each in calls]
        return cap.figures(ring.MAINS_CAPPED, rounds)[0].met

    assert judged(37, 37)
    assert not judged(37, 38)
    assert not judged(36, 37)
    rival = cap.figures(ring.PYDANTIC_SHARED, [cap.Seen(64, {}), cap.Seen(69, {})])
    assert [figure.value for figure in rival] == [69, 64]


def test_an_effect_that_is_there_twice_is_counted_once_as_twice(tmp_path: Path) -> None:
    for agent, n in (("agent-1", 0), ("agent-1", 1), ("agent-2", 0), ("agent-1", 0), ("agent-1", 0)):
        contestant.record(str(tmp_path), agent, n)
    assert kills.count(ring.folder_lines(tmp_path / "effects")) == (3, 1)
    assert kills.count(ring.folder_lines(tmp_path / "nothing")) == (0, 0)


def test_everybody_gets_the_same_blows_while_at_work() -> None:
    assert kills.blows(10) == kills.blows(10)
    assert len(set(kills.blows(10))) == 10
    assert all(0 < blow.calls < kills.AGENTS * (kills.TURNS + 1) for blow in kills.blows(1_000))


def test_sums() -> None:
    run = {"turns": 600, "span_s": 2.0, "cpu_s": 0.6, "bytes_a_turn": 1.0}
    assert (rivals.per_s(run), rivals.cpu_ms(run)) == (300.0, 1.0)
    assert rivals.growth({5: 8.0, 20: 1.0, 80: 72.0}) == 9.0
    total = kills.Fate(twice=1, effects=5).plus(kills.Fate(twice=2, lost=1))
    assert total == kills.Fate(twice=3, effects=5, lost=1)


def test_without_the_rivals_it_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ring, "RIVALS_PYTHON", tmp_path / "none")
    with pytest.raises(SystemExit, match="make bench-rivals"), ring.upstream():
        pass


class Lengths:
    """A model whose vector is the length of a text."""

    def passage(self, texts: list[str]) -> list[list[float]]:
        return [[float(len(text)), 1.0] for text in texts]

    def token_count(self, text: str) -> int:
        return len(text)


async def test_the_endpoint_for_vectors_speaks_as_mains_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Vectors, "model", Lengths(), raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Vectors)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    embedder = EndpointEmbedder(new_spec("e5", kind="openai", url=url, model="small"), "small")
    vectors, usage = await embedder.counted(["a" * (n + 1) for n in range(20)])
    assert vectors == [[float(n + 1), 1.0] for n in range(20)]
    assert usage is not None and usage.input_tokens == 210
    await embedder.close()
    await asyncio.to_thread(server.shutdown)
    server.server_close()
    await asyncio.to_thread(serving.join)
