"""Checks at a bounded price: no schema and no value holds the interpreter for long, and what fits is found to fit."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from mains.arguments import Checker, price_fault

SOON_S = 3.0
CHAIN = 40


def chain(part: Callable[[str], Any], last: Any = True) -> dict[str, Any]:
    """Definitions that each name the next."""
    return {f"a{n}": part(f"#/$defs/a{n + 1}") for n in range(CHAIN)} | {f"a{CHAIN}": last}


def twice(key: str) -> dict[str, Any]:
    return {"type": "object", "$ref": "#/$defs/a0", "$defs": chain(lambda ref: {key: [{"$ref": ref}, {"$ref": ref}]})}


def anchored(ref: str, anchor: str) -> dict[str, Any]:
    parts = {f"x{n}": {anchor: f"a{n}", "allOf": [{ref: f"#a{n + 1}"}] * 2} for n in range(CHAIN)}
    return {"type": "object", ref: "#a0", "$defs": {**parts, "x": {anchor: f"a{CHAIN}"}}}


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


TANGLE = chain(lambda ref: {"allOf": [{"$ref": ref}, {"$ref": ref}]})
BOMBS: dict[str, tuple[dict[str, Any], Any]] = {
    **{key: (twice(key), {}) for key in ("allOf", "anyOf", "oneOf")},
    "not and if": (
        {
            "type": "object",
            "$ref": "#/$defs/a0",
            "$defs": chain(lambda ref: {"not": {"$ref": ref}, "if": {"$ref": ref}}),
        },
        {},
    ),
    "anchors": (anchored("$ref", "$anchor"), {}),
    "dynamic anchors": (anchored("$dynamicRef", "$dynamicAnchor"), {}),
    "itself": ({"type": "object", "$ref": "#"}, {}),
    "each other": (
        {"type": "object", "$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        {},
    ),
    "all of all": (
        {
            "type": "object",
            "$ref": "#/$defs/a0",
            "$defs": {f"a{n}": {"anyOf": [{"$ref": f"#/$defs/a{k}"} for k in range(20)]} for n in range(20)},
        },
        {},
    ),
    "a long way": (
        {
            "type": "object",
            "$ref": "#/$defs/a0",
            "$defs": {f"a{n}": {"$ref": f"#/$defs/a{n + 1}"} for n in range(900)} | {"a900": True},
        },
        {},
    ),
    "nowhere": ({"type": "object", "properties": {"a": {"$ref": "#/$defs/b"}}}, {"a": 1}),
    "twice by depth": ({"type": "object", "properties": {"a": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}}, nested(30)),
    "depth": ({"type": "object", "properties": {"a": {"$ref": "#"}}}, nested(900)),
    "when it is there": (
        {"type": "object", "dependentSchemas": {"x": {"$ref": "#/$defs/a0"}}, "$defs": TANGLE},
        {"x": 1},
    ),
    "additional": ({"type": "object", "additionalProperties": {"$ref": "#/$defs/a0"}, "$defs": TANGLE}, {"x": 1}),
    "unevaluated": ({"type": "object", "unevaluatedProperties": {"$ref": "#/$defs/a0"}, "$defs": TANGLE}, {"x": 1}),
    "names": ({"type": "object", "propertyNames": {"$ref": "#/$defs/a0"}, "$defs": TANGLE}, {"x": 1}),
    "patterns": ({"type": "object", "patternProperties": {"x": {"$ref": "#/$defs/a0"}}, "$defs": TANGLE}, {"x": 1}),
    "items": ({"type": "object", "properties": {"a": {"items": {"$ref": "#/$defs/a0"}}}, "$defs": TANGLE}, {"a": [1]}),
    "first items": (
        {"type": "object", "properties": {"a": {"prefixItems": [{"$ref": "#/$defs/a0"}]}}, "$defs": TANGLE},
        {"a": [1]},
    ),
    "many items": (
        {"type": "object", "properties": {"a": {"items": {"allOf": [{"minimum": n} for n in range(-900, 0)]}}}},
        {"a": [1] * 5_000},
    ),
    "steps back": (
        {
            "type": "object",
            "properties": {"a": {"anyOf": [{"pattern": rf"(?=.*)(.*)(.*)(.*)(.*)\1\2zz{n}"} for n in range(1_200)]}},
        },
        {"a": "ab" * 300},
    ),
    "large expressions": (
        {"type": "object", "properties": {"a": {"pattern": r"((\w{1,300}){1,300}){1,300}"}}},
        {"a": "b"},
    ),
    "many expressions": (
        {"type": "object", "patternProperties": {f"a{n}": {} for n in range(300)}},
        {f"x{n}": 1 for n in range(1_000)},
    ),
    "a name of its own": (
        {"type": "object", "$ref": "#/$defs/z/$defs/a0", "$defs": {"z": {"$id": "x:z", "$defs": TANGLE}}},
        {},
    ),
}


def one_line(fault: str) -> None:
    """The one clear line of a refusal."""
    assert 0 < len(fault) < 600
    assert fault.isprintable()


@pytest.mark.parametrize("name", BOMBS)
def test_no_schema_holds_the_interpreter(name: str) -> None:
    schema, value = BOMBS[name]
    begun_s = time.monotonic()
    fault = price_fault(schema)
    if not fault:
        try:
            fault = Checker(schema).fault_of(value)
        except ValueError as error:
            fault = str(error)
    one_line(fault)
    assert time.monotonic() - begun_s < SOON_S


TREE = {
    "$ref": "#/$defs/node",
    "type": "object",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "below": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
            "required": ["name"],
            "additionalProperties": False,
        }
    },
}
FILTER = {
    "type": "object",
    "anyOf": [
        {
            "properties": {"kind": {"const": "and"}, "of": {"type": "array", "items": {"$ref": "#"}}},
            "required": ["kind", "of"],
        },
        {
            "properties": {"kind": {"const": "or"}, "of": {"type": "array", "items": {"$ref": "#"}}},
            "required": ["kind", "of"],
        },
        {
            "properties": {"kind": {"const": "is"}, "value": {"type": "string", "pattern": "^(?!x)[a-z]+$"}},
            "required": ["value"],
        },
    ],
}


def filters(levels: int) -> dict[str, Any]:
    if not levels:
        return {"kind": "is", "value": "yes"}
    return {"kind": "and", "of": [filters(levels - 1), {"kind": "is", "value": "no"}]}


@pytest.mark.parametrize(
    ("schema", "value", "said"),
    [
        ({"type": "object", "properties": {"a": {"type": "integer"}}}, {"a": 1}, ""),
        ({"type": "object", "properties": {"a": {"type": "integer"}}}, {"a": "x"}, 'a: "x" is not of type "integer"'),
        (TREE, {"name": "a", "below": [{"name": "b", "below": [{"name": "c"}]}] * 50}, ""),
        (TREE, {"name": "a", "below": [{"below": []}]}, 'below/0: "name" is a required property'),
        (FILTER, filters(7), ""),
        ({"type": "object", "properties": {"a": {"items": {"type": "number"}}}}, {"a": [1.5] * 100_000}, ""),
        ({"type": "object", "properties": {"a": {"pattern": r"^\d{4}-\d{2}$"}}}, {"a": "2026-11"}, ""),
        (
            {"type": "object", "properties": {"a/b": {"$ref": "#/properties/c%25~1~0"}, "c%/~": {"const": 1}}},
            {"a/b": 1},
            "",
        ),
        ({"type": "object", "properties": {"$id": {"type": "string"}, "pattern": {}, "$ref": {}}}, {"$id": "x"}, ""),
    ],
)
def test_what_is_usual_is_checked(schema: dict[str, Any], value: Any, said: str) -> None:
    assert price_fault(schema) == ""
    assert Checker(schema).fault_of(value) == said
