"""What engines and log lines say of secrets: their names."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import pytest

from mains.discretion import DiscreetEngines, DiscreetFormatter
from mains.engines.scripted import ScriptedEngine
from mains.errors import EngineError, Spent
from mains.home import Home
from mains.kernel.ports import Engine, EngineState, Message, Reply, Request
from mains.settings import Settings
from mains.vault import Vault, set_secret

VALUE = "cAn4ry-0123456789"


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    """A vault with one secret."""
    home = Home(tmp_path)
    set_secret(home, Settings(), "TOKEN", VALUE, [], "plaintext")
    return Vault(home)


def test_a_log_line_and_the_trace_of_an_error_hold_no_value(vault: Vault) -> None:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(DiscreetFormatter(vault))
    log = logging.Logger("test")
    log.addHandler(handler)
    try:
        try:
            raise ValueError(f"bad {VALUE}")
        except ValueError as error:
            raise RuntimeError("worse") from error
    except RuntimeError:
        log.exception("it was %s", VALUE)
    assert "it was [secret TOKEN]" in out.getvalue()
    assert "ValueError: bad [secret TOKEN]" in out.getvalue()
    assert VALUE not in out.getvalue()


class Room:
    """One engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def find(self, name: str, model: str) -> Engine:
        return self.engine

    def states(self) -> list[EngineState]:
        return [self.engine.state()]

    async def close(self) -> None:
        await self.engine.close()


async def test_an_engines_error_holds_no_value_and_all_else_is_as_it_was(vault: Vault) -> None:
    def refuse(request: Request) -> Reply:
        raise EngineError(f"no such key: {VALUE}", retryable=True, spent=Spent.NOTHING, hint=VALUE, retry_after_s=2.0)

    inner = ScriptedEngine.of(refuse)
    engine = DiscreetEngines(Room(inner), vault).find("", "")
    assert (engine.name, engine.slots, engine.context_tokens) == (inner.name, inner.slots, inner.context_tokens)
    with pytest.raises(EngineError) as caught:
        await engine.complete(Request((Message("user", "x"),), 10), lambda _: None)
    assert (str(caught.value), caught.value.hint) == ("no such key: [secret TOKEN]", "[secret TOKEN]")
    assert (caught.value.retryable, caught.value.retry_after_s) == (True, 2.0)
