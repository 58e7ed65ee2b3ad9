"""Actions: whatever the grammar allows is a call that fits its tool, or an answer; whatever comes back can be read."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator

from mains.engines.actions import frame_of, loose_schema_of, moves, read, schema_of
from mains.engines.llama_body import plan
from mains.engines.loosen import loosen
from mains.kernel.ports import Finish, Message, Reply, Request, Schema, Tool, ToolCall
from mains.kernel.toolset import _PLAIN

EXIT = _PLAIN["exit"]


def closed(**properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


EACH = Tool("spawn_each", "one for each", closed(program={"enum": ["reader"]}, over={"enum": ["documents"]}))
NOTE = Tool("files.write", "write", closed(path={"type": "string"}, text={"type": "string"}))
BEGIN = (Message("system", "You are the editor."), Message("user", "Begin."))


def after(tool: str, arguments: str, result: str) -> tuple[Message, ...]:
    call = ToolCall("call_1_1", tool, arguments)
    return (Message("assistant", calls=(call,)), Message("tool", result, call_id=call.id, name=tool))


def names(request: Request) -> list[str]:
    return [move.tool for move in moves(request)]


def test_exit_is_offered_with_the_calls_that_have_results_only() -> None:
    tools = (EXIT, EACH)
    assert names(Request(BEGIN, 10, tools)) == ["spawn_each", ""]
    done = BEGIN + after("spawn_each", '{"program":"reader","over":"documents"}', "- **a**: A.")
    assert names(Request(done, 10, tools)) == ["exit", ""]
    ends = moves(Request(done, 10, tools))[0]
    assert ends.arguments["properties"] == {"results_of": {"enum": ["call_1_1"]}}
    failed = BEGIN + after("spawn_each", '{"program":"reader","over":"x"}', "error: no input `x`")
    assert names(Request(failed, 10, tools)) == ["spawn_each", ""]


def test_a_call_of_choices_is_not_offered_twice_until_somebody_speaks() -> None:
    light = Tool("light", "switch", closed(state={"enum": ["on", "off"]}))
    once = BEGIN + after("light", '{"state": "on"}', "done")
    [left, _] = moves(Request(once, 10, (light,)))
    assert left.arguments["properties"] == {"state": {"const": "off"}}
    again = (*once, Message("user", "and now?"))
    assert moves(Request(again, 10, (light,)))[0].arguments["properties"] == {"state": {"enum": ["on", "off"]}}
    written = BEGIN + after("files.write", '{"path":"a","text":"b"}', "done")
    assert names(Request(written, 10, (NOTE,))) == ["files.write", ""]


def test_the_frame_shows_calls_as_actions_and_begins_the_same_on_every_turn() -> None:
    done = BEGIN + after("spawn_each", '{"program":"reader","over":"documents"}', "- **a**: A.")
    first, later = (frame_of(Request(frame, 10, (EXIT, EACH))) for frame in (BEGIN, done))
    assert later[: len(first)] == first
    assert [m.role for m in later[len(first) :]] == ["assistant", "user"]
    assert read(later[-2].text)[1][0].name == "spawn_each"
    assert later[-1].text == "Result of call_1_1 (spawn_each):\n- **a**: A."
    assert not any(m.calls for m in later)


def test_no_role_stands_twice_in_a_row_and_the_last_word_is_not_the_models() -> None:
    messages = (*BEGIN, Message("user", "more"), Message("assistant", "well"))
    assert [m.role for m in plan(Request(messages, 10)).messages] == ["system", "user", "assistant", "user"]


# ------------------------------------------------------------------------------------------------------- reading


def test_replies_are_read() -> None:
    assert read('{"say": "Hello."}') == ("Hello.", ())
    assert read('{"say": {"a": 1}}') == ('{"a":1}', ())
    assert read(' {"tool": "sleep", "arguments": {"seconds": 2}}') == (
        "",
        (ToolCall("call", "sleep", '{"seconds":2}'),),
    )
    answer = plan(Request(BEGIN, 10, (EACH,))).read(Reply('{"tool":"spawn_each","arguments":{}}'))
    assert answer.finish is Finish.CALLS


@pytest.mark.parametrize(
    ("cut", "text", "calls"),
    [
        ('{"say": "The result is', "The result is", 0),
        ('{"say": "ends in a back\\', "ends in a back", 0),
        ('{"to', "", 0),
        ("", "", 0),
        ("no JSON", "", 0),
        ("[1, 2]", "", 0),
        ('{"tool": "files.write", "arguments": {"path": "a', "", 1),
        ('{"tool": "files.write"', "", 1),
    ],
)
def test_a_reply_that_was_cut_can_be_mended(cut: str, text: str, calls: int) -> None:
    said, made = read(cut)
    assert (said, len(made)) == (text, calls)
    for call in made:
        with pytest.raises(msgspec.DecodeError):
            msgspec.json.decode(call.arguments)


@given(st.text(max_size=200))
def test_reading_never_fails(text: str) -> None:
    for reply in (text, '{"tool": ' + text, '{"say": "' + text):
        said, made = read(reply)
        assert len(made) <= 1 and not (said and made), "it is text or a call"


# ------------------------------------------------------------------------------------- whatever the grammar allows

SCALARS = st.one_of(
    st.fixed_dictionaries({"enum": st.lists(st.one_of(st.text(max_size=9), st.integers()), min_size=1, max_size=3)}),
    st.fixed_dictionaries({"const": st.text(max_size=9)}),
    st.sampled_from(
        [
            {"type": "string"},
            {"type": "string", "minLength": 1, "maxLength": 4},
            {"type": "integer", "minimum": 0, "maximum": 9},
            {"type": "number"},
            {"type": "boolean"},
            {"type": ["string", "null"]},
        ]
    ),
)
SCHEMAS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.builds(lambda items: {"type": "array", "items": items, "minItems": 1, "maxItems": 2}, inner),
        st.builds(lambda a, b: closed(a=a, b=b), inner, inner),
        st.builds(lambda a, b: {"anyOf": [a, b]}, inner, inner),
    ),
    max_leaves=4,
)
PARAMETERS = st.dictionaries(st.text(min_size=1, max_size=6), SCHEMAS, max_size=3).map(
    lambda found: closed(**dict[str, Any](found))
)
TOOLS = st.lists(
    st.builds(Tool, st.text(min_size=1, max_size=12), st.text(max_size=30), PARAMETERS),
    min_size=1, max_size=4, unique_by=lambda tool: tool.name,
).map(tuple)  # fmt: skip


def instances(schema: Schema) -> st.SearchStrategy[Any]:
    """Values that llama.cpp's grammar of a loosened schema allows."""
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "anyOf" in schema:
        return st.one_of([instances(each) for each in schema["anyOf"]])
    match schema.get("type"):
        case "object":
            parts = {name: instances(each) for name, each in schema.get("properties", {}).items()}
            return st.fixed_dictionaries(parts)
        case "array":
            return st.lists(instances(schema["items"]), min_size=schema["minItems"], max_size=schema["maxItems"])
        case "string":
            return st.text(min_size=schema.get("minLength", 0), max_size=schema.get("maxLength", 20))
        case "integer":
            return st.integers(schema.get("minimum"), schema.get("maximum"))
        case "number":
            return st.floats(allow_nan=False, allow_infinity=False)
        case "boolean":
            return st.booleans()
    return st.none()


