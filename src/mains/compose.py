"""The composition root: a home's settings -> engines and devices -> kernel -> desk. Behind `mains.open` and the daemon.

async with mains.open(home) as kernel:
    pid = await kernel.spawn("agent.md", {"question": "..."})
    print((await kernel.wait(pid)).result)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from mains.bus.devices.files import Files, may_link
from mains.bus.devices.time import Time
from mains.bus.devices.web import Web
from mains.bus.devices.webrules import read_rules
from mains.bus.doors import Doors
from mains.bus.hub import Hub, Seams
from mains.bus.openings import doors_of
from mains.bus.secrets import DiscreetDevices, NoSecrets, Secrets
from mains.discretion import DiscreetEngines
from mains.embedding import MeteredEmbedder, embedder_of
from mains.engines import catalogue
from mains.engines.aliases import Aliases, expand, load_aliases
from mains.engines.catalogue import EngineSpec
from mains.engines.price import Money
from mains.engines.tariffs import Catalogue
from mains.errors import ConfigError, UsageError
from mains.home import Home
from mains.kernel.care import Care
from mains.kernel.clock import Clock, SystemClock
from mains.kernel.desk import Desk
from mains.kernel.devicelist import DeviceList
from mains.kernel.lookup import Documents
from mains.kernel.main import Kernel
from mains.kernel.ports import CallContext, Device, Engine, EngineState, Keeper, Notice, Probe, Tool
from mains.kernel.process import Route
from mains.kernel.toolset import SYSCALLS
from mains.rulebook import Rulebook, allow_always
from mains.search.index import Index
from mains.search.source import Doc
from mains.secretfile import PASSPHRASE_VARIABLE
from mains.settings import Settings
from mains.vault import Vault


class Engines:
    """The engines of a home by name, the way from a program's `model` to one of them, and those that are at work.

    mains.toml is read at the start and again for a name that is not known, so that `mains engine add` needs no restart.
    An engine is built when it is first needed: one that is configured wrongly fails only those who want it.
    """

    def __init__(self, home: Home, settings: Settings | None = None, given: Sequence[Engine] = ()) -> None:
        self._home = home
        self._settings = settings or Settings()
        self._at_work: dict[str, Engine] = {engine.name: engine for engine in given}
        self._first = given[0].name if given else ""
        self.specs: dict[str, EngineSpec] = {}
        self.default = ""
        self.aliases: Aliases = {}
        self._read()

    @classmethod
    def of(cls, home: Home) -> Engines:
        """As mains.toml says. Raises ConfigError."""
        return cls(home)

    def _read(self) -> None:
        """Take over what mains.toml says: all of it, or nothing when anything in it is wrong. Raises ConfigError."""
        document, where = self._home.document(), str(self._home.config)
        specs = catalogue.load_engines(document.get("engines", {}), where)
        for engine in self._at_work.values():
            if engine.name not in specs:
                specs[engine.name] = EngineSpec(
                    name=engine.name, kind="scripted", path="(given)", context_tokens=engine.context_tokens
                )
        aliases = load_aliases(document, specs, where)
        default = self._first or catalogue.default_engine(document, specs, where)
        self.specs, self.aliases, self.default = specs, aliases, default

    def chain(self, models: tuple[str, ...]) -> tuple[list[Route], list[str]]:
        """The engines and their models that a program gets, in order, and what is not as the program asked for."""
        routes: list[Route] = []
        notes: list[str] = []
        for name in expand(models, self.aliases) or ("",):
            chosen = catalogue.resolve(name, self.specs, self.default)
            notes += [chosen.note] if chosen.note else []
            same = catalogue.replicas(name, self.specs)
            for spec in same or (chosen.spec,):
                model = spec.path if spec.path.endswith(".gguf") else chosen.model
                route = Route(spec.name, model, spec.context_tokens, group=name if same else "")
                if all((route.engine, route.model) != (known.engine, known.model) for known in routes):
                    routes.append(route)
        return routes, notes

    def route(self, models: tuple[str, ...]) -> Route:
        """The engine and model of a program, with those that follow when these cannot serve."""
        (first, *rest), _ = self.chain(models)
        return msgspec.structs.replace(first, then=tuple(rest))

    def force(self, name: str) -> Route:
        """The route to an engine (or `engine/model`) that a caller names. Raises UsageError."""
        engine, _, model = name.partition("/")
        if engine not in self.specs:
            self._read()
        if engine not in self.specs:
            known = ", ".join(sorted(self.specs))
            raise UsageError(f"there is no engine `{engine}` (known: {known})", hint="`mains engine add` adds one")
        spec = self.specs[engine]
        return Route(engine, model or spec.model, spec.context_tokens)

    def find(self, name: str, model: str) -> Engine:
        """The engine of this name, built when it is first asked for. Raises ConfigError."""
        if name not in self._at_work:
            if name not in self.specs:
                self._read()
            spec = self.specs.get(name) or catalogue.resolve(model, self.specs, self.default).spec
            if spec.name != name:
                raise ConfigError(f"the engine `{name}` is not configured", hint="`mains engine ls` lists engines")
            self._at_work[name] = build(spec, self._home, self._settings)
        return self._at_work[name]

    def states(self) -> list[EngineState]:
        """How each engine is; one that nobody has needed yet is `idle`."""
        idle = [_idle(spec) for name, spec in self.specs.items() if name not in self._at_work]
        return sorted([*idle, *(engine.state() for engine in self._at_work.values())], key=lambda state: state.name)

    async def forget(self, processes: Collection[int]) -> None:
        """Keep nothing of processes that are removed, in an engine or in its files. Raises ConfigError."""
        for engine in [*self._at_work.values()]:
            if isinstance(engine, Keeper):
                await engine.forget(processes)
        if self._home.kv.is_dir():
            from mains.engines import kv_store

            try:
                await asyncio.to_thread(kv_store.forget, self._home.kv, frozenset(processes))
            except OSError as error:
                text = f"{self._home.kv}: what an engine kept of a process cannot be removed: {error.strerror}"
                raise ConfigError(text, hint="remove the folder by hand while no daemon runs") from error

    async def close(self) -> None:
        """Stop those that are at work."""
        for engine in self._at_work.values():
            await engine.close()


class Source:
    """The documents of a kernel's memory, for the search index."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    def read(self, space: str, start: int, most: int) -> list[Doc]:
        """At most `most` documents of a space from a position on."""
        return [Doc(*each) for each in self._documents.documents(space, start, most)]


