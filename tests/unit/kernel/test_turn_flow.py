"""What a turn does with every kind of reply."""

from __future__ import annotations

import asyncio
import json
from functools import partial

import pytest
from tests.unit.kernel.world import World, by_turn, call, calls, says, turn_of

import mains
from mains.errors import EngineError, Spent
from mains.kernel.desk import Desk
from mains.kernel.ports import Finish, Reply, Request, ToolCall, Usage


async def test_a_reply_without_calls_is_the_result(world: World) -> None:
    async with world.open(by_turn(says("forty-two"))) as kernel:
        outcome = await kernel.wait(await kernel.spawn(world.program("p")), 10)
    assert (outcome.exit_code, outcome.result, outcome.turns) == (0, "forty-two", 1)
    assert outcome.usage == Usage(10, 0, 5)
    assert [m.role for m in world.asked[0].messages] == ["system", "user"]
    assert world.asked[0].tools == ()


async def test_read_only_calls_overlap_and_results_keep_the_order_of_the_calls(world: World) -> None:
    both = asyncio.Event()
    inside: list[str] = []

    @mains.device(read_only=True)
    async def look(what: str) -> str:
        """Look."""
        inside.append(what)
        if len(inside) == 3:
            both.set()
        await asyncio.wait_for(both.wait(), 10)
        return f"seen {what}"

    reply = calls(call("look", what="a"), call("look", what="b"), call("look", what="c"))
    async with world.open(by_turn(reply, says("done")), devices=[look]) as kernel:
        await kernel.wait(await kernel.spawn(world.program("p", "tools: [look]")), 10)
    results = [m.text for m in world.asked[1].messages if m.role == "tool"]
    assert results == ["seen a", "seen b", "seen c"]


async def test_calls_that_change_something_go_one_by_one_in_order(world: World) -> None:
    log: list[str] = []

    @mains.device
    async def act(n: int) -> str:
        """Act."""
        log.append(f"in {n}")
        await asyncio.sleep(0)
        log.append(f"out {n}")
        return str(n)

    async with world.open(by_turn(calls(*[call("act", n=n) for n in range(4)]), says("done")), devices=[act]) as kernel:
        await kernel.wait(await kernel.spawn(world.program("p", "tools: [act]")), 10)
    assert log == [f"{way} {n}" for n in range(4) for way in ("in", "out")]


MALFORMED = [
    (ToolCall("x", "sleep", "{not json"), "not JSON"),
    (ToolCall("x", "sleep", '["a list"]'), "must be a JSON object"),
    (call("sleep", seconds="long"), "do not fit"),
    (call("sleep"), "required"),
    (call("files.read", path="x"), "no tool `files.read`"),
]


@pytest.mark.parametrize(("made", "told"), MALFORMED)
async def test_a_malformed_call_is_told_to_the_model_which_mends_it(world: World, made: ToolCall, told: str) -> None:
    async with world.open(by_turn(calls(made), says("mended"))) as kernel:
        outcome = await kernel.wait(await kernel.spawn(world.program("p", "tools: [sleep]")), 10)
    assert outcome.result == "mended"
    result = world.asked[1].messages[-1]
    assert result.role == "tool"
    assert told in result.text
    json.loads(world.asked[1].messages[-2].calls[0].arguments)


async def test_a_model_that_never_mends_is_ended_with_the_reason(world: World) -> None:
    async with world.open(by_turn(calls(call("nonsense"))), mends_max=3) as kernel:
        outcome = await kernel.wait(await kernel.spawn(world.program("p", "tools: [sleep]")), 10)
    assert (outcome.exit_code, outcome.turns) == (1, 4)
    assert "did not mend" in outcome.reason
    assert "nonsense" in outcome.reason


async def test_empty_replies_are_mended_a_bounded_number_of_times(world: World) -> None:
    async with world.open(by_turn(says(""), says(" \n"), says("here"))) as kernel:
        assert (await kernel.wait(await kernel.spawn(world.program("p")), 10)).result == "here"
    async with world.open(by_turn(says(""))) as kernel:
        assert (await kernel.wait(await kernel.spawn(world.program("q")), 10)).exit_code == 1


