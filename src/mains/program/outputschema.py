"""The `output:` of a program: a JSON Schema (2020-12) that the result must satisfy, checked before anything
runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from mains.errors import Mistake
from mains.program.fields import is_null, shown
from mains.program.frontmatter import Items, Node, Pairs, value_of

_FAULTS_SHOWN = 8
_METASCHEMA = "https://json-schema.org/draft/2020-12/schema"  # a name; its text comes with the validator


def read_output(node: Node, faults: list[Mistake]) -> dict[str, Any] | None:
    """The schema, or None when nothing is written. Every fault has the line of the part of the schema it is
    in.
    """
    if is_null(node):
        return None
    if not isinstance(node, Pairs):
        faults.append(Mistake(node.line, "`output` must be a JSON Schema: lines `type: object`, `properties:` …"))
        return None
    schema: dict[str, Any] = value_of(node)
    found = [*_shape_faults(schema, node), *_reference_faults(schema, node)]
    faults += found[:_FAULTS_SHOWN] or _fetching_faults(schema, node)
    return schema


def _fetching_faults(schema: dict[str, Any], node: Node) -> list[Mistake]:
    """What else would make a validator fetch something: a part with an `$id` and a `$schema` of its own."""
    import jsonschema_rs

    def elsewhere(place: str) -> Any:
        raise ValueError(place)

    try:
        jsonschema_rs.Draft202012Validator(schema, retriever=elsewhere)
    except (jsonschema_rs.ValidationError, ValueError) as error:
        return [Mistake(node.line, f"`output`: {' '.join(str(error).split())[:200]} (nothing is fetched)")]
    return []


def _shape_faults(schema: dict[str, Any], node: Node) -> Iterator[Mistake]:
    """What the meta-schema says, patterns that are no regular expressions among it."""
    import jsonschema_rs  # heavy: only programs with `output` need it

    metaschema = jsonschema_rs.Draft202012Validator({"$ref": _METASCHEMA}, validate_formats=True)
    for error in sorted(metaschema.iter_errors(schema), key=lambda each: [str(part) for part in each.instance_path]):
        where = "/".join(str(part) for part in error.instance_path)
        told = f"`output`: {shown(where)}: " if where else "`output`: "
        yield Mistake(_line_at(node, error.instance_path), told + " ".join(error.message.split())[:200])


def _reference_faults(schema: dict[str, Any], root: Node) -> Iterator[Mistake]:
    """References that leave the schema (nothing is fetched) or lead nowhere in it."""
    for node, reference in _references(root):
        if not reference.startswith("#"):
            yield Mistake(node.line, f"`output`: {shown(reference)}: `$ref` may only point into this schema (`#/…`)")
        elif reference != "#" and not _leads_somewhere(schema, reference):
            yield Mistake(node.line, f"`output`: {shown(reference)} leads nowhere in this schema")


def _references(node: Node) -> Iterator[tuple[Node, str]]:
    match node:
        case Items(nodes=nodes):
            for each in nodes:
                yield from _references(each)
        case Pairs(pairs=pairs):
            for key, each in pairs:
                value = value_of(each)
                if key.text in ("$ref", "$dynamicRef") and isinstance(value, str):
                    yield each, value
                yield from _references(each)


def _leads_somewhere(schema: Any, reference: str) -> bool:
    place = schema
    if not reference.startswith("#/"):
        return False
    for part in reference[2:].split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(place, dict) and name in place:
            place = place[name]
        elif isinstance(place, list) and name.isdecimal() and int(name[:9]) < len(place):
            place = place[int(name[:9])]
        else:
            return False
    return isinstance(place, dict | bool)


def _line_at(node: Node, path: Iterable[str | int]) -> int:
    """The line of the part of the schema at `path`: that of its key in a mapping."""
    line = node.line
    for part in path:
        if isinstance(node, Pairs):
            for key, each in node.pairs:
                if key.text == part:
                    line, node = key.line, each
        elif isinstance(node, Items) and isinstance(part, int):
            node = node.nodes[part]
            line = node.line
    return line
