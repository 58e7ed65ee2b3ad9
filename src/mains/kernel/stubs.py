"""What stands in a frame for pages that have left it: stubs, summaries, extracts; and how a summary is asked for. Pure.

Each says what it stands for and under which handle (`mem:N`, N is the position in the context) the whole is found. A
stub of a call's result is a result still: a call is never without one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mains.kernel.context import tokens_of
from mains.kernel.ports import Message, ToolCall
from mains.program import BYTES_PER_TOKEN

STUB_TOKENS = 80  # of a stub that stands for what the model has seen (with 40 to 120 the traces cost within 4 %)
ASK_TOKENS = 200  # at most, of what asks for a summary
_AROUND = 12  # tokens of a stub besides its head, its beginning and its end
_LINE = 160  # characters of one entry in an extract, and of a call's arguments in a stub
_AGAIN = re.compile(r"\[mem:(\d+), ")
_ROLES = {"system": "program", "user": "message", "assistant": "reply", "tool": "result"}


def kind_of(position: int, message: Message) -> str:
    """What a page of a context is: program, input, message, reply, result, or the kind that it has by itself."""
    if position < 0:
        return "program" if message.role == "system" else "input"
    return message.kind or _ROLES[message.role]


def handle(first: int, until: int = 0) -> str:
    """The handle of a position, or of the positions from `first` to below `until`."""
    return f"mem:{first}" if until <= first + 1 else f"mem:{first} to mem:{until - 1}"


def stub(message: Message, position: int, call: ToolCall | None, tokens: int) -> Message:
    """A page in place of `message`: what it was, how large, and its beginning and end, in about so many tokens."""
    text = message.text
    what = f"result of {message.name}" if message.role == "tool" else message.kind or "message"
    asked = f" {_short(call.arguments)}" if call and call.arguments not in ("", "{}") else ""
    size = f"{len(text):,} characters, {text.count(chr(10)) + 1:,} lines"
    named = message.name if message.kind == "segment" else handle(position)
    where = f"{size}. Its beginning and end stand here; the whole is in memory as {named}"
    head = f"[{what}{asked}: {where}]"
    if len(head.encode()) > tokens * BYTES_PER_TOKEN // 2:
        head = f"[{what}: {where}]"
    room = max(0, (tokens - _AROUND) * BYTES_PER_TOKEN - len(head.encode()))
    first, last = _ends(text, room * len(text) // max(1, len(text.encode())))
    return Message(
        role=message.role,
        text=f"{head}\n{first}\n[...]\n{last}",
        call_id=message.call_id,
        name=message.name,
        kind="stub",
    )


def _ends(text: str, room: int) -> tuple[str, str]:
    """The beginning and the end of a text, whole lines where there are any: two thirds of the room and one third."""
    first, last = text[: room * 2 // 3], text[len(text) - room // 3 :] if room >= 3 else ""
    if "\n" in first[len(first) // 2 :]:
        first = first[: first.rindex("\n")]
    if "\n" in last[: len(last) // 2]:
        last = last[last.index("\n") + 1 :]
    return first, last


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LINE else f"{line[: _LINE - 3]}..."


def in_part(name: str, text: str, tokens: int) -> str:
    """What is shown of an input that is too large: its size, its handle, its beginning and its end."""
    size = f"{len(text):,} characters, {text.count(chr(10)) + 1:,} lines"
    head = f"[{size}. The beginning and the end stand here; the whole is in memory as input:{name}: read, recall]"
    room = max(0, tokens * BYTES_PER_TOKEN - len(head))
    return "\n".join((head, "\n[...]\n".join(_ends(text, room * len(text) // max(1, len(text.encode()))))))


def quoted(text: str) -> str:
    """A text that stands among our own lines, each of its lines marked: a line that begins at the margin is ours."""
    return "".join(f"> {line}" for line in text.splitlines(keepends=True))


def recalled(message: Message, position: int, tokens: int) -> Message:
    """What has left the frame and is named: shown again at the end, quoted, as far as so many tokens go."""
    room = tokens * BYTES_PER_TOKEN
    shown, size = quoted(message.text), len(message.text)
    while size and (bytes_ := len(shown.encode())) > room:
        size = size * room // bytes_
        shown = "\n[...]\n".join(map(quoted, _ends(message.text, size)))
    head = f"[{handle(position)}, {_what(message)}, again]"
    return Message(role="user", text=f"{head}\n{shown}", kind="recall")


def position_again(message: Message) -> int:
    """The position that a page made by `recalled` shows again; -1: it is none."""
    found = _AGAIN.match(message.text) if message.kind == "recall" else None
    return int(found[1]) if found else -1


def _what(message: Message) -> str:
    return f"a result of {message.name}" if message.role == "tool" else f"a {_ROLES[message.role]}"


def ask(first: int, until: int, tokens: int) -> Message:
    """What asks a model, behind all that is to be summarised, for the summary."""
    words = max(40, tokens // 2)
    return Message(
        role="user",
        text=(
            f"Everything above ({handle(first, until)}) is about to leave your context. Write for yourself what you "
            f"will need of it, in at most {words} words: the task and how far it is, what was decided and why, what "
            "was asked of you, every name, number, path and date that matters, what failed, and what is still open. "
            "Plain text. Call no tool, and answer nothing else now."
        ),
    )


def summary(text: str, first: int, until: int) -> Message:
    """The page that stands for old turns."""
    head = f"[Summary of {handle(first, until)}, which are no longer shown. Each is in memory word for word.]"
    return Message(role="user", text=f"{head}\n{text.strip()}", kind="summary")


def extract(entries: Sequence[tuple[int, Message]], tokens: int) -> str:
    """What stands for old turns when no model can say it, in about so many tokens: the text of an earlier summary among
    them, and the first line of each other entry. The text gets half of the room, or what the lines leave of it."""
    room = tokens * BYTES_PER_TOKEN
    lines = [f"- {handle(at)} {_said(at, message)}" for at, message in entries if message.kind != "summary"]
    earlier = "\n".join(message.text.partition("\n")[2] for _, message in entries if message.kind == "summary")
    most = max(room // 2, room - _size(lines))
    if _size([earlier]) > most:
        earlier = "\n[...]\n".join(_ends(earlier, max(0, most - _AROUND) * len(earlier) // _size([earlier])))
    return "\n".join(filter(None, (earlier, _first_and_last(lines, room - _size([earlier])))))


def _size(lines: Sequence[str]) -> int:
    return sum(len(line.encode()) + 1 for line in lines)


def _first_and_last(lines: Sequence[str], room: int) -> str:
    """Of these lines what so many bytes hold: the beginning says what it is about, the end where it stands."""
    left, size = list(lines), _size(lines)
    while len(left) > 2 and size > room:
        size -= _size([left.pop(len(left) // 2)])
    half = (len(left) + 1) // 2
    middle = [f"- ({len(lines) - len(left)} more)"] if len(left) < len(lines) else []
    return "\n".join([*left[:half], *middle, *left[half:]])


def _said(position: int, message: Message) -> str:
    what = kind_of(position, message)
    if message.calls and not message.text.strip():
        return f"{what}: called {_short(', '.join(f'{call.name} {call.arguments}' for call in message.calls))}"
    return f"{what}{f' of {message.name}' if message.role == 'tool' else ''}: {_short(message.text)}"


def shortened(message: Message, tokens: int) -> Message:
    """A summary that is not larger than so many tokens, whatever the model wrote."""
    if tokens_of(message) <= tokens:
        return message
    data = message.text.encode()[: max(0, tokens - 16) * BYTES_PER_TOKEN]
    return Message(role=message.role, text=data.decode(errors="ignore"), kind=message.kind)
