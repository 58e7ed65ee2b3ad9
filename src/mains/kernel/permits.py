"""Permits: whether a process may make a call of a device, now. The pure rules stand in `grants.py`; here is what they
need: what was granted to the process and above it, the user's rules, what a person has approved, and how often it has
called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from mains.errors import ConfigError, NotFoundError, SyscallError
from mains.kernel import accounts, grants, pages
from mains.kernel.birth import layers_of
from mains.kernel.grants import Decision, Layer, Rate, Rule
from mains.kernel.ports import Tool
from mains.kernel.process import Process, Rated
from mains.kernel.toolset import LOOKUPS
from mains.kernel.tx import Tx
from mains.kernel.verdict import Toolbox
from mains.kernel.world import World

FOUND_MAX = 10
_RATED = b'"rated":'  # in the record of a process that has called something with a rate


def decide(
    tx: Tx, world: World, p: Process, tool: Tool, arguments: Mapping[str, Any], rated: tuple[Rated, ...]
) -> tuple[Decision, tuple[Rated, ...]]:
    """What becomes of a call; and the rates that calls of this reply count in, this one included.

    Raises nothing: what is unclear is denied.
    """
    if tool.name in LOOKUPS:
        return Decision("allow", "memory"), rated
    layers = layers_of(tx, world, p)
    unread = ""
    try:
        rules = [rule for rule in world.rules() if _concerns(tx, rule, p, layers)]
    except ConfigError as error:
        rules, unread = [], f"your rules cannot be read: {error}"
    decision = grants.decide(
        tool.name,
        arguments,
        layers,
        rules,
        attached=tool.attached,
        approved=p.approved,
        leak=p.tainted if tool.open_world else "",
        changed=tool.changed,
    )
    if decision.effect != "deny" and (unread or (unread := _unnamed(tx, world, p, arguments))):
        decision = msgspec.structs.replace(decision, effect="ask", by=unread)  # whatever was approved before
    if decision.effect == "deny" or not decision.rates:
        return decision, rated
    return _counted(tx, p, tool.name, decision, rated)


def _unnamed(tx: Tx, world: World, p: Process, arguments: Mapping[str, Any]) -> str:
    """Why a person must be asked about a secret: the model named it, and its program does not. Empty: there is none.

    What else the model has read may have come from anybody: inputs, messages and results name no secret.
    """
    found = grants.unnamed(arguments, world.program(pages.get(tx, p.program)).source)
    return f"it would be given the secret {found[0][:64]}, which its program does not name" if found else ""


def find(tx: Tx, world: World, p: Process, query: str) -> tuple[str, bool]:
    """The tools that `p` was granted and that came after it began, those first that `query` fits, as JSON; and whether
    somebody else's words are among it: what an attached device says of its tools."""
    words = [word for word in query.casefold().split() if word]
    ranked = []
    for tool in late_tools(tx, world, p):
        told = f"{tool.name} {tool.description}".casefold()
        ranked.append((-sum(word in told for word in words), tool.name, tool))
    found = [tool for _, _, tool in sorted(ranked, key=lambda each: each[:2])[:FOUND_MAX]]
    if not found:
        return "there is no tool yet besides those that you know", False
    shown = [{"name": each.name, "description": each.description, "parameters": each.parameters} for each in found]
    return msgspec.json.encode(shown).decode(), any(each.attached for each in found)


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


def _concerns(tx: Tx, rule: Rule, p: Process, layers: Sequence[Layer]) -> bool:
    """Whether a rule is about this process: its program, and an account that pays for it. What a rule keeps a program
    from, no child of it may do, and not the program itself as another (`exec`)."""
    names = {p.name} if rule.effect == "allow" else {layer.program for layer in layers}
    if rule.program and rule.program not in names:
        return False
    try:
        return not rule.account or accounts.named(tx, rule.account).account in p.accounts
    except NotFoundError:  # an account that nobody has opened yet pays for nothing
        return False


def _counted(
    tx: Tx, p: Process, tool: str, decision: Decision, rated: tuple[Rated, ...]
) -> tuple[Decision, tuple[Rated, ...]]:
    """One more call in each rate, or a denial that says when there is room again. The first call begins a window.

    Each process keeps what it has called itself; what counts is that of the holder and all below it. A clock that went
    back opens no window anew.
    """
    new = {each.grant: each for each in rated}
    for rate in decision.rates:
        per_ms = rate.per_s * 1_000
        own = new.get(rate.name) or next((each for each in p.rated if each.grant == rate.name), None)
        others = [each for each in _of_others(tx, rate, p) if tx.now_ms - each.since_ms < per_ms]
        if own is None or tx.now_ms - own.since_ms >= per_ms:
            own = Rated(rate.name, tx.now_ms, 0)
        own = Rated(rate.name, min(own.since_ms, tx.now_ms), own.calls)
        if own.calls + sum(each.calls for each in others) >= rate.calls:
            since_ms = min([tx.now_ms, *(each.since_ms for each in (own, *others) if each.calls)])
            left_s = -(-(since_ms + per_ms - tx.now_ms) // 1_000)
            return Decision("deny", "program", _too_often(tool, rate, left_s)), rated
        new[rate.name] = Rated(rate.name, own.since_ms, own.calls + 1)
    return decision, tuple(new.values())


def _of_others(tx: Tx, rate: Rate, p: Process) -> list[Rated]:
    """What others than `p` have called of a rate: who holds it, and all below."""
    holder = tx.process(rate.holder)
    found = [] if holder is None else [holder, *tx.processes("process_rated_below", rate.holder, _RATED)]
    return [each for other in found if other.pid != p.pid for each in other.rated if each.grant == rate.name]


def _too_often(tool: str, rate: Rate, left_s: int) -> str:
    return f"{tool} may be called {rate.calls} times in {rate.per_s} s, and was; there is room again in {left_s} s"
