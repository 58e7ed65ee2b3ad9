"""No leaks: many processes use five devices in turn, and the daemon is killed meanwhile.

Each device is a launcher, a server and a worker below a supervisor. There is never more than one of each for a device,
nothing is left after a kill or at the end, the daemon's memory and descriptors stay level, every process comes to its
end and every call happened once. The next daemon is started at once after a kill, while what is left of the devices of
the one before still ends.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.crash.census import Census, look
from tests.crash.leak_server import arguments
from tests.unit.daemon_box import Box

from mains.errors import DaemonError

DEVICES = ("one", "two", "three", "four", "five")
LIMIT_S = 60.0
GONE_S = 10.0  # for all processes of the devices of a daemon that was killed
TRIES = 20
GROWTH = 1.25  # of memory, from the first tenth to the end
DESCRIPTORS = 12  # more at the end than after the first tenth: connections of threads that were not needed before
pytestmark = [
    pytest.mark.crash,
    pytest.mark.timeout(1_500),
    pytest.mark.skipif(sys.platform != "linux", reason="the reaper of orphans, and /proc, are Linux's"),
]


class Sizes(NamedTuple):
    """How many processes, at once, and kills."""

    processes: int
    wave: int
    kills: int


class Home:
    """A home with five devices, a program that uses them in turn, and what their calls leave behind."""

    def __init__(self, folder: Path) -> None:
        self.box = Box(folder)
        told = folder / "told"
        told.mkdir()
        self.effects = told / "effects"
        self.effects.touch()
        grants = "".join(f'[[grants]]\nallow = "{name}.mark"\n' for name in DEVICES)
        devices = "".join(
            f'[devices.{name}]\ncommand = "{sys.executable}"\ntrust_hints = true\n'
            f"read = {json.dumps([str(Path(__file__).parent)])}\nwrite = {json.dumps([str(told)])}\n"
            f"args = {json.dumps(arguments(name, str(self.effects)))}\n"
            for name in DEVICES
        )
        with self.box.home.config.open("a") as config:
            config.write(grants + devices)
        script = "".join(f"      - calls: [{{name: {name}.mark, arguments: {{n: 1}}}}]\n" for name in DEVICES)
        (self.box.home.path / "replies.yaml").write_text(f"replies:\n  - sequence:\n{script}      - all five\n")
        tools = ", ".join(f"{name}.mark" for name in DEVICES)
        (folder / "user.md").write_text(f"---\nname: user\ndescription: Uses five.\ntools: [{tools}]\n---\nUse.\n")
        self.doubts = 0
        self.numbers = itertools.count(1)

    def list_tools(self) -> None:
        """Have all devices list their tools: a process gets those that are known when it starts."""
        client = self.box.client()
        for name in DEVICES:
            assert [tool["name"] for tool in client.device_tools(name)["tools"]] == ["mark"]

    def done(self) -> int:
        """How many calls have had their effect."""
        return self.effects.read_bytes().count(b"\n")

    def wave(self, size: int) -> None:
        """So many processes at once, each to its end."""
        pids = [self._spawned(f"p{next(self.numbers)}") for _ in range(size)]
        for pid in pids:
            self._settle(pid)

    def _spawned(self, key: str) -> int:
        for left in reversed(range(TRIES)):
            try:
                return self.box.client().spawn("user.md", {}, key=key, cwd=str(self.box.folder))
            except DaemonError:
                if not left:
                    raise
        raise AssertionError

    def _settle(self, pid: int) -> None:
        for left in reversed(range(TRIES)):
            try:
                settled, outcome = self.box.client().wait(pid, LIMIT_S)
                assert settled, outcome
                if outcome["state"] == "EXITED":
                    assert outcome["result"] == "all five", str(outcome)
                    return
                self._decide(pid, outcome)
            except DaemonError:
                if not left:
                    raise
        raise AssertionError(f"process {pid} does not come to its end")

    def _decide(self, pid: int, outcome: dict[str, Any]) -> None:
        """A person looks whether the call in doubt has happened, and says so."""
        assert outcome["reason"].startswith("in doubt"), outcome
        client = self.box.client()
        call = next(each for each in client.show(pid)["open_calls"] if each["state"] == "in doubt")
        happened = f" {pid}-{call['id']}\n" in self.effects.read_text()
        client.answer(pid, 'done="seen in the file"' if happened else "retry")
        self.doubts += 1

    def daemon(self) -> int:
        """The pid of the daemon that answers."""
        return int(self.box.client(start=False).hello()["pid"])


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path)
    try:
        made.list_tools()
        yield made
    finally:
        made.box.close()


def test_no_leaks(home: Home, request: pytest.FixtureRequest) -> None:
    sizes = Sizes(1_000, 40, 20) if request.config.option.torture else Sizes(40, 10, 2)
    seed = request.config.getoption("--seed") or random.randrange(1 << 32)
    print(f"seed {seed}")
    with Census(str(home.effects)) as census:
        stay_level(home, sizes)
        survive_kills(home, sizes, census, random.Random(seed))
        home.box.close()
        left, _ = census.watch_end(GONE_S)
    print(f"most at once, in {census.looks} looks: {dict(census.most)}; {left} had not ended when the daemon had")
    assert all(count <= len(DEVICES) for count in census.most.values()), census.most
    assert census.most["server"] == len(DEVICES)
    assert look(str(home.effects)) == []
    lines = home.effects.read_text().splitlines()
    assert len(set(lines)) == len(lines), "a call was made twice"
    pids = range(1, 2 * sizes.processes + 1)
    assert set(lines) == {f"{name} {pid}-call_{turn}_1" for pid in pids for turn, name in enumerate(DEVICES, 1)}


def stay_level(home: Home, sizes: Sizes) -> None:
    """One daemon, one start of each device: memory and descriptors after a tenth of the processes, and at the end."""
    tenth = max(sizes.wave, sizes.processes // 10)
    for size in _waves(tenth, sizes.wave):
        home.wave(size)
    daemon = home.daemon()
    memory, descriptors = weigh(daemon)
    for size in _waves(sizes.processes - tenth, sizes.wave):
        home.wave(size)
    assert home.daemon() == daemon
    memory_end, descriptors_end = weigh(daemon)
    print(f"after {tenth:,} / {sizes.processes:,} processes: {memory:.1f} / {memory_end:.1f} MB,", end=" ")
    print(f"{descriptors} / {descriptors_end} descriptors")
    assert [state["starts"] for state in home.box.client().devices()] == [1] * len(DEVICES)
    assert memory_end < memory * GROWTH
    assert descriptors_end <= descriptors + DESCRIPTORS


def survive_kills(home: Home, sizes: Sizes, census: Census, chance: random.Random) -> None:
    """As many processes again, and a kill at a random call of each of the first waves."""
    ends, counts, faults = list[float](), list[int](), list[str]()
    for index, size in enumerate(_waves(sizes.processes, sizes.wave)):
        if index >= sizes.kills:
            home.wave(size)
            continue
        at = home.done() + chance.randint(1, size * len(DEVICES) - 1)
        killer = threading.Thread(target=_kill, args=(home, census, at, counts, ends, faults))
        killer.start()
        home.wave(size)
        killer.join()
    assert not faults
    assert len(ends) == sizes.kills
    print(f"{sizes.processes:,} processes, {sizes.kills} kills, {home.doubts} calls in doubt, each answered;", end=" ")
    print(f"{min(counts)} to {max(counts)} processes of devices at a kill, all ended within {max(ends):.2f} s")


def weigh(pid: int) -> tuple[float, int]:
    """Resident memory in MB, and descriptors."""
    resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return resident / 1e6, len([*Path(f"/proc/{pid}/fd").iterdir()])


def _kill(home: Home, census: Census, at: int, counts: list[int], ends: list[float], faults: list[str]) -> None:
    """Kill the daemon once so many calls have been made, and see that its devices end."""
    try:
        assert census.wait(lambda: home.done() >= at, LIMIT_S), "no call was made"
        os.kill(home.daemon(), signal.SIGKILL)
        count, span_s = census.watch_end(GONE_S)
        counts.append(count)
        ends.append(span_s)
    except (AssertionError, DaemonError, OSError) as fault:
        faults.append(repr(fault))


def _waves(processes: int, wave: int) -> list[int]:
    return [min(wave, processes - start) for start in range(0, processes, wave)]
