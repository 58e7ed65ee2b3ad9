"""Program: a program file, validated. `parse` tells every mistake at once, each with its line.

A program is Markdown: front matter between `---` lines and prose. `docs/programs.md` is its reference. Only
`name` and `description` are required, so that the files of two other formats run unchanged: Agent Skills
(`SKILL.md`, agentskills.io/specification) and the sub-agent files of coding assistants
(code.claude.com/docs/en/sub-agents, and their skills, code.claude.com/docs/en/skills). Their own keys are
kept in `Program.foreign` and have no effect, except that `allowed-tools` stands for `tools` when that is
absent.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from mains.errors import Mistake, NotFoundError, ProgramError, UsageError
from mains.program.fields import (
    is_null,
    nearest,
    read_choice,
    read_mapping,
    read_number,
    read_text,
    read_texts,
    read_tokens,
    shown,
)
from mains.program.frontmatter import FrontMatter, Node, Scalar, duplicates, read_front_matter, value_of
from mains.program.inputspec import PROMPT, InputSpec, read_inputs
from mains.program.outputschema import read_output
from mains.program.prose import placeholders
from mains.program.schedule import Schedule, read_schedule
from mains.program.segmentname import read_segments
from mains.program.textfile import normalised, read_text_file
from mains.program.toolgrant import ToolGrant, read_grants
from mains.program.workspacename import read_workspace
from mains.settings import Settings

SKILL_FILE = "SKILL.md"
_PARSED_MAX = 32  # programs that are kept parsed, each at most `program_bytes_max` long
NAME_CHARACTERS_MAX = 64  # Agent Skills specification, `name`
DESCRIPTION_CHARACTERS_MAX = 1_024  # Agent Skills specification, `description`; sub-agent files know no limit
TEMPERATURE_MAX = 2.0
FRAME_TOKENS_MIN = 512  # less holds no program, no question and no answer

BANDS = ("interactive", "normal", "batch")
DOUBTS = ("ask", "retry", "skip")

OWN_KEYS = (
    *("name", "description", "model", "tools", "inputs", "output", "budget", "band", "schedule", "on_doubt"),
    *("max_tokens", "frame_tokens", "pin", "segments", "workspace", "temperature"),
)
FOREIGN_KEYS = (
    *("license", "compatibility", "metadata", "allowed-tools"),  # Agent Skills
    *(
        "argument-hint",
        "arguments",
        "when_to_use",
        "disable-model-invocation",
        "user-invocable",
    ),  # assistants' skills
    *("context", "agent", "paths", "shell", "version"),
    *("disallowedTools", "permissionMode", "maxTurns", "skills", "mcpServers", "hooks"),  # sub-agents
    *("memory", "background", "effort", "isolation", "initialPrompt", "color"),
)

_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_UNPLACEABLE = ("folder", "json")


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """A program in which everything is checked. `model` is empty for the default.

    `pin` names the inputs that stay in every frame, `segments` the shared segments that it maps, `workspace` the
    shared workspace whose files it reaches (empty: one of its own). `source` is the whole file (line ends `\\n`, no
    byte order mark) and `hash` the SHA-256 of its UTF-8, in hex: the same program has the same hash whatever its line
    ends.
    """

    name: str
    description: str
    prose: str
    model: tuple[str, ...] = ()
    tools: tuple[ToolGrant, ...] = ()
    inputs: tuple[InputSpec, ...] = ()
    output: dict[str, Any] | None = None
    budget: int | None = None
    band: str = "normal"
    schedule: Schedule | None = None
    on_doubt: str = "ask"
    max_tokens: int | None = None
    frame_tokens: int | None = None
    pin: tuple[str, ...] = ()
    segments: tuple[str, ...] = ()
    workspace: str = ""
    temperature: float | None = None
    foreign: dict[str, Any] = {}
    source: str
    hash: str

    @property
    def accepts(self) -> tuple[InputSpec, ...]:
        """The inputs it takes: the declared ones, or one optional text `prompt` when it declares none."""
        return self.inputs or (PROMPT,)

    @property
    def spawns(self) -> tuple[str, ...]:
        """The programs that its grants of `spawn` and `spawn_each` name, each once, as written."""
        return tuple(dict.fromkeys(name for grant in self.tools for name in grant.programs))


@lru_cache(maxsize=_PARSED_MAX)
def parse(source: str, path: str, settings: Settings) -> Program:
    """The program in `source`. Raises ProgramError with every mistake; `path` is how the error names the
    file. A program is immutable, so the last ones are kept: who starts one again and again parses it once.
    """
    text = normalised(source)
    _check_text(text, path, settings)
    front = read_front_matter(text, OWN_KEYS)
    faults = list(front.mistakes)
    program = _assembled(front, text, path, faults, settings)
    if faults:
        raise ProgramError(path, faults)
    return program


def load(path: Path, settings: Settings) -> Program:
    """The program in the file `path`, or in the `SKILL.md` of the folder `path`.

    Raises UsageError (missing: NotFoundError; no text file; too large) in one line, or ProgramError.
    """
    file = program_file(path)
    return parse(read_text_file(file, settings.program_bytes_max), str(file), settings)


def program_file(path: Path) -> Path:
    """`path`, or the `SKILL.md` in it when it is a folder. Raises NotFoundError when it holds none."""
    try:
        if not path.is_dir():
            return path
        if (path / SKILL_FILE).is_file():
            return path / SKILL_FILE
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    raise NotFoundError(f"{path}: is a folder without a {SKILL_FILE}", hint="name the program's file")


def notes(program: Program) -> tuple[str, ...]:
    """What is right in the file but has no effect, one sentence each, for `mains check`."""
    told: list[str] = []
    unused = [key for key in program.foreign if key not in ("metadata", "license", "compatibility", "allowed-tools")]
    if unused:
        told.append(f"kept for other assistants, without effect here: {', '.join(f'`{key}`' for key in unused)}")
    return tuple(told)


def _check_text(text: str, path: str, settings: Settings) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        raise ProgramError(path, [Mistake(line, "not valid Unicode text")]) from error
    if size > settings.program_bytes_max:
        told = f"{size:,} bytes; a program may have at most {settings.program_bytes_max:,}"
        raise ProgramError(path, [Mistake(0, told)])


def _assembled(front: FrontMatter, text: str, path: str, faults: list[Mistake], settings: Settings) -> Program:
    """The program, with what is wrong in it added to `faults`. Keys are read in the order of `Program`."""
    fields = _known_fields(front, faults)

    def field(key: str) -> Node:
        return fields.get(key, Scalar(front.line, "", plain=True))

    inputs = read_inputs(field("inputs"), faults)
    program = Program(
        name=_read_name(front, fields, faults),
        description=_read_description(front, fields, path, faults),
        prose=front.prose,
        model=_read_model(field("model"), settings, faults),
        tools=_read_tools(fields, faults),
        inputs=inputs,
        output=read_output(field("output"), faults),
        budget=read_tokens(field("budget"), "budget", 1, faults),
        band=_read_band(field("band"), faults),
        schedule=None if is_null(field("schedule")) else read_schedule(field("schedule"), faults),
        on_doubt=read_choice(field("on_doubt"), "on_doubt", DOUBTS, "ask", faults),
        max_tokens=read_tokens(field("max_tokens"), "max_tokens", settings.output_tokens_min, faults),
        frame_tokens=read_tokens(field("frame_tokens"), "frame_tokens", FRAME_TOKENS_MIN, faults),
        pin=_read_pin(field("pin"), inputs or (PROMPT,), faults),
        segments=read_segments(field("segments"), settings.process_segments_max, faults),
        workspace=read_workspace(field("workspace"), faults),
        temperature=read_number(field("temperature"), "temperature", 0.0, TEMPERATURE_MAX, faults),
        foreign={key: value_of(node) for key, node in fields.items() if key in FOREIGN_KEYS},
        source=text,
        hash=hashlib.sha256(text.encode()).hexdigest(),
    )
    read_mapping(field("metadata"), "metadata", faults)
    _check_prose(front, inputs, faults)
    return program


def _known_fields(front: FrontMatter, faults: list[Mistake]) -> dict[str, Node]:
    faults += duplicates(front.fields)
    known = (*OWN_KEYS, *FOREIGN_KEYS)
    for key, _ in front.fields.pairs:
        if key.text not in known:
            hint = nearest(key.text, known) or "; other keys may stand below `metadata:`"
            faults.append(Mistake(key.line, f"unknown key {shown(key.text)}{hint}"))
    return {key.text: node for key, node in front.fields.pairs if key.text in known}


def _required(front: FrontMatter, fields: dict[str, Node], key: str, faults: list[Mistake]) -> str:
    """The text of a key that must be there. Nothing more is said when its YAML, or all of it, was not
    readable.
    """
    if key in fields:
        return read_text(fields[key], key, faults)
    if key not in front.broken and (front.fields.pairs or not front.mistakes):
        faults.append(Mistake(front.line, f"`{key}:` is missing"))
    return ""


def is_name(text: str) -> bool:
    """Whether a program can be called so."""
    return len(text) <= NAME_CHARACTERS_MAX and _NAME.fullmatch(text) is not None


def _read_name(front: FrontMatter, fields: dict[str, Node], faults: list[Mistake]) -> str:
    name = _required(front, fields, "name", faults)
    if name and not is_name(name):
        better = "-".join(re.findall(r"[a-z0-9]+", name.lower()))[:NAME_CHARACTERS_MAX].rstrip("-")
        hint = f", for instance `{better}`" if better else ""
        rule = f"at most {NAME_CHARACTERS_MAX} lower-case letters, digits and single hyphens between them"
        faults.append(Mistake(fields["name"].line, f"`name`: {shown(name)} must be {rule}{hint}"))
    return name


def _read_description(front: FrontMatter, fields: dict[str, Node], path: str, faults: list[Mistake]) -> str:
    """The description. Agent Skills limits it; sub-agent files, whose descriptions hold examples, do not."""
    text = _required(front, fields, "description", faults)
    if len(text) > DESCRIPTION_CHARACTERS_MAX and Path(path).name == SKILL_FILE:
        told = f"`description` has {len(text):,} characters; a skill's may have {DESCRIPTION_CHARACTERS_MAX:,}"
        faults.append(Mistake(fields["description"].line, told))
    return text


def _read_model(node: Node, settings: Settings, faults: list[Mistake]) -> tuple[str, ...]:
    """The models to try in order. `inherit` is the sub-agent files' word for the default."""
    models = tuple(each.text for each in read_texts(node, "model", faults) if each.text != "inherit")
    if len(models) > settings.models_max:
        told = f"`model` names {len(models)} models; at most {settings.models_max} may be named (models_max)"
        faults.append(Mistake(node.line, told))
    return models


