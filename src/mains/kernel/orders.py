"""Orders from outside, one transaction each: spawn, send, answer, signal.

Each checks first and raises UsageError, NotFoundError or LimitError; then it writes.
"""

from __future__ import annotations

import msgspec

from mains.errors import NotFoundError, UsageError
from mains.kernel import execs, inquiries, mailbox, schedules
from mains.kernel.birth import Birth, ask_of, bear, image_of, layers_for_person, owner
from mains.kernel.calls import KILL_CODE, TERM_CODE, arguments_of, deliver, end, finish, return_call, share_room
from mains.kernel.event import Answered, Signalled
from mains.kernel.forks import fork
from mains.kernel.grants import approval
from mains.kernel.past import Past
from mains.kernel.ports import Signal
from mains.kernel.process import GRANT, PERMITS, Call, CallState, Inquiry, Process, State
from mains.kernel.tx import Tx
from mains.kernel.world import World


def present(tx: Tx, pid: int) -> Process:
    """The process with this pid. Raises NotFoundError."""
    p = tx.process(pid)
    if p is None:
        raise NotFoundError(f"there is no process {pid}", hint="`mains ps --all` lists every process")
    return p


def spawn(tx: Tx, world: World, birth: Birth) -> int:
    """Start a process, or find the one that has this key already; its pid."""
    ask = ask_of(birth)
    if birth.key and (row := tx.one("key_get", birth.key)):
        if row[1] != ask:
            what = ", which runs another program or other inputs" if row[0] else ""
            raise UsageError(
                f"the key `{birth.key}` belongs to {owner(row[0])}{what}",
                hint="take another key, or the same program and inputs",
            )
        return int(row[0])
    pid = bear(tx, world, birth, None).pid
    if birth.key:
        tx.run("key_insert", birth.key, pid, ask)
    return pid


def exec_of(tx: Tx, world: World, pid: int, birth: Birth) -> bool:
    """Let a process run another program, with its context; False when it runs just that already.

    One that stopped with an error goes on, and one that was out of room: the new program may need less. A process
    without times of its own takes none from the program.
    """
    p = present(tx, pid)
    if p.state is State.EXITED:
        raise UsageError(f"process {pid} has exited (code {p.exit_code})", hint="`mains run` starts the program anew")
    if p.schedule is not None and birth.schedule is None:
        told = f"process {pid} is a schedule, and the program has none"
        raise UsageError(told, hint="kill it and run the program anew")
    schedule = birth.schedule if p.schedule else None
    birth = msgspec.structs.replace(birth, conversation=p.conversation, schedule=schedule)
    image = image_of(tx, world, birth, p.accounts, p, layers_for_person(tx, p))
    if not execs.is_new(p, image):
        return False
    p = execs.plan(tx, schedules.pass_over(tx, p, "missed: the process took another program"), image)
    if p.fault == "error" or (p.fault == "breaker" and not p.paused):
        tx.happen(p, Signalled(signal=Signal.CONT.value))
    return True


def fork_of(tx: Tx, world: World, pid: int, past: Past | None = None) -> int:
    """Fork a process, as it stands or as it stood in the `past`; the new pid."""
    return fork(tx, world, present(tx, pid), past).pid


def send(tx: Tx, world: World, pid: int, sender: str, text: str, key: str, *, rule: bool = False) -> int:
    """Put a message into a mailbox, and hand it over when the process waits for one; the message's number."""
    if not text:
        raise UsageError("the message is empty")
    number, p = mailbox.put(tx, present(tx, pid), sender, text, key, world.settings, rule=rule)
    deliver(tx, p, world.settings)
    return number


def asked(p: Process) -> Call | Inquiry | None:
    """What an answer is for: a call in doubt, or else the open question of the first call that has one (of `ask`,
    whether it may be made, or the oldest one of its device)."""
    doubted = next((call for call in p.calls if call.state is CallState.IN_DOUBT), None)
    return doubted or _asked_first(p)


def answer(tx: Tx, world: World, pid: int, text: str, asked_id: str = "") -> None:
    """Decide a call in doubt (retry, skip, done=JSON), or else answer the first open question: that of `ask`,
    whether a call may be made (once, process, always, no), or what a device asks in the middle of one.

    `asked_id`: what the person was asked about; should it be another by now, nothing is answered.
    """
    p = present(tx, pid)
    if len(text.encode()) > world.settings.message_bytes_max:
        raise UsageError(f"the answer is larger than {world.settings.message_bytes_max} bytes (message_bytes_max)")
    found = asked(p)
    if found is None:
        raise UsageError(f"process {pid} asks nothing: it is {p.state.value}{f' ({p.reason})' if p.reason else ''}")
    if asked_id and found.id != asked_id:
        hint = f"`mains show {pid}` says what it asks now"
        raise UsageError(f"process {pid} asks about {asked_id} no longer: that was answered, or is over", hint=hint)
    match found:
        case Inquiry() as inquiry:
            inquiries.answer(tx, p, inquiry, text)
        case Call(state=CallState.IN_DOUBT) as call:
            _decide(tx, world, p, call.id, text)
        case Call() as call if call.on == GRANT:
            _permit(tx, world, p, call, text)
        case Call() as call:
            return_call(tx, p, call, text, world.settings)


