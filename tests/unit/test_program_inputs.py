"""Binding: what a command line, the API or a model gave becomes typed inputs, or all faults in one line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mains.errors import MainsError, SyscallError, UsageError
from mains.program import Bound, FileText, Program, bind, bind_child, fill, input_schema, parse
from mains.settings import Settings

SETTINGS = Settings()
HERE = Path("/nowhere")


def program(*inputs: str, prose: str = "Do it.") -> Program:
    lines = ["inputs:", *(f"  {each}" for each in inputs)] if inputs else []
    return parse("\n".join(["---", "name: p", "description: b", *lines, "---", prose]), "p.md", SETTINGS)


def value(line: str, given: Any) -> Any:
    (bound,) = bind(program(f"x: {line}"), {"x": given}, SETTINGS, HERE)
    return bound.value


def refusal(read: Program, given: Mapping[str, Any], start: Path = HERE, settings: Settings = SETTINGS) -> str:
    with pytest.raises(UsageError) as caught:
        bind(read, given, settings, start)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("line", "given", "expected"),
    [
        ("text", "a: @b", "a: @b"),
        ("text", 7, "7"),
        ("number", " 7 ", 7),
        ("number", "-1.5e3", -1500.0),
        ("number", 2.5, 2.5),
        ("boolean", "Yes", True),
        ("boolean", "off", False),
        ("boolean", 1, True),
        ("boolean", False, False),
        ("{type: choice, choices: [a, 2]}", "2", "2"),
        ("{type: choice, choices: [a, 2]}", 2, "2"),
        ("json", '{"a": [1, null]}', {"a": [1, None]}),
        ("json", {"a": (1,)}, {"a": [1]}),
        ("json", "false", False),
    ],
)
def test_scalars(line: str, given: Any, expected: Any) -> None:
    got = value(line, given)
    assert got == expected and type(got) is type(expected)


@pytest.mark.parametrize(
    ("line", "given", "told"),
    [
        ("text", ["a"], "must be text, not `['a']`"),
        ("text", True, "must be text, not `True`"),
        ("text", "\udce9", "is not valid Unicode text"),
        ("number", "seven", "must be a number, not `seven`"),
        ("number", "nan", "must be a number, not `nan`"),
        ("number", "1e999", "must be a number, not `1e999`"),
        ("number", float("inf"), "must be a number, not `inf`"),
        ("number", True, "must be a number, not `True`"),
        ("boolean", "ja", "must be true or false, not `ja`"),
        ("boolean", [], "must be true or false, not `[]`"),
        ("{type: choice, choices: [short, long]}", "shrt",
         "must be one of `short`, `long`, not `shrt` (did you mean `short`?)"),
        ("json", "{", "must be JSON, not `{`: Input data was truncated"),
        ("json", "[" * 100_000, "must be JSON"),
        ("json", {"a": object()}, "must be a JSON value"),
        ("file", "", "must be the path of a file, not ``"),
        ("file", 7, "must be the path of a file, not `7`"),
        ("file", "a\0b", "/nowhere/a?b: no such file"),
        ("folder", [], "must be the path of a folder, or files"),
        ("folder", ["a"], "must be the path of a folder, or files"),
    ],
)  # fmt: skip
def test_wrong_values(line: str, given: Any, told: str) -> None:
    assert refusal(program(f"x: {line}"), {"x": given}).startswith(f"p: input `x`: {told}")


def test_all_faults_in_one_line() -> None:
    read = program("documents: folder", "depth: number", "title: {default: Digest}")
    assert refusal(read, {"document": "x", "depth": "deep"}) == (
        "p: no input `document` (did you mean `documents`?); input `documents` (folder) is missing; "
        "input `depth`: must be a number, not `deep`"
    )


def test_defaults_and_optional_inputs() -> None:
    read = program("a: {default: x}", "b: {type: number, required: false}", "c: {type: json, default: '1'}")
    assert bind(read, {}, SETTINGS, HERE) == (Bound("a", "text", "x"), Bound("c", "json", "1"))
    assert bind(read, {"b": "2", "a": None, "c": "1"}, SETTINGS, HERE) == (
        Bound("a", "text", "x"),
        Bound("b", "number", 2),
        Bound("c", "json", 1),
    )


def test_a_program_without_inputs_takes_a_prompt() -> None:
    assert bind(program(), {}, SETTINGS, HERE) == ()
    assert bind(program(), {"prompt": "go"}, SETTINGS, HERE) == (Bound("prompt", "text", "go"),)
    assert refusal(program(), {"promt": "go"}) == "p: no input `promt` (did you mean `prompt`?)"


def test_inputs_are_bounded() -> None:
    small = Settings(input_bytes_max=3)
    assert refusal(program("x: text"), {"x": "ab\u00e9"}, settings=small) == (
        "p: input `x`: has 4 bytes; at most 3 are taken"
    )
    for line, long in [("json", [1, 2]), ("file", FileText("f", "long")), ("folder", [FileText("f", "long")])]:
        assert "at most 3 are taken" in refusal(program(f"x: {line}"), {"x": long}, settings=small)


# ------------------------------------------------------------------------------------------- files and folders


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_bytes(b"\xef\xbb\xbf# Title\r\n\r\n![x](y) Text **here**.\r\n")
    (bound,) = bind(program("x: file"), {"x": "a.md"}, SETTINGS, tmp_path)
    assert bound == Bound("x", "file", files=(FileText("a.md", "# Title\n\n![x](y) Text **here**.\n"),))
    (plain,) = bind(program("x: {type: file, plain: true}"), {"x": tmp_path / "a.md"}, SETTINGS, HERE)
    assert plain.files == (FileText("a.md", "Title\n\n Text here."),)


def test_the_beginning_of_a_file() -> None:
    read = program("x: {type: file, tokens_max: 50}")
    text = "First sentence of it. " * 100
    (bound,) = bind(read, {"x": FileText("long.txt", text)}, SETTINGS, HERE)
    assert bound.files[0].text.endswith("of it.\n\n[cut: 153 of 2,200 characters]")
    assert len(bound.files[0].text) <= 200


def test_files_that_cannot_be_taken(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"\0\1")
    (tmp_path / "b.txt").write_bytes(b"ok\n\xff")
    for name, told in [
        ("a.bin", "not a text file (it holds zero bytes)"),
        ("b.txt", "not UTF-8 text (line 2)"),
        ("c.txt", "no such file"),
        (".", "is a folder, not a file"),
    ]:
        assert refusal(program("x: file"), {"x": name}, tmp_path) == f"p: input `x`: {tmp_path / name}: {told}"


def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8")


def names(read: Program, folder: Path, settings: Settings = SETTINGS) -> list[str]:
    (bound,) = bind(read, {"x": str(folder)}, settings, HERE)
    return [file.name for file in bound.files]


def test_a_folder(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    make(docs, "b.md", "a.txt", "C.MD", "d.py", "sub/e.md", "sub/.hidden.md", ".git/f.md", "sub-g.md")
    make(tmp_path, "outside/o.md")
    (docs / "out.md").symlink_to(tmp_path / "outside" / "o.md")
    (docs / "in.md").symlink_to(docs / "b.md")
    (docs / "folder-link").symlink_to(tmp_path / "outside")
    (docs / "gone.md").symlink_to(docs / "nothing")
    read = program("x: folder")
    with pytest.raises(UsageError, match=r"gone\.md: no such file"):
        names(read, docs)
    (docs / "gone.md").unlink()
    assert names(read, docs) == ["C.MD", "a.txt", "b.md", "in.md", "sub-g.md", "sub/e.md"]
    assert names(program("x: {type: folder, patterns: ['*.py', 'sub/*']}"), docs) == ["d.py", "sub/e.md"]


def test_folders_that_cannot_be_taken(tmp_path: Path) -> None:
    make(tmp_path, "a.md", "b.md", "none/c.py")
    read = program("x: folder")
    assert refusal(read, {"x": "gone"}, tmp_path).endswith("gone: no such folder")
    assert refusal(read, {"x": "a.md"}, tmp_path).endswith("a.md: no such folder")
    assert refusal(read, {"x": "none"}, tmp_path).endswith("none: no file in it matches *.md, *.txt")
    one = Settings(folder_files_max=1)
    assert refusal(read, {"x": "."}, tmp_path, one).endswith("more than 1 files match")
    make(tmp_path, *(f"many/{n}.py" for n in range(101)))
    assert "too large to search" in refusal(read, {"x": "many"}, tmp_path, one)
    (tmp_path / "b.md").write_bytes(b"\xff")
    assert "b.md: not UTF-8 text (line 1)" in refusal(read, {"x": "."}, tmp_path)


def test_a_folder_of_given_files() -> None:
    files = (FileText("a", "1"), FileText("b", "2"))
    assert bind(program("x: folder"), {"x": list(files)}, SETTINGS, HERE)[0].files == files
    assert "at most 1 are taken" in refusal(program("x: folder"), {"x": files}, settings=Settings(folder_files_max=1))


# --------------------------------------------------------------------------------------------------- children

HELD = {"a.md": FileText("a.md", "alpha"), "b.md": FileText("b.md", "beta")}


def test_a_model_binds_scalars_and_held_files() -> None:
    read = program("doc: file", "all: {type: folder, required: false}", "data: json", "n: number")
    given = {"doc": "a.md", "all": ["b.md", "a.md"], "data": "text", "n": 3}
    assert bind_child(read, given, SETTINGS, HELD) == (
        Bound("doc", "file", files=(HELD["a.md"],)),
        Bound("all", "folder", files=(HELD["b.md"], HELD["a.md"])),
        Bound("data", "json", "text"),
        Bound("n", "number", 3),
    )


@pytest.mark.parametrize("given", ["/etc/passwd", "a.m", 7, ["a.md"], FileText("x", "y"), Path("a.md")])
def test_a_model_reaches_no_other_file(given: Any) -> None:
    with pytest.raises(SyscallError, match=r"no file .* among those that you hold"):
        bind_child(program("doc: file"), {"doc": given}, SETTINGS, HELD)


def test_the_schema_of_a_child() -> None:
    read = program(
        "doc: file",
        "size: {type: choice, choices: [s, l], description: how long, default: s}",
        "n: number",
        "ok: {type: boolean, required: false}",
        "data: {type: json, required: false}",
        "t: {required: false}",
        "all: {type: folder, required: false}",
    )
    schema = input_schema(read)
    assert schema["properties"] == {
        "size": {"type": "string", "enum": ["s", "l"], "description": "how long"},
        "n": {"type": "number"},
        "ok": {"type": "boolean"},
        "data": {},
        "t": {"type": "string"},
    }
    assert schema["required"] == ["n"] and schema["additionalProperties"] is False
    with_files = input_schema(read, ["a.md"])
    assert with_files["properties"]["doc"] == {"type": "string", "enum": ["a.md"]}
    assert with_files["properties"]["all"]["items"] == {"type": "string", "enum": ["a.md"]}
    assert with_files["required"] == ["doc", "n"]
    assert "required" not in input_schema(program())
    for each in (schema, with_files):
        jsonschema_rs.Draft202012Validator(each)


# --------------------------------------------------------------------------------------------------- the prose


def test_placeholders_are_filled_once() -> None:
    read = program(
        *("a: text", "n: number", "ok: boolean", "doc: file", "gone: {required: false}", "rest: json"),
        prose="{{a}} {{ n }} {{ok}} {{doc}} [{{gone}}] {{a}}",
    )
    inputs = bind(
        read,
        {"a": "{{n}} \\1", "n": "2.50", "ok": "on", "doc": FileText("d", "{{a}}"), "rest": "[1]"},
        SETTINGS,
        HERE,
    )
    prose, left = fill(read, inputs)
    assert prose == "{{n}} \\1 2.5 true {{a}} [] {{n}} \\1"
    assert [each.name for each in left] == ["rest"]


def test_prose_without_inputs_stays_as_it_is() -> None:
    read = program(prose="Hello {{prompt}} and {{ name }}")
    bound = bind(read, {"prompt": "x"}, SETTINGS, HERE)
    assert fill(read, bound) == ("Hello {{prompt}} and {{ name }}", bound)


# -------------------------------------------------------------------------------------------------- properties

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ALL = program(
    *("text: text", "number: number", "boolean: boolean", "file: {type: file, plain: true, tokens_max: 40}"),
    *("folder: folder", "choice: {type: choice, choices: [a, b]}", "json: json"),
)
NAMES = st.sampled_from([spec.name for spec in ALL.inputs]) | st.text(max_size=5)


@given(st.dictionaries(NAMES, JSON | st.sampled_from(["a.md", "a", "1"])))
def test_bind_child_binds_or_raises_one_error(given: dict[str, Any]) -> None:
    try:
        bounds = bind_child(ALL, given, SETTINGS, HELD)
    except MainsError as error:
        assert isinstance(error, SyscallError) and "\n" not in str(error)
    else:
        assert msgspec.json.decode(msgspec.json.encode(bounds), type=tuple[Bound, ...]) == bounds


@given(JSON)
def test_json_goes_through_unchanged(given: Any) -> None:
    read = program("x: {type: json, required: false}")
    try:
        bounds = bind_child(read, {"x": given}, SETTINGS, {})
    except SyscallError:
        return
    assert not bounds if given is None else msgspec.json.encode(bounds[0].value) == msgspec.json.encode(given)


@given(st.integers(-(10**17), 10**17) | st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_as_typed(given: float) -> None:
    assert value("number", repr(given)) == given
