"""Attacks on grants by themselves: arguments that mean something else than they say, and rules that are got round.

Each case is one attack; its name says which. None may be allowed by what limits it, or get past what forbids it.
"""

from __future__ import annotations

from typing import Any

import pytest

from mains.errors import UsageError
from mains.kernel.grants import Decision, Layer, Rule, approval, decide, unnamed
from mains.kernel.ports import Tool
from mains.kernel.verdict import Toolbox
from mains.program import Limits, ours, parse_grant, parse_limits

HOST, PATH, URL = "web.fetch(host=*.good.org)", "files.read(path=docs/*)", "x.y(url=https://*.good.org/pub/*)"


def limits(text: str) -> Limits:
    grant = ours(parse_grant(text))
    return parse_limits(grant.name, grant.arguments)


DODGES: dict[str, tuple[str, dict[str, Any]]] = {
    # one host that reads as another
    "user before the host": (HOST, {"url": "https://a.good.org@evil.org/"}),
    "password before the host": (HOST, {"url": "https://a.good.org:443@evil.org/"}),
    "backslash before the host": (HOST, {"url": "https://evil.org\\@a.good.org/"}),
    "backslash for a slash": (HOST, {"url": "https:\\\\evil.org\\a.good.org"}),
    "host in the query": (HOST, {"url": "https://evil.org?a.good.org"}),
    "host in the fragment": (HOST, {"url": "https://evil.org#a.good.org"}),
    "host as a folder": (HOST, {"url": "https://evil.org/a.good.org"}),
    "host as a beginning": (HOST, {"url": "https://a.good.org.evil.org/"}),
    "host as an ending": (HOST, {"url": "https://evilgood.org/"}),
    "no name before the dot": (HOST, {"url": "https://.good.org/"}),
    "empty label": (HOST, {"url": "https://a..good.org/"}),
    "two dots at the end": (HOST, {"url": "https://a.good.org../"}),
    "escape in the host": (HOST, {"url": "https://evil.org%2f.good.org/"}),
    "line end in the host": (HOST, {"url": "https://evil.org\n.good.org/"}),
    "tab in the host": (HOST, {"url": "https://evil\t.good.org/"}),
    "wide dot in the host": (HOST, {"url": "https://evil．org／.good.org/"}),  # noqa: RUF001
    "no scheme": (HOST, {"url": "a.good.org/x"}),
    "scheme without a host": (HOST, {"url": "https:a.good.org"}),
    "one slash": (HOST, {"url": "https:/a.good.org"}),
    "three slashes": (HOST, {"url": "https:///a.good.org"}),
    "a file": (HOST, {"url": "file://a.good.org/etc/passwd"}),
    "a script": (HOST, {"url": "javascript://a.good.org/%0aalert(1)"}),
    "data": (HOST, {"url": "data://a.good.org/,x"}),
    "six": (HOST, {"url": "https://[::1]/"}),
    "number for an address": ("web.fetch(host=*)".replace("*", "2130706433"), {"url": "http://2130706433/"}),
    "short address": ("web.fetch(host=127.*)", {"url": "http://127.1/"}),
    "octal address": ("web.fetch(host=0177.*)", {"url": "http://0177.0.0.1/"}),
    "hexadecimal address": ("web.fetch(host=0x7f*)", {"url": "http://0x7f.1/"}),
    "a second argument for the host": (HOST, {"url": "https://evil.org/", "host": "a.good.org"}),
    "a second URL": (HOST, {"url": ["https://a.good.org/", "https://evil.org/"]}),
    "a URL that is an object": (HOST, {"url": {"href": "https://a.good.org/"}}),
    "no URL": (HOST, {}),
    "nothing as a URL": (HOST, {"url": None}),
    "a secret as the host": (HOST, {"url": "https://{{secret:X}}.good.org/"}),
    # a star that leaves the host
    "star over the path": (URL, {"url": "https://evil.org/x.good.org/pub/y"}),
    "star over the query": (URL, {"url": "https://evil.org?x.good.org/pub/y"}),
    "star over the fragment": (URL, {"url": "https://evil.org#x.good.org/pub/y"}),
    "star over the user": (URL, {"url": "https://evil.org@x.good.org/pub/y"}),
    "star without a scheme": ("x.y(url=*.good.org/*)", {"url": "https://evil.org/x.good.org/y"}),
    "star for the scheme": ("x.y(url=*://good.org/*)", {"url": "https://evil.org?://good.org/y"}),
    "escaped step up in a URL": (URL, {"url": "https://a.good.org/pub/%2e%2e/secret"}),
    "half escaped step up": (URL, {"url": "https://a.good.org/pub/.%2E/secret"}),
    "twice escaped step up": (URL, {"url": "https://a.good.org/pub/%252e%252e/secret"}),
    "many times escaped": (URL, {"url": "https://a.good.org/pub/%2525252525252e./secret"}),
    "escaped slash": (URL, {"url": "https://a.good.org/pub/..%2fsecret"}),
    "escaped backslash": (URL, {"url": "https://a.good.org/pub/..%5csecret"}),
    "step up with a parameter": (URL, {"url": "https://a.good.org/pub/..;/secret"}),
    # a path that leads elsewhere
    "step up": (PATH, {"path": "docs/../secret"}),
    "step up at the end": (PATH, {"path": "docs/.."}),
    "step up by backslashes": (PATH, {"path": "docs\\..\\..\\secret"}),
    "wide dots": (PATH, {"path": "docs/．．/secret"}),  # noqa: RUF001
    "a dot that is two": (PATH, {"path": "docs/‥/secret"}),
    "dots and a blank": (PATH, {"path": "docs/.. /secret"}),
    "three dots": (PATH, {"path": "docs/.../secret"}),
    "escaped path": (PATH, {"path": "docs/%2e%2e/secret"}),
    "escaped zero": (PATH, {"path": "docs/%00../x"}),
    "an absolute rest": (PATH, {"path": "docs//etc/passwd"}),
    "another case": (PATH, {"path": "DOCS/x"}),
    "look-alike letters": (PATH, {"path": "dоcs/x"}),  # noqa: RUF001 - the o is Cyrillic
    "wide letters": (PATH, {"path": "ｄocs/x"}),  # noqa: RUF001
    "one good path of two": (PATH, {"path": ["docs/a", "etc/b"]}),
    "no path at all": (PATH, {}),
    "an empty list": (PATH, {"path": []}),
    "a list in a list": (PATH, {"path": [["docs/a"]]}),
    "another name of the argument": (PATH, {"Path": "docs/a"}),
    "a number as a text": ("x.y(n=1)", {"n": "1.0"}),
}


