"""Permits: whether a process may make a call of a device, now. The pure rules stand in `grants.py`; here is what they
need: what was granted to the process and above it, the user's rules, what a person has approved, and how often it has
called.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from mains.errors import NotFoundError, SyscallError
from mains.kernel import accounts, grants, pages
from mains.kernel.birth import layers_of
from mains.kernel.grants import Decision, Rule
from mains.kernel.ports import Tool
from mains.kernel.process import Process, Rated
from mains.kernel.toolset import LOOKUPS
from mains.kernel.tx import Tx
from mains.kernel.verdict import Toolbox
from mains.kernel.world import World
from mains.program import Limits

FOUND_MAX = 10


def decide(
    tx: Tx, world: World, p: Process, tool: Tool, arguments: Mapping[str, Any], rated: tuple[Rated, ...]
) -> tuple[Decision, tuple[Rated, ...]]:
    """What becomes of a call; and the rates that calls of this reply count in, this one included.

    Raises nothing: what is unclear is denied.
    """
    if tool.name in LOOKUPS:
        return Decision("allow", "memory"), rated
    decision = grants.decide(
        tool.name,
        arguments,
        layers_of(tx, world, p),
        [rule for rule in world.rules() if _concerns(tx, rule, p)],
        attached=tool.attached,
        approved=tool.name in p.approved,
        leak=p.tainted if tool.open_world else "",
        changed=tool.name in world.changed,
    )
    if decision.effect == "deny" or not decision.rates:
        return decision, rated
    return _counted(tx, p, tool.name, decision, rated)


def find(tx: Tx, world: World, p: Process, query: str) -> str:
    """The tools that `p` was granted and that came after it began, those first that `query` fits, as JSON."""
    words = [word for word in query.casefold().split() if word]
    ranked = []
    for tool in late_tools(tx, world, p):
        told = f"{tool.name} {tool.description}".casefold()
        ranked.append((-sum(word in told for word in words), tool.name, tool))
    shown = [
        {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
        for _, _, tool in sorted(ranked, key=lambda each: each[:2])[:FOUND_MAX]
    ]
    return msgspec.json.encode(shown).decode() if shown else "there is no tool yet besides those that you know"


def late(tx: Tx, world: World, p: Process, name: str, arguments: Mapping[str, Any]) -> Tool:
    """The tool that came after `p` began and that it may call. Raises SyscallError: there is none, or the arguments do
    not fit."""
    tool = next((tool for tool in late_tools(tx, world, p) if tool.name == name), None)
    if tool is None:
        raise SyscallError(f"call_tool: there is no tool `{name}` for it: find_tool says which there are")
    if fault := Toolbox((tool,), None).fault_of(name, arguments):
        raise SyscallError(f"call_tool: the arguments do not fit {name}: {fault}")
    return tool


def late_tools(tx: Tx, world: World, p: Process) -> list[Tool]:
    """The tools that `p` was granted and that are not in its list: their devices came after it began."""
    known = {tool.name for tool in msgspec.json.decode(pages.get(tx, p.tools), type=list[Tool])}
    found, _ = grants.offered(layers_of(tx, world, p), {}, world.tools())
    return [tool for tool in found if tool.name not in known]


def _concerns(tx: Tx, rule: Rule, p: Process) -> bool:
    """Whether a rule is about this process: its program, and an account that pays for it."""
    if rule.program and rule.program != p.name:
        return False
    try:
        return not rule.account or accounts.named(tx, rule.account).account in p.accounts
    except NotFoundError:  # an account that nobody has opened yet pays for nothing
        return False


def _counted(
    tx: Tx, p: Process, tool: str, decision: Decision, rated: tuple[Rated, ...]
) -> tuple[Decision, tuple[Rated, ...]]:
    """One more call in each rate, or a denial that says when there is room again. The first call begins a window."""
    known = {each.grant: each for each in (*p.rated, *rated)}
    new = {each.grant: each for each in rated}
    for limits in decision.rates:
        name = f"{tool} {limits.calls}/{limits.per_s}"
        found = known.get(name)
        if found is None or tx.now_ms - found.since_ms >= limits.per_s * 1_000 or tx.now_ms < found.since_ms:
            found = Rated(name, tx.now_ms, 0)
        if found.calls >= limits.calls:
            left_s = -(-(found.since_ms + limits.per_s * 1_000 - tx.now_ms) // 1_000)
            return Decision("deny", "program", _too_often(tool, limits, left_s)), rated
        new[name] = Rated(name, found.since_ms, found.calls + 1)
    return decision, tuple(new.values())


def _too_often(tool: str, limits: Limits, left_s: int) -> str:
    return f"{tool} may be called {limits.calls} times in {limits.per_s} s, and was; there is room again in {left_s} s"
