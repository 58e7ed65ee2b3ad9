"""Birth: spawn and fork. Everything is prepared and checked first; the transaction only writes.

`World` is what operations know besides their transaction: settings, programs by their pages, the tools that devices
offer now, and which engine a program's model is. It is read-only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from mains.errors import LimitError, NotFoundError, SyscallError, UsageError
from mains.kernel import accounts, cover, ledger, notes, pages, segments, timers
from mains.kernel.context import StoredFile, StoredInput
from mains.kernel.event import Spawned
from mains.kernel.mapping import opened
from mains.kernel.past import Past
from mains.kernel.ports import Message, Tool
from mains.kernel.process import Image, Map, Process, Route, State, replace
from mains.kernel.tariff import Tariffs
from mains.kernel.toolset import YIELDING, toolset, with_memory
from mains.kernel.tx import Tx
from mains.program import (
    PROMPT,
    Bound,
    Program,
    Schedule,
    append_segments,
    estimate_tokens,
    note_scopes,
    parse,
)
from mains.settings import Settings

_encode = msgspec.json.Encoder(order="deterministic").encode
_ANSWERS = 4  # of the usual size that fit into a small frame: the next call must hold what the last one said
_VIEWS = 4  # that fit into the half of a small frame
_RUN = "schedule"  # a run is spawned by no call


class World:
    """What operations know besides their transaction."""

    def __init__(
        self,
        settings: Settings,
        tools: Callable[[], Sequence[Tool]],
        route: Callable[[tuple[str, ...]], Route],
        workspaces: Path,
        tariffs: Tariffs,
        currency: str,
    ) -> None:
        self.settings = settings
        self.tools = tools  # those that devices offer now, by their whole names
        self._taken: tuple[Sequence[Tool], frozenset[str]] = ((), frozenset())
        self.route = route
        self.workspaces = workspaces
        self.tariffs = tariffs
        self.currency = currency
        self.reach_ms = round(settings.model_timeout_s * 1_000)  # how long after its hold a call may reach its engine
        self._programs: dict[bytes, Program] = {}

    @property
    def taken(self) -> frozenset[str]:
        """The syscalls whose name a device has now."""
        if (tools := self.tools()) is not self._taken[0]:
            self._taken = tools, YIELDING.intersection(tool.name for tool in tools)
        return self._taken[1]

    def program(self, source: bytes) -> Program:
        """The program of a page (parsed once; the page was checked when it was stored)."""
        if source not in self._programs:
            if len(self._programs) >= self.settings.programs_max * 16:
                self._programs.clear()
            self._programs[source] = parse(source.decode(), "a stored program", self.settings)
        return self._programs[source]


class Birth(msgspec.Struct, frozen=True, kw_only=True):
    """A process to be, complete and checked. `programs`: what it and its children may spawn, by name."""

    program: Program
    programs: dict[str, Program]
    inputs: tuple[Bound, ...]
    route: Route
    path: str = ""
    workspace: str = ""
    budget: int | None = None
    account: str = ""
    band: str = ""
    segments: tuple[str, ...] = ()  # that it maps besides those of its program
    group: str = ""
    key: str = ""
    paused: bool = False
    conversation: bool = False
    schedule: Schedule | None = None
    item: str = ""
    spawned_by: str = ""
    engine_forced: bool = False


def ask_of(birth: Birth) -> str:
    """What `--key` compares: the program, its inputs and how it lives, as one text."""
    return f"{birth.program.hash} {pages.name_of(_encode(birth.inputs))}{_manner(birth)}"


def owner(pid: int) -> str:
    """Whose a key is, for a person: that of a process, or (0) of an order about accounts."""
    return f"process {pid}" if pid else "another order: a top-up"


def _manner(birth: Birth) -> str:
    if birth.schedule is not None:
        return " schedule"
    return " conversation" if birth.conversation else ""


def bear(tx: Tx, world: World, birth: Birth, parent: Process | None) -> Process:
    """Write a new process. Raises LimitError when there is no room for it."""
    check_live(tx, world)
    pid = _next_pid(tx)
    if parent is None:
        place, chain = accounts.payer(tx, world.settings, birth.account, birth.program.name)
        account, tenant = place.name, place.account
    else:
        chain = accounts.program_account(tx, world.settings, parent, birth.program.name)
        account, tenant = parent.account, parent.tenant
    image = image_of(tx, world, birth, chain)
    process = Process(
        pid=pid,
        parent=parent.pid if parent else 0,
        spawned_by=birth.spawned_by,
        item=birth.item,
        name=image.name,
        path=image.path,
        program=image.program,
        tree=image.tree,
        inputs=image.inputs,
        tools=image.tools,
        reads_mail=image.reads_mail,
        remembers=image.remembers,
        tainted=parent.tainted if parent else "",
        conversation=birth.conversation,
        schedule=image.schedule,
        slot_ms=next(image.schedule.slots(tx.now_ms), 0) if image.schedule else 0,
        idle=birth.conversation and not any(bound.name == PROMPT.name and bound.value for bound in birth.inputs),
        accounts=(pid, *chain),
        account=account,
        tenant=tenant,
        band=birth.band or image.band,
        band_given=bool(birth.band),
        group=birth.group,
        key=birth.key,
        engine=image.route.engine,
        model=image.route.model,
        routes=image.route.chain,
        engine_forced=birth.engine_forced,
        workspace=birth.workspace or str(world.workspaces / str(pid)),
        depth=parent.depth + 1 if parent else 0,
        budget=birth.budget if birth.budget is not None or birth.schedule else birth.program.budget,
        reserve_tokens=image.reserve_tokens,
        output_tokens_max=image.output_tokens_max,
        frame_tokens_max=image.frame_tokens_max,
        created_ms=tx.now_ms,
        opening=len(image.opening),
        opening_tokens=image.opening_tokens,
        frame=(frame := cover.chain(cover.seed(image.program, image.tools), image.opening)),
        whole_frame=frame,
        context_tokens=image.route.context_tokens,
        length=len(image.opening),
        whole_length=len(image.opening),
        frame_tokens=image.opening_tokens,
        whole_tokens=image.opening_tokens,
        paused=birth.paused,
        segments=segments.mapped(image.segments, segments.numbers(tx, chain, birth.segments)),
    )
    return _enter(tx, process, image.opening, forked=False)


def image_of(tx: Tx, world: World, birth: Birth, chain: Sequence[int], of: Process | None = None) -> Image:
    """What a program makes of a process that spends from the accounts of `chain`.

    Its pages are written, and an event of this transaction must name them. `of`: who becomes that program; whoever has
    something in memory that has left its frame keeps `read` and `recall`. Raises NotFoundError for a segment.
    """
    segments.numbers(tx, chain, append_segments(birth.program.tools))
    settings = world.settings
    sizes = (birth.route.context_tokens, birth.program.frame_tokens or 0, settings.frame_tokens_max)
    size = min(size for size in sizes if size)
    usual = max(settings.output_tokens_min, min(settings.output_tokens_max, size // _ANSWERS))
    output_tokens_max = birth.program.max_tokens or usual
    room = (size - output_tokens_max) * settings.frame_low_percent // 100
    view = max(1, min(settings.view_tokens_max, room // _VIEWS))
    begun = opened(birth.program, birth.inputs, room, view, conversation=birth.conversation)
    stored = tuple(_store_input(tx, bound, mapped=bound.name in begun.mapped) for bound in birth.inputs)
    tools, _ = toolset(birth.program, stored, birth.programs, world.tools())
    evicted = of is not None and bool(pages.covers_of(tx.rows, of) or (of.asking and of.asking.summary))
    tools = with_memory(tools) if begun.mapped or (tools and evicted) else tools
    tree = {name: pages.put(tx, "program", p.source.encode()) for name, p in birth.programs.items()}
    tools_page = _encode(tools)
    return Image(
        name=birth.program.name,
        path=birth.path,
        program=pages.put(tx, "program", birth.program.source.encode()),
        tree=pages.put(tx, "tree", _encode(tree), tree.values()),
        inputs=pages.put(tx, "inputs", _encode(stored), [page for each in stored for page in each.pages]),
        tools=pages.put(tx, "tools", tools_page),
        opening=tuple(pages.put_message(tx, message) for message in begun.messages),
        opening_tokens=begun.tokens,
        reads_mail=any(tool.name == "receive" for tool in tools) and not birth.conversation,
        remembers=tuple(note_scopes(birth.program.tools)),
        band=birth.program.band,
        route=birth.route,
        reserve_tokens=reserve_of(tools_page if tools else b"", birth.program),
        output_tokens_max=output_tokens_max,
        frame_tokens_max=birth.program.frame_tokens or 0,
        segments=segments.numbers(tx, chain, birth.program.segments),
        schedule=birth.schedule,
    )


def reserve_of(tools: bytes, program: Program) -> int:
    """An estimate of what every frame carries besides its messages: the tool list and the output's schema."""
    output = _encode(program.output) if program.output is not None else b""
    return sum(estimate_tokens(part.decode()) for part in (tools, output) if part)


