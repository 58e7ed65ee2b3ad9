"""Where the code of a command lies, so that it can be read when all else is closed: `folders_of`.

A command is a file, or a chain of links to one; it may name its interpreter in its first line, and its first argument
may be what an interpreter runs. Around each of these lies what it needs: a virtual environment and the Python that it
was made with, the `node_modules` that it is in, an installation with `bin` and `lib`, the folder of a tool that manages
versions. Nothing is run to find out.

What a device can write is not believed: a link, a first line or a `pyvenv.cfg` there leads nowhere but to tools (and
the system, which every device reads). Else a device would choose what it reads at its next start.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

TOOLS = (
    *(".nvm", ".volta", ".fnm", ".local/share/fnm", ".bun", ".deno", ".asdf", ".local/share/mise", ".pyenv", ".rbenv"),
    *(".local/share/uv", ".local/share/pipx", ".local/pipx", ".cargo/bin", ".rustup/toolchains", ".sdkman/candidates"),
)
"""Folders of a person's home that hold tools and nothing that is a secret."""

_INTERPRETER = re.compile(
    r"(python|pypy|ruby|perl|php|lua|luajit)[\d.]*|node|nodejs|bun|deno|tsx|bash|dash|sh|zsh|java"
)
_INLINE = ("-c", "-e", "-m", "-p", "--eval", "--print")  # what follows is no file
_MARKS = ("pyvenv.cfg", "conda-meta", "lib/node_modules")
_PARTS = ("lib", "lib64", "libexec", "share")
_HOPS_MAX = 16
_LINE_BYTES = 256
_ABOVE_MAX = 8


def folders_of(
    command: str, args: Sequence[str], path: str, person: Path, writable: Callable[[str], bool]
) -> Iterator[str]:
    """Files and folders, with links resolved. `path` is the PATH of the device, `writable` what it may write.

    Nothing is said about who may read them: that is for the caller to judge.
    """
    found = shutil.which(command, path=path)
    if found is None:
        return
    yield from _around(found, path, person, writable)
    if _INTERPRETER.fullmatch(Path(found).name) and (script := _script(args)):
        yield from _around(script, path, person, writable)
        yield from _package(script)


def _script(args: Sequence[str]) -> str:
    """What an interpreter is to run: its first argument that is a file."""
    for word in args:
        if word in _INLINE:
            return ""
        if Path(word).is_absolute() and Path(word).is_file():
            return word
    return ""


def _package(script: str) -> Iterator[str]:
    """The package of node that a script belongs to, which has the modules that it wants; else the script's folder."""
    folder = Path(os.path.realpath(script)).parent
    for each in (folder, *folder.parents)[:_ABOVE_MAX]:
        if (each / "package.json").is_file():
            yield str(each)
            return
    yield str(folder)


def _around(file: str, path: str, person: Path, writable: Callable[[str], bool]) -> Iterator[str]:
    """The file, all that it leads to, and what lies around each."""
    waiting = [file]
    seen: set[str] = set()
    while waiting and len(seen) < _HOPS_MAX:
        here = _placed(waiting.pop())
        if here in seen:
            continue
        seen.add(here)
        if writable(here):
            waiting += [each for each in _next(here, path) if any(_within(each, root) for root in _roots(person))]
            continue
        yield here
        yield from _installation(here, person)
        waiting += _next(here, path)


def _placed(file: str) -> str:
    """A file by the real name of its folder; it may itself be a link."""
    return str(Path(os.path.realpath(Path(file).parent)) / Path(file).name)


def _next(file: str, path: str) -> list[str]:
    """Where a link leads, or which interpreter a file names."""
    with contextlib.suppress(OSError):
        if Path(file).is_symlink():
            return [str(Path(file).parent / Path(file).readlink())]
        with open(file, "rb") as opened:  # noqa: PTH123 - a few bytes
            line = opened.read(_LINE_BYTES).partition(b"\n")[0].decode(errors="replace")
        if line.startswith("#!"):
            words = [word for word in line[2:].split() if word != "-S"]
            if words and Path(words[0]).name == "env":
                named = next((word for word in words[1:] if "=" not in word and not word.startswith("-")), "")
                words = [shutil.which(named, path=path) or ""]
            return words[:1] if words and Path(words[0]).is_absolute() else []
    return []


def _installation(file: str, person: Path) -> Iterator[str]:
    """What lies around one file."""
    place = Path(file)
    for root in _roots(person):
        if _within(file, root):
            yield root
            return
    modules = [each for each in place.parents if each.name == "node_modules"]
    if modules:
        yield str(modules[-1])
        return
    prefix = place.parent.parent
    if place.parent.name in ("bin", "sbin", "shims"):
        if any((prefix / mark).exists() for mark in _MARKS) or any(prefix.glob("lib/python3*")):
            yield str(prefix)
            yield from _python_of(prefix)
            return
        if prefix != Path(os.path.realpath(person)):
            yield from (str(prefix / part) for part in _PARTS if (prefix / part).is_dir())
    yield str(place.parent)


def _python_of(prefix: Path) -> Iterator[str]:
    """The Python that a virtual environment was made with (PEP 405: `home` is its folder of programs)."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in (prefix / "pyvenv.cfg").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition("=")
            if key.strip() == "home" and Path(value.strip()).is_absolute():
                yield str(Path(os.path.realpath(value.strip())).parent)


def _roots(person: Path) -> list[str]:
    return [os.path.realpath(person / tool) for tool in TOOLS]


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
