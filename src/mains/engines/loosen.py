"""A JSON Schema as one that llama.cpp turns into a small grammar: never stricter than it was, never refused. Pure.

    loosen(schema)      -> a schema of the keywords below only

Kept: `const`, `enum`, `type`, `properties`, `required`, closed objects, `items`, `minItems`, `maxItems`, `anyOf`
(`oneOf` becomes it), `minimum` and `maximum` of integers, short `minLength` and `maxLength`; a `$ref` into the schema
itself is followed. Everything else (`pattern`, `allOf`, `not`, conditions, recursion, what is too deep or too large)
becomes less constrained; the kernel checks the value against the whole schema and lets the model mend it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mains.kernel.ports import Schema

DEPTH_MAX = 8
NODES_MAX = 600  # parts of one schema
PROPERTIES_MAX = 64  # of one object
ENUM_MAX = 1_000  # as many files as a folder input may have
REPEAT_MAX = 256  # a bound on items or characters multiplies the grammar: a larger one is left out
REFERENCES_MAX = 3  # within each other: deeper is recursion

_TYPES = frozenset({"string", "number", "integer", "boolean", "null", "array", "object"})
_SCALARS = ("number", "boolean", "null")


def loosen(schema: Schema) -> Schema:
    """`schema` in the keywords that llama.cpp is sure to take."""
    return _Loosening(schema).of(schema, 0, 0)


class _Loosening:
    """One pass. `root` is where references start; `_left` bounds the whole."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._left = NODES_MAX

    def of(self, schema: Any, depth: int, references: int) -> Schema:
        self._left -= 1
        if not isinstance(schema, Mapping) or depth > DEPTH_MAX or self._left <= 0:
            return {}
        if "$ref" in schema:
            target = _target(self._root, schema["$ref"]) if references < REFERENCES_MAX else None
            return {} if target is None else self.of(target, depth, references + 1)
        if "const" in schema:
            return {"const": schema["const"]}
        if isinstance(schema.get("enum"), list) and 0 < len(schema["enum"]) <= ENUM_MAX:
            return {"enum": schema["enum"]}
        for key in ("anyOf", "oneOf"):
            if isinstance(schema.get(key), list) and schema[key]:
                return {"anyOf": [self.of(each, depth + 1, references) for each in schema[key]]}
        return self._typed(schema, schema.get("type"), depth, references)

    def _typed(self, schema: Mapping[str, Any], kind: Any, depth: int, references: int) -> Schema:
        if isinstance(kind, list):
            return {"anyOf": [self._typed(schema, each, depth, references) for each in kind]} if kind else {}
        if kind == "object" or (kind is None and isinstance(schema.get("properties"), Mapping)):
            return self._object(schema, depth, references)
        if kind == "array":
            items = self.of(schema["items"], depth + 1, references) if "items" in schema else {}
            return {"type": "array", "items": items, **_bounds(schema, "minItems", "maxItems")}
        if kind == "string":
            return {"type": "string", **_bounds(schema, "minLength", "maxLength")}
        if kind == "integer":
            return {"type": "integer", **_limits(schema)}
        return {"type": kind} if kind in _SCALARS else {}

    def _object(self, schema: Mapping[str, Any], depth: int, references: int) -> Schema:
        properties = schema.get("properties")
        if isinstance(properties, Mapping) and len(properties) > PROPERTIES_MAX:
            return {"type": "object"}
        if not isinstance(properties, Mapping) or not properties:
            closed = schema.get("additionalProperties") is False
            return {"type": "object", "properties": {}, "additionalProperties": False} if closed else {"type": "object"}
        required = [name for name in properties if name in (schema.get("required") or ())]
        return {
            "type": "object",
            "properties": {name: self.of(each, depth + 1, references) for name, each in properties.items()},
            "required": required,
            "additionalProperties": False,
        }


def _target(root: Schema, reference: Any) -> Any:
    """What a reference into the schema names; None when there is no such place."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    place: Any = root
    for part in reference[1:].split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        place = place.get(name) if isinstance(place, Mapping) else None
    return place


def _bounds(schema: Mapping[str, Any], *keys: str) -> Schema:
    """Bounds on a count, as far as they are small."""
    found = {key: schema.get(key) for key in keys}
    return {key: n for key, n in found.items() if isinstance(n, int) and 0 < n <= REPEAT_MAX}


def _limits(schema: Mapping[str, Any]) -> Schema:
    found = {key: schema.get(key) for key in ("minimum", "maximum")}
    return {key: n for key, n in found.items() if isinstance(n, int) and abs(n) < 10**15}
