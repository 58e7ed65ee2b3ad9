"""KV in tiers over a played llama.cpp: who gets which slot, what goes to the disk and comes back, and what fails."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web

from mains.engines import kv_tiers
from mains.engines.kv_store import Store
from mains.engines.kv_tiers import Lease, Tiers
from mains.engines.llama_server import Server
from mains.kernel.ports import Message, Reply, Request, ToolCall, Usage

ROOM = 8_192


class Played:
    """llama.cpp's slots: each holds the text of its last prompt. `fails`: actions that are refused; `hangs`: no end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.slots: dict[int, str] = {}
        self.said: list[str] = []
        self.fails: set[str] = set()
        self.hangs: set[str] = set()
        self.here = asyncio.Event()
        self.go_on = asyncio.Event()

    async def act(self, request: web.Request) -> web.Response:
        slot, action = int(request.match_info["slot"]), request.query["action"]
        body = await request.json()
        self.said.append(f"{action} {slot}")
        self.here.set()
        if action in self.hangs:
            await self.go_on.wait()
        if action in self.fails:
            return web.json_response({"error": {"message": "no"}}, status=500)
        count = len(self.slots.get(slot, ""))
        if action == "save":
            (self.folder / body["filename"]).write_text(self.slots.get(slot, ""))
            return web.json_response({"n_saved": count})
        self.slots[slot] = (self.folder / body["filename"]).read_text() if action == "restore" else ""
        return web.json_response({"n_restored": len(self.slots[slot]), "n_erased": count})


class Box:
    """Tiers, their files and the played server."""

    def __init__(self, folder: Path, session: aiohttp.ClientSession) -> None:
        self.folder = folder
        self.played = Played(folder / "kv" / "llama")
        self.session = session
        self.now_s = 100.0
        self.server: Server
        self.tiers: Tiers
        self.every: list[Tiers] = []
        self.model = folder / "model.gguf"
        self.model.write_bytes(b"weights")

    async def boot(self, slots: int = 1, room_tokens: int = ROOM, *, files: bool = True) -> None:
        """A new start."""
        self.played.slots.clear()
        self.store = Store(self.folder / "kv" / "llama", 1_000_000, lambda: self.now_s)
        self.tiers = Tiers(slots, room_tokens, self.store, lambda: self.now_s)
        self.every.append(self.tiers)
        if files:
            self.tiers.open(self.model, {})
            await self.tiers.opened()

    async def ask(
        self,
        process: int,
        text: str = "",
        *,
        tenant: int = 1,
        tool: str = "",
        during: Callable[[Lease], Any] | None = None,
    ) -> tuple[int, int]:
        """A call: its slot, and how many characters of its prompt the server did not have to read."""
        prompt = (text or f"{process}") * 400
        request = Request((Message("user", prompt),), 8, process=process, tenant=tenant)
        async with self.tiers.lease(self.server, self.session, request, request.messages, 200) as lease:
            held = self.played.slots.get(lease.slot, "") if lease.fields["cache_prompt"] else ""
            cached = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], zip(held, prompt, strict=False))))
            self.played.slots[lease.slot] = prompt
            if during is not None:
                await during(lease)
            calls = (ToolCall("c", tool, "{}"),) if tool else ()
            lease.answered(Reply("Yes.", calls, Usage(150, 0, 50)))
        return lease.slot, cached

    async def newcomer(self, process: int) -> asyncio.Task[tuple[int, int]]:
        """A call that waits for a slot."""
        asking = asyncio.create_task(self.ask(process))
        await until(lambda: self.tiers._waiting == 1)
        return asking

    async def stays(self, process: int) -> tuple[asyncio.Task[tuple[int, int]], asyncio.Event]:
        """A call that has its slot until the event is set."""
        inside, leave = asyncio.Event(), asyncio.Event()

        async def stay(_: Lease) -> None:
            inside.set()
            await leave.wait()

        asking = asyncio.create_task(self.ask(process, during=stay))
        await inside.wait()
        return asking, leave

    def files(self) -> list[str]:
        return sorted(path.name.rpartition("-")[0] for path in self.played.folder.glob("*.kv"))


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    async with contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        made = Box(tmp_path, session)
        app = web.Application()
        app.router.add_post("/slots/{slot}", made.played.act)
        runner = web.AppRunner(app, shutdown_timeout=0.001, access_log=None, handler_cancellation=True)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        made.server = Server(cast(Any, None), f"http://127.0.0.1:{runner.addresses[0][1]}", "key", 0.0)
        await made.boot()
        yield made
        made.played.go_on.set()
        for tiers in made.every:
            await tiers.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what others do in this loop, at once
            await asyncio.sleep(0)


