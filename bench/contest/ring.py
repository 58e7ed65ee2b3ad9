"""Where contestants meet: the upstream's process, the rivals' environment, and a contestant run for a job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from bench import machine
from bench.child import ROOT, serving
from bench.contest.contestant import Job

RIVALS_PYTHON = ROOT / ".venv-rivals" / "bin" / "python"
JOB_TIMEOUT_S = 300


class Contestant(NamedTuple):
    """Who takes part: a module of `bench.contest`, its mode, and whether it needs the rivals' environment."""

    name: str
    module: str
    mode: str = ""
    rival: bool = True


MAINS = Contestant("Mains", "mains_agents", rival=False)
BARE = Contestant("bare loop", "bare_loop", rival=False)
LANGGRAPH = Contestant("LangGraph sync", "langgraph_agents", "sync")
LANGGRAPH_ASYNC = Contestant("LangGraph async", "langgraph_agents", "async")
LANGGRAPH_LEAN = Contestant("LangGraph sync, bare HTTP", "langgraph_agents", "sync lean")
PYDANTIC = Contestant("pydantic-ai on DBOS", "pydantic_agents")
DBOS = Contestant("DBOS", "dbos_agents")
MAINS_CAPPED = Contestant("Mains, account", "mains_capped", rival=False)
LANGCHAIN_CAPPED = Contestant("LangChain, call limit", "langchain_capped")
PYDANTIC_CAPPED = Contestant("pydantic-ai, limit of a run", "pydantic_capped", "run")
PYDANTIC_SHARED = Contestant("pydantic-ai, shared usage", "pydantic_capped", "shared")
PYDANTIC_SPEND = Contestant("pydantic-ai-harness, spend limit", "pydantic_capped", "spend")
DBOS_STEPS = Contestant("DBOS, empty steps", "dbos_agents", "steps")


def upstream() -> AbstractContextManager[int]:
    """The upstream, in a process of its own; its port."""
    if not RIVALS_PYTHON.exists():
        raise SystemExit("the rivals are not installed here: `make bench-rivals` installs them and runs this")
    return serving("bench.contest.upstream")


def start(contestant: Contestant, job: Job) -> subprocess.Popen[bytes]:
    """The contestant's process at work."""
    python = str(RIVALS_PYTHON) if contestant.rival else sys.executable
    environ = os.environ | {"LANGSMITH_TRACING": "false", "DBOS__VMID": "contest", "PYTHONWARNINGS": "ignore"}
    command = [python, "-m", f"bench.contest.{contestant.module}", json.dumps(asdict(job))]
    return subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def result(process: subprocess.Popen[bytes]) -> dict[str, Any] | None:
    """What it printed; None when it was killed by a signal. Raises RuntimeError with its last words when it failed."""
    try:
        printed, said = process.communicate(timeout=JOB_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        _, said = process.communicate()
        raise RuntimeError(f"not done after {JOB_TIMEOUT_S} s: {said[-2_000:].decode(errors='replace')}") from None
    if process.returncode < 0:
        return None
    if process.returncode:
        raise RuntimeError(said[-2_000:].decode(errors="replace"))
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found


def run(contestant: Contestant, job: str, port: int, *, turns: int, at_once: int, agents: int) -> dict[str, Any]:
    """Do a job in a fresh folder; a second time when the first failed, and the screen says so. Raises RuntimeError."""
    try:
        return _run(contestant, Job(job, "", port, turns, at_once, agents, contestant.mode))
    except RuntimeError as error:
        print(f"  {contestant.name} FAILED, once more: {error}", file=sys.stderr, flush=True)
        return _run(contestant, Job(job, "", port, turns, at_once, agents, contestant.mode))


def _run(contestant: Contestant, job: Job) -> dict[str, Any]:
    with machine.scratch() as folder:
        found = result(start(contestant, replace(job, folder=str(folder))))
        if found is None:
            raise RuntimeError(f"{contestant.name} was killed by a signal")
        print(f"  {contestant.name}: {_shown(found)} (load {machine.load():.2f})", file=sys.stderr, flush=True)
        return found


def versions() -> str:
    """The rivals' versions, as installed."""
    names = (
        "langgraph", "langgraph-checkpoint-sqlite", "langchain", "dbos", "pydantic-ai-slim", "pydantic-ai-harness",
        "openai",
    )  # fmt: skip
    code = f"import importlib.metadata as m; print(', '.join(f'{{n}} {{m.version(n)}}' for n in {names!r}))"
    return subprocess.run([RIVALS_PYTHON, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def folder_lines(path: Path) -> list[str]:
    """The lines of a file, or none."""
    return path.read_text().splitlines() if path.exists() else []


def _shown(found: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value:,.3g}" for key, value in found.items() if isinstance(value, int | float))
