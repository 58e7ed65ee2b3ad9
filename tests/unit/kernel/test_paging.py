"""What leaves a frame, and that nothing of it is lost: through the doors of a kernel, with a scripted model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.unit.kernel.world import World, by_turn, call, calls, says

import mains
from mains.errors import UsageError
from mains.kernel import past
from mains.kernel.context import tokens_of
from mains.kernel.desk import Desk
from mains.kernel.ports import Reply, Request, Usage

FRONT = "tools: [look]\nframe_tokens: 4000\nmax_tokens: 200"


def look(n: int) -> str:
    """Give a text that is large and differs each time."""
    return "\n".join(f"{n}: line {line} of the report, with the number {n * 1000 + line}" for line in range(60))


def worker(turns: int) -> Any:
    """A model that calls `look` so many times, then says what it was asked for first."""
    made = 0

    def answer(request: Request) -> Reply:
        nonlocal made
        if is_summary(request):
            return says(f"So far {made} reports were read.")
        if made >= turns:
            return says("done")
        made += 1
        return calls(call("look", n=made))

    return answer


def is_summary(request: Request) -> bool:
    return request.messages[-1].text.startswith("Everything above")


def check(request: Request) -> None:
    """A frame as it must be: the opening first, each call with its result, within the window."""
    assert request.messages[0].role == "system" and "Never say banana" in request.messages[0].text
    open_calls: list[str] = []
    for message in request.messages:
        if message.role == "tool":
            assert open_calls.pop(0) == message.call_id
        else:
            assert not open_calls, f"{open_calls} lack results"
            open_calls = [each.id for each in message.calls]
    assert not open_calls
    assert sum(map(tokens_of, request.messages)) <= 4000


@pytest.mark.parametrize("turns", [3, 60])
async def test_a_long_run_stays_within_its_frame(world: World, turns: int) -> None:
    async with world.open(worker(turns), devices=[mains.device(look)]) as kernel:
        pid = await kernel.spawn(world.program("p", FRONT, "Read reports. Never say banana."))
        outcome = await kernel.wait(pid, 60)
        assert (outcome.state, outcome.result) == ("EXITED", "done")
        for request in world.asked:
            check(request)
        frames = list(past.frames(kernel.journal, pid))
        assert len(frames) == len(world.asked)
        assert all(each.past.frame_hash() == each.journalled for each in frames)
        summaries = sum(map(is_summary, world.asked))
        assert bool(summaries) == (turns == 60), "old turns are summed up when there are many, and not before"
        assert outcome.usage.output_tokens == 5 * len(world.asked), "a summary is metered like any call"


async def test_a_rule_that_is_said_on_the_way_stays_in_every_frame(world: World) -> None:
    made = 0

    def answer(request: Request) -> Reply:
        nonlocal made
        if is_summary(request):
            return says("Much was said.")
        made += 1
        return calls(call("look", n=made)) if made % 9 else says(f"turn {made}")

    async with world.open(answer, devices=[mains.device(look)]) as kernel:
        pid = await kernel.spawn(world.program("p", FRONT, "Never say banana."), conversation=True)
        for n in range(5):
            await kernel.send(pid, f"Rule {n}: sign with {n * 37}.", rule=True)
            await world.until(lambda turns=n: _rested(kernel, pid, turns))  # type: ignore[misc]
    for request in world.asked:
        check(request)
        texts = [message.text for message in request.messages if message.kind == "rule"]
        assert texts == [f"Rule {n}: sign with {n * 37}." for n in range(len(texts))]
        assert len(texts) == 1 + (made_before(world, request) // 9)
    assert sum(map(is_summary, world.asked)) >= 3


def made_before(world: World, request: Request) -> int:
    """How many ordinary calls came before this one."""
    return sum(not is_summary(each) for each in world.asked[: world.asked.index(request)])


async def _rested(kernel: Desk, pid: int, turns: int) -> bool:
    outcome = await kernel.outcome(pid)
    return outcome.state == "WAITING" and outcome.turns == (turns + 1) * 9


@pytest.mark.parametrize("front", ["tools: [receive]"])
async def test_who_reads_mail_by_itself_takes_no_rule(world: World, front: str) -> None:
    async with world.open(by_turn(calls(call("receive")), says("x"))) as kernel:
        pid = await kernel.spawn(world.program("p", front))
        with pytest.raises(UsageError, match="none of them can be a rule"):
            await kernel.send(pid, "always", rule=True)
        await kernel.send(pid, "now")
        assert (await kernel.wait(pid, 10)).result == "x"


async def test_a_frame_that_cannot_be_made_is_an_error_before_any_call(world: World) -> None:
    async with world.open(by_turn(says("x"))) as kernel:
        pid = await kernel.spawn(world.program("p", "frame_tokens: 1000\nmax_tokens: 100", "Do it well. " * 400))
        outcome = await kernel.wait(pid, 10)
        assert outcome.state == "STOPPED"
        assert "its frame cannot fit" in outcome.reason and "program (the opening) 1,6" in outcome.reason
        assert not world.asked


async def test_the_same_program_is_no_new_one_after_an_eviction(world: World) -> None:
    async with world.open(worker(20), devices=[mains.device(look)]) as kernel:
        pid = await kernel.spawn(world.program("p", FRONT, "Never say banana."), {"prompt": "go"}, conversation=True)
        await world.until_state(kernel, pid, "WAITING")
        assert not await kernel.restart(pid)
        world.program("p", FRONT, "Never say banana. Never.")
        assert await kernel.restart(pid)
        await kernel.send(pid, "again")
        await world.until_state(kernel, pid, "WAITING")
        assert {"read", "recall"} < {tool.name for tool in world.asked[-1].tools}


async def test_what_the_program_names_comes_back_whenever_it_has_left_the_frame(world: World) -> None:
    prose = "Never say banana. The plan stands in mem:0; nothing else does."
    async with world.open(worker(40), devices=[mains.device(look)]) as kernel:
        pid = await kernel.spawn(world.program("p", FRONT, prose))
        assert (await kernel.wait(pid, 60)).result == "done"
        first = world.asked[1].messages[2]  # the reply that stands at mem:0
        again = 0
        for request in world.asked[1:]:
            check(request)
            shown = [m for m in request.messages if m.text.startswith("[mem:0, a reply, again]")]
            assert len(shown) + (first in request.messages) == 1 or is_summary(request)
            again += bool(shown)
        assert again > 10


async def test_a_summary_that_cannot_be_paid_is_an_extract_and_opens_no_breaker(world: World, tmp_path: Path) -> None:
    program = world.program("p", FRONT, "Read reports. Never say banana.")
    async with world.open(worker(60), devices=[mains.device(look)]) as kernel:
        await kernel.wait(await kernel.spawn(program), 60)
    first = next(at for at, request in enumerate(world.asked) if is_summary(request))
    needed = sum(map(tokens_of, world.asked[first].messages))
    plain, poor = worker(first + 4), World(tmp_path / "poor")
    poor.folder.mkdir()

    def costly(request: Request) -> Reply:
        reply = plain(request)
        spent = needed - 500 if len(poor.asked) == first else 10
        return Reply(reply.text, reply.calls, Usage(spent, 0, 5), reply.finish)

    async with poor.open(costly, devices=[mains.device(look)]) as kernel:
        program = poor.program("p", FRONT, "Read reports. Never say banana.")
        pid = await kernel.spawn(program, budget=needed + 1_600 + 15 * first)
        outcome = await kernel.wait(pid, 60)
        assert not any(map(is_summary, poor.asked))
        assert any(m.kind == "summary" for m in poor.asked[-1].messages), "an extract stands there"
        assert outcome.turns > first
