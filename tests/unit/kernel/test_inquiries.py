"""What a device asks in the middle of a call: a person's answer, a model's, within what is allowed and paid."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.unit.kernel.world import World, call, calls, says, turn_of

from mains.daemon.transcript import transcript
from mains.errors import DeviceError, EngineError, MainsError, Spent, UsageError
from mains.home import Home
from mains.kernel.desk import Desk
from mains.kernel.ports import (
    Attendant,
    CallContext,
    Done,
    Failed,
    Message,
    Question,
    Reply,
    Request,
    Signal,
    Tool,
    Usage,
    Wish,
)  # fmt: skip
from mains.rulebook import add_rule, read_rules

FORM = {
    "type": "object",
    "properties": {"name": {"type": "string", "minLength": 2}, "age": {"type": "integer", "minimum": 0, "default": 3}},
    "required": ["name"],
}
Inside = Callable[["Git", CallContext], Awaitable[str]]


class Git:
    """A device of somebody else. `inside` is what it does in the middle of a call."""

    name = "git"

    def __init__(self, inside: Inside, *, read_only: bool = False) -> None:
        self.inside = inside
        self.said: list[str] = []
        self._read_only = read_only
        self.desk: Desk | None = None

    @property
    def attendant(self) -> Attendant:
        """Who answers it."""
        assert self.desk is not None
        return self.desk._kernel.attending

    def tools(self) -> Sequence[Tool]:
        return [Tool("push", "push", {"type": "object"}, read_only=self._read_only)]

    async def call(self, tool: str, arguments: Mapping[str, Any], context: CallContext) -> Done | Failed:
        try:
            said = await self.inside(self, context)
        except DeviceError:
            raise
        except MainsError as error:
            said = f"{type(error).__name__}: {error}"
        self.said.append(said)
        return Done(said)

    async def close(self) -> None:
        return


async def asks(git: Git, context: CallContext) -> str:
    """Ask a person for a form."""
    said = await git.attendant.ask(Question("git", context, "who?", FORM))
    return f"{said.action} {json.dumps(said.values, sort_keys=True)}"


async def opens(git: Git, context: CallContext) -> str:
    """Ask a person to open a page."""
    return (await git.attendant.ask(Question("git", context, "sign in", url="https://\u0451vil.org/a\x1b?b=1"))).action


async def samples(git: Git, context: CallContext) -> str:
    """Ask a model."""
    text = (Message(role="system", text="Be brief."), Message(role="user", text="what is 2 + 2?"))
    told = await git.attendant.sample(Wish("git", context, text, 50))
    return f"{told.model}: {told.text}"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def replies(model: Callable[[Request], Reply | Awaitable[Reply]] | None = None) -> Any:
    """The process calls the device, then says what it said; a wish of a device is answered by `model`."""

    def answer(request: Request) -> Reply | Awaitable[Reply]:
        if not request.tools:
            return model(request) if model else says("four", 7)
        last = request.messages[-1]
        return says(last.text) if turn_of(request) else calls(call("git.push"))

    return answer


async def begun(world: World, kernel: Desk, git: Git, front: str = "tools: [git.*]", **more: Any) -> int:
    """A process whose device asks."""
    git.desk = kernel
    return await kernel.spawn(world.program("p", front), **more)


async def question(kernel: Desk, pid: int) -> str:
    """What a person reads."""
    told: str = (await kernel.show(pid))["open_calls"][0]["question"]
    return told


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name=Ann Lee age=7", 'accept {"age": 7, "name": "Ann Lee"}'),
        ('{"name": "Ann"}', 'accept {"age": 3, "name": "Ann"}'),
        ("decline", "decline {}"),
        ("Cancel", "cancel {}"),
    ],
)
async def test_a_form_is_asked_and_answered_and_journalled(world: World, text: str, expected: str) -> None:
    git = Git(asks)
    async with world.open(replies(), devices=[git]) as kernel:
        pid = await begun(world, kernel, git)
        await world.until_state(kernel, pid, "RUNNING", "human")
        assert [view.reason for view in await kernel.ps()] == ["human"]
        told = await question(kernel, pid)
        assert told.startswith("the device git asks. Answer name=TEXT, age=NUMBER (may be left out); or decline")
        assert told.endswith('Its words: "who?"')
        with pytest.raises(UsageError, match="the field `name` does not fit: 'A' is shorter"):
            await kernel.answer(pid, "name=A")
        with pytest.raises(UsageError, match="the field `name` is missing"):
            await kernel.answer(pid, "age=4")
        assert await question(kernel, pid) == told
        await kernel.answer(pid, text)
        outcome = await kernel.wait(pid, 30)
        assert outcome.result == expected
        kinds = [notice.kind for notice in await kernel.history(pid)]
        assert kinds[kinds.index("called") :][:4] == ["called", "inquired", "resolved", "returned"]


async def test_a_page_is_shown_with_its_host_and_never_opened(world: World) -> None:
    git = Git(opens)
    async with world.open(replies(), devices=[git]) as kernel:
        pid = await begun(world, kernel, git)
        await world.until_state(kernel, pid, "RUNNING", "human")
        told = await question(kernel, pid)
        assert "open a page of xn--vil-xgd.org. Answer accept, decline or cancel" in told
        assert "\x1b" not in told
        with pytest.raises(UsageError, match="answer accept, decline or cancel"):
            await kernel.answer(pid, "yes")
        await kernel.answer(pid, "accept")
        assert (await kernel.wait(pid, 30)).result == "accept"


async def test_what_no_person_answers_in_time_is_cancelled(world: World) -> None:
    git = Git(asks)
    async with world.open(replies(), devices=[git], device_answer_s=60.0) as kernel:
        pid = await begun(world, kernel, git)
        await world.until_state(kernel, pid, "RUNNING", "human")
        world.clock.advance(60_000)
        assert (await kernel.wait(pid, 30)).result == "cancel {}"


async def test_the_time_of_the_call_stands_still_while_a_person_thinks(world: World) -> None:
    git = Git(asks)
    async with world.open(replies(), devices=[git], device_timeout_s=0.2, device_calls_max=1) as kernel:
        pid = await begun(world, kernel, git)
        await world.until_state(kernel, pid, "RUNNING", "human")
        other = await begun(world, kernel, git)  # its call has a place, though one in all is allowed
        await world.until_state(kernel, other, "RUNNING", "human")
        await asyncio.wait([asyncio.ensure_future(asyncio.Event().wait())], timeout=0.4)
        await kernel.answer(pid, "name=Ann")
        await kernel.answer(other, "name=Bob")
        assert (await kernel.wait(pid, 30)).result == 'accept {"age": 3, "name": "Ann"}'
        assert (await kernel.wait(other, 30)).result == 'accept {"age": 3, "name": "Bob"}'


@pytest.mark.parametrize("sign", [Signal.STOP, Signal.TERM, Signal.KILL])
async def test_a_signal_cancels_what_is_asked(world: World, sign: Signal) -> None:
    git = Git(asks)
    async with world.open(replies(), devices=[git]) as kernel:
        pid = await begun(world, kernel, git)
        await world.until_state(kernel, pid, "RUNNING", "human")
        await kernel.signal(pid, sign)
        if sign is Signal.STOP:
            await world.until_state(kernel, pid, "STOPPED", "paused")
            assert git.said == ["cancel {}"]
        else:
            assert (await kernel.wait(pid, 30)).exit_code in (137, 143)
        with pytest.raises(UsageError, match="asks nothing"):
            await kernel.answer(pid, "name=Ann")


async def test_int_ends_the_question_of_a_conversation(world: World) -> None:
    git = Git(asks)
    async with world.open(replies(), devices=[git]) as kernel:
        pid = await begun(world, kernel, git, inputs={"prompt": "go"}, conversation=True)
        await world.until_state(kernel, pid, "RUNNING", "human")
        await kernel.signal(pid, Signal.INT)
        await world.until_state(kernel, pid, "WAITING", "message")
        assert git.said == ["cancel {}"]


async def test_an_orderly_halt_tells_the_device_and_leaves_no_doubt(world: World) -> None:
    git = Git(asks)
    async with world.open(replies(), devices=[git]) as kernel:
        pid = await begun(world, kernel, git)
        await world.until_state(kernel, pid, "RUNNING", "human")
    assert git.said == ["cancel {}"]
    async with world.open(replies(), devices=[git]) as kernel:
        assert (await kernel.wait(pid, 30)).result == "cancel {}"


async def test_a_question_that_is_no_form_is_refused(world: World) -> None:
    async def nested(git: Git, context: CallContext) -> str:
        schema = {"type": "object", "properties": {"x": {"type": "object"}}}
        return (await git.attendant.ask(Question("git", context, "?", schema))).action

    git = Git(nested)
    async with world.open(replies(), devices=[git]) as kernel:
        pid = await begun(world, kernel, git)
        told = "UsageError: the field `x` is no text, number, boolean or choice"
        assert (await kernel.wait(pid, 30)).result == told


async def test_so_many_questions_within_one_call(world: World) -> None:
    async def many(git: Git, context: CallContext) -> str:
        for _ in range(3):
            await samples(git, context)
        return "all"

    git = Git(many)
    async with world.open(replies(), devices=[git], device_asks_max=2) as kernel:
        allow(world)
        pid = await begun(world, kernel, git)
        assert str((await kernel.wait(pid, 30)).result).startswith("LimitError: 2 things were asked within one call")


async def test_nobody_asks_for_a_call_that_is_over_or_is_another_devices(world: World) -> None:
    git = Git(asks)
    async with world.open(replies(), devices=[git]) as kernel:
        pid = await begun(world, kernel, git)
        await world.until_state(kernel, pid, "RUNNING", "human")
        context = CallContext(pid, f"{pid}-call_1_1", world.folder, 1)
        with pytest.raises(UsageError, match="none of the device mail"):
            await git.attendant.ask(Question("mail", context, "who?", FORM))
        await kernel.answer(pid, "name=Ann")
        await kernel.wait(pid, 30)
        with pytest.raises(UsageError, match="not in flight"):
            await git.attendant.ask(Question("git", context, "who?", FORM))


# ------------------------------------------------------------------------------------------------------- a model


def allow(world: World, effect: str = "allow") -> None:
    """Write a rule about sampling."""
    home = Home.find(world.folder / "home")
    home.prepare()
    add_rule(home, effect, "git.sampling")  # type: ignore[arg-type]


async def test_a_wish_is_asked_about_then_billed_to_the_process(world: World) -> None:
    git = Git(samples)
    async with world.open(replies(), devices=[git], slots=1) as kernel:
        pid = await begun(world, kernel, git)
        await world.until_state(kernel, pid, "RUNNING", "human")
        told = await question(kernel, pid)
        assert told.startswith("may the device git put a text to the model, on the account of this process (at most 50")
        assert told.endswith('The text: "system: Be brief. user: what is 2 + 2?"')
        with pytest.raises(UsageError, match="once, process, always or no"):
            await kernel.answer(pid, "yes")
        await kernel.answer(pid, "process")
        outcome = await kernel.wait(pid, 30)
        assert outcome.result == "scripted: four"
        wished = next(request for request in world.asked if not request.tools)
        assert [message.role for message in wished.messages] == ["system", "user"]
        assert (wished.output_tokens_max, wished.process) == (50, 0)
        assert outcome.usage == Usage(30, 0, 17)
        assert sum(row.calls for row in await kernel.meter()) == 3
        account = await kernel.account("home")
        assert (account.posted_tokens, account.held_tokens) == (47, 0)


@pytest.mark.parametrize(("said", "result"), [("no", "a person (no)"), ("always", "scripted: four")])
async def test_a_person_forbids_it_or_allows_it_for_good(world: World, said: str, result: str) -> None:
    git = Git(samples)
    async with world.open(replies(), devices=[git]) as kernel:
        pid = await begun(world, kernel, git)
        await world.until_state(kernel, pid, "RUNNING", "human")
        await kernel.answer(pid, said)
        assert str((await kernel.wait(pid, 30)).result).endswith(result)
        if said == "always":
            again = await begun(world, kernel, git)
            assert (await kernel.wait(again, 30)).result == result
            [rule] = read_rules(Home.find(world.folder / "home").document(), "mains.toml")
            assert (str(rule.grant), rule.program) == ("git.sampling", "p")


@pytest.mark.parametrize(("front", "effect", "why"), [
    ("tools: [git.*]", "deny", "git.sampling is forbidden here (rule 1)"),
    ("tools: [git.push]", "allow", "git.sampling is granted neither to this program nor by those above it"),
])  # fmt: skip
async def test_a_rule_or_the_program_forbids_it(world: World, front: str, effect: str, why: str) -> None:
    allow(world, effect)
    git = Git(samples)
    async with world.open(replies(), devices=[git]) as kernel:
        pid = await begun(world, kernel, git, front)
        assert (await kernel.wait(pid, 30)).result == f"UsageError: git may not use the model: {why}"


async def test_a_wish_never_gets_a_hold_above_the_budget(world: World) -> None:
    allow(world)

    async def long(git: Git, context: CallContext) -> str:
        text = (Message(role="user", text="word " * 1_000),)
        return (await git.attendant.sample(Wish("git", context, text, 50))).text

    git = Git(long)
    async with world.open(replies(), devices=[git], output_tokens_max=20) as kernel:
        pid = await begun(world, kernel, git, budget=900)
        outcome = await kernel.wait(pid, 30)
        assert str(outcome.result).startswith("LimitError: ")
        assert "tokens are needed" in str(outcome.result) or "left" in str(outcome.result)
        assert all(request.tools for request in world.asked)
        assert outcome.usage == Usage(20, 0, 10)


async def test_what_a_model_says_too_much_is_an_overrun_of_the_process(world: World) -> None:
    allow(world)
    git = Git(samples)
    async with world.open(replies(lambda _: says("four", 300)), devices=[git]) as kernel:
        pid = await begun(world, kernel, git)
        await kernel.wait(pid, 30)
        account = next(each for each in (await kernel.show(pid))["accounts"] if each["account"] == pid)
        assert account["held"] == 0
        assert account["overrun"] > 0
        assert account["posted"] + account["overrun"] == 30 + 310


async def test_a_wish_waits_for_a_slot_behind_others_and_fails_with_its_engine(world: World) -> None:
    allow(world)

    def broken(_: Request) -> Reply:
        raise EngineError("out of order", retryable=False, spent=Spent.NOTHING)

    git = Git(samples, read_only=True)
    async with world.open(replies(broken), devices=[git], slots=1) as kernel:
        pids = [await begun(world, kernel, git) for _ in range(3)]
        for pid in pids:
            assert "out of order" in str((await kernel.wait(pid, 30)).result)
        assert (await kernel.account("home")).held_tokens == 0


async def test_a_kill_stops_the_model_and_pays_for_it(world: World) -> None:
    allow(world)
    stopped = asyncio.Event()
    asked = asyncio.Event()

    async def forever(_: Request) -> Reply:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return says("never")

    git = Git(samples)
    async with world.open(replies(forever), devices=[git]) as kernel:
        pid = await begun(world, kernel, git)
        await asyncio.wait_for(asked.wait(), 30)
        hold = (await kernel.account("home")).held_tokens
        assert hold > 0
        await kernel.signal(pid, Signal.KILL)
        await asyncio.wait_for(stopped.wait(), 30)
        account = await kernel.account("home")
        assert (account.held_tokens, account.posted_tokens) == (0, 15 + hold)


async def test_a_device_that_takes_its_wish_back_stops_the_model(world: World) -> None:
    allow(world)
    stopped = asyncio.Event()

    async def forever(_: Request) -> Reply:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return says("never")

    async def impatient(git: Git, context: CallContext) -> str:
        wish = asyncio.ensure_future(samples(git, context))
        await world.until(lambda: _has(lambda: len(world.asked) >= 2))
        wish.cancel()
        await stopped.wait()
        return "went on"

    git = Git(impatient)
    async with world.open(replies(forever), devices=[git]) as kernel:
        pid = await begun(world, kernel, git)
        assert (await kernel.wait(pid, 30)).result == "went on"
        assert (await kernel.account("home")).held_tokens == 0


async def test_what_is_removed_leaves_no_word_and_the_meter_keeps_its_sums(world: World) -> None:
    allow(world)

    async def both(git: Git, context: CallContext) -> str:
        return f"{await asks(git, context)} {await samples(git, context)}"

    git = Git(both)
    async with world.open(replies(), devices=[git]) as kernel:
        pid = await begun(world, kernel, git)
        await world.until_state(kernel, pid, "RUNNING", "human")
        await kernel.answer(pid, "name=Rumpelstilz")
        await kernel.wait(pid, 30)
        assert (await kernel.remove([pid])).erased
        assert not [data for _, data in kernel.journal.scan("page_scan") if b"Rumpel" in data or b"2 + 2" in data]
        assert sum(row.calls for row in await kernel.meter()) == 3


async def test_an_attached_terminal_sees_the_question_and_its_answer(world: World) -> None:
    git = Git(asks)
    async with world.open(replies(), devices=[git]) as kernel:
        pid = await begun(world, kernel, git)
        await world.until_state(kernel, pid, "RUNNING", "human")
        told: list[Any] = []

        async def look() -> None:
            async for parts in transcript(kernel.journal, kernel.watch(pid), pid, 0, 0):
                told.extend(parts if isinstance(parts, list) else [parts])

        looking = asyncio.ensure_future(look())
        await world.until(lambda: _has(lambda: any(getattr(part, "asks", ()) for part in told)))
        asked = next(part for part in told if getattr(part, "asks", ()))
        assert (asked.state, asked.asks) == ("RUNNING", (await question(kernel, pid),))
        await kernel.answer(pid, "name=Ann")
        await kernel.wait(pid, 30)
        await world.until(lambda: _has(looking.done))
        lines = [part.text for part in told if part.kind == "note"]
        assert "inquiry call_1_1.1.1: accept, by a person" in lines


async def _has(check: Callable[[], bool]) -> bool:
    return check()


async def test_a_wish_that_a_crash_cut_off_is_paid_whole_and_its_call_is_in_doubt(world: World) -> None:
    allow(world)
    asked = asyncio.Event()

    async def forever(_: Request) -> Reply:
        asked.set()
        await asyncio.Event().wait()
        return says("never")

    git = Git(samples)
    async with world.open(replies(forever), devices=[git]) as kernel:
        pid = await begun(world, kernel, git)
        await asyncio.wait_for(asked.wait(), 30)
        held = (await kernel.account("home")).held_tokens
        after = World(world.folder / "after")  # what a crash would leave at this moment
        await asyncio.to_thread(shutil.copytree, world.folder / "home", after.folder / "home")
        await kernel.signal(pid, Signal.KILL)
    async with after.open(replies(), devices=[git]) as kernel:
        git.desk = kernel
        assert (await kernel.outcome(pid)).reason == "in doubt"
        account = await kernel.account("home")
        assert (account.held_tokens, account.posted_tokens) == (0, 15 + held)
        await kernel.answer(pid, "retry")
        assert (await kernel.wait(pid, 30)).result == "scripted: four"
