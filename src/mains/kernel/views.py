"""Views: what a person or a client sees of processes, from committed rows only. Readers; they change nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from mains.errors import NotFoundError
from mains.kernel import inquiries, metering, pages, timers
from mains.kernel.calls import own_arguments
from mains.kernel.context import StoredInput
from mains.kernel.form import Words
from mains.kernel.journal import Journal
from mains.kernel.ports import Message, Notice, Outcome, ProcessView, Usage
from mains.kernel.process import GRANT, Call, CallState, Process, State
from mains.kernel.verdict import value_of
from mains.program import Program

HISTORY_MAX = 10_000


def stamp(at_ms: int) -> str:
    """A time as ISO 8601, in UTC, to the millisecond."""
    return datetime.fromtimestamp(at_ms / 1_000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def present(journal: Journal, pid: int) -> Process:
    """The process with this pid. Raises NotFoundError."""
    p = journal.process(pid)
    if p is None:
        raise NotFoundError(f"there is no process {pid}", hint="`mains ps --all` lists every process")
    return p


def reason_of(p: Process) -> str:
    """The reason with its sentence, as `ps` shows it."""
    if p.state is State.EXITED:
        return p.detail or (f"code {p.exit_code}" if p.exit_code else "")
    if p.schedule is not None and p.state is State.WAITING:
        return f"{p.reason}: next run {p.schedule.at(p.slot_ms)}"
    return f"{p.reason}: {p.detail}" if p.reason and p.detail else p.reason or p.detail


def view(p: Process) -> ProcessView:
    """A line of `ps`."""
    return ProcessView(
        pid=p.pid,
        parent=p.parent or None,
        program=p.name,
        account=p.account,
        band=p.band,
        state=p.state.value,
        reason=reason_of(p),
        turns=p.turn,
        tokens=p.tokens,
        created_at=stamp(p.created_ms),
        label=p.item,
        engine=p.engine,
        group=p.group,
    )


def outcome(journal: Journal, p: Process, program: Program, why: str = "") -> Outcome:
    """How a process stands or ended; `why` it cannot go on, when that is known already."""
    text = pages.read(journal, p.result).decode() if p.result else ""
    result: Any = text if p.exit_code is not None else None
    if program.output is not None and p.exit_code == 0:
        result = value_of(text, program.output)
    return Outcome(
        pid=p.pid,
        program=p.name,
        state=p.state.value,
        exit_code=p.exit_code,
        result=result,
        usage=Usage(p.input_tokens, p.cached_tokens, p.output_tokens),
        turns=p.turn,
        reason=why if why.startswith("child") else reason_of(p),
    )


def show(journal: Journal, p: Process) -> dict[str, Any]:
    """Everything about one process."""
    shown: dict[str, Any] = msgspec.to_builtins(view(p))
    history = pages.history(journal.rows, p)
    inputs = msgspec.json.decode(pages.read(journal, p.inputs), type=list[StoredInput])
    accounts = [
        {
            "account": account, "name": name, "tokens_max": most, "held": held, "posted": posted, "overrun": overrun,
            "limits": msgspec.to_builtins(metering.limits_of(journal, account)),
        }
        for account in p.accounts
        for most, held, posted, overrun, _, name, _ in journal.rows("account_get", account)
    ]  # fmt: skip
    return shown | {
        "exit_code": p.exit_code,
        "engine": p.engine,
        "model": p.model,
        "routes": [
            {"engine": route.engine, "model": route.model, "in_use": index == p.route}
            for index, route in enumerate(p.routes)
        ],
        "returns_at": stamp(p.return_ms) if p.route and p.exit_code is None else None,
        "workspace": p.workspace,
        "key": p.key,
        "budget": journal.rows("account_get", p.pid)[0][0],
        "usage": {"input_tokens": p.input_tokens, "cached_tokens": p.cached_tokens, "output_tokens": p.output_tokens},
        "cost_nano": p.cost_nano,
        "inputs": {i.name: [f.name for f in i.files] or msgspec.json.decode(i.value) for i in inputs},
        "tools": [tool["name"] for tool in msgspec.json.decode(pages.read(journal, p.tools))],
        "schedule": _schedule(p),
        "file": p.path or None,
        "next_program": p.next.name if p.next else None,
        "open_calls": open_calls(journal, p),
        "unread": p.mail,
        "children": [c.pid for c in journal.processes("process_children", p.pid)],
        "accounts": accounts,
        "currency": next((row[0] for row in journal.rows("account_currency")), ""),
        "context": [{"position": place.position, "page": place.page, "bytes": len(place.data)} for place in history],
        "messages": [msgspec.json.decode(place.data) for place in history],
        "result": pages.read(journal, p.result).decode() if p.result else None,
    }


def _schedule(p: Process) -> dict[str, Any] | None:
    """Its rules, the next slot, the process of the last run, and why the last slot was skipped."""
    if p.schedule is None:
        return None
    rules: dict[str, Any] = msgspec.structs.asdict(p.schedule)
    return rules | {"next": p.schedule.at(p.slot_ms), "run": p.run or None, "skipped": p.detail or None}


def open_calls(journal: Journal, p: Process) -> list[dict[str, Any]]:
    """The calls of a turn that have no result yet."""
    if not p.calls:
        return []
    reply = msgspec.json.decode(pages.read(journal, p.reply), type=Message)
    return [
        {
            "id": c.id,
            "tool": c.tool,
            "arguments": (arguments := own_arguments(c, reply.calls[c.index].arguments)),
            "state": c.state.value,
            "on": c.on,
            "by": c.by,
            "attempt": c.attempt,
            **_asked(journal, p, c, arguments),
        }
        for c in p.calls
        if c.state is not CallState.DONE
    ]


ASKED_CHARS_MAX = 300
"""Of a call's arguments in a question: why it is asked and how to answer must not be pushed out of sight."""


