"""Python functions as devices: their schema, their results, their errors, and what the call knows of its caller."""

from __future__ import annotations

import asyncio
import contextvars
import enum
import threading
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from jsonschema_rs import Draft202012Validator
from tests.unit.kernel.world import World, by_turn, call, calls, says

import mains
from mains.errors import ConfigError, DeviceError
from mains.kernel.ports import CallContext, Done, Failed

CONTEXT = CallContext(7, "7-call_1_1", Path("/w"), 2)


class Colour(enum.Enum):
    """A colour."""

    RED = "red"
    BLUE = "blue"


class Point(msgspec.Struct):
    """A point."""

    x: int
    y: int = 0


@mains.device(read_only=True)
def paint(where: Point, colour: Colour, layers: int = 1, mode: Literal["oil", "ink"] = "oil") -> str:
    """Paint something.

    Slowly.
    """
    return f"{where.x},{where.y} {colour.value} {layers} {mode}"


def test_the_schema_says_what_the_annotations_say() -> None:
    [tool] = paint.tools()
    assert (tool.name, tool.read_only, tool.idempotent) == ("", True, False)
    assert paint.name == "paint"
    assert tool.description == "Paint something.\n\nSlowly."
    check = Draft202012Validator(tool.parameters)
    assert check.is_valid({"where": {"x": 1}, "colour": "red"})
    assert check.is_valid({"where": {"x": 1, "y": 2}, "colour": "blue", "layers": 3, "mode": "ink"})
    for wrong in (
        {}, {"where": {"x": 1}}, {"where": {"x": "1"}, "colour": "red"}, {"where": {"x": 1}, "colour": "green"},
        {"where": {"x": 1}, "colour": "red", "mode": "chalk"}, {"where": {"x": 1}, "colour": "red", "more": 1},
    ):  # fmt: skip
        assert not check.is_valid(wrong), wrong


async def test_arguments_become_what_the_function_expects() -> None:
    answer = await paint.call("", {"where": {"x": 1}, "colour": "blue", "mode": "ink"}, CONTEXT)
    assert answer == Done("1,0 blue 1 ink")
    for wrong in ({}, {"where": 1, "colour": "red"}, {"where": {"x": 1}, "colour": "red", "more": 1}):
        refused = await paint.call("", wrong, CONTEXT)
        assert isinstance(refused, Failed)
        assert "do not fit" in refused.text


def test_a_device_can_still_be_called_from_python() -> None:
    assert paint(Point(1, 2), Colour.RED) == "1,2 red 1 oil"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("text", "text"), ("", ""), (None, "null"), (3, "3"), ([1, "a"], '[1,"a"]'), ({"a": True}, '{"a":true}'),
        (Point(1, 2), '{"x":1,"y":2}'), (Done("whole"), "whole"),
    ],
)  # fmt: skip
async def test_a_result_is_text_or_json(value: object, text: str) -> None:
    @mains.device
    def give() -> object:
        return value

    @mains.device
    async def give_later() -> object:
        await asyncio.sleep(0)
        return value

    assert await give.call("", {}, CONTEXT) == Done(text)
    assert await give_later.call("", {}, CONTEXT) == Done(text)


async def test_an_exception_says_that_nothing_happened_and_a_device_error_that_nobody_knows() -> None:
    @mains.device
    def fail(how: str) -> str:
        if how == "unknown":
            raise DeviceError("the line broke", retryable=True)
        if how == "said":
            return Failed("I will not")  # type: ignore[return-value]
        raise FileNotFoundError("no such thing")

    assert await fail.call("", {"how": "clear"}, CONTEXT) == Failed("FileNotFoundError: no such thing")
    assert await fail.call("", {"how": "said"}, CONTEXT) == Failed("I will not")
    with pytest.raises(DeviceError, match="the line broke") as caught:
        await fail.call("", {"how": "unknown"}, CONTEXT)
    assert caught.value.retryable


async def test_the_context_is_given_and_never_shown() -> None:
    @mains.device
    def where(context: CallContext, n: int) -> str:
        return f"{context.pid} {context.key} {context.workspace} {context.attempt} {n}"

    [tool] = where.tools()
    assert list(tool.parameters["properties"]) == ["n"]
    assert await where.call("", {"n": 5}, CONTEXT) == Done("7 7-call_1_1 /w 2 5")
    assert isinstance(await where.call("", {"n": 5, "context": {}}, CONTEXT), Failed), "a model may not forge it"


async def test_a_plain_function_runs_beside_the_loop_and_an_async_one_in_it() -> None:
    @mains.device
    def beside() -> str:
        return threading.current_thread().name

    @mains.device
    async def within() -> str:
        return threading.current_thread().name

    answers = [await device.call("", {}, CONTEXT) for device in (beside, within)]
    assert answers[0] != Done(threading.current_thread().name)
    assert answers[1] == Done(threading.current_thread().name)


async def test_a_plain_function_sees_the_context_variables_of_its_caller() -> None:
    of_caller: contextvars.ContextVar[str] = contextvars.ContextVar("of_caller", default="unset")

    @mains.device
    def look() -> str:
        return of_caller.get()

    of_caller.set("set")
    assert await look.call("", {}, CONTEXT) == Done("set")


def test_a_function_without_types_or_with_loose_ends_is_refused() -> None:
    def untyped(n) -> str:  # type: ignore[no-untyped-def]
        return str(n)

    def many(*numbers: int) -> str:
        return str(numbers)

    def anything(**named: int) -> str:
        return str(named)

    def fixed(n: int, /) -> str:
        return str(n)

    for function in (untyped, many, anything, fixed):
        with pytest.raises(ConfigError, match=function.__name__):
            mains.device(function)


def test_a_type_that_has_no_json_and_a_name_that_no_grant_can_name_are_refused() -> None:
    def opaque(thread: threading.Thread) -> str:
        return thread.name

    with pytest.raises(ConfigError, match="opaque"):
        mains.device(opaque)
    with pytest.raises(ConfigError, match="lambda"):
        mains.device(lambda: "x")


async def test_defaults_are_not_shared_between_calls() -> None:
    @mains.device
    def collect(item: int, into: list[int] = []) -> Any:  # noqa: B006 - what users write
        into.append(item)
        return into

    assert await collect.call("", {"item": 1}, CONTEXT) == Done("[1]")
    assert await collect.call("", {"item": 2}, CONTEXT) == Done("[2]")

    @mains.device
    def weigh(numbers: list[int] = [1, 2]) -> int:  # noqa: B006
        return sum(numbers)

    assert await weigh.call("", {}, CONTEXT) == Done("3")
    assert await weigh.call("", {"numbers": [5]}, CONTEXT) == Done("5")


async def test_a_device_serves_one_kernel_after_another(world: World) -> None:
    @mains.device(read_only=True)
    def look() -> str:
        """Look."""
        return "seen"

    for _ in range(2):
        async with world.open(by_turn(calls(call("look")), says("ok")), devices=[look]) as kernel:
            await kernel.wait(await kernel.spawn(world.program("p", "tools: [look]")), 10)
            assert world.asked[-1].messages[-1].text == "seen"


async def test_a_call_that_is_broken_off_leaves_no_coroutine_running() -> None:
    events: list[str] = []

    @mains.device
    async def slow() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            events.append("ended")
        return ""

    task = asyncio.create_task(slow.call("", {}, CONTEXT))
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert events == ["ended"]