@pytest.mark.parametrize(("grant", "arguments"), DODGES.values(), ids=DODGES)
def test_no_argument_fits_a_limit_that_it_does_not_mean(grant: str, arguments: dict[str, Any]) -> None:
    assert not limits(grant).fit(arguments)


NO_PATH, NO_HOST = "files.write(path=secret/*)", "web.fetch(host=evil.org)"
SLIPS: dict[str, tuple[str, dict[str, Any]]] = {
    # what is forbidden, spelt otherwise
    "upper case": (NO_PATH, {"path": "SECRET/x"}),
    "a dot before": (NO_PATH, {"path": "./secret/x"}),
    "two slashes": (NO_PATH, {"path": "secret//x"}),
    "from the root": (NO_PATH, {"path": "/secret/x"}),
    "down and up": (NO_PATH, {"path": "docs/../secret/x"}),
    "backslash": (NO_PATH, {"path": "docs\\..\\secret\\x"}),
    "escaped": (NO_PATH, {"path": "%2e/secret/x"}),
    "wide letters": (NO_PATH, {"path": "ｓecret/x"}),  # noqa: RUF001
    "one of a list": (NO_PATH, {"path": ["docs/a", "secret/b"]}),
    "nothing": (NO_PATH, {}),
    "null": (NO_PATH, {"path": None}),
    "empty: all of it": (NO_PATH, {"path": ""}),
    "an object": (NO_PATH, {"path": {"x": 1}}),
    "the folder above": ("files.remove(path=a/secret/*)", {"path": "a"}),
    "a slash at the end": ("files.remove(path=secret)", {"path": "secret/"}),
    "a dot at the end": ("files.remove(path=secret)", {"path": "secret."}),
    "host in upper case": (NO_HOST, {"url": "HTTPS://EVIL.ORG/"}),
    "rule in upper case": ("web.fetch(host=Evil.Org)", {"url": "https://evil.org/"}),
    "rule with a dot at the end": ("web.fetch(host=evil.org.)", {"url": "https://evil.org/"}),
    "dot at the end": (NO_HOST, {"url": "https://evil.org./"}),
    "a port": (NO_HOST, {"url": "https://evil.org:8443/"}),
    "a user": (NO_HOST, {"url": "https://good.org@evil.org/"}),
    "a URL that nobody reads alike": (NO_HOST, {"url": "https://good.org\\@evil.org"}),
    "the address as a number": ("web.fetch(host=127.0.0.1)", {"url": "http://2130706433/"}),
    "the address in short": ("web.fetch(host=127.0.0.1)", {"url": "http://127.1/"}),
    "one URL of a list": (NO_HOST, {"url": ["https://good.org/", "https://evil.org/"]}),
    "another host beside": (NO_HOST, {"url": "https://evil.org/", "host": "good.org"}),
    "URL in upper case": ("x.y(url=https://evil.org/*)", {"url": "HTTPS://evil.ORG/x"}),
    "URL with its port": ("x.y(url=https://evil.org/*)", {"url": "https://evil.org:443/x"}),
    "URL with a user": ("x.y(url=https://evil.org/*)", {"url": "https://me@evil.org/x"}),
    "URL without a path": ("x.y(url=https://evil.org/*)", {"url": "https://evil.org"}),
    "number with a fraction": ("x.y(n=1)", {"n": 1.0}),
    "number with an exponent": ("x.y(n=100)", {"n": 1e2}),
    "a blank around": ("git.push(to=main)", {"to": " main "}),
    "another assistant's name": ("Write(./secret/**)", {"path": "secret/x"}),
}


