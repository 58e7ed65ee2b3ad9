"""Fallback chains: `model: [a, b]` tries a, and when a cannot serve, b."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from tests.unit.kernel.world import World, by_turn, call, calls, says

from mains import Settings
from mains.errors import Blame, ConfigError, EngineError, Spent
from mains.kernel import fallback, orders, turns
from mains.kernel.desk import Desk
from mains.kernel.event import AnyEvent, Asked, AskFailed, Replied, Rerouted, Spawned
from mains.kernel.fold import apply
from mains.kernel.ports import Reply, Request, Signal
from mains.kernel.process import GivenUp, Process, Route
from mains.kernel.tx import Tx
from mains.testing import ScriptedEngine

CHAIN = "model: [scripted, b]"


def fault(
    text: str = "down",
    *,
    retryable: bool = True,
    spent: Spent = Spent.NOTHING,
    blame: Blame = Blame.ENGINE,
    wish_s: float = 0.0,
) -> EngineError:
    return EngineError(text, retryable=retryable, spent=spent, blame=blame, retry_after_s=wish_s)


def failing(error: EngineError) -> Callable[[Request], Reply]:
    def answer(request: Request) -> Reply:
        raise error

    return answer


def engine(name: str, answer: Callable[[Request], Reply], context_tokens: int = 0) -> ScriptedEngine:
    return ScriptedEngine.of(answer, name=name, slots=4, context_tokens=context_tokens)


async def told(kernel: Desk, pid: int) -> list[str]:
    """The events of a process, in short: which engine was asked, and how it went."""
    lines = []
    for notice in await kernel.history(pid):
        event = msgspec.json.decode(notice.text, type=AnyEvent)
        match event:
            case Asked(asking=asking):
                lines.append(f"asks {asking.engine}")
            case AskFailed():
                lines.append("fails")
            case Rerouted(engine=to):
                lines.append(f"to {to}")
            case Replied():
                lines.append("replied")
    return lines


async def until_timer(world: World, kernel: Desk, pid: int) -> None:
    """Let time pass until a process that waits for its retry is READY again."""
    await world.until_state(kernel, pid, "WAITING", "timer")
    world.clock.advance(60_000)


async def test_an_engine_that_is_down_is_left_after_two_failures(world: World) -> None:
    async with world.open(failing(fault()), others=[engine("b", lambda _: says("from b"))]) as kernel:
        pid = await kernel.spawn(world.program("p", CHAIN))
        await until_timer(world, kernel, pid)
        done = await kernel.wait(pid)
        assert (done.exit_code, done.result) == (0, "from b")
        assert await told(kernel, pid) == [
            "asks scripted",
            "fails",
            "asks scripted",
            "fails",
            "to b",
            "asks b",
            "replied",
        ]
        shown = await kernel.show(pid)
        assert (shown["engine"], shown["model"]) == ("b", "")
        assert [(r["engine"], r["in_use"]) for r in shown["routes"]] == [("scripted", False), ("b", True)]
        assert (await kernel.ps(every=True))[0].engine == "b"


async def test_a_key_that_is_refused_is_left_at_once_and_each_try_is_settled(world: World) -> None:
    refused = fault("bad key", retryable=False, spent=Spent.UNKNOWN)
    async with world.open(failing(refused), others=[engine("b", lambda _: says("from b"))]) as kernel:
        pid = await kernel.spawn(world.program("p", f"{CHAIN}\nbudget: 5000"))
        done = await kernel.wait(pid)
        assert done.result == "from b"
        assert await told(kernel, pid) == ["asks scripted", "fails", "to b", "asks b", "replied"]
        posted = [e.posted for n in await kernel.history(pid)
                  if isinstance(e := msgspec.json.decode(n.text, type=AnyEvent), AskFailed)]  # fmt: skip
        assert posted[0] > 0
        own = (await kernel.show(pid))["accounts"][0]
        assert (own["held"], own["posted"]) == (0, posted[0] + done.usage.total - posted[0])


async def test_when_all_fail_each_says_why(world: World) -> None:
    others = [engine("b", failing(fault("engine b: no such model", retryable=False)))]
    async with world.open(failing(fault("engine a: bad key", retryable=False)), others=others) as kernel:
        pid = await kernel.spawn(world.program("p", CHAIN))
        done = await kernel.wait(pid)
        assert (done.state, done.reason) == (
            "STOPPED",
            "error: engine a: bad key; engine b: no such model (2 tries)",
        )
        assert await told(kernel, pid) == ["asks scripted", "fails", "to b", "asks b", "fails"]


async def test_a_resumed_process_may_take_every_engine_again(world: World) -> None:
    good = False

    def answer(request: Request) -> Reply:
        if good:
            return says("from a")
        raise fault(retryable=False)

    others = [engine("b", failing(fault(retryable=False)))]
    async with world.open(answer, others=others) as kernel:
        pid = await kernel.spawn(world.program("p", CHAIN))
        assert (await kernel.wait(pid)).state == "STOPPED"
        good = True
        await kernel.signal(pid, Signal.CONT)
        assert (await kernel.wait(pid)).result == "from a"
        assert (await told(kernel, pid))[5:] == ["asks b", "fails", "to scripted", "asks scripted", "replied"]


@pytest.mark.parametrize(("blame", "to_b"), [(Blame.REQUEST, False), (Blame.LENGTH, True)])
async def test_a_failure_of_the_request_itself_goes_only_to_a_larger_context(
    world: World, blame: Blame, to_b: bool
) -> None:
    refused = fault("no", retryable=False, blame=blame)
    others = [engine("small", lambda _: says("from small"), 1), engine("b", lambda _: says("from b"), 10_000_000)]
    async with world.open(failing(refused), others=others) as kernel:
        pid = await kernel.spawn(world.program("p", "model: [scripted, small, b]"))
        done = await kernel.wait(pid)
        assert (done.result, done.state) == (("from b", "EXITED") if to_b else (None, "STOPPED"))


async def test_it_stays_for_later_turns_and_returns_after_a_time(world: World) -> None:
    asked: list[str] = []
    up = False
    tool = calls(call("sleep", seconds=200))

    def a(request: Request) -> Reply:
        asked.append("a")
        if not up:
            raise fault(retryable=False)
        return says("from a")

    def b(request: Request) -> Reply:
        asked.append("b")
        return by_turn(tool)(request)  # type: ignore[return-value]

    async with world.open(a, others=[engine("b", b)], fallback_return_s=300.0) as kernel:
        pid = await kernel.spawn(world.program("p", f"{CHAIN}\ntools: [sleep]"))
        await world.until_state(kernel, pid, "WAITING", "timer")
        assert asked == ["a", "b"]
        assert (await kernel.show(pid))["returns_at"] is not None
        up = True
        world.clock.advance(200_000)

        async def second() -> bool:
            return (await kernel.outcome(pid)).turns == 2

        await world.until(second)
        assert asked == ["a", "b", "b"]  # 200 s are not 300 s
        await world.until_state(kernel, pid, "WAITING", "timer")
        world.clock.advance(200_000)
        assert (await kernel.wait(pid)).result == "from a"
        assert asked == ["a", "b", "b", "a"]
        assert (await told(kernel, pid))[-3:] == ["to scripted", "asks scripted", "replied"]
        assert (await kernel.show(pid))["returns_at"] is None


async def test_a_forced_engine_has_no_fallback(world: World) -> None:
    async with world.open(failing(fault(retryable=False)), others=[engine("b", lambda _: says("from b"))]) as kernel:
        pid = await kernel.spawn(world.program("p", CHAIN), engine="scripted")
        assert (await kernel.wait(pid)).state == "STOPPED"
        assert (await kernel.show(pid))["routes"] == []


async def test_an_engine_that_is_not_configured_any_more_is_passed_over(world: World) -> None:
    others = [engine("b", lambda _: says("never")), engine("c", lambda _: says("from c"))]
    async with world.open(lambda _: says("never"), others=others) as kernel:
        pid = await kernel.spawn(world.program("p", "model: [b, c]"), paused=True)
    async with world.open(lambda _: says("never"), others=others[1:]) as kernel:
        await kernel.signal(pid, Signal.CONT)
        assert (await kernel.wait(pid)).result == "from c"
        assert await told(kernel, pid) == ["to c", "asks c", "replied"]
    async with world.open(lambda _: says("never"), others=others) as kernel:
        alone = await kernel.spawn(world.program("q", "model: b"), paused=True)
    async with world.open(lambda _: says("never")) as kernel:
        await kernel.signal(alone, Signal.CONT)
        done = await kernel.wait(alone)
        assert done.state == "STOPPED"
        assert "the engine `b` is not configured" in done.reason


async def test_a_kernel_that_ends_on_the_second_engine_goes_on_there(world: World) -> None:
    tool = calls(call("sleep", seconds=100))
    others = [engine("b", lambda request: by_turn(tool, says("from b"))(request))]  # type: ignore[arg-type, return-value]
    async with world.open(failing(fault(retryable=False)), others=others) as kernel:
        pid = await kernel.spawn(world.program("p", f"{CHAIN}\ntools: [sleep]"))
        await world.until_state(kernel, pid, "WAITING", "timer")
    world.clock.advance(100_000)
    async with world.open(failing(fault("never asked")), others=others) as kernel:
        assert (await kernel.wait(pid)).result == "from b"


async def test_word_that_an_engine_is_not_there_counts_for_that_engine_only(world: World) -> None:
    """Two commits that both found a process READY on an engine that is gone must not pass over the next one, too."""
    others = [engine("b", lambda _: says("never")), engine("c", lambda _: says("from c"))]
    async with world.open(lambda _: says("never"), others=others) as kernel:
        pid = await kernel.spawn(world.program("p", "model: [b, c]"), paused=True)
    async with world.open(lambda _: says("never"), others=others[1:]) as kernel:
        inner = kernel._kernel

        def twice(tx: Tx) -> None:
            orders.signal(tx, inner.world, pid, Signal.CONT)
            for _ in range(2):
                turns.unserved(tx, inner.world, pid, "b", ConfigError("gone"))

        await inner.order(twice, "test")
        assert (await kernel.wait(pid)).result == "from c"
        assert await told(kernel, pid) == ["to c", "asks c", "replied"]


# ------------------------------------------------------------------------------------------------- the decision

ROUTES = tuple(Route(name, "m", 100) for name in "abc")


def at(route: int = 0, failures: int = 0, here: int = 0, gone: tuple[int, ...] = (), routes: int = 3) -> Process:
    return Process(
        pid=1, name="p", program="", tree="", inputs="", tools="", accounts=(1, 0), output_tokens_max=1, created_ms=0,
        routes=ROUTES[:routes], route=route, failures=failures, failures_here=here,
        given_up=tuple(GivenUp(index, f"{index} failed") for index in gone),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("p", "error", "step"),
    [
        (at(), fault(), "again"),
        (at(failures=1, here=1), fault(), 1),
        (at(), fault(retryable=False), 1),
        (at(), fault(wish_s=61), 1),
        (at(), fault(wish_s=60), "again"),
        (at(1, failures=3, here=1, gone=(0,)), fault(), 2),
        (at(2, failures=2, here=0, gone=(0, 1)), fault(retryable=False), None),
        (at(2, failures=4, here=4, gone=(0, 1)), fault(), "again"),
        (at(2, failures=5, here=5, gone=(0, 1)), fault(), None),
        (at(1), fault(retryable=False), 0),  # it stayed on b: a is next, then c
        (at(1, gone=(0,)), fault(retryable=False), 2),
        (at(failures=3, here=0), fault(), 1),  # two tries are left, for two engines
        (at(1, failures=9, here=0, gone=(0,)), fault(), 2),  # each gets one, whatever the budget
        (at(), fault(retryable=False, blame=Blame.REQUEST), None),
        (at(), fault(blame=Blame.REQUEST), "again"),
        (at(), fault(retryable=False, blame=Blame.LENGTH), None),
        (at(routes=0), fault(), "again"),
        (at(routes=0), fault(retryable=False), None),
        (at(routes=0), fault(retryable=False, blame=Blame.LENGTH), None),
        (at(routes=0, failures=5, here=5), fault(), None),
    ],
)
def test_what_follows_a_failure(p: Process, error: EngineError, step: object) -> None:
    assert fallback.after_failure(p, error, Settings()) == step


def test_the_budget_bounds_every_chain() -> None:
    """However the engines fail, a turn ends after the budget, or after one try of each."""
    for attempts in (1, 2, 3, 6):
        settings = Settings(model_attempts_max=attempts)
        p, tried = at(), []
        while True:
            tried.append(p.route)
            step = fallback.after_failure(p, fault(), settings)
            p = msgspec.structs.replace(p, failures=p.failures + 1, failures_here=p.failures_here + 1)
            if step is None:
                break
            if step != fallback.AGAIN:
                assert isinstance(step, int)
                gone = (*p.given_up, GivenUp(p.route, "x"))
                p = msgspec.structs.replace(p, route=step, failures_here=0, given_up=gone)
        assert set(tried) == {0, 1, 2}
        assert len(tried) == max(3, attempts)


OLD = (
    '{"kind":"spawned","process":{"pid":1,"name":"p","program":"a","tree":"b","inputs":"c","tools":"d","accounts":[1,0],'
    '"engine":"llama","model":"m","output_tokens_max":9,"created_ms":1,"state":"READY"},"context":["s"]}',
    '{"kind":"asked","asking":{"hold":1,"tokens":5,"output_tokens_max":9,"engine":"llama","attempt":1}}',
    '{"kind":"ask_failed","hold":1,"posted":5,"reason":"down","retry_ms":7}',
    '{"kind":"woken"}',
)


def test_a_journal_from_before_there_were_chains_folds_as_it_did() -> None:
    p = None
    for line in OLD:
        p = apply(p, msgspec.json.decode(line, type=AnyEvent))
    assert p is not None
    assert (p.engine, p.routes, p.failures, p.state.value) == ("llama", (), 1, "READY")
    assert fallback.after_failure(p, fault(), Settings()) == fallback.AGAIN
    assert not fallback.is_due_back(p, 1 << 60)
    spawned = msgspec.json.decode(OLD[0], type=AnyEvent)
    assert isinstance(spawned, Spawned)
    assert b"routes" not in msgspec.json.encode(spawned)


def test_moving_between_equal_engines_does_not_put_off_the_return_to_the_first() -> None:
    routes = (Route("a", "m"), Route("b", "n", group="n"), Route("c", "n", group="n"))
    p = msgspec.structs.replace(at(1), routes=routes, return_ms=300_000)
    moved = fallback.placed(p, 2)
    assert (moved.engine, moved.return_ms, moved.reason) == ("c", 300_000, "")
    p = msgspec.structs.replace(p, route=2)
    assert not fallback.is_due_back(p, 299_999)
    assert fallback.is_due_back(p, 300_000)
