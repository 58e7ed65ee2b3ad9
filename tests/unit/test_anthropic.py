"""The anthropic engine against a real HTTP server on loopback that plays streams and every fault.

The shapes are those of https://platform.claude.com/docs/en/build-with-claude/streaming and .../api/errors.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from tests.unit.endpoint_box import (
    HELLO,
    KEY,
    Handler,
    Serve,
    answer,
    engine_at,
    fails,
    hang,
    ignore,
    lost,
    raw_server,
    started,
)

import mains
from mains.engines import message_stream
from mains.engines.anthropic import AnthropicDialect
from mains.engines.catalogue import EngineSpec, load_engines, new_spec, resolve
from mains.engines.closed_schema import closed
from mains.engines.endpoint import EndpointEngine
from mains.engines.message_stream import MessageAssembly
from mains.engines.stream import BadAnswerError
from mains.errors import ConfigError, EngineError, Spent
from mains.kernel.ports import Finish, Message, Request, Sampling, Tool, ToolCall, Usage

Events = list[dict[str, Any]]
TOOLS = (
    Tool("files.read", "Read.", {"type": "object", "properties": {"p": {"type": "string"}}}),
    Tool("files.write", "Write.", {"anyOf": [{"required": ["p"]}]}),
)


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """A factory: handler -> an engine that talks to it. Extra arguments change the spec or the engine."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(handler: Handler, **changes: Any) -> EndpointEngine:
            url = await started(stack, handler, AnthropicDialect.path)
            return engine_at(stack, url, AnthropicDialect(), kind="anthropic", **changes)

        yield start


def start(**usage: int) -> Events:
    counted = {"input_tokens": 25, "output_tokens": 1, **usage}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "model": "m1", "usage": counted}
    return [{"type": "message_start", "message": {**message, "stop_reason": None, "stop_sequence": None}}]


