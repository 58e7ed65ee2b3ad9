"""Nothing forgotten: a conversation of 400 turns in a frame of 8,000 tokens, with 200 facts and 20 rules planted in it.

A real kernel runs it; only the model and the tool are scripted (`facts_script.py`). Checked:

    rules     all rules that hold stand in every frame that the engine saw
    frames    each is within 8,000 tokens by the kernel's estimate, with its tools and room for the answer; a call is
              never without its result
    facts     at four places each fact that came so far stands in the frame, or is among the first five places that
              `recall` gives for its wording, and for three questions that a rule made of it in other words
    bytes     `read` gives what every position had, word for word
    journal   the audit finds nothing

By meaning, too, where the rivals' environment is (`facts_vectors.py`). Beside it the same script under other policies
(`facts_policies.py`), where what left a frame is gone.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

import mains
from bench import facts_policies, facts_vectors, kernel, machine
from bench.child import ROOT
from bench.contest.ring import RIVALS_PYTHON
from bench.facts_kinds import RULES
from bench.facts_policies import Frame, Replayed, Shown, Sliding, Summarise, Truncation, holds
from bench.facts_script import FRAME_TOKENS, FULL, OUTPUT_TOKENS, QUICK, Planted, Script, script
from bench.facts_summary import SUMMARISERS
from bench.report import Figure, Report
from mains.compose import Source
from mains.engines.scripted import ScriptedEngine
from mains.errors import KernelPanic
from mains.kernel import audit, pages, reckon
from mains.kernel.context import tokens_of
from mains.kernel.desk import Desk
from mains.kernel.lookup import Documents, Lookup, text_of
from mains.kernel.ports import Finish, Message, Reply, Request, ToolCall, Usage
from mains.kernel.process import Process
from mains.program import estimate_tokens
from mains.search.index import Index

_ENCODE = msgspec.json.Encoder(order="deterministic").encode
_ASKED = "Everything above"
CHILD_S = 300
EVERY = 10  # of the facts, which the model looks up itself
_PART = re.compile(r"^\[mem:\d+: characters (\d+)-(\d+) of (\d+)[^\n]*\]\n")


class Checked(msgspec.Struct):
    """What was seen at a checkpoint: facts so far, how many are in the frame, how many `recall` finds, by question."""

    exchange: int
    facts: int
    resident: int
    recalled: dict[str, int]  # of those that are not in the frame
    reached: dict[str, int]  # in the frame or recalled
    missed: dict[str, dict[str, int]]  # of each question, the kinds of those that are neither


class Read(msgspec.Struct):
    """What `read` gave of all positions: evicted ones, and how many have other bytes than were said."""

    evicted: int
    wrong: int


class Ours(msgspec.Struct):
    """A run of the kernel."""

    shown: Shown
    frames: int  # with those in which facts are looked up
    apart: int  # frames in which a call is without its result
    over: int  # frames that are too large
    checked: list[Checked]
    read: Read
    brought: int  # facts that `recall` brought back, called by the model
    covers: int


class Model:
    """The scripted model: calls the tool as the script says, and answers what asks for a summary.

    When the script is over it is asked for facts: it calls `recall` once, and notes whether the fact came back.
    """

    def __init__(self, script: Script, summariser: str) -> None:
        self.wanted: Planted | None = None
        self.brought = 0
        self.script, self.summarise = script, SUMMARISERS[summariser]
        self.turn = 0
        self.shown, self.before = Shown(), list[Message]()
        self.apart = self.over = self.tools = 0

    def answer(self, request: Request) -> Reply:
        """The next line of the script."""
        at, n = divmod(self.turn, self.script.size.calls + 1)
        asked = request.messages[-1].text.startswith(_ASKED)
        at = min(at, self.script.size.exchanges - 1)
        self._look(request, at, asked)
        if asked:
            text = self.summarise([message.text for message in request.messages[1:-1] if message.kind != "rule"])
            return _says(text, request)
        self.turn += 1
        if self.wanted is not None:
            return self._looked_up(self.wanted, request)
        if n == self.script.size.calls:
            return _says(self.script.exchanges[at].reply, request)
        call = ToolCall("x", "look", f'{{"task":{at},"n":{n}}}')
        return Reply("", (call,), _usage(request, 10), Finish.CALLS)

    def _looked_up(self, wanted: Planted, request: Request) -> Reply:
        last = request.messages[-1]
        if last.role != "tool":
            query = msgspec.json.encode({"query": wanted.fact.questions["question"]}).decode()
            return Reply("", (ToolCall("x", "recall", query),), _usage(request, 30), Finish.CALLS)
        self.brought += wanted.fact.text in last.text
        return _says("I have looked it up.", request)

    def _look(self, request: Request, at: int, asked: bool) -> None:
        frame, shown = list(request.messages), self.shown
        tools = estimate_tokens(_ENCODE(request.tools).decode())
        size = sum(map(tokens_of, frame)) + tools
        shown.count(frame, self.before if tools == self.tools else [], tools)  # other tools: all is read again
        shown.largest = max(shown.largest, size + request.output_tokens_max)
        shown.note(frame, self.script, at)
        self.before, self.tools = frame, tools
        self.over += size + request.output_tokens_max > FRAME_TOKENS
        self.apart += _is_apart(frame)
        if asked:
            shown.calls += 1
        else:
            shown.ruled += holds(frame, self.script.rules_by(at))


def _usage(request: Request, output: int) -> Usage:
    return Usage(sum(map(tokens_of, request.messages)), 0, output)


def _says(text: str, request: Request) -> Reply:
    return Reply(text, usage=_usage(request, estimate_tokens(text)))


def _is_apart(frame: Sequence[Message]) -> bool:
    """Whether a call in a frame is without its result, or a result without its call."""
    due: list[str] = []
    for message in frame:
        if message.role == "tool":
            if due[:1] != [message.call_id]:
                return True
            del due[0]
        elif due:
            return True
        due += [call.id for call in message.calls]
    return bool(due)


def run(folder: Path, script: Script, summariser: str, checkpoints: Sequence[int]) -> Ours:
    """The script through a kernel over a fresh home."""
    return kernel.run(_run(folder, script, summariser, checkpoints))


async def _run(folder: Path, script: Script, summariser: str, checkpoints: Sequence[int]) -> Ours:
    model = Model(script, summariser)

    def look(task: int, n: int) -> str:
        """Read a report."""
        return script.exchanges[task].results[n]

    program = folder / "reader.md"
    front = f"frame_tokens: {FRAME_TOKENS}\nmax_tokens: {OUTPUT_TOKENS}\ntools: [look]"
    program.write_text(f"---\nname: reader\ndescription: reads reports\n{front}\n---\n{script.prose}\n")
    engine, device = ScriptedEngine.of(model.answer, slots=1), mains.device(read_only=True)(look)
    async with mains.open(folder / "home", engines=[engine], devices=[device]) as desk:
        pid = await desk.spawn(program, conversation=True)
        index = Index(folder / "probe.db", Source(Documents(desk.journal)), wait_s=600)
        lookup = Lookup(desk.journal, index, mains.Settings())
        checked = []
        for at, each in enumerate(script.exchanges):
            if each.rule:
                await desk.send(pid, each.rule, rule=True)
            await desk.send(pid, each.message)
            await kernel.until(partial(_rests, desk, pid, model, (at + 1) * (script.size.calls + 1)))
            if at + 1 in checkpoints:
                checked.append(await _check(desk, lookup, pid, script, at + 1))
        shown = msgspec.structs.replace(
            model.shown, seen=set(model.shown.seen)
        )  # of the script; what follows is looked up
        await _ask_for(desk, pid, model, script)
        p = _process(desk, pid)
        read = await _read_all(desk, lookup, p, script)
        await index.close()
        if faults := audit.verify(desk.journal) + reckon.verify(desk.journal):
            raise KernelPanic(f"the audit found {len(faults)} faults: {faults[0]}")
        return Ours(shown, model.shown.frames, model.apart, model.over, checked, read, model.brought, p.covers)


async def _ask_for(desk: Desk, pid: int, model: Model, script: Script) -> None:
    """Let the model look up every tenth fact itself."""
    for each in script.planted[::EVERY]:
        model.wanted = each
        await desk.send(pid, "Look this up.")
        turns = model.turn + 2
        await kernel.until(partial(_rests, desk, pid, model, turns))


def _process(desk: Desk, pid: int) -> Process:
    [p] = desk.journal.processes("process_get", pid)
    return p


def _rests(desk: Desk, pid: int, model: Model, turns: int) -> bool:
    p = _process(desk, pid)
    if p.idle and p.detail:
        raise KernelPanic(f"turn {model.turn}: {p.detail}")
    return p.idle and not p.mail and model.turn == turns


async def _check(desk: Desk, lookup: Lookup, pid: int, script: Script, exchange: int) -> Checked:
    """Where each fact is that came so far."""
    p = _process(desk, pid)
    places = pages.frame(desk.journal.rows, p)
    text = "\n".join(msgspec.json.decode(place.data, type=Message).text for place in places)
    planted = script.planted_by(exchange)
    in_frame = {each.fact.text for each in planted if each.fact.text in text}
    gone = [each for each in planted if each.fact.text not in in_frame]
    checked = Checked(exchange, len(planted), len(in_frame), {}, {}, {})
    for name in ("wording", *RULES):
        lost = [each.fact.kind for each in gone if not await _is_found(lookup, p, each, name)]
        checked.recalled[name] = len(gone) - len(lost)
        checked.reached[name] = len(planted) - len(lost)
        checked.missed[name] = dict(Counter(lost))
    return checked


async def _is_found(lookup: Lookup, p: Process, planted: Planted, name: str) -> bool:
    """Whether `recall` shows a fact in the first five places."""
    query = planted.fact.text if name == "wording" else planted.fact.questions[name]
    return planted.fact.text in await lookup.call(p, "recall", {"query": query, "k": 5})


async def _read_all(desk: Desk, lookup: Lookup, p: Process, script: Script) -> Read:
    """Read every position in ranges, and compare with what was said."""
    said = {text for each in script.exchanges for text in (each.rule, each.message, *each.results, each.reply)}
    wanted = {hashlib.sha256(text.encode()).digest() for text in said}
    last = sum(2 + len(each.results) * 2 + bool(each.rule) for each in script.exchanges)  # what follows is looked up
    shown = {place.page for place in pages.frame(desk.journal.rows, p)}
    evicted = wrong = 0
    for place in pages.history(desk.journal.rows, p, p.opening)[:last]:
        message = msgspec.json.decode(place.data, type=Message)
        text = await _whole(lookup, p, f"mem:{place.position}")
        is_said = not message.calls and hashlib.sha256(text.encode()).digest() in wanted
        right = is_said if not message.calls else text == text_of(message)
        evicted += place.page not in shown
        wrong += not right
    return Read(evicted, wrong)


async def _whole(lookup: Lookup, p: Process, handle: str) -> str:
    """All that `read` gives of a handle, range by range."""
    text, end = "", 1
    while len(text) < end:
        arguments: dict[str, Any] = {"handle": handle}
        if text:
            arguments["range"] = f"characters {len(text)}-{end}"
        given = await lookup.call(p, "read", arguments)
        found = _PART.match(given)
        if found is None:
            return given
        text, end = text + given[found.end() :], int(found[3])
    return text


class Row(msgspec.Struct, frozen=True):
    """A contestant: what it showed, and of the facts at the end those that are in the frame."""

    name: str
    shown: Shown


def rivals(script: Script, checkpoints: Sequence[int]) -> list[Row]:
    """The other policies over the same script."""
    rows = [
        Row("full history", facts_policies.full(script)),
        Row("truncation", facts_policies.run(script, Truncation(script), checkpoints)),
        Row("sliding window", facts_policies.run(script, Sliding(script), checkpoints)),
    ]
    for name, summariser in SUMMARISERS.items():
        policy = Summarise(script, summariser)
        rows.append(Row(f"summarise at 80 %, {name}", facts_policies.run(script, policy, checkpoints)))
        if RIVALS_PYTHON.exists():
            theirs = Replayed(script, _of_langchain(script, name))
            rows.append(Row(f"LangChain's summaries, {name}", facts_policies.run(script, theirs, checkpoints)))
    return rows


def _of_langchain(script: Script, summariser: str) -> Iterator[Frame]:
    """The frames of LangChain's middleware, which is run in an environment of its own."""
    with machine.scratch() as folder:
        path = folder / "job.json"
        path.write_bytes(facts_policies.job(script, summariser))
        command = [str(RIVALS_PYTHON), "-m", "bench.contest.langchain_summary", str(path)]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, timeout=CHILD_S, check=True)
    return iter([msgspec.json.decode(line, type=Frame) for line in done.stdout.splitlines()])


