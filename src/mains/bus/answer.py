"""What a device answered, as text for a model: bounded, and without what a model cannot read.

Text stands as it is. An image, a sound or other bytes are named with their kind and size and left out; a link is
named with its address. A result that has no text but a structured part is that part, as JSON. Of a text that is longer
than `bytes_max` the beginning is kept, and its whole length is said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from mains.kernel.ports import Done, Failed

if TYPE_CHECKING:
    from mcp_types import CallToolResult

_NAME_CHARS = 200  # of what a device calls a thing, in our own words about it
_BLOCKS_MAX = 1_000
_NOTE_BYTES = 64  # for the note of what is missing


def answer_of(result: CallToolResult, bytes_max: int) -> Done | Failed:
    """The answer to a call: Failed where the device says that the tool failed."""
    text = _bounded(_parts(result), bytes_max)
    return Failed(text or "the device says that it failed") if result.is_error else Done(text)


def _parts(result: CallToolResult) -> list[str]:
    blocks = [describe_block(block) for block in result.content[:_BLOCKS_MAX]]
    if more := len(result.content) - _BLOCKS_MAX:
        blocks += [f"[{more:,} further parts were left out]"] if more > 0 else []
    has_text = any(getattr(block, "type", "") == "text" for block in result.content)
    if result.structured_content is not None and not has_text:
        blocks.append(msgspec.json.encode(result.structured_content).decode(errors="replace"))
    return blocks


def describe_block(block: Any) -> str:
    """One part of a result, in words: `block` is a content block of the SDK's."""
    match getattr(block, "type", ""):
        case "text":
            return str(block.text)
        case "image" | "audio" as kind:
            return f"[{kind} {_short(block.mime_type)}, {_bytes_of(block.data):,} bytes: not shown]"
        case "resource_link":
            kind = f" ({_short(block.mime_type)})" if block.mime_type else ""
            return f"[link {_short(block.name)} <{_short(block.uri)}>{kind}]"
        case "resource":
            inner = block.resource
            text = getattr(inner, "text", None)
            if text is not None:
                return f"[resource <{_short(inner.uri)}>]\n{text}"
            size = _bytes_of(getattr(inner, "blob", ""))
            return f"[resource <{_short(inner.uri)}> {_short(inner.mime_type or '')}, {size:,} bytes: not shown]"
        case other:
            return f"[a part of the kind {_short(other)}: not shown]"


def _bounded(parts: list[str], bytes_max: int) -> str:
    """The parts, a line each; with the note of what is missing at most `bytes_max` bytes."""
    whole = "\n".join(parts).encode("utf-8", "replace")
    if len(whole) <= bytes_max:
        return whole.decode()
    kept = whole[: max(0, bytes_max - _NOTE_BYTES)].decode(errors="ignore")
    return f"{kept}\n[cut: {len(whole):,} bytes in all]"


def _short(text: object) -> str:
    """A name that a device gave, as a part of our own line."""
    plain = "".join(char if char.isprintable() else "?" for char in str(text))
    return plain if len(plain) <= _NAME_CHARS else plain[:_NAME_CHARS] + "..."


def _bytes_of(base64: str) -> int:
    """How many bytes a text in base64 stands for."""
    return max(0, len(base64) * 3 // 4 - base64[-2:].count("="))