def _is_asked(tx: Tx, p: Process) -> bool:
    """Whether the last of what a context holds is a message, or its opening: then a reply is due."""
    last = pages.span(tx.rows, p, cover.grown(p) - 1, cover.grown(p)) if cover.grown(p) else []
    messages = [msgspec.json.decode(place.data, type=Message) for place in last]
    return not any(message.role != "user" or not (message.name or message.kind) for message in messages)


def _enter(tx: Tx, process: Process, context: tuple[str, ...], *, forked: bool) -> Process:
    ledger.open_account(tx, process.pid, process.accounts[1], process.budget)
    if process.slot_ms:
        timers.arm(tx, process.slot_ms, process.pid, timers.SLOT)
    pages.open_with(tx, process.pid, context)
    return tx.happen(None, Spawned(process=process, context=context, forked=forked))


def _store_input(tx: Tx, bound: Bound, *, mapped: bool) -> StoredInput:
    page = pages.put(tx, "file", str(bound.value).encode()) if mapped and bound.type == "text" else ""
    files = tuple(StoredFile(f.name, pages.put(tx, "file", f.text.encode())) for f in bound.files)
    return StoredInput(bound.name, bound.type, msgspec.Raw(_encode(bound.value)), files, page)


def _next_pid(tx: Tx) -> int:
    row = tx.one("pid_last")
    assert row is not None
    return int(row[0]) + 1


