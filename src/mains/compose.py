"""The composition root: a home's settings -> engines and devices -> kernel -> desk. Behind `mains.open` and the daemon.

async with mains.open(home) as kernel:
    pid = await kernel.spawn("agent.md", {"question": "..."})
    print((await kernel.wait(pid)).result)
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from mains.bus.devices.files import Files
from mains.engines import catalogue
from mains.engines.catalogue import EngineSpec
from mains.errors import UsageError
from mains.home import Home
from mains.kernel.birth import Route
from mains.kernel.clock import Clock, SystemClock
from mains.kernel.desk import Desk
from mains.kernel.main import Kernel
from mains.kernel.ports import Device, Engine, Probe
from mains.settings import Settings


class Engines:
    """The engines of a home by name, and the way from a program's `model` to one of them."""

    def __init__(self, specs: Mapping[str, EngineSpec], default: str) -> None:
        self.specs = specs
        self.default = default

    @classmethod
    def of(cls, home: Home) -> Engines:
        """As mains.toml says. Raises ConfigError."""
        document = home.document()
        specs = catalogue.load_engines(document.get("engines", {}), str(home.config))
        return cls(specs, catalogue.default_engine(document, specs, str(home.config)))

    def route(self, models: tuple[str, ...]) -> Route:
        """The engine and model of a program."""
        return Route(*self.choice(models)[:2])

    def choice(self, models: tuple[str, ...]) -> tuple[str, str, str]:
        """The engine, its model, and a note when that is not what the program asked for."""
        chosen = catalogue.resolve(models[0] if models else "", self.specs, self.default)
        return chosen.spec.name, chosen.model, chosen.note

    def force(self, name: str) -> Route:
        """The route to an engine (or `engine/model`) that a caller names. Raises UsageError."""
        engine, _, model = name.partition("/")
        if engine not in self.specs:
            known = ", ".join(sorted(self.specs))
            raise UsageError(f"there is no engine `{engine}` (known: {known})", hint="`mains engine add` adds one")
        return Route(engine, model or self.specs[engine].model)


def build(spec: EngineSpec, home: Home, settings: Settings) -> Engine:
    """The engine of a spec; nothing is started."""
    if spec.kind == "openai":
        from mains.engines.openai import OpenAIEngine

        return OpenAIEngine(spec, timeout_s=settings.model_timeout_s)
    if spec.kind == "scripted":
        from mains.engines.scripted import ScriptedEngine

        return ScriptedEngine.load(
            home.path / spec.path, name=spec.name, slots=spec.slots, context_tokens=spec.context_tokens
        )
    from mains.engines.llama import LlamaEngine

    return LlamaEngine(spec, home.logs / f"{spec.name}.log", settings)


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
        async with booted as desk:
            yield desk


@contextlib.asynccontextmanager
async def boot(
    place: Home,
    *,
    engines: Sequence[Engine] = (),
    devices: Sequence[Device] = (),
    settings: Settings | None = None,
    clock: Clock | None = None,
    probe: Probe | None = None,
) -> AsyncIterator[Desk]:
    """A kernel over a home that is prepared and whose lock is held (see `open`)."""
    settings = settings or place.settings()
    configured = Engines.of(place)
    specs = dict(configured.specs)
    for engine in engines:
        specs[engine.name] = EngineSpec(name=engine.name, kind="scripted", slots=engine.slots, path="(given)")
    routes = Engines(specs, engines[0].name if engines else configured.default)
    built = {name: build(spec, place, settings) for name, spec in specs.items() if spec.path != "(given)"}
    built |= {engine.name: engine for engine in engines}
    kernel = Kernel(
        place.database,
        settings,
        clock or SystemClock(),
        built,
        [Files(), *devices],
        routes.route,
        workspaces=place.workspaces,
        chance=random.Random(),  # noqa: S311 - jitter of back-offs
        probe=probe,
    )
    async with kernel:
        yield Desk(kernel, routes.force)
