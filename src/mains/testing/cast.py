"""The cast of a simulation: programs, engines that misbehave, and devices that misbehave.

What an engine or a device does is a function of the seed and of the key of the call, so that a plan from which an
action was taken away changes no more of the story than it must. `calm` ends all trouble: engines then bring every
process to its end.
"""

from __future__ import annotations

import asyncio
import functools
import json
import random
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from mains.engines.scripted import ScriptedEngine
from mains.errors import ConfigError, DeviceError, EngineError, Spent
from mains.kernel.ports import CallContext, Done, Engine, EngineState, Failed, Finish, Reply, Request, ToolCall, Usage
from mains.kernel.process import Route
from mains.kernel.tariff import FREE, Rates, Tariff, Tariffs, Tier
from mains.program import Tree, load_tree
from mains.settings import Settings
from mains.testing.clock import FakeClock
from mains.testing.device import ScriptedDevice
from mains.testing.plan import Plan

PROGRAMS = {
    "root": """description: uses every kind of call
tools: ["spawn(worker, keeper)", spawn_each(worker), wait, send, receive, sleep, ask, exit, look, jot, ping]
inputs: {items: {type: json, default: [a, b]}}
""",
    "keeper": """description: is written to
tools: [send, sleep, ask, ping, look, exit]
on_doubt: skip
""",
    "worker": """description: works under a budget, on the far engine
tools: [spawn(former), wait, sleep, look, jot, ping, exit]
inputs: {word: {type: text, default: hi}}
on_doubt: retry
budget: 3000
model: [far, near]
""",
    "former": """description: has to answer with a number
tools: [ping, exit]
model: [near, far]
output: {type: object, properties: {n: {type: integer}}, required: [n]}
""",
    "hourly": """description: runs by itself
tools: [look, exit]
schedule: {cron: "*/20 * * * *", timezone: UTC, catch_up: all, overlap: skip}
""",
}
_TURNS_LONG = 5
_ARGUMENTS_BAD = (
    "{",
    "[]",
    '{"seconds": "soon"}',
    '{"program": "nobody"}',
    "null",
    '{"to": 99999999999999999999999}',
    "",
)
_PID = re.compile(r'"pid": ?(\d+)')
_PARAMETERS = {"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": False}


def write_programs(folder: Path) -> None:
    """Write the programs of every simulation into `folder`."""
    for name, front in PROGRAMS.items():
        (folder / f"{name}.md").write_text(f"---\nname: {name}\n{front}---\nDo it, {name}.\n")


@functools.cache
def library() -> dict[str, Tree]:
    """The programs, read: file name -> its tree."""
    with tempfile.TemporaryDirectory(prefix="mains-sim-") as folder:
        write_programs(Path(folder))
        return {f"{name}.md": load_tree(Path(folder) / f"{name}.md", Settings()) for name in PROGRAMS}


class Watch(Protocol):
    """Who is told of every act at the moment when it is made."""

    def model_called(self, request: Request) -> None:
        """A model call reached its engine."""
        ...

    def device_called(self, tool: str, context: CallContext, *, repeatable: bool) -> None:
        """A device call reached its device."""
        ...

    def excuse(self, pid: int) -> None:
        """An engine misbehaves in a way that may stop this process with an error of Python."""
        ...


_RATES = Rates.of(input=2_000_000_000, output=8_000_000_000)
_PAID = Tariff(name="far", currency="usd", home_currency="usd", tiers=(Tier(0, _RATES),))