def tariffs_of(home: Home, specs: Callable[[], Mapping[str, EngineSpec]]) -> Catalogue:
    """What models cost in this home; `specs` gives its engines as they are now. Raises ConfigError."""
    where = str(home.config)
    return Catalogue(specs, Money.of(home.document(), where), where)


def _idle(spec: EngineSpec) -> EngineState:
    return EngineState(spec.name, spec.kind, spec.model, spec.slots, 0, "idle", spec.context_tokens, 0.0)


def build(spec: EngineSpec, home: Home, settings: Settings) -> Engine:
    """The engine of a spec; nothing is started."""
    if spec.kind in catalogue.ENDPOINTS:
        return _endpoint(spec, settings)
    if spec.kind == "scripted":
        from mains.engines.scripted import ScriptedEngine

        return ScriptedEngine.load(
            home.path / spec.path, name=spec.name, slots=spec.slots, context_tokens=spec.context_tokens
        )
    from mains.engines.llama import LlamaEngine

    return LlamaEngine(spec, home.logs / f"{spec.name}.log", settings, kv=home.kv / spec.name)


def _endpoint(spec: EngineSpec, settings: Settings) -> Engine:
    from mains.engines.endpoint import Dialect, EndpointEngine

    dialect: Dialect
    if spec.kind == "anthropic":
        from mains.engines.anthropic import AnthropicDialect

        dialect = AnthropicDialect()
    else:
        from mains.engines.openai import OpenAIDialect

        dialect = OpenAIDialect()
    return EndpointEngine(
        spec,
        dialect,
        timeout_s=settings.model_timeout_s,
        first_byte_s=settings.first_byte_s,
        stream_idle_s=settings.stream_idle_s,
    )


def built_in(home: Home, settings: Settings, files: Files, clock: Clock) -> Sequence[Device]:
    """The devices that every home has. What the web may be asked for is read from mains.toml at each call."""
    return files, Web(lambda: read_rules(home.document(), str(home.config)), settings), Time(clock)


