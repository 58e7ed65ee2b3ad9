"""Models, devices and people that mean no good, or know no better: each is told so, and harms only itself."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable

import pytest
from tests.unit.kernel.world import World, by_turn, call, calls, says, turn_of

import mains
from mains import Signal
from mains.errors import ConfigError, EngineError, LimitError, MainsError, Spent
from mains.kernel.desk import Desk
from mains.kernel.ports import Reply, Request, ToolCall, Usage

BROKEN_TEXT = "half a \ud83d pair"


async def _bystander(world: World, kernel: Desk) -> None:
    """Somebody else's process still runs to its end."""
    outcome = await kernel.wait(await kernel.spawn(world.program("bystander", prose="Bystander.")), 10)
    assert (outcome.exit_code, outcome.result) == (0, "unharmed")


def _or_bystander(
    answer: Callable[[Request], Reply | Awaitable[Reply]],
) -> Callable[[Request], Reply | Awaitable[Reply]]:
    return lambda r: says("unharmed") if r.messages[0].text == "Bystander." else answer(r)


async def test_a_device_that_returns_broken_unicode_harms_nobody(world: World) -> None:
    @mains.device
    def odd() -> str:
        """Odd."""
        return BROKEN_TEXT

    async with world.open(_or_bystander(by_turn(calls(call("odd")), says("ok"))), devices=[odd]) as kernel:
        outcome = await kernel.wait(await kernel.spawn(world.program("p", "tools: [odd]")), 10)
        assert outcome.result == "ok"
        await _bystander(world, kernel)
    [result] = [m.text for r in world.asked for m in r.messages if m.role == "tool"]
    assert result.startswith("half a ")
    result.encode()


@pytest.mark.parametrize(
    "reply",
    [
        says(BROKEN_TEXT),
        Reply("", (ToolCall("x", BROKEN_TEXT, "{}"),), Usage(1, 0, 1)),
        Reply("", (ToolCall("x", "odd", f'{{"a": "{BROKEN_TEXT}"}}'),), Usage(1, 0, 1)),
    ],
)
async def test_a_model_that_says_broken_unicode_harms_nobody(world: World, reply: Reply) -> None:
    async with world.open(_or_bystander(by_turn(reply, says("ok")))) as kernel:
        outcome = await kernel.wait(await kernel.spawn(world.program("p", "tools: [sleep]")), 10)
        assert outcome.exit_code == 0
        await _bystander(world, kernel)


async def test_people_who_send_broken_unicode_are_told(world: World) -> None:
    async with world.open(_or_bystander(by_turn(calls(call("ask", question="?")), says("ok")))) as kernel:
        pid = await kernel.spawn(world.program("p", "tools: [ask]"))
        await world.until_state(kernel, pid, "WAITING", "human")
        with pytest.raises(MainsError, match="Unicode"):
            await kernel.send(pid, BROKEN_TEXT)
        with pytest.raises(MainsError, match="Unicode"):
            await kernel.send(pid, "fine", key=BROKEN_TEXT)
        with pytest.raises(MainsError, match="Unicode"):
            await kernel.answer(pid, BROKEN_TEXT)
        with pytest.raises(MainsError, match="Unicode"):
            await kernel.spawn(world.program("q"), {"prompt": BROKEN_TEXT})
        with pytest.raises(MainsError, match="Unicode"):
            await kernel.spawn(world.program("q"), key=BROKEN_TEXT)
        await kernel.answer(pid, "yes")
        assert (await kernel.wait(pid, 10)).result == "ok"
        await _bystander(world, kernel)


@pytest.mark.parametrize("to", [10**30, -(10**30), 2**63])
async def test_a_number_that_no_process_can_have_is_an_error_for_the_model(world: World, to: int) -> None:
    async with world.open(_or_bystander(by_turn(calls(call("send", to=to, text="x")), says("ok")))) as kernel:
        outcome = await kernel.wait(await kernel.spawn(world.program("p", "tools: [send]")), 10)
        assert outcome.result == "ok"
        await _bystander(world, kernel)
    assert any("no process" in m.text for r in world.asked for m in r.messages if m.role == "tool")


