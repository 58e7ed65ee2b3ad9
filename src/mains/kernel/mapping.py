"""Mapping: inputs too large for a frame are shown in part, and read from memory by range and by search. Pure."""

from __future__ import annotations

import msgspec

from mains.kernel import stubs
from mains.kernel.context import opening, tokens_of
from mains.kernel.ports import Message
from mains.program import Bound, FileText, Program


class Opened(msgspec.Struct, frozen=True):
    """The opening of a context, its tokens, and the names of the inputs of which it shows only a part."""

    messages: tuple[Message, ...]
    tokens: int
    mapped: frozenset[str] = frozenset()


def opened(
    program: Program, inputs: tuple[Bound, ...], room_tokens: int, view_tokens: int, *, conversation: bool
) -> Opened:
    """The opening of a program with its inputs. While it has more than `room_tokens`, the largest of the files and
    texts that are not pinned is shown with its beginning and its end, in `view_tokens`."""
    mapped: set[str] = set()
    shown = inputs
    while True:
        messages = opening(program, shown, conversation)
        tokens = sum(map(tokens_of, messages))
        left = [bound for bound in shown if bound.name not in mapped and _may_be_mapped(program, bound)]
        largest = max(left, key=lambda bound: len(_text(bound)), default=None)
        if tokens <= room_tokens or largest is None or len(_text(largest)) <= view_tokens:
            return Opened(messages, tokens, frozenset(mapped))
        mapped.add(largest.name)
        shown = tuple(_in_part(bound, view_tokens) if bound is largest else bound for bound in shown)


def _may_be_mapped(program: Program, bound: Bound) -> bool:
    return bound.type in ("file", "text") and bound.name not in program.pin


def _text(bound: Bound) -> str:
    return bound.files[0].text if bound.files else str(bound.value)


def _in_part(bound: Bound, tokens: int) -> Bound:
    text = stubs.in_part(bound.name, _text(bound), tokens)
    if bound.files:
        return Bound(bound.name, bound.type, files=(FileText(bound.files[0].name, text),))
    return Bound(bound.name, bound.type, text)