async def test_a_refusal_and_a_cut_reply_say_so(world: World) -> None:
    async with world.open(by_turn(Reply("I will not", usage=Usage(1, 0, 1), finish=Finish.REFUSAL))) as kernel:
        outcome = await kernel.wait(await kernel.spawn(world.program("p")), 10)
        assert (outcome.exit_code, outcome.result, outcome.reason) == (1, "I will not", "the model refused")
    async with world.open(by_turn(Reply("once upon", usage=Usage(1, 0, 1), finish=Finish.LENGTH))) as kernel:
        outcome = await kernel.wait(await kernel.spawn(world.program("q")), 10)
        assert (outcome.exit_code, outcome.result) == (0, "once upon")
        assert "cut" in outcome.reason


async def test_an_endless_loop_ends_at_the_turn_limit(world: World) -> None:
    async with world.open(by_turn(calls(call("receive", timeout_s=0))), turns_max=7) as kernel:
        outcome = await kernel.wait(await kernel.spawn(world.program("p", "tools: [receive]")), 10)
    assert (outcome.exit_code, outcome.turns) == (1, 7)
    assert "turns_max" in outcome.reason


async def test_the_output_schema_is_checked_mended_and_decoded(world: World) -> None:
    front = "output: {type: object, properties: {n: {type: integer}}, required: [n]}"
    replies = says("no json"), says('{"n": "x"}'), says('```json\n{"n": 3}\n```')
    async with world.open(by_turn(*replies)) as kernel:
        outcome = await kernel.wait(await kernel.spawn(world.program("p", front)), 10)
    assert outcome.result == {"n": 3}
    assert world.asked[0].output is not None
    assert "JSON Schema" in world.asked[1].messages[-1].text


async def test_bare_text_is_a_string_where_a_string_is_wanted(world: World) -> None:
    async with world.open(by_turn(says("42"))) as kernel:
        assert (await kernel.wait(await kernel.spawn(world.program("p", "output: {type: string}")), 10)).result == "42"


async def test_more_calls_than_allowed_get_an_error_each_and_none_is_lost(world: World) -> None:
    async with world.open(
        by_turn(calls(*[call("receive", timeout_s=0)] * 5), says("done")), calls_per_turn_max=3
    ) as kernel:
        await kernel.wait(await kernel.spawn(world.program("p", "tools: [receive]")), 10)
    results = [m.text for m in world.asked[1].messages if m.role == "tool"]
    assert [text.startswith("error") for text in results] == [False, False, False, True, True]


async def test_a_large_result_is_cut_and_says_so(world: World) -> None:
    @mains.device(read_only=True)
    def much() -> str:
        """Much."""
        return "x" * 10_000

    async with world.open(by_turn(calls(call("much")), says("ok")), devices=[much], result_bytes_max=1_000) as kernel:
        await kernel.wait(await kernel.spawn(world.program("p", "tools: [much]")), 10)
    text = world.asked[1].messages[-1].text
    assert text.startswith("x" * 1_000 + "\n[cut")
    assert "10,000" in text


async def test_a_device_that_raises_fails_its_call_only(world: World) -> None:
    @mains.device
    def broken() -> str:
        """Broken."""
        raise ValueError("no such thing")

    async with world.open(by_turn(calls(call("broken")), says("ok")), devices=[broken]) as kernel:
        assert (await kernel.wait(await kernel.spawn(world.program("p", "tools: [broken]")), 10)).result == "ok"
    assert world.asked[1].messages[-1].text == "error: ValueError: no such thing"


