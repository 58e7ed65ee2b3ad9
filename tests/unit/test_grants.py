"""Limits of grants and how grants and rules decide, by themselves."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mains.errors import UsageError
from mains.kernel.grants import Decision, Layer, Rule, decide, offered
from mains.kernel.ports import Tool
from mains.program import ToolGrant, ours, parse_grant, parse_limits


def limits(text: str) -> Any:
    grant = parse_grant(text)
    return parse_limits(grant.name, grant.arguments)


@pytest.mark.parametrize(
    ("grant", "arguments", "fits"),
    [
        ("web.fetch(host=*.example.org)", {"url": "https://a.example.org/x"}, True),
        ("web.fetch(host=*.example.org)", {"url": "https://A.EXAMPLE.ORG./x"}, True),
        ("web.fetch(host=*.example.org)", {"url": "https://example.org/x"}, False),
        ("web.fetch(host=*.example.org)", {"url": "https://a.example.org.evil.com/"}, False),
        ("web.fetch(host=*.example.org)", {"url": "https://evil.com/?a.example.org"}, False),
        ("web.fetch(host=*.example.org)", {"url": "https://a.example.org@evil.com/"}, False),
        ("web.fetch(host=*.example.org)", {"url": "https://evil.com\\@a.example.org/"}, False),
        ("web.fetch(host=*.example.org)", {"url": "https://evil.com#.example.org"}, False),
        ("web.fetch(host=*.example.org)", {"url": "https://evil.com\n.example.org/"}, False),
        ("web.fetch(host=a.org|b.org)", {"url": "http://b.org:8080/"}, True),
        ("web.fetch(host=a.org|b.org)", {"url": 7}, False),
        ("web.fetch(host=a.org|b.org)", {}, False),
        ("x.y(host=a.org)", {"host": "a.org", "url": "http://b.org"}, False),
        ("files.read(path=docs/*)", {"path": "docs/a/b.md"}, True),
        ("files.read(path=docs/*)", {"path": "docs/../secret"}, False),
        ("files.read(path=docs/*)", {"path": "docs/./../../secret"}, False),
        ("files.read(path=docs/*)", {"path": "docs\\..\\secret"}, False),
        ("files.read(path=docs/*)", {"path": "docs//etc"}, False),
        ("files.read(path=docs/*)", {"path": "docs"}, False),
        ("files.read(path=docs/*)", {"path": "DOCS/a"}, False),
        ("files.read(path=docs/*)", {"path": ["docs/a", "docs/b"]}, True),
        ("files.read(path=docs/*)", {"path": ["docs/a", "etc/b"]}, False),
        ("files.read(path=docs/*)", {"path": []}, False),
        ("files.read(path=docs/*)", {"path": {"docs/": 1}}, False),
        ("files.read(path=docs/*)", {"path": None}, False),
        ("x.y(n=1*, flag=true)", {"n": 17, "flag": True}, True),
        ("x.y(n=1*, flag=true)", {"n": 27, "flag": True}, False),
        ("x.y(n=*)", {"n": "anything .. at // all"}, True),
        ("x.y(n=*)", {}, False),
        ("x.y(q=a.c)", {"q": "abc"}, False),
        ("x.y(url=https://a.org/*)", {"url": "https://a.org/x/y"}, True),
        ("x.y(url=https://a.org/*)", {"url": "https://a.org/../y"}, False),
    ],
)
def test_what_fits_a_limit(grant: str, arguments: dict[str, Any], fits: bool) -> None:
    assert limits(grant).fit(arguments) == fits


@pytest.mark.parametrize(
    "text",
    ["x.y(rate=5)", "x.y(rate=5/week)", "x.y(rate=0/hour)", "x.y(rate=9999999/hour)", "x.y(a=)", "x.y(a=|b)", "x.y(?)"],
)
def test_what_is_no_limit_is_said(text: str) -> None:
    with pytest.raises(UsageError, match=r"x\.y"):
        limits(text)


@given(st.text(), st.text())
def test_no_text_makes_a_limit_break(pattern: str, value: str) -> None:
    try:
        made = parse_limits("x.y", (f"a={pattern}", "host=*.org"))
    except UsageError:
        return
    made.fit({"a": value, "url": value})
    made.may_fit({"a": value, "url": value})


@given(st.text(alphabet="ab./\\", max_size=12))
def test_what_a_folder_is_limited_to_is_below_it(path: str) -> None:
    import posixpath

    if limits("files.read(path=a/*)").fit({"path": path}):
        assert posixpath.normpath(path.replace("\\", "/")).startswith("a/") or path == "a/"


def test_grants_of_coding_assistants_are_ours() -> None:
    assert str(ours(parse_grant("Read(./docs/**)"))) == "files.read(path=docs/*)"
    assert str(ours(parse_grant("WebFetch(domain:example.org)"))) == "web.fetch(host=example.org|*.example.org)"
    assert [ours(ToolGrant(name)).name for name in ("Write", "Edit", "Glob", "Grep")] == [
        "files.write", "files.edit", "files.find", "files.search",
    ]  # fmt: skip
    assert ours(parse_grant("Bash(git log:*)")).name == "Bash"


def decision(tool: str, *layers: str, rules: tuple[tuple[str, str], ...] = (), **given: Any) -> Decision:
    made = [Layer("p", 1, tuple(parse_grant(text) for text in layer.split())) for layer in layers]
    book = [Rule(n, effect, parse_grant(text)) for n, (effect, text) in enumerate(rules, 1)]  # type: ignore[arg-type]
    options: dict[str, Any] = {"attached": False, "approved": (), **given}
    arguments = options.pop("arguments", {})
    return decide(tool, arguments, made, book, **options)


def test_deny_goes_before_ask_and_ask_before_allow() -> None:
    assert decision("git.push", "git.*").effect == "allow"
    assert decision("git.push", "git.*", attached=True).effect == "ask"
    allow, ask, deny = ("allow", "git.*"), ("ask", "git.push"), ("deny", "git")
    assert decision("git.push", "git.*", rules=(allow,), attached=True).effect == "allow"
    assert decision("git.push", "git.*", rules=(allow, ask), attached=True).effect == "ask"
    assert decision("git.push", "git.*", rules=(allow, ask, deny), attached=True) == Decision(
        "deny", "rule 3", "git.push is forbidden here (rule 3)"
    )
    assert (
        decision("git.push", "git.*", rules=(allow, ask, deny), attached=True, approved=("git.push",)).effect == "deny"
    )
    assert decision("git.push", "git.*", rules=(ask,), approved=("git.push",)).effect == "allow"
    assert decision("git.log", "git.*", rules=(ask,)).effect == "allow"


def test_a_child_has_no_more_than_those_above_it() -> None:
    assert decision("files.write", "files.*", "files.write").effect == "allow"
    assert decision("files.write", "files.read", "files.*").effect == "deny"
    assert decision("files.write", "spawn(child)", "files.*").effect == "deny"
    inside = decision("files.write", "files.*(path=docs/*)", "files.write", arguments={"path": "docs/a"})
    assert inside.effect == "allow"
    found = decision("files.write", "files.*(path=docs/*)", "files.write", arguments={"path": "etc/a"})
    assert (found.effect, found.why) == ("deny", "files.write is granted only with path=docs/*")


def test_a_rule_against_something_also_holds_where_it_is_unclear() -> None:
    rules = (("deny", "web.fetch(host=evil.org)"),)
    for url, effect in (("http://good.org/", "allow"), ("http://evil.org/", "deny"), ("http://a@evil.org/", "deny")):
        assert decision("web.fetch", "web.fetch", rules=rules, arguments={"url": url}).effect == effect


def test_one_of_several_grants_is_enough_and_the_freest_counts() -> None:
    assert decision("a.b", "a.b(ask) a.b").effect == "allow"
    assert decision("a.b", "a.b(ask)").effect == "ask"
    assert decision("a.b", "a.b(ask)", rules=(("allow", "a.b"),)).effect == "ask", "the program itself wants it so"
    assert decision("a.b", "a.b(ask)", approved=("a.b",)).effect == "allow"


def test_a_child_is_offered_what_all_above_it_were_granted() -> None:
    tools = [Tool(name, "", {}) for name in ("files.read", "files.write", "git.log")]
    own = tuple(parse_grant(text) for text in ("files.read", "git.*", "Write"))
    layers = [Layer("above", 1, (parse_grant("files.*"),)), Layer("own", 2, own)]
    found, missing = offered(layers, {}, tools)
    assert [tool.name for tool in found] == ["files.read", "files.write"]
    assert missing == ("git.*",)
