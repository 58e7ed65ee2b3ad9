"""The rulebook: what the user grants to processes, as `[[grants]]` of mains.toml. It is read again when that changes.

    [[grants]]
    allow = "web.fetch(host=*.example.org)"     # or ask, or deny
    program = "digest"                          # only for processes of this program
    account = "team"                            # only for what this account pays, or one below it

How rules are applied stands in `kernel/grants.py`. Nothing that a process or a device does can write here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import msgspec

from mains.errors import ConfigError, NotFoundError, UsageError
from mains.home import Home
from mains.kernel.grants import Effect, Rule
from mains.kernel.toolset import SYSCALLS, YIELDING
from mains.program import ToolGrant, ours, parse_grant, parse_limits
from mains.tomlfile import edited, stamp_of

RULES_MAX = 1_000
_EFFECTS: tuple[Effect, ...] = get_args(Effect)
_KEYS = {*_EFFECTS, "program", "account"}


class Rulebook:
    """The rules of a home as they are now. While the file cannot be read there are none: a person is asked, whatever
    was allowed before, for what is forbidden is not known either."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._stamp: tuple[int, ...] | None = None
        self._rules: tuple[Rule, ...] = ()
        self._look()

    def rules(self) -> Sequence[Rule]:
        """All of them, in the order of the file. Raises ConfigError."""
        self._look()
        return self._rules

    def _look(self) -> None:
        stamp = stamp_of(self._home.config)
        if stamp != self._stamp or self._stamp is None:
            if stamp is None and self._rules:
                raise ConfigError(f"{self._home.config} is gone", hint="put it back, or start Mains again without it")
            self._rules = read_rules(self._home.document(), str(self._home.config))
            self._stamp = stamp


def read_rules(document: Mapping[str, Any], where: str) -> tuple[Rule, ...]:
    """The rules of a document. Raises ConfigError that says which one is wrong and why."""
    found = document.get("grants", [])
    if not isinstance(found, list) or len(found) > RULES_MAX:
        raise ConfigError(f"{where}: `grants` must be a list of tables (`[[grants]]`), at most {RULES_MAX:,}")
    return tuple(_rule(number, entry, f"{where}: grant {number}") for number, entry in enumerate(found, 1))


def _rule(number: int, entry: Any, where: str) -> Rule:
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        raise ConfigError(f"{where} must be a table of texts")
    effects = [effect for effect in _EFFECTS if effect in entry]
    if unknown := entry.keys() - _KEYS:
        raise ConfigError(f"{where}: unknown key `{min(unknown)}` (known: {', '.join(sorted(_KEYS))})")
    if len(effects) != 1:
        raise ConfigError(f"{where} needs one of {', '.join(_EFFECTS)}, with the tools that it is about")
    try:
        grant = tool_grant(entry[effects[0]])
    except UsageError as error:
        raise ConfigError(f"{where}: {error}") from error
    return Rule(number, effects[0], grant, entry.get("program", ""), entry.get("account", ""))


def tool_grant(text: str) -> ToolGrant:
    """The grant of a rule. Raises UsageError for what is none: also for `rate` and `ask`, which a program writes, and
    for syscalls: a rule about one would change nothing."""
    grant = ours(parse_grant(text))
    if grant.name in SYSCALLS - YIELDING:
        raise UsageError(f"`{text}`: rules are about tools of devices; `{grant.name}` is a part of Mains")
    limits = parse_limits(grant.name, grant.arguments)
    if limits.calls or limits.ask:
        raise UsageError(f"`{text}`: a rule has neither `rate` nor `ask` between parentheses; `--ask` makes it ask")
    return grant


def add_rule(home: Home, effect: Effect, text: str, program: str = "", account: str = "") -> bool:
    """Write a rule behind the others; False: it stands there already. Raises UsageError, ConfigError."""
    tool_grant(text)
    new = {effect: text} | ({"program": program} if program else {}) | ({"account": account} if account else {})
    with edited(home.config) as document:
        import tomlkit

        if document.get("grants") is None:
            document["grants"] = tomlkit.aot()
        read_rules(msgspec.to_builtins(document.unwrap()), str(home.config))
        if any(dict(entry) == new for entry in document["grants"].unwrap()):
            return False
        if len(document["grants"]) >= RULES_MAX:
            raise UsageError(f"there are {RULES_MAX:,} grants already", hint="`mains grant rm N` takes one away")
        document["grants"].append(tomlkit.item(new))
    return True


def allow_always(home: Home, tool: str, program: str) -> None:
    """What a person answers with `always`: processes of this program may call this tool. Raises ConfigError."""
    add_rule(home, "allow", tool, program)


def remove_rule(home: Home, number: int) -> Rule:
    """Take a rule away, by its number in `mains grant ls`; the rule. Raises NotFoundError, ConfigError."""
    with edited(home.config) as document:
        rules = read_rules(document.unwrap(), str(home.config))
        rule = next((rule for rule in rules if rule.number == number), None)
        if rule is None:
            raise NotFoundError(f"there is no grant {number}", hint="`mains grant ls` numbers them")
        del document["grants"][number - 1]
        if not document["grants"]:
            del document["grants"]
    return rule
