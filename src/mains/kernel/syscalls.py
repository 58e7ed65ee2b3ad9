"""System calls: the only door from a program into the kernel. name -> its tool, and its handler.

A handler runs inside the transaction that records the reply which made the call, so a syscall is done and journalled
at once, or not at all. It returns `Now(text)` (the result), `Later(on, due_ms)` (the process waits), or `End` (the
process exits). SyscallError goes back to the model as the call's result, and undoes nothing: handlers check first.

    spawn(program, inputs)       start a child
    spawn_each(program, over)    start a child for each item of an input, and wait for their results
    exec(program, inputs)        become another program, and keep the context
    wait(pids, timeout_s)        until children have ended
    send(to, text)               a message into a mailbox
    receive(timeout_s)           the next message
    sleep(seconds)               a timer
    ask(question)                a person
    note(text, scope, replace, forget)   what outlives the context
    append(segment, text)        a page of a shared segment
    exit(result, results_of, code)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from mains.errors import LimitError, MainsError, SyscallError
from mains.kernel import birth, execs, mailbox, notes, pages, segments
from mains.kernel.calls import awaited, deliver, letter
from mains.kernel.context import StoredInput
from mains.kernel.ports import Message
from mains.kernel.process import Process
from mains.kernel.tx import Tx
from mains.kernel.world import World
from mains.program import Bound, FileText, Program, append_segments, bind_child, note_scopes


class Now(msgspec.Struct, frozen=True):
    """The call is done."""

    text: str
    messages: tuple[int, ...] = ()


class Later(msgspec.Struct, frozen=True):
    """The call waits: `on` is timer, message, child or human; `due_ms` bounds the wait (0: no bound)."""

    on: str
    due_ms: int = 0


class End(msgspec.Struct, frozen=True):
    """The process exits with this result."""

    result: str
    code: int = 0


class Invocation:
    """The syscalls of one reply, as handlers see them. `process` is replaced when a call changes its own process."""

    def __init__(self, tx: Tx, world: World, process: Process) -> None:
        self.tx = tx
        self.world = world
        self.process = process
        self.call = ""
        self.arguments: dict[str, Any] = {}
        self.spawned = 0

    def of(self, call: str, arguments: dict[str, Any]) -> Invocation:
        """This invocation, for the next call."""
        self.call, self.arguments = call, arguments
        return self

    def due_ms(self) -> int:
        """When the call's `timeout_s` is over (0: never)."""
        timeout_s = self.arguments.get("timeout_s")
        return 0 if timeout_s is None else self.tx.now_ms + round(timeout_s * 1_000)

    def check_room(self, more: int) -> None:
        """Raises SyscallError when no `more` children may be started."""
        birth.check_room(self.world, self.process, self.spawned + more)
        try:
            birth.check_live(self.tx, self.world, more)
        except LimitError as error:
            raise SyscallError(str(error)) from error

    def bear(self, program: Program, inputs: tuple[Bound, ...], item: str) -> Process:
        """Start a child for this call."""
        self.check_room(1)
        try:
            child = birth.bear_child(self.tx, self.world, self.process, program, inputs, self.call, item)
        except LimitError as error:  # its program has no account yet, and may have none: nothing was written
            raise SyscallError(str(error)) from error
        self.spawned += 1
        return child


Answer = Now | Later | End


def _spawn(i: Invocation) -> Answer:
    program = birth.child_program(i.tx, i.world, i.process, "spawn", i.arguments["program"])
    inputs = bind_child(program, i.arguments.get("inputs", {}), i.world.settings, _files_by_name(i))
    return Now(f'{{"pid": {i.bear(program, inputs, "").pid}}}')


def _spawn_each(i: Invocation) -> Answer:
    program = birth.child_program(i.tx, i.world, i.process, "spawn_each", i.arguments["program"])
    births = []
    for label, value in _items(i, i.arguments["over"]):
        slot, held = _slot(program, value), {}
        if isinstance(value, FileText):
            held, value = {value.name: value}, value.name
        births.append((label, bind_child(program, {slot: value}, i.world.settings, held)))
    i.check_room(len(births))
    for label, bound in births:
        i.bear(program, bound, label)
    return Later("child") if births else Now("[]")


def _exec(i: Invocation) -> Answer:
    program = birth.child_program(i.tx, i.world, i.process, "exec", i.arguments["program"])
    inputs = bind_child(program, i.arguments.get("inputs", {}), i.world.settings, _files_by_name(i))
    i.process = execs.plan(i.tx, i.process, birth.image_within(i.tx, i.world, i.process, program, inputs))
    return Now(f"from the next turn on this process runs {program.name}")


def _stored(i: Invocation) -> list[StoredInput]:
    return msgspec.json.decode(pages.get(i.tx, i.process.inputs), type=list[StoredInput])


