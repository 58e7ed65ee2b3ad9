"""Names of shared workspaces, as programs write them: `workspace: brief`.

A person makes such a folder (`mains files share brief`); a program can only ask for one that is there.
"""

from __future__ import annotations

import re

from mains.errors import Mistake
from mains.program.fields import is_null, read_text, shown
from mains.program.frontmatter import Node

WORKSPACE_RULE = "a small letter first, then small letters, digits, `.`, `-` and `_`, at most 40"
_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,39}")


def is_workspace(text: str) -> bool:
    """Whether a shared workspace can be called so. No number can: those are the folders of processes."""
    return _NAME.fullmatch(text) is not None


def read_workspace(node: Node, faults: list[Mistake]) -> str:
    """The shared workspace that a program asks for; empty for none."""
    if is_null(node):
        return ""
    name = read_text(node, "workspace", faults)
    if name and not is_workspace(name):
        told = f"`workspace`: {shown(name)} is no name for a shared workspace: {WORKSPACE_RULE}"
        faults.append(Mistake(node.line, told))
    return name
