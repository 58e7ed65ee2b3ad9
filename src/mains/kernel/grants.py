"""Grants: who may use what. Deny by default, and deny wins. Pure.

    offered(layers, syscalls, devices)   the tools that a program is offered, and the grants that nothing offers
    decide(tool, arguments, ...)         Decision: allow, ask a person, or deny, and by what
    unnamed(arguments, source)           the secrets in a call that its program does not name
    outlook(tool, grants, rules)         the same before any call, as far as it is known: a line for a person

A grant is a name: a syscall (`spawn_each(reader)`), a device (`files`, `files.*`) or one tool of it (`files.read`),
with limits between parentheses. The tool list is made once, at spawn, sorted and frozen: a device that comes later
changes no running process.

A call of a device needs three things, in this order:

1. A fitting grant of every program above: of its own, of each ancestor's, and of those that it was before an `exec` of
   its own (a *layer* each). So a child never has more than its parent. A grant that cannot be read fits nothing.
2. No rule of the user against it. Rules are the user's own grants; of those that fit, deny goes before ask and ask
   before allow. A rule for one program that denies or asks is about all below it, too; one that allows is not.
3. Where no rule says anything: a built-in device and a Python function may be used, anything attached asks a person.

A tool that can send data out also asks once something untrusted has been read (`leak`), unless the program names where
to and a rule allows just that: both limit one argument, to more than `*`. What a person has decided for the process
(`approved`) answers every ask; but what was decided before anything untrusted was read does not answer this one, and
nothing answers that about a tool that has changed since it was accepted. Nothing that a tool returns is looked at here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from mains.errors import UsageError
from mains.kernel.ports import SECRET, Tool
from mains.program import Limits, ToolGrant, ours, parse_limits

Effect = Literal["allow", "ask", "deny"]
_OUT = "it can send data out"
_DEPTH_MAX = 100


class Layer(msgspec.Struct, frozen=True, array_like=True):
    """What was granted to a program that a process is, was, or stands below. `holder`: the process in which the rates
    of these grants are counted, with all below it."""

    program: str
    holder: int
    grants: tuple[ToolGrant, ...]


class Rule(msgspec.Struct, frozen=True):
    """A grant of the user's: `effect` for all calls that `grant` names and that fit its limits."""

    number: int
    effect: Effect
    grant: ToolGrant
    program: str = ""  # only for processes of it
    account: str = ""  # only for what it pays, or an account below it does


class Rate(msgspec.Struct, frozen=True):
    """At most `calls` in `per_s` seconds, of the process `holder` and all below it together, for one of its grants."""

    holder: int
    grant: str
    calls: int
    per_s: int

    @property
    def name(self) -> str:
        """What they are counted under."""
        return f"{self.holder}:{self.grant}"


class Decision(msgspec.Struct, frozen=True):
    """What becomes of a call. `by` is what decided (`program`, `rule 3`); `why` is said to the model, or to the person
    who is asked. `rates`: those that the call counts in."""

    effect: Effect
    by: str
    why: str = ""
    rates: tuple[Rate, ...] = ()


def granted(grant: str, tool: str) -> bool:
    """Whether a grant names a tool: itself, its device, or all tools of its device."""
    return grant == tool or tool.startswith(grant.removesuffix("*").removesuffix(".") + ".")


def offered(
    layers: Sequence[Layer], syscalls: Mapping[str, Tool], devices: Sequence[Tool]
) -> tuple[tuple[Tool, ...], tuple[str, ...]]:
    """The tools that the last layer's grants reach, as far as all layers do, sorted by name; and the grants of it that
    nothing offers. A syscall needs only its own program's grant: what it does is bounded by other rules."""
    *above, own = layers
    tools: dict[str, Tool] = {}
    missing = []
    for grant in own.grants:
        name = ours(grant).name
        named = [tool for tool in devices if granted(name, tool.name)]
        found = [tool for tool in named if all(_names(layer, tool.name) for layer in above)]
        if grant.name in syscalls and not named:  # a device may have taken the name of one
            found.append(syscalls[grant.name])
        if not found:
            missing.append(grant.name)
        tools.update((tool.name, replace(tool, changed=False) if tool.changed else tool) for tool in found)
    return tuple(tools[name] for name in sorted(tools)), tuple(missing)


def _names(layer: Layer, tool: str) -> bool:
    return any(granted(ours(grant).name, tool) for grant in layer.grants)


