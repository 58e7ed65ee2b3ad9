"""Programs: the file format, the files of other assistants, every mistake with its line, and program trees."""

from __future__ import annotations

import hashlib
import os
import re
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mains.errors import NotFoundError, ProgramError, UsageError
from mains.program import (
    InputSpec,
    Program,
    Schedule,
    ToolGrant,
    load,
    load_tree,
    notes,
    parse,
    parse_grant,
    parse_tokens,
)
from mains.program.inputspec import TYPES as TYPE_NAMES
from mains.program.program import BANDS, DOUBTS, FOREIGN_KEYS, OWN_KEYS
from mains.settings import Settings

SETTINGS = Settings()

DIGEST = """\
---
name: digest
description: Says in one line what each document is about.
model: [small, large]
tools:
  - files.read
  - spawn_each(reader, writer)
  - web.fetch(host=*.example.org)
inputs:
  documents: folder
  title:
    type: text
    description: the heading
    default: Digest
  depth: {type: choice, choices: [short, yes, no], default: short}
output:
  type: object
  properties:
    lines: {type: array, items: {$ref: "#/$defs/line"}}
  $defs:
    line: {type: string}
budget: 1.5M
band: batch
schedule: "0 7 * * *"
on_doubt: retry
max_tokens: 2k
pin: true
temperature: 0.2
metadata:
  owner: docs team
---

# {{title}}

Ask one reader for each document. Go {{ depth }}.
"""

SKILL = """\
---
name: pdf-forms
description: Fill in PDF forms and read their fields. Use when a person names a PDF form.
license: Apache-2.0
compatibility: Needs qpdf
allowed-tools: Bash(qpdf:*, pdftk *) Read Write
metadata:
  author: example-org
  version: "1.0"
---
# PDF forms

1. List the fields with `qpdf --json`. Leave {{placeholders}} as they are.
"""

SUB_AGENT = """\
---
name: release-checker
description: Use this agent when: a release is near. Examples:\\n\\n<example>\\nContext: The user tags a version.\\n\
user: "Tag 2.0"\\nassistant: "First the checker: it reads the changelog"\\n</example>
tools: Read, Grep, Bash(git log:*), mcp__github__list_issues
model: sonnet
color: purple
permissionMode: plan
disallowedTools: Write, Edit
maxTurns: 20
skills:
  - changelog
hooks:
  PreToolUse:
    - matcher: "Bash"
      hooks: [{type: command, command: ./check.sh}]
---

You check releases. Say what is missing, worst first.
"""


def program(text: str, path: str = "p.md") -> Program:
    return parse(text, path, SETTINGS)


def mistakes(text: str, path: str = "p.md") -> list[tuple[int, str]]:
    with pytest.raises(ProgramError) as caught:
        program(text, path)
    return [(each.line, each.text) for each in caught.value.mistakes]


def keys(*lines: str, prose: str = "Do it.") -> str:
    """A program with a name and description in lines 2 and 3, then `lines` from line 4 on."""
    return "\n".join(["---", "name: a", "description: b", *lines, "---", prose])


# ------------------------------------------------------------------------------------------------- the format


def test_a_whole_program() -> None:
    read = program(DIGEST)
    assert read.name == "digest"
    assert read.model == ("small", "large")
    assert read.tools == (
        ToolGrant("files.read"),
        ToolGrant("spawn_each", ("reader", "writer")),
        ToolGrant("web.fetch", ("host=*.example.org",)),
    )
    assert read.spawns == ("reader", "writer")
    assert [spec.name for spec in read.inputs] == ["documents", "title", "depth"]
    assert read.inputs[0].patterns == ("*.md", "*.txt")
    assert read.inputs[1] == InputSpec("title", "text", "the heading", required=False, default="Digest")
    assert read.inputs[2].choices == ("short", "yes", "no")
    assert (read.budget, read.max_tokens, read.temperature) == (1_500_000, 2_000, 0.2)
    assert (read.band, read.on_doubt, read.schedule) == ("batch", "retry", Schedule("0 7 * * *"))
    assert read.pin == ("documents", "title", "depth")
    assert read.output is not None and read.output["$defs"] == {"line": {"type": "string"}}
    assert read.foreign == {"metadata": {"owner": "docs team"}}
    assert read.prose.startswith("# {{title}}") and read.prose.endswith("{{ depth }}.")
    assert notes(read) == ()


