"""Binding: what a caller gave becomes the typed inputs of a process. All faults are told together, in one
line.

`bind` is for people and their programs: values come from a command line or the API, files from this machine.
`bind_child` is for a model that spawns: its arguments are JSON, and files are only those that its parent
holds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mains.errors import SyscallError, UsageError
from mains.program.fields import nearest, shown
from mains.program.folder import read_folder
from mains.program.inputspec import FILE_TYPES, InputSpec, convert
from mains.program.plain import plain_text
from mains.program.program import Program
from mains.program.prose import head, replace_placeholders
from mains.program.textfile import FileText, normalised, read_text_file
from mains.settings import Settings


class Bound(msgspec.Struct, frozen=True, omit_defaults=True):
    """One input of a process: a JSON `value` for a scalar type, `files` for `file` (one) and `folder`."""

    name: str
    type: str
    value: Any = None
    files: tuple[FileText, ...] = ()


def bind(program: Program, given: Mapping[str, Any], settings: Settings, start: Path) -> tuple[Bound, ...]:
    """The inputs in the order of their declaration; an optional one that was not given and has no default is
    left out.

    Text is read as the input's type; a value of that type is taken as it is; None counts as not given. A
    `file` is a path (relative ones from the folder `start`) or a FileText, a `folder` a path or several
    FileText.

    Raises UsageError: an undeclared or missing input, a wrong value, a file that cannot be read.
    """

    def take(spec: InputSpec, value: Any, defaulted: bool) -> Bound:
        if spec.type == "file":
            return Bound(spec.name, spec.type, files=(_file(spec, value, settings, start),))
        if spec.type == "folder":
            return Bound(spec.name, spec.type, files=_folder(spec, value, settings, start))
        return _scalar(spec, value, settings, as_json=defaulted)

    bounds, faults = _bind_each(program, given, take)
    if faults:
        raise UsageError(f"{program.name}: {'; '.join(faults)}", hint=_declared(program))
    return bounds


def bind_child(
    program: Program, arguments: Mapping[str, Any], settings: Settings, files: Mapping[str, FileText]
) -> tuple[Bound, ...]:
    """The inputs of a child from the arguments that a model wrote. Nothing is read from this machine.

    A `file` is the name of one of `files` (what the parent holds), a `folder` a list of such names. Raises
    SyscallError.
    """

    def take(spec: InputSpec, value: Any, defaulted: bool) -> Bound:
        if spec.type not in FILE_TYPES:
            return _scalar(spec, value, settings, as_json=True)
        names = value if isinstance(value, list | tuple) and spec.type == "folder" else [value]
        held = tuple(_held(name, files) for name in names)
        if spec.type == "file":
            held = (_reduced(spec, held[0], settings),)
        return Bound(spec.name, spec.type, files=held)

    bounds, faults = _bind_each(program, arguments, take)
    if faults:
        raise SyscallError(f"{program.name}: {'; '.join(faults)}", hint=_declared(program))
    return bounds


def input_schema(program: Program, files: Sequence[str] = ()) -> dict[str, Any]:
    """The JSON Schema of what a model may give when it spawns `program`.

    Scalar inputs; file and folder inputs only when the parent holds `files`, as names to choose from.
    """
    properties: dict[str, Any] = {}
    required: list[str] = []
    for spec in program.accepts:
        if spec.type in FILE_TYPES and not files:
            continue
        shape = _shape(spec, files)
        properties[spec.name] = {**shape, "description": spec.description} if spec.description else shape
        if spec.required:
            required.append(spec.name)
    schema: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**schema, "required": required} if required else schema


def fill(program: Program, inputs: Sequence[Bound]) -> tuple[str, tuple[Bound, ...]]:
    """The prose with its `{{name}}` replaced, and the inputs that it did not place.

    An optional input that was not given leaves nothing behind. What an input says is never searched for
    placeholders.
    """
    bound = {each.name: each for each in inputs}
    declared = {spec.name for spec in program.inputs}
    placed: set[str] = set()

    def text_of(name: str) -> str | None:
        if name not in declared:
            return None
        placed.add(name)
        return _as_text(bound[name]) if name in bound else ""

    prose = replace_placeholders(program.prose, text_of)
    return prose, tuple(each for each in inputs if each.name not in placed)


_Take = Callable[[InputSpec, Any, bool], Bound]


def _bind_each(program: Program, given: Mapping[str, Any], take: _Take) -> tuple[tuple[Bound, ...], list[str]]:
    names = [spec.name for spec in program.accepts]
    faults = [f"no input {shown(name)}{nearest(name, names)}" for name in given if name not in names]
    bounds: list[Bound] = []
    for spec in program.accepts:
        defaulted = given.get(spec.name) is None
        value = spec.default if defaulted else given[spec.name]
        if value is None:
            if spec.required:
                faults.append(f"input `{spec.name}` ({spec.type}) is missing")
            continue
        try:
            bounds.append(take(spec, value, defaulted))
        except UsageError as error:
            faults.append(f"input `{spec.name}`: {error}")
    return tuple(bounds), faults


def _declared(program: Program) -> str:
    listed = ", ".join(f"{spec.name} ({spec.type}{'' if spec.required else ', optional'})" for spec in program.accepts)
    return f"it takes {listed}"


def _scalar(spec: InputSpec, value: Any, settings: Settings, *, as_json: bool) -> Bound:
    if isinstance(value, str):
        _check_size(value, settings)
    converted = convert(spec, value, as_json=as_json)
    if spec.type == "text":
        converted = head(converted, spec.tokens_max) if spec.tokens_max else converted
    elif spec.type == "json":
        _check_size(msgspec.json.encode(converted).decode(), settings)
    return Bound(spec.name, spec.type, value=converted)


def _check_size(text: str, settings: Settings) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise UsageError("is not valid Unicode text") from error
    if size > settings.input_bytes_max:
        raise UsageError(f"has {size:,} bytes; at most {settings.input_bytes_max:,} are taken")


def _path(value: Any, start: Path, what: str) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        raise UsageError(f"must be the path of a {what}, not {shown(value)}")
    try:
        return start / Path(value).expanduser()
    except RuntimeError as error:  # `~name` of nobody
        raise UsageError(f"{shown(value)}: {error}") from error


def _file(spec: InputSpec, value: Any, settings: Settings, start: Path) -> FileText:
    if not isinstance(value, FileText):
        path = _path(value, start, "file")
        value = FileText(path.name, read_text_file(path, settings.input_bytes_max))
    return _reduced(spec, value, settings)


def _folder(spec: InputSpec, value: Any, settings: Settings, start: Path) -> tuple[FileText, ...]:
    if not isinstance(value, list | tuple):
        return read_folder(_path(value, start, "folder"), spec.patterns, settings)
    if not value or not all(isinstance(each, FileText) for each in value):
        raise UsageError("must be the path of a folder, or files")
    if len(value) > settings.folder_files_max:
        raise UsageError(f"has {len(value):,} files; at most {settings.folder_files_max:,} are taken")
    for each in value:
        _check_size(each.text, settings)
    return tuple(value)


def _reduced(spec: InputSpec, file: FileText, settings: Settings) -> FileText:
    """The file as its input wants it: plain prose, only the beginning."""
    _check_size(file.text, settings)
    text = plain_text(file.text) if spec.plain else normalised(file.text)
    return FileText(file.name, head(text, spec.tokens_max) if spec.tokens_max else text)


def _held(name: Any, files: Mapping[str, FileText]) -> FileText:
    if not isinstance(name, str) or name not in files:
        hint = nearest(name, files) if isinstance(name, str) else ""
        raise UsageError(f"no file {shown(name)} among those that you hold{hint}")
    return files[name]


def _shape(spec: InputSpec, files: Collection[str]) -> dict[str, Any]:
    match spec.type:
        case "choice":
            return {"type": "string", "enum": list(spec.choices)}
        case "number" | "boolean":
            return {"type": spec.type}
        case "json":
            return {}
        case "file":
            return {"type": "string", "enum": list(files)}
        case "folder":
            return {"type": "array", "items": {"type": "string", "enum": list(files)}, "minItems": 1}
    return {"type": "string"}


def _as_text(bound: Bound) -> str:
    if bound.files:
        return "\n\n".join(file.text for file in bound.files)
    return bound.value if isinstance(bound.value, str) else msgspec.json.encode(bound.value).decode()