def _files_by_name(i: Invocation) -> dict[str, FileText]:
    """The files of this process's own inputs: what it may hand down."""
    return {
        file.name: FileText(file.name, pages.get(i.tx, file.page).decode())
        for stored in _stored(i)
        for file in stored.files
    }


def _items(i: Invocation, over: str) -> list[tuple[str, Any]]:
    stored = next((s for s in _stored(i) if s.name == over), None)
    if stored is None:
        raise SyscallError(f"spawn_each: `{over}` is no input of this program")
    if stored.files:
        return [(f.name, FileText(f.name, pages.get(i.tx, f.page).decode())) for f in stored.files]
    value = msgspec.json.decode(stored.value)
    if not isinstance(value, list):
        raise SyscallError(f"spawn_each: the input `{over}` is no folder and no list")
    return [(item if isinstance(item, str) else msgspec.json.encode(item).decode(), item) for item in value]


def _slot(program: Program, value: Any) -> str:
    """The one input of a child that takes an item: its first required one of a fitting type, else its first."""
    wanted = {"file"} if isinstance(value, FileText) else {"text", "number", "boolean", "choice", "json"}
    for spec in sorted(program.accepts, key=lambda spec: not spec.required):
        if spec.type in wanted:
            return spec.name
    raise SyscallError(f"spawn_each: the program `{program.name}` has no input of type {' or '.join(sorted(wanted))}")


def _wait(i: Invocation) -> Answer:
    pids = i.arguments.get("pids")
    children = {child.pid for child in i.tx.processes("process_children", i.process.pid) if child.spawned_by}
    if pids is not None and (strangers := sorted(set(pids) - children)):
        raise SyscallError(f"wait: {strangers[0]} is no child of process {i.process.pid}")
    if not children:
        return Now("[]")
    if text := awaited(i.tx, i.process, i.call, "wait", i.arguments, late=False):
        return Now(text)
    return Later("child", i.due_ms())


def _send(i: Invocation) -> Answer:
    to = i.arguments["to"]
    target = i.process if to == i.process.pid else i.tx.process(to)
    if target is None:
        raise SyscallError(f"send: there is no process {to}")
    sender = f"process {i.process.pid}"
    try:
        _, after = mailbox.put(i.tx, target, sender, i.arguments["text"], "", i.world.settings)
    except MainsError as error:
        raise SyscallError(f"send: {error}") from error
    if to == i.process.pid:
        i.process = after
    else:
        deliver(i.tx, after, i.world.settings)
    return Now("sent")


def _receive(i: Invocation) -> Answer:
    mail = mailbox.unread(i.tx, i.process, 1)
    if mail:
        return Now(letter(i.tx, mail[0]), mailbox.consume(i.tx, mail))
    if i.arguments.get("timeout_s") == 0:
        return Now("no message")
    return Later("message", i.due_ms())


def _sleep(i: Invocation) -> Answer:
    return Later("timer", i.tx.now_ms + round(i.arguments["seconds"] * 1_000))


def _ask(i: Invocation) -> Answer:
    return Later("human")


def _note(i: Invocation) -> Answer:
    *above, own = birth.layers_of(i.tx, i.world, i.process)
    allowed = note_scopes(own.grants)
    for layer in above:  # what reaches others, a child may do only if all above it may
        theirs = {"process": True, **note_scopes(layer.grants)}
        allowed = {scope: told and theirs[scope] for scope, told in allowed.items() if scope in theirs}
    return Now(notes.change(i.tx, i.world.settings, i.process, allowed, i.arguments))


def _append(i: Invocation) -> Answer:
    granted = append_segments(i.world.program(pages.get(i.tx, i.process.program)).tools)
    name, text = i.arguments["segment"], i.arguments["text"]
    return Now(segments.append(i.tx, i.world.settings, i.process, granted, name, text))


def _exit(i: Invocation) -> Answer:
    result, source = i.arguments.get("result", ""), i.arguments.get("results_of")
    if source is not None:
        result = _earlier(i, source)
    return End(result, int(i.arguments.get("code", 0)))


def _earlier(i: Invocation, call: str) -> str:
    for place in pages.history(i.tx.rows, i.process):
        message = msgspec.json.decode(place.data, type=Message)
        if message.role == "tool" and message.call_id == call:
            return message.text
    raise SyscallError(f"exit: there is no result of a call `{call}`")


HANDLERS: dict[str, Callable[[Invocation], Answer]] = {
    "spawn": _spawn,
    "spawn_each": _spawn_each,
    "exec": _exec,
    "wait": _wait,
    "send": _send,
    "receive": _receive,
    "sleep": _sleep,
    "ask": _ask,
    "note": _note,
    "append": _append,
    "exit": _exit,
}