def _read_tools(fields: dict[str, Node], faults: list[Mistake]) -> tuple[ToolGrant, ...]:
    allowed = fields.get("allowed-tools")
    granted = read_grants(allowed, "allowed-tools", ", \t\n", faults) if allowed else ()
    return read_grants(fields["tools"], "tools", ",", faults) if "tools" in fields else granted


def _read_band(node: Node, faults: list[Mistake]) -> str:
    if isinstance(node, Scalar) and node.text.strip() == "system":
        faults.append(Mistake(node.line, "`band`: `system` is reserved for Mains itself"))
        return "normal"
    return read_choice(node, "band", BANDS, "normal", faults)


def _read_pin(node: Node, inputs: tuple[InputSpec, ...], faults: list[Mistake]) -> tuple[str, ...]:
    """The inputs to keep in every frame: names, or all of them for `true` and `all`."""
    names = tuple(spec.name for spec in inputs)
    written = value_of(node)
    if written is True or (written == "all" and "all" not in names):
        return names
    if written is False:
        return ()
    pinned = read_texts(node, "pin", faults)
    faults += [
        Mistake(each.line, f"`pin`: no input {shown(each.text)}{nearest(each.text, names)}")
        for each in pinned
        if each.text not in names
    ]
    return tuple(dict.fromkeys(each.text for each in pinned))


def _check_prose(front: FrontMatter, inputs: tuple[InputSpec, ...], faults: list[Mistake]) -> None:
    if not front.prose and front.prose_line:
        told = "the program says nothing: write what it should do below the front matter"
        faults.append(Mistake(front.prose_line, told))
    types = {spec.name: spec.type for spec in inputs}
    for name, line in placeholders(front.prose) if types else ():
        at = front.prose_line + line
        if name not in types:
            faults.append(Mistake(at, f"no input for `{{{{{name}}}}}`{nearest(name, types)}"))
        elif types[name] in _UNPLACEABLE:
            told = f"`{{{{{name}}}}}`: a {types[name]} input cannot stand in the text"
            faults.append(Mistake(at, told))
