"""The device `files`: everything in the workspace, nothing outside it, whatever lies there and whoever moves it."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mains.bus.devices import beneath, looking
from mains.bus.devices.files import Files
from mains.kernel.ports import CallContext, Done, Failed
from mains.settings import Settings

SECRET = "the secret outside"


class Place:
    """A workspace, and beside it a folder that no call may reach."""

    def __init__(self, folder: Path) -> None:
        self.workspace = folder / "workspace"
        self.outside = folder / "outside"
        self.outside.mkdir()
        self.workspace.mkdir()
        (self.outside / "secret.txt").write_text(SECRET)
        self.device = Files()

    async def call(self, tool: str, **arguments: Any) -> Done | Failed:
        return await self.device.call(tool, arguments, CallContext(1, "k", self.workspace, 1))

    async def done(self, tool: str, **arguments: Any) -> str:
        answer = await self.call(tool, **arguments)
        assert isinstance(answer, Done), answer
        return answer.text

    async def failed(self, tool: str, **arguments: Any) -> str:
        answer = await self.call(tool, **arguments)
        assert isinstance(answer, Failed), answer
        assert SECRET not in answer.text
        return answer.text

    def is_untouched(self) -> bool:
        return [p.name for p in self.outside.iterdir()] == ["secret.txt"] and (
            self.outside / "secret.txt"
        ).read_text() == SECRET


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


CALLS: list[tuple[str, dict[str, str]]] = [
    ("read", {}), ("write", {"text": "x"}), ("append", {"text": "x"}), ("remove", {}),
]  # fmt: skip
ESCAPES = [
    "../outside/secret.txt", "a/../../outside/secret.txt", "./../outside/secret.txt", "..", "a/..", "/etc/passwd",
    "//etc/passwd", "../workspace/../outside/secret.txt", "a\0b", "\0", "",  ".", "/", "./.", "a/../b",
]  # fmt: skip


@pytest.mark.parametrize("path", ESCAPES)
@pytest.mark.parametrize(("tool", "more"), CALLS)
async def test_no_path_leads_out(place: Place, tool: str, more: dict[str, str], path: str) -> None:
    await place.failed(tool, path=path, **more)
    assert place.is_untouched()
    assert list(place.workspace.iterdir()) == []


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    path=st.lists(
        st.sampled_from(["..", ".", "", "a", "outside", "secret.txt", "~", "\\..", "..\\", ". .", "%2e%2e"]), max_size=6
    ).map("/".join)
)
async def test_no_mixture_of_steps_leads_out(tmp_path_factory: pytest.TempPathFactory, path: str) -> None:
    place = Place(tmp_path_factory.mktemp("mix"))
    for tool, more in CALLS:
        answer = await place.call(tool, path=path, **more)
        assert SECRET not in answer.text
    await place.call("list", path=path)
    assert place.is_untouched()


async def test_what_is_written_is_read_listed_and_removed(place: Place) -> None:
    assert await place.done("list") == "(empty)"
    await place.done("write", path="a/b/note.txt", text="first")
    await place.done("write", path="a/b/note.txt", text="second")
    await place.done("append", path="a/b/note.txt", text=" third")
    assert await place.done("read", path="./a//b/note.txt") == "second third"
    assert await place.done("list") == "a/"
    assert await place.done("list", path="a/b/") == "note.txt  12 bytes"
    await place.done("remove", path="a/b/note.txt")
    assert await place.done("list", path="a/b") == "(empty)"
    await place.done("remove", path="a/b/note.txt")
    assert await place.failed("read", path="a/b/note.txt") == "a/b/note.txt: No such file or directory"


async def test_a_workspace_that_does_not_exist_is_empty_until_something_is_written(place: Place) -> None:
    place.workspace.rmdir()
    assert await place.done("list") == "(empty)"
    await place.failed("read", path="x")
    await place.done("write", path="x", text="y")
    assert stat.S_IMODE((place.workspace / "x").stat().st_mode) == 0o600


@pytest.mark.parametrize("target", ["../outside/secret.txt", "../outside", "/etc", "x"])
@pytest.mark.parametrize(("tool", "more"), [call for call in CALLS if call[0] != "remove"])
async def test_no_link_is_followed(place: Place, tool: str, more: dict[str, str], target: str) -> None:
    (place.workspace / "link").symlink_to(target)
    await place.failed(tool, path="link", **more)
    await place.failed(tool, path="link/secret.txt", **more)
    await place.failed("list", path="link")
    assert place.is_untouched()
    assert (place.workspace / "link").is_symlink()
    assert "@ (a link: not followed)" in await place.done("list")


async def test_a_link_can_be_removed_and_its_target_stays(place: Place) -> None:
    (place.workspace / "link").symlink_to(place.outside / "secret.txt")
    await place.done("remove", path="link")
    assert place.is_untouched()
    (place.workspace / "folder").symlink_to(place.outside)
    await place.failed("remove", path="folder/secret.txt")
    assert place.is_untouched()


@pytest.mark.parametrize(("tool", "more"), CALLS)
async def test_a_folder_swapped_for_a_link_at_any_step_leads_nowhere(
    place: Place, monkeypatch: pytest.MonkeyPatch, tool: str, more: dict[str, str]
) -> None:
    """Somebody exchanges the folder for a link just before, or just after, it is opened."""
    real = os.open
    for when in ("before", "after"):
        folder = place.workspace / "sub"
        folder.mkdir()
        (folder / "secret.txt").write_text("inside")

        def swap(folder: Path = folder) -> None:
            if not folder.is_symlink():
                folder.rename(folder.with_name("moved"))
                folder.symlink_to(place.outside)

        def opening(
            path: Any, flags: int, *rest: Any, when: str = when, swap: Callable[[], None] = swap, **named: Any
        ) -> int:
            if path == "sub" and when == "before":
                swap()
            descriptor = real(path, flags, *rest, **named)
            if path == "sub" and when == "after":
                swap()
            return descriptor

        monkeypatch.setattr(os, "open", opening)
        answer = await place.call(tool, path="sub/secret.txt", **more)
        monkeypatch.setattr(os, "open", real)
        assert SECRET not in answer.text
        assert place.is_untouched()
        assert isinstance(answer, Failed if when == "before" else Done)
        folder.unlink()
        for left in (place.workspace / "moved").iterdir():
            left.unlink()
        (place.workspace / "moved").rmdir()


async def test_a_file_swapped_for_a_link_before_it_is_opened_is_not_followed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def opening(path: Any, *rest: Any, **named: Any) -> int:
        note = place.workspace / "note"
        if path == "note" and not note.is_symlink():
            note.unlink(missing_ok=True)
            note.symlink_to(place.outside / "secret.txt")
        return real(path, *rest, **named)

    monkeypatch.setattr(os, "open", opening)
    for tool, more in (("read", {}), ("append", {"text": "x"})):
        (place.workspace / "note").unlink(missing_ok=True)
        (place.workspace / "note").write_text("inside")
        await place.failed(tool, path="note", **more)
        assert place.is_untouched()


async def test_what_is_no_file_is_neither_read_nor_written_and_nobody_waits(place: Place) -> None:
    os.mkfifo(place.workspace / "pipe")
    (place.workspace / "folder").mkdir()
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(place.workspace / "socket"))
    for name in ("pipe", "folder", "socket"):
        for tool, more in CALLS[:3]:
            await place.failed(tool, path=name, **more)
    server.close()
    reader = os.open(place.workspace / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        await place.failed("append", path="pipe", text="x")  # now somebody listens
        await place.failed("write", path="pipe", text="x")
        with pytest.raises(BlockingIOError):
            os.read(reader, 10)
            raise BlockingIOError  # the other end is closed: nothing was ever written
    finally:
        os.close(reader)
    assert stat.S_ISFIFO((place.workspace / "pipe").lstat().st_mode)
    await place.failed("remove", path="folder")
    await place.failed("write", path="folder/x/../y", text="z")
    (place.workspace / "plain").write_text("x")
    assert "Not a directory" in await place.failed("write", path="plain/below", text="z")


async def test_sizes_are_bounded_both_ways(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.device = Files(settings=Settings(workspace_file_bytes_max=100))
    await place.done("write", path="full", text="x" * 100)
    assert len(await place.done("read", path="full")) == 100
    assert "it has 101" in await place.failed("write", path="more", text="x" * 101)
    assert "would be larger" in await place.failed("append", path="full", text="y")
    await place.failed("write", path="more", text="ö" * 51)
    (place.workspace / "grown").write_text("x" * 101)
    assert "larger than 100" in await place.failed("read", path="grown")
    monkeypatch.setattr(looking, "LIST_ENTRIES_MAX", 3)
    for name in "abc":
        (place.workspace / name).touch()
    lines = (await place.done("list")).splitlines()
    assert len(lines) == 4
    assert lines[-1] == "... and 2 more"


async def test_text_is_unicode_or_it_is_said(place: Place) -> None:
    text = "naïve 日本語 🙂\r\n\ttab \x00 nul"
    await place.done("write", path="ordner/größe 🙂.txt", text=text)
    assert await place.done("read", path="ordner/größe 🙂.txt") == text
    assert "größe 🙂.txt" in await place.done("list", path="ordner")
    (place.workspace / "picture").write_bytes(b"\xff\xd8\xff")
    assert "not UTF-8" in await place.failed("read", path="picture")
    (place.workspace / os.fsdecode(b"\xff\xfe")).touch()
    (await place.done("list")).encode("utf-8", "surrogateescape")


@pytest.mark.parametrize("name", ["n" * 255, "ü" * 127])
async def test_the_longest_names_can_be_written(place: Place, name: str) -> None:
    await place.done("write", path=name, text="x")
    assert await place.done("read", path=name) == "x"
    assert "too long" in await place.failed("write", path=name + "nn", text="x")
    assert [path.name for path in place.workspace.iterdir()] == [name]


async def test_a_write_that_breaks_leaves_the_old_file_and_no_scraps(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await place.done("write", path="note", text="old")
    for step in ("fsync", "rename"):

        def breaks(*rest: Any, **named: Any) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, step, breaks)
            assert "No space" in await place.failed("write", path="note", text="new")
        assert await place.done("read", path="note") == "old"
        assert [path.name for path in place.workspace.iterdir()] == ["note"]


async def test_a_reader_sees_the_old_file_or_the_new_one(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    await place.done("write", path="note", text="old" * 1_000)
    seen: list[str] = []
    real = os.fsync

    def watching(descriptor: int) -> None:
        seen.append((place.workspace / "note").read_text())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", watching)
    await place.done("write", path="note", text="new" * 1_000)
    assert seen == ["old" * 1_000, "new" * 1_000]  # the file beside it, then the folder with its new name
    assert (place.workspace / "note").read_text() == "new" * 1_000


async def test_a_file_that_goes_while_it_is_listed_spoils_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        (place.workspace / name).touch()
    real = beneath.entries

    def scanning(at: int, most: int) -> list[os.DirEntry[str]]:
        found = real(at, most)
        (place.workspace / "b").unlink()
        return found

    monkeypatch.setattr(looking, "entries", scanning)
    assert await place.done("list") == "a  0 bytes\nc  0 bytes"


async def test_nothing_stays_open(place: Place) -> None:
    def count() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    await place.call("list")
    before = count()
    (place.workspace / "link").symlink_to("../outside")
    for path in ("a/b", "link/x", "../x", "a", ""):
        for tool, more in CALLS:
            await place.call(tool, path=path, **more)
        await place.call("list", path=path)
    assert count() == before
