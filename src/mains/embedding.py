"""Embedding: the vectors of a home's memory, when `[memory]` of mains.toml names what makes them, metered.

    [memory]
    embedder = "cloud/text-embedding-3-small"      # an engine and one of its models

Each request takes a hold of the home's account first and is settled with what the endpoint counted (the whole hold when
it says nothing), so that limits hold for it, too. Where there is no room, memory is searched by words alone.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from mains.engines.catalogue import EngineSpec
from mains.engines.embeddings import EndpointEmbedder
from mains.errors import ConfigError, EngineError, MainsError, Spent
from mains.kernel.desk import Desk
from mains.program import estimate_tokens

_ACCOUNT = "home"
_TIMEOUT_S = 60.0


def embedder_of(document: Mapping[str, Any], specs: Mapping[str, EngineSpec], where: str) -> EndpointEmbedder | None:
    """What `[memory]` of a whole mains.toml names; None: nothing. Raises ConfigError."""
    table = document.get("memory", {})
    if not isinstance(table, Mapping) or set(table) - {"embedder"} or not isinstance(table.get("embedder", ""), str):
        raise ConfigError(f"{where}: [memory] is wrong", hint='write [memory], then embedder = "engine/model"')
    engine, _, model = table.get("embedder", "").partition("/")
    if not engine:
        return None
    spec = specs.get(engine)
    if spec is None or spec.kind != "openai":
        known = ", ".join(sorted(name for name, each in specs.items() if each.kind == "openai")) or "none"
        raise ConfigError(
            f"{where}: [memory] embedder: `{engine}` is no engine that makes vectors",
            hint=f"name one of kind openai (there are: {known})",
        )
    return EndpointEmbedder(spec, model or spec.model, timeout_s=_TIMEOUT_S)


class MeteredEmbedder:
    """An embedder whose calls are held and settled. `desk` is set when the kernel has booted."""

    def __init__(self, inner: EndpointEmbedder) -> None:
        self._inner = inner
        self.desk: Desk | None = None

    @property
    def name(self) -> str:
        """What decides what a vector is."""
        return self._inner.name

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """A vector for each text. Raises EngineError."""
        if self.desk is None:
            raise EngineError("the kernel has not booted", retryable=True, spent=Spent.NOTHING)
        engine, _, model = self.name.partition("/")
        try:
            hold = await self.desk.hold(
                _ACCOUNT,
                sum(map(estimate_tokens, texts)),
                1,
                engine=engine,
                model=model,
                key=f"embed {uuid.uuid4()}",
                timeout_s=_TIMEOUT_S,
            )
            await self.desk.hold_sent(hold.id)
        except MainsError as error:
            raise EngineError(f"no vectors: {error}", retryable=True, spent=Spent.NOTHING) from error
        try:
            vectors, usage = await self._inner.counted(texts)
        except EngineError as error:
            if error.spent is Spent.NOTHING:
                await self.desk.void(hold.id)
            else:
                await self.desk.settle(hold.id, None)
            raise
        await self.desk.settle(hold.id, usage)
        return vectors

    async def close(self) -> None:
        """Close the connections."""
        await self._inner.close()
