"""Context: what a process has in mind, as messages; and the frame, which is what the model sees. Pure.

A context begins with its opening (the program's prose as the system message, then the inputs) and grows by replies,
results and messages. The opening is never changed or left out (invariant 8).
"""

from __future__ import annotations

import msgspec

from mains.errors import UsageError
from mains.kernel.event import AnyEvent, Asked, Joined, Replied, Returned, Spawned
from mains.kernel.ports import Message
from mains.kernel.process import Process
from mains.program import Bound, Program, estimate_tokens, fill

BEGIN = "Begin."
_PER_MESSAGE = 8  # tokens of a chat template around one message; four to seven in the templates of current models


class StoredFile(msgspec.Struct, frozen=True):
    """A file of an input: its name, and the page of its text."""

    name: str
    page: str


class StoredInput(msgspec.Struct, frozen=True, omit_defaults=True):
    """An input as the journal keeps it: a value, or files by reference."""

    name: str
    type: str
    value: msgspec.Raw = msgspec.Raw(b"null")
    files: tuple[StoredFile, ...] = ()
    page: str = ""  # of a text that is not shown whole

    @property
    def pages(self) -> list[str]:
        """The pages that hold it."""
        return [*[file.page for file in self.files], *([self.page] if self.page else [])]


def opening(program: Program, inputs: tuple[Bound, ...], conversation: bool = False) -> tuple[Message, ...]:
    """The first messages of a context: the prose with its placeholders filled, then the inputs it did not place.

    A conversation without inputs has only the prose: its first message comes from a person.
    """
    prose, left = fill(program, inputs)
    told = "\n\n".join(filter(None, map(_told, left)))
    if conversation and not told:
        return (Message(role="system", text=prose),)
    return Message(role="system", text=prose), Message(role="user", text=told or BEGIN)


def _told(bound: Bound) -> str:
    match bound.type:
        case "file":
            return "\n\n".join(f"{bound.name} ({file.name}):\n\n{file.text}" for file in bound.files)
        case "folder":
            names = "\n".join(f"- {file.name}" for file in bound.files)
            return f"{bound.name}: a folder of {len(bound.files)} files:\n{names}"
        case "text" if bound.name == "prompt":
            return str(bound.value)
        case "text" | "choice":
            return f"{bound.name}: {bound.value}"
        case _:
            return f"{bound.name}: {msgspec.json.encode(bound.value).decode()}"


def tokens_of(message: Message) -> int:
    """An estimate of a message's tokens in a frame, from above."""
    total = _PER_MESSAGE + estimate_tokens(message.text)
    for call in message.calls:
        total += _PER_MESSAGE + estimate_tokens(call.name) + estimate_tokens(call.arguments)
    return total


def whole_text(text: str) -> str:
    """`text` with half characters (lone surrogates, which no UTF-8 can hold) replaced by U+FFFD."""
    return text.encode("utf-8", "replace").decode() if not text.isascii() else text


def check_text(what: str, text: str) -> None:
    """Raises UsageError for text that no UTF-8 can hold (half of a surrogate pair)."""
    if whole_text(text) != text:
        raise UsageError(f"the {what} is no Unicode text: it holds half a character")


def cut(text: str, bytes_max: int) -> str:
    """`text`, or its beginning with a note of how much is missing."""
    data = text.encode()
    if len(data) <= bytes_max:
        return text
    head = data[:bytes_max].decode(errors="ignore")
    return f"{head}\n[cut: {bytes_max:,} of {len(data):,} bytes]"


def joined(before: Process | None, event: AnyEvent) -> tuple[str, ...]:
    """The pages that an event adds to what its process's context is (an exec changes its opening besides)."""
    match event:
        case Spawned():
            return event.context
        case Asked() | Joined():
            return event.pages
        case Replied():
            closed = all(call.page for call in event.calls)
            return (event.page, *event.after, *((call.page for call in event.calls) if closed else ()))
        case Returned() if before is not None:
            results = [event.page if call.id == event.call else call.page for call in before.calls]
            return tuple(results) if all(results) else ()
        case _:
            return ()
