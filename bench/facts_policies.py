"""What a model is shown of a long conversation under other policies than the kernel's, and how that is counted.

    truncation      the system message, and the newest messages that fit
    sliding window  the system message, and the last four turns (fewer when they do not fit)
    summarise       above 80 % of the window all becomes a summary, but the last messages (30 % of the window)
    full history    all of it, as long as it fits

The first three are ours, as these policies are usually written; a call never loses its result. What is larger than the
window by itself is cut at its end, for all three. `bench.contest.langchain_summary` runs LangChain's own middleware;
`Replayed` counts its frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from bench.facts_script import FRAME_TOKENS, OUTPUT_TOKENS, Script
from bench.facts_summary import Summariser
from mains.kernel.context import tokens_of
from mains.kernel.ports import Message, ToolCall

TOOLS_TOKENS = 100  # of the one tool, in every frame
WINDOW = FRAME_TOKENS - OUTPUT_TOKENS - TOOLS_TOKENS
HIGH, KEPT, TURNS = 0.8, 0.3, 4


class Shown(msgspec.Struct):
    """What the frames of a run came to. `found`: at each checkpoint, how many of the facts stood in the frame."""

    frames: int = 0
    ruled: int = 0  # frames with all rules
    sent: int = 0
    fresh: int = 0  # of them, tokens behind the common beginning with the frame before
    cut: int = 0  # frames of which a message had to be cut to fit
    calls: int = 0  # for summaries
    stopped: int = 0  # the turn at which it did not fit any more
    largest: int = 0
    found: list[tuple[int, int]] = []
    seen: set[str] = set()  # facts that stood in a frame
    rules: int = 0  # in the last frame

    def note(self, frame: Sequence[Message], script: Script, exchange: int) -> None:
        """Which facts stand in a frame of an exchange."""
        text = "\n".join(message.text for message in frame)
        self.rules = sum(rule in text for rule in script.rules_by(exchange))
        new = (each.fact.text for each in script.planted_by(exchange + 1))
        self.seen |= {fact for fact in new if fact not in self.seen and fact in text}

    def count(self, frame: Sequence[Message], before: Sequence[Message], tools: int = TOOLS_TOKENS) -> None:
        """A frame that is sent after the one `before` (empty: the engine has nothing of it)."""
        same = 0
        for one, other in zip(frame, before, strict=False):
            if one != other:
                break
            same += 1
        sizes = [tokens_of(message) for message in frame]
        self.frames += 1
        self.sent += sum(sizes) + tools
        self.fresh += sum(sizes[same:]) + (0 if before else tools)
        self.largest = max(self.largest, sum(sizes) + tools + OUTPUT_TOKENS)


def turns(script: Script) -> Iterator[tuple[int, list[Message], bool]]:
    """What joins before each model call: (exchange, messages, whether this is the call that ends the exchange)."""
    replied: list[Message] = []
    for at, each in enumerate(script.exchanges):
        joining = [*replied, *([Message(role="user", text=each.rule)] if each.rule else [])]
        joining.append(Message(role="user", text=each.message))
        for n, result in enumerate(each.results):
            yield at, joining, False
            name = f"call_{at}_{n}"
            call = ToolCall(name, "look", f'{{"task":{at},"n":{n}}}')
            joining = [Message(role="assistant", calls=(call,))]
            joining.append(Message(role="tool", text=result, call_id=name, name="look"))
        yield at, joining, True
        replied = [Message(role="assistant", text=each.reply)]


def size_of(messages: Sequence[Message]) -> int:
    """Tokens of messages, by the kernel's estimate."""
    return sum(map(tokens_of, messages))


def fitted(frame: list[Message]) -> list[Message]:
    """A frame in which nothing more can be left out: its largest message is cut at the end until it fits."""
    over = size_of(frame) - WINDOW
    if over <= 0:
        return frame
    at = max(range(1, len(frame)), key=lambda n: tokens_of(frame[n]))
    data = frame[at].text.encode()[: -3 * (over + 8)]
    cut = msgspec.structs.replace(frame[at], text=data.decode(errors="ignore") + "\n[cut]")
    return [*frame[:at], cut, *frame[at + 1 :]]


def _units(messages: Sequence[Message]) -> list[list[Message]]:
    """Messages in what may be left out together: a call with its results, or one message."""
    units: list[list[Message]] = []
    for message in messages:
        if message.role == "tool":
            units[-1].append(message)
        else:
            units.append([message])
    return units


