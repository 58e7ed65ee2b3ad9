"""Birth: spawn and fork. Everything is prepared and checked first; the transaction only writes.

`World` is what operations know besides their transaction: settings, programs by their pages, the tools that devices
offer now, and which engine a program's model is. It is read-only.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mains.errors import LimitError, NotFoundError, SyscallError, UsageError
from mains.kernel import accounts, cover, ledger, pages, segments, timers
from mains.kernel.context import StoredFile, StoredInput
from mains.kernel.event import Spawned
from mains.kernel.grants import Layer
from mains.kernel.mapping import opened
from mains.kernel.process import Image, Process, Route, State, replace
from mains.kernel.sized import sized
from mains.kernel.toolset import toolset, with_memory
from mains.kernel.tx import Tx
from mains.kernel.world import World
from mains.program import (
    PROMPT,
    Bound,
    Program,
    Schedule,
    append_segments,
    estimate_tokens,
    note_scopes,
)

_encode = msgspec.json.Encoder(order="deterministic").encode
_ANSWERS = 4  # of the usual size that fit into a small frame: the next call must hold what the last one said
_VIEWS = 4  # that fit into the half of a small frame
_RUN = "schedule"  # a run is spawned by no call


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
    pid = next_pid(tx)
    chain, account, tenant = _payer(tx, world, birth, parent)
    image = image_of(tx, world, birth, chain, above=layers_of(tx, world, parent) if parent else ())
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
        above=image.above,
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
    return enter(tx, process, image.opening, forked=False)


def _payer(tx: Tx, world: World, birth: Birth, parent: Process | None) -> tuple[Sequence[int], str, int]:
    """The accounts that a process spends from, the named one of them, and its number."""
    if parent is None:
        place, chain = accounts.payer(tx, world.settings, birth.account, birth.program.name)
        return chain, place.name, place.account
    return accounts.program_account(tx, world.settings, parent, birth.program.name), parent.account, parent.tenant


def image_of(
    tx: Tx,
    world: World,
    birth: Birth,
    chain: Sequence[int],
    of: Process | None = None,
    above: Sequence[Layer] = (),
) -> Image:
    """What a program makes of a process that spends from the accounts of `chain`, below those whom `above` granted so
    much.

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
    tools, _ = toolset(birth.program, stored, birth.programs, world.tools(), above)
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
        above=pages.put(tx, "grants", _encode(above)) if above else "",
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


def layers_of(tx: Tx, world: World, p: Process) -> list[Layer]:
    """What was granted to all above a process, the oldest first, and last to itself: its children have no more."""
    own = Layer(p.name, _holder(p), world.program(pages.get(tx, p.program)).tools)
    return [*(each for each in _layers_above(tx, p) if each != own), own]


def layers_for_person(tx: Tx, p: Process) -> list[Layer]:
    """What was granted to the programs of a process's ancestors: all that a person, who gives it another program, is
    bound by."""
    return [each for each in _layers_above(tx, p) if each.holder != _holder(p)]


def _layers_above(tx: Tx, p: Process) -> list[Layer]:
    """What was granted to a process's ancestors, and to what it was itself before it became what it is (`exec`)."""
    return msgspec.json.decode(pages.get(tx, p.above), type=list[Layer]) if p.above else []


def _holder(p: Process) -> int:
    """In whom the rates of a process's own grants are counted: a fork brings none of its own, nor a schedule's run."""
    if p.spawned_by == _RUN:
        return p.parent
    return p.maps[0].pid if p.maps else p.pid


def reserve_of(tools: bytes, program: Program) -> int:
    """An estimate of what every frame carries besides its messages: the tool list and the output's schema."""
    output = _encode(program.output) if program.output is not None else b""
    return sum(estimate_tokens(part.decode()) for part in (tools, output) if part)


def enter(tx: Tx, process: Process, context: tuple[str, ...], *, forked: bool) -> Process:
    ledger.open_account(tx, process.pid, process.accounts[1], process.budget)
    if process.slot_ms:
        timers.arm(tx, process.slot_ms, process.pid, timers.SLOT)
    pages.open_with(tx, process.pid, context)
    return tx.happen(None, Spawned(process=process, context=context, forked=forked))


def _store_input(tx: Tx, bound: Bound, *, mapped: bool) -> StoredInput:
    page = pages.put(tx, "file", str(bound.value).encode()) if mapped and bound.type == "text" else ""
    files = tuple(StoredFile(f.name, pages.put(tx, "file", f.text.encode())) for f in bound.files)
    return StoredInput(bound.name, bound.type, msgspec.Raw(_encode(bound.value)), files, page)


def next_pid(tx: Tx) -> int:
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
    """The image of one of the programs of `p`, for `p` itself: which gains nothing by it. Raises SyscallError."""
    _check_segments(tx, p, program)
    birth = Birth(
        program=program,
        programs=_programs_of(tx, world, p),
        inputs=inputs,
        route=world.route(program.model),
        conversation=p.conversation,
    )
    return image_of(tx, world, birth, p.accounts, p, layers_of(tx, world, p))


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
    forced = Route(parent.engine, parent.model, parent.context_tokens)
    birth = Birth(
        program=program,
        programs=programs,
        inputs=inputs,
        route=forced if parent.engine_forced else world.route(program.model),
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
    pid = next_pid(tx)
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
    return enter(tx, sized(world.route, born), context, forked=False)