class Cast:
    """The engines (it is their `Engines`, too) and devices of one simulation."""

    def __init__(self, plan: Plan, clock: FakeClock, watch: Watch) -> None:
        self._seed = plan.seed
        self._trouble = plan.trouble
        self._junk = plan.junk
        self._clock = clock
        self._watch = watch
        self.calm = False
        self._group = "one" if plan.seed % 2 else ""  # of a chain: in every other world its engines serve equally well
        self._engines = {
            name: ScriptedEngine.of(self._answer, name=name, slots=slots)
            for name, slots in zip(("near", "far"), plan.slots, strict=True)
        }
        self.devices = [
            ScriptedDevice("look", self._device("look", repeatable=True), parameters=_PARAMETERS, read_only=True),
            ScriptedDevice("jot", self._device("jot", repeatable=True), parameters=_PARAMETERS, idempotent=True),
            ScriptedDevice("ping", self._device("ping", repeatable=False), parameters=_PARAMETERS),
        ]

    @property
    def tariffs(self) -> Tariffs:
        """What its engines cost."""
        return _Prices()

    # engines, as the kernel finds them

    def route(self, models: tuple[str, ...]) -> Route:
        """The engine that a program names."""
        first, *others = models or ("near",)
        return Route(first, "", group=self._group, then=tuple(Route(name, "", group=self._group) for name in others))

    def force(self, name: str) -> Route:
        """The engine that a caller names."""
        return Route(name, "")

    def find(self, name: str, model: str) -> Engine:
        """The engine of this name. Raises ConfigError."""
        if name not in self._engines:
            raise ConfigError(f"there is no engine `{name}`")
        return self._engines[name]

    def states(self) -> list[EngineState]:
        """How each is."""
        return [engine.state() for engine in self._engines.values()]

    async def close(self) -> None:
        """Nothing to stop."""

    # what they say

    async def _answer(self, request: Request) -> Reply:
        self._watch.model_called(request)
        if self.calm:
            return self._last_words(request)
        chance = random.Random(f"{self._seed} {request.key}")  # noqa: S311 - a simulation is to be foreseen
        await self._take_time(chance)
        if chance.random() < 0.22 * self._trouble:
            return await self._fail(chance, request)
        turn = sum(message.role == "assistant" for message in request.messages)
        if turn > _TURNS_LONG or chance.random() < 0.2 or not request.tools:
            return self._text(chance, request)
        made = tuple(self._call(chance, request, n) for n in range(chance.choice((1, 1, 1, 2, 2, 3, 6))))
        return Reply("", made, self._usage(chance, request), Finish.CALLS)

    def _last_words(self, request: Request) -> Reply:
        return Reply('{"n": 1}' if request.output else "the end", usage=Usage(5, 0, 1))

    async def _take_time(self, chance: random.Random) -> None:
        kind = chance.random()
        if kind < 0.4:
            return
        if kind < 0.75:
            for _ in range(chance.randint(1, 25)):
                await asyncio.sleep(0)
        else:
            await self._clock.wait_ms(chance.choice((1, 100, 3_000, 40_000)))

    async def _fail(self, chance: random.Random, request: Request) -> Reply:
        kind = chance.randrange(9)
        if kind == 0:
            await asyncio.Event().wait()
        if kind in (1, 4):
            self._watch.excuse(int(request.key.partition("-")[0]))
        if kind == 1:
            raise RuntimeError("the engine has a bug")
        if kind == 2:
            return Reply("", finish=Finish.REFUSAL)
        if kind == 3:
            return Reply("  ", usage=self._usage(chance, request))
        if kind == 4:
            return Reply("too much to count", usage=Usage(10, 0, 1 << 70))
        if kind == 5:
            return Reply("half a \ud800 character", finish=Finish.LENGTH)
        spent = chance.choice((Spent.NOTHING, Spent.UNKNOWN))
        after_s = chance.choice((0.0, 0.0, 2.0, 90.0))
        raise EngineError(
            "no luck",
            retryable=chance.random() < 0.75,
            spent=spent,
            retry_after_s=after_s,
            throttled=after_s == 2.0,
        )

    def _text(self, chance: random.Random, request: Request) -> Reply:
        text = f"result of {request.key}"
        if request.output:
            text = chance.choice(('{"n": 3}', "three", '{"n": "3"}', '```json\n{"n": 4}\n```'))
        return Reply(text, usage=self._usage(chance, request))

    def _usage(self, chance: random.Random, request: Request) -> Usage | None:
        kind = chance.random()
        read = 10 * len(request.messages)
        if kind < 0.12 * self._trouble:
            return None
        if kind < 0.2 * self._trouble:
            return Usage(read, 0, request.output_tokens_max + chance.choice((1, 50, 3_000)))
        if kind < 0.24 * self._trouble:
            return Usage(-5, 0, -1)
        return Usage(read, read // 2, chance.randint(1, request.output_tokens_max))

    def _call(self, chance: random.Random, request: Request, number: int) -> ToolCall:
        tool = chance.choice(request.tools).name
        if chance.random() < self._junk:
            return self._junk_call(chance, request, tool, number)
        if chance.random() < 0.1 * self._trouble:
            tool = chance.choice((tool, tool, "nonsense", ""))
            return ToolCall("same", tool, chance.choice(_ARGUMENTS_BAD))
        return ToolCall(f"x{number}", tool, json.dumps(self._arguments(chance, request, tool, number)))

    def _junk_call(self, chance: random.Random, request: Request, tool: str, number: int) -> ToolCall:
        """Good arguments with one of them gone wrong, or none that are good."""
        arguments: Any = self._arguments(chance, request, tool, number)
        if chance.random() < 0.3:
            arguments = _junk(chance, 0)
        else:
            [schema] = [t.parameters.get("properties", {}) for t in request.tools if t.name == tool]
            arguments[chance.choice([*schema, "more"])] = _junk(chance, 0)
        name = chance.choice((tool, tool, tool, "exit", "send", "files.read", "\0", "x" * 3_000))
        return ToolCall("", name, json.dumps(arguments, ensure_ascii=chance.random() < 0.5))

    def _arguments(self, chance: random.Random, request: Request, tool: str, number: int) -> dict[str, Any]:
        children = [int(pid) for m in request.messages if m.name == "spawn" for pid in _PID.findall(m.text)]
        timeout = chance.choice(({}, {"timeout_s": 0}, {"timeout_s": 7}, {"timeout_s": 500.5}))
        match tool:
            case "spawn":
                [schema] = [t.parameters["properties"]["program"]["enum"] for t in request.tools if t.name == "spawn"]
                return {"program": chance.choice(schema), "inputs": {}}
            case "spawn_each":
                return {"program": "worker", "over": chance.choice(("items", "items", "prompt"))}
            case "wait":
                pids = chance.choice((children, children[:1], [chance.randint(1, 9)]))
                return timeout | ({"pids": pids} if pids and chance.random() < 0.6 else {})
            case "send":
                return {"to": chance.choice([*children, *range(1, 9)]), "text": f"<{request.key}.{number}>"}
            case "receive":
                return timeout
            case "sleep":
                return {"seconds": chance.choice((0, 0.001, 3, 600))}
            case "ask":
                return {"question": "go on?"}
            case "exit":
                earlier = [m.call_id for m in request.messages if m.role == "tool"]
                if earlier and chance.random() < 0.4:
                    return {"results_of": chance.choice([*earlier, "call_0_0"])}
                return {"result": chance.choice(("done", '{"n": 7}')), "code": chance.choice((0, 0, 0, 3))}
            case _:
                return {"n": number}

    # devices

    def _device(self, tool: str, *, repeatable: bool) -> Any:
        async def answer(arguments: Mapping[str, Any], context: CallContext) -> Done | Failed | DeviceError:
            self._watch.device_called(tool, context, repeatable=repeatable)
            if self.calm:
                return Done(f"{tool} {context.key}")
            chance = random.Random(f"{self._seed} {context.key} {context.attempt}")  # noqa: S311 - a simulation is to be foreseen
            await self._take_time(chance)
            kind = chance.random() / max(self._trouble, 1e-9)
            if kind < 0.06:
                return Failed("not today")
            if kind < 0.12:
                return DeviceError("the line went dead")
            if kind < 0.15:
                await asyncio.Event().wait()
            if kind < 0.17:
                return Done("long " * 100)
            return Done(f"{tool} {context.key}")

        return answer


def _junk(chance: random.Random, depth: int) -> Any:
    """Anything that JSON can say, and some things that it cannot."""
    kind = chance.randrange(12 if depth < 3 else 9)
    plain = (
        None, True, chance.choice((0, 1, -1, 7, 1 << 31, 1 << 63, -(1 << 70))), chance.choice((0.5, -1.0, 1e308)),
        "", "text", "half \ud800", "\0", "x" * 2_000,
    )  # fmt: skip
    if kind < 9:
        return plain[kind]
    if kind == 9:
        return [_junk(chance, depth + 1) for _ in range(chance.randrange(4))]
    return {
        chance.choice(("pids", "to", "n", "", "deep")): _junk(chance, depth + 1) for _ in range(chance.randrange(4))
    }


class _Prices:
    """`far` has a price, `near` is free."""

    def find(self, engine: str, model: str, now_ms: int) -> Tariff:
        return _PAID if engine == "far" else FREE