def block(index: int, begun: dict[str, Any], *deltas: dict[str, Any], ends: bool = True) -> Events:
    pieces = [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
    end = [{"type": "content_block_stop", "index": index}] if ends else []
    return [{"type": "content_block_start", "index": index, "content_block": begun}, *pieces, *end]


def text(index: int, *pieces: str, ends: bool = True) -> Events:
    deltas = [{"type": "text_delta", "text": piece} for piece in pieces]
    return block(index, {"type": "text", "text": ""}, *deltas, ends=ends)


def tool_use(index: int, own: str, name: str, *pieces: str, begun: dict[str, Any] | None = None) -> Events:
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", *pieces)]
    return block(index, {"type": "tool_use", "id": own, "name": name, "input": begun or {}}, *deltas)


def stop(reason: str = "end_turn", output_tokens: int = 15, **more: Any) -> Events:
    delta = {"stop_reason": reason, "stop_sequence": None, **more}
    usage = {"output_tokens": output_tokens}
    return [{"type": "message_delta", "delta": delta, "usage": usage}, {"type": "message_stop"}]


PING: Events = [{"type": "ping"}]


async def play(request: web.Request, *events: Events) -> web.StreamResponse:
    """Answer with server-sent events, each with its name, as the API does."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
    await response.prepare(request)
    for event in [each for part in events for each in part]:
        await response.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
    return response


def plays(*events: Events) -> Handler:
    return lambda request: play(request, *events)


# ----------------------------------------------------------------------------------------------- a good day


async def test_a_streamed_reply(serve: Serve) -> None:
    seen: list[Any] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.append((await request.json(), request.headers))
        return await play(request, start(), PING, text(0, "Hel", "lo"), PING, stop())

    engine = await serve(handler)
    deltas: list[str] = []
    reply = await engine.complete(HELLO, deltas.append)
    assert (reply.text, reply.finish, reply.usage) == ("Hello", Finish.STOP, Usage(25, 0, 15))
    assert deltas == ["Hel", "lo"]
    body, headers = seen[0]
    mark = {"cache_control": {"type": "ephemeral"}}
    assert body == {
        "model": "m1",
        "max_tokens": 64,
        "system": [{"type": "text", "text": "Be brief.", **mark}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello?", **mark}]}],
        "stream": True,
    }
    assert headers["x-api-key"] == KEY
    assert headers["anthropic-version"] == "2023-06-01"
    assert "Authorization" not in headers
    state = engine.state()
    assert (state.kind, state.health, state.busy, state.tokens_per_s > 0) == ("anthropic", "ok", 0, True)


async def test_tool_calls_in_pieces_beside_text_and_thinking(serve: Serve) -> None:
    thinking = block(
        0,
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "thinking_delta", "thinking": "hm"},
        {"type": "signature_delta", "signature": "c2ln"},
    )
    handler = plays(
        start(),
        thinking,
        text(1, "I will look."),
        tool_use(2, "toolu_1", "files_read", '{"p":', ' "a.md"}'),
        tool_use(3, "toolu_2", "files_write"),
        tool_use(4, "toolu_3", "unknown", begun={"x": 1}),
        [{"type": "something_new", "index": 9}],
        stop("tool_use"),
    )
    request = Request(messages=(Message("user", "go"),), output_tokens_max=64, tools=TOOLS)
    reply = await (await serve(handler)).complete(request, ignore)
    assert (reply.text, reply.finish) == ("I will look.", Finish.CALLS)
    assert reply.calls == (
        ToolCall("toolu_1", "files.read", '{"p": "a.md"}'),
        ToolCall("toolu_2", "files.write", "{}"),
        ToolCall("toolu_3", "unknown", '{"x":1}'),
    )


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", Finish.STOP),
        ("stop_sequence", Finish.STOP),
        ("max_tokens", Finish.LENGTH),
        ("model_context_window_exceeded", Finish.LENGTH),
        ("pause_turn", Finish.LENGTH),
        ("refusal", Finish.REFUSAL),
        ("something_new", Finish.STOP),
    ],
)
async def test_stop_reasons(serve: Serve, reason: str, finish: Finish) -> None:
    reply = await (await serve(plays(start(), text(0, "x"), stop(reason)))).complete(HELLO, ignore)
    assert (reply.text, reply.finish) == ("x", finish)


async def test_a_refusal_says_why_and_calls_nothing(serve: Serve) -> None:
    details = {"type": "refusal", "category": None, "explanation": "It could do harm."}
    handler = plays(start(), tool_use(0, "t", "files_read", "{}"), stop("refusal", stop_details=details))
    reply = await (await serve(handler)).complete(HELLO, ignore)
    assert (reply.text, reply.calls, reply.finish) == ("It could do harm.", (), Finish.REFUSAL)


async def test_a_call_that_is_cut_at_the_cap_stays_as_it_is(serve: Serve) -> None:
    handler = plays(start(), tool_use(0, "t", "files_read", '{"p": "a'), stop("max_tokens"))
    reply = await (await serve(handler)).complete(HELLO, ignore)
    assert (reply.finish, reply.calls[0].arguments) == (Finish.LENGTH, '{"p": "a')


async def test_the_cache_is_counted_as_input(serve: Serve) -> None:
    begun = start(input_tokens=3, cache_creation_input_tokens=100, cache_read_input_tokens=2_000)
    reply = await (await serve(plays(begun, text(0, "x"), stop(output_tokens=7)))).complete(HELLO, ignore)
    assert reply.usage == Usage(2_103, 2_000, 7, cache_write_tokens=100)


def test_what_was_written_to_the_cache_is_split_by_how_long_it_lasts() -> None:
    assembly = MessageAssembly({})
    begun: Any = start(input_tokens=3, cache_creation_input_tokens=100, cache_read_input_tokens=2_000)[0]
    begun["message"]["usage"]["cache_creation"] = {"ephemeral_5m_input_tokens": 60, "ephemeral_1h_input_tokens": 40}
    assembly.add(json.dumps(begun).encode())
    last: Any = stop(output_tokens=9)[0]
    last["usage"]["output_tokens_details"] = {"thinking_tokens": 5}
    assembly.add(json.dumps(last).encode())
    expected = Usage(2_103, 2_000, 9, cache_write_tokens=60, cache_write_1h_tokens=40, reasoning_tokens=5)
    assert assembly.usage == expected


def test_a_split_without_its_sum_counts_all_the_same() -> None:
    assembly = MessageAssembly({})
    begun: Any = start(input_tokens=3)[0]
    begun["message"]["usage"] |= {
        "cache_creation": {"ephemeral_1h_input_tokens": 40},
        "cache_creation_input_tokens": None,
    }
    assembly.add(json.dumps(begun).encode())
    assert assembly.usage == Usage(43, 0, 1, cache_write_1h_tokens=40)


def test_usage_below_zero_is_not_known() -> None:
    assembly = MessageAssembly({})
    assembly.add(json.dumps(start(input_tokens=-25)[0]).encode())
    assert assembly.usage is None


def test_usage_is_taken_from_every_event_that_has_it() -> None:
    assembly = MessageAssembly({})
    assert MessageAssembly({}).usage is None
    assembly.add(json.dumps(start(cache_read_input_tokens=10)[0]).encode())
    assert [assembly.usage] == [Usage(35, 10, 1)]
    last = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}}
    assembly.add(json.dumps({**last, "usage": {"input_tokens": 30, "output_tokens": 9}}).encode())
    assert [assembly.usage] == [Usage(40, 10, 9)]


async def test_a_connection_cut_behind_the_finish_spoils_nothing(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = await play(request, start(), text(0, "x"), stop()[:1])
        assert request.transport is not None
        request.transport.close()
        return response

    reply = await (await serve(handler)).complete(HELLO, ignore)
    assert (reply.text, reply.usage) == ("x", Usage(25, 0, 15))


async def test_without_streaming(serve: Serve) -> None:
    bodies: list[Any] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        bodies.append(await request.json())
        content = [{"type": "text", "text": "Hi"}, {"type": "tool_use", "id": "t", "name": "files_read", "input": {}}]
        usage = {"input_tokens": 5, "output_tokens": 2}
        message = {"type": "message", "content": content, "stop_reason": "tool_use", "usage": usage}
        return web.json_response(message)

    engine = await serve(handler, stream=False, thinking=False)
    reply = await engine.complete(HELLO, ignore)
    assert (reply.text, reply.usage, reply.finish) == ("Hi", Usage(5, 0, 2), Finish.CALLS)
    assert (bodies[0]["stream"], bodies[0]["thinking"]) == (False, {"type": "disabled"})


# ------------------------------------------------------------------------------------------------ what goes out


def sent(*messages: Message, **more: Any) -> dict[str, Any]:
    request = Request(messages=messages, output_tokens_max=5, **more)
    body, _ = AnthropicDialect().call(request, EngineSpec(name="e", kind="anthropic"), model="m", stream=True)
    return json.loads(json.dumps(body, default=lambda raw: json.loads(bytes(raw))))  # type: ignore[no-any-return]


def shape(body: dict[str, Any]) -> list[tuple[str, list[str]]]:
    return [(turn["role"], [part["type"] for part in turn["content"]]) for turn in body["messages"]]


def marks(body: dict[str, Any]) -> int:
    parts = [*body.get("system", ()), *body.get("tools", ()), *(p for m in body["messages"] for p in m["content"])]
    return sum("cache_control" in part for part in parts)


CALLS = (ToolCall("c1", "files.read", '{"p": "a"}'), ToolCall("c2", "files.read", " "))
CONTEXT = (
    Message("system", "Rules."),
    Message("user", "go"),
    Message("assistant", "Looking.", CALLS),
    Message("tool", "text of a", call_id="c1"),
    Message("tool", "", call_id="c2"),
    Message("user", "Somebody wrote."),
)


def test_all_results_of_a_turn_are_one_message_and_text_stands_after_them() -> None:
    body = sent(*CONTEXT, tools=TOOLS)
    assert shape(body) == [
        ("user", ["text"]),
        ("assistant", ["text", "tool_use", "tool_use"]),
        ("user", ["tool_result", "tool_result", "text"]),
    ]
    _, first, second = body["messages"][1]["content"]
    assert (first["id"], first["name"], first["input"], second["input"]) == ("c1", "files_read", {"p": "a"}, {})
    results = body["messages"][2]["content"]
    assert results[:2] == [
        {"type": "tool_result", "tool_use_id": "c1", "content": "text of a"},
        {"type": "tool_result", "tool_use_id": "c2"},
    ]


def test_at_most_four_breakpoints_and_the_last_call_ended_at_one() -> None:
    now = sent(*CONTEXT, tools=TOOLS)
    assert marks(now) == 4
    assert "cache_control" in now["tools"][-1]
    assert "cache_control" in now["system"][-1]
    before = sent(*CONTEXT[:2], tools=TOOLS)
    assert marks(before) == 3
    assert now["messages"][0] == before["messages"][0]  # the same bytes up to the same breakpoint
    assert marks(sent(*CONTEXT, *CONTEXT[2:], *CONTEXT[2:], tools=TOOLS)) == 4


@pytest.mark.parametrize("messages", [(), (Message("system", "x"),), (Message("assistant", "x"), Message("user", "y"))])
def test_the_user_speaks_first(messages: tuple[Message, ...]) -> None:
    assert sent(*messages)["messages"][0]["content"][0]["text"] == "Begin."


def test_what_the_api_refuses_is_not_sent() -> None:
    body = sent(
        Message("system", " "),
        Message("user", "a"),
        Message("assistant", " \n"),
        Message("user", "b"),
        Message("system", "late"),
        tools=TOOLS,
        sampling=Sampling(temperature=1.5, seed=7, stop=("END", " ")),
    )
    assert "system" not in body
    assert shape(body) == [("user", ["text", "text", "text"])]
    assert body["tools"][1]["input_schema"] == {"type": "object"}
    assert (body["temperature"], body["stop_sequences"], body["max_tokens"]) == (1.0, ["END"], 5)
    assert "seed" not in body


def test_an_output_becomes_a_format() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1, "description": "how many"}}}
    assert sent(Message("user", "x"), output=schema)["output_config"]["format"] == {
        "type": "json_schema",
        "schema": {
            "type": "object",
            "properties": {"n": {"type": "integer", "description": "how many"}},
            "required": [],
            "additionalProperties": False,
        },
    }
    assert "output_config" not in sent(Message("user", "x"), output={"type": "object"})


NAMED: dict[str, Any] = {"$ref": "#/$defs/a", "$defs": {"a": {"type": "null"}}}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": ["string", "null"], "maxLength": 3}, {"anyOf": [{"type": "string"}, {"type": "null"}]}),
        ({"enum": ["a", 1]}, {"enum": ["a", 1]}),
        ({"const": "a", "title": "A"}, {"const": "a", "title": "A"}),
        ({"oneOf": [{"type": "null"}]}, {"anyOf": [{"type": "null"}]}),
        ({"type": "array", "items": {"type": "string"}, "minItems": 9}, {"type": "array", "items": {"type": "string"}}),
        (NAMED, NAMED),
        ({"type": "array"}, None),
        ({"type": "object"}, None),
        ({}, None),
        ({"type": "object", "properties": {"a": {}}}, None),
        ({"type": "object", "properties": {"a": {"type": "null"}}, "additionalProperties": {"type": "null"}}, None),
        ({"$ref": "https://elsewhere.invalid"}, None),
        ({"enum": [["a"]]}, None),
    ],
)  # fmt: skip
def test_schemas_are_closed_or_not_sent(schema: dict[str, Any], expected: dict[str, Any] | None) -> None:
    assert closed(schema) == expected


async def test_a_schema_that_the_api_refuses_is_left_out(serve: Serve) -> None:
    tried: list[bool] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        tried.append("output_config" in body)
        if tried[-1]:
            return await refusal(400, "invalid_request_error", "output_config.format: the schema is too complex")(
                request
            )
        return await play(request, start(), text(0, '"x"'), stop())

    request = Request(messages=(Message("user", "x"),), output_tokens_max=5, output={"type": "string"})
    assert (await (await serve(handler)).complete(request, ignore)).text == '"x"'
    assert tried == [True, False]


async def test_a_model_that_takes_no_temperature_is_remembered(serve: Serve) -> None:
    tried: list[tuple[str, bool]] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        tried.append((body["model"], "temperature" in body))
        if tried[-1] == ("m1", True):
            said = "`temperature` is deprecated for this model."
            return await refusal(400, "invalid_request_error", said)(request)
        return await play(request, start(), text(0, "x"), stop())

    engine = await serve(handler)
    request = Request(messages=(Message("user", "x"),), output_tokens_max=5, sampling=Sampling(temperature=0.0))
    for model in ("", "", "other"):
        assert (await engine.complete(msgspec.structs.replace(request, model=model), ignore)).text == "x"
    assert tried == [("m1", True), ("m1", False), ("m1", False), ("other", True)]


# --------------------------------------------------------------------------------------------------- trouble


def refusal(status: int, kind: str, said: str, **headers: str) -> Handler:
    return answer(status, {"type": "error", "error": {"type": kind, "message": said}, "request_id": "r"}, **headers)


@pytest.mark.parametrize(
    ("status", "kind", "retryable", "spent"),
    [
        (400, "invalid_request_error", False, Spent.NOTHING),
        (401, "authentication_error", False, Spent.NOTHING),
        (403, "permission_error", False, Spent.NOTHING),
        (404, "not_found_error", False, Spent.NOTHING),
        (413, "request_too_large", False, Spent.NOTHING),
        (429, "rate_limit_error", True, Spent.NOTHING),
        (500, "api_error", True, Spent.UNKNOWN),
        (529, "overloaded_error", True, Spent.NOTHING),
    ],
)
async def test_a_status_says_what_may_be_tried_again(
    serve: Serve, status: int, kind: str, retryable: bool, spent: Spent
) -> None:
    error = await fails(await serve(refusal(status, kind, "said the API", retry_after="12")))
    assert (error.retryable, error.spent) == (retryable, spent)
    assert error.retry_after_s == (12.0 if retryable else 0.0)
    assert str(error).endswith("/v1/messages: said the API")
    assert ("$TEST_KEY" in error.hint) is (status in (401, 403))


@pytest.mark.parametrize(
    ("kind", "retryable"),
    [("overloaded_error", True), ("api_error", True), ("invalid_request_error", False), ("something_new", True)],
)
async def test_an_error_in_the_middle_of_a_stream(serve: Serve, kind: str, retryable: bool) -> None:
    broken = {"type": "error", "error": {"type": kind, "message": f"upstream {KEY} failed"}}
    error = await fails(await serve(plays(start(), text(0, "half", ends=False), [broken])))
    assert (error.retryable, error.spent) == (retryable, Spent.UNKNOWN)
    assert f"{kind}: upstream *** failed" in str(error)


@pytest.mark.parametrize(
    ("content_type", "body", "said"),
    [
        ("text/html", "<html>Login</html>", "no event stream"),
        ("application/json", "{not json", "not the dialect"),
        ("application/json", "[]", "not the dialect"),
        ("application/json", '{"type": "message", "content": []}', "does not say why it stopped"),
        ("text/event-stream", "data: {nope\n\n", "not the dialect"),
        ("text/event-stream", 'data: {"type": "message_stop"}\n\n', "no message"),
        ("text/event-stream", 'data: {"choices": []}\n\n', "not the dialect"),
        ("text/event-stream", 'data: {"type": "content_block_delta", "delta": {}}\n\n', "has not begun"),
        ("text/event-stream", ": ping\n\n", "ended before"),
        ("text/event-stream", "", "ended before"),
    ],
)
async def test_nonsense(serve: Serve, content_type: str, body: str, said: str) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(text=body, content_type=content_type)

    error = await fails(await serve(handler))
    assert lost(error)
    assert said in str(error)


async def test_half_a_stream(serve: Serve) -> None:
    error = await fails(await serve(plays(start(), text(0, "half"))))
    assert lost(error)
    assert "ended before the answer was finished" in str(error)


async def test_a_connection_that_is_cut(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = await play(request, start(), text(0, "half", ends=False))
        assert request.transport is not None
        request.transport.abort()
        return response

    error = await fails(await serve(handler))
    assert lost(error)
    assert "broke off" in str(error)


async def test_silence_in_the_middle(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        await play(request, start(), text(0, "half", ends=False))
        return await hang(request)

    error = await fails(await serve(handler, idle_timeout_s=0.005))
    assert lost(error)
    assert "sent nothing for 0.005 s" in str(error)


async def test_silence_behind_the_finish_spoils_nothing(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        await play(request, start(), text(0, "x"), stop()[:1])
        return await hang(request)

    reply = await (await serve(handler, idle_timeout_s=0.005)).complete(HELLO, ignore)
    assert (reply.text, reply.usage) == ("x", Usage(25, 0, 15))


async def test_a_long_prompt_has_its_own_limit(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        await play(request, start(), PING)
        return await hang(request)

    error = await fails(await serve(handler, first_byte_s=0.006, idle_timeout_s=0.001))
    assert lost(error)
    assert "sent nothing for 0.006 s" in str(error)


async def test_a_server_that_hangs_up() -> None:
    async def connected(reader: Any, writer: Any) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(raw_server(connected))
        assert lost(await fails(engine_at(stack, url, AnthropicDialect(), kind="anthropic")))


def test_blocks_are_bounded_and_have_one_index_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_stream, "BLOCKS_MAX", 2)
    assembly = MessageAssembly({})
    for event in [*text(0, "a"), *text(1, "b")]:
        assembly.add(json.dumps(event).encode())
    with pytest.raises(BadAnswerError, match="more than 2 blocks"):
        assembly.add(json.dumps(text(2)[0]).encode())
    with pytest.raises(BadAnswerError, match="the index 1"):
        assembly.add(json.dumps(text(1)[0]).encode())


async def test_a_process_calls_a_tool_and_is_charged_for_the_cache(tmp_path: Path) -> None:
    bodies: list[dict[str, Any]] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        bodies.append(await request.json())
        if len(bodies) == 1:
            return await play(request, start(), tool_use(0, "toolu_1", "files_read", '{"path": "a"}'), stop("tool_use"))
        return await play(request, start(cache_read_input_tokens=40), text(0, "Done."), stop(output_tokens=2))

    (tmp_path / "home").mkdir()
    program = tmp_path / "p.md"
    program.write_text("---\nname: p\ndescription: p\ntools: [files.read]\n---\nRead a.\n")
    async with contextlib.AsyncExitStack() as stack:
        url = await started(stack, handler, AnthropicDialect.path)
        entry = f'default_engine = "a"\n[engines.a]\nkind = "anthropic"\nurl = "{url}"\nmodel = "m"\n'
        (tmp_path / "home" / "mains.toml").write_text(entry)
        kernel = await stack.enter_async_context(mains.open(tmp_path / "home"))
        done = await kernel.wait(await kernel.spawn(program))
    assert (done.result, done.usage) == ("Done.", Usage(25 + 65, 40, 15 + 2))
    assert shape(bodies[1]) == [("user", ["text"]), ("assistant", ["tool_use"]), ("user", ["tool_result"])]
    made, result = bodies[1]["messages"][1]["content"][0], bodies[1]["messages"][2]["content"][0]
    assert (made["name"], made["input"], made["id"]) == ("files_read", {"path": "a"}, result["tool_use_id"])
    assert bodies[1]["messages"][0] == bodies[0]["messages"][0]


# ------------------------------------------------------------------------------------------------ configured


def test_it_is_known_by_its_name_or_by_its_kind() -> None:
    spec = new_spec("anthropic", model="claude-x")
    assert (spec.kind, spec.url, spec.key_env) == ("anthropic", "https://api.anthropic.com/v1", "ANTHROPIC_API_KEY")
    named = new_spec("work", kind="anthropic", model="claude-x", slots=2)
    assert (named.url, named.key_env, named.slots) == (spec.url, spec.key_env, 2)
    elsewhere = new_spec("proxy", kind="anthropic", url="http://127.0.0.1:9/v1", model="claude-x", key_env="K")
    assert (elsewhere.kind, elsewhere.url, elsewhere.key_env) == ("anthropic", "http://127.0.0.1:9/v1", "K")
    url = "https://api.anthropic.com/v1"
    assert new_spec("anthropic", kind="openai", url=url, model="m").kind == "openai"  # it has that dialect, too


def test_mains_toml() -> None:
    entry = {"kind": "anthropic", "url": "https://example.com/v1", "model": "claude-x"}
    engines = load_engines({"a": entry}, "mains.toml")
    assert (engines["a"].slots, engines["a"].context_tokens) == (8, 200_000)
    assert resolve("a/claude-y", engines, "llama").model == "claude-y"
    with pytest.raises(ConfigError, match="must end before /messages"):
        load_engines({"a": {**entry, "url": "https://example.com/v1/messages"}}, "mains.toml")
    with pytest.raises(ConfigError, match="`model` is missing"):
        load_engines({"a": {**entry, "model": ""}}, "mains.toml")


async def test_a_key_that_is_not_there_makes_no_call(serve: Serve) -> None:
    error: EngineError = await fails(await serve(answer(200), key_env="OTHER_KEY"))
    assert "OTHER_KEY" in str(error)
    assert (error.retryable, error.spent) == (False, Spent.NOTHING)
