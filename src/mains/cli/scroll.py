"""What an attached terminal shows of a process: parts in, lines out. Pure: no terminal, no daemon.

    scroll.hear(part)      -> the lines that are shown for good, as (style, text)
    scroll.live            the text that comes just now and has no end yet

Streamed text is provisional: whole lines of it are shown at once, and `said` brings the whole text of the call, of
which only what is missing is added. When the two differ, or the call failed, the text that was shown is marked, so that
two attempts are never mixed. Who comes into the middle of a stream (`holed`) sees it as live text only, and what was
not shown yet when the reply is there. Nothing that a model, a tool or a person wrote can steer the terminal.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from mains.cli.render import clean, shorten

Part = Mapping[str, Any]
Line = tuple[str, str]

PLAIN, DIM, HEARD, BAD = "", "dim", "bold", "ansired"
_ARGUMENTS_MAX = 60
_TAIL_MAX = 4_000


class Scroll:
    """See the module's header. `standing` is how the process stands."""

    def __init__(self) -> None:
        self.standing: Part = {}
        self.exited: Part | None = None
        self.seq = 0  # of the last event that was heard
        self._call = (0, 0)  # turn and attempt of the text that streams
        self._shown = ""  # of it: what was shown, as it came
        self._rest = ""  # of that: the end, which is no whole line yet
        self._tail = ""  # what came after a hole
        self._last = ""  # the last reply

    @property
    def live(self) -> str:
        """The text that comes just now."""
        return clean(f"{self._rest}…{self._tail}" if self._tail else self._rest, lines=True)

    @property
    def reply(self) -> str:
        """The last reply."""
        return self._last

    def hear(self, part: Part) -> list[Line]:
        """The next part."""
        self.seq = max(self.seq, part.get("seq", 0))
        return list(self._hear(part))

    def _hear(self, part: Part) -> Iterator[Line]:
        text = part.get("text", "")
        match part["kind"]:
            case "standing":
                yield from self._stand(part)
            case "delta":
                yield from self._stream((part["turn"], part["attempt"]), text, part.get("holed", False))
            case "said":
                yield from self._said(text, part.get("calls", ()))
            case "heard":
                yield from self._heard(text)
            case "sent":
                yield from self._sent(text, part.get("name", ""))
            case "result" if part["name"] == "ask" and not text.startswith("interrupted:"):
                yield from self._heard(text)
            case "result" if text.startswith(("error:", "interrupted:", "skipped:")):
                yield DIM, f"  {part['name']}: {shorten(text, 200)}"
            case "mend":
                yield DIM, f"· it is told: {shorten(text, 200)}"
            case "failed":
                yield from self._failed(text, part.get("again", False))
            case "rested" if text:
                yield DIM, f"({shorten(text, 500)})"
            case "note":
                yield DIM, f"· {shorten(text, 500)}"
            case "exited":
                self.exited = part
                yield from self._break()
                if text.strip() and text.strip() != self._last.strip():
                    yield from _lines(PLAIN, text)

    def _stand(self, standing: Part) -> Iterator[Line]:
        """Questions and doubts are told when they are new."""
        before, self.standing = self.standing, standing
        if standing["asks"] != before.get("asks", []):
            for question in standing["asks"]:
                yield from _lines(HEARD, f"? {question}")
        if standing["doubts"] != before.get("doubts", []):
            for call in standing["doubts"]:
                yield BAD, f"may or may not have happened: {shorten(call, 300)}"

    # what streams

    def _stream(self, call: tuple[int, int], text: str, holed: bool) -> Iterator[Line]:
        if call != self._call:
            yield from self._unkept("")
            self._call = call
        if holed:
            self._tail = (self._tail + text)[-_TAIL_MAX:]
        else:
            self._shown += text
            yield from self._add(text)

    def _add(self, text: str) -> Iterator[Line]:
        *whole, self._rest = (self._rest + text).split("\n")
        for line in whole:
            yield PLAIN, clean(line, lines=True)

    def _break(self) -> Iterator[Line]:
        """Text that has no end yet is shown as it is."""
        if self._rest:
            yield PLAIN, clean(self._rest, lines=True)
        self._rest = ""

    def _forget(self) -> None:
        self._shown = self._rest = self._tail = ""

    def _said(self, text: str, calls: Any) -> Iterator[Line]:
        if not text.startswith(self._shown):
            yield from self._unkept("")
        yield from self._add(text[len(self._shown) :].rstrip("\n"))
        yield from self._break()
        self._forget()
        self._last = text or self._last
        for call in calls:
            yield DIM, f"· {clean(call['name'])} {_told(call['arguments'])}".rstrip()

    def _failed(self, why: str, again: bool) -> Iterator[Line]:
        """Why it is not asked again follows in a part of its own."""
        yield from self._unkept(f"{shorten(why, 300)}; asked again" if again else "")
        self._forget()

    def _unkept(self, why: str) -> Iterator[Line]:
        """Mark the text that streamed, if any was shown; and say why, in any case."""
        if self._shown:
            yield from self._break()
            yield DIM, f"(the text above was not kept{f': {why}' if why else ''})"
        elif why:
            yield DIM, f"· {why}"
        self._forget()

    # what others say

    def _heard(self, text: str) -> Iterator[Line]:
        yield PLAIN, ""
        first, *more = clean(text, lines=True).split("\n")
        yield HEARD, f"> {first}"
        for line in more:
            yield HEARD, f"  {line}"

    def _sent(self, text: str, sender: str) -> Iterator[Line]:
        """A conversation shows a message when it is read; elsewhere nobody knows when that will be."""
        if not self.standing.get("conversation"):
            yield DIM, f"· message from {clean(sender)}: {shorten(text, 200)}"


def _lines(style: str, text: str) -> Iterator[Line]:
    for line in text.rstrip("\n").split("\n"):
        yield style, clean(line, lines=True)


def _told(arguments: str) -> str:
    """The arguments of a call in a few words: the values alone when they are few."""
    try:
        values = json.loads(arguments or "{}")
    except ValueError:
        return shorten(arguments, _ARGUMENTS_MAX)
    if not isinstance(values, dict):
        return shorten(arguments, _ARGUMENTS_MAX)
    texts = [value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in values.values()]
    return shorten(" ".join(texts), _ARGUMENTS_MAX)
