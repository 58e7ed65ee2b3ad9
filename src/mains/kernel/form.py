"""Forms: what a device asks a person, as MCP has it: a flat schema of primitives, or a page to open. Pure.

    form_of(schema)          its fields. Raises UsageError for what is no such form
    answer_of(fields, text)  what a person wrote, as values that fit. Raises UsageError that says what does not
    asked(device, words)     the question as a person reads it: ours around theirs

Names, titles and choices are a stranger's: they are shown in quotation marks that they cannot close, without control
or invisible characters, and bounded. Mains' own words come first, so that a long text cannot push them away.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal
from urllib.parse import SplitResult, urlsplit

import msgspec

from mains.errors import UsageError

Kind = Literal["string", "integer", "number", "boolean", "array"]

_FIELDS_MAX = 32
_CHOICES_MAX = 64
_CHOICES_SHOWN = 12
_NAME_CHARS = 64
_CHOICE_CHARS = 200
_WORDS_CHARS = 1_000  # of a device, that a person is shown
_TITLE_CHARS = 100
_URL_CHARS = 2_000
_PATTERN_CHARS = 1_000
_COMPILED_BYTES_MAX = 256 * 1024  # as in bus/devices/looking.py
_TRUE, _FALSE = ("true", "yes"), ("false", "no")
_BOUNDS = ("minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems")
_FORMATS = ("email", "uri", "date", "date-time")


class Words(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a device asks in its own words, as the page of an inquiry has it. `prompt`: the text for a model."""

    text: str
    schema: dict[str, Any] = {}
    url: str = ""
    prompt: str = ""


class Field(msgspec.Struct, frozen=True):
    """One field of a form. `check` is its schema, made of what we know of it."""

    name: str
    kind: Kind
    title: str = ""
    required: bool = False
    choices: tuple[str, ...] = ()
    check: dict[str, Any] = {}
    default: Any = None


def quoted(text: str, chars_max: int = _WORDS_CHARS) -> str:
    """A stranger's words in quotation marks, on one line, bounded."""
    plain = " ".join(text.encode("utf-8", "replace").decode()[: chars_max * 4].split())
    plain = "".join(char if char.isprintable() else "\ufffd" for char in plain)
    plain = plain if len(plain) <= chars_max else plain[: chars_max - 3] + "..."
    return '"' + plain.replace('"', "'") + '"'


# ------------------------------------------------------------------------------------------------- the form itself


def form_of(schema: Mapping[str, Any]) -> tuple[Field, ...]:
    """The fields of a form, in order (see the module's header)."""
    properties, required = schema.get("properties", {}), schema.get("required") or []
    if schema.get("type", "object") != "object" or not isinstance(properties, dict) or not isinstance(required, list):
        raise UsageError("a form is an object with properties")
    if len(properties) > _FIELDS_MAX:
        raise UsageError(f"a form has at most {_FIELDS_MAX} fields, not {len(properties)}")
    if strange := [name for name in required if name not in properties]:
        raise UsageError(f"a form requires a field that it does not have: {quoted(str(strange[0]), _NAME_CHARS)}")
    return tuple(_field(name, each, name in required) for name, each in properties.items())


def _field(name: str, given: Any, required: bool) -> Field:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name):
        raise UsageError(f"the name of a field has 1 to {_NAME_CHARS} letters, digits, `_`, `-` and `.`")
    kind = given.get("type") if isinstance(given, dict) else None
    if kind not in ("string", "integer", "number", "boolean", "array"):
        raise UsageError(f"the field `{name}` is no text, number, boolean or choice")
    items = given.get("items") if kind == "array" else given
    if not isinstance(items, dict):
        raise UsageError(f"the field `{name}` does not say what can be chosen")
    choices = _choices(name, items)
    if kind == "array" and not choices:
        raise UsageError(f"the field `{name}` does not say what can be chosen")
    check: dict[str, Any] = {"type": kind}
    check |= {key: given[key] for key in _BOUNDS if type(given.get(key)) in (int, float)}
    if choices:
        check |= {"items": {"enum": list(choices)}} if kind == "array" else {"enum": list(choices)}
    if given.get("format") in _FORMATS:
        check["format"] = given["format"]
    if isinstance(pattern := given.get("pattern"), str) and kind == "string":
        if len(pattern) > _PATTERN_CHARS:
            raise UsageError(f"the pattern of the field `{name}` is too long")
        check["pattern"] = pattern
    title = given.get("title") or given.get("description")
    field = Field(name, kind, title if isinstance(title, str) else "", required, choices, check)
    default = given.get("default")
    return field if _fault(field, default) or default is None else msgspec.structs.replace(field, default=default)


def _choices(name: str, given: dict[str, Any]) -> tuple[str, ...]:
    found = given.get("enum")
    for key in ("oneOf", "anyOf"):
        if found is None and isinstance(given.get(key), list):
            found = [each.get("const") if isinstance(each, dict) else None for each in given[key]]
    if found is None:
        return ()
    if not isinstance(found, list) or not 0 < len(found) <= _CHOICES_MAX:
        raise UsageError(f"the field `{name}` has 1 to {_CHOICES_MAX} choices")
    if any(not isinstance(each, str) or not each.isprintable() or len(each) > _CHOICE_CHARS for each in found):
        raise UsageError(f"a choice of the field `{name}` is no text of a line of {_CHOICE_CHARS} characters")
    return tuple(found)


