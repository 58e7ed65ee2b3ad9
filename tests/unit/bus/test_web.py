"""The device `web`: what it fetches, how it tells it, and what mains.toml says it may."""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.bus.sites import OPEN, Door, door, fetched, reply, rules, settings

from mains.bus.devices import page
from mains.bus.devices.address import literal, why_not
from mains.bus.devices.refused import Refused
from mains.bus.devices.web import Web
from mains.bus.devices.webrules import Rules, read_rules, target_of
from mains.errors import ConfigError
from mains.kernel.ports import Done, Failed

PAGE = b"""<!doctype html><html><head><title>A  page &amp; more</title><script>steal()</script><style>p{}</style></head>
<body><!-- not shown --><nav><a href="/home">Home</a></nav><h1>Head</h1><p>Some <b>bold</b> words.</p>
<p hidden>not shown</p><p style="display:none">not shown</p><ul><li>one<li>two</ul><noscript>not shown</noscript>
<table><tr><th>A<th>B<tr><td>1<td>2</table><pre>code
  indented</pre></body></html>"""

ANSWERS: dict[str, bytes] = {
    "/page": reply(PAGE, kind="text/html; charset=utf-8"),
    "/plain?q=a%20b": reply("größe\r\nzwei\x07".encode()),
    "/json": reply(b'{"a": 1}', kind="application/json"),
    "/latin": reply("größe".encode("latin-1"), kind="text/plain; charset=ISO-8859-1"),
    "/meta": reply("<meta charset='windows-1251'><p>привет".encode("cp1251"), kind="text/html"),
    "/bom": reply("größe".encode("utf-16"), kind="text/plain"),
    "/odd": reply(b"plain", kind="text/plain; charset=unicode_escape"),
    "/gzip": reply(gzip.compress(b"packed"), more="Content-Encoding: gzip\r\n"),
    "/deflate": reply(zlib.compress(b"packed"), more="Content-Encoding: deflate\r\n"),
    "/raw": reply(zlib.compress(b"packed")[2:-4], more="Content-Encoding: deflate\r\n"),
    "/empty": reply(b""),
    "/moved": reply(status="302 Found", more="Location: /page?x#part\r\n"),
    "/page?x": reply(b"arrived"),
    "/away": reply(status="301 Moved Permanently", more="Location: http://elsewhere.example/there\r\n"),
    "/gone": reply(b"no", status="404 Not Found"),
}


@pytest.fixture
async def site() -> AsyncIterator[Door]:
    async def answer(writer: asyncio.StreamWriter, path: str) -> None:
        writer.write(ANSWERS[path])

    async with door(OPEN, answer) as at:
        yield at


async def test_html_becomes_markdown_and_what_no_browser_shows_is_left_out(site: Door) -> None:
    answer = await fetched(Web(lambda: rules("*:*"), settings()), f"http://{OPEN}:{site.port}/page")
    assert isinstance(answer, Done), answer
    head, _, text = answer.text.partition("\n\n")
    assert head == f"[http://{OPEN}:{site.port}/page: A page & more]"
    for part in ("# Head", "**bold**", "- one", "| A", "  indented"):
        assert part in text, text
    for part in ("steal", "not shown", "p{}", "display"):
        assert part not in text, text


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/plain?q=a%20b", "größe\nzwei"), ("/json", '{"a": 1}'), ("/latin", "größe"), ("/meta", "привет"),
        ("/bom", "größe"), ("/odd", "plain"), ("/gzip", "packed"), ("/deflate", "packed"), ("/raw", "packed"),
        ("/empty", "(no text)"), ("/moved", "arrived"),
    ],
)  # fmt: skip
async def test_text_comes_whole(site: Door, path: str, text: str) -> None:
    answer = await fetched(Web(lambda: rules("*:*"), settings()), f"http://{OPEN}:{site.port}{path}")
    assert isinstance(answer, Done), answer
    assert answer.text.partition("\n\n")[2] == text


async def test_what_is_no_page_is_told_in_a_line(site: Door) -> None:
    place = f"http://{OPEN}:{site.port}"
    for path, part in (("/gone", "404 Not Found"), ("/away", "redirects to another host; fetch http://elsewhere")):
        answer = await fetched(Web(lambda: rules("*:*"), settings()), place + path)
        assert isinstance(answer, Failed)
        assert part in answer.text