def test_the_least_program() -> None:
    read = program("---\nname: a\ndescription: b\n---\nDo it.\n")
    assert (read.model, read.tools, read.inputs, read.output, read.budget) == ((), (), (), None, None)
    assert (read.band, read.on_doubt, read.pin, read.foreign) == ("normal", "ask", (), {})
    assert [spec.name for spec in read.accepts] == ["prompt"]
    assert notes(read) == ()


def test_a_skill_runs_unchanged() -> None:
    read = program(SKILL, "pdf-forms/SKILL.md")
    assert read.tools == (ToolGrant("Bash", ("qpdf:*", "pdftk *")), ToolGrant("Read"), ToolGrant("Write"))
    assert read.foreign["metadata"] == {"author": "example-org", "version": "1.0"}
    assert read.foreign["license"] == "Apache-2.0"
    assert "{{placeholders}}" in read.prose
    assert notes(read) == ()


def test_a_sub_agent_runs_unchanged() -> None:
    read = program(SUB_AGENT)
    assert read.description.startswith("Use this agent when: a release is near.")
    assert read.description.endswith("</example>")
    assert [grant.name for grant in read.tools] == ["Read", "Grep", "Bash", "mcp__github__list_issues"]
    assert read.model == ("sonnet",)
    assert read.foreign["maxTurns"] == 20
    assert "`disallowedTools`" in notes(read)[0]


def test_tools_win_over_allowed_tools() -> None:
    assert program(keys("tools: []", "allowed-tools: Read Write")).tools == ()


def test_inherit_is_the_default_model() -> None:
    assert program(keys("model: inherit")).model == ()
    assert program(keys("model: openai/gpt-x:1")).model == ("openai/gpt-x:1",)


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("argument-hint: [issue] [priority]", "argument-hint", "[issue] [priority]"),
        ("when_to_use: *always*", "when_to_use", "*always*"),
        ('license: "MIT" or: other', "license", '"MIT" or: other'),
        ("color: null", "color", None),
        ("version: 0.1", "version", 0.1),
        ("background: true", "background", True),
        ("effort: yes", "effort", "yes"),
        ("memory: 2026-01-01", "memory", "2026-01-01"),
        ("maxTurns: " + "9" * 5_000, "maxTurns", "9" * 5_000),
        ("maxTurns: 1e999", "maxTurns", "1e999"),
    ],
)
def test_foreign_values_are_kept(line: str, key: str, value: object) -> None:
    assert program(keys(line)).foreign == {key: value}


def test_a_description_goes_on_in_indented_lines() -> None:
    read = program("---\nname: a\ndescription: Use when: asked\n  and also: then\ncolor: red\n---\nDo it.")
    assert read.description == "Use when: asked and also: then"
    assert read.foreign == {"color": "red"}


def test_long_descriptions_are_a_mistake_in_a_skill_only() -> None:
    text = f"---\nname: a\ndescription: {'x' * 1_025}\n---\nDo it."
    assert len(program(text).description) == 1_025
    assert mistakes(text, "a/SKILL.md") == [(3, "`description` has 1,025 characters; a skill's may have 1,024")]


def test_windows_files() -> None:
    read = program("\ufeff" + DIGEST.replace("\n", "\r\n"))
    assert read == program(DIGEST)
    assert read.hash == hashlib.sha256(DIGEST.encode()).hexdigest()


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("20000", 20_000),
        ("20k", 20_000),
        ("1.5M", 1_500_000),
        ("20_000", 20_000),
        ("2 K", 2_000),
        ("20,000", 20_000),
        ("1,234,567", 1_234_567),
        ("1,500.5k", 1_500_500),
    ],
)
def test_tokens(text: str, tokens: int) -> None:
    assert parse_tokens(text) == tokens


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "k", "1e3", "0.0001k", "9" * 30, "9000000M", "\uff11\uff12"])
def test_what_is_no_number_of_tokens(text: str) -> None:
    with pytest.raises(UsageError):
        parse_tokens(text)


