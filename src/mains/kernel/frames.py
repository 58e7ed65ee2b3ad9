"""Frames in memory: the contexts of processes that are at work, read from the page store when first needed.

A cache, never a truth: what is missing is read again, and it is bounded in bytes (least recently used goes first).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import msgspec

from mains.errors import KernelPanic
from mains.kernel import pages, stubs
from mains.kernel.calls import own_arguments
from mains.kernel.cover import chain, grown, seed
from mains.kernel.journal import Journal
from mains.kernel.ports import Message, Request, Sampling, Tool
from mains.kernel.process import Call, Process
from mains.kernel.verdict import Toolbox
from mains.kernel.world import World
from mains.program import Program
from mains.settings import Settings

_message = msgspec.json.Decoder(Message)
_tools = msgspec.json.Decoder(tuple[Tool, ...])
_Image = tuple[str, str, str]  # pages: program, inputs, tools
_BOXES_MAX = 1_000


class Frame:
    """What one process has in mind, with its program and tools."""

    __slots__ = ("box", "breaks", "bytes", "grown", "hash", "image", "messages", "program", "reply", "starts")

    def __init__(self, image: _Image, program: Program, box: Toolbox) -> None:
        self.image = image
        self.program = program
        self.box = box
        self.messages: list[Message] = []
        self.starts: list[int] = []  # of each message, the (first) position that it stands for
        self.bytes = 0
        self.breaks = 0  # of its process, when this was read
        self.grown = 0  # positions that were read
        self.reply: tuple[str, Message] | None = None  # whose calls are open, with its page
        self.hash = seed(image[0], image[2])

    def join(self, places: Sequence[pages.Place]) -> int:
        """Let these pages join, and give their bytes."""
        for place in places:
            self.messages.append(_message.decode(place.data))
            self.starts.append(place.position)
        self.hash = chain(self.hash, [place.page for place in places])
        size = sum(len(place.data) for place in places)
        self.bytes += size
        return size

    def request(self, p: Process) -> Request:
        """The model call of a process whose intent is recorded."""
        assert p.asking is not None
        messages, old = self.messages, p.asking.summary
        if old is not None:  # what the engine has read already, up to the end of what is to be summed up
            upto = bisect_left(self.starts, old.until)
            messages = [*messages[:upto], stubs.ask(old.first, old.until, p.asking.output_tokens_max)]
        return Request(
            messages=tuple(messages),
            output_tokens_max=p.asking.output_tokens_max,
            tools=self.box.tools,
            output=self.program.output if old is None else None,
            model=p.model,
            sampling=Sampling(temperature=self.program.temperature),
            key=f"{p.pid}-{p.turn + 1}-{p.asking.attempt}",
            process=p.pid,
            tenant=p.tenant,
        )


class Frames:
    """The frames of processes at work."""

    def __init__(self, journal: Journal, world: World, settings: Settings) -> None:
        self._journal = journal
        self._world = world
        self._bytes_max = settings.frame_cache_bytes
        self._frames: OrderedDict[int, Frame] = OrderedDict()
        self._boxes: dict[tuple[str, str], tuple[Program, Toolbox]] = {}
        self._bytes = 0

    def of(self, p: Process) -> Frame:
        """The frame of a process as it stands (its record must be committed)."""
        image = (p.program, p.inputs, p.tools)
        if (known := self._frames.get(p.pid)) and (known.image != image or known.breaks != p.breaks):
            self.drop(p.pid)  # exec has changed the opening, or something was evicted
        frame = self._frames.pop(p.pid, None) or Frame(image, *self._box(p))
        self._frames[p.pid] = frame
        self._read(p, frame)
        frame.reply = None
        while self._bytes > self._bytes_max and len(self._frames) > 1:
            _, oldest = self._frames.popitem(last=False)
            self._bytes -= oldest.bytes
        return frame

    def _read(self, p: Process, frame: Frame) -> None:
        """Read what is missing. Raises KernelPanic when that is not the frame which the record says."""
        rows, length = self._journal.rows, grown(p)
        if not frame.messages:
            self._bytes += frame.join(pages.frame(rows, p))
            frame.breaks = p.breaks
        elif frame.grown < length:
            self._bytes += frame.join(pages.frame(rows, p, frame.grown))
        frame.grown = length
        if p.frame and frame.hash != p.frame:
            raise KernelPanic(f"process {p.pid}: its frame is not the one that was journalled")

    def drop(self, pid: int) -> None:
        """Forget a process."""
        frame = self._frames.pop(pid, None)
        if frame:
            self._bytes -= frame.bytes

    def arguments(self, p: Process, call: Call) -> dict[str, Any]:
        """The arguments of an open call of a process."""
        frame = self._frames.get(p.pid)
        if frame is not None and frame.reply is not None and frame.reply[0] == p.reply:
            reply = frame.reply[1]
        else:
            reply = _message.decode(pages.read(self._journal, p.reply))
            if frame is not None:
                frame.reply = p.reply, reply
        return own_arguments(call, reply.calls[call.index].arguments)

    def _box(self, p: Process) -> tuple[Program, Toolbox]:
        """Program and toolbox, shared by all processes that have the same."""
        key = (p.program, p.tools)
        if key not in self._boxes:
            if len(self._boxes) >= _BOXES_MAX:
                self._boxes.clear()
            program = self._world.program(pages.read(self._journal, p.program))
            tools = _tools.decode(pages.read(self._journal, p.tools))
            self._boxes[key] = (program, Toolbox(tools, program.output))
        return self._boxes[key]