async def test_whole_numbers_may_be_written_as_a_model_likes(world: World) -> None:
    made = Reply("", (ToolCall("x", "exit", '{"code": 3.0, "result": "bye"}'),), Usage(1, 0, 1))
    async with world.open(_or_bystander(by_turn(made))) as kernel:
        outcome = await kernel.wait(await kernel.spawn(world.program("p", "tools: [exit]")), 10)
        assert (outcome.exit_code, outcome.result) == (3, "bye")
        await _bystander(world, kernel)


@pytest.mark.parametrize("opened", ["[", '{"a":'])
async def test_arguments_without_end_are_malformed_like_any_other(world: World, opened: str) -> None:
    made = Reply("", (ToolCall("x", "sleep", opened * 50_000),), Usage(1, 0, 1))
    async with world.open(by_turn(made, says("mended"))) as kernel:
        outcome = await kernel.wait(await kernel.spawn(world.program("p", "tools: [sleep]")), 10)
    assert (outcome.state, outcome.result) == ("EXITED", "mended")


async def test_a_result_without_end_is_no_valid_output(world: World) -> None:
    async with world.open(by_turn(says("[" * 50_000), says("[1]"))) as kernel:
        outcome = await kernel.wait(await kernel.spawn(world.program("p", "output: {type: array}")), 10)
    assert outcome.result == [1]


async def test_nothing_happens_after_exit(world: World) -> None:
    acted: list[str] = []

    @mains.device
    def act() -> str:
        """Act."""
        acted.append("act")
        return "done"

    world.program("child")
    reply = calls(
        call("exit", result="first"), call("spawn", program="child"), call("act"), call("exit", result="second", code=9)
    )
    async with world.open(by_turn(reply), devices=[act]) as kernel:
        outcome = await kernel.wait(await kernel.spawn(world.program("p", "tools: [exit, spawn(child), act]")), 10)
        assert (outcome.exit_code, outcome.result) == (0, "first")
        assert [p.pid for p in await kernel.ps(every=True)] == [1]
    assert acted == []


async def test_exit_is_held_to_the_output_schema_like_a_reply(world: World) -> None:
    replies = calls(call("exit", result="just text")), calls(call("exit", result='{"n": 3}'))
    front = "tools: [exit]\noutput: {type: object, properties: {n: {type: integer}}, required: [n]}"
    async with world.open(by_turn(*replies)) as kernel:
        outcome = await kernel.wait(await kernel.spawn(world.program("p", front)), 10)
    assert (outcome.exit_code, outcome.result, outcome.turns) == (0, {"n": 3}, 2)
    assert "JSON Schema" in world.asked[1].messages[-1].text


async def test_exit_with_a_code_may_say_why_in_words(world: World) -> None:
    front = "tools: [exit]\noutput: {type: object}"
    async with world.open(by_turn(calls(call("exit", result="could not", code=2)))) as kernel:
        outcome = await kernel.wait(await kernel.spawn(world.program("p", front)), 10)
    assert (outcome.exit_code, outcome.result) == (2, "could not")


async def test_a_letter_to_oneself_is_delivered(world: World) -> None:
    made = Reply("", (call("receive"), ToolCall("x", "send", '{"to": 1, "text": "note to self"}')), Usage(1, 0, 1))
    async with world.open(by_turn(made, says("ok"))) as kernel:
        pid = await kernel.spawn(world.program("p", "tools: [receive, send]"))
        assert (await kernel.wait(pid, 10)).result == "ok"
    assert [m.text for m in world.asked[1].messages if m.role == "tool"] == ["from process 1: note to self", "sent"]