@pytest.mark.parametrize("text", ["1,5k", "1,5", "20,00", "1,0000", ",500", "1,,000", "1,000,5k", "1.5,000", "5,"])
def test_a_comma_parts_thousands_and_nothing_else(text: str) -> None:
    with pytest.raises(UsageError, match="a comma is followed by three digits"):
        parse_tokens(text)
    line, told = mistakes(keys(f"budget: '{text}'"))[0]
    assert line == 4 and told.startswith(f"`budget`: `{text}` is not a number of tokens")


@pytest.mark.parametrize(
    ("text", "grant"),
    [
        ("files", ToolGrant("files")),
        ("files.*", ToolGrant("files.*")),
        ("edit/editFiles", ToolGrant("edit/editFiles")),
        ("mcp__github__*", ToolGrant("mcp__github__*")),
        (" spawn( reader , budget=10k ) ", ToolGrant("spawn", ("reader", "budget=10k"))),
        ("Bash(echo $(date), x)", ToolGrant("Bash", ("echo $(date)", "x"))),
    ],
)
def test_grants(text: str, grant: ToolGrant) -> None:
    assert parse_grant(text) == grant


def test_constraints_of_spawn_are_no_programs() -> None:
    assert parse_grant("spawn(reader, budget=10k)").programs == ("reader",)
    assert parse_grant("Bash(reader)").programs == ()


# ---------------------------------------------------------------------------------- mistakes, each with its line

TYPES = "`text`, `number`, `boolean`, `file`, `folder`, `choice`, `json`"
NAME_RULE = "must be at most 64 lower-case letters, digits and single hyphens between them, for instance"
NO_FRONT_MATTER = "a program begins with a line `---`, its keys (`name:`, `description:`) and another line `---`"
NO_PROSE = "the program says nothing: write what it should do below the front matter"
NO_INPUT_NAME = "is no name for an input: write letters, digits and `_`, a letter first, at most 64"
OUTSIDE = "`$ref` may only point into this schema (`#/…`)"
NO_TOOL = "is not a tool: write a name like `files.read`, `files.*` or `spawn(reader)`"