def _of_ours(name: str, ours: Ours, script: Script) -> list[Figure]:
    last, turns, shown = ours.checked[-1], script.size.turns, ours.shown
    figures = [
        _all(f"{name}: frames with all rules", 100 * shown.ruled / turns),
        Figure(f"{name}: rules in the last frame", shown.rules, f"of {2 * script.size.rules}"),
        _all(f"{name}: frames within {FRAME_TOKENS:,}", 100 * (1 - ours.over / ours.frames)),
        _none(f"{name}: frames with a call and no result", ours.apart, "frames"),
        Figure(f"{name}: largest frame", shown.largest, "tokens"),
    ]
    for each in ours.checked:
        least = 100 * each.reached["wording"] / each.facts
        figures.append(_all(f"{name}: facts reachable by wording, exchange {each.exchange}", least))
    figures.append(Figure(f"{name}: facts in the last frame", 100 * last.resident / last.facts, "%"))
    figures.append(Figure(f"{name}: facts that the model was shown", 100 * len(shown.seen) / last.facts, "%"))
    brought = 100 * ours.brought / len(script.planted[::EVERY])
    figures.append(Figure(f"{name}: facts brought back by the model's own recall", brought, "%"))
    for question in ("wording", *RULES):
        gone = last.recalled[question] / max(1, last.recalled[question] + sum(last.missed[question].values()))
        figures.append(Figure(f"{name}: of those that left, recalled by {question}", 100 * gone, "%"))
    return [
        *figures,
        _none(f"{name}: positions that `read` gives wrongly", ours.read.wrong, "positions"),
        Figure(f"{name}: positions that left the frame", ours.read.evicted, "positions"),
        Figure(f"{name}: summaries", shown.calls, "calls"),
        Figure(f"{name}: evictions", ours.covers, ""),
        *_bill(name, shown),
    ]


