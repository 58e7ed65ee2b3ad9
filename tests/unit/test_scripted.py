"""The scripted engine: its format, its determinism, and that it costs next to nothing."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from mains.engines.script import CONTEXT_TOKENS, SLOTS, Line, TokensLine, _RuleKeys, _ScriptKeys, script_of
from mains.engines.scripted import ScriptedEngine, input_tokens, turn_of
from mains.errors import Blame, ConfigError, EngineError, Spent
from mains.kernel.ports import Engine, Finish, Message, Reply, Request, ToolCall, Usage

DOCS = Path(__file__).parents[2] / "docs" / "scripted.md"


def frame(*texts: str, system: str = "", limit: int = 1_024) -> Request:
    """A frame in which user and assistant take turns, the user first."""
    turns = tuple(Message("assistant" if n % 2 else "user", text) for n, text in enumerate(texts))
    head = (Message("system", system),) if system else ()
    return Request(messages=head + turns, output_tokens_max=limit)


def ignore(text: str) -> None:
    """A watcher that does not watch."""


async def said(engine: ScriptedEngine, request: Request) -> str:
    return (await engine.complete(request, ignore)).text


async def fails(engine: ScriptedEngine, request: Request) -> EngineError:
    with pytest.raises(EngineError) as caught:
        await engine.complete(request, ignore)
    return caught.value


def mistakes(replies: object) -> str:
    with pytest.raises(ConfigError) as caught:
        script_of(replies, "s.yaml")
    return str(caught.value)


# -------------------------------------------------------------------------------------------- which reply


async def test_a_list_of_texts_is_by_turn_and_stateless() -> None:
    engine: Engine = ScriptedEngine.of(["one", "two"])
    for _ in range(2):  # as after a crash
        assert (await engine.complete(frame("a"), ignore)).text == "one"
        assert (await engine.complete(frame("a", "one", "b"), ignore)).text == "two"
    with pytest.raises(EngineError):
        await engine.complete(frame("a", "one", "b", "two", "c"), ignore)


async def test_rules_are_tried_in_order_and_all_conditions_must_fit() -> None:
    engine = ScriptedEngine.of(
        [
            {"when": "rain", "system": "reader", "text": "both"},
            {"when": "/^RAIN$/i", "text": "regex"},
            {"first": "job", "turn": 2, "text": "second of job"},
            {"system": "reader", "text": "system"},
            "anything",
        ]
    )
    assert await said(engine, frame("it will rain", system="a reader")) == "both"
    assert await said(engine, frame("Rain")) == "regex"
    assert await said(engine, frame("Rain?")) == "anything"
    assert await said(engine, frame("the job", "x", "go on")) == "second of job"
    assert await said(engine, frame("the job")) == "anything"
    assert await said(engine, frame("hello", system="a reader")) == "system"
    assert await said(engine, Request(messages=(), output_tokens_max=9)) == "anything"


async def test_a_sequence_goes_by_turn_and_then_no_longer_fits() -> None:
    engine = ScriptedEngine.of([{"first": "job", "sequence": ["a", {"text": "b"}]}, "over"])
    assert await said(engine, frame("job")) == "a"
    assert await said(engine, frame("job", "a", "result")) == "b"
    assert await said(engine, frame("job", "a", "result", "b", "more")) == "over"


async def test_times_counts_in_memory_and_only_calls_that_were_served() -> None:
    engine = ScriptedEngine.of([{"when": "x", "times": 2, "text": "again"}, "later"])
    assert await said(engine, frame("y")) == "later"
    assert [await said(engine, frame("x")) for _ in range(3)] == ["again", "again", "later"]


async def test_a_frame_that_nothing_fits_shows_itself_and_the_file(tmp_path: Path) -> None:
    path = tmp_path / "replies.yaml"
    path.write_text("replies:\n  - {when: never, text: x}\n")
    error = await fails(ScriptedEngine.load(path), frame("a" * 300))
    assert (error.retryable, error.spent) == (False, Spent.NOTHING)
    assert str(path) in str(error)
    assert str(error).endswith(" " + "a" * 200)


async def test_echo() -> None:
    assert await said(ScriptedEngine.of([{"echo": True}]), frame("a", "b", "c")) == "c"


# ------------------------------------------------------------------------------------------ what is said


async def test_calls_with_objects_and_with_malformed_text() -> None:
    calls = [
        {"name": "files.read", "arguments": {"p": 1}},
        {"name": "f", "arguments": "{oops", "id": "own"},
        {"name": "g"},
    ]
    reply = await ScriptedEngine.of([{"calls": calls}]).complete(frame("a"), ignore)
    assert reply.calls == (
        ToolCall("call_1_1", "files.read", '{"p":1}'),
        ToolCall("own", "f", "{oops"),
        ToolCall("call_1_3", "g", "{}"),
    )
    assert (reply.text, reply.finish) == ("", Finish.CALLS)


async def test_token_counts_are_computed_or_said() -> None:
    request = frame("12345678", "1234", "x")
    assert input_tokens(request.messages) == 3 * 4 + 2 + 1
    engine = ScriptedEngine.of(["x", {"turn": 2, "text": "12345678"}])
    counted = await engine.complete(request, ignore)
    assert counted.usage == Usage(15, 0, 1)
    tokens = {"input": 500, "cached": 600, "output": 7}
    told = await ScriptedEngine.of([{"text": "x", "tokens": tokens}]).complete(request, ignore)
    assert told.usage == Usage(500, 500, 7)
    none = await ScriptedEngine.of([{"text": "x", "usage": "none"}]).complete(request, ignore)
    assert none.usage is None


@pytest.mark.parametrize("limit", [1, 2, 3, 10])
async def test_the_cap_cuts(limit: int) -> None:
    reply = {"text": "x" * 400, "calls": [{"name": "f"}]}
    cut = await ScriptedEngine.of([reply]).complete(frame("a", limit=limit), ignore)
    assert (cut.finish, cut.calls) == (Finish.LENGTH, ())
    assert cut.usage is not None
    assert cut.usage.output_tokens == limit == len(cut.text) // 4 + 1


async def test_a_reply_that_fits_the_cap_exactly_is_not_cut() -> None:
    reply = await ScriptedEngine.of(["x" * 7]).complete(frame("a", limit=2), ignore)
    assert (reply.text, reply.finish) == ("x" * 7, Finish.STOP)


async def test_finish_is_what_the_script_says() -> None:
    for word in ("stop", "length", "refusal"):
        reply = await ScriptedEngine.of([{"text": "x", "finish": word}]).complete(frame("a"), ignore)
        assert reply.finish.value == word


async def test_chunks_and_delays_with_time_passed_in() -> None:
    log: list[object] = []

    async def wait_ms(span_ms: int) -> None:
        log.append(span_ms)

    engine = ScriptedEngine.of([{"text": "abcde", "chunks": 3, "delay_ms": 100}], wait_ms=wait_ms)
    reply = await engine.complete(frame("a"), log.append)
    assert reply.text == "abcde"
    assert log == [33, "ab", 33, "cd", 34, "e"]


async def test_errors_come_after_what_was_said() -> None:
    broken = {
        "text": "half",
        "error": {"text": "gone", "retryable": False, "spent": "nothing", "retry_after_s": 2, "blame": "length"},
    }
    engine = ScriptedEngine.of([broken])
    deltas: list[str] = []
    with pytest.raises(EngineError, match="gone") as caught:
        await engine.complete(frame("a"), deltas.append)
    error = caught.value
    assert (error.retryable, error.spent, error.retry_after_s, error.blame) == (False, Spent.NOTHING, 2.0, Blame.LENGTH)
    assert deltas == ["half"]
    plain = await fails(ScriptedEngine.of([{"error": {}}]), frame("a"))
    assert (plain.retryable, plain.spent) == (True, Spent.UNKNOWN)
    assert engine.state().busy == 0


# --------------------------------------------------------------------------------------------- functions


async def test_a_function_answers_with_anything_a_script_can_say() -> None:
    whole = Reply("whole", usage=None)

    async def later(request: Request) -> str:
        return "later"

    for answer, text in ((whole, "whole"), ("text", "text"), ({"text": "mapped"}, "mapped"), ({"echo": True}, "a")):

        def function(request: Request, answer: Any = answer) -> Any:
            return answer

        deltas: list[str] = []
        reply = await ScriptedEngine.of(function).complete(frame("a"), deltas.append)
        assert deltas == [text] == [reply.text]
        assert (reply.usage is None) == (answer is whole)
    assert await said(ScriptedEngine.of(later), frame("a")) == "later"


async def test_a_function_that_gives_nonsense_is_told_so() -> None:
    with pytest.raises(ConfigError, match="unknown key `txt`"):
        await ScriptedEngine.of(lambda request: {"txt": "x"}).complete(frame("a"), ignore)


async def test_a_whole_reply_costs_microseconds() -> None:
    reply = Reply("x", usage=Usage(10, 0, 1))
    engine = ScriptedEngine.of(lambda request: reply)
    request = frame("a")
    best = min([await timed(engine, request) for _ in range(5)])
    assert engine.calls == 5_000
    assert best < 50e-6, f"{best * 1e6:.1f} microseconds a call"


async def timed(engine: ScriptedEngine, request: Request, calls: int = 1_000) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        await engine.complete(request, ignore)
    return (time.perf_counter() - began) / calls


# ----------------------------------------------------------------------------------------------- the file


async def test_slots_and_context_come_from_the_file_unless_configured(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("slots: 3\ncontext_tokens: 99\nreplies: [x]\n")
    engine = ScriptedEngine.load(path, name="fake")
    await engine.start()
    state = engine.state()
    assert (state.name, state.kind, state.model, state.slots) == ("fake", "scripted", str(path), 3)
    assert (state.context_tokens, state.health, state.busy) == (99, "ok", 0)
    await engine.close()
    configured = ScriptedEngine.load(path, slots=5, context_tokens=7)
    assert (configured.slots, configured.context_tokens) == (5, 7)
    plain = ScriptedEngine.of(["x"])
    assert (plain.slots, plain.context_tokens) == (SLOTS, CONTEXT_TOKENS)


def test_every_mistake_is_named_at_once() -> None:
    text = mistakes(
        {
            "slotz": 3,
            "replies": [
                {"wen": "x", "text": "y"},
                {"text": 42},
                {"when": "/(/", "text": "x"},
                {"calls": [{"name": "f"}, {"nme": "g"}, 3]},
                {"error": {"spent": "all"}},
                {"tokens": {"input": -1}, "text": "x"},
                {"when": "x"},
                {"sequence": ["a"], "text": "b"},
                {"sequence": []},
                {"turn": 0, "text": "x"},
                {"text": "x", "echo": True},
                7,
                {"sequence": [{"txt": "a"}]},
                {"text": "x", "chunks": 0, "delay_ms": -1, "finish": "calls"},
            ],
        }
    )
    for part in (
        "s.yaml: unknown key `slotz` (did you mean `slots`?)",
        "replies[1]: unknown key `wen` (did you mean `when`?)",
        "replies[2].text: Expected `str`, got `int`",
        "replies[3].when: no regular expression",
        "replies[4].calls[2]: unknown key `nme` (did you mean `name`?)",
        "replies[4].calls[2]: `name` is missing",
        "replies[4].calls[3]: a mapping is expected, not int",
        "replies[5].error.spent: Invalid enum value 'all'",
        "replies[6].tokens.input: Expected `int` >= 0",
        "replies[7]: a reply needs",
        "replies[8]: `sequence` holds the replies",
        "replies[9]: `sequence` holds the replies",
        "replies[10].turn: Expected `int` >= 1",
        "replies[11]: `echo` and `text` exclude each other",
        "replies[12]: a mapping is expected, not int",
        "replies[13].sequence[1]: unknown key `txt` (did you mean `text`?)",
        "replies[14].chunks",
        "replies[14].delay_ms",
        "replies[14].finish",
    ):
        assert part in text, part


@pytest.mark.parametrize("value", [None, "text", {}, {"replies": []}, {"replies": "x"}, []])
def test_a_script_without_replies_is_none(value: object) -> None:
    assert mistakes(value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for name, content in (("a.yaml", b"replies: [\n"), ("b.yaml", b"replies: \xff\n")):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="no YAML"):
            ScriptedEngine.load(path)
    with pytest.raises(ConfigError, match="No such file"):
        ScriptedEngine.load(tmp_path / "none.yaml")


def test_turns_are_counted_in_the_frame() -> None:
    assert turn_of(frame("a", "b", "c", "d", "e")) == 3
    assert turn_of(msgspec.structs.replace(frame("a"), key="7-12-1")) == 12, "whatever has left the frame"


# ---------------------------------------------------------------------------------------------- the docs


def documented() -> Sequence[str]:
    return re.findall(r"```yaml\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize("example", documented())
def test_the_examples_in_the_docs_are_scripts(example: str) -> None:
    assert script_of(yaml.safe_load(example), "docs").rules


def test_the_docs_describe_every_key() -> None:
    text = DOCS.read_text("utf-8")
    structs = (Line, TokensLine, _RuleKeys, _ScriptKeys)
    keys = [field for struct in structs for field in struct.__struct_fields__]
    assert [key for key in keys if f"`{key}`" not in text] == []
