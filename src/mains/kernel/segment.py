"""A shared segment's pages: what each says, and how a text is cut into them. Pure.

A page is a message as those who map the segment read it, so that all of them share the one page: its first line says
whose it is, the text follows. `name` is its handle, by which it is found again when it has left a frame.
"""

from __future__ import annotations

from collections.abc import Iterator

from mains.kernel.ports import Message

_CHARACTER_BYTES_MAX = 4


def handle(name: str, number: int) -> str:
    """The handle of a page."""
    return f"segment:{name}/{number}"


def message(name: str, number: int, text: str, author: str = "") -> Message:
    """The page `number` of the segment `name`; `author`: the process that appended it, in words."""
    by = f", appended by {author}" if author else ""
    head = f"[Shared segment {name}, page {number}{by}]"
    return Message(role="user", text=f"{head}\n{text}", name=handle(name, number), kind="segment")


def author_of(page: Message) -> str:
    """The process that appended a page, in words; empty: a person did."""
    _, by, author = page.text.partition("\n")[0].removesuffix("]").partition(", appended by ")
    return author if by else ""


def text_of(page: Message) -> str:
    """The text of a page, as it was given."""
    return page.text.partition("\n")[2]


def cut(text: str, bytes_max: int) -> Iterator[str]:
    """The parts of a text, each of `bytes_max` bytes of UTF-8 at most: at line ends where that goes. Together they are
    the text."""
    bytes_max = max(bytes_max, _CHARACTER_BYTES_MAX)
    part, room = "", bytes_max
    for line in text.splitlines(keepends=True):
        size = len(line.encode())
        if size > room and part:
            yield part
            part, room = "", bytes_max
        while size > bytes_max:
            head = line.encode()[:bytes_max].decode(errors="ignore")
            yield head
            line = line[len(head) :]
            size = len(line.encode())
        part, room = part + line, room - size
    if part:
        yield part
