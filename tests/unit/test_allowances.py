"""What an endpoint says of its limits, as it comes over HTTP."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Mapping

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.endpoint_box import HELLO, answer, engine_at, fails, ignore, started

from mains.engines.allowances import limits_of
from mains.engines.anthropic import AnthropicDialect
from mains.engines.faults import Party, refused
from mains.engines.openai import OpenAIDialect
from mains.errors import Allowance, Blame, RateLimits

NOW = 1_763_900_000.0

OPENAI = {
    "x-ratelimit-limit-requests": "5000",
    "x-ratelimit-remaining-requests": "4999",
    "x-ratelimit-reset-requests": "12ms",
    "x-ratelimit-limit-tokens": "160000",
    "x-ratelimit-remaining-tokens": "159976",
    "x-ratelimit-reset-tokens": "6m0s",
}
ANTHROPIC = {
    "Date": "Wed, 15 Jan 2025 14:23:00 GMT",
    "anthropic-ratelimit-requests-limit": "4000",
    "anthropic-ratelimit-requests-remaining": "3201",
    "anthropic-ratelimit-requests-reset": "2025-01-15T14:23:12Z",
    "anthropic-ratelimit-input-tokens-limit": "400000",
    "anthropic-ratelimit-input-tokens-remaining": "312000",
    "anthropic-ratelimit-input-tokens-reset": "2025-01-15T14:23:15Z",
    "anthropic-ratelimit-tokens-limit": "480000",
    "anthropic-ratelimit-tokens-remaining": "312000",
    "anthropic-ratelimit-tokens-reset": "2025-01-15T14:23:15Z",
}


def test_openai() -> None:
    assert limits_of(OPENAI, NOW) == RateLimits(Allowance(5_000, 4_999, 12), Allowance(160_000, 159_976, 360_000))


@pytest.mark.parametrize("reset", ["1763900030", "1763900030.0", "1763900030000", "2025-11-23T12:13:50Z", "30", "30s"])
def test_a_reset_that_is_a_time_is_no_span_of_fifty_years(reset: str) -> None:
    told = {**OPENAI, "x-ratelimit-reset-requests": reset, "x-ratelimit-remaining-requests": "0"}
    limits = limits_of(told, NOW)
    assert limits is not None
    assert limits.requests == Allowance(5_000, 0, 30_000)
    late = limits_of({**told, "Date": "Sun, 23 Nov 2025 12:13:40 GMT"}, NOW + 86_400)
    assert late is not None
    assert late.requests == Allowance(5_000, 0, 30_000 if reset.startswith("30") else 10_000)


def test_anthropic_counts_from_the_answer_s_own_date() -> None:
    said = limits_of(ANTHROPIC, NOW)
    assert said == RateLimits(Allowance(4_000, 3_201, 12_000), None, Allowance(400_000, 312_000, 15_000), None)
    whole = {name: value for name, value in ANTHROPIC.items() if "input" not in name and name != "Date"}
    said = limits_of(whole, 1_736_950_990.0)  # 14:23:10
    assert said == RateLimits(Allowance(4_000, 3_201, 2_000), Allowance(480_000, 312_000, 5_000))


@pytest.mark.parametrize(
    ("headers", "requests"),
    [
        (
            {"RateLimit": '"default";r=50;t=30', "RateLimit-Policy": '"default";q=100;w=60'},
            Allowance(100, 50, 30_000, False),
        ),
        (
            {"RateLimit": '"a";r=5;t=9, "b;, c";r=3;t=7', "RateLimit-Policy": '"a";q=10;w=60,"b;, c";q=20;w=1'},
            Allowance(20, 3, 7_000, False),
        ),
        (
            {
                "RateLimit": '"bytes";r=1;t=9, "calls";r=7;t=8',
                "RateLimit-Policy": '"bytes";q=9;qu="content-bytes";w=60, "calls";q=10;qu="requests";w=60',
            },
            Allowance(10, 7, 8_000, False),
        ),
        (
            {"RateLimit": "default;r=0", "RateLimit-Policy": "default;q=10;w=60;pk=:c2Fz:"},
            Allowance(10, 0, 60_000, False),
        ),
        (
            {"RateLimit-Limit": "100, 100;w=60", "RateLimit-Remaining": "2", "RateLimit-Reset": "50"},
            Allowance(100, 2, 50_000, False),
        ),
        (
            {
                "x-ratelimit-limit-requests": "14400",
                "x-ratelimit-remaining-requests": "14370",
                "x-ratelimit-reset-requests": "2m59.56s",
            },
            Allowance(14_400, 14_370, 179_560),
        ),
        (
            {
                "x-ratelimit-limit-requests": "10",
                "x-ratelimit-remaining-requests": "12",
                "x-ratelimit-reset-requests": "3",
            },
            Allowance(10, 10, 3_000),
        ),
    ],
)
def test_other_forms(headers: Mapping[str, str], requests: Allowance) -> None:
    said = limits_of(headers, NOW)
    assert said is not None
    assert said.requests == requests


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-ratelimit-limit-tokens": "-1", "x-ratelimit-remaining-tokens": "-1", "x-ratelimit-reset-tokens": "0"},
        {"x-ratelimit-limit-tokens": "0", "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1s"},
        {"x-ratelimit-limit-requests": "10", "x-ratelimit-remaining-requests": "0"},
        {
            "x-ratelimit-limit-requests": "10",
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": "soon",
        },
        {
            "x-ratelimit-limit-requests": "10",
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": "inf",
        },
        {
            "anthropic-ratelimit-requests-limit": "1",
            "anthropic-ratelimit-requests-remaining": "1",
            "anthropic-ratelimit-requests-reset": "2025-01-15T14:23:12",
        },
        {"RateLimit": '"default";t=30', "RateLimit-Policy": '"default";q=100'},
    ],
)
def test_what_makes_no_sense_is_not_there(headers: Mapping[str, str]) -> None:
    assert limits_of(headers, NOW) is None


@given(st.dictionaries(st.sampled_from([*OPENAI, *ANTHROPIC, "RateLimit", "RateLimit-Policy", "RateLimit-Limit",
                                        "RateLimit-Remaining", "RateLimit-Reset"]), st.text(max_size=60)))  # fmt: skip
def test_no_header_breaks_a_call(headers: dict[str, str]) -> None:
    said = limits_of(headers, NOW)
    for allowance in said or ():
        assert allowance is None or (
            0 <= allowance.remaining <= allowance.limit and 0 <= allowance.reset_ms <= 86_400_000
        )


def test_a_hostile_header_costs_no_time() -> None:
    for text in ('"' * 100_000, ";a=" * 100_000, '"a";' * 100_000, "1m" * 100_000, '"\\' * 100_000):
        for name in ("RateLimit", "RateLimit-Policy", "x-ratelimit-reset-requests"):
            headers = {name: text, "x-ratelimit-limit-requests": "1", "x-ratelimit-remaining-requests": "1"}
            began_s = time.process_time()
            limits_of(headers, NOW)
            assert time.process_time() - began_s < 2, (name, text[:4])


# ------------------------------------------------------------------------------------------------- over HTTP


@pytest.fixture
async def stack() -> AsyncIterator[contextlib.AsyncExitStack]:
    async with contextlib.AsyncExitStack() as held:
        yield held


async def test_a_reply_carries_what_was_said(stack: contextlib.AsyncExitStack) -> None:
    async def serve(request: web.Request) -> web.Response:
        said = {"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 3, "completion_tokens": 1}}  # fmt: skip
        return web.json_response(said, headers=OPENAI)

    url = await started(stack, serve, "/chat/completions")
    engine = engine_at(stack, url, OpenAIDialect(), kind="openai", rpm=60, tpm=9_000, cache_tokens=200_000)
    reply = await engine.complete(HELLO, ignore)
    assert (reply.text, reply.limits) == ("hi", limits_of(OPENAI, NOW))
    assert (engine.rpm, engine.tpm, engine.cache_tokens) == (60, 9_000, 200_000)


async def test_an_anthropic_refusal_carries_it_too(stack: contextlib.AsyncExitStack) -> None:
    refused = answer(429, **{name.replace("-", "_"): value for name, value in ANTHROPIC.items()}, Retry_After="7")
    url = await started(stack, refused, "/messages")
    error = await fails(engine_at(stack, url, AnthropicDialect(), kind="anthropic", now=NOW))
    assert error.throttled
    assert error.retry_after_s == 7
    assert error.limits is not None
    assert error.limits.input_tokens == Allowance(400_000, 312_000, 15_000)


@pytest.mark.parametrize(
    ("status", "headers", "throttled"),
    [(429, {}, True), (529, {}, True), (503, {"Retry_After": "2"}, False), (503, {}, False), (500, {}, False),
     (400, {}, False), (401, {}, False)],
)  # fmt: skip
async def test_who_has_too_much_to_do_and_who_is_down(
    stack: contextlib.AsyncExitStack, status: int, headers: dict[str, str], throttled: bool
) -> None:
    url = await started(stack, answer(status, **headers), "/chat/completions")
    error = await fails(engine_at(stack, url, OpenAIDialect(), kind="openai"))
    assert error.throttled == throttled


async def test_an_account_without_credit_is_not_too_busy(stack: contextlib.AsyncExitStack) -> None:
    empty = answer(429, {"error": {"code": "insufficient_quota", "message": "no credit"}})
    url = await started(stack, empty, "/chat/completions")
    error = await fails(engine_at(stack, url, OpenAIDialect(), kind="openai"))
    assert (error.throttled, error.retryable, error.limits) == (False, False, None)


@pytest.mark.parametrize(
    ("status", "code", "url", "retryable"),
    [
        (429, "insufficient_quota", "https://dashscope-intl.aliyuncs.com/compatible-mode/v1", True),  # tokens a minute
        (429, "limit_requests", "https://dashscope.aliyuncs.com/compatible-mode/v1", True),
        (429, "insufficient_quota", "https://api.openai.com/v1", False),
        (429, "insufficient_quota", "https://aliyuncs.com.example.org/v1", False),
        (429, "PrepaidBillOverdue", "https://dashscope.aliyuncs.com/compatible-mode/v1", False),
        (403, "AllocationQuota.FreeTierOnly", "https://dashscope.aliyuncs.com/compatible-mode/v1", False),
        (400, "Arrearage", "https://dashscope.aliyuncs.com/compatible-mode/v1", False),
    ],
)
def test_dashscope_calls_its_tokens_a_minute_a_quota(status: int, code: str, url: str, retryable: bool) -> None:
    body = f'{{"error": {{"message": "You exceeded your current quota", "code": "{code}"}}}}'.encode()
    error = refused(Party("qwen", url, "qwen-plus", "KEY"), status, {}, body, NOW)
    assert (error.retryable, error.throttled, error.blame) == (retryable, retryable, Blame.ENGINE)
    assert ("credit" in error.hint) is not retryable