async def test_a_fork_of_a_waiting_parent_is_none_of_its_children(world: World) -> None:
    gate = asyncio.Event()

    async def answer(request: Request) -> Reply:
        if request.messages[0].text == "Child.":
            await asyncio.wait_for(gate.wait(), 10)
            return says("child's result")
        return (calls(call("spawn", program="child")), calls(call("wait")), says("done"))[turn_of(request)]

    world.program("child", "", "Child.")
    async with world.open(answer) as kernel:
        pid = await kernel.spawn(world.program("p", "tools: [spawn(child), wait]"))
        await world.until_state(kernel, pid, "WAITING", "child")
        fork = await kernel.fork(pid)
        await kernel.signal(fork, Signal.STOP)
        gate.set()
        assert (await kernel.wait(pid, 10)).result == "done", "the parent waited for its fork"
        [told] = [m.text for m in world.asked[-1].messages if m.role == "tool" and m.name == "wait"]
    assert [each["pid"] for each in json.loads(told)] == [2], "a fork changed what its parent was told"


@pytest.mark.parametrize("rounds", range(0, 40, 3))
@pytest.mark.parametrize("sign", [Signal.KILL, Signal.TERM])
async def test_a_signal_at_any_moment_of_a_model_call_leaves_nothing_running(
    world: World, rounds: int, sign: Signal
) -> None:
    async def answer(request: Request) -> Reply:
        await asyncio.Event().wait()
        raise AssertionError

    async with world.open(answer) as kernel:
        pid = await kernel.spawn(world.program("p"))
        for _ in range(rounds):
            await asyncio.sleep(0)
        await kernel.signal(pid, sign)
        assert (await kernel.wait(pid, 10)).exit_code in (137, 143)
        await world.until(lambda: _idle(kernel))


async def _idle(kernel: Desk) -> bool:
    return all(engine.busy == 0 for engine in kernel.engines())


@pytest.mark.parametrize("rounds", range(0, 60, 4))
async def test_a_kill_at_any_moment_of_a_device_call_leaves_nothing_running(world: World, rounds: int) -> None:
    inside: list[str] = []

    @mains.device
    async def hang() -> str:
        """Hang."""
        inside.append("in")
        try:
            await asyncio.Event().wait()
        finally:
            inside.remove("in")
        return ""

    async with world.open(by_turn(calls(call("hang"))), devices=[hang]) as kernel:
        pid = await kernel.spawn(world.program("p", "tools: [hang]"))
        for _ in range(rounds):
            await asyncio.sleep(0)
        await kernel.signal(pid, Signal.KILL)
        assert (await kernel.wait(pid, 10)).exit_code == 137

        async def nobody() -> bool:
            return not inside and not kernel.busy()

        await world.until(nobody)


async def _cancels_itself() -> None:
    inner = asyncio.ensure_future(asyncio.Event().wait())
    asyncio.get_running_loop().call_soon(inner.cancel)
    await inner


async def test_an_engine_that_cancels_itself_leaves_no_process_hanging(world: World) -> None:
    async def answer(request: Request) -> Reply:
        await _cancels_itself()
        raise AssertionError

    async with world.open(answer, model_attempts_max=1) as kernel:
        outcome = await kernel.wait(await kernel.spawn(world.program("p")), 10)
    assert (outcome.state, outcome.reason.split(":")[0]) == ("STOPPED", "error")


async def test_a_device_that_cancels_itself_leaves_no_process_hanging(world: World) -> None:
    @mains.device
    async def odd() -> str:
        """Odd."""
        await _cancels_itself()
        return ""

    async with world.open(by_turn(calls(call("odd")), says("ok")), devices=[odd]) as kernel:
        outcome = await kernel.wait(await kernel.spawn(world.program("p", "tools: [odd]")), 10)
    assert outcome.reason.startswith("in doubt"), outcome


