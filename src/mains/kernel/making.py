"""Making: the calls of one reply, in order. A syscall is done at once; a device's call waits for its turn or for a
person, or is denied (`permits.py`). Part of the operation that records the reply.
"""

from __future__ import annotations

from mains.errors import SyscallError
from mains.kernel import pages, permits
from mains.kernel.calls import INTERRUPTED, result_message
from mains.kernel.context import tokens_of
from mains.kernel.ports import Tool
from mains.kernel.process import GRANT, Call, CallState, Process, Rated, replace
from mains.kernel.syscalls import HANDLERS, End, Invocation, Later
from mains.kernel.toolset import FIND_TOOL, LATE, OF_CHILDREN
from mains.kernel.tx import Tx
from mains.kernel.verdict import MISFIT, Planned, Toolbox, output_fault
from mains.kernel.world import World


class Making:
    """The calls of one reply while they are made, in order."""

    def __init__(self, tx: Tx, world: World, process: Process, box: Toolbox) -> None:
        self._invocation = Invocation(tx, world, process)
        self._box = box
        self._tx, self._world = tx, world
        self.calls: list[Call] = []
        self.messages: list[int] = []
        self.tokens = 0
        self.rated: tuple[Rated, ...] = ()
        self.untrusted = False  # whether somebody else's words are among the results
        self.ended: End | None = None

    @property
    def process(self) -> Process:
        return self._invocation.process

    @property
    def spawned(self) -> int:
        return self._invocation.spawned

    def make(self, index: int, planned: Planned) -> None:
        """Do one call, or leave it to a device or to time."""
        if self.ended is not None or self.process.ending:
            self._done(index, planned, "not made: the process has exited, or was told to")
        elif self.process.interrupted:
            self._done(index, planned, INTERRUPTED)
        elif planned.error:
            self._done(index, planned, planned.error)
        elif planned.name in LATE:
            self._late(index, planned)
        elif planned.name in HANDLERS and planned.name not in self._world.taken:
            self._syscall(index, planned)
        else:
            self._device(index, planned, self._box.by_name[planned.name])

    def _late(self, index: int, planned: Planned) -> None:
        """A tool of a device that came after this process began: look for it, or call it."""
        tx, world, p, given = self._tx, self._world, self.process, planned.arguments
        if planned.name == FIND_TOOL:
            text, untrusted = permits.find(tx, world, p, given["query"])
            self.untrusted = self.untrusted or untrusted
            self._done(index, planned, text)
            return
        try:
            tool = permits.late(tx, world, p, given["name"], given["arguments"])
        except SyscallError as error:
            self._done(index, planned, f"error: {error}")
        else:
            self._device(index, planned, tool, late=True)

    def _device(self, index: int, planned: Planned, tool: Tool, *, late: bool = False) -> None:
        tool = self._world.as_now(tool)
        arguments = planned.arguments["arguments"] if late else planned.arguments
        decision, self.rated = permits.decide(self._tx, self._world, self.process, tool, arguments, self.rated)
        if decision.effect == "deny":
            self._done(index, planned, f"denied: {decision.why}")
            return
        call = replace(_device_call(index, planned, tool), by=decision.by, late=late)
        asks = decision.effect == "ask"
        self.calls.append(replace(call, state=CallState.WAITING, on=GRANT) if asks else call)

    def _syscall(self, index: int, planned: Planned) -> None:
        if planned.name == "exit" and any(c.state is not CallState.DONE for c in self.calls):
            self._done(index, planned, "error: other calls of this reply are still open; call exit alone")
            return
        try:
            answer = HANDLERS[planned.name](self._invocation.of(planned.id, planned.arguments))
        except SyscallError as error:
            self._done(index, planned, f"error: {error}")
            return
        if isinstance(answer, End):
            self._end(index, planned, answer)
        elif isinstance(answer, Later):
            self.calls.append(
                Call(planned.id, planned.name, index, CallState.WAITING, on=answer.on, due_ms=answer.due_ms)
            )
        else:
            self.messages += answer.messages
            self._done(index, planned, answer.text)

    def _end(self, index: int, planned: Planned, answer: End) -> None:
        """An exit with code 0 gives a result, which must fit the output's schema; another code says why in words."""
        if answer.code == 0 and (fault := output_fault(answer.result, self._box)):
            self._done(index, planned, f"error: {MISFIT}: {fault}")
            return
        self.ended = answer
        self._done(index, planned, "ended")

    def _done(self, index: int, planned: Planned, text: str) -> None:
        message = result_message(planned.id, planned.name, text)
        self.untrusted = self.untrusted or (planned.name in OF_CHILDREN and bool(self.process.children))
        page = pages.put_message(self._tx, message)
        self.tokens += tokens_of(message)
        self.calls.append(Call(planned.id, planned.name, index, CallState.DONE, page=page))


def _device_call(index: int, planned: Planned, tool: Tool) -> Call:
    repeatable = tool.read_only or tool.idempotent
    return Call(planned.id, tool.name, index, CallState.PENDING, repeatable=repeatable, parallel=tool.read_only)