@pytest.mark.parametrize(("rule", "arguments"), SLIPS.values(), ids=SLIPS)
def test_nothing_slips_past_a_rule_that_forbids(rule: str, arguments: dict[str, Any]) -> None:
    assert limits(rule).may_fit(arguments)


def test_who_forbids_little_does_not_forbid_all() -> None:
    for rule, arguments in ((NO_PATH, {"path": "docs/x"}), (NO_HOST, {"url": "https://good.org/a?b=c"})):
        assert not limits(rule).may_fit(arguments)
    assert limits(URL).fit({"url": "https://a.good.org/pub/x?y=100%25"})
    assert limits("x.y(url=https://*)").fit({"url": "https://a.org/x"})
    assert limits(PATH).fit({"path": "docs/a b.md"})


@pytest.mark.parametrize("text", ["x.y(host=münchen.de)", "x.y(rate=1/hour, rate=100/hour)", "x.y(host=.)"])
def test_a_limit_that_would_not_hold_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        limits(text)


def decided(grants: str, rules: list[tuple[Any, str]], arguments: dict[str, Any], **given: Any) -> Decision:
    book = [Rule(n, effect, parse_grant(text)) for n, (effect, text) in enumerate(rules, 1)]
    layer = Layer("p", 1, tuple(map(parse_grant, grants.split())))
    return decide("web.fetch", arguments, [layer], book, **{"leak": "a result of web.fetch", **given})