UNPAIRED = "the parentheses do not match or hold nothing (between brackets, quote a tool with a comma)"
ONE_MISTAKE = [
    ("toolz: files", "unknown key `toolz` (did you mean `tools`?)"),
    ("max-tokens: 100", "unknown key `max-tokens` (did you mean `max_tokens`?)"),
    ("Model: x", "unknown key `Model` (did you mean `model`?)"),
    ("zzz: 1", "unknown key `zzz`; other keys may stand below `metadata:`"),
    ("name: c", "`name` stands here twice: first in line 2"),
    ("tools: {files: true}", "`tools` must be a list, or names separated by commas"),
    ("tools: [[files]]", "`tools`: each must be the name of a tool"),
    ("tools: files, 7up", f"`tools`: `7up` {NO_TOOL}"),
    ("tools: ['*']", f"`tools`: `*` {NO_TOOL}"),
    ("tools: files(", f"`tools`: `files(`: {UNPAIRED}"),
    ("tools: files(a))", f"`tools`: `files(a))`: {UNPAIRED}"),
    ("tools: files()", f"`tools`: `files()`: {UNPAIRED}"),
    ("tools: spawn", "`tools`: `spawn` must say which programs: `spawn(reader)`"),
    ("tools: spawn(../x)", "`tools`: `../x` must name a program beside or below this file"),
    ("tools: spawn(/etc/x)", "`tools`: `/etc/x` must name a program beside or below this file"),
    ("inputs: file", "`inputs` must be a mapping: lines `name: value` below it"),
    ("inputs: {2x: text}", f"`inputs`: `2x` {NO_INPUT_NAME}"),
    ("inputs: {x: fil}", f"`inputs.x`: `fil` is none of {TYPES} (did you mean `file`?)"),
    ("inputs: {x: [file]}", f"`inputs.x`: must be one of {TYPES}"),
    ("inputs: {x: {typ: file}}", "`inputs.x`: unknown key `typ` (did you mean `type`?)"),
    ("inputs: {x: {type: choice}}", "`inputs.x`: a choice needs `choices: [one, another]`"),
    ("inputs: {x: {choices: [a]}}", "`inputs.x`: `choices` is only for choice, not for text"),
    ("inputs: {x: {type: folder, plain: true}}", "`inputs.x`: `plain` is only for file, not for folder"),
    ("inputs: {x: {type: folder, tokens_max: 90}}",
     "`inputs.x`: `tokens_max` is only for file and text, not for folder"),
    ("inputs: {x: {type: file, patterns: a}}", "`inputs.x`: `patterns` is only for folder, not for file"),
    ("inputs: {x: {tokens_max: 2}}", "`inputs.x.tokens_max` must be at least 32 tokens, not 2"),
    ("inputs: {x: {type: file, plain: maybe}}", "`inputs.x.plain` must be true or false"),
    ("inputs: {x: {required: true, default: a}}", "`inputs.x`: an input with a default is never required"),
    ("inputs: {x: {type: number, default: a}}", "`inputs.x.default` must be a number, not `a`"),
    ("inputs: {x: {type: choice, choices: [a], default: b}}", "`inputs.x.default` must be one of `a`, not `b`"),
    ("inputs: {x: {type: folder, patterns: [{}]}}", "`inputs.x.patterns` must be a text or a list of texts"),
    ("inputs: {x: text, x: file}", "`x` stands here twice: first in line 4"),
    ("output: text", "`output` must be a JSON Schema: lines `type: object`, `properties:` …"),
    ("output: {required: x}", "`output`: `required`: \"x\" is not of type \"array\""),
    ("output: {pattern: '('}", "`output`: `pattern`: \"(\" is not a \"regex\""),
    ("output: {$ref: 'https://x.test/s'}", f"`output`: `https://x.test/s`: {OUTSIDE}"),
    ("output: {items: {$ref: '#/$defs/x'}}", "`output`: `#/$defs/x` leads nowhere in this schema"),
    ("budget: lots", "`budget`: `lots` is not a number of tokens: write 20000, 20k or 1.5M"),
    ("budget: [1]", "`budget`: `` is not a number of tokens: write 20000, 20k or 1.5M"),
    ("band: system", "`band`: `system` is reserved for Mains itself"),
    ("band: bach", "`band`: `bach` is none of `interactive`, `normal`, `batch` (did you mean `batch`?)"),
    ("on_doubt: [ask]", "`on_doubt`: must be one of `ask`, `retry`, `skip`"),
    ("max_tokens: 3", "`max_tokens` must be at least 16 tokens, not 3"),
    ("pin: documents", "`pin`: no input `documents`"),
    ("pin: [promt]", "`pin`: no input `promt` (did you mean `prompt`?)"),
    ("temperature: 2.5", "`temperature` must be a number from 0 to 2"),
    ("temperature: true", "`temperature` must be a number from 0 to 2"),
    ("model: [a, b, c, d, e, f, g, h, i]", "`model` names 9 models; at most 8 may be named (models_max)"),
    ("model: {a: b}", "`model` must be a text or a list of texts"),
    ("schedule: []", "`schedule` must be text"),
    ("metadata: team", "`metadata` must be a mapping: lines `name: value` below it"),
    ("inputs: {x: &a text}", "YAML anchors and aliases (`&`, `*`) are not allowed: quote the text"),
    ("inputs: {x: *a}", "YAML anchors and aliases (`&`, `*`) are not allowed: quote the text"),
    ("inputs: {x: !!str a}", "YAML tags (`!`) are not allowed: quote the text"),
    ("inputs: {x: [}", "not valid YAML: expected the node content, but found '}'"),
    ("inputs: {[a]: b}", "not valid YAML: a key must be text"),
    ("tools: [files", "not valid YAML: expected ',' or ']', but got '<stream end>'"),
    ('schedule: "daily', "not valid YAML: found unexpected end of stream"),
    ("just some text", "this is not `key: value`"),
    ("metadata: " + "[" * 90, "`metadata` must be a mapping: lines `name: value` below it"),
    ("inputs: " + "[" * 90, "not valid YAML: more than 32 levels inside each other"),
    ("license: a\x07", "not valid YAML: the character U+0007 is not allowed"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "told"), ONE_MISTAKE)
