"""A kernel to kill: twenty processes on an HTTP engine, each with a tool that must not be called twice for one thing.

    python -m tests.crash.worker FOLDER

FOLDER/home/mains.toml names the engine. Every effect of the tool is one line in FOLDER/effects; every call that was in
doubt is one line in FOLDER/doubts, with what the file of effects said about it. Prints `up` when it has booted and
`done` when all twenty have ended.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import mains
from mains.kernel.desk import Desk

PROCESSES = 20


def note(path: Path, text: str) -> None:
    """Append one line, whole, at once."""
    with path.open("ab", buffering=0) as file:
        file.write(f"{text}\n".encode())


async def main(folder: Path) -> None:
    """Boot, start (or find) the twenty, decide doubts, and wait for the end."""

    @mains.device
    def count(n: int, context: mains.CallContext) -> str:
        """Count something, once."""
        note(folder / "effects", context.key)
        return f"counted {n}"

    async with mains.open(folder / "home", devices=[count]) as kernel:
        print("up", flush=True)
        pids = [await kernel.spawn(folder / "counter.md", key=f"p{n}") for n in range(PROCESSES)]
        await asyncio.gather(*[_to_the_end(kernel, pid, folder) for pid in pids])
        print("done", flush=True)


async def _to_the_end(kernel: Desk, pid: int, folder: Path) -> None:
    while (outcome := await kernel.wait(pid)).state != "EXITED":
        if not outcome.reason.startswith("in doubt"):
            raise AssertionError(outcome)
        call = next(c for c in (await kernel.show(pid))["open_calls"] if c["state"] == "in doubt")
        effects = folder / "effects"
        happened = effects.exists() and f"{pid}-{call['id']}" in effects.read_text().splitlines()
        note(folder / "doubts", f"{pid}-{call['id']} {happened}")
        await kernel.answer(pid, 'done="counted, as was seen"' if happened else "retry")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