async def test_a_process_finds_its_slot_as_it_left_it(box: Box) -> None:
    await box.boot(slots=2)
    first, second = await box.ask(1), await box.ask(2)
    assert (first[0], second[0]) == (0, 1)
    assert await box.ask(2) == (1, 400)
    assert await box.ask(1) == (0, 400)
    assert box.played.said == []


async def test_what_is_displaced_goes_to_the_disk_and_comes_back(box: Box) -> None:
    for process in (1, 2, 3):
        assert await box.ask(process) == (0, 0)
    assert box.files() == ["1-1", "1-2"]
    assert await box.ask(1) == (0, 400)
    assert box.played.said == ["save 0", "save 0", "save 0", "restore 0"]


async def test_it_is_still_there_after_a_restart(box: Box) -> None:
    await box.ask(1)
    await box.ask(2)
    await box.tiers.close()
    await box.boot()
    assert await box.ask(2) == (0, 400)
    assert await box.ask(1) == (0, 400)


async def test_a_slot_that_is_left_alone_is_saved(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_tiers, "SETTLE_S", 0.0)
    await box.ask(1)
    await until(lambda: box.store.bytes > 0)
    await box.boot()  # as after a kill
    assert await box.ask(1) == (0, 400)


async def test_nothing_of_another_tenant_is_used(box: Box) -> None:
    await box.ask(1, "same", tenant=1)
    assert await box.ask(2, "same", tenant=2) == (0, 0)
    assert await box.ask(3, "same", tenant=1) == (0, 1_600), "of the same tenant it is"
    assert box.played.said == ["save 0", "save 0", "restore 0"]


async def test_a_new_process_begins_with_what_its_tenant_has_read(box: Box) -> None:
    await box.boot(slots=2)
    await box.ask(1, "same")
    assert await box.ask(2, "same") == (0, 1_600)


@pytest.mark.parametrize("how", ["fails", "hangs"])
@pytest.mark.parametrize("action", ["save", "restore"])
async def test_a_failing_action_only_costs_the_speed(
    box: Box, monkeypatch: pytest.MonkeyPatch, action: str, how: str
) -> None:
    await box.ask(1)
    await box.ask(2)
    monkeypatch.setattr(kv_tiers, "ACTION_TIMEOUT_S", 0.05)
    getattr(box.played, how).add(action)
    assert (await box.ask(3))[1] == 0
    assert (await box.ask(2))[1] == 0
    assert not list(box.played.folder.glob("*.new"))


async def test_a_damaged_file_is_dropped_and_the_prompt_read_again(box: Box) -> None:
    await box.ask(1)
    await box.ask(2)
    [path] = box.played.folder.glob("1-1-*.kv")
    path.write_bytes(b"2" + path.read_bytes()[1:])
    assert await box.ask(1) == (0, 0)
    assert "restore 0" not in box.played.said
    assert not path.exists()


async def test_after_a_broken_call_nobody_takes_the_slot_for_what_it_was(box: Box) -> None:
    await box.ask(1)

    async def breaks(_: Lease) -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await box.ask(2, during=breaks)
    with pytest.raises(ConnectionError):
        await box.ask(3, tenant=2, during=breaks)
    assert await box.ask(4, "3", tenant=1) == (0, 0), "it may hold something of another tenant"
    assert box.files() == ["1-1"], "nobody knows what it holds, so it is not saved"
    assert await box.ask(1) == (0, 400)


async def test_a_new_child_has_empty_slots(box: Box) -> None:
    await box.ask(1)
    box.server = Server(cast(Any, None), box.server.url, "key", 0.0)
    box.played.slots.clear()
    assert await box.ask(2) == (0, 0)
    assert box.played.said == []