async def test_nothing_of_this_machine_is_sent(site: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy, no cookie, no key of the environment."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("NETRC", "/dev/null")
    assert isinstance(await fetched(Web(lambda: rules("*:*"), settings()), f"http://{OPEN}:{site.port}/json"), Done)
    names = {line.partition(":")[0].lower() for line in site.asked[-1].splitlines()[1:] if line}
    assert names <= {"host", "user-agent", "accept", "accept-encoding", "connection"}


async def test_by_default_no_host_is_allowed_and_a_change_needs_no_restart(site: Door) -> None:
    url = f"http://{OPEN}:{site.port}/json"
    answer = await fetched(Web(Rules, settings()), url)
    assert isinstance(answer, Failed)
    assert "[web] of mains.toml" in answer.text
    allowed = [Rules(), rules(f"{OPEN}:{site.port}")]
    web = Web(lambda: allowed.pop(0), settings())
    assert isinstance(await fetched(web, url), Failed)
    assert isinstance(await fetched(web, url), Done)
    assert site.visits == 1


async def test_a_broken_mains_toml_is_a_refusal() -> None:
    def broken() -> Rules:
        raise ConfigError("line 3")

    answer = await fetched(Web(broken, settings()), "http://example.org/")
    assert answer == Failed("mains.toml cannot be used: line 3")


@pytest.mark.parametrize(
    ("hosts", "url", "allowed"),
    [
        (["example.org"], "https://example.org/x", True),
        (["example.org"], "HTTPS://EXAMPLE.ORG./x", True),
        (["example.org"], "https://www.example.org/", False),
        (["example.org"], "https://example.org.evil.net/", False),
        (["example.org"], "https://example.org:8443/", False),
        (["example.org:8443"], "https://example.org:8443/", True),
        (["example.org:8443"], "https://example.org/", False),
        (["example.org:*"], "https://example.org:1/", True),
        (["*.example.org"], "https://a.b.example.org/", True),
        (["*.example.org"], "https://example.org/", False),
        (["*.example.org"], "https://evilexample.org/", False),
        (["*"], "http://anything.example/", True),
        (["*"], "http://anything.example:22/", False),
        (["bücher.example"], "https://xn--bcher-kva.example/", True),
        (["xn--bcher-kva.example"], "https://BÜCHER.example/", True),
        (["[2606:4700::1]"], "https://[2606:4700:0::1]/", True),
        (["93.184.215.14"], "https://93.184.215.14/", True),
        ([], "https://example.org/", False),
    ],
)
def test_the_list_of_hosts(hosts: list[str], url: str, allowed: bool) -> None:
    found = read_rules({"web": {"hosts": hosts}}, "mains.toml")
    try:
        target_of(url, found)
    except Refused as error:
        assert not allowed, error
        assert "\n" not in str(error)
    else:
        assert allowed


@pytest.mark.parametrize(
    "web",
    [
        [], {"host": []}, {"hosts": "example.org"}, {"hosts": [1]}, {"hosts": ["http://x"]}, {"hosts": ["a b"]},
        {"hosts": ["*.*"]}, {"hosts": ["a*b"]}, {"hosts": [""]}, {"hosts": ["user@host"]}, {"hosts": ["0x7f.1"]},
        {"private": ["10.0.0.1/8"]}, {"private": ["home"]}, {"hosts": ["a:b"]}, {"hosts": ["*.*.org"]},
    ],
)  # fmt: skip
def test_a_mistake_in_the_table_is_named(web: object) -> None:
    with pytest.raises(ConfigError, match=r"mains\.toml"):
        read_rules({"web": web}, "mains.toml")


@given(st.integers(0, 2**32 - 1))
def test_no_ipv4_address_that_python_calls_private_is_public(number: int) -> None:
    address = ipaddress.IPv4Address(number)
    if not address.is_global or address.is_multicast or address.is_reserved:
        assert why_not(address), address
        assert why_not(ipaddress.IPv6Address(f"::ffff:{address}"))
        assert why_not(ipaddress.IPv6Address((0x64FF9B << 96) | number))


@given(st.integers(0, 2**128 - 1))
def test_no_ipv6_address_that_python_calls_private_is_public(number: int) -> None:
    address = ipaddress.IPv6Address(number)
    if not address.is_global or address.is_multicast or address.is_reserved:
        assert why_not(address), address


def test_public_addresses_are_public_and_private_can_be_allowed() -> None:
    for text in ("93.184.215.14", "8.8.8.8", "2606:4700::1", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8"):
        assert why_not(ipaddress.ip_address(text)) == "", text
    allowed = [ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("169.254.0.0/16")]
    assert why_not(ipaddress.ip_address("10.1.2.3"), allowed) == ""
    assert why_not(ipaddress.ip_address("10.2.2.3"), allowed) == "private"
    assert why_not(ipaddress.ip_address("169.254.169.254"), allowed)
    assert literal("example.org") is None


async def test_a_parser_that_breaks_is_a_refusal_and_leaves_no_child(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    child = tmp_path / "htmlchild.py"
    child.write_text("import os, sys\nsys.stdin.read()\nos.abort()\n")
    monkeypatch.setattr(page, "__file__", str(tmp_path / "page.py"))
    with pytest.raises(page.PageError):
        await page.markdown_of("<p>x", 1_000)
    child.write_text("while True:\n    print('x' * 10_000)\n")
    with pytest.raises(page.PageError):
        await page.markdown_of("<p>x", 1_000)
    child.write_text("import signal\nsignal.pause()\n")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await page.markdown_of("<p>x", 1_000)