async def test_a_device_that_wants_to_end_the_interpreter_fails_its_call(world: World) -> None:
    @mains.device
    def leave() -> str:
        """Leave."""
        raise SystemExit(3)

    @mains.device
    async def go() -> str:
        """Go."""
        raise SystemExit(4)

    async with world.open(by_turn(calls(call("leave"), call("go")), says("ok")), devices=[leave, go]) as kernel:
        outcome = await kernel.wait(await kernel.spawn(world.program("p", "tools: [leave, go]")), 10)
    assert outcome.result == "ok"
    assert [m.text for m in world.asked[1].messages if m.role == "tool"] == [
        "error: SystemExit: 3", "error: SystemExit: 4",
    ]  # fmt: skip


async def test_hung_functions_hold_up_nobody_but_their_callers(world: World) -> None:
    release = threading.Event()

    @mains.device
    def stuck() -> str:
        """Stuck."""
        release.wait(20)
        return "at last"

    answer = by_turn(calls(call("stuck")), says("ok"))
    try:
        async with world.open(_or_bystander(answer), devices=[stuck], slots=64) as kernel:
            path = world.program("p", "tools: [stuck]")
            pids = [await kernel.spawn(path) for _ in range(40)]
            async with asyncio.timeout(10):
                await _bystander(world, kernel)
                assert len(await kernel.ps()) == 40
            release.set()
            assert {(await kernel.wait(pid, 10)).result for pid in pids} == {"ok"}
    finally:
        release.set()


async def test_a_full_home_is_an_error_for_the_model_not_for_the_process(world: World) -> None:
    world.program("child", "", "Child.")
    gate = asyncio.Event()

    async def answer(request: Request) -> Reply:
        if request.messages[0].text == "Child.":
            await asyncio.wait_for(gate.wait(), 10)
            return says("ok")
        return (calls(*[call("spawn", program="child")] * 4), says("done"))[turn_of(request)]

    async with world.open(answer, processes_max=3) as kernel:
        pid = await kernel.spawn(world.program("p", "tools: [spawn(child)]"))
        assert (await kernel.wait(pid, 10)).result == "done"
        gate.set()
        assert len(await kernel.ps(every=True)) == 3
    told = [m.text for m in world.asked[-1].messages if m.role == "tool"] or [
        m.text for r in world.asked for m in r.messages if m.role == "tool"
    ]
    assert [text.startswith("error") for text in told] == [False, False, True, True]
    assert "processes_max" in told[-1]


async def test_a_child_spawned_in_a_paused_tree_is_paused_and_goes_on_with_it(world: World) -> None:
    gate = asyncio.Event()

    async def answer(request: Request) -> Reply:
        if request.messages[0].text == "Child.":
            return says("ran")
        await asyncio.wait_for(gate.wait(), 10)
        return (calls(call("spawn", program="child"), call("wait")), says("done"))[turn_of(request)]

    world.program("child", "", "Child.")
    async with world.open(answer) as kernel:
        pid = await kernel.spawn(world.program("p", "tools: [spawn(child), wait]"))
        await world.until_state(kernel, pid, "RUNNING")
        await kernel.signal(pid, Signal.STOP)
        gate.set()
        await world.until_state(kernel, pid, "STOPPED", "paused")
        for _ in range(100):
            await asyncio.sleep(0)
        assert (await kernel.outcome(2)).state == "STOPPED", "a child of a paused tree ran"
        assert await kernel.signal(pid, Signal.CONT) == [1, 2]
        assert (await kernel.wait(pid, 10)).result == "done"


async def test_a_device_cannot_take_the_name_of_a_syscall(world: World) -> None:
    @mains.device
    def wait() -> str:
        """Wait."""
        return ""

    with pytest.raises(ConfigError, match="wait"):
        async with world.open(by_turn(says("x")), devices=[wait]):
            pass


