"""What a device answers, as text."""

from __future__ import annotations

from typing import Any

import mcp_types
import pytest

from mains.bus.answer import answer_of
from mains.kernel.ports import Done, Failed


def result(*content: Any, **more: Any) -> mcp_types.CallToolResult:
    """A result of these parts."""
    return mcp_types.CallToolResult(content=list(content), **more)


def text(words: str) -> mcp_types.TextContent:
    """A part that is text."""
    return mcp_types.TextContent(type="text", text=words)


def test_texts_stand_as_they_are() -> None:
    assert answer_of(result(text("a\n"), text("b")), 1000) == Done("a\n\nb")
    assert answer_of(result(text("no"), is_error=True), 1000) == Failed("no")
    assert answer_of(result(is_error=True), 1000) == Failed("the device says that it failed")
    assert answer_of(result(), 1000) == Done("")


def test_a_structured_result_without_text_is_json() -> None:
    assert answer_of(result(structured_content={"n": 1}), 1000) == Done('{"n":1}')
    assert answer_of(result(text("one"), structured_content={"n": 1}), 1000) == Done("one")


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (mcp_types.AudioContent(type="audio", data="aGVsbG8=", mime_type="audio/wav"), "[audio audio/wav, 5 bytes"),
        (
            mcp_types.EmbeddedResource(
                type="resource", resource=mcp_types.TextResourceContents(uri="file:///a", text="inside")
            ),
            "[resource <file:///a>]\ninside",
        ),
        (
            mcp_types.EmbeddedResource(
                type="resource", resource=mcp_types.BlobResourceContents(uri="file:///a", blob="aGVsbG8=")
            ),
            "5 bytes: not shown]",
        ),
        (mcp_types.ImageContent(type="image", data="", mime_type="x\n\x1b]0;y" + "z" * 500), "[image x??]0;yzz"),
    ],
)
def test_other_parts_are_described(part: Any, said: str) -> None:
    answer = answer_of(result(part), 10_000)
    assert said in answer.text
    assert "\x1b" not in answer.text


def test_what_is_too_long_is_cut_and_says_so() -> None:
    answer = answer_of(result(text("\u00e9" * 100), text("more")), 115)
    assert answer.text == "\u00e9" * 25 + "\n[cut: 205 bytes in all]"  # no half of a character
    assert len(answer.text.encode()) <= 115  # so that nobody cuts it again
    assert answer_of(result(*(text("x") for _ in range(1_500))), 10_000).text.endswith(
        "[500 further parts were left out]"
    )