@given(TOOLS, st.data())
def test_any_reply_of_the_grammar_is_a_call_that_fits_or_an_answer(
    tools: tuple[Tool, ...], data: st.DataObject
) -> None:
    reply = data.draw(instances(schema_of(moves(Request(BEGIN, 10, tools)))))
    text, calls = read(msgspec.json.encode(reply).decode())
    if not calls:
        assert text == reply["say"]
        return
    [call] = calls
    parameters = {tool.name: tool.parameters for tool in tools}[call.name]
    assert Draft202012Validator(parameters).is_valid(msgspec.json.decode(call.arguments))


@given(st.text(min_size=1, max_size=60), st.text(max_size=200))
def test_a_hostile_name_or_description_stays_in_its_line(name: str, description: str) -> None:
    tools = (Tool(name, description, closed(path={"type": "string"})), EACH)
    system = frame_of(Request(BEGIN, 10, tools))[0].text
    manual = system.split("Tools:\n", 1)[1].split("\n\nReply with")[0]
    assert len(manual.split("\n")) == len(tools)
    assert schema_of(moves(Request(BEGIN, 10, tools)))["anyOf"][0]["properties"]["tool"] == {"const": name}


# ------------------------------------------------------------------------------------------------------ loosening


@pytest.mark.parametrize(
    ("schema", "loose"),
    [
        ({"type": "string", "pattern": "^a+$", "format": "date"}, {"type": "string"}),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"type": "integer"}}}, {"type": "integer"}),
        ({"$ref": "https://example.org/schema"}, {}),
        ({"allOf": [{"type": "string"}]}, {}),
        ({"type": "string", "maxLength": 100_000}, {"type": "string"}),
        ({"type": "object"}, {"type": "object"}),
        (
            {"type": "object", "additionalProperties": False},
            {"type": "object", "properties": {}, "additionalProperties": False},
        ),
        ({"type": ["string", "null"]}, {"anyOf": [{"type": "string"}, {"type": "null"}]}),
        ({"not": {}}, {}),
        ({"enum": []}, {}),
    ],
)
def test_what_a_grammar_cannot_say_is_left_out(schema: Schema, loose: Schema) -> None:
    assert loosen(schema) == loose


def test_recursion_and_size_are_bounded() -> None:
    tree: Schema = {"type": "object", "properties": {"child": {"$ref": "#"}}}
    assert len(msgspec.json.encode(loosen(tree))) < 1_000
    wide = {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(10_000)}}
    assert loosen(wide) == {"type": "object"}
    deep: Schema = {"type": "string"}
    for _ in range(500):
        deep = {"type": "array", "items": deep}
    assert len(msgspec.json.encode(loosen(deep))) < 1_000


def test_the_loosest_form_keeps_the_tools() -> None:
    loose = loose_schema_of(moves(Request(BEGIN, 10, (EACH, NOTE))))
    assert [each["properties"].get("tool") for each in loose["anyOf"]] == [
        {"const": "spawn_each"}, {"const": "files.write"}, None,
    ]  # fmt: skip