async def test_a_short_queue_of_commits_refuses_people_but_never_a_turn(world: World) -> None:
    @mains.device(read_only=True)
    async def look(n: int) -> str:
        """Look."""
        return str(n)

    refused: list[LimitError] = []
    reply = calls(*[call("look", n=n) for n in range(20)])
    answer = by_turn(reply, reply, says("ok"))
    async with world.open(answer, devices=[look], slots=30, commits_queued_max=2) as kernel:
        path = world.program("p", "tools: [look]")
        pids: list[int] = []
        while len(pids) < 20:
            started = await asyncio.gather(*[kernel.spawn(path) for _ in range(5)], return_exceptions=True)
            pids += [each for each in started if isinstance(each, int)]
            refused += [each for each in started if isinstance(each, LimitError)]
        outcomes = [await kernel.wait(pid, 20) for pid in pids]
    assert refused, "the queue had no bound"
    assert {outcome.result for outcome in outcomes} == {"ok"}, outcomes


async def test_an_engine_that_reports_less_than_nothing_gives_no_tokens_back(world: World) -> None:
    async with world.open(by_turn(Reply("ok", usage=Usage(-5_000, 0, -10)))) as kernel:
        await kernel.wait(await kernel.spawn(world.program("p"), budget=2_000), 10)
        account = (await kernel.show(1))["accounts"][0]
    assert account["posted"] >= 0


async def test_a_result_that_is_no_json_leaves_the_call_in_doubt_and_nobody_else(world: World) -> None:
    @mains.device
    def odd() -> object:
        """Odd."""
        return object()

    async with world.open(_or_bystander(by_turn(calls(call("odd")), says("ok"))), devices=[odd]) as kernel:
        pid = await kernel.spawn(world.program("p", "tools: [odd]"))
        assert (await kernel.wait(pid, 10)).state == "STOPPED"
        await _bystander(world, kernel)
        await kernel.answer(pid, "skip")
        await kernel.signal(pid, Signal.CONT)
        assert (await kernel.wait(pid, 10)).result == "ok"


async def test_an_unknown_engine_stops_its_process_and_says_so(world: World) -> None:
    async with world.open(by_turn(says("ok"))) as kernel:
        pid = await kernel.spawn(world.program("p"), paused=True)
    async with mains.open(
        world.folder / "home", engines=[mains.ScriptedEngine.of(by_turn(says("x")), name="new")]
    ) as k:
        await k.signal(pid, Signal.CONT)
        outcome = await k.wait(pid, 10)
        assert outcome.state == "STOPPED"
        assert "`scripted`" in outcome.reason


async def test_a_hung_engine_delays_only_its_own_callers(world: World) -> None:
    async def hang(request: Request) -> Reply:
        await asyncio.Event().wait()
        raise AssertionError

    hung = mains.ScriptedEngine.of(hang, name="hung", slots=1)
    quick = mains.ScriptedEngine.of(by_turn(says("quick")), name="quick", slots=1)
    settings = mains.Settings(model_timeout_s=2.0, model_attempts_max=1)
    async with mains.open(world.folder / "home", engines=[hung, quick], settings=settings) as kernel:
        path = world.program("p", "max_tokens: 50")
        stuck = [await kernel.spawn(path) for _ in range(2)]
        for _ in range(3):
            assert (await kernel.wait(await kernel.spawn(path, engine="quick"), 10)).result == "quick"
        assert (await kernel.outcome(stuck[0])).state == "RUNNING"
        outcome = await kernel.wait(stuck[1], 30)
        assert "model_timeout_s" in outcome.reason
        assert outcome.usage.total > 50, "nobody knows what it spent: its hold is charged"


async def test_the_last_error_is_kept_when_all_attempts_fail(world: World) -> None:
    def answer(request: Request) -> Reply:
        raise EngineError("no room", retryable=True, spent=Spent.NOTHING)

    async with world.open(answer, model_attempts_max=3) as kernel:
        pid = await kernel.spawn(world.program("p"))

        async def gave_up() -> bool:
            world.clock.advance(10_000)
            return (await kernel.outcome(pid)).state == "STOPPED"

        await world.until(gave_up)
        outcome = await kernel.outcome(pid)
        assert outcome.reason == "error: no room (3 tries)"
        assert len(world.asked) == 3
        assert outcome.usage.total == 0
