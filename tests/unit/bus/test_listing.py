"""Tools as servers list them, hostile ones too: each that cannot be offered is one line, the others stay."""

from __future__ import annotations

import random
import re
from typing import Any

import mcp_types
import pytest

from mains.bus.listing import DEPTH_MAX, Listing, list_tools, tool_name, tools_of
from mains.bus.spec import DeviceSpec
from mains.settings import Settings

SETTINGS = Settings()


def listed(*tools: tuple[str, Any], description: str = "") -> Listing:
    """The listing of tools with these names and schemas."""
    given = [mcp_types.Tool(name=name, input_schema=schema, description=description) for name, schema in tools]
    return list_tools(given, SETTINGS)


def deep(levels: int) -> dict[str, Any]:
    """A schema with that many levels."""
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


GOOD = {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"type": "string"}}}


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (deep(DEPTH_MAX), "levels deep"),
        ({"type": "object", "$ref": "http://169.254.169.254/latest"}, "refers to something elsewhere"),
        ({"type": "object", "properties": {"a": {"$ref": "file:///etc/passwd"}}}, "refers to something elsewhere"),
        ({"type": "object", "properties": {"a": {"$dynamicRef": "https://h/x"}}}, "refers to something elsewhere"),
        ({"type": "array"}, "not that of an object"),
        ({"type": "object", "properties": {"a": {"type": "strnig"}}}, "no JSON Schema"),
        ({"type": "object", "required": "a"}, "no JSON Schema"),
        ({"type": "object", "properties": {"a": {"pattern": "("}}}, "no JSON Schema"),
        ({"type": "object", "enum": ["x" * 70_000]}, "at most 65,536 (device_schema_bytes_max)"),
        ({"type": "object", "$ref": "#/$defs/nowhere"}, "no JSON Schema"),
    ],
)
def test_a_bad_schema_costs_one_tool_and_says_why(schema: Any, said: str) -> None:
    listing = listed(("bad", schema), ("good", GOOD))
    assert [each.tool.name for each in listing.entries] == ["good"]
    (line,) = listing.left_out
    assert line.startswith("bad: ")
    assert said in line
    assert "\n" not in line


def test_a_schema_that_is_kept_is_kept_word_for_word() -> None:
    schema = {**GOOD, "$schema": "https://json-schema.org/draft/2020-12/schema", "x-of-theirs": [1, None]}
    assert listed(("a", schema)).entries[0].tool.parameters == schema


def test_names_are_safe_and_never_become_one() -> None:
    names = ["a.b", "a_b", "a b", "a/b", "\u0430_b", "a_b\u200b", "", "x" * 65, "x" * 64 + "y", "read-file"]
    listing = listed(*((name, {"type": "object"}) for name in names))
    safe = [each.tool.name for each in listing.entries]
    assert len(set(safe)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) for name in safe)
    assert [each.server_name for each in listing.entries] == names
    assert tool_name("a_b") == "a_b"
    assert listed(("a", GOOD), ("a", GOOD)).left_out == ("a: there is another `a`",)


def test_random_names_are_safe() -> None:
    chance = random.Random(7)
    for _ in range(300):
        name = "".join(chr(chance.randrange(1, 0x2FFF)) for _ in range(chance.randrange(1, 90)))
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", tool_name(name))


def test_a_description_is_bounded_and_has_no_hidden_characters() -> None:
    hidden = "Adds.\u202e\u200bIGNORE\x1b[2J" + "x" * 10_000
    shown = listed(("a", GOOD), description=hidden).entries[0].tool.description
    assert shown.startswith("Adds.\ufffd\ufffdIGNORE\ufffd[2J")
    assert len(shown) == 8 * 1024


@pytest.mark.parametrize(
    "hidden", ["\u200b", "\u202e", "\ufe01", "\U000e0141", "\U000e0101", "\u3164", "\u115f", "\u2800"]
)
def test_nothing_is_hidden_in_a_description_or_a_name(hidden: str) -> None:
    schema = {
        "type": "object",
        "description": f"a{hidden}b",
        "properties": {"a": {"title": f"c{hidden}", "const": hidden}},
    }
    (entry,) = listed(("a", schema), description=f"x{hidden}y").entries
    assert hidden not in entry.tool.description
    assert hidden not in entry.tool.parameters["description"] + entry.tool.parameters["properties"]["a"]["title"]
    assert entry.tool.parameters["properties"]["a"]["const"] == hidden  # what is checked is word for word
    alike = listed(("b", {"type": "object", "properties": {"path": {}, f"pa{hidden}th": {}}}))
    assert alike.left_out == ("b: a name in its schema has characters that nobody sees",)


def test_the_number_of_tools_is_bounded() -> None:
    listing = listed(*((f"t{n}", {"type": "object"}) for n in range(300)))
    assert len(listing.entries) == 256
    assert listing.left_out == ("all after the first 256 tools (device_tools_max)",)


def test_claims_become_facts_by_the_users_word_only() -> None:
    hints = mcp_types.ToolAnnotations(read_only_hint=True, idempotent_hint=True)
    tool = mcp_types.Tool(name="wipe", input_schema={"type": "object"}, annotations=hints)
    listing = list_tools([tool], SETTINGS)
    assert [(t.read_only, t.idempotent) for t in tools_of(listing, DeviceSpec(name="d"))] == [(False, False)]
    assert [(t.read_only, t.idempotent) for t in tools_of(listing, DeviceSpec(name="d", trust_hints=True))] == [
        (True, True)
    ]
    assert [(t.read_only, t.idempotent) for t in tools_of(listing, DeviceSpec(name="d", repeatable=("wipe",)))] == [
        (False, True)
    ]


def test_another_description_is_another_listing() -> None:
    assert listed(("a", GOOD), description="x").digest != listed(("a", GOOD), description="y").digest
    assert listed(("a", GOOD)).digest == listed(("a", GOOD)).digest
