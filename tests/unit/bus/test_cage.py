"""What the supervisor tells the kernel: bytes and numbers, for every version of Landlock; the filter, step by step."""

from __future__ import annotations

import errno
import os
import re
import struct
from pathlib import Path
from typing import Any

import pytest

from mains.bus.cage import landlock, seccomp

HEADER = Path("/usr/include/linux/landlock.h")
V1 = (1 << 13) - 1


class FakeKernel(landlock.Kernel):
    """A kernel of some version that remembers what it was asked."""

    def __init__(self, abi: int) -> None:
        self.abi = abi
        self.asked: list[tuple[Any, ...]] = []
        self.rules: dict[str, int] = {}

    def call(self, number: int, *arguments: int | bytes) -> int:
        self.asked.append((number, *arguments))
        if number == landlock.CREATE_RULESET:
            if not self.abi:
                raise OSError(errno.ENOSYS, "no such call")
            if arguments == (0, 0, landlock.CREATE_RULESET_VERSION):
                return self.abi
            return os.open(os.devnull, os.O_RDONLY)
        if number == landlock.ADD_RULE:
            assert isinstance(arguments[2], bytes)
            rights, descriptor = struct.unpack("=Qi", arguments[2])
            self.rules[str(Path(f"/proc/self/fd/{descriptor}").readlink())] = rights
        return 0

    def prctl(self, option: int, *arguments: int) -> int:
        self.asked.append(("prctl", option, *arguments))
        return 0


@pytest.mark.parametrize(
    ("abi", "attr"),
    [
        (1, struct.pack("<Q", V1)),
        (2, struct.pack("<Q", V1 | 1 << 13)),
        (3, struct.pack("<Q", V1 | 3 << 13)),
        (4, struct.pack("<QQ", V1 | 3 << 13, 0)),
        (5, struct.pack("<QQ", V1 | 7 << 13, 0)),
        (6, struct.pack("<QQQ", V1 | 7 << 13, 0, 3)),
        (9, struct.pack("<QQQ", V1 | 7 << 13, 0, 3)),
    ],
)
def test_a_ruleset_holds_what_the_kernel_has_and_nothing_newer(abi: int, attr: bytes) -> None:
    assert landlock.ruleset_attr(abi) == attr


def test_a_rule_is_packed_without_padding() -> None:
    assert landlock.path_beneath_attr(0x1FFF, 7) == bytes.fromhex("ff1f000000000000 07000000")


def test_the_rights_are_those_of_the_kernels_header() -> None:
    if not HEADER.exists():
        pytest.skip("NO linux/landlock.h HERE: the numbers were compared with no header")
    named = re.findall(r"define LANDLOCK_(?:ACCESS_FS|SCOPE)_(\w+)\s+\(1ULL << (\d+)\)", HEADER.read_text())
    prefixes = {"ABSTRACT_UNIX_SOCKET": "SCOPE_", "SIGNAL": "SCOPE_"}
    ours = {name: getattr(landlock, prefixes.get(name, "") + name, None) for name, _ in named}
    assert len(named) >= 14
    assert {name: ours[name] for name, _ in named if ours[name] is not None} == {
        name: 1 << int(bit) for name, bit in named if ours[name] is not None
    }
    assert {"REFER", "MAKE_SYM", "READ_DIR"} <= {name for name in ours if ours[name] is not None}


@pytest.mark.parametrize("abi", range(1, 8))
def test_no_rule_holds_a_right_that_is_not_handled(abi: int, tmp_path: Path) -> None:
    kernel = FakeKernel(abi)
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    read, write = str(tmp_path / "file"), str(tmp_path / "folder")
    landlock.restrict([read, str(tmp_path / "missing")], [write], kernel)
    files, _ = landlock.handled(abi)
    assert all(rights & ~files == 0 for rights in kernel.rules.values())
    assert kernel.rules[read] == landlock.EXECUTE | landlock.READ_FILE  # not the listing of a folder
    assert kernel.rules[write] == landlock.WRITE & files
    assert kernel.rules["/dev/null"] & landlock.WRITE_FILE
    numbers = [asked[0] for asked in kernel.asked if asked[0] != landlock.ADD_RULE]
    assert numbers == [444, 444, "prctl", 446]
    assert ("prctl", 38, 1) in kernel.asked


def test_without_landlock_nothing_goes_on(tmp_path: Path) -> None:
    kernel = FakeKernel(0)
    with pytest.raises(OSError, match="no Landlock"):
        landlock.restrict([str(tmp_path)], [], kernel)
    assert landlock.version(kernel) == 0


def test_a_link_in_the_place_of_a_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "inner").symlink_to(tmp_path / "secret")
    kernel = FakeKernel(6)
    landlock.restrict([], [str(tmp_path / "inner"), str(tmp_path / "inner" / ".." / "secret")], kernel)
    assert not [path for path in kernel.rules if path.startswith(str(tmp_path))]


def run(
    machine: str, call: int, first: int = 0, second: int = 0, *, arch: int | None = None, sockets: bool = False
) -> int:
    """What the filter says of a call."""
    steps = seccomp.program(machine, sockets=sockets)
    assert steps is not None
    data = {0: call, 4: seccomp.CALLS[machine][0] if arch is None else arch, 16: first, 24: second}
    at = value = 0
    while True:
        code, yes, no, word = steps[at]
        at += 1
        if code == seccomp.LOAD:
            value = data[word]
        elif code == seccomp.AND:
            value &= word
        elif code == seccomp.EQUAL:
            at += yes if value == word else no
        elif code == seccomp.AT_LEAST:
            at += yes if value >= word else no
        else:
            assert code == seccomp.RETURN
            return word


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_refuses_unix_sockets_and_ways_around(machine: str) -> None:
    _, socket, pair, prlimit = seccomp.CALLS[machine]
    refused, unknown = seccomp.REFUSE | errno.EACCES, seccomp.REFUSE | errno.ENOSYS
    close_on_exec, unblocking = 0o2000000, 0o4000
    for call, first, second, said in (
        (socket, 1, 1, refused),
        (socket, 1, 2 | close_on_exec, refused),
        (socket, 2, 1, seccomp.ALLOW),
        (socket, 10, 2, seccomp.ALLOW),
        (socket, 16, 3, seccomp.ALLOW),  # netlink: getaddrinfo wants it
        (pair, 1, 1 | unblocking, seccomp.ALLOW),
        (pair, 1, 5, seccomp.ALLOW),
        (pair, 1, 2 | close_on_exec | unblocking, refused),
        (425, 0, 0, unknown),
        (socket | 0x40000000, 1, 1, unknown),
        (0, 1, 1, seccomp.ALLOW),
        (prlimit, 0, 0, seccomp.ALLOW),
        (prlimit, 4711, 0, seccomp.REFUSE | errno.EPERM),
    ):
        assert run(machine, call, first, second) == said, (call, first, second)
    assert run(machine, 0, arch=0x40000003) == seccomp.KILL
    assert run(machine, socket, 1, 1, sockets=True) == seccomp.ALLOW
    assert run(machine, prlimit, 4711, sockets=True) == seccomp.REFUSE | errno.EPERM


def test_a_machine_that_is_not_known_has_no_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    assert seccomp.program("riscv64") is None
    monkeypatch.setattr(os, "uname", lambda: type("Uname", (), {"machine": "riscv64"}))
    assert not seccomp.install(FakeKernel(1).prctl)
