"""The script of a scripted engine: a YAML file (or the same as Python objects) -> `Script`. The format is
described in `docs/scripted.md`.

Which reply a frame gets depends on the frame alone, never on earlier calls, so that a call repeated after a
crash gets the same reply; `times` is the one exception and counts in memory.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec

from mains.errors import Blame, ConfigError, Spent
from mains.kernel.ports import Finish, Message, ToolCall

SCRIPT_BYTES_MAX = 8 * 1024 * 1024
SLOTS = 64
CONTEXT_TOKENS = 32_768

_Count = Annotated[int, msgspec.Meta(ge=0)]
_Positive = Annotated[int, msgspec.Meta(ge=1)]
ScriptedFinish = Literal["stop", "length", "refusal"]


class CallLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A tool call of a reply. `arguments` is an object, or raw text where it shall be malformed."""

    name: str
    arguments: dict[str, Any] | str = {}
    id: str = ""


class ErrorLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An error in place of a reply (after its text, when it has any: a broken stream)."""

    text: str = "a scripted error"
    retryable: bool = True
    spent: Spent = Spent.UNKNOWN
    retry_after_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    blame: Blame = Blame.ENGINE


class TokensLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Token counts that differ from the computed ones."""

    input: _Count | None = None
    cached: _Count = 0
    output: _Count | None = None


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One reply."""

    text: str = ""
    echo: bool = False
    calls: list[CallLine] = []
    error: ErrorLine | None = None
    delay_ms: _Count = 0
    tokens: TokensLine = TokensLine()
    usage: Literal["counted", "none"] = "counted"
    chunks: _Positive = 1
    finish: ScriptedFinish | None = None

    def tool_calls(self, turn: int) -> tuple[ToolCall, ...]:
        return tuple(
            ToolCall(call.id or f"call_{turn}_{number}", call.name, _argument_text(call.arguments))
            for number, call in enumerate(self.calls, start=1)
        )

    def finish_of(self, calls: tuple[ToolCall, ...]) -> Finish:
        if self.finish is not None:
            return Finish(self.finish)
        return Finish.CALLS if calls else Finish.STOP


def _argument_text(arguments: dict[str, Any] | str) -> str:
    return arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()


class Pattern(msgspec.Struct, frozen=True):
    """Text to be found anywhere in another, or a regular expression."""

    text: str
    regex: re.Pattern[str] | None = None

    def fits(self, subject: str) -> bool:
        return self.text in subject if self.regex is None else self.regex.search(subject) is not None


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """Conditions, all of which must fit, and a reply or a sequence of them (by turn)."""

    lines: tuple[Line, ...]
    sequence: bool = False
    when: Pattern | None = None
    first: Pattern | None = None
    system: Pattern | None = None
    turn: int = 0
    times: int = 0

    def line_for(self, messages: Sequence[Message], turn: int) -> Line | None:
        """The reply to this frame in this turn, or None when the rule does not fit."""
        if self.turn and self.turn != turn:
            return None
        if self.when is not None and not self.when.fits(messages[-1].text if messages else ""):
            return None
        if self.first is not None and not self.first.fits(_first_of("user", messages)):
            return None
        if self.system is not None and not self.system.fits(_first_of("system", messages)):
            return None
        if not self.sequence:
            return self.lines[0]
        return self.lines[turn - 1] if turn <= len(self.lines) else None


def _first_of(role: str, messages: Sequence[Message]) -> str:
    return next((message.text for message in messages if message.role == role), "")


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """A whole script. `where` names it in errors."""

    where: str
    rules: tuple[Rule, ...]
    slots: int = SLOTS
    context_tokens: int = CONTEXT_TOKENS


class _RuleKeys(msgspec.Struct, frozen=True, kw_only=True):
    """The keys that a rule has beside those of a reply, as they are written."""

    when: str | None = None
    first: str | None = None
    system: str | None = None
    turn: _Positive | None = None
    times: _Positive | None = None
    sequence: list[Any] | None = None


class _ScriptKeys(msgspec.Struct, frozen=True, kw_only=True):
    slots: _Positive = SLOTS
    context_tokens: _Positive = CONTEXT_TOKENS
    replies: Annotated[list[Any], msgspec.Meta(min_length=1)]


def read_script(path: Path) -> Script:
    """The script in a YAML file. Raises ConfigError that names every mistake."""
    import yaml

    try:
        data = path.read_bytes()
        if len(data) > SCRIPT_BYTES_MAX:
            raise ConfigError(f"{path}: more than {SCRIPT_BYTES_MAX:,} bytes")
        value = yaml.safe_load(data)
    except OSError as error:
        hint = "`path` of a scripted engine names its script: docs/scripted.md"
        raise ConfigError(f"{path}: {error.strerror}", hint=hint) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: no YAML: {error}") from error
    return script_of(value, str(path))


def script_of(value: object, where: str) -> Script:
    """The script in plain Python objects: the same as in a file, or only its list of replies."""
    mistakes = Mistakes()
    if isinstance(value, list):
        value = {"replies": value}
    keys = mistakes.fields(value, _ScriptKeys, "")
    rules = _rules(keys.get("replies", []), mistakes)
    mistakes.raise_any(where)
    return Script(where=where, rules=rules, **{key: keys[key] for key in keys if key != "replies"})


def line_of(value: object, where: str) -> Line:
    """One reply in plain Python objects (an answer function may give such)."""
    mistakes = Mistakes()
    line = _line(value, where, mistakes)
    mistakes.raise_any(where)
    return line


class Mistakes:
    """Collects every mistake of a script, so that all of them can be named at once."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    def add(self, at: str, text: str) -> None:
        self._texts.append(f"{at}: {text}" if at else text)

    def raise_any(self, where: str) -> None:
        if self._texts:
            raise ConfigError(f"{where}: {'; '.join(self._texts)}", hint="the format: docs/scripted.md")

    def fields(self, value: object, kind: type[msgspec.Struct], at: str, also: Sequence[str] = ()) -> dict[str, Any]:
        """The fields of `kind` that `value` holds and that are right; every other thing in it is a mistake.

        `also`: keys that may stand beside them, to be proposed when a key is misspelt.
        """
        if not isinstance(value, Mapping):
            self.add(at, f"a mapping is expected, not {type(value).__name__}")
            return {}
        known = {field.name: field for field in msgspec.structs.fields(kind)}
        found: dict[str, Any] = {}
        for key, raw in value.items():
            if key not in known:
                near = difflib.get_close_matches(str(key), [*known, *also], n=1)
                self.add(at, f"unknown key `{key}`" + (f" (did you mean `{near[0]}`?)" if near else ""))
                continue
            nested = _nested(known[key].type)
            path = f"{at}.{key}" if at else str(key)
            ok, item = self._nested(raw, nested, path) if nested else self._plain(raw, known[key].type, path)
            if ok:
                found[key] = item
        for field in known.values():
            if field.required and field.name not in value:
                self.add(at, f"`{field.name}` is missing")
        return found

    def struct(
        self, value: object, kind: type[msgspec.Struct], at: str, also: Sequence[str] = ()
    ) -> msgspec.Struct | None:
        """`value` as a `kind`, or None when that cannot be (the mistakes say why)."""
        before = len(self._texts)
        fields = self.fields(value, kind, at, also)
        return kind(**fields) if len(self._texts) == before else None

    def _plain(self, raw: object, kind: Any, at: str) -> tuple[bool, Any]:
        try:
            return True, msgspec.convert(raw, kind)
        except msgspec.ValidationError as error:
            self.add(at, str(error))
            return False, None

    def _nested(self, raw: object, kind: type[msgspec.Struct], at: str) -> tuple[bool, Any]:
        if kind is CallLine:
            if not isinstance(raw, list):
                self.add(at, "a list is expected")
                return False, None
            items = [self.struct(item, kind, f"{at}[{number}]") for number, item in enumerate(raw, start=1)]
            return None not in items, items
        item = self.struct(raw, kind, at)
        return item is not None, item


