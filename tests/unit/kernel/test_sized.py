"""What an engine takes in one call is known to every process, also when its engine was forced."""

from __future__ import annotations

import msgspec
from tests.unit.kernel.world import World, by_turn, call, calls, says

from mains.errors import ConfigError
from mains.kernel.process import Process, Route
from mains.kernel.sized import sized
from mains.testing import ScriptedEngine

PROCESS = Process(
    pid=1, name="p", program="", tree="", inputs="", tools="", accounts=(1,), output_tokens_max=1, created_ms=0
)
SIZES = {"small": 4_000, "large": 9_000}


def route(names: tuple[str, ...]) -> Route:
    """As a world that knows two engines; any other name is the small one's, as in a home its default's."""
    if names == ("broken",):
        raise ConfigError("wrong")
    name = names[0] if names[0] in SIZES else "small"
    return Route(name, "m", SIZES[name])


def test_a_process_is_sized_by_the_engine_in_use() -> None:
    routes = (Route("small", "m"), Route("large", "m"), Route("gone", "m"))
    p = sized(route, msgspec.structs.replace(PROCESS, engine="large", model="m", routes=routes, route=1))
    assert (p.context_tokens, [each.context_tokens for each in p.routes]) == (9_000, [4_000, 9_000, 0])
    assert sized(route, msgspec.structs.replace(PROCESS, engine="small", model="m")).context_tokens == 4_000


def test_one_whose_engine_is_gone_or_that_is_sized_stays_as_it_is() -> None:
    for engine, size in (("gone", 0), ("broken", 0), ("large", 77)):
        p = msgspec.structs.replace(PROCESS, engine=engine, model="m", context_tokens=size)
        assert sized(route, p) == p


async def test_a_forced_engine_is_known_with_its_size_and_to_children(world: World) -> None:
    world.program("child", "", "Read.")
    answer = by_turn(calls(call("spawn", program="child"), call("wait")), says("done"))
    other = ScriptedEngine.of(answer, name="other", context_tokens=5_000)
    async with world.open(lambda r: says("unused"), others=[other]) as kernel:
        pid = await kernel.spawn(world.program("p", "tools: [spawn(child), wait]"), engine="other")
        assert (await kernel.wait(pid, 20)).result == "done"
        sizes = [p.context_tokens for p in kernel.journal.processes("process_all")]
        assert sizes == [5_000, 5_000]
        assert not world.asked