TO_A = {"url": "https://a.org/", "title": "x"}
LEAKS: dict[str, tuple[str, str]] = {
    "a star is no destination": ("web.fetch(host=*)", "web.fetch(host=*)"),
    "the program names none": ("web.fetch", "web.fetch(host=a.org)"),
    "its star names none": ("web.fetch(host=*)", "web.fetch(host=a.org)"),
    "the rule names none": ("web.fetch(host=a.org)", "web.fetch"),
    "the rule's star names none": ("web.fetch(host=a.org)", "web.fetch(host=*)"),
    "a URL of any host": ("web.fetch(url=https://*)", "web.fetch(url=https://*)"),
    "dots and stars": ("web.fetch(host=*.*)", "web.fetch(host=*.*)"),
    "another argument of the rule": ("web.fetch(host=a.org)", "web.fetch(title=x)"),
    "another argument of the program": ("web.fetch(title=x)", "web.fetch(host=a.org)"),
    "another host": ("web.fetch(host=b.org)|web.fetch", "web.fetch(host=b.org)"),
    "no rule at all": ("web.fetch(host=a.org)", ""),
}


@pytest.mark.parametrize(("grants", "rule"), LEAKS.values(), ids=LEAKS)
def test_what_was_read_gets_nowhere_that_program_and_user_have_not_both_named(grants: str, rule: str) -> None:
    found = decided(grants.replace("|", " "), [("allow", rule)] if rule else [], TO_A)
    assert (found.effect, found.by) == ("ask", "it can send data out, and the process has read a result of web.fetch")


def test_where_both_name_the_same_nobody_is_asked() -> None:
    for grants, rule in (
        ("web.fetch(host=a.org)", "web.fetch(host=*.org|a.org)"),
        ("web.fetch(url=https://a.org/*)", "web.fetch(host=a.org)"),
    ):
        assert decided(grants, [("allow", rule)], TO_A).effect == "allow"


def test_what_was_allowed_before_something_was_read_is_asked_about_again() -> None:
    before, asked = decided("web.fetch", [], TO_A, attached=True, leak=""), decided("web.fetch", [], TO_A)
    early, late = approval("web.fetch", before.by), approval("web.fetch", asked.by)
    assert (before.effect, asked.effect) == ("ask", "ask")
    assert decided("web.fetch", [], TO_A, approved=(early,)).effect == "ask"
    assert decided("web.fetch", [], TO_A, approved=(late,)).effect == "allow"
    assert decided("web.fetch", [("ask", "web.fetch")], TO_A, attached=True).by == asked.by, "the graver reason is said"


def test_a_grant_that_cannot_be_read_grants_nothing() -> None:
    found = decided("web.fetch(somewhere)", [], TO_A)
    assert (found.effect, found.why) == (
        "deny", "web.fetch is granted only with web.fetch(somewhere), which cannot be read",
    )  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [
        {"url": "https://a.org/{{secret:KEY}}"},
        {"url": "https://a.org/", "headers": [{"x": "{{ secret: KEY }}"}]},
        {"a": {"b": {"c": ["{{secret:NAMED}}", "{{\tsecret:KEY\t}}"]}}},
    ],
)
def test_a_secret_that_the_program_does_not_name_is_seen(arguments: dict[str, Any]) -> None:
    assert unnamed(arguments, "Log in with {{secret:NAMED}}, never with KEY or {{secret:KEY2}}.") == ["KEY"]
    assert unnamed(arguments, "{{secret:NAMED}} {{secret:KEY}}") == []


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "SITE/a"},
        {"$id": "SITE/b/", "$ref": "c"},
        {"$dynamicRef": "SITE/d"},
        {"properties": {"a": {"$schema": "SITE/e", "$id": "http://x/y", "$ref": "#"}}},
        {"$ref": "file:///etc/hostname"},
    ],
)
def test_no_schema_makes_us_fetch_anything(schema: dict[str, Any]) -> None:
    import json
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        text = json.dumps(schema).replace("SITE", f"http://127.0.0.1:{server.getsockname()[1]}")
        box = Toolbox((Tool("x.y", "", json.loads(text)),), json.loads(text))
        for name in ("x.y", ""):
            fault = box.fault_of(name, {"a": 1})
            assert "$schema" in text or fault.startswith("the schema itself cannot be used")
        with pytest.raises(BlockingIOError):
            server.accept()
