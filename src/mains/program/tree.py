"""Tree: a program and every program that its grants of `spawn` and `spawn_each` name, directly or through
others.

A grant names a file beside or below the file it is written in: `NAME.md`, `NAME/SKILL.md` or `NAME` itself. A
program may spawn itself, and programs may spawn each other: a file is read once.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path

import msgspec

from mains.errors import Mistake, ProgramError, UsageError
from mains.program.frontmatter import read_front_matter
from mains.program.program import OWN_KEYS, SKILL_FILE, Program, load, program_file
from mains.program.toolgrant import grant_line
from mains.settings import Settings


class Tree(msgspec.Struct, frozen=True):
    """The programs of one run. Keys of `programs`: `root` (the root's own name), then the names in the
    grants.
    """

    root: str
    path: Path
    programs: dict[str, Program]

    @property
    def program(self) -> Program:
        """The program that was asked for."""
        return self.programs[self.root]


def load_tree(path: Path, settings: Settings) -> Tree:
    """The program at `path` and all that it names.

    Raises what `load` raises, and ProgramError with the line of the grant when a named program is missing,
    when one name stands for two files, or when there are more than `programs_max`.
    """
    first = program_file(path)
    root = load(first, settings)
    found = _Found(settings, root, first)
    while found.unread:
        found.read_names(*found.unread.popleft())
    return Tree(root.name, found.root, found.programs)


class _Found:
    """The programs found so far: by the name in a grant, by file, and by the name that each gives itself."""

    def __init__(self, settings: Settings, root: Program, file: Path) -> None:
        self._settings = settings
        self.root = file.resolve()
        self.programs = {root.name: root}
        self._files = {root.name: self.root}
        self._owners = {root.name: self.root}
        self._read = {self.root: root}
        self.unread = deque([(file, root)])

    def read_names(self, file: Path, program: Program) -> None:
        """Find every program that `program`, which stands in `file`, names."""
        mistakes: list[Mistake] = []
        for name in program.spawns:
            target = _lookup(file.parent, name)
            told = self._refusal(name, target) or self._add(name, target)
            if told:
                mistakes.append(Mistake(_line_of(program, name), told))
        if mistakes:
            raise ProgramError(str(file), mistakes)

    def _refusal(self, name: str, target: Path | None) -> str:
        if target is None:
            return f"no program `{name}`: there is no {name}.md, {name}/{SKILL_FILE} or {name} beside this file"
        before = self._files.get(name)
        if before and before != target.resolve():
            return f"`{name}` stands for two files: {before} and {target}"
        if target.resolve() not in self._read and len(self._read) >= self._settings.programs_max:
            return f"`{name}` is one program too many: at most {self._settings.programs_max} may be named in all"
        return ""

    def _add(self, name: str, target: Path | None) -> str:
        assert target is not None
        resolved = target.resolve()
        if resolved not in self._read:
            program = load(target, self._settings)
            owner = self._owners.setdefault(program.name, resolved)
            if owner != resolved:
                return f"two programs call themselves `{program.name}`: {owner} and {target}"
            self._read[resolved] = program
            self.unread.append((target, program))
        self.programs[name] = self._read[resolved]
        self._files[name] = resolved
        return ""


def _lookup(folder: Path, name: str) -> Path | None:
    for candidate in (folder / f"{name}.md", folder / name / SKILL_FILE, folder / name):
        try:
            if candidate.is_file():
                return candidate
        except OSError as error:
            raise UsageError(f"{candidate}: cannot be read: {error.strerror}") from error
    return None


def _line_of(program: Program, name: str) -> int:
    fields = {key.text: node for key, node in read_front_matter(program.source, OWN_KEYS).fields.pairs}
    return grant_line(fields.get("tools") or fields["allowed-tools"], name)