def test_one_mistake_in_line_4(line: str, told: str) -> None:
    assert mistakes(keys(line)) == [(4, told)]


@pytest.mark.parametrize(("line", "told"), ONE_MISTAKE)
def test_the_line_counts_what_stands_before(line: str, told: str) -> None:
    text = keys("# a comment", "license: >", "  folded", "", "  \u2028 text", line).replace("\n", "\r\n")
    assert [at for at, _ in mistakes(text)] == [9]


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ("", 1, NO_FRONT_MATTER),
        ("# Title\n", 1, NO_FRONT_MATTER),
        ("\n---\nname: a\n", 2, "the front matter that begins here never ends: a line `---` is missing"),
        ("---\nname: a\ndescription: b\n---\n \n", 4, NO_PROSE),
        ("---\nname: a\ndescription:\n---\nDo.", 3, "`description` says nothing"),
        ("---\nname: a\n---\nDo.", 1, "`description:` is missing"),
        ("---\nname: [a]\ndescription: b\n---\nDo.", 2, "`name` must be text"),
        ("---\nname: Code Reviewer!\ndescription: b\n---\nDo.", 2,
         f"`name`: `Code Reviewer!` {NAME_RULE} `code-reviewer`"),
        (f"---\nname: {'a' * 65}\ndescription: b\n---\nDo.", 2, f"`name`: `{'a' * 60}…` {NAME_RULE} `{'a' * 64}`"),
        (keys("inputs: {text: file}", prose="a\n\nRead {{ txt }}."),
         8, "no input for `{{txt}}` (did you mean `text`?)"),
        (keys("inputs: {all: folder}", prose="{{all}}"), 6, "`{{all}}`: a folder input cannot stand in the text"),
        ("---\nname: a\ndescription: \ud800\n---\nDo.", 3, "not valid Unicode text"),
        ("x" * (256 * 1024 + 1), 0, "262,145 bytes; a program may have at most 262,144"),
        (keys("license: " + "x" * 65_536), 2, "the front matter may have at most 65,536 bytes: put the text below it"),
    ],
)  # fmt: skip
def test_a_mistake_elsewhere(text: str, line: int, told: str) -> None:
    assert mistakes(text) == [(line, told)]


def test_every_mistake_is_told_at_once() -> None:
    text = """\
        ---
        name: A
        description: "never closed
        toolz: files
        inputs:
          a: text
          b:
            type: numbr
        output:
          type: object
          properties:
            x: {type: strin}
        budget: none
        ---

        Say {{c}}.
        """
    found = mistakes(textwrap.dedent(text))
    assert [line for line, _ in found] == [2, 3, 4, 8, 12, 13, 16]


def test_the_error_names_the_file() -> None:
    with pytest.raises(ProgramError, match=r"^bad\.md: line 4: unknown key `toolz`"):
        program(keys("toolz: x"), "bad.md")


# ------------------------------------------------------------------------------------------------- properties

LINES = st.sampled_from(
    [
        *("---", "name: a", "description: b: c", "tools: [a, b(c)]", "inputs:", "  x: file", "  y: {type: text}"),
        *("output: {type: object}", "- a", "? b", "*a", "&a b", "'", '"', "a: |", "  {{x}}", "{", "budget: 2k"),
        *("# c", "pin: [x]", "\ttab: x", "...", "%YAML 1.1", "<<: *a", "!!int a: b", "", "text {{x}} {{q}}"),
    ]
)
HEADERS = st.lists(LINES, max_size=12).map(lambda lines: "---\n" + "\n".join(lines) + "\n---\nDo {{x}}.")


