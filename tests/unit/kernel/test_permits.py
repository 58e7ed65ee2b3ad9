"""What a process may call: grants of its program and of those above it, the user's rules, a person who decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.kernel.world import World, by_turn, call, calls, says

from mains.errors import NotFoundError, UsageError
from mains.home import Home
from mains.kernel.ports import CallContext, Done, Request, Tool
from mains.rulebook import add_rule, read_rules, remove_rule


class Git:
    """A device of somebody else, which notes what was called."""

    name = "git"

    def __init__(self, *, attached: bool = True) -> None:
        self.made: list[tuple[str, dict[str, Any], str]] = []
        self._attached = attached

    def tools(self) -> Sequence[Tool]:
        text = {"type": "string"}
        schema = {"type": "object", "properties": {"to": text}, "additionalProperties": False}
        return [Tool(name, name, schema, attached=self._attached) for name in ("log", "push")]

    async def call(self, tool: str, arguments: Mapping[str, Any], context: CallContext) -> Done:
        self.made.append((tool, dict(arguments), context.key))
        return Done(f"{tool} done")

    async def close(self) -> None:
        return


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def git() -> Git:
    return Git()


def home_of(world: World) -> Home:
    home = Home.find(world.folder / "home")
    home.prepare()
    return home


def results(request: Request) -> list[str]:
    return [message.text for message in request.messages if message.role == "tool"]


async def test_what_is_attached_asks_a_person_who_may_say_once(world: World, git: Git) -> None:
    replies = by_turn(calls(call("git.log")), calls(call("git.log")), says("done"))
    async with world.open(replies, devices=[git]) as kernel:
        pid = await kernel.spawn(world.program("p", "tools: [git.*]"))
        await world.until_state(kernel, pid, "WAITING", "human")
        assert not git.made
        asked = (await kernel.show(pid))["open_calls"][0]["question"]
        assert asked == "may it call git.log {}? Answer once, process, always or no"
        with pytest.raises(UsageError, match=r"answer once, process, always or no, not 'maybe'"):
            await kernel.answer(pid, "maybe")
        await kernel.answer(pid, "once")
        await world.until(lambda: _made(git, 1))
        await world.until_state(kernel, pid, "WAITING", "human")
        await kernel.answer(pid, "no")
        assert (await kernel.wait(pid, 30)).result == "done"
        assert results(world.asked[-1]) == [
            "log done", "denied: a person decided that git.log is not called so",
        ]  # fmt: skip
        assert len(git.made) == 1


async def _made(git: Git, count: int) -> bool:
    return len(git.made) == count


async def test_for_the_process_means_this_tool_of_this_process(world: World, git: Git) -> None:
    replies = by_turn(calls(call("git.log")), calls(call("git.log"), call("git.push")), says("done"))
    async with world.open(replies, devices=[git]) as kernel:
        pid = await kernel.spawn(world.program("p", "tools: [git.*]"))
        await world.until_state(kernel, pid, "WAITING", "human")
        await kernel.answer(pid, "process")
        await world.until(lambda: _made(git, 2))
        await world.until_state(kernel, pid, "WAITING", "human")
        assert (await kernel.show(pid))["open_calls"][0]["tool"] == "git.push"
        await kernel.answer(pid, "no")
        await kernel.wait(pid, 30)
        other = await kernel.spawn(world.program("p", "tools: [git.*]"))
        await world.until_state(kernel, other, "WAITING", "human")


async def test_always_is_a_rule_for_later_processes_of_the_program(world: World, git: Git) -> None:
    replies = by_turn(calls(call("git.log")), says("done"))
    home = home_of(world)
    async with world.open(replies, devices=[git]) as kernel:
        pid = await kernel.spawn(world.program("p", "tools: [git.*]"))
        await world.until_state(kernel, pid, "WAITING", "human")
        await kernel.answer(pid, "always")
        assert (await kernel.wait(pid, 30)).result == "done"
        assert [(r.effect, str(r.grant), r.program) for r in read_rules(home.document(), "x")] == [
            ("allow", "git.log", "p")
        ]
        assert (await kernel.wait(await kernel.spawn(world.program("p", "tools: [git.*]")), 30)).result == "done"
        other = await kernel.spawn(world.program("q", "tools: [git.*]"))
        await world.until_state(kernel, other, "WAITING", "human")


async def test_rules_hold_as_they_are_now(world: World, git: Git) -> None:
    home = home_of(world)
    add_rule(home, "allow", "git.*")
    count = 0

    def replies(request: Request) -> Any:
        nonlocal count
        count += 1
        if count == 2:
            add_rule(home, "deny", "git.push(to=main)")
        return calls(call("git.push", to="main")) if count < 3 else says("done")

    async with world.open(replies, devices=[git]) as kernel:
        await kernel.wait(await kernel.spawn(world.program("p", "tools: [git.*]")), 30)
        assert results(world.asked[-1]) == ["push done", "denied: git.push is forbidden here (rule 2)"]
        assert len(git.made) == 1


async def test_a_program_reaches_what_its_grants_say_and_no_more(world: World) -> None:
    git = Git(attached=False)
    replies = by_turn(calls(call("git.push", to="dev"), call("git.push", to="main"), call("git.push")), says("done"))
    async with world.open(replies, devices=[git]) as kernel:
        await kernel.wait(await kernel.spawn(world.program("p", "tools: [git.push(to=dev|test)]")), 30)
        denied = "denied: git.push is granted only with to=dev|test"
        assert results(world.asked[-1]) == ["push done", denied, denied]


async def test_a_rate_counts_calls_and_says_when_there_is_room(world: World) -> None:
    git = Git(attached=False)
    replies = by_turn(calls(call("git.log"), call("git.log"), call("git.log")), calls(call("git.log")), says("done"))
    async with world.open(replies, devices=[git]) as kernel:
        program = world.program("p", 'tools: ["git.log(rate=2/hour)", sleep]')
        await kernel.wait(await kernel.spawn(program), 30)
        said = "denied: git.log may be called 2 times in 3600 s, and was; there is room again in 3600 s"
        assert results(world.asked[-1])[:3] == ["log done", "log done", said]
        assert len(git.made) == 2


async def test_a_child_has_no_more_than_its_parent(world: World) -> None:
    git = Git(attached=False)

    def replies(request: Request) -> Any:
        if "child" in request.messages[0].text:
            return calls(call("git.push", to="main")) if len(request.messages) < 3 else says("child done")
        made = [message for message in request.messages if message.role == "tool"]
        if not made:
            return calls(call("spawn", program="child"))
        return calls(call("wait")) if len(made) == 1 else says("done")

    world.program("child", "tools: [git.*]", "You are the child.")
    async with world.open(replies, devices=[git]) as kernel:
        for grant, offered in (("git.log", ["git.log"]), ("git.*(to=dev)", ["git.log", "git.push"])):
            world.asked.clear()
            parent = world.program("parent", f'tools: [spawn(child), wait, "{grant}"]', "You are above.")
            assert (await kernel.wait(await kernel.spawn(parent), 30)).result == "done"
            child = [request for request in world.asked if "child" in request.messages[0].text]
            assert [tool.name for tool in child[0].tools] == offered
            assert not git.made, "what the parent may not do, the child may not do for it"


async def test_those_that_wait_for_a_person_keep_their_place(world: World) -> None:
    git = Git()
    replies = by_turn(calls(call("git.push", to="a"), call("git.log")), says("done"))
    add_rule(home_of(world), "allow", "git.log")
    async with world.open(replies, devices=[git]) as kernel:
        pid = await kernel.spawn(world.program("p", "tools: [git.*]"))
        await world.until_state(kernel, pid, "WAITING", "human")
        assert not git.made
        await kernel.answer(pid, "once")
        await kernel.wait(pid, 30)
        assert [tool for tool, *_ in git.made] == ["push", "log"]


async def test_a_question_survives_a_boot(world: World) -> None:
    replies = by_turn(calls(call("git.push", to="a")), says("done"))
    first, second = Git(), Git()
    async with world.open(replies, devices=[first]) as kernel:
        pid = await kernel.spawn(world.program("p", "tools: [git.*]"))
        await world.until_state(kernel, pid, "WAITING", "human")
    async with world.open(replies, devices=[second]) as kernel:
        await world.until_state(kernel, pid, "WAITING", "human")
        await kernel.answer(pid, "once")
        assert (await kernel.wait(pid, 30)).result == "done"
        assert (first.made, len(second.made)) == ([], 1)


def test_rules_are_written_once_and_taken_away_by_number(tmp_path: Path) -> None:
    home = Home.find(tmp_path)
    home.prepare()
    home.config.write_text('# mine\ncurrency = "usd"\n')
    assert add_rule(home, "allow", "git.*", "p")
    assert not add_rule(home, "allow", "git.*", "p")
    assert add_rule(home, "deny", "web.fetch(host=*.evil.org)", account="team")
    assert home.config.read_text().startswith("# mine\n")
    found = [(r.number, r.effect, str(r.grant), r.program, r.account) for r in read_rules(home.document(), "x")]
    assert found == [(1, "allow", "git.*", "p", ""), (2, "deny", "web.fetch(host=*.evil.org)", "", "team")]
    assert remove_rule(home, 1).number == 1
    with pytest.raises(NotFoundError, match="no grant 2"):
        remove_rule(home, 2)
    remove_rule(home, 1)
    assert home.config.read_text().strip() == '# mine\ncurrency = "usd"'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("grants = 5", "must be a list"),
        ("[[grants]]\nallow = 5", "grant 1 must be a table of texts"),
        ('[[grants]]\nallow = "a"\ndeny = "b"', "grant 1 needs one of allow, ask, deny"),
        ('[[grants]]\nprogram = "a"', "grant 1 needs one of"),
        ('[[grants]]\nallow = "a"\nprograms = "b"', "unknown key `programs`"),
        ('[[grants]]\nallow = "a b"', "is not a tool"),
        ('[[grants]]\nallow = "a(rate=1/hour)"', "neither `rate` nor `ask`"),
    ],
)
def test_a_rule_that_is_wrong_is_said_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    import tomllib

    from mains.errors import ConfigError

    with pytest.raises(ConfigError, match=said):
        read_rules(tomllib.loads(text), "mains.toml")


class Web(Git):
    """A device that is there from the start and can send data out."""

    name = "net"

    def tools(self) -> Sequence[Tool]:
        schema = {"type": "object", "properties": {"url": {"type": "string"}}}
        return [Tool("fetch", "fetch", schema, open_world=True)]


async def test_what_can_send_data_out_asks_once_something_untrusted_was_read(world: World) -> None:
    web, home = Web(attached=False), home_of(world)
    fetch = calls(call("net.fetch", url="https://a.org/x"))
    async with world.open(by_turn(fetch, fetch, says("done")), devices=[web]) as kernel:
        pid = await kernel.spawn(world.program("p", "tools: [net.fetch]"))
        await world.until_state(kernel, pid, "WAITING", "human")
        assert len(web.made) == 1, "the first call was made: nothing untrusted had been read"
        question = (await kernel.show(pid))["open_calls"][0]["question"]
        assert "(it can send data out, and the process has read a result of net.fetch)" in question
        await kernel.answer(pid, "no")
        await kernel.wait(pid, 30)
        add_rule(home, "allow", "net.fetch")
        pid = await kernel.spawn(world.program("p", 'tools: ["net.fetch(host=a.org)"]'))
        await world.until_state(kernel, pid, "WAITING", "human")
        await kernel.answer(pid, "no")
        await kernel.wait(pid, 30)
        add_rule(home, "allow", "net.fetch(host=*.org)")
        pid = await kernel.spawn(world.program("p", 'tools: ["net.fetch(host=a.org)"]'))
        assert (await kernel.wait(pid, 30)).result == "done", "the program names the host, and a rule allows it"
        assert len(web.made) == 4


class Fickle(Git):
    """A device whose `log` is no longer what its user accepted."""

    name = "fickle"

    def tools(self) -> Sequence[Tool]:
        return [msgspec.structs.replace(tool, changed=tool.name == "log") for tool in super().tools()]


async def test_a_tool_that_has_changed_since_it_was_accepted_asks_whatever_was_said_before(world: World) -> None:
    fickle = Fickle(attached=False)
    add_rule(home_of(world), "allow", "fickle.*")
    replies = by_turn(calls(call("fickle.push")), calls(call("fickle.log")), calls(call("fickle.log")), says("done"))
    async with world.open(replies, devices=[fickle]) as kernel:
        pid = await kernel.spawn(world.program("p", "tools: [fickle.*]"))
        for answer, made in (("always", 2), ("no", 2)):
            await world.until_state(kernel, pid, "WAITING", "human")
            question = (await kernel.show(pid))["open_calls"][0]["question"]
            assert "(it has changed since it was accepted: `mains device accept fickle`)" in question
            await kernel.answer(pid, answer)
            await world.until(lambda made=made: _made(fickle, made))  # type: ignore[misc]
        assert (await kernel.wait(pid, 30)).result == "done"
        assert not any(tool.changed for tool in world.asked[-1].tools), "models are not told of it"