@pytest.mark.parametrize(("policy", "made", "told"), [("retry", 2, "sent"), ("skip", 1, "skipped"), ("ask", 1, "")])
async def test_a_device_that_breaks_in_the_middle_leaves_its_call_in_doubt(
    world: World, policy: str, made: int, told: str
) -> None:
    attempts: list[int] = []

    @mains.device
    def mail(context: mains.CallContext) -> str:
        """Mail."""
        attempts.append(context.attempt)
        if len(attempts) == 1:
            raise mains.DeviceError("the line broke")
        return "sent"

    async with world.open(by_turn(calls(call("mail")), says("ok")), devices=[mail]) as kernel:
        pid = await kernel.spawn(world.program("p", f"tools: [mail]\non_doubt: {policy}"))
        outcome = await kernel.wait(pid, 10)
        if policy == "ask":
            assert (outcome.state, outcome.exit_code) == ("STOPPED", None)
            assert outcome.reason.startswith("in doubt")
            with pytest.raises(mains.MainsError, match="retry"):
                await kernel.answer(pid, "perhaps")
            await kernel.answer(pid, 'done={"id": 7}')
            outcome, told = await kernel.wait(pid, 10), '{"id": 7}'
    assert outcome.result == "ok"
    assert len(attempts) == made
    assert world.asked[1].messages[-1].text.startswith(told)


async def test_on_doubt_retry_is_bounded(world: World) -> None:
    attempts: list[int] = []

    @mains.device
    def mail(context: mains.CallContext) -> str:
        """Mail."""
        attempts.append(context.attempt)
        raise mains.DeviceError("the line broke")

    async with world.open(by_turn(calls(call("mail"))), devices=[mail], device_attempts_max=3) as kernel:
        outcome = await kernel.wait(await kernel.spawn(world.program("p", "tools: [mail]\non_doubt: retry")), 10)
    assert outcome.reason.startswith("in doubt")
    assert attempts == [1, 2, 3]


async def test_a_retryable_engine_error_is_tried_again_after_a_back_off(world: World) -> None:
    failures = [EngineError("busy", retryable=True, spent=Spent.NOTHING)] * 2

    def answer(request: Request) -> Reply:
        if failures:
            raise failures.pop()
        return says("at last")

    async with world.open(answer) as kernel:
        pid = await kernel.spawn(world.program("p"))
        for tries in (1, 2):
            await world.until(partial(_asked, world, tries))
            await world.until_state(kernel, pid, "WAITING", "timer: busy")
            world.clock.advance(60_000)
        outcome = await kernel.wait(pid, 10)
    assert outcome.result == "at last"
    assert [r.key for r in world.asked] == ["1-1-1", "1-1-2", "1-1-3"]
    assert outcome.usage.total == 15, "a call that proved to have spent nothing was charged"


async def test_an_engine_that_keeps_failing_stops_the_process_and_resume_goes_on(world: World) -> None:
    broken = True

    def answer(request: Request) -> Reply:
        if broken:
            raise EngineError("no such model", retryable=False, spent=Spent.UNKNOWN)
        return says("ok")

    async with world.open(answer) as kernel:
        pid = await kernel.spawn(world.program("p", "max_tokens: 100"))
        outcome = await kernel.wait(pid, 10)
        assert (outcome.state, outcome.exit_code) == ("STOPPED", None)
        assert outcome.reason == "error: no such model"
        assert outcome.usage.total > 100, "nobody knows what it spent: the hold is charged whole"
        broken = False
        await kernel.signal(pid, mains.Signal.CONT)
        assert (await kernel.wait(pid, 10)).result == "ok"


async def test_retry_after_holds_back_everybody_on_that_engine(world: World) -> None:
    def answer(request: Request) -> Reply:
        if len(world.asked) == 1:
            raise EngineError("slow down", retryable=True, spent=Spent.NOTHING, retry_after_s=30)
        return says("ok")

    async with world.open(answer, slots=1) as kernel:
        pids = [await kernel.spawn(world.program("p")) for _ in range(3)]
        await world.until_state(kernel, pids[0], "WAITING", "timer")
        world.clock.advance(29_000)
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(world.asked) == 1
        world.clock.advance(120_000)
        assert [(await kernel.wait(pid, 10)).result for pid in pids] == ["ok"] * 3


async def test_a_bug_in_an_engine_stops_its_process_and_no_other(world: World) -> None:
    def answer(request: Request) -> Reply:
        if "bad" in request.messages[0].text:
            raise ZeroDivisionError("our bug")
        return says("fine")

    async with world.open(answer) as kernel:
        bad = await kernel.spawn(world.program("bad", prose="bad"))
        good = await kernel.spawn(world.program("good", prose="good"))
        assert (await kernel.wait(good, 10)).result == "fine"
        outcome = await kernel.wait(bad, 10)
    assert outcome.state == "STOPPED"
    assert "ZeroDivisionError: our bug" in outcome.reason