@given(st.one_of(st.text(), HEADERS, st.text(alphabet=st.characters(codec=None)), st.text("-\n:[]{}'\" ax&*!|>#")))
def test_parse_raises_nothing_but_program_errors(text: str) -> None:
    for source in (text, f"---\n{text}\n---\nDo."):
        lines = source.replace("\r\n", "\n").replace("\r", "\n").count("\n") + 1
        try:
            read = program(source)
        except ProgramError as error:
            assert error.mistakes
            assert all(0 <= each.line <= lines and "\n" not in each.text for each in error.mistakes)
        else:
            assert program(read.source) == read


PROSE = st.text(st.characters(codec="utf-8", exclude_characters="\0")).map(lambda text: f"Do. {text}")


@given(PROSE, st.sampled_from(["\n", "\r\n", "\r"]), st.booleans())
def test_the_hash_is_the_same_whatever_the_line_ends(prose: str, end: str, mark: bool) -> None:
    read = program(keys(prose=prose))
    foreign = ("\ufeff" if mark else "") + read.source.replace("\n", end)
    again = program(foreign)
    assert (again.hash, again.source) == (read.hash, read.source)
    assert read.hash == hashlib.sha256(read.source.encode()).hexdigest()
    assert program(read.source) == read


# ------------------------------------------------------------------------------------------------------ files


def test_load_a_file_and_a_folder(tmp_path: Path) -> None:
    (tmp_path / "pdf-forms").mkdir()
    (tmp_path / "pdf-forms" / "SKILL.md").write_text(SKILL, encoding="utf-8")
    (tmp_path / "digest.md").write_bytes(b"\xef\xbb\xbf" + DIGEST.replace("\n", "\r\n").encode())
    assert load(tmp_path / "pdf-forms", SETTINGS).name == "pdf-forms"
    assert load(tmp_path / "digest.md", SETTINGS) == program(DIGEST)


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    (tmp_path / "latin.md").write_bytes(b"---\nname: a\n\xe9\n")
    (tmp_path / "big.md").write_bytes(b"x" * (SETTINGS.program_bytes_max + 1))
    (tmp_path / "picture.md").write_bytes(b"\x89PNG\0\0")
    os.mkfifo(tmp_path / "pipe.md")
    for name, told in [
        ("none.md", "no such file"),
        ("latin.md", r"not UTF-8 text \(line 3\)"),
        ("big.md", "larger than 262,144 bytes, the most that is taken"),
        ("picture.md", r"not a text file \(it holds zero bytes\)"),
        ("pipe.md", "no such file"),
        ("n" * 300, "cannot be read: File name too long"),
    ]:
        with pytest.raises(UsageError, match=rf"{name}: {told}$"):
            load(tmp_path / name, SETTINGS)
    with pytest.raises(NotFoundError, match=r"is a folder without a SKILL\.md"):
        load(tmp_path, SETTINGS)


def write(folder: Path, **programs: str) -> None:
    for name, tools in programs.items():
        path = folder / f"{name.replace('__', '/')}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        own = path.stem if path.stem != "SKILL" else path.parent.name
        path.write_text(f"---\nname: {own}\ndescription: b\ntools: {tools}\n---\nDo.", encoding="utf-8")


def test_a_tree(tmp_path: Path) -> None:
    write(
        tmp_path,
        editor="spawn_each(reader), spawn(deep/writer, editor)",
        reader="spawn(checker, budget=1k)",
        checker__SKILL="spawn(below.md)",
        checker__below="[]",
        deep__writer="[]",
    )
    tree = load_tree(tmp_path / "editor.md", SETTINGS)
    assert tree.root == "editor" and tree.program is tree.programs["editor"]
    assert {key: each.name for key, each in tree.programs.items()} == {
        "editor": "editor",
        "reader": "reader",
        "deep/writer": "writer",
        "checker": "checker",
        "below.md": "below",
    }


def test_programs_may_spawn_each_other(tmp_path: Path) -> None:
    write(tmp_path, a="spawn(b)", b="spawn(a, b)")
    assert set(load_tree(tmp_path / "a.md", SETTINGS).programs) == {"a", "b"}


