"""Forks: a process with the context of another, as that stands or stood at an earlier event. An operation.

fork(tx, world, source, past)   the new process; its context is mapped, not copied
"""

from __future__ import annotations

import msgspec

from mains.errors import UsageError
from mains.kernel import cover, notes, pages
from mains.kernel.birth import check_live, enter, next_pid
from mains.kernel.past import Past
from mains.kernel.ports import Message
from mains.kernel.process import Map, Process, State, replace
from mains.kernel.sized import sized
from mains.kernel.tx import Tx
from mains.kernel.world import World


def fork(tx: Tx, world: World, source: Process, past: Past | None = None) -> Process:
    """Write a process with the context of `source` as of its last whole turn: the turn since is made again.

    `past`: how the source stood at an earlier event; the fork goes on from there. Mail that was not read is not the
    fork's: one that has `answered` everything else waits for its own. The context is mapped, not copied: the work does
    not grow with it. The fork is a child of its source for the ledger: it brings no fresh limit; and the source is kept
    as long as it has forks.
    """
    check_live(tx, world)
    if source.schedule is not None:
        raise UsageError(
            f"process {source.pid} is a schedule: there is no turn of it to fork", hint="fork one of its runs"
        )
    if source.depth + 1 > world.settings.depth_max:
        raise UsageError(f"process {source.pid} cannot be forked: depth {source.depth} is the limit (depth_max)")
    pid, of = next_pid(tx), past.process if past else source
    opening = past.opening if past else pages.opening_of(tx.rows, source)
    whole = (of.asking is None or of.asking.summary is not None) and not of.calls and (of.exit_code is None or of.idle)
    answered = of.conversation and of.turn == of.idle_turn and not _is_asked(tx, of)
    length, tokens = (of.length, of.frame_tokens) if whole else (of.whole_length, of.whole_tokens)
    mapped = Map(source.pid, length - of.opening, past.seq if past else tx.seq, of.breaks)
    frame = of.frame if whole else of.whole_frame
    shared = of.segments if whole else tuple(replace(each, until=each.whole) for each in of.segments)
    born = replace(
        of, pid=pid, parent=source.pid, spawned_by="", item="", key="", budget=None,
        accounts=(pid, *source.accounts), depth=source.depth + 1, created_ms=tx.now_ms, maps=(*of.maps, mapped),
        length=length, whole_length=length, frame_tokens=tokens, whole_tokens=tokens, frame=frame, whole_frame=frame,
        turn=of.turn if whole else of.whole_turn, covers=0, breaks=0,
        reply="", calls=(), inquiries=(), asking=None, attempts=0, failures=0, failures_here=0, refusals=0, given_up=(),
        retry_ms=0, mends=0,
        input_tokens=0, cached_tokens=0, output_tokens=0, cost_nano=0, deferred=False, quota=-1, wanted=0,
        wanted_nano=0, mail=0, children=0,
        paused=False, ending=False, interrupted=False, fault="", detail="", exit_code=None, result="", segments=shared,
        idle=whole and (of.idle or answered), tidy=False,
        noted=0 if notes.are_due(tx, of) else of.noted,  # a person took something away: not even the fork shows it
        state=State.NEW, reason="", approved=(), rated=(),  # what a person allowed was allowed to the source
    )  # fmt: skip
    entered = enter(tx, sized(world.route, born), opening, forked=True)
    notes.inherit(tx, source, entered, mapped.seq)
    return entered


def _is_asked(tx: Tx, p: Process) -> bool:
    """Whether the last of what a context holds is a message, or its opening: then a reply is due."""
    last = pages.span(tx.rows, p, cover.grown(p) - 1, cover.grown(p)) if cover.grown(p) else []
    messages = [msgspec.json.decode(place.data, type=Message) for place in last]
    return not any(message.role != "user" or not (message.name or message.kind) for message in messages)
