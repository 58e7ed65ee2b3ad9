"""Aliases of models: names that a home gives to models, so that programs can say what they want and not where it is.

    [models]
    fast = "qwen-flash"              # an engine, a model, or engine/model
    smart = ["claude", "qwen-max"]   # several: each takes over when the one before it cannot serve

An alias stands for what is written and for no other alias. `fast` and `smart` are no more than customary names: where
they are not in the table they are unknown names, and the default engine serves them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mains.errors import ConfigError

CHAIN_MAX = 8
"""Models that one alias may stand for."""

Aliases = Mapping[str, tuple[str, ...]]


def load_aliases(document: Mapping[str, Any], engines: Mapping[str, object], where: str) -> Aliases:
    """The `[models]` of a whole mains.toml. Raises ConfigError that names the alias and what is wrong with it."""
    table = document.get("models", {})
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where}: models is no table", hint='write [models], then fast = "an engine or a model"')
    aliases = {}
    for name, given in table.items():
        models = [given] if isinstance(given, str) else given
        if not isinstance(models, list) or not all(isinstance(each, str) and each for each in models):
            raise ConfigError(f"{where}: [models]: `{name}` must be a name in quotes, or a list of such")
        if not 0 < len(models) <= CHAIN_MAX:
            raise ConfigError(f"{where}: [models]: `{name}` stands for {len(models)} models, not 1 to {CHAIN_MAX}")
        if name in engines:
            raise ConfigError(f"{where}: [models]: `{name}` is an engine already", hint="take another name")
        if others := [each for each in models if each in table]:
            raise ConfigError(f"{where}: [models]: `{name}` stands for the alias `{others[0]}`", hint="name its models")
        aliases[name] = tuple(models)
    return aliases


def expand(models: tuple[str, ...], aliases: Aliases) -> tuple[str, ...]:
    """The models that a program names, with what its aliases stand for in their places."""
    return tuple(dict.fromkeys(each for name in models for each in aliases.get(name, (name,))))