def _flat(units: Sequence[list[Message]]) -> list[Message]:
    return [message for unit in units for message in unit]


class Truncation:
    """The newest messages that fit."""

    def __init__(self, script: Script) -> None:
        self.system = Message(role="system", text=script.prose)
        self.grown: list[Message] = []
        self.shown = Shown()

    def frame(self, joining: list[Message]) -> list[Message]:
        """The next frame."""
        self.grown += joining
        units = _units(self.grown)
        while len(units) > 1 and size_of([self.system, *_flat(units)]) > WINDOW:
            units.pop(0)
        self.grown = _flat(units)
        return [self.system, *self.grown]


class Sliding(Truncation):
    """The last turns."""

    def frame(self, joining: list[Message]) -> list[Message]:
        units = _units([*self.grown, *joining])
        replies = [at for at, unit in enumerate(units) if unit[0].role == "assistant"]
        self.grown = _flat(units[replies[-TURNS] :] if len(replies) > TURNS else units)
        return super().frame([])


class Summarise(Truncation):
    """Above 80 % of the window all but the last messages is a summary."""

    def __init__(self, script: Script, summariser: Summariser) -> None:
        super().__init__(script)
        self.summariser = summariser

    def frame(self, joining: list[Message]) -> list[Message]:
        before = [self.system, *self.grown]
        self.grown += joining
        if size_of([self.system, *self.grown]) > HIGH * WINDOW:
            units = _units(self.grown)
            cut = len(units) - 1
            while cut > 0 and size_of(_flat(units[cut - 1 :])) <= KEPT * WINDOW:
                cut -= 1
            old = _flat(units[:cut])
            if old:
                self.shown.calls += 1
                self.shown.count(fitted([self.system, *old]), before)
                text = self.summariser([message.text for message in old])
                summary = Message(role="user", text=f"Here is a summary of the conversation to date:\n\n{text}")
                self.grown = [summary, *_flat(units[cut:])]
        return [self.system, *self.grown]


def run(script: Script, policy: Truncation, checkpoints: Sequence[int]) -> Shown:
    """A policy over the script."""
    shown, before = policy.shown, list[Message]()
    for at, joining, ends in turns(script):
        made = policy.frame(joining)
        frame = fitted(made)
        shown.count(frame, before)
        shown.note(frame, script, at)
        shown.cut += frame != made
        shown.ruled += holds(frame, script.rules_by(at))
        if ends and at + 1 in checkpoints:
            last = [*frame, Message(role="assistant", text=script.exchanges[at].reply)]
            shown.found.append((at + 1, _resident(last, script, at + 1)))
        before = frame
    return shown


def full(script: Script) -> Shown:
    """The full history, as far as it fits; then it ends."""
    shown, grown, before = Shown(), [Message(role="system", text=script.prose)], list[Message]()
    for at, joining, _ in turns(script):
        grown += joining
        if size_of(grown) > WINDOW:
            shown.stopped = shown.frames + 1
            shown.found.append((at, _resident(before, script, at + 1)))
            break
        shown.count(grown, before)
        shown.ruled += holds(grown, script.rules_by(at))
        before = list(grown)
    return shown


def holds(frame: Sequence[Message], rules: Sequence[str]) -> bool:
    """Whether all rules stand in a frame, word for word."""
    text = "\n".join(message.text for message in frame)
    return all(rule in text for rule in rules)


def _resident(frame: Sequence[Message], script: Script, exchange: int) -> int:
    """How many of the facts that came before an exchange stand in a frame, word for word."""
    text = "\n".join(message.text for message in frame)
    return sum(each.fact.text in text for each in script.planted_by(exchange))


def job(script: Script, summariser: str) -> bytes:
    """The script for `bench.contest.langchain_summary`."""
    said = [joining for _, joining, _ in turns(script)]
    return msgspec.json.encode({"system": script.prose, "turns": said, "window": WINDOW, "summariser": summariser})


class Frame(msgspec.Struct):
    """A line of `bench.contest.langchain_summary`."""

    frame: list[Message]
    summed: list[Message]


class Replayed(Truncation):
    """The frames that somebody else has made."""

    def __init__(self, script: Script, frames: Iterator[Frame]) -> None:
        super().__init__(script)
        self.frames = frames

    def frame(self, joining: list[Message]) -> list[Message]:
        """The next one; what asks for a summary is a call of its own, and begins like nothing before it."""
        made = next(self.frames)
        if made.summed:
            self.shown.calls += 1
            self.shown.count(made.summed, [])
        return [self.system, *made.frame]
