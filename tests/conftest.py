"""Options of the test run. `--torture` makes the crash tests long; `make torture` sets it."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--torture`, `--kills N`, `--seed N`."""
    parser.addoption("--torture", action="store_true", help="long crash tests")
    parser.addoption("--kills", type=int, default=0, help="how many real kill -9 (default 8; 50 with --torture)")
    parser.addoption("--seed", type=int, default=0, help="of what is drawn by chance (printed by each run)")


def pytest_configure(config: pytest.Config) -> None:
    """The defaults that depend on each other."""
    if not config.option.kills:
        config.option.kills = 50 if config.option.torture else 8