def _bill(name: str, shown: Shown) -> list[Figure]:
    return [
        Figure(f"{name}: tokens sent", shown.sent / 1_000, "thousand"),
        Figure(f"{name}: of them not in the cache", shown.fresh / 1_000, "thousand"),
    ]


def _all(what: str, value: float) -> Figure:
    return Figure(what, value, "%", "100", value == 100)


def _none(what: str, value: float, unit: str) -> Figure:
    return Figure(what, value, unit, "0", value == 0)


def _of_rival(row: Row, script: Script) -> list[Figure]:
    shown = row.shown
    figures = [Figure(f"{row.name}: frames with all rules", 100 * shown.ruled / (shown.frames - shown.calls), "%")]
    if not shown.stopped:
        figures.append(Figure(f"{row.name}: rules in the last frame", shown.rules, f"of {2 * script.size.rules}"))
    if shown.stopped:
        figures.append(Figure(f"{row.name}: does not fit any more in turn", shown.stopped, ""))
    else:
        figures.append(Figure(f"{row.name}: facts reachable", 100 * shown.found[-1][1] / script.size.facts, "%"))
        figures.append(
            Figure(f"{row.name}: facts that the model was shown", 100 * len(shown.seen) / script.size.facts, "%")
        )
        figures.append(Figure(f"{row.name}: frames with a message cut to fit", shown.cut, "frames"))
    return [*figures, *_bill(row.name, shown)]


