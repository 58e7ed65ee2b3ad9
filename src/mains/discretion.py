"""Discretion: what engines and log lines say, without what a vault holds."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, cast

from mains.bus.secrets import Secrets, redact_error
from mains.errors import MainsError
from mains.kernel.ports import Engine, Engines, EngineState, Reply, Request

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class DiscreetEngines:
    """Engines whose errors hold no secret: an endpoint may quote what it was sent."""

    def __init__(self, engines: Engines, secrets: Secrets) -> None:
        self._engines = engines
        self._secrets = secrets

    def find(self, name: str, model: str) -> Engine:
        """The engine of this name. Raises ConfigError."""
        return cast(Engine, _DiscreetEngine(self._engines.find(name, model), self._secrets))

    def states(self) -> list[EngineState]:
        """How each engine is."""
        return self._engines.states()

    async def close(self) -> None:
        """Stop them all."""
        await self._engines.close()


class _DiscreetEngine:
    """An engine as it is, but for the words of its errors."""

    def __init__(self, engine: Engine, secrets: Secrets) -> None:
        self._engine = engine
        self._secrets = secrets

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def complete(self, request: Request, on_delta: Callable[[str], None]) -> Reply:
        try:
            return await self._engine.complete(request, on_delta)
        except MainsError as error:
            redact_error(error, self._secrets)
            raise

    async def start(self) -> None:
        try:
            await self._engine.start()
        except MainsError as error:
            redact_error(error, self._secrets)
            raise


class DiscreetFormatter(logging.Formatter):
    """Log lines, and the traces of errors in them, without secrets."""

    def __init__(self, secrets: Secrets) -> None:
        super().__init__(LOG_FORMAT)
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        return self._secrets.redact(super().format(record))
