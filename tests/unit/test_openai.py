"""The OpenAI-dialect engine against a real HTTP server on loopback that misbehaves in every way we know."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import email.utils
import json
import re
import socket
from collections.abc import AsyncIterator
from typing import Any

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

from mains.engines import stream
from mains.engines.catalogue import EngineSpec
from mains.engines.endpoint import EndpointEngine
from mains.engines.openai import OpenAIDialect
from mains.engines.stream import Assembly, BadAnswerError, EventLines
from mains.engines.wire import ToolTable, ToolTables, body_of, is_strict, object_text, wire_names
from mains.errors import Blame, EngineError, Spent
from mains.kernel.ports import Engine, Finish, Message, Request, Sampling, Tool, ToolCall, Usage

STOP = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """A factory: handler -> an engine that talks to it. Extra arguments change the spec or the engine."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(handler: Handler, **changes: Any) -> EndpointEngine:
            url = await started(stack, handler, OpenAIDialect.path)
            return openai_at(stack, url, **changes)

        yield start


def openai_at(stack: contextlib.AsyncExitStack, url: str, **changes: Any) -> EndpointEngine:
    return engine_at(stack, url, OpenAIDialect(), kind="openai", **changes)


async def events(request: web.Request, *data: object, done: bool = True) -> web.StreamResponse:
    """Answer with server-sent events."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for item in data:
        await response.write(b"data: " + json.dumps(item).encode() + b"\n\n")
    if done:
        await response.write(b"data: [DONE]\n\n")
    return response


def delta(**fields: object) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": None}]}


def piece(index: int | None = None, id: str | None = None, **function: object) -> dict[str, Any]:
    call: dict[str, Any] = {"function": function}
    if index is not None:
        call["index"] = index
    if id is not None:
        call["id"] = id
    return delta(tool_calls=[call])


def usage(prompt: int, completion: int, **more: object) -> dict[str, Any]:
    return {"usage": {"prompt_tokens": prompt, "completion_tokens": completion, **more}}


# ----------------------------------------------------------------------------------------------- a good day


async def test_a_streamed_reply_with_usage_at_the_end(serve: Serve) -> None:
    seen: list[Any] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.append((await request.json(), request.headers))
        end = {"choices": [], **usage(9, 3, prompt_tokens_details={"cached_tokens": 4})}
        return await events(request, delta(role="assistant", content="Hel"), delta(content="lo"), STOP, end)

    engine: Engine = await serve(handler)
    assert engine.state().health == "unknown"
    await engine.start()
    deltas: list[str] = []
    reply = await engine.complete(HELLO, deltas.append)
    assert (reply.text, reply.finish, reply.usage) == ("Hello", Finish.STOP, Usage(9, 4, 3))
    assert deltas == ["Hel", "lo"]
    body, headers = seen[0]
    assert body == {
        "model": "m1",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello?"}],
        "max_tokens": 64,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert headers["Idempotency-Key"] == "k1"
    state = engine.state()
    assert (state.health, state.busy, state.kind, state.model, state.slots) == ("ok", 0, "openai", "m1", 4)
    assert state.tokens_per_s > 0


async def test_the_speed_of_an_answer_that_came_in_one_piece_is_that_of_the_whole_call() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return await events(request, delta(content="all at once"), STOP, {"choices": [], **usage(9, 40)})

    times = iter([0.0, 2.0, 2.001])  # asked, first event, end
    async with contextlib.AsyncExitStack() as stack:
        url = await started(stack, handler, "/chat/completions")
        spec = EngineSpec(name="e1", kind="openai", url=url, model="m1")
        engine = EndpointEngine(spec, OpenAIDialect(), monotonic=lambda: next(times))
        stack.push_async_callback(engine.close)
        await engine.complete(HELLO, ignore)
        assert engine.state().tokens_per_s == 20.0


async def test_one_connection_serves_many_calls(serve: Serve) -> None:
    ports: set[object] = set()

    async def handler(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        ports.add(request.transport.get_extra_info("peername"))
        return await events(request, delta(content="x"), STOP)

    engine = await serve(handler)
    for _ in range(3):
        await engine.complete(HELLO, ignore)
    assert len(ports) == 1


@pytest.mark.parametrize(
    "chunks",
    [
        [
            {**delta(content="a"), **usage(5, 1)},
            {**delta(content="b"), **usage(5, 2)},
            {**STOP, **usage(5, 3)},
        ],
        [delta(content="ab"), {**STOP, "x_groq": usage(5, 3)}],
        [
            delta(content="ab"),
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", **usage(5, 3)}]},
        ],
        [{**delta(content="ab"), "usage": None}, STOP, {"choices": [], **usage(5, 3)}],
        [delta(content="ab"), STOP, usage(5, 3)],
    ],
    ids=["every event", "x_groq", "in the choice", "last event", "no choices at all"],
)
async def test_usage_is_taken_wherever_it_stands(serve: Serve, chunks: list[object]) -> None:
    engine = await serve(lambda request: events(request, *chunks))
    reply = await engine.complete(HELLO, ignore)
    assert (reply.text, reply.usage) == ("ab", Usage(5, 0, 3))


async def test_cached_tokens_as_deepseek_names_them(serve: Serve) -> None:
    engine = await serve(lambda request: events(request, {**STOP, **usage(50, 1, prompt_cache_hit_tokens=48)}))
    assert (await engine.complete(HELLO, ignore)).usage == Usage(50, 48, 1)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"completion_tokens_details": {"reasoning_tokens": 20}}, Usage(50, 0, 30, reasoning_tokens=20)),
        ({"prompt_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 40}}, Usage(50, 8, 30, 40)),
        ({"prompt_tokens_details": {"cache_creation_input_tokens": 45}}, Usage(50, 0, 30, 45)),
        ({"prompt_tokens_details": None, "completion_tokens_details": None}, Usage(50, 0, 30)),
        ({"completion_tokens_details": {"reasoning_tokens": None}}, Usage(50, 0, 30)),
        # more than there can be: a part is at most its whole
        ({"prompt_tokens_details": {"cached_tokens": 30, "cache_write_tokens": 40}}, Usage(50, 30, 30, 20)),
        ({"completion_tokens_details": {"reasoning_tokens": 99}}, Usage(50, 0, 30, reasoning_tokens=30)),
        ({"completion_tokens_details": {"reasoning_tokens": -1}}, Usage(50, 0, 30)),
        # thoughts beside the answer, as the total shows; then within it
        (
            {"completion_tokens_details": {"reasoning_tokens": 20}, "total_tokens": 100},
            Usage(50, 0, 50, reasoning_tokens=20),
        ),
        (
            {"completion_tokens_details": {"reasoning_tokens": 20}, "total_tokens": 80},
            Usage(50, 0, 30, reasoning_tokens=20),
        ),
    ],
)
async def test_the_parts_of_usage(serve: Serve, more: dict[str, object], expected: Usage) -> None:
    engine = await serve(lambda request: events(request, {**STOP, **usage(50, 30, **more)}))
    assert (await engine.complete(HELLO, ignore)).usage == expected


async def test_no_usage_is_said_as_none(serve: Serve) -> None:
    engine = await serve(lambda request: events(request, delta(content="x"), STOP))
    assert (await engine.complete(HELLO, ignore)).usage is None


@pytest.mark.parametrize(("read", "written"), [(-10, -5), (-1, 30), (50, -1)])
async def test_usage_below_zero_is_not_known_and_not_free(serve: Serve, read: int, written: int) -> None:
    engine = await serve(lambda request: events(request, delta(content="x"), {**STOP, **usage(read, written)}))
    assert (await engine.complete(HELLO, ignore)).usage is None


async def test_reasoning_is_no_text_and_parts_are(serve: Serve) -> None:
    parts = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "yes"}]
    engine = await serve(lambda request: events(request, delta(reasoning_content="hm"), delta(content=parts), STOP))
    assert (await engine.complete(HELLO, ignore)).text == "yes"


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("stop", Finish.STOP),
        ("length", Finish.LENGTH),
        ("content_filter", Finish.REFUSAL),
        ("eos", Finish.STOP),
    ],
)
async def test_finish_reasons(serve: Serve, reason: str, finish: Finish) -> None:
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
    engine = await serve(lambda request: events(request, delta(content="x"), end))
    assert (await engine.complete(HELLO, ignore)).finish is finish


async def test_a_refusal_is_text_with_its_own_finish(serve: Serve) -> None:
    engine = await serve(lambda request: events(request, delta(refusal="I "), delta(refusal="won't."), STOP))
    reply = await engine.complete(HELLO, ignore)
    assert (reply.text, reply.finish) == ("I won't.", Finish.REFUSAL)


async def test_without_streaming(serve: Serve) -> None:
    bodies: list[Any] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        bodies.append(await request.json())
        message = {"role": "assistant", "content": "Hi", "tool_calls": None}
        answer = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], **usage(7, 1)}
        return web.json_response(answer)

    engine = await serve(handler, stream=False, tokens_field="max_completion_tokens")
    deltas: list[str] = []
    reply = await engine.complete(HELLO, deltas.append)
    assert (reply.text, reply.usage, deltas) == ("Hi", Usage(7, 0, 1), ["Hi"])
    assert bodies[0]["stream"] is False
    assert "stream_options" not in bodies[0]
    assert bodies[0]["max_completion_tokens"] == 64


async def test_an_endpoint_that_does_not_know_stream_options_is_remembered(serve: Serve) -> None:
    streams: list[bool] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        streams.append(body["stream"])
        if "stream_options" in body:
            return web.json_response({"error": {"message": "Unknown field: stream_options"}}, status=400)
        return web.json_response({"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]})

    engine = await serve(handler)
    assert (await engine.complete(HELLO, ignore)).text == "Hi"
    assert (await engine.complete(HELLO, ignore)).text == "Hi"
    assert streams == [True, False, False]


# ------------------------------------------------------------------------------------------------ tool calls

TOOLS = (Tool("files.read", "Read.", {"type": "object"}), Tool("files.write", "Write.", {"type": "object"}))
WITH_TOOLS = Request(messages=(Message("user", "go"),), output_tokens_max=64, tools=TOOLS, key="k2")
CALLED = {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}


async def called(serve: Serve, *chunks: object, end: object = CALLED) -> list[tuple[str, str, str]]:
    engine = await serve(lambda request: events(request, *chunks, end))
    reply = await engine.complete(WITH_TOOLS, ignore)
    assert reply.finish is Finish.CALLS
    return [(call.id, call.name, call.arguments) for call in reply.calls]


async def test_tool_calls_in_pieces_by_index(serve: Serve) -> None:
    assert await called(
        serve,
        piece(0, "a", name="files_read", arguments=""),
        piece(1, "b", name="files_write", arguments='{"p"'),
        piece(0, arguments='{"x":'),
        piece(1, arguments=": 2}"),
        piece(0, arguments=" 1}"),
    ) == [("a", "files.read", '{"x": 1}'), ("b", "files.write", '{"p": 2}')]


async def test_a_name_in_pieces(serve: Serve) -> None:
    calls = await called(serve, piece(0, "a", name="files_"), piece(0, name="read", arguments="{}"))
    assert calls == [("a", "files.read", "{}")]


@pytest.mark.parametrize(
    "pieces",
    [
        [
            piece(0, "a", name="files_read", arguments='{"x": 1}'),
            piece(0, "a", name="files_read", arguments='{"x": 1}'),
        ],
        [
            piece(0, "a", name="files_read", arguments='{"x"'),
            piece(0, "a", name="files_read", arguments='{"x": 1}'),
        ],
        [
            piece(0, "a", name="files_read", arguments='{"x"'),
            piece(0, arguments=": 1}"),
            piece(0, "a", name="files_read", arguments='{"x": 1}'),
        ],
        [piece(0, "a", name="files_read", arguments={"x": 1})],
    ],
    ids=["whole twice", "cumulative", "pieces, then whole", "as an object"],
)
async def test_servers_that_repeat_the_whole(serve: Serve, pieces: list[object]) -> None:
    ((own, name, arguments),) = await called(serve, *pieces)
    assert (own, name, json.loads(arguments)) == ("a", "files.read", {"x": 1})


async def test_missing_ids_are_made_and_stay_the_same(serve: Serve) -> None:
    chunks = [piece(0, name="files_read", arguments="{}"), piece(1, name="files_read", arguments="{}")]
    first, second = await called(serve, *chunks)
    assert first[0] != second[0]
    assert first[0].startswith("call_")
    assert [first, second] == await called(serve, *chunks)


async def test_missing_indexes_and_an_index_that_is_always_zero(serve: Serve) -> None:
    expected = [("a", "files.read", "{}"), ("b", "files.write", "{}")]
    parts = [("a", "files_read"), ("b", "files_write")]
    for index in (None, 0):
        chunks = [
            chunk
            for own, name in parts
            for chunk in (piece(index, own, name=name, arguments="{"), piece(index, arguments="}"))
        ]
        assert await called(serve, *chunks) == expected


async def test_two_calls_with_one_id_get_two(serve: Serve) -> None:
    first, second = await called(serve, piece(0, "a", name="files_read"), piece(1, "a", name="files_read"))
    assert first[0] == "a" != second[0]


async def test_malformed_arguments_and_unknown_tools_come_as_they_are(serve: Serve) -> None:
    calls = await called(serve, piece(0, "a", name="nonsense", arguments='{"a": '), end=STOP)
    assert calls == [("a", "nonsense", '{"a": ')]


# ---------------------------------------------------------------------------------------------- HTTP refuses


@pytest.mark.parametrize(
    ("status", "retryable", "spent"),
    [
        (307, False, Spent.NOTHING),
        (400, False, Spent.NOTHING),
        (402, False, Spent.NOTHING),
        (404, False, Spent.NOTHING),
        (408, True, Spent.NOTHING),
        (413, False, Spent.NOTHING),
        (422, False, Spent.NOTHING),
        (429, True, Spent.NOTHING),
        (500, True, Spent.UNKNOWN),
        (502, True, Spent.UNKNOWN),
        (503, True, Spent.NOTHING),
        (504, True, Spent.UNKNOWN),
        (529, True, Spent.NOTHING),
    ],
)
async def test_a_status_says_what_may_be_tried_again(serve: Serve, status: int, retryable: bool, spent: Spent) -> None:
    error = await fails(await serve(answer(status)))
    assert (error.retryable, error.spent, error.retry_after_s) == (retryable, spent, 0.0)
    assert f"{status} from http://127.0.0.1" in str(error)
    assert "said the server" in str(error) or status == 307


@pytest.mark.parametrize(
    ("status", "said", "blame"),
    [
        (400, "Unknown field: foo", Blame.REQUEST),
        (422, "bad field", Blame.REQUEST),
        (413, "too large", Blame.LENGTH),
        (400, "This model's maximum context length is 8192 tokens", Blame.LENGTH),
        (400, "prompt is too long: 210000 tokens > 200000 maximum", Blame.LENGTH),
        (400, "the request exceeds the available context size", Blame.LENGTH),
        (400, "Model Not Exist", Blame.ENGINE),
        (400, "Your credit balance is too low to access the API", Blame.ENGINE),
        (307, "elsewhere", Blame.ENGINE),
        (401, "wrong key", Blame.ENGINE),
        (403, "not for you", Blame.ENGINE),
        (404, "no such model", Blame.ENGINE),
        (429, "slow down", Blame.ENGINE),
        (500, "our fault", Blame.ENGINE),
    ],
)
async def test_a_refusal_says_what_it_is_of(serve: Serve, status: int, said: str, blame: Blame) -> None:
    assert (await fails(await serve(answer(status, {"error": {"message": said}})))).blame is blame


async def test_retry_after(serve: Serve) -> None:
    at = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    date = email.utils.format_datetime(at + datetime.timedelta(seconds=90), usegmt=True)
    sent = email.utils.format_datetime(at, usegmt=True)

    async def asked(**headers: str) -> float:
        engine = await serve(answer(429, **headers), now=at.timestamp() + 40)
        return (await fails(engine)).retry_after_s

    assert await asked(Retry_After="7") == 7.0
    assert await asked(Retry_After="1.5", retry_after_ms="250") == 0.25
    assert await asked(Retry_After=date, Date=sent) == 90.0
    assert await asked(Retry_After=sent, Date=date) == 0.0
    assert await asked(Retry_After="soon") == 0.0
    assert await asked(Retry_After="-5") == 0.0
    assert await asked(Retry_After="nan") == 0.0
    assert await asked(Retry_After="99999999") == 24 * 3600.0


async def test_no_credit_left_is_not_tried_again(serve: Serve) -> None:
    error = await fails(await serve(answer(429, {"error": {"message": "quota", "code": "insufficient_quota"}})))
    assert (error.retryable, error.spent) == (False, Spent.NOTHING)
    assert "credit" in error.hint


async def test_a_wrong_key_names_its_variable_and_never_the_key(serve: Serve) -> None:
    error = await fails(await serve(answer(401, {"error": {"message": f"Incorrect API key provided: {KEY}"}})))
    assert not error.retryable
    assert "$TEST_KEY" in error.hint
    assert "Incorrect API key provided: ***" in str(error)


@pytest.mark.parametrize("padding", range(190, 310, 7))
async def test_the_key_is_blotted_out_before_the_text_is_cut(serve: Serve, padding: int) -> None:
    error = await fails(await serve(answer(403, "x" * padding + KEY)))
    assert KEY[:8] not in str(error)


async def test_a_key_that_is_not_there_makes_no_call(serve: Serve) -> None:
    engine = await serve(answer(200), key_env="OTHER_KEY")
    error = await fails(engine)
    assert "OTHER_KEY" in str(error)
    assert (error.retryable, error.spent) == (False, Spent.NOTHING)


async def test_no_key_is_sent_where_none_is_configured(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        assert "Authorization" not in request.headers
        return await events(request, delta(content="x"), STOP)

    assert (await (await serve(handler, key_env="")).complete(HELLO, ignore)).text == "x"


async def test_a_redirect_is_not_followed(serve: Serve) -> None:
    error = await fails(await serve(answer(307, Location="http://elsewhere.invalid/v1")))
    assert "elsewhere.invalid" in str(error)


@pytest.mark.parametrize(
    "body",
    [{"detail": [{"msg": "bad field"}]}, {"message": "bad field"}, {"error": "bad field"}, "bad field"],
)
async def test_the_message_is_found_in_any_error_body(serve: Serve, body: object) -> None:
    assert str(await fails(await serve(answer(422, body)))).endswith(": bad field")


# ------------------------------------------------------------------------------------------ nonsense, silence


@pytest.mark.parametrize(
    ("content_type", "body", "text"),
    [
        ("text/html", "<html><body>Login</body></html>", "no event stream"),
        ("application/json", "{not json", "not the dialect"),
        ("application/json", "[]", "not the dialect"),
        ("application/json", "{}", "without choices"),
        ("text/event-stream", "data: {nope\n\n", "not the dialect"),
        ("text/event-stream", "data: [DONE]\n\n", "without choices"),
        ("text/event-stream", ": ping\n\n", "ended before"),
        ("text/event-stream", "", "ended before"),
        ("text/event-stream", 'data: {"choices": [{"delta": {"content": "x"}}]}\n\n', "ended before"),
        ("text/event-stream", 'data: {"choices": [{"delta": {}, "finish_reason": "error"}]}\n\n', "gave up"),
    ],
)
async def test_nonsense(serve: Serve, content_type: str, body: str, text: str) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(text=body, content_type=content_type)

    error = await fails(await serve(handler))
    assert lost(error)
    assert text in str(error)


async def test_a_stream_without_done_or_blank_line_is_whole_once_it_has_finished(serve: Serve) -> None:
    body = f": ping\r\nevent: x\r\ndata: {json.dumps(delta(content='x'))}\r\n\r\ndata: {json.dumps(STOP)}"

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(text=body, content_type="text/event-stream")

    assert (await (await serve(handler)).complete(HELLO, ignore)).text == "x"


@pytest.mark.parametrize(("code", "retryable"), [(500, True), (429, True), ("400", False), ("overloaded", True)])
async def test_an_error_within_a_stream(serve: Serve, code: object, retryable: bool) -> None:
    broken = {"error": {"message": f"upstream {KEY} failed", "code": code}}
    error = await fails(await serve(lambda request: events(request, delta(content="x"), broken)))
    assert (error.retryable, error.spent) == (retryable, Spent.UNKNOWN)
    assert "upstream *** failed" in str(error)


async def test_half_a_stream(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = await events(request, delta(content="half"), done=False)
        assert request.transport is not None
        request.transport.abort()
        return response

    deltas: list[str] = []
    engine = await serve(handler)
    with pytest.raises(EngineError) as caught:
        await engine.complete(HELLO, deltas.append)
    assert lost(caught.value)
    assert str(caught.value).endswith("broke off: its answer is not whole"), "no word of a status that nobody sent"


async def test_a_connection_cut_behind_the_finish_spoils_nothing(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = await events(request, delta(content="x"), {**STOP, **usage(3, 1)}, done=False)
        assert request.transport is not None
        request.transport.close()
        return response

    reply = await (await serve(handler)).complete(HELLO, ignore)
    assert (reply.text, reply.usage) == ("x", Usage(3, 0, 1))


async def test_silence_from_the_start(serve: Serve) -> None:
    error = await fails(await serve(hang, first_byte_s=0.005, idle_timeout_s=0.001))
    assert lost(error)
    assert "sent nothing for 0.005 s" in str(error)


@pytest.mark.parametrize("begun", [delta(role="assistant", content=""), {"choices": []}])
async def test_a_prompt_that_is_read_for_long_is_no_silence_within_a_stream(serve: Serve, begun: object) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        await events(request, begun, done=False)
        return await hang(request)

    error = await fails(await serve(handler, first_byte_s=0.006, idle_timeout_s=0.001))
    assert lost(error)
    assert "sent nothing for 0.006 s" in str(error)


@pytest.mark.parametrize(
    "begun", [delta(content="x"), delta(reasoning_content="hm"), piece(0, "a", name="f", arguments="{")]
)
async def test_silence_in_the_middle(serve: Serve, begun: object) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        await events(request, begun, done=False)
        return await hang(request)

    error = await fails(await serve(handler, idle_timeout_s=0.005))
    assert lost(error)
    assert "sent nothing for 0.005 s" in str(error)


async def test_a_slow_drip_meets_the_total_timeout(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = await events(request, done=False)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(b": still here\n\n")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(hang(request), 0.001)
        return response

    error = await fails(await serve(handler, timeout_s=0.01))
    assert lost(error)
    assert "did not finish within 0.01 s" in str(error)


async def test_without_streaming_the_idle_timeout_does_not_count(serve: Serve) -> None:
    error = await fails(await serve(hang, stream=False, idle_timeout_s=0.001, timeout_s=0.01))
    assert "did not finish" in str(error)


async def test_a_huge_line_and_a_huge_body_are_cut_off(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = await events(request, done=False)
        await response.write(b"data: " + b"x" * (stream.LINE_BYTES_MAX + 1))
        return await hang(request)

    error = await fails(await serve(handler))
    assert lost(error)
    assert "a line of more than" in str(error)

    monkeypatch.setattr("mains.engines.endpoint.BODY_BYTES_MAX", 1_000)
    big = answer(200, {"choices": [{"message": {"content": "x" * 2_000}}]})
    error = await fails(await serve(big))
    assert lost(error)
    assert "a body of more than" in str(error)


async def test_nobody_is_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with contextlib.AsyncExitStack() as stack:
        error = await fails(openai_at(stack, f"http://127.0.0.1:{port}/v1"))
    assert (error.retryable, error.spent) == (True, Spent.NOTHING)
    assert "no connection to" in str(error)


async def test_a_server_that_speaks_no_http_or_hangs_up() -> None:
    for said in (b"220 smtp ready\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Le", b""):

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, said: bytes = said) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(said)
            await writer.drain()
            writer.close()

        async with contextlib.AsyncExitStack() as stack:
            url = await stack.enter_async_context(raw_server(connected))
            assert lost(await fails(openai_at(stack, url)))


async def test_cancelling_closes_the_connection() -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: ")
        asked.set()
        while await reader.read(1_024):
            pass
        writer.close()
        gone.set()

    async with contextlib.AsyncExitStack() as stack:
        engine = openai_at(stack, await stack.enter_async_context(raw_server(connected)))
        call = asyncio.create_task(engine.complete(HELLO, ignore))
        await asked.wait()
        assert engine.state().busy == 1
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(gone.wait(), 2)
        assert engine.state().busy == 0


async def test_a_closed_engine_can_start_again(serve: Serve) -> None:
    engine = await serve(lambda request: events(request, delta(content="x"), STOP))
    await engine.complete(HELLO, ignore)
    await engine.close()
    await engine.close()
    assert (await engine.complete(HELLO, ignore)).text == "x"


# -------------------------------------------------------------------------------------------- what is sent


def sent(request: Request) -> dict[str, Any]:
    table = ToolTable.of(request.tools)
    body = body_of(request, table, model="m", tokens_field="max_tokens", stream=True)
    return json.loads(json.dumps(body, default=lambda raw: json.loads(bytes(raw))))  # type: ignore[no-any-return]


def test_calls_results_and_sampling_are_mapped() -> None:
    calls = (
        ToolCall("a", "files.read", '{"x": 1}'),
        ToolCall("b", "gone.tool", "oops"),
        ToolCall("c", "f", " "),
    )
    request = Request(
        messages=(Message("assistant", "", calls), Message("tool", "text", call_id="a", name="files.read")),
        output_tokens_max=5,
        tools=TOOLS,
        sampling=Sampling(temperature=0.0, seed=7, stop=("END",)),
    )
    body = sent(request)
    assistant, result = body["messages"]
    assert assistant["content"] is None
    assert [(call["id"], call["function"]["name"]) for call in assistant["tool_calls"]] == [
        ("a", "files_read"),
        ("b", "gone_tool"),
        ("c", "f"),
    ]
    arguments = [call["function"]["arguments"] for call in assistant["tool_calls"]]
    assert arguments == ['{"x": 1}', '{"malformed":"oops"}', "{}"]
    assert result == {"role": "tool", "tool_call_id": "a", "content": "text"}
    assert (body["temperature"], body["seed"], body["stop"]) == (0.0, 7, ["END"])
    assert [tool["function"]["name"] for tool in body["tools"]] == ["files_read", "files_write"]


def test_output_becomes_a_response_format() -> None:
    closed = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    request = Request(messages=(), output_tokens_max=5, output=closed)
    assert sent(request)["response_format"]["json_schema"] == {"name": "output", "schema": closed}
    assert is_strict({**closed, "additionalProperties": False})
    assert not is_strict({**closed, "additionalProperties": False, "minProperties": 1})
    assert not is_strict({"type": "array", "items": closed})


@pytest.mark.parametrize(("json_schema", "tries"), [(False, [False]), (True, [True, False])])
async def test_a_schema_that_the_endpoint_does_not_take_is_left_out(
    serve: Serve, json_schema: bool, tries: list[bool]
) -> None:
    seen: list[bool] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.append("response_format" in await request.json())
        if seen[-1]:
            return await answer(400, {"error": {"message": "response_format is not supported"}})(request)
        return await events(request, delta(content="x"), STOP)

    request = Request(messages=(), output_tokens_max=5, output={"type": "string"})
    assert (await (await serve(handler, json_schema=json_schema)).complete(request, ignore)).text == "x"
    assert seen == tries


def test_tool_names_go_there_and_back() -> None:
    names = ["files.read", "files_read", "files-read", "ä.b", "x" * 70, "x" * 71, ""]
    wired = wire_names(names)
    assert len(set(wired.values())) == len(names)
    assert all(0 < len(name) <= 64 and re.fullmatch(r"[\w-]+", name, re.A) for name in wired.values())
    assert wired == wire_names(reversed(names))
    assert wired["files_read"] == "files_read" != wired["files.read"]
    table = ToolTable.of(tuple(Tool(name, "", {}) for name in names))
    assert [table.back[table.wire_name(name)] for name in names] == names


def test_arguments_that_are_no_object_travel_as_one() -> None:
    assert object_text('{"a": 1}') == '{"a": 1}'
    assert json.loads(object_text("[1]")) == {"malformed": "[1]"}


# --------------------------------------------------------------------------------------------- the parsers


def test_events_come_out_the_same_however_the_bytes_are_cut() -> None:
    data = b'data: {"a":1}\r\n\r\n: c\nid: 3\ndata: two\ndata: lines\n\ndata:[DONE]\n\n'
    for size in range(1, len(data)):
        lines = EventLines()
        found = [event for at in range(0, len(data), size) for event in lines.feed(data[at : at + size])]
        assert found == [b'{"a":1}', b"two\nlines", b"[DONE]"]
        assert lines.end() == []


def test_every_part_of_a_stream_is_bounded() -> None:
    with pytest.raises(BadAnswerError, match="a line"):
        EventLines(line_bytes_max=10).feed(b"data: 1234567890")
    with pytest.raises(BadAnswerError, match="an event"):
        EventLines(line_bytes_max=10).feed(b"data: 12\n" * 9)
    with pytest.raises(BadAnswerError, match="longer"):
        EventLines(body_bytes_max=10).feed(b": 123456789012")
    assembly = Assembly({}, "")
    calls = [{"index": number, "function": {"name": "f"}} for number in range(stream.CALLS_MAX + 1)]
    with pytest.raises(BadAnswerError, match="tool calls"):
        assembly.add(json.dumps({"choices": [{"delta": {"tool_calls": calls}}]}).encode())


def test_tables_of_tools_are_remembered_and_bounded() -> None:
    tables = ToolTables()
    table = tables.of(TOOLS)
    assert tables.of(TOOLS) is table
    assert tables.of(tuple(iter(TOOLS))) is table
    for number in range(300):
        tables.of((Tool(f"t{number}", "", {}),))
    assert len(tables._tables) <= 256
