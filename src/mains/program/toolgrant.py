"""A grant of a tool as a program writes it: `files.read`, `web.*`, `spawn_each(reader)`, `Bash(git log:*)`.

Only the shape is checked here. Whether something offers the tool is known when the program runs: deny by
default.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from mains.errors import Mistake, UsageError
from mains.program.fields import is_null, shown
from mains.program.frontmatter import Items, Node, Scalar
from mains.program.segmentname import SEGMENT_RULE, is_segment

SPAWNING = ("spawn", "spawn_each", "exec")
"""The syscalls whose arguments name programs."""

NOTE_SCOPES = ("process", "program", "user")
FROM_TOOLS = "from_tools"
APPENDING = "append"

_NAME_MAX = 128
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(?:[./:][A-Za-z0-9_-]+)*(?:(?:\.|(?<=__))\*)?")
_CONSTRAINT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\s*=")


class ToolGrant(msgspec.Struct, frozen=True):
    """A right to use a tool. `arguments` is what stood in parentheses, split at commas; its meaning is the
    tool's.
    """

    name: str
    arguments: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}({', '.join(self.arguments)})" if self.arguments else self.name

    @property
    def programs(self) -> tuple[str, ...]:
        """The program files that a spawning grant names (arguments like `key=value` are constraints)."""
        if self.name not in SPAWNING:
            return ()
        return tuple(each for each in self.arguments if not _CONSTRAINT.match(each))


def parse_grant(text: str) -> ToolGrant:
    """A grant from its text. Raises UsageError that says what is wrong with the shape."""
    head, opened, rest = text.strip().partition("(")
    name = head.strip()
    if len(name) > _NAME_MAX or not _NAME.fullmatch(name):
        raise UsageError(f"{shown(text)} is not a tool: write a name like `files.read`, `files.*` or `spawn(reader)`")
    if not opened:
        arguments: tuple[str, ...] = ()
    elif not rest.endswith(")") or len(pieces := split_outside(rest[:-1], ",")) == 0 or not _balanced(rest[:-1]):
        told = "the parentheses do not match or hold nothing (between brackets, quote a tool with a comma)"
        raise UsageError(f"{shown(text)}: {told}")
    else:
        arguments = tuple(pieces)
    grant = ToolGrant(name, arguments)
    if name in SPAWNING:
        _check_programs(grant)
    if name == "note":
        _check_scopes(grant)
    if name == APPENDING:
        _check_segments(grant)
    return grant


def note_scopes(grants: Sequence[ToolGrant]) -> dict[str, bool]:
    """The scopes in which a program may note, the narrowest first; of each, whether also what tools have said.

    Every `note` grant has the scope `process`. None: the program may not note, and is shown no notes.
    """
    given = [grant.arguments for grant in grants if grant.name == "note"]
    scopes = {"process": True} if given else {}
    for scope in NOTE_SCOPES[1:]:
        if naming := [arguments for arguments in given if scope in arguments]:
            scopes[scope] = any(FROM_TOOLS in arguments for arguments in naming)
    return scopes


def append_segments(grants: Sequence[ToolGrant]) -> tuple[str, ...]:
    """The segments that a program may append to, each once."""
    return tuple(dict.fromkeys(name for grant in grants if grant.name == APPENDING for name in grant.arguments))


def read_grants(node: Node, key: str, separators: str, faults: list[Mistake]) -> tuple[ToolGrant, ...]:
    """The grants of a YAML list, or of a text split at `separators` outside parentheses; no repeats."""
    grants: dict[ToolGrant, None] = {}
    for line, text in _texts(node, key, separators, faults):
        try:
            grants[parse_grant(text)] = None
        except UsageError as error:
            faults.append(Mistake(line, f"`{key}`: {error}"))
    return tuple(grants)


def grant_line(node: Node, program: str) -> int:
    """The line of the grant below `tools:` that names `program`; that of the list itself when none does."""
    alone = re.compile(rf"(?<![\w./-]){re.escape(program)}(?![\w./-])")
    for line, text in _texts(node, "tools", ",", []):
        if alone.search(text):
            return line
    return node.line


def split_outside(text: str, separators: str) -> list[str]:
    """The non-empty pieces of `text` between separators that stand in no parentheses."""
    pieces, depth, start = list[str](), 0, 0
    for at, char in enumerate(text):
        depth += (char == "(") - (char == ")" and depth > 0)
        if depth == 0 and char in separators:
            pieces.append(text[start:at])
            start = at + 1
    pieces.append(text[start:])
    return [piece.strip() for piece in pieces if piece.strip()]


def _texts(node: Node, key: str, separators: str, faults: list[Mistake]) -> list[tuple[int, str]]:
    if is_null(node):
        return []
    if isinstance(node, Scalar):
        return [(node.line, piece) for piece in split_outside(node.text, separators)]
    if not isinstance(node, Items):
        faults.append(Mistake(node.line, f"`{key}` must be a list, or names separated by commas"))
        return []
    told = f"`{key}`: each must be the name of a tool"
    faults += [Mistake(each.line, told) for each in node.nodes if not isinstance(each, Scalar)]
    return [(each.line, each.text) for each in node.nodes if isinstance(each, Scalar)]


def _balanced(text: str) -> bool:
    depth = 0
    for char in text:
        depth += (char == "(") - (char == ")")
        if depth < 0:
            return False
    return depth == 0


def _check_scopes(grant: ToolGrant) -> None:
    for each in grant.arguments:
        if each not in (*NOTE_SCOPES, FROM_TOOLS):
            raise UsageError(f"`note` takes {', '.join(NOTE_SCOPES)} and {FROM_TOOLS}, not {shown(each)}")
    if FROM_TOOLS in grant.arguments and not {"program", "user"} & {*grant.arguments}:
        raise UsageError(f"`{FROM_TOOLS}` says nothing without a scope: `note(program, {FROM_TOOLS})`")


def _check_programs(grant: ToolGrant) -> None:
    if not grant.programs:
        raise UsageError(f"`{grant.name}` must say which programs: `{grant.name}(reader)`")
    for program in grant.programs:
        if program.startswith(("/", "~")) or "\\" in program or ".." in program.split("/") or "\0" in program:
            raise UsageError(f"{shown(program)} must name a program beside or below this file")


def _check_segments(grant: ToolGrant) -> None:
    if not grant.arguments:
        raise UsageError("`append` must say which segments: `append(brief)`")
    for name in grant.arguments:
        if not is_segment(name):
            raise UsageError(f"{shown(name)} is no name for a segment: {SEGMENT_RULE}")
