"""A JSON Schema as one that Anthropic's structured outputs take, or None where it cannot be said in their words. Pure.

    closed(schema)      -> a schema of the keywords below only

They want every object closed, and know `type`, `properties`, `required`, `items`, `enum`, `const`, `anyOf`, `$ref` into
`$defs`, `title` and `description`. Bounds (`minimum`, `pattern`, ...) are left out: the kernel checks the value against
the whole schema and lets the model mend it. An open object or a part of any type cannot be said without making the
schema stricter than it is, so such a schema is not sent.

Source: https://platform.claude.com/docs/en/build-with-claude/structured-outputs
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mains.kernel.ports import Schema

DEPTH_MAX = 16
_SCALARS = frozenset({"string", "number", "integer", "boolean", "null"})
_WORDS = ("title", "description")
_PLAIN = (str, int, float, bool, type(None))


def closed(schema: Schema) -> Schema | None:
    """`schema` in the keywords that structured outputs take; None when that would change what it allows too much."""
    try:
        narrowed = _part(schema, 0)
        if "$defs" in schema:
            narrowed["$defs"] = {name: _part(part, 1) for name, part in schema["$defs"].items()}
    except _OpenError:
        return None
    return narrowed


class _OpenError(Exception):
    """A part that allows anything, or is said in other words."""


def _part(schema: Any, depth: int) -> Schema:
    if not isinstance(schema, Mapping) or depth > DEPTH_MAX:
        raise _OpenError
    words = {key: schema[key] for key in _WORDS if isinstance(schema.get(key), str)}
    return {**_meaning(schema, depth), **words}


def _meaning(schema: Mapping[str, Any], depth: int) -> Schema:
    if "$ref" in schema:
        if not str(schema["$ref"]).startswith("#/$defs/"):
            raise _OpenError
        return {"$ref": schema["$ref"]}
    if "const" in schema and isinstance(schema["const"], _PLAIN):
        return {"const": schema["const"]}
    if schema.get("enum") and all(isinstance(value, _PLAIN) for value in schema["enum"]):
        return {"enum": schema["enum"]}
    for key in ("anyOf", "oneOf"):
        if schema.get(key):
            return {"anyOf": [_part(part, depth + 1) for part in schema[key]]}
    kind = schema.get("type")
    if isinstance(kind, list):
        return {"anyOf": [_typed(schema, each, depth) for each in kind]}
    return _typed(schema, kind, depth)


def _typed(schema: Mapping[str, Any], kind: Any, depth: int) -> Schema:
    if kind == "object":
        return _object(schema, depth)
    if kind == "array":
        return {"type": "array", "items": _part(schema.get("items"), depth + 1)}
    if kind in _SCALARS:
        return {"type": kind}
    raise _OpenError


def _object(schema: Mapping[str, Any], depth: int) -> Schema:
    """An object that names its properties. One that allows others too is closed: what it lists is what is wanted."""
    properties = schema.get("properties")
    if not properties and schema.get("additionalProperties") is not False:
        raise _OpenError
    if isinstance(schema.get("additionalProperties"), Mapping) or "patternProperties" in schema:
        raise _OpenError
    properties = properties or {}
    return {
        "type": "object",
        "properties": {name: _part(part, depth + 1) for name, part in properties.items()},
        "required": [name for name in properties if name in (schema.get("required") or ())],
        "additionalProperties": False,
    }