def tools_of(home: Home, settings: Settings) -> Sequence[Tool]:
    """The tools that there are, for whoever only looks: those of MCP devices as they were last listed. Raises
    ConfigError."""
    return hub_of(home, settings, built_in(home, settings, Files(), SystemClock())).tools()


def hub_of(
    home: Home,
    settings: Settings,
    fixed: Sequence[Device],
    devices: Sequence[Device] = (),
    tell: Callable[[Notice], None] = lambda _: None,
    secrets: Secrets | None = None,
    doors: Doors | None = None,
) -> Hub:
    """The devices of a home: the `fixed` ones, those given, and those of mains.toml. Raises ConfigError."""

    def progress(context: CallContext, device: str, text: str) -> None:
        tell(Notice(kind="progress", pid=context.pid, text=f"{device}: {text}"))

    return Hub(
        home,
        settings,
        DeviceList([*fixed, *devices]),
        Seams(doors or Doors(), progress=progress, reserved=SYSCALLS, secrets=secrets or NoSecrets()),
    )


@contextlib.asynccontextmanager
async def open(
    home: str | Path | None = None,
    *,
    engines: Sequence[Engine] = (),
    devices: Sequence[Device] = (),
    settings: Settings | None = None,
    clock: Clock | None = None,
    probe: Probe | None = None,
) -> AsyncIterator[Desk]:
    """Boot a kernel over a home and hold its lock until the end.

    `engines` are added to those of mains.toml (one of the same name takes its place; the first is the default one);
    `devices` are added to the built-in ones. Raises ConfigError, HomeLockedError, JournalError.
    """
    place = Home.find(home)
    place.prepare()
    booted = boot(place, engines=engines, devices=devices, settings=settings, clock=clock, probe=probe)
    with place.lock():
        async with booted as machine:
            yield machine.desk


class Machine(NamedTuple):
    """What runs in a home: a kernel, behind its desk, the hub of its devices, and the vault of its secrets."""

    desk: Desk
    hub: Hub
    vault: Vault


@contextlib.asynccontextmanager
async def boot(
    place: Home,
    *,
    engines: Sequence[Engine] = (),
    devices: Sequence[Device] = (),
    settings: Settings | None = None,
    clock: Clock | None = None,
    probe: Probe | None = None,
) -> AsyncIterator[Machine]:
    """A kernel over a home that is prepared and whose lock is held (see `open`)."""
    settings = settings or place.settings()
    room = Engines(place, settings, engines)
    tariffs = tariffs_of(place, lambda: room.specs)
    clock = clock or SystemClock()
    vectors = embedder_of(place.document(), room.specs, str(place.config))
    embedder = MeteredEmbedder(vectors) if vectors else None
    vault = Vault(place, os.environ.get(PASSPHRASE_VARIABLE, ""))
    await asyncio.to_thread(vault.look)
    files = Files(place, settings, hard_links=may_link(place.document(), str(place.config)), now_ms=clock.now_ms)
    fixed = built_in(place, settings, files, clock)
    doors = doors_of(lambda: kernel.attending)
    hub = hub_of(place, settings, fixed, devices, lambda notice: kernel.watchers.tell(notice), vault, doors)
    kernel = Kernel(
        place.database,
        settings,
        clock,
        DiscreetEngines(room, vault),
        DiscreetDevices(hub, vault),
        room.route,
        rules=Rulebook(place).rules,
        workspaces=place.workspaces,
        tariffs=tariffs,
        currency=tariffs.money.home,
        chance=random.Random(),  # noqa: S311 - jitter of back-offs
        probe=probe,
        search=lambda documents: Index(place.memory, Source(documents), embedder=embedder),
    )

    async def forget(pids: Collection[int]) -> None:
        await room.forget(pids)
        await files.forget(pids)

    async with kernel, Care(kernel, clock, forget) as care:
        desk = Desk(kernel, room.force, care, files, partial(allow_always, place))
        if embedder is not None:
            embedder.desk = desk
        hub.begin()
        try:
            yield Machine(desk, hub, vault)
        finally:
            if embedder is not None:
                await embedder.close()