async def test_a_message_is_read_at_the_next_turn_and_one_in_the_last_turn_is_not_lost(world: World) -> None:
    go = asyncio.Event()

    async def answer(request: Request) -> Reply:
        await asyncio.wait_for(go.wait(), 10)
        return says(request.messages[-1].text)

    async with world.open(answer) as kernel:
        pid = await kernel.spawn(world.program("p"))
        await world.until_state(kernel, pid, "RUNNING")
        first = await kernel.send(pid, "also this", key="k")
        assert await kernel.send(pid, "also this", key="k") == first
        go.set()
        outcome = await kernel.wait(pid, 10)
        assert (outcome.result, outcome.turns) == ("also this", 2)
        with pytest.raises(mains.MainsError, match="has exited"):
            await kernel.send(pid, "too late")


async def test_receive_takes_messages_one_by_one_and_times_out(world: World) -> None:
    replies = calls(call("receive")), calls(call("receive", timeout_s=5)), says("done")
    async with world.open(by_turn(*replies)) as kernel:
        pid = await kernel.spawn(world.program("p", "tools: [receive]"))
        await world.until_state(kernel, pid, "WAITING", "message")
        await kernel.send(pid, "hello")
        await world.until_state(kernel, pid, "WAITING", "message")
        await world.until(partial(_at_turn, kernel, pid, 2))
        world.clock.advance(6_000)
        assert (await kernel.wait(pid, 10)).result == "done"
    texts = [m.text for m in world.asked[-1].messages if m.role == "tool"]
    assert texts == ["from a person: hello", "no message came in time"]


async def _at_turn(kernel: Desk, pid: int, turns: int) -> bool:
    outcome = await kernel.outcome(pid)
    return outcome.turns == turns and outcome.state == "WAITING"


async def _asked(world: World, times: int) -> bool:
    return len(world.asked) == times


async def test_ask_waits_for_a_person(world: World) -> None:
    async with world.open(by_turn(calls(call("ask", question="red or blue?")), says("ok"))) as kernel:
        pid = await kernel.spawn(world.program("p", "tools: [ask]"))
        await world.until_state(kernel, pid, "WAITING", "human")
        assert (await kernel.show(pid))["open_calls"][0]["arguments"] == {"question": "red or blue?"}
        await kernel.answer(pid, "blue")
        await kernel.wait(pid, 10)
        with pytest.raises(mains.MainsError, match="asks nothing"):
            await kernel.answer(pid, "green")
    assert world.asked[1].messages[-1].text == "blue"


async def test_sleep_wakes_by_the_clock_and_exit_ends_with_a_code(world: World) -> None:
    replies = calls(call("sleep", seconds=3_600)), calls(call("exit", result="bye", code=4))
    async with world.open(by_turn(*replies)) as kernel:
        pid = await kernel.spawn(world.program("p", "tools: [sleep, exit]"))
        await world.until_state(kernel, pid, "WAITING", "timer")
        world.clock.advance(3_599_000)
        await world.until_state(kernel, pid, "WAITING", "timer")
        world.clock.advance(2_000)
        outcome = await kernel.wait(pid, 10)
    assert (outcome.exit_code, outcome.result) == (4, "bye")


async def test_exit_with_the_result_of_an_earlier_call_word_for_word(world: World) -> None:
    @mains.device(read_only=True)
    def poem() -> str:
        """A poem."""
        return "roses\n\tare  red"

    exits = [calls(call("exit", results_of=of)) for of in ("call_9_9", "call_1_1")]
    replies = calls(call("poem")), *exits
    async with world.open(by_turn(*replies), devices=[poem]) as kernel:
        outcome = await kernel.wait(await kernel.spawn(world.program("p", "tools: [poem, exit]")), 10)
    assert (outcome.exit_code, outcome.result, outcome.turns) == (0, "roses\n\tare  red", 3)