def _question(call: Call, arguments: dict[str, Any]) -> str:
    """What a person is asked by an open call; empty: nothing."""
    if call.on != GRANT:
        return str(arguments.get("question", "")) if call.on == "human" else ""
    said = msgspec.json.encode(arguments).decode()
    if len(said) > ASKED_CHARS_MAX:
        said = f"{said[:ASKED_CHARS_MAX]}... (that is not all: {len(said):,} characters, in `mains show`)"
    why = "" if call.by in ("program", "no rule") or call.by.startswith("rule") else f" ({call.by})"
    return f"may it call {call.tool} {said}{why}? Answer once, process, always or no"


def _asked(journal: Journal, p: Process, call: Call, arguments: dict[str, Any]) -> dict[str, str]:
    """The `question` of a call, of itself or of its device, and what an answer names (`asks`); both empty: none."""
    if question := _question(call, arguments):
        return {"question": question, "asks": call.id}
    first = next((each for each in p.inquiries if each.call == call.id and not each.action), None)
    if first is None:
        return {"question": "", "asks": ""}
    words = msgspec.json.decode(pages.read(journal, first.page), type=Words)
    return {"question": inquiries.told(first.device, first.kind, words), "asks": first.id}


def stuck(journal: Journal, p: Process) -> str:
    """Why a process cannot go on by itself; empty when it can. One that waits only for stuck children is stuck too."""
    if p.state is State.STOPPED:
        woken = p.reason == "breaker" and journal.rows("timer_at_once", p.pid, timers.AT_ONCE)  # by a top-up
        return "" if p.reason == "paused" or woken else p.reason
    if p.state is not State.WAITING or p.reason != "child":
        return ""
    if journal.rows("process_child_at_work", p.pid):
        return ""  # of a thousand children, this finds one without reading them all
    reasons = []
    for child in journal.processes("process_children", p.pid):
        if child.state is State.EXITED or not child.spawned_by:
            continue  # nobody waits for a fork
        why = stuck(journal, child)
        if not why:
            return ""
        reasons.append(f"process {child.pid} is {child.state.value} ({reason_of(child)})")
    timed = any(c.due_ms for c in p.calls if c.state is CallState.WAITING)
    return "" if timed or not reasons else f"child: {'; '.join(reasons[:5])}"


def history(journal: Journal, pid: int, after_seq: int, most: int = HISTORY_MAX) -> list[Notice]:
    """The events of one process after `after_seq`, as JSON text, oldest first."""
    return [
        Notice(kind=kind, pid=of, seq=seq, at_ms=at_ms, text=body.decode())
        for seq, at_ms, of, kind, body in journal.rows("event_of", pid, after_seq, most)
    ]
