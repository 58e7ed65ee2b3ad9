"""Forms of devices: what a person reads of a stranger's words, and which answers fit."""

from __future__ import annotations

from typing import Any

import pytest

from mains.errors import UsageError
from mains.kernel.form import Words, answer_of, asked, form_of, page_of, quoted


def fields(**properties: dict[str, Any]) -> Any:
    """A form with these properties, all of them required."""
    return form_of({"type": "object", "properties": properties, "required": list(properties)})


TEXT: dict[str, Any] = {"type": "string"}
YES: dict[str, Any] = {"type": "boolean"}
SEVERAL: dict[str, Any] = {"type": "array", "items": {"anyOf": [{"const": "a"}, {"const": "b"}]}, "maxItems": 2}


@pytest.mark.parametrize(
    ("form", "text", "values"),
    [
        (fields(name=TEXT), "Ann Lee", {"name": "Ann Lee"}),
        (fields(name=TEXT), 'name="decline"', {"name": "decline"}),
        (fields(name=TEXT), "accept", {"name": "accept"}),
        (fields(ok=YES), "no", {"ok": False}),
        (fields(ok=YES, name=TEXT), "ok=TRUE name=x=y", {"ok": True, "name": "x=y"}),
        (fields(name=TEXT), "[" * 100_000, {"name": "[" * 100_000}),
        (fields(some=SEVERAL), "a, b", {"some": ["a", "b"]}),
        (fields(n={"type": "number"}), "-1.5e3", {"n": -1500.0}),
        (fields(n={"type": "integer"}), '{"n": 7}', {"n": 7}),
        (fields(), "accept", {}),
        (form_of({"properties": {"a": TEXT | {"default": "x"}, "b": YES}}), "accept", {"a": "x"}),
    ],
)
def test_answers_that_fit(form: Any, text: str, values: dict[str, Any]) -> None:
    assert answer_of(form, text) == values


@pytest.mark.parametrize(
    ("form", "text", "fault"),
    [
        (fields(name=TEXT, ok=YES), "Ann", 'what is "Ann"'),
        (fields(ok=YES), "maybe", "`ok` does not fit"),
        (fields(name=TEXT | {"enum": ["a", "b"]}), "c", "`name` does not fit"),
        (fields(some=SEVERAL), "a,c", "`some` does not fit"),
        (fields(n={"type": "integer", "maximum": 3}), "4", "`n` does not fit"),
        (fields(n={"type": "integer"}), "1.5", "`n` does not fit"),
        (fields(day=TEXT | {"format": "date"}), "tomorrow", "`day` does not fit"),
        (fields(name=TEXT | {"pattern": "^[a-z]+$"}), "A1", "`name` does not fit"),
        (fields(name=TEXT), '{"other": 1}', 'there is no field "other"'),
        (fields(name=TEXT), '{"name": ', "is no JSON"),
        (fields(name=TEXT), "", "`name` is missing"),
        (fields(ok=YES), "1", "`ok` does not fit"),
        (fields(name=TEXT), '{"name":' + "[" * 100_000, "is no JSON"),
    ],
)
def test_answers_that_do_not_fit(form: Any, text: str, fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        answer_of(form, text)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array"},
        {"properties": {"a": {"type": "object"}}},
        {"properties": {"a": {"$ref": "http://127.0.0.1:9/x"}}},
        {"properties": {"a": "string"}},
        {"properties": {"a\u202eb": TEXT}},
        {"properties": {"a": TEXT}, "required": ["b"]},
        {"properties": {"a": TEXT | {"enum": ["x\n\x1b[2J"]}}},
        {"properties": {"a": TEXT | {"enum": []}}},
        {"properties": {"a": {"type": "array", "items": TEXT}}},
        {"properties": {"a": TEXT | {"pattern": "(a"}}},
        {"properties": {"a": TEXT | {"pattern": "(?=a)"}}},
        {"properties": {"a": TEXT | {"pattern": "x" * 2_000}}},
        {"properties": {f"f{n}": TEXT for n in range(33)}},
    ],
)
def test_what_is_no_flat_form(schema: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        form_of(schema)


def test_a_pattern_cannot_hold_up_the_kernel() -> None:
    form = fields(name=TEXT | {"pattern": "^(a+)+$"})
    with pytest.raises(UsageError, match="does not fit"):
        answer_of(form, "a" * 50_000 + "b")


def test_a_stranger_cannot_close_the_quotation() -> None:
    text = '" Mains asks for your password. \x1b[31m\nprocess 1 asks: "\u202e\u200b' + "x" * 5_000
    told = asked("box", Words(text, {"properties": {"a": TEXT | {"title": '"), or your password'}}}))
    ours, _, theirs = told.partition('Its words: "')
    assert theirs.count('"') == 1
    assert theirs.endswith('..."')
    assert ours.count('"') == 2
    assert told.isprintable()
    assert len(told) < 1_300


@pytest.mark.parametrize(
    "url",
    ["", "javascript:alert(1)", "file:///etc/passwd", "https://", "http://[::1", "https://good.org\\@evil.org/",
     "https://x.org/" + "y" * 2_000, "https://x.org:99999/", "https://" + "\u0451" * 70 + ".org/"],
)  # fmt: skip
def test_what_is_no_page(url: str) -> None:
    with pytest.raises(UsageError):
        page_of(url)


def test_the_host_of_a_page_is_the_one_that_is_reached() -> None:
    assert page_of("https://good.org@evil.org/good.org") == ("https://good.org@evil.org/good.org", "evil.org")
    assert page_of("https://\u0430pple.com/") == ("https://\u0430pple.com/", "xn--pple-43d.com")
    assert page_of("https://x.org/\r\na\x1b\u202e b")[0] == "https://x.org/ab"


def test_half_characters_are_no_harm() -> None:
    assert quoted("a\ud800b") == '"a?b"'
