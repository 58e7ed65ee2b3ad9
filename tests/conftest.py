"""Options of the test run. `--torture` makes the crash tests and the simulation long, and runs what has the marker
`torture`; `make torture` sets it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

FORGOTTEN = (
    "never retrieved",
    "was destroyed but it is pending",
)  # what asyncio says of a future or task nobody awaited


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--torture`, `--kills N`, `--seeds N`, `--seed N`."""
    parser.addoption("--torture", action="store_true", help="long crash tests")
    parser.addoption("--kills", type=int, default=0, help="how many real kill -9 (default 8; 50 with --torture)")
    parser.addoption("--seeds", type=int, default=0, help="how many simulations (default 1000; 10000 with --torture)")
    parser.addoption("--seed", type=int, default=0, help="of what is drawn by chance (printed by each run)")


def pytest_configure(config: pytest.Config) -> None:
    """The defaults that depend on each other."""
    if not config.option.kills:
        config.option.kills = 50 if config.option.torture else 8
    if not config.option.seeds:
        config.option.seeds = 10_000 if config.option.torture else 1_000


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What only `make torture` runs is skipped elsewhere, and says so."""
    if config.option.torture:
        return
    skip = pytest.mark.skip(reason="only `make torture` (--torture) runs this")
    for item in items:
        if item.get_closest_marker("torture"):
            item.add_marker(skip)


class Forgotten(logging.Handler):
    """What asyncio says, when garbage is collected, about errors that nobody looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Remember it, unless it is of another kind."""
        if any(words in (said := record.getMessage()) for words in FORGOTTEN):
            self.said.append(said)


@pytest.fixture(autouse=True)
def nothing_forgotten() -> Iterator[None]:
    """An error that nobody looked at fails the test in which it is found (perhaps left by the one before)."""
    handler = Forgotten()
    logging.getLogger("asyncio").addHandler(handler)
    yield
    logging.getLogger("asyncio").removeHandler(handler)
    assert not handler.said