def measure(quick: bool) -> tuple[Script, dict[str, Ours], facts_vectors.Asked | None, list[Row]]:
    """The kernel with both summarisers, the last one's memory asked with vectors (None: no model), and the rivals."""
    made = script(QUICK if quick else FULL)
    checkpoints = [made.size.exchanges * part // 4 for part in (1, 2, 3, 4)]
    ours, asked = {}, None
    for name in SUMMARISERS:
        with machine.scratch() as folder:
            ours[name] = run(folder, made, name, checkpoints)
            if name == list(SUMMARISERS)[-1] and facts_vectors.is_here():
                asked = facts_vectors.run(folder / "home", made)
    return made, ours, asked, rivals(made, checkpoints)


def main(quick: bool) -> Report:
    """All of it once."""
    made, ours, asked, rows = measure(quick)
    figures = [figure for name, each in ours.items() for figure in _of_ours(f"Mains, {name}", each, made)]
    figures += facts_vectors.figures(asked) if asked else []
    figures += [figure for row in rows for figure in _of_rival(row, made)]
    whole = sum(len(text.encode()) for each in made.exchanges for text in each.results) / 1e6
    notes = [
        f"{made.size.turns} turns, {made.size.facts} facts, {2 * made.size.rules} rules; {whole:.1f} MB of results",
        *(f"{name}: neither in the last frame nor recalled: {each.checked[-1].missed}" for name, each in ours.items()),
        *([] if asked else [facts_vectors.MISSING]),
    ]
    return Report("facts", tuple(figures), tuple(notes))