# -------------------------------------------------------------------------------------------------------- answers


def answer_of(fields: Sequence[Field], text: str) -> dict[str, Any]:
    """The values that a person gave: a JSON object, `field=value` words, or a single value where there is one field.

    What is left out takes the form's default.
    """
    said = text.strip()
    if said.lower() == "accept" and len(fields) != 1:
        said = "{}"
    given = _as_json(said) if said.startswith("{") else _as_words(fields, said)
    known = {field.name: field for field in fields}
    if strange := [name for name in given if name not in known]:
        raise UsageError(f"there is no field {quoted(strange[0], _NAME_CHARS)}: {shown(fields)}")
    values = {field.name: field.default for field in fields if field.default is not None} | given
    if missing := [field.name for field in fields if field.required and field.name not in values]:
        raise UsageError(f"the field `{missing[0]}` is missing: {shown(fields)}")
    for name, value in values.items():
        if fault := _fault(known[name], value):
            raise UsageError(f"the field `{name}` does not fit: {fault}")
    return values


def _as_json(text: str) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UsageError(f"the answer is no JSON: {error}") from error
    return value if isinstance(value, dict) else {}


def _as_words(fields: Sequence[Field], text: str) -> dict[str, Any]:
    known = {field.name: field for field in fields}
    names = "|".join(re.escape(name) for name in sorted(known, key=len, reverse=True))
    parts = re.split(rf"(?:^|\s)({names})=", text) if names else [text]
    before, pairs = parts[0].strip(), [*zip(parts[1::2], parts[2::2], strict=True)]
    if not pairs and len(fields) == 1 and text:
        return {fields[0].name: _value(fields[0], text)}
    if before:
        raise UsageError(f"what is {quoted(before, 80)}? Answer {shown(fields)}")
    return {name: _value(known[name], value.strip()) for name, value in pairs}


def _value(field: Field, text: str) -> Any:
    """A value as typed. What does not look like one of its kind stays a text, and does not fit."""
    if field.kind == "array":
        return [part.strip() for part in text.split(",") if part.strip()]
    if field.kind == "boolean" and text.lower() in (*_TRUE, *_FALSE):
        return text.lower() in _TRUE
    if field.kind in ("integer", "number") or (field.kind == "string" and text[:1] == text[-1:] == '"' and text[1:]):
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError:
            return text
    return text


def _fault(field: Field, value: Any) -> str:
    """Why a value does not fit its field; empty when it does. Expressions are matched in linear time."""
    from jsonschema_rs import Draft202012Validator, RegexOptions, ValidationError

    bounds = RegexOptions(size_limit=_COMPILED_BYTES_MAX, dfa_size_limit=_COMPILED_BYTES_MAX)
    try:
        checker = Draft202012Validator(field.check, pattern_options=bounds, validate_formats=True)
    except (ValidationError, ValueError) as error:
        raise UsageError(f"what fits the field `{field.name}` cannot be checked") from error
    found = next(iter(checker.iter_errors(value)), None)
    return "" if found is None else quoted(found.message, 300)[1:-1]


# ----------------------------------------------------------------------------------------------- what a person reads


def shown(fields: Sequence[Field]) -> str:
    """How a form is answered."""
    if not fields:
        return "accept"
    parts = []
    for field in fields:
        takes = _takes(field)
        about = f" {quoted(field.title, _TITLE_CHARS)}" if field.title else ""
        parts.append(f"{field.name}={takes}{about}{'' if field.required else ' (may be left out)'}")
    return ", ".join(parts)


def _takes(field: Field) -> str:
    if field.choices:
        some = "|".join(quoted(each, 40)[1:-1] for each in field.choices[:_CHOICES_SHOWN])
        return (f"{some}|..." if len(field.choices) > _CHOICES_SHOWN else some) + (
            " (several, with commas)" if field.kind == "array" else ""
        )
    return {"string": str(field.check.get("format", "TEXT")), "boolean": "true|false"}.get(field.kind, "NUMBER")


def page_of(url: str) -> tuple[str, str]:
    """A URL as a person may read it, and its host as machines do. Raises UsageError for what is no page of the web."""
    plain = "".join(char for char in url if char.isprintable() and not char.isspace())
    try:
        parts = urlsplit(plain)
        host, _ = _host(parts), parts.port
    except (ValueError, UnicodeError) as error:
        raise UsageError("the address of the page cannot be read") from error
    if parts.scheme not in ("http", "https") or not host or len(plain) > _URL_CHARS or "\\" in plain:
        raise UsageError(f"a page is http or https, with a host, in at most {_URL_CHARS:,} characters")
    return plain, host


def _host(parts: SplitResult) -> str:
    """The host; one with other letters than those of ASCII in the form that shows it (RFC 3492)."""
    return (parts.hostname or "").encode("idna").decode("ascii")


def asked(device: str, words: Words) -> str:
    """A question of a device, as a person reads it."""
    if words.url:
        url, host = page_of(words.url)
        told = (
            f"the device {device} wants you to open a page of {host}. Answer accept, decline or cancel. The page: {url}"
        )
        return f"{told} Its words: {quoted(words.text)}"
    fields = form_of(words.schema)
    return f"the device {device} asks. Answer {shown(fields)}; or decline, or cancel. Its words: {quoted(words.text)}"