def refused(path: Path, settings: Settings = SETTINGS) -> list[tuple[int, str]]:
    with pytest.raises(ProgramError) as caught:
        load_tree(path, settings)
    return [(each.line, each.text) for each in caught.value.mistakes]


def test_missing_programs_are_told_at_the_line_that_names_them(tmp_path: Path) -> None:
    text = keys("tools:", "  - files", "  - spawn(reader)", "  - spawn_each(reade)")
    (tmp_path / "a.md").write_text(text, encoding="utf-8")
    told = "no program `{0}`: there is no {0}.md, {0}/SKILL.md or {0} beside this file"
    assert refused(tmp_path / "a.md") == [(6, told.format("reader")), (7, told.format("reade"))]


def test_one_name_for_two_files(tmp_path: Path) -> None:
    write(tmp_path, a="spawn(b, x/c)", b="[]", x__c="spawn(b)", x__b="[]")
    assert refused(tmp_path / "a.md")[0][1].startswith("`b` stands for two files: ")
    write(tmp_path, d="spawn(y/b, b)", y__b="[]")
    assert refused(tmp_path / "d.md")[0][1].startswith("two programs call themselves `b`: ")


def test_too_many_programs(tmp_path: Path) -> None:
    write(tmp_path, a="spawn(b)", b="spawn(c)", c="[]")
    assert len(load_tree(tmp_path / "a.md", Settings(programs_max=3)).programs) == 3
    found = refused(tmp_path / "a.md", Settings(programs_max=2))
    assert found == [(4, "`c` is one program too many: at most 2 may be named in all")]


def test_a_broken_child_names_its_own_file(tmp_path: Path) -> None:
    write(tmp_path, a="spawn(b)", b="{}")
    with pytest.raises(ProgramError, match=r"b\.md: line 4: `tools` must be a list"):
        load_tree(tmp_path / "a.md", SETTINGS)


# ------------------------------------------------------------------------------------------------------- docs


def test_the_reference_names_every_key() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "programs.md").read_text(encoding="utf-8")
    for key in (*OWN_KEYS, *FOREIGN_KEYS, *TYPE_NAMES, *BANDS, *DOUBTS):
        assert f"`{key}`" in page, key


def test_the_examples_of_the_reference_are_programs() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "programs.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```markdown\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert program(example).name == "summary"
    parts = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(parts) == 5
    for part in parts:
        program(keys(part.rstrip()))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("0 7 * * *", Schedule("0 7 * * *")),
        ("  */5  8-17 * * MON-FRI ", Schedule("*/5 8-17 * * MON-FRI")),
        (
            "{cron: 0 0 L * *, timezone: Asia/Shanghai, catch_up: all, overlap: allow}",
            Schedule("0 0 L * *", "Asia/Shanghai", "all", "allow"),
        ),
        ("", None),
    ],
)
def test_schedules(written: str, expected: Schedule | None) -> None:
    assert program(keys(f"schedule: {written}")).schedule == expected


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("every morning", "`every morning` names no times (2 fields): write minute, hour"),
        ("0 0 * * * *", "names no times (6 fields)"),
        ("61 * * * *", "names no times (Bad minute)"),
        ("0 0 31 2 *", "names no times (Bad day-of-month)"),
        ("{cron: 0 7 * * *, timezone: Berlin}", "`Berlin` is no time zone: write an IANA name"),
        ("{cron: 0 7 * * *, timezone: ../etc/passwd}", "is no time zone"),
        ("{cron: 0 7 * * *, catchup: all}", "unknown key `catchup` (did you mean `catch_up`?)"),
        ("{cron: 0 7 * * *, catch_up: never}", "`never` is none of `latest`, `all`, `none`"),
        ("{timezone: UTC}", "`schedule` says nothing"),
        ("[a, b]", "`schedule` must be text"),
    ],
)
def test_schedules_that_are_none(written: str, told: str) -> None:
    with pytest.raises(ProgramError) as failed:
        program(keys(f"schedule: {written}"))
    assert told in str(failed.value)
    assert len(failed.value.mistakes) == 1