def _asked_first(p: Process) -> Call | Inquiry | None:
    """The open question of the first call that has one: its own, or the oldest of its device."""
    for call in p.calls:
        if call.state is CallState.WAITING and call.on in ("human", GRANT):
            return call
        for each in p.inquiries:
            if each.call == call.id and not each.action:
                return each
    return None


def _decide(tx: Tx, world: World, p: Process, call_id: str, text: str) -> None:
    call = next(c for c in p.calls if c.id == call_id)
    verb, _, value = text.strip().partition("=")
    if verb == "retry" and not value:
        tx.happen(p, Answered(calls=(call_id,), by="a person"))
    elif verb == "skip" and not value:
        return_call(tx, p, call, "skipped: a person decided that this call is not made again", world.settings)
    elif verb == "done" and value:
        return_call(tx, p, call, _done_text(value), world.settings)
    else:
        tool = f"{call.tool} {msgspec.json.encode(arguments_of(tx, p, call)).decode()}"
        raise UsageError(
            f"process {p.pid} is in doubt about {tool[:300]}: answer `retry`, `skip` or `done=JSON`, not {text[:40]!r}"
        )


def _permit(tx: Tx, world: World, p: Process, call: Call, text: str) -> None:
    """A person says whether a call is made. `always` holds for this process here; the desk has written the rule."""
    verb = text.strip().lower()
    if verb == "no":
        return_call(tx, p, call, f"denied: a person decided that {call.tool} is not called so", world.settings)
    elif verb in PERMITS:
        approved = "" if verb == "once" else approval(call.tool, call.by)
        tx.happen(p, Answered(calls=(call.id,), by=f"a person ({verb})", approved=approved))
    else:
        told = f"process {p.pid} asks whether it may call {call.tool}: answer {', '.join(PERMITS)} or no"
        raise UsageError(f"{told}, not {text[:40]!r}")


def _done_text(value: str) -> str:
    try:
        decoded = msgspec.json.decode(value)
    except msgspec.DecodeError as error:
        raise UsageError(f"done= needs JSON (a text in quotes): {error}") from error
    return decoded if isinstance(decoded, str) else value


def signal(tx: Tx, world: World, to: int | str, sign: Signal) -> list[int]:
    """Send a signal to a process and all below it, itself first; or to a group by its name, the oldest first.

    The pids that it changed. Raises NotFoundError when there is no such process, or no living one in the group.
    """
    if isinstance(to, int):
        return _signal_tree(tx, world, to, sign)
    members = [row[0] for row in tx.run("process_group", to)]
    if not members:
        raise NotFoundError(f"no living process is in the group `{to}`", hint="`mains ps` shows groups")
    if sign is Signal.INT:  # the others of the group have no turn to interrupt; when all are such, the first says so
        members = [pid for pid in members if present(tx, pid).conversation] or members
    changed: dict[int, None] = {}
    for pid in members:
        if present(tx, pid).state is not State.EXITED:  # it ended with one before it
            changed |= dict.fromkeys(_signal_tree(tx, world, pid, sign))
    return list(changed)


def _signal_tree(tx: Tx, world: World, pid: int, sign: Signal) -> list[int]:
    first = present(tx, pid)
    if first.state is State.EXITED:
        raise UsageError(f"process {pid} has exited already (code {first.exit_code})")
    if sign is Signal.INT:
        return [pid] if _interrupt(tx, world, first) else []
    below = [row[0] for row in tx.run("process_tree_below", pid)]
    return [each for each in [pid, *below] if _signal(tx, world, each, sign)]


def _interrupt(tx: Tx, world: World, p: Process) -> bool:
    """End the turn of a conversation, and of nobody below it: what it started goes on."""
    if not p.conversation:
        hint = "`mains kill` ends a process, `mains pause` holds it"
        raise UsageError(f"process {p.pid} is no conversation: there is no turn of it to interrupt", hint=hint)
    if p.idle or p.interrupted:
        return False
    finish(tx, tx.happen(p, Signalled(signal=Signal.INT.value)), world.settings)
    return True


def _signal(tx: Tx, world: World, pid: int, sign: Signal) -> bool:
    p = present(tx, pid)
    if p.state is State.EXITED:
        return False
    if sign is Signal.KILL:
        end(tx, p, KILL_CODE, "", "killed", world.settings)
        return True
    if sign is Signal.TERM and p.state is not State.RUNNING:
        end(tx, p, TERM_CODE, "", "terminated", world.settings)
        return True
    changes = {
        Signal.TERM: not p.ending,
        Signal.STOP: not p.paused,
        Signal.CONT: p.paused or bool(p.fault),
    }[sign]
    if changes:
        after = tx.happen(p, Signalled(signal=sign.value))
        if p.fault:
            schedules.arm(tx, after)  # one that stopped was not woken again
        if sign is Signal.STOP:
            share_room(tx, p.accounts)
    return changes
