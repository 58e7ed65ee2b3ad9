"""Whether a value fits a JSON Schema that a stranger wrote, at a price that is known before it is paid.

    fault = price_fault(schema)        why a schema is not to be used; empty when it is
    Checker(schema).fault_of(value)    what is wrong with a value; empty when nothing is

The library that checks (jsonschema-rs, draft 2020-12) is fast, and the interpreter stands still meanwhile. A schema of
a kilobyte can keep it for days: `$defs` that each name the next one twice, forty of them, are 2^40 visits. So the
visits that a check would make are counted first, each pair of a part of the schema and a part of the value once; what
would make more than `_VISITS_MAX` is refused. A visit that matches a regular expression counts as many, for that is
what it costs. Expressions are bounded as well: in the size of what they compile to, and in the steps that one with
look-around or back-references may go back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

_VISITS_MAX = 3_000_000  # about 0.3 s
_PAIRS_MAX = 200_000  # that are counted: about 0.2 s
_DEPTH_MAX = 400  # of parts of a schema within each other, references followed
_PLAIN_NODES_MAX = 500  # of a schema without references: its price is then that of its size
_PATTERNS_MAX = 256
_PATTERN_BYTES_MAX = 1024 * 1024  # compiled
_STEPS_MAX = 5_000  # back, of one match
_STEPPING = re.compile(r"\(\?(?:[=!>]|<[=!])|\\[1-9k]|[*+?}]\+")
_STEPPING_VISITS = 2_000  # what a match that may go back counts
_MATCH_VISITS = 10
_FAULT_CHARS = 500

_IN_PLACE = ("allOf", "anyOf", "oneOf")
_IN_PLACE_ONE = ("not", "if", "then", "else")
_OF_PROPERTIES = ("additionalProperties", "unevaluatedProperties")
_OF_ITEMS = ("items", "contains", "unevaluatedItems", "additionalItems")


class PriceError(ValueError):
    """A check that would cost too much; says why, in a few words."""


class Checker:
    """The checker of one schema. Raises ValueError for what is no schema, or has expressions that are too large."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        from jsonschema_rs import Draft202012Validator, FancyRegexOptions, ValidationError

        bounds = FancyRegexOptions(
            backtrack_limit=_STEPS_MAX, size_limit=_PATTERN_BYTES_MAX, dfa_size_limit=_PATTERN_BYTES_MAX
        )
        try:
            self._validator = Draft202012Validator(dict(schema), pattern_options=bounds, retriever=_nothing_elsewhere)
        except ValidationError as error:
            raise ValueError(str(error).splitlines()[0]) from error
        self._visits = None if _is_plain(schema) else _Visits(schema)

    def fault_of(self, value: Any) -> str:
        """What is wrong with a value, in a line; empty when nothing is."""
        from jsonschema_rs import ValidationError

        try:
            if self._visits is not None:
                self._visits.count(value)
            self._validator.validate(value)
        except PriceError as error:
            return f"they cannot be checked: {error}"
        except ValidationError as error:
            where = "/".join(str(part) for part in error.instance_path)
            fault = error.message[:_FAULT_CHARS]
            return f"{where[:_FAULT_CHARS]}: {fault}" if where else str(fault)
        except ValueError as error:  # such as a number that no JSON has
            return f"they cannot be checked: {str(error)[:_FAULT_CHARS]}"
        return ""


def price_fault(schema: Mapping[str, Any]) -> str:
    """Why a schema costs too much, or has what cannot be counted; empty when it may be used."""
    patterns = 0
    for node, is_root in _nodes(schema):
        patterns += isinstance(node.get("pattern"), str)
        expressions = node.get("patternProperties")
        patterns += len(expressions) if isinstance(expressions, dict) else 0
        if not is_root and isinstance(node.get("$id"), str):
            return "a part of its schema has a name of its own ($id)"
    if patterns > _PATTERNS_MAX:
        return f"its schema has {patterns:,} regular expressions, at most {_PATTERNS_MAX}"
    try:
        _Visits(schema).count({})
    except PriceError as error:
        return f"its schema cannot be used: {error}"
    return ""


def _nothing_elsewhere(place: str) -> Any:
    """What a validator gets that would fetch a part of a schema from the net, or from a file: an error."""
    raise ValueError(f"nothing is fetched: {place}")


def _is_plain(schema: Mapping[str, Any]) -> bool:
    """Whether a schema is small, refers to nothing, and has no expression that may go back."""
    for count, (node, _) in enumerate(_nodes(schema)):
        if count > _PLAIN_NODES_MAX or "$ref" in node or "$dynamicRef" in node:
            return False
        expressions = node.get("patternProperties")
        for each in (node.get("pattern"), *(expressions if isinstance(expressions, dict) else ())):
            if isinstance(each, str) and _STEPPING.search(each):
                return False
    return True


