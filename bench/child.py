"""Functions and servers in a Python of their own: fresh memory, and something that can be killed.

`in_child(function, ...)` runs a function of a bench module in a new interpreter and gives what it returns (JSON).
`serving(module, ...)` runs a server in one: it prints its port, and ends when its standard input does.
"""

from __future__ import annotations

import contextlib
import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).resolve().parent.parent


def command(function: Callable[..., Any], *arguments: Any) -> list[str]:
    """The command line that runs `function(*arguments)`; it must stand at the top of a module."""
    encoded = msgspec.json.encode(arguments).decode()
    return [sys.executable, "-m", "bench.child", function.__module__, function.__name__, encoded]


def in_child(function: Callable[..., Any], *arguments: Any) -> Any:
    """What `function(*arguments)` returns in a new interpreter."""
    done = subprocess.run(command(function, *arguments), cwd=ROOT, stdout=subprocess.PIPE, check=True)
    return msgspec.json.decode(done.stdout)


@contextlib.contextmanager
def serving(module: str, *arguments: str, python: str = sys.executable) -> Iterator[int]:
    """The port of a server that `python -m module` is, until the end of the block."""
    line = [python, "-m", module, *arguments]
    with subprocess.Popen(line, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            yield int(server.stdout.readline())
        finally:
            server.stdin.close()
            server.wait(10)


def main(module: str, name: str, arguments: str) -> None:
    """The other end of `in_child`."""
    value = getattr(importlib.import_module(module), name)(*msgspec.json.decode(arguments))
    print(msgspec.json.encode(value).decode(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
