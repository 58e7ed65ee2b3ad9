"""What a program takes: the declared inputs, their types, and the conversion of single values."""

from __future__ import annotations

import math
import re
from typing import Any

import msgspec

from mains.errors import Mistake, UsageError
from mains.program.fields import (
    BOOLEANS,
    is_null,
    nearest,
    read_boolean,
    read_choice,
    read_pairs,
    read_text,
    read_texts,
    read_tokens,
    shown,
)
from mains.program.frontmatter import Node, Pairs, Scalar, value_of

TYPES = ("text", "number", "boolean", "file", "folder", "choice", "json")
FILE_TYPES = ("file", "folder")
PATTERNS = ("*.md", "*.txt")
"""What a folder input takes when it names no patterns."""

TOKENS_MIN = 32
"""The least `tokens_max`: room for a few words and the note that says how much was cut."""

_KEYS = ("type", "description", "required", "default", "choices", "tokens_max", "plain", "patterns")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_NUMBER = re.compile(r"[-+]?(?:[0-9]{1,400}(?:\.[0-9]{0,400})?|\.[0-9]{1,400})(?:[eE][-+]?[0-9]{1,3})?")
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_PATTERN_MAX = 200
_ONLY_FOR = {
    "choices": ("choice",),
    "tokens_max": ("file", "text"),
    "plain": ("file",),
    "patterns": ("folder",),
}


class InputSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """One declared input. `tokens_max`: only about that much of its beginning is taken. None: no default."""

    name: str
    type: str = "text"
    description: str = ""
    required: bool = True
    default: Any = None
    choices: tuple[str, ...] = ()
    tokens_max: int | None = None
    plain: bool = False
    patterns: tuple[str, ...] = ()


PROMPT = InputSpec("prompt", description="what to do", required=False)
"""The one input of a program that declares none."""


def read_inputs(node: Node, faults: list[Mistake]) -> tuple[InputSpec, ...]:
    """The inputs of `inputs:`. One that has a fault is still given, so that the prose can be checked against
    it.
    """
    specs: list[InputSpec] = []
    for key, each in read_pairs(node, "inputs", faults):
        if not _NAME.fullmatch(key.text):
            told = "is no name for an input: write letters, digits and `_`, a letter first, at most 64"
            faults.append(Mistake(key.line, f"`inputs`: {shown(key.text)} {told}"))
        specs.append(_read_spec(key, each, faults))
    return tuple(specs)


def convert(spec: InputSpec, value: Any, *, as_json: bool = False) -> Any:
    """`value` as the JSON value of a scalar input. Text is read as its type; with `as_json` a text for `json`
    is not.

    Raises UsageError that says what was expected.
    """
    match spec.type:
        case "number":
            return _number(value)
        case "boolean":
            return _boolean(value)
        case "choice":
            return _choice(spec, value)
        case "json":
            return _json_value(value) if as_json or not isinstance(value, str) else _json_text(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UsageError(f"must be text, not {shown(value)}")
    return str(value)


def _read_spec(name: Scalar, node: Node, faults: list[Mistake]) -> InputSpec:
    where = f"inputs.{name.text[:64]}"
    if not isinstance(node, Pairs):
        return _with_patterns(InputSpec(name.text, read_choice(node, where, TYPES, "text", faults)))
    fields = {key.text: each for key, each in node.pairs}
    for key, _ in node.pairs:
        if key.text not in _KEYS:
            faults.append(Mistake(key.line, f"`{where}`: unknown key {shown(key.text)}{nearest(key.text, _KEYS)}"))
    null = Scalar(node.line, "", plain=True)
    kind = read_choice(fields.get("type", null), f"{where}.type", TYPES, "text", faults)
    for key, _ in node.pairs:
        if kind not in _ONLY_FOR.get(key.text, TYPES):
            what = " and ".join(_ONLY_FOR[key.text])
            faults.append(Mistake(key.line, f"`{where}`: `{key.text}` is only for {what}, not for {kind}"))
    described = fields.get("description", null)
    spec = InputSpec(
        name.text,
        kind,
        description="" if is_null(described) else read_text(described, f"{where}.description", faults),
        choices=tuple(each.text for each in read_texts(fields.get("choices", null), f"{where}.choices", faults)),
        tokens_max=read_tokens(fields.get("tokens_max", null), f"{where}.tokens_max", TOKENS_MIN, faults),
        plain=read_boolean(fields.get("plain", null), f"{where}.plain", False, faults),
        patterns=_read_patterns(fields.get("patterns", null), f"{where}.patterns", faults),
    )
    if kind == "choice" and not spec.choices:
        faults.append(Mistake(name.line, f"`{where}`: a choice needs `choices: [one, another]`"))
    return _with_default(_with_patterns(spec), fields, where, faults)


def _with_patterns(spec: InputSpec) -> InputSpec:
    if spec.type == "folder" and not spec.patterns:
        return msgspec.structs.replace(spec, patterns=PATTERNS)
    return spec


def _read_patterns(node: Node, where: str, faults: list[Mistake]) -> tuple[str, ...]:
    patterns = read_texts(node, where, faults)
    told = f"`{where}`: a pattern may have at most {_PATTERN_MAX} characters"
    faults += [Mistake(each.line, told) for each in patterns if len(each.text) > _PATTERN_MAX]
    return tuple(each.text for each in patterns)


def _with_default(spec: InputSpec, fields: dict[str, Node], where: str, faults: list[Mistake]) -> InputSpec:
    """`spec` with its default and whether it is required: an input with a default never is."""
    null = Scalar(0, "", plain=True)
    written = fields.get("default", null)
    default = value_of(written)
    required = fields.get("required", null)
    must = read_boolean(required, f"{where}.required", default is None, faults)
    if default is None:
        return msgspec.structs.replace(spec, required=must)
    if must:
        faults.append(Mistake(required.line, f"`{where}`: an input with a default is never required"))
    try:
        if spec.type in ("text", "file", "folder", "choice") and isinstance(written, Scalar):
            default = written.text
        default = convert(spec, default, as_json=True)
    except UsageError as error:
        faults.append(Mistake(written.line, f"`{where}.default` {error}"))
    return msgspec.structs.replace(spec, required=False, default=default)


def _number(value: Any) -> int | float:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return value
    text = value.strip() if isinstance(value, str) else ""
    if _INTEGER.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    raise UsageError(f"must be a number, not {shown(value)}")


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower() if isinstance(value, str | int) else ""
    if word not in BOOLEANS:
        raise UsageError(f"must be true or false, not {shown(value)}")
    return BOOLEANS[word]


def _choice(spec: InputSpec, value: Any) -> str:
    text = str(value) if isinstance(value, str | int | float) else ""
    if text not in spec.choices:
        listed = ", ".join(shown(each) for each in spec.choices)
        raise UsageError(f"must be one of {listed}, not {shown(value)}{nearest(text, spec.choices)}")
    return text


def _json_text(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise UsageError(f"must be JSON, not {shown(text)}: {error}") from error


def _json_value(value: Any) -> Any:
    try:
        return msgspec.json.decode(msgspec.json.encode(value))
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise UsageError(f"must be a JSON value: {error}") from error