def _nodes(schema: Any) -> Iterator[tuple[Mapping[str, Any], bool]]:
    """Every object in a schema, and whether it is the outermost."""
    left = [schema]
    while left:
        node = left.pop()
        if isinstance(node, Mapping):
            yield node, node is schema
            left += node.values()
        elif isinstance(node, list | tuple):
            left += node


class _Visits:
    """How many visits a check makes at most, when nothing ends it early."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema
        self._anchors = {
            str(node[key]): node
            for node, _ in _nodes(schema)
            for key in ("$anchor", "$dynamicAnchor")
            if isinstance(node.get(key), str)
        }
        self._known: dict[tuple[int, int], int] = {}
        self._within: set[tuple[int, int]] = set()

    def count(self, value: Any) -> int:
        """The visits. Raises PriceError when there are too many, or nobody can count them."""
        self._known, self._within = {}, set()
        try:
            return self._of(self._schema, value, 0)
        finally:
            self._known, self._within = {}, set()

    def _of(self, schema: Any, value: Any, depth: int) -> int:
        if not isinstance(schema, Mapping) or not schema:
            return 1
        pair = id(schema), id(value)
        if (known := self._known.get(pair)) is not None:
            return known
        if pair in self._within:
            raise PriceError("it refers to itself without going anywhere")
        if depth > _DEPTH_MAX or len(self._known) > _PAIRS_MAX:
            raise PriceError("it is too deep or too large")
        self._within.add(pair)
        visits = 1 + _weight(schema, value)
        for below, part in self._below(schema, value):
            visits += self._of(below, part, depth + 1)
            if visits > _VISITS_MAX:
                raise PriceError("that would take too long")
        if "unevaluatedProperties" in schema or "unevaluatedItems" in schema:
            visits *= 2  # what is evaluated is found out by going through it all again
        self._within.discard(pair)
        self._known[pair] = visits
        return visits

    def _below(self, schema: Mapping[str, Any], value: Any) -> Iterator[tuple[Any, Any]]:
        """What a visit leads to: parts of the schema, each with the part of the value that it looks at."""
        for key in ("$ref", "$dynamicRef"):
            if isinstance(schema.get(key), str):
                yield self._target(schema[key]), value
        for key in _IN_PLACE:
            yield from ((each, value) for each in _list(schema, key))
        yield from ((schema[key], value) for key in _IN_PLACE_ONE if key in schema)
        for key in ("dependentSchemas", "dependencies"):
            yield from ((each, value) for each in _dict(schema, key).values())
        if isinstance(value, Mapping):
            yield from self._of_object(schema, value)
        elif isinstance(value, list | tuple):
            yield from zip(_list(schema, "prefixItems"), value, strict=False)
            for key in _OF_ITEMS:
                if key in schema:
                    yield from ((schema[key], item) for item in value)

    @staticmethod
    def _of_object(schema: Mapping[str, Any], value: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
        properties, matching = _dict(schema, "properties"), _dict(schema, "patternProperties")
        for key, part in value.items():
            if key in properties:
                yield properties[key], part
            yield from ((each, part) for each in matching.values())
            if "propertyNames" in schema:
                yield schema["propertyNames"], key
        for name in _OF_PROPERTIES:
            if name in schema:
                yield from ((schema[name], part) for part in value.values())

    def _target(self, reference: str) -> Any:
        """The part of the schema that a reference names. Raises PriceError when it names none."""
        name = unquote(reference.removeprefix("#"))
        if name and not name.startswith("/"):
            if name in self._anchors:
                return self._anchors[name]
            raise PriceError("it refers to something that it does not have")
        place: Any = self._schema
        for part in name.split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(place, Mapping) and key in place:
                place = place[key]
            elif isinstance(place, list | tuple) and key.isdecimal() and int(key[:9]) < len(place):
                place = place[int(key[:9])]
            else:
                raise PriceError("it refers to something that it does not have")
        return place


def _weight(schema: Mapping[str, Any], value: Any) -> int:
    """What a visit's regular expressions count."""
    weight = 0
    if isinstance(value, str) and isinstance(schema.get("pattern"), str):
        weight += _match_weight(schema["pattern"], value)
    if isinstance(value, Mapping) and (matching := _dict(schema, "patternProperties")):
        weight += sum(_match_weight(each, key) for each in matching for key in value)
    return weight


def _match_weight(pattern: str, text: str) -> int:
    return (_STEPPING_VISITS if _STEPPING.search(pattern) else _MATCH_VISITS) + len(text) // 100


def _list(schema: Mapping[str, Any], key: str) -> list[Any]:
    found = schema.get(key)
    return found if isinstance(found, list) else []


def _dict(schema: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = schema.get(key)
    return found if isinstance(found, Mapping) else {}