async def test_children_are_spawned_waited_for_and_fail_by_themselves(world: World) -> None:
    def answer(request: Request) -> Reply:
        if request.messages[0].text == "Child x.":
            return Reply("no", usage=Usage(1, 0, 1), finish=Finish.REFUSAL)
        if request.messages[0].text.startswith("Child"):
            return says(request.messages[0].text)
        spawn = [call("spawn", program="child", inputs={"word": word}) for word in ("a", "x")]
        return (calls(*spawn), calls(call("wait")), says("done"))[turn_of(request)]

    world.program("child", "inputs: {word: text}", "Child {{word}}.")
    async with world.open(answer) as kernel:
        pid = await kernel.spawn(world.program("p", "tools: [spawn(child), wait]"))
        assert (await kernel.wait(pid, 10)).result == "done"
        assert [(p.pid, p.parent) for p in await kernel.ps(every=True)] == [(1, None), (2, 1), (3, 1)]
    results = json.loads(next(m.text for m in reversed(world.asked[-1].messages) if m.role == "tool"))
    assert [(r["pid"], r["exit_code"], r["result"]) for r in results] == [(2, 0, "Child a."), (3, 1, "no")]


async def test_spawn_each_over_a_folder_gives_a_list_in_order(world: World) -> None:
    docs = world.folder / "docs"
    docs.mkdir()
    for name in ("b", "a", "c"):
        (docs / f"{name}.md").write_text(f"text of {name}")

    def answer(request: Request) -> Reply:
        if "Read" in request.messages[0].text:
            return says(request.messages[1].text.split()[-1])
        each = calls(call("spawn_each", program="reader", over="docs"))
        return (each, calls(call("exit", results_of="call_1_1")))[turn_of(request)]

    world.program("reader", "inputs: {doc: file}", "Read.")
    async with world.open(answer) as kernel:
        front = "tools: [spawn_each(reader), exit]\ninputs: {docs: folder}"
        outcome = await kernel.wait(await kernel.spawn(world.program("p", front), {"docs": str(docs)}), 10)
    assert outcome.result == "- **a.md**: a\n- **b.md**: b\n- **c.md**: c"


async def test_spawn_is_bounded_in_depth_and_number(world: World) -> None:
    world.program("p", "tools: [spawn(p), wait]")

    def answer(request: Request) -> Reply:
        return (calls(call("spawn", program="p")), calls(call("wait")), says("done"))[min(turn_of(request), 2)]

    async with world.open(answer, depth_max=3) as kernel:
        await kernel.wait(await kernel.spawn(world.folder / "p.md"), 20)
        assert len(await kernel.ps(every=True)) == 4
    assert any("depth_max" in m.text for r in world.asked for m in r.messages)


async def test_what_the_model_streams_reaches_watchers_as_provisional(world: World) -> None:
    async with world.open(by_turn(says("hello"))) as kernel:
        seen: list[str] = []

        async def watch() -> None:
            async for notice in kernel.watch():
                seen.append(f"{notice.kind} {notice.text}".strip() if notice.kind == "delta" else notice.kind)
                if notice.kind == "exited":
                    return

        watcher = asyncio.create_task(watch())
        await asyncio.sleep(0)
        await kernel.spawn(world.program("p"))
        await asyncio.wait_for(watcher, 10)
    assert seen == ["opened", "spawned", "asked", "delta hello", "replied", "exited"]


async def test_an_engine_never_gets_more_calls_than_it_has_slots(world: World) -> None:
    inside, most = 0, 0

    async def answer(request: Request) -> Reply:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        for _ in range(20_000):
            if most >= 3:
                break
            await asyncio.sleep(0)
        inside -= 1
        return (calls(call("receive", timeout_s=0)), says("done"))[min(turn_of(request), 1)]

    async with world.open(answer, slots=3) as kernel:
        path = world.program("p", "tools: [receive]")
        pids = [await kernel.spawn(path) for _ in range(20)]
        assert {(await kernel.wait(pid, 10)).result for pid in pids} == {"done"}
    assert most == 3