def check_live(tx: Tx, world: World, more: int = 1) -> None:
    """Raises LimitError when the home may not have `more` live processes."""
    if tx.live + more > world.settings.processes_max:
        raise LimitError(f"{tx.live} processes are alive already, of {world.settings.processes_max} (processes_max)")


def check_room(world: World, parent: Process, more: int) -> None:
    """Raises SyscallError when `parent` may not have `more` children beside those that it has."""
    if parent.depth + 1 > world.settings.depth_max:
        raise SyscallError(f"no child may be started: depth {parent.depth} is the limit (depth_max)")
    if parent.children + more > world.settings.children_max:
        raise SyscallError(f"no more than {world.settings.children_max} children may be started (children_max)")


def child_program(tx: Tx, world: World, parent: Process, syscall: str, name: str) -> Program:
    """The program that `parent` may start by `name` through this syscall. Raises SyscallError."""
    own = world.program(pages.get(tx, parent.program))
    granted = [n for grant in own.tools if grant.name == syscall for n in grant.arguments]
    if name not in granted:
        raise SyscallError(f"{syscall}: there is no program `{name}` (declared: {', '.join(granted) or 'none'})")
    tree: dict[str, str] = msgspec.json.decode(pages.get(tx, parent.tree))
    return world.program(pages.get(tx, tree[name]))


def image_within(tx: Tx, world: World, p: Process, program: Program, inputs: tuple[Bound, ...]) -> Image:
    """The image of one of the programs of `p`, for `p` itself. Raises SyscallError."""
    _check_segments(tx, p, program)
    birth = Birth(
        program=program,
        programs=_programs_of(tx, world, p),
        inputs=inputs,
        route=world.route(program.model),
        conversation=p.conversation,
    )
    return image_of(tx, world, birth, p.accounts, p)