def _nested(kind: Any) -> type[msgspec.Struct] | None:
    """The struct within a field's type, if there is one (`list[CallLine]`, `ErrorLine | None`)."""
    for part in (kind, *get_args(kind)):
        if isinstance(part, type) and issubclass(part, msgspec.Struct):
            return part
    return None


def _rules(values: list[Any], mistakes: Mistakes) -> tuple[Rule, ...]:
    if all(isinstance(value, str) for value in values):
        return (Rule(lines=tuple(Line(text=text) for text in values), sequence=True),)
    rules = [_rule(value, f"replies[{number}]", mistakes) for number, value in enumerate(values, start=1)]
    return tuple(rules)


def _rule(value: object, at: str, mistakes: Mistakes) -> Rule:
    if not isinstance(value, Mapping):
        return Rule(lines=(_line(value, at, mistakes),))
    own = {key: raw for key, raw in value.items() if key in _RuleKeys.__struct_fields__}
    rest = {key: raw for key, raw in value.items() if key not in own}
    keys = mistakes.fields(own, _RuleKeys, at)
    sequence = keys.pop("sequence", None)
    if sequence is None:
        lines = [_line(rest, at, mistakes, _RuleKeys.__struct_fields__)]
    else:
        if rest or not sequence:
            mistakes.add(at, "`sequence` holds the replies: at least one, and nothing of a reply beside it")
        lines = [_line(item, f"{at}.sequence[{n}]", mistakes) for n, item in enumerate(sequence, start=1)]
    for key in ("when", "first", "system"):
        if key in keys:
            keys[key] = _pattern(keys[key], f"{at}.{key}", mistakes)
    return Rule(lines=tuple(lines), sequence=sequence is not None, **keys)


def _line(value: object, at: str, mistakes: Mistakes, also: Sequence[str] = ()) -> Line:
    if isinstance(value, str):
        return Line(text=value)
    line = mistakes.struct(value, Line, at, also)
    if not isinstance(line, Line):
        return Line()
    if isinstance(value, Mapping) and not {"text", "echo", "calls", "error"} & set(value):
        mistakes.add(at, 'a reply needs `text`, `echo`, `calls` or `error` (an empty one: `text: ""`)')
    if line.echo and line.text:
        mistakes.add(at, "`echo` and `text` exclude each other")
    return line


def _pattern(text: str, at: str, mistakes: Mistakes) -> Pattern:
    match = re.fullmatch(r"/(.+)/(i?)", text, re.DOTALL)
    if match is None:
        return Pattern(text)
    try:
        return Pattern(text, re.compile(match[1], re.IGNORECASE if match[2] else 0))
    except re.error as error:
        mistakes.add(at, f"no regular expression: {error}")
        return Pattern(text)
