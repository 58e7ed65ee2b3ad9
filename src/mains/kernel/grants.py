"""Grants: who may use what. Deny by default: a program reaches only the tools that its `tools:` names. Pure.

A grant is a name: a syscall (`spawn_each(reader)`), a device (`files`, `files.*`) or one tool of it (`files.read`).
The list is made once, at spawn, sorted and frozen: a device that comes later changes no running process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mains.kernel.ports import Tool
from mains.program import ToolGrant


def granted(grant: str, tool: str) -> bool:
    """Whether a grant names a tool: itself, its device, or all tools of its device."""
    return grant == tool or tool.startswith(grant.removesuffix("*").removesuffix(".") + ".")


def offered(
    grants: Sequence[ToolGrant], syscalls: Mapping[str, Tool], devices: Sequence[Tool]
) -> tuple[tuple[Tool, ...], tuple[str, ...]]:
    """The tools that the grants reach, sorted by name, and the grants that nothing offers."""
    tools: dict[str, Tool] = {}
    missing = []
    for grant in grants:
        found = [tool for tool in devices if granted(grant.name, tool.name)]
        if grant.name in syscalls and not found:  # a device may have taken the name of one
            found.append(syscalls[grant.name])
        if not found:
            missing.append(grant.name)
        tools.update((tool.name, tool) for tool in found)
    return tuple(tools[name] for name in sorted(tools)), tuple(missing)