async def test_a_new_child_with_another_model_gets_nothing_that_the_old_one_read(box: Box) -> None:
    await box.ask(1)
    await box.ask(2)  # 1 goes to a file
    assert box.files() == ["1-1"]
    box.model.write_bytes(b"other weights")
    box.server = Server(cast(Any, None), box.server.url, "key", 0.0)
    box.played.slots.clear()
    box.played.said.clear()
    assert await box.ask(1) == (0, 0)
    assert "restore 0" not in box.played.said
    assert box.files() == []


async def test_a_child_that_is_replaced_while_a_call_waits_loses_no_slot(box: Box) -> None:
    first, leave = await box.stays(1)
    late = await box.newcomer(2)
    box.server = Server(cast(Any, None), box.server.url, "key", 0.0)
    box.played.slots.clear()
    await box.ask(3)
    leave.set()
    await first
    await late
    assert not any(held.busy for held in box.tiers._slots)
    assert (await box.ask(4))[1] == 0
    assert box.files() == ["1-3"], "nothing that the old child held is taken for the new one's"


async def test_idle_slots_make_room_for_a_call(box: Box) -> None:
    await box.boot(slots=3, room_tokens=500)  # a call: 200; idle: 200
    await box.ask(1)
    await box.ask(2)
    assert await box.ask(3) == (2, 0)
    assert box.played.said == ["save 0", "erase 0"]
    assert (await box.ask(1))[1] == 400


async def test_a_removed_process_leaves_nothing(box: Box) -> None:
    await box.ask(1)
    await box.ask(2)
    await box.tiers.forget([1, 2])
    assert box.files() == []
    assert box.played.slots == {0: ""}
    assert await box.ask(2) == (0, 0)


async def test_a_process_that_is_removed_while_it_is_saved_leaves_nothing(box: Box) -> None:
    await box.ask(1)
    box.played.hangs.add("save")
    asking = asyncio.create_task(box.ask(2))
    async with asyncio.timeout(5):
        await box.played.here.wait()
    forgetting = asyncio.create_task(box.tiers.forget([1]))
    await asyncio.sleep(0)
    box.played.go_on.set()
    await forgetting
    await asking
    assert box.files() == []


# ----------------------------------------------------------------------------------------------- who is waited for


async def quick_tool(box: Box) -> None:
    """Process 1 is away for a tool that was measured: half a second each time."""
    for _ in range(5):
        await box.ask(1, tool="search")
        box.now_s += 0.5
    await box.ask(1, tool="search")
    box.tiers.read(400, 400.0)  # a token a second: reading again is dear


async def test_a_quick_tool_keeps_its_slot_where_reading_again_is_dear(box: Box) -> None:
    await box.boot(files=False)
    await quick_tool(box)
    newcomer = await box.newcomer(2)
    box.now_s += 0.4
    assert await box.ask(1) == (0, 400), "back in time"
    assert await newcomer == (0, 0)


async def test_nobody_waits_longer_than_the_tool_ever_took(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_tiers, "LOOK_AGAIN_S", 0.01)
    await box.boot(files=False)
    await quick_tool(box)
    newcomer = await box.newcomer(2)
    box.now_s += 0.6
    assert await newcomer == (0, 0)


async def test_nobody_is_waited_for_who_comes_back_from_the_disk_sooner(box: Box) -> None:
    await quick_tool(box)
    assert await box.ask(2) == (0, 0)
    assert await box.ask(1) == (0, 400)


async def test_who_gives_up_waiting_leaves_no_trace(box: Box) -> None:
    first, leave = await box.stays(1)
    second = await box.newcomer(2)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    leave.set()
    await first
    assert box.tiers._waiting == 0
    assert await box.ask(3) == (0, 0)


async def test_closing_takes_a_bounded_time(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_tiers, "CLOSE_SAVE_S", 0.05)
    await box.ask(1)
    box.played.hangs.add("save")
    async with asyncio.timeout(5):
        await box.tiers.close()
    assert box.files() == []
