"""The device `files` at work: ranges, edits, finding, searching, versions and undo, and what a crash leaves."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from mains.bus.devices.files import Files, may_link
from mains.bus.devices.versions import Versions
from mains.errors import ConfigError, MainsError, NotFoundError, UsageError
from mains.home import Home
from mains.kernel.ports import CallContext, Done, Failed
from mains.settings import Settings


class Place:
    """A home, one workspace, and calls of process 1 (or another) with a key each."""

    def __init__(self, folder: Path, **limits: int) -> None:
        self.home = Home(folder / "home")
        self.home.prepare()
        self.workspace = self.home.workspaces / "1"
        self.limits = Settings(**limits)
        self.device = Files(self.home, self.limits, now_ms=lambda: 1_000)
        self.calls = 0

    async def call(
        self, tool: str, *, key: str = "", attempt: int = 1, pid: int = 1, **arguments: Any
    ) -> Done | Failed:
        self.calls += 1
        return await self.device.call(
            tool, arguments, CallContext(pid, key or f"k{self.calls}", self.workspace, attempt)
        )

    async def done(self, tool: str, **arguments: Any) -> str:
        answer = await self.call(tool, **arguments)
        assert isinstance(answer, Done), answer
        return answer.text

    async def failed(self, tool: str, **arguments: Any) -> str:
        answer = await self.call(tool, **arguments)
        assert isinstance(answer, Failed), answer
        return answer.text

    async def undo(self, path: str = "", *, pid: int = 1, force: bool = False) -> str:
        return (await self.device.undo(pid, self.workspace, path, force=force)).path

    def text(self, path: str) -> str:
        return (self.workspace / path).read_text()


@pytest.fixture
def desk(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_what_it_says_of_its_tools_is_true_by_kind() -> None:
    tools = {tool.name: tool for tool in Files().tools()}
    assert [*tools] == ["list", "read", "find", "search", "write", "append", "edit", "remove"]
    assert {name for name, tool in tools.items() if tool.read_only} == {"list", "read", "find", "search"}
    assert all(tool.idempotent for tool in tools.values())
    assert all(not tool.parameters["additionalProperties"] for tool in tools.values())


async def test_a_part_of_a_file_is_read_by_its_lines(desk: Place) -> None:
    await desk.done("write", path="a", text="one\ntwo\nthree\nfour\n")
    assert await desk.done("read", path="a", line=2, lines=2) == "[lines 2-3 of 4]\ntwo\nthree"
    assert await desk.done("read", path="a", line=4) == "[lines 4-4 of 4]\nfour"
    assert await desk.done("read", path="a", lines=1) == "[lines 1-1 of 4]\none"
    assert await desk.done("read", path="a", line=3, lines=99) == "[lines 3-4 of 4]\nthree\nfour"
    assert await desk.failed("read", path="a", line=5) == "a: it has 4 lines, no line 5"
    (desk.workspace / "mixed").write_bytes(b"fine\n\xff\xfe\n")
    assert await desk.done("read", path="mixed", lines=1) == "[lines 1-1 of 2]\nfine"
    assert "not UTF-8" in await desk.failed("read", path="mixed")


async def test_a_file_that_is_too_large_is_read_in_parts(tmp_path: Path) -> None:
    desk = Place(tmp_path, workspace_file_bytes_max=100)
    desk.workspace.mkdir()
    (desk.workspace / "log").write_text("".join(f"line {n}\n" for n in range(1, 1_001)))
    assert "`line` and `lines`" in await desk.failed("read", path="log")
    assert await desk.done("read", path="log", line=500, lines=2) == "[lines 500-501 of 1000]\nline 500\nline 501"
    assert "ask for fewer" in await desk.failed("read", path="log", line=1)


async def test_an_edit_replaces_what_stands_there_once(desk: Place) -> None:
    await desk.done("write", path="a.py", text="x = 1\ny = 1\n")
    (desk.workspace / "a.py").chmod(0o755)
    assert await desk.done("edit", path="a.py", old="x = 1", new="x = 2") == "replaced 1 in a.py"
    assert desk.text("a.py") == "x = 2\ny = 1\n"
    assert stat.S_IMODE((desk.workspace / "a.py").stat().st_mode) == 0o755
    assert "does not stand there" in await desk.failed("edit", path="a.py", old="z", new="")
    assert "2 times" in await desk.failed("edit", path="a.py", old=" = ", new=" == ")
    assert await desk.done("edit", path="a.py", old=" = ", new=" == ", all=True) == "replaced 2 in a.py"
    assert desk.text("a.py") == "x == 2\ny == 1\n"
    assert "no such file" in await desk.failed("edit", path="b.py", old="a", new="b")
    for old, new in (("", "x"), ("x", "x")):
        await desk.failed("edit", path="a.py", old=old, new=new)
    assert desk.text("a.py") == "x == 2\ny == 1\n"


async def test_edits_at_once_lose_nothing(desk: Place) -> None:
    """Processes that share a workspace, at the same time."""
    await desk.done("write", path="a", text="".join(f"<{n}>" for n in range(40)))
    await asyncio.gather(*(desk.done("edit", path="a", old=f"<{n}>", new=f"[{n}]", pid=n + 1) for n in range(40)))
    assert desk.text("a") == "".join(f"[{n}]" for n in range(40))
    await asyncio.gather(*(desk.done("append", path="b", text=f"{n}\n", pid=n + 1) for n in range(40)))
    assert sorted(map(int, desk.text("b").split())) == list(range(40))


async def test_a_change_whose_caller_no_longer_waits_still_lets_nobody_in(desk: Place) -> None:
    await desk.done("write", path="a", text="")
    calls = [asyncio.ensure_future(desk.call("append", path="a", text="x")) for _ in range(10)]
    await asyncio.sleep(0)
    for each in calls[::2]:
        each.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    await desk.done("append", path="a", text="end")
    text = desk.text("a")
    assert text.endswith("end")
    assert set(text[:-3]) <= {"x"}
    assert 5 <= len(text) - 3 <= 10


@pytest.fixture
def tree(desk: Place) -> Place:
    for path, text in {
        "README.md": "# Title\nneedle here\n", "src/a.py": "def Needle():\n    return 1\n",
        "src/deep/b.py": "needle = 'é'\n",
        "src/deep/c.js": "// nothing\n", "src/deep/d.ts": "// needle\r\n", ".git/config": "needle\n",
        ".hidden/x": "needle\n",
    }.items():  # fmt: skip
        (desk.workspace / path).parent.mkdir(parents=True, exist_ok=True)
        (desk.workspace / path).write_text(text, newline="")
    (desk.workspace / "picture").write_bytes(b"needle\0\xff")
    return desk


@pytest.mark.parametrize(
    ("pattern", "path", "found"),
    [
        ("*.py", "", ["src/a.py", "src/deep/b.py"]), ("**/*.py", "", ["src/a.py", "src/deep/b.py"]), ("src/*.py",
        "", ["src/a.py"]),
        ("*.py", "src/deep", ["src/deep/b.py"]), ("src/**", "", ["src/", "src/a.py", "src/deep/", "src/deep/b.py",
        "src/deep/c.js", "src/deep/d.ts"]),
        ("*.{js,ts}", "", ["src/deep/c.js", "src/deep/d.ts"]), ("src/**/deep/*.t?", "", ["src/deep/d.ts"]),
        ("[a-b].py", "", ["src/a.py", "src/deep/b.py"]),
        ("deep", "", ["src/deep/"]), ("*.rs", "", ["(nothing matches)"]), ("config", "", ["(nothing matches)"]),
        ("a.py", "src/a.py", ["(nothing matches)"]),
        ("./src/*.py", "", ["src/a.py"]), ("**", ".hidden", [".hidden/x"]), ("config", ".git", [".git/config"]),
    ],
)  # fmt: skip
async def test_files_are_found_by_patterns(tree: Place, pattern: str, path: str, found: list[str]) -> None:
    text = await tree.done("find", pattern=pattern, **({"path": path} if path else {}))
    assert [line for line in text.splitlines() if line != "src/" or "src/" in found] == found


async def test_lines_are_found_by_text_and_by_expression(tree: Place) -> None:
    assert (await tree.done("search", text="needle")).splitlines() == [
        ".hidden/x:1: needle", "README.md:2: needle here", "src/deep/b.py:1: needle = 'é'",
        "src/deep/d.ts:1: // needle",
        "[not searched: 0 larger than 4194304 bytes, 1 no text]",
    ]  # fmt: skip
    found = await tree.done("search", regex=r"^def \w+\(", path="src")
    assert found == "src/a.py:1: def Needle():"
    assert (await tree.done("search", text="needle", path="src", files="*.py", ignore_case=True)).splitlines() == [
        "src/a.py:1: def Needle():", "src/deep/b.py:1: needle = 'é'",
    ]  # fmt: skip
    found = await tree.done("search", regex="^// NEEDLE", path="src", ignore_case=True)
    assert found == "src/deep/d.ts:1: // needle"
    assert await tree.done("search", text="needle", path="README.md") == "README.md:2: needle here"
    assert await tree.done("search", text="nowhere", path="src") == "(nothing found)"
    assert "No such file" in await tree.failed("search", text="x", path="nowhere")
    for both in ({}, {"text": "a", "regex": "b"}, {"text": ""}):
        assert "either" in await tree.failed("search", **both)
    assert "look-around" in await tree.failed("search", regex="(?=x)")


async def test_a_line_that_is_long_is_searched_in_part_and_that_is_said(desk: Place) -> None:
    await desk.done("write", path="a", text="x" * 5_000 + "needle\n")
    assert "needle" not in await desk.done("search", regex="needle")
    assert "1 long lines" in await desk.done("search", regex="needle")
    assert (await desk.done("search", text="needle")).startswith("a:1: xxx")


async def test_undo_brings_back_one_change_after_the_other(desk: Place) -> None:
    await desk.done("write", path="a/plan", text="first")
    await desk.done("write", path="a/plan", text="second")
    await desk.done("append", path="a/plan", text=" third")
    await desk.done("edit", path="a/plan", old="third", new="fourth")
    await desk.done("remove", path="a/plan")
    for text in ("second fourth", "second third", "second", "first"):
        assert await desk.undo() == "a/plan"
        assert desk.text("a/plan") == text
    await desk.undo()
    assert not (desk.workspace / "a/plan").exists()
    with pytest.raises(NotFoundError):
        await desk.undo()
    log = await desk.device.versions(1)
    assert [each.tool for each in log] == ["write", "write", "append", "edit", "remove"] + ["undo"] * 5
    assert [each.undoes for each in log[5:]] == [5, 4, 3, 2, 1]


async def test_undo_is_of_one_path_and_of_one_process(desk: Place) -> None:
    await desk.done("write", path="a", text="mine")
    await desk.done("write", path="b", text="mine")
    await desk.done("write", path="b", text="theirs", pid=2)
    assert await desk.undo("./a") == "a"
    with pytest.raises(UsageError, match="changed again"):
        await desk.undo("b")
    assert desk.text("b") == "theirs"
    await desk.undo("b", force=True)
    assert not (desk.workspace / "b").exists()
    with pytest.raises(NotFoundError, match="process 3"):
        await desk.undo(pid=3)


async def test_undo_gives_back_the_mode_and_says_what_it_cannot(desk: Place) -> None:
    await desk.done("write", path="run", text="#!/bin/sh\n")
    (desk.workspace / "run").chmod(0o755)
    await desk.done("remove", path="run")
    await desk.undo()
    assert stat.S_IMODE((desk.workspace / "run").stat().st_mode) == 0o755
    (desk.workspace / "link").symlink_to("run")
    await desk.done("remove", path="link")
    with pytest.raises(UsageError, match="no file"):
        await desk.undo("link")


async def test_what_could_not_be_brought_back_is_not_overwritten(tmp_path: Path) -> None:
    desk = Place(tmp_path, workspace_file_bytes_max=10)
    desk.workspace.mkdir()
    (desk.workspace / "large").write_text("x" * 11)
    for tool, more in (("write", {"text": "y"}), ("remove", {})):
        assert "could not be brought back" in await desk.failed(tool, path="large", **more)


async def test_the_newest_versions_are_kept_and_go_with_their_process(tmp_path: Path) -> None:
    desk = Place(tmp_path, versions_max=3, versions_bytes_max=100_000)
    for n in range(6):
        await desk.done("write", path="a", text=str(n))
    assert [each.number for each in await desk.device.versions(1)] == [4, 5, 6]
    desk = Place(tmp_path / "small", versions_max=100, versions_bytes_max=5_000)
    for n in range(6):
        await desk.done("write", path="a", text=str(n) * 1_500)
    assert 1 <= len(await desk.device.versions(1)) < 6
    await desk.undo()
    await desk.done("write", path="b", text="x", pid=2)
    await desk.device.forget([1, 77])
    assert await desk.device.versions(1) == []
    assert len(await desk.device.versions(2)) == 1


class CrashError(BaseException):
    """The end of the world at one point."""


@pytest.mark.parametrize("tool", ["write", "append", "edit"])
@pytest.mark.parametrize("point", ["before", "kept", "moved"])
async def test_a_call_made_again_after_a_crash_is_done_once(
    desk: Place, monkeypatch: pytest.MonkeyPatch, tool: str, point: str
) -> None:
    """The process dies before the version is kept, after it, or when the file is in its place."""
    await desk.done("write", path="a", text="aXb")
    more: dict[str, Any] = {"old": "X", "new": "XX"} if tool == "edit" else {"text": "aXXb" if tool == "write" else "c"}
    wanted = "aXbc" if tool == "append" else "aXXb"
    real = os.rename

    def dies(*rest: Any, **named: Any) -> None:
        if "src_dir_fd" in named and point == "kept":
            raise CrashError
        real(*rest, **named)
        if "src_dir_fd" in named:
            raise CrashError

    def broken(*_: Any) -> None:
        raise CrashError

    with monkeypatch.context() as patch:
        if point == "before":
            patch.setattr(Versions, "keep", broken)
        else:
            patch.setattr(os, "rename", dies)
        with pytest.raises(CrashError):
            await desk.call(tool, key="same", path="a", **more)
    desk.device = Files(desk.home, desk.limits)  # the next daemon
    first = await desk.call(tool, key="same", attempt=2, path="a", **more)
    assert isinstance(first, Done), first
    assert desk.text("a") == wanted
    again = await desk.call(tool, key="same", attempt=3, path="a", **more)
    assert again == first
    assert desk.text("a") == wanted
    await desk.undo()
    assert desk.text("a") == "aXb"
    assert [path.name for path in desk.workspace.iterdir()] == ["a"]


async def test_nobody_changes_what_git_runs(desk: Place) -> None:
    (desk.workspace / ".git").mkdir(parents=True)
    assert "git's own folder" in await desk.failed("write", path=".git/hooks/pre-commit", text="#!/bin/sh\n")


@pytest.mark.parametrize("table", [{"files": []}, {"files": {"hard_link": True}}, {"files": {"hard_links": 1}}])
def test_a_mistake_in_the_table_is_named(table: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"\[files\]"):
        may_link(table, "mains.toml")


async def test_hard_links_can_be_allowed(desk: Place) -> None:
    assert may_link({"files": {"hard_links": True}}, "mains.toml")
    desk.workspace.mkdir()
    (desk.workspace / "a").write_text("x")
    os.link(desk.workspace / "a", desk.workspace / "b")
    assert "second name" in await desk.failed("read", path="a")
    desk.device = Files(desk.home, hard_links=True)
    assert await desk.done("read", path="a") == "x"
    await desk.done("append", path="a", text="y")
    assert (desk.text("a"), desk.text("b")) == ("xy", "x")


async def test_errors_of_a_person_s_orders_are_ours(desk: Place) -> None:
    for path in ("..", "nowhere"):
        with pytest.raises(MainsError):
            await desk.device.listing(desk.workspace, path)
    with pytest.raises(UsageError):
        await Files().undo(1, desk.workspace, "", force=False)
    assert await Files().versions(1) == []


async def test_an_edit_of_what_is_not_there_makes_no_folders(desk: Place) -> None:
    await desk.done("write", path="a", text="x")
    assert "No such file" in await desk.failed("edit", path="b/c/d", old="x", new="y")
    assert [path.name for path in desk.workspace.iterdir()] == ["a"]


async def test_an_undo_leaves_alone_what_somebody_put_where_a_file_was_removed(desk: Place) -> None:
    await desk.done("write", path="a", text="mine")
    await desk.done("remove", path="a")
    (desk.workspace / "a").symlink_to("theirs")
    with pytest.raises(UsageError, match="it was changed again after that"):
        await desk.undo("a")
    assert (desk.workspace / "a").is_symlink()
    await desk.undo("a", force=True)
    assert desk.text("a") == "mine"


@pytest.mark.parametrize("tool", ["write", "append", "edit", "remove"])
async def test_what_an_editor_saves_in_the_middle_of_a_change_is_not_lost(
    desk: Place, monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    await desk.done("write", path="a", text="old")
    keep = Versions.keep

    def saves(self: Versions, version: Any, before: bytes) -> None:
        keep(self, version, before)
        (desk.workspace / "a").write_text("an editor's")

    monkeypatch.setattr(Versions, "keep", saves)
    more = {"write": {"text": "new"}, "append": {"text": "new"}, "edit": {"old": "old", "new": "new"}, "remove": {}}
    said = await desk.failed(tool, path="a", **more[tool])
    assert said == "a: somebody else changed it at the same time; look at it again"
    assert desk.text("a") == "an editor's"
    assert [path.name for path in desk.workspace.iterdir()] == ["a"]
    assert len(await desk.device.versions(1)) == 1
