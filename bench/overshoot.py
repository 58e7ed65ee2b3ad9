"""No overshoot: 200 processes, one account with room for 37 calls, an engine that behaves badly, and `kill -9`.

The engine (`bench.bad_engine`, a process of its own) answers slowly, breaks off a third of the streams, reports usage
late or not at all, and bills more than asked in 5 %. Above every process stand a limit of tokens in all, one of money a
month, and the home's of tokens a day and money a week. When all have ended or stand (breaker), the account is topped up
by 37 calls, and so on until everybody has ended.

The database is then counted again by `bench.recount`, which shares no code with the ledger: no hold above a limit at
any place in the journal, overruns only as entries, sums of zero in both units, every hold ended, nobody lost. In the
second part the kernel's process is killed at random moments (SIGKILL), and the database is counted after every kill.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple

import msgspec

from bench import machine, metered, recount
from bench.child import ROOT, serving
from bench.metered import Life, Told
from bench.report import Figure, Report

CALLS = 37
SEED = 4
KILLS_S = 480.0  # no more kills are begun after so long: the whole stays within ten minutes
_KILL_AFTER_S = 1.2  # a kill comes at most so long after the boot
_LIFE_S = 600.0


class Size(NamedTuple):
    """How many processes, and how many kills."""

    processes: int
    calls: int
    kills: int


FULL = Size(200, CALLS, 100)
QUICK = Size(12, 5, 2)


class Outcome(NamedTuple):
    """What a part came to: violations, how many holds there were of each kind, and what the engine saw."""

    faults: list[str]
    holds: dict[str, int]
    engine: dict[str, int]
    told: Told
    kills: int = 0
    checks: int = 0


def seen(port: int) -> dict[str, int]:
    """What the engine has counted."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/state", timeout=30) as response:
        found: dict[str, int] = json.load(response)
        return found


def start(life: Life) -> subprocess.Popen[bytes]:
    """A life in a process of its own, up."""
    command = [sys.executable, "-m", "bench.metered", msgspec.json.encode(life).decode()]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ)
    assert process.stdout is not None
    if process.stdout.readline() != b"up\n":
        raise RuntimeError(_last_words(process))
    return process


def finish(process: subprocess.Popen[bytes]) -> Told:
    """What a life told at its end. Raises RuntimeError with its last words."""
    try:
        printed, said = process.communicate(timeout=_LIFE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        printed, said = process.communicate()
    if process.returncode:
        raise RuntimeError(said[-4_000:].decode(errors="replace"))
    return msgspec.json.decode(printed.splitlines()[-1], type=Told)


def _last_words(process: subprocess.Popen[bytes]) -> str:
    _, said = process.communicate(timeout=_LIFE_S)
    return said[-4_000:].decode(errors="replace")


def one_account(folder: Path, size: Size) -> tuple[Outcome, Outcome]:
    """The account until it is empty for the first time, and then with top-ups until everybody has ended."""
    tokens = asyncio.run(metered.size_of_a_call(_made(folder / "probe")))
    database = folder / "home" / "mains.db"
    with serving("bench.bad_engine", str(tokens)) as port:
        life = Life(str(folder), port, size.processes, size.calls, tokens)
        parts = []
        for rests in (1, 0):
            told = finish(start(msgspec.structs.replace(life, rests=rests)))
            parts.append(Outcome(recount.recount(database), recount.charged(database), seen(port), told, checks=1))
    return parts[0], parts[1]


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def under_kills(folder: Path, size: Size, seed: int, span_s: float = KILLS_S) -> Outcome:
    """So many lives, each killed at a random moment and counted afterwards; a last one comes to the end."""
    chance, database = random.Random(seed), folder / "home" / "mains.db"
    tokens = asyncio.run(metered.size_of_a_call(_made(folder / "probe")))
    faults: list[str] = []
    kills, until = 0, time.monotonic() + span_s
    with serving("bench.bad_engine", str(tokens)) as port:
        life = Life(str(folder), port, size.processes, size.calls, tokens, ever=True)
        while kills < size.kills and time.monotonic() < until:
            process = start(life)
            time.sleep(chance.random() * _KILL_AFTER_S)
            if process.poll() is not None:
                raise RuntimeError(_last_words(process))
            process.kill()
            process.communicate()
            kills += 1
            faults += [f"kill {kills}: {fault}" for fault in recount.recount(database, in_flight=True)]
        told = finish(start(msgspec.structs.replace(life, ever=False)))
        faults += recount.recount(database)
        return Outcome(faults, recount.charged(database), seen(port), told, kills, kills + 1)


def main(quick: bool) -> Report:
    """One account, then the same under kills."""
    size = QUICK if quick else FULL
    with machine.scratch() as folder:
        empty, ended = one_account(_made(folder / "one"), size)
        killed = under_kills(_made(folder / "kills"), size, SEED)
    most = size.calls
    figures = [
        Figure("calls that the engine saw, account empty", empty.engine["calls"], "calls", f"{most} at most",
               0 < empty.engine["calls"] <= most),
        Figure("stood with an open breaker then", size.processes - empty.told.ended, f"of {size.processes} processes"),
        *_figures("one account", ended, size),
        *_figures("under kills", killed, size),
        Figure("kills", killed.kills, "kill -9", f"{size.kills}", killed.kills == size.kills),
    ]  # fmt: skip
    for fault in [*empty.faults, *ended.faults, *killed.faults][:20]:
        print(f"  {fault}", file=sys.stderr)
    return Report("overshoot", tuple(figures), _notes(size, ended, killed))


def _figures(name: str, outcome: Outcome, size: Size) -> list[Figure]:
    wrong = [*outcome.faults, *outcome.told.wrong]
    return [
        Figure(f"{name}, violations", len(wrong), f"in {outcome.checks} counts", "none", not wrong),
        Figure(f"{name}, came to their end", outcome.told.ended, "processes", "all", outcome.told.ended > 0),
        Figure(f"{name}, holds", sum(outcome.holds.get(s, 0) for s in ("posted", "voided", "expired")), "holds"),
        Figure(f"{name}, overruns", outcome.holds["overruns"], "entries"),
        Figure(f"{name}, top-ups and kills aside, standstills", outcome.told.rests, "times"),
    ]


def _notes(size: Size, *outcomes: Outcome) -> tuple[str, ...]:
    told = "; ".join(f"{outcome.engine}, charged {outcome.holds['tokens']:,} tokens" for outcome in outcomes)
    return (f"{size.processes} processes, room for {size.calls} calls", f"the engine saw: {told}")
