"""Exec, restart and groups: another program in the same process, and one signal for many."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.unit.kernel.world import World, by_turn, call, calls, says

from mains.errors import NotFoundError, ProgramError, UsageError
from mains.kernel.ports import Reply, Request, Signal


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def texts(request: Request) -> list[tuple[str, str]]:
    return [(m.role, m.text) for m in request.messages if m.text]


async def test_restart_takes_the_new_version_and_keeps_the_context(world: World) -> None:
    program = world.program("talker", prose="Version one.")
    async with world.open(lambda r: says(f"answer {len(r.messages)}")) as kernel:
        pid = await kernel.spawn(program, conversation=True)
        other = await kernel.spawn(program, conversation=True)
        for each in (pid, other):
            await kernel.send(each, "first")
            await world.until_state(kernel, each, "WAITING")
        assert await kernel.restart(pid) is False
        world.program("talker", "tools: sleep", prose="Version two.")
        assert await kernel.restart(pid) is True
        assert await kernel.restart(pid) is False
        for each in (pid, other):
            await kernel.send(each, "second")
            await world.until_state(kernel, each, "WAITING")
        new, old = world.asked[-2:] if world.asked[-1].tools == () else world.asked[:-3:-1]
        assert texts(new)[0] == ("system", "Version two.") and [t.name for t in new.tools] == ["sleep"]
        assert texts(old)[0] == ("system", "Version one.") and old.tools == ()
        assert texts(new)[1:] == texts(old)[1:] == [("user", "first"), ("assistant", "answer 2"), ("user", "second")]


async def test_the_band_that_a_person_gave_outlives_exec(world: World) -> None:
    program = world.program("talker", "band: batch")
    other = world.program("other", "band: interactive")
    async with world.open(lambda r: says("hello")) as kernel:
        given = await kernel.spawn(program, band="normal", conversation=True)
        own = await kernel.spawn(program, conversation=True)
        for pid, band in ((given, "normal"), (own, "interactive")):
            await world.until_state(kernel, pid, "WAITING")
            assert await kernel.exec(pid, other) is True
            shown = await kernel.show(pid)
            assert (shown["program"], shown["band"]) == ("other", band)


async def test_restart_in_the_middle_of_a_turn_waits_for_its_end(world: World) -> None:
    world.program("worker", "tools: sleep", prose="Version one.")
    answer = by_turn(calls(call("sleep", seconds=60)), says("done"))
    async with world.open(answer) as kernel:
        pid = await kernel.spawn(world.folder / "worker.md")
        await world.until_state(kernel, pid, "WAITING", "timer")
        world.program("worker", prose="Version two.")
        assert await kernel.restart(pid) is True
        assert (await kernel.show(pid))["next_program"] == "worker"
    async with world.open(answer) as kernel:  # a crash in between changes nothing
        world.clock.advance(60_000)
        assert (await kernel.wait(pid, 60)).result == "done"
        assert [texts(asked)[0][1] for asked in world.asked] == ["Version one.", "Version two."]
        assert [m.role for m in world.asked[-1].messages] == ["system", "user", "assistant", "tool"]


async def test_restart_mends_one_that_stopped(world: World) -> None:
    program = world.program("worker", "tools: nothing.there")
    bad = "---\nname: worker\ndescription: worker\nmodel: gone\n---\nDo it.\n"

    def answer(request: Request) -> Reply:
        if "better" not in request.messages[0].text:
            raise ValueError("a bug in an engine")
        return says("mended")

    async with world.open(answer) as kernel:
        pid = await kernel.spawn(program)
        await world.until_state(kernel, pid, "STOPPED", "error")
        program.write_text(bad.replace("model: gone", "what: this"))
        with pytest.raises(ProgramError, match="unknown key `what`"):
            await kernel.restart(pid)
        world.program("worker", prose="Do it better.")
        assert await kernel.restart(pid) is True
        assert (await kernel.wait(pid, 60)).result == "mended"
        with pytest.raises(UsageError, match="has exited"):
            await kernel.restart(pid)


async def test_inputs_are_kept_or_missed(world: World) -> None:
    inputs = "inputs: {question: text, notes: file}"
    (world.folder / "notes.txt").write_text("the notes")
    program = world.program("asker", inputs, prose="Answer {{question}}.")
    async with world.open(lambda _: says("ok")) as kernel:
        given = {"question": "why?", "notes": str(world.folder / "notes.txt")}
        pid = await kernel.spawn(program, given, paused=True)
        world.program("asker", "inputs: {question: text, notes: file, depth: {type: number, default: 3}}")
        (world.folder / "notes.txt").unlink()
        assert await kernel.restart(pid)
        world.program("asker", "inputs: {question: text, more: text}")
        with pytest.raises(
            UsageError, match=r"does not take the inputs of process 1: .*input `more` \(text\) is missing"
        ):
            await kernel.restart(pid)
        await kernel.signal(pid, Signal.CONT)
        assert (await kernel.wait(pid, 60)).result == "ok"
        opening = world.asked[0].messages[1].text
        assert "question: why?" in opening and "the notes" in opening and "depth: 3" in opening


async def test_exec_by_a_person(world: World) -> None:
    async with world.open(lambda r: says(r.messages[0].text)) as kernel:
        pid = await kernel.spawn(world.program("one", prose="One."), conversation=True, budget=5_000)
        await kernel.send(pid, "hello")
        await world.until_state(kernel, pid, "WAITING")
        world.program("two", "inputs: {tone: text}", prose="Two, {{tone}}.")
        assert await kernel.exec(pid, world.folder / "two.md", {"tone": "softly"})
        await kernel.send(pid, "again")
        await world.until_state(kernel, pid, "WAITING")
        shown = await kernel.show(pid)
        assert (shown["program"], shown["budget"], shown["inputs"]) == ("two", 5_000, {"tone": "softly"})
        assert texts(world.asked[-1]) == [
            ("system", "Two, softly."), ("user", "hello"), ("assistant", "One."), ("user", "again"),
        ]  # fmt: skip
        with pytest.raises(UsageError, match="is missing"):
            await kernel.exec(pid, world.folder / "two.md")


async def test_exec_by_the_program_itself(world: World) -> None:
    def answer(request: Request) -> Reply:
        if request.messages[0].text == "Plan.":
            return calls(call("exec", program="maker", inputs={"what": "a boat"}))
        return says("made it")

    world.program("maker", "inputs: {what: text}", prose="Make {{what}}.")
    program = world.program("planner", "tools: exec(maker)", prose="Plan.")
    async with world.open(answer) as kernel:
        pid = await kernel.spawn(program)
        outcome = await kernel.wait(pid, 60)
        assert (outcome.program, outcome.result, outcome.turns) == ("maker", "made it", 2)
        assert texts(world.asked[1])[0] == ("system", "Make a boat.")
        assert [m.role for m in world.asked[1].messages] == ["system", "user", "assistant", "tool"]
        assert world.asked[1].messages[3].text == "from the next turn on this process runs maker"
        assert world.asked[1].tools == ()


async def test_a_program_that_was_not_declared_is_refused(world: World) -> None:
    answer = by_turn(calls(call("exec", program="other")), says("stayed"))
    world.program("maker")
    async with world.open(answer) as kernel:
        pid = await kernel.spawn(world.program("planner", "tools: exec(maker)"))
        assert (await kernel.wait(pid, 60)).program == "planner"
        assert "error" in world.asked[1].messages[3].text


async def test_a_fork_made_before_keeps_the_old_program(world: World) -> None:
    async with world.open(lambda r: says(r.messages[0].text)) as kernel:
        pid = await kernel.spawn(world.program("one", prose="One."), {"prompt": "x"}, conversation=True)
        await world.until_state(kernel, pid, "WAITING")
        twin = await kernel.fork(pid)
        await kernel.exec(pid, world.program("two", prose="Two."))
        late = await kernel.fork(pid)
        for each, said in ((twin, "One."), (late, "Two."), (pid, "Two.")):
            await kernel.send(each, "who are you?")
            await world.until_state(kernel, each, "WAITING")
            assert (await kernel.show(each))["messages"][-1]["text"] == said


async def test_a_schedule_takes_the_new_times(world: World) -> None:
    async with world.open(lambda _: says("ok")) as kernel:
        program = world.program("nightly", "schedule: {cron: 0 7 * * *, timezone: UTC}")
        pid = await kernel.spawn(program)
        before = (await kernel.show(pid))["schedule"]["next"]
        world.program("nightly", "schedule: {cron: 30 22 * * *, timezone: UTC}")
        assert await kernel.restart(pid)
        after = (await kernel.show(pid))["schedule"]["next"]
        assert before.endswith("07:00:00+00:00") and after.endswith("22:30:00+00:00")
        world.clock.advance(24 * 3_600_000)

        async def ran() -> bool:
            return any(p.parent == pid and p.state == "EXITED" for p in await kernel.ps(every=True))

        await world.until(ran)
        slots = [n.text for n in await kernel.history(pid) if n.kind == "slot"]
        assert len(slots) == 1
        world.program("nightly")
        with pytest.raises(UsageError, match="is a schedule, and the program has none"):
            await kernel.restart(pid)


async def test_a_child_has_no_file_of_its_own(world: World) -> None:
    world.program("child", "tools: sleep")
    program = world.program("parent", "tools: spawn(child), wait")
    answer = by_turn(calls(call("spawn", program="child")), calls(call("wait")))
    async with world.open(lambda r: calls(call("sleep", seconds=9)) if len(r.tools) == 1 else answer(r)) as kernel:
        pid = await kernel.spawn(program, group="team")
        await world.until_state(kernel, pid, "WAITING")
        with pytest.raises(UsageError, match=f"has no file of its own: process {pid} spawned it"):
            await kernel.restart(pid + 1)
        assert {p.group for p in await kernel.ps()} == {"team"}


async def test_a_signal_to_a_group(world: World) -> None:
    gone = asyncio.Event()

    async def answer(request: Request) -> Reply:
        await gone.wait()
        return says("never")

    async with world.open(answer) as kernel:
        program = world.program("worker")
        team = [await kernel.spawn(program, group="team") for _ in range(3)]
        alone = await kernel.spawn(program)
        assert await kernel.signal_group("team", Signal.STOP) == team
        assert await kernel.signal_group("team", Signal.STOP) == []
        assert await kernel.signal_group("team", Signal.CONT) == team
        assert await kernel.signal_group("team", Signal.KILL) == team
        with pytest.raises(NotFoundError, match="no living process is in the group `team`"):
            await kernel.signal_group("team", Signal.KILL)
        assert (await kernel.outcome(alone)).exit_code is None
        await kernel.signal(alone, Signal.KILL)