def decide(
    tool: str,
    arguments: Mapping[str, Any],
    layers: Sequence[Layer],
    rules: Sequence[Rule],
    *,
    attached: bool = False,
    approved: Sequence[str] = (),
    leak: str = "",
    changed: bool = False,
) -> Decision:
    """What becomes of a call of a device's tool. `attached`: no built-in one. `approved`: what a person said before
    (`approval`). `leak`: it may send data out, and this untrusted has been read: only a destination that the program
    names and a rule allows is not asked about. `changed`: it is not what its user accepted."""
    rates: list[Rate] = []
    asks, named = False, frozenset[str]()
    for layer in layers:
        found = [(grant, _limits(grant)) for grant in map(ours, layer.grants) if granted(grant.name, tool)]
        fitting = [(grant, limits) for grant, limits in found if limits is not None and limits.fit(arguments)]
        if not fitting:
            return Decision("deny", "program", _outside(tool, found))
        grant, chosen = next((each for each in fitting if not (each[1].ask or each[1].calls)), fitting[0])
        asks, named = asks or chosen.ask, chosen.destinations
        rates += [Rate(layer.holder, str(grant), chosen.calls, chosen.per_s)] if chosen.calls else []
    effect, by, destined = _ruled(tool, arguments, rules)
    if effect == "deny":
        return Decision("deny", by, f"{tool} is forbidden here ({by})")
    if effect is None:
        effect, by = ("ask", "no rule") if attached else ("allow", "program")
    if asks and effect == "allow":
        effect, by = "ask", "program"
    if leaks := bool(leak) and not named & destined:
        effect, by = "ask", f"{_OUT}, and the process has read {leak}"
    if effect == "ask" and approval(tool, by if leaks else "") in approved:
        effect, by = "allow", "a person, for this process"
    if changed:
        device = tool.partition(".")[0]
        effect, by = "ask", f"it has changed since it was accepted: `mains device accept {device}`"
    return Decision(effect, by, rates=tuple(rates))


def approval(tool: str, asked: str) -> str:
    """What a person allows who is asked about a tool for this reason, and answers for the whole process."""
    return f"{tool} out" if asked.startswith(_OUT) else tool


def unnamed(value: Any, source: str, depth: int = 0) -> list[str]:
    """The names of the secrets that would be put into these arguments, and that the program `source` does not name."""
    if isinstance(value, str):
        found = SECRET.findall(value)
        return [name for name in found if name not in SECRET.findall(source)]
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return [name for each in inner for name in unnamed(each, source, depth + 1)] if depth <= _DEPTH_MAX else []


def outlook(tool: Tool, grants: Sequence[ToolGrant], rules: Sequence[Rule]) -> str:
    """What will become of calls of a device's tool, in words: how its program limits it, and what the rules say."""
    found = [grant for grant in map(ours, grants) if granted(grant.name, tool.name)]
    own = [str(grant) + ("" if _limits(grant) else " (cannot be read: it grants nothing)") for grant in found]
    limited = [text for text in own if text.endswith(")")]
    said = [f"{rule.effect} {rule.grant} (rule {rule.number})" for rule in rules if granted(rule.grant.name, tool.name)]
    parts = ["; or ".join(limited)] if limited and len(limited) == len(own) else []
    parts += said or (["asks a person first"] if tool.attached else [])
    if tool.open_world:
        parts.append("can send data out: asks once something untrusted was read")
    return "; ".join(parts) or "allowed"


def _ruled(tool: str, arguments: Mapping[str, Any], rules: Sequence[Rule]) -> tuple[Effect | None, str, frozenset[str]]:
    """What the rules say: the strictest of those that fit, its name, and the arguments by which one that allows names
    where to. What is unclear counts as fitting for a rule that denies or asks."""
    found: dict[Effect, Rule] = {}
    destined = frozenset[str]()
    for rule in rules:
        if granted(rule.grant.name, tool):
            limits = parse_limits(rule.grant.name, rule.grant.arguments)
            if limits.fit(arguments) if rule.effect == "allow" else limits.may_fit(arguments):
                destined |= limits.destinations if rule.effect == "allow" else frozenset()
                found.setdefault(rule.effect, rule)
    order: tuple[Effect, ...] = ("deny", "ask", "allow")
    effect = next((each for each in order if each in found), None)
    return effect, f"rule {found[effect].number}" if effect else "", destined


def _limits(grant: ToolGrant) -> Limits | None:
    """What limits a grant of a program; None when that cannot be read: such a grant grants nothing."""
    try:
        return parse_limits(grant.name, grant.arguments)
    except UsageError:
        return None


def _outside(tool: str, found: Sequence[tuple[ToolGrant, Limits | None]]) -> str:
    """Why no grant fits, with what would."""
    if not found:
        return f"{tool} is granted neither to this program nor by those above it"
    wanted = [
        " and ".join(f"{where.argument}={'|'.join(where.patterns)}" for where in limits.where)
        if limits is not None
        else f"{grant}, which cannot be read"
        for grant, limits in found
    ]
    return f"{tool} is granted only with {'; or '.join(wanted)}"