def _programs_of(tx: Tx, world: World, p: Process) -> dict[str, Program]:
    tree: dict[str, str] = msgspec.json.decode(pages.get(tx, p.tree))
    return {name: world.program(pages.get(tx, page)) for name, page in tree.items()}


def bear_child(
    tx: Tx, world: World, parent: Process, program: Program, inputs: tuple[Bound, ...], call: str, item: str
) -> Process:
    """Write a child. It shares its parent's workspace, group and programs, and spends from its parent.

    Raises SyscallError, LimitError.
    """
    _check_segments(tx, parent, program)
    programs = _programs_of(tx, world, parent)
    route = Route(parent.engine, parent.model) if parent.engine_forced else world.route(program.model)
    birth = Birth(
        program=program,
        programs=programs,
        inputs=inputs,
        route=route,
        workspace=parent.workspace,
        group=parent.group,
        item=item,
        spawned_by=call,
        engine_forced=parent.engine_forced,
        paused=parent.paused,
    )
    return bear(tx, world, birth, parent)


def _check_segments(tx: Tx, p: Process, program: Program) -> None:
    """Raises SyscallError when `p`, or a child of it, may not map what `program` maps; then nothing was written."""
    try:
        segments.numbers(tx, p.accounts, (*program.segments, *append_segments(program.tools)))
    except NotFoundError as error:
        raise SyscallError(f"{program.name}: {error}") from error


def bear_run(tx: Tx, world: World, schedule: Process) -> Process:
    """Write the run of a schedule's next slot: its program with its inputs, once.

    Raises LimitError when there is no room for it, UsageError when its key is taken (a clock went back, or a person
    gave the key to another process).

    The program's budget is the run's own; a budget of the schedule is for all its runs together.
    """
    assert schedule.schedule is not None
    check_live(tx, world)
    alive = tx.one("process_spawned_count", schedule.pid, _RUN)
    if alive and alive[0] >= world.settings.children_max:
        raise LimitError(f"{alive[0]} runs have not ended, of {world.settings.children_max} (children_max)")
    pid = _next_pid(tx)
    slot = schedule.schedule.at(schedule.slot_ms)
    key = f"{schedule.pid}@{slot}"
    if row := tx.one("key_get", key):
        raise UsageError(f"the key `{key}` of its run belongs to {owner(row[0])}")
    context = pages.opening_of(tx.rows, schedule)
    born = replace(
        schedule, pid=pid, parent=schedule.pid, spawned_by=_RUN, item=slot, key=key,
        schedule=None, slot_ms=0, run=0, tainted="", accounts=(pid, *schedule.accounts),
        budget=world.program(pages.get(tx, schedule.program)).budget,
        depth=schedule.depth + 1, created_ms=tx.now_ms, detail="", paused=False, state=State.NEW, reason="",
    )  # fmt: skip
    tx.run("key_insert", key, pid, "")
    return _enter(tx, born, context, forked=False)


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
    pid, of = _next_pid(tx), past.process if past else source
    opening = past.opening if past else pages.opening_of(tx.rows, source)
    whole = of.asking is None and not of.calls and (of.exit_code is None or of.idle)
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
        reply="", calls=(), asking=None, attempts=0, failures=0, failures_here=0, refusals=0, given_up=(),
        retry_ms=0, mends=0,
        input_tokens=0, cached_tokens=0, output_tokens=0, cost_nano=0, deferred=False, quota=-1, wanted=0,
        wanted_nano=0, mail=0, children=0,
        paused=False, ending=False, interrupted=False, fault="", detail="", exit_code=None, result="", segments=shared,
        idle=whole and (of.idle or answered),
        noted=0 if notes.are_due(tx, of) else of.noted,  # a person took something away: not even the fork shows it
        state=State.NEW, reason="",
    )  # fmt: skip
    entered = _enter(tx, born, opening, forked=True)
    notes.inherit(tx, source, entered, mapped.seq)
    return entered
