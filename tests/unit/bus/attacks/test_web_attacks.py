"""Attacks on the device `web`, on real sockets: none gets through, and each answer is one clear line."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import unicodedata
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.unit.bus.attacks.answers import REFUSED, SERVED
from tests.unit.bus.sites import OPEN, SHUT, Door, door, fetched, reply, rules, settings

from mains.bus.devices.web import Web
from mains.kernel.ports import Done, Failed

SECRET = "the secret of this machine"
ADDRESSES = json.loads((Path(__file__).parent / "addresses.json").read_text())
LINE_MAX = 1_000


def refused(answer: Done | Failed) -> str:
    """The one clear line of a refusal."""
    assert isinstance(answer, Failed), answer
    assert SECRET not in answer.text
    assert 0 < len(answer.text) <= LINE_MAX, answer.text
    assert all(unicodedata.category(each) not in ("Cc", "Cs", "Zl", "Zp") for each in answer.text), answer.text
    return answer.text


@pytest.fixture
async def canary() -> AsyncIterator[Door]:
    """A server of this machine; at the end nobody has been there."""

    async def answer(writer: Any, _: str) -> None:
        writer.write(reply(SECRET.encode()))

    async with door(SHUT, answer) as shut:
        yield shut
    assert shut.visits == 0, shut.asked


@pytest.fixture
async def site(canary: Door) -> AsyncIterator[Door]:
    """A server that may be reached, and answers as it likes."""

    async def answer(writer: Any, path: str) -> None:
        name = path.lstrip("/").partition("?")[0]
        if name:
            act = REFUSED[name][0] if name in REFUSED else SERVED[name]
            await act(writer, f"{OPEN} {at.port} {canary.port}")

    async with door(OPEN, answer) as at:
        yield at


def looks_up(*answers: Sequence[str]) -> Any:
    """A resolver of the attacker's own: the first answer first, the last again and again. `asked` counts."""

    async def look_up(host: str, port: int) -> Sequence[str]:
        look_up.asked += 1  # type: ignore[attr-defined]
        return answers[min(look_up.asked, len(answers)) - 1]  # type: ignore[attr-defined]

    look_up.asked = 0  # type: ignore[attr-defined]
    return look_up


@pytest.mark.parametrize("url", ADDRESSES["urls"], ids=lambda url: ascii(url)[:60])
async def test_no_spelling_reaches_what_is_not_public(canary: Door, url: str) -> None:
    web = Web(lambda: rules("*:*", private=()), settings(web_timeout_s=3.0))
    refused(await fetched(web, url.replace("PORT", str(canary.port))))


@pytest.mark.parametrize("url", ADDRESSES["urls"], ids=lambda url: ascii(url)[:60])
async def test_no_spelling_slips_past_the_list_of_hosts(canary: Door, url: str) -> None:
    web = Web(lambda: rules("example.org:*", "*.example.org:*"), settings(), looks_up([OPEN]))
    refused(await fetched(web, url.replace("PORT", str(canary.port))))


async def test_an_address_without_an_end_is_refused(canary: Door) -> None:
    for start in ADDRESSES["long"]:
        url = start.replace("PORT", str(canary.port)) + "x" * 1_000_000
        assert "4,096" in refused(await fetched(Web(lambda: rules("*:*"), settings()), url))


@pytest.mark.parametrize("address", ADDRESSES["answers"])
async def test_no_name_that_leads_to_private_space_is_reached(canary: Door, site: Door, address: str) -> None:
    """Alone, and hidden behind or before an address that may be reached."""
    for found in ([address], [OPEN, address], [address, OPEN], [OPEN] * 20 + [address]):
        web = Web(lambda: rules("*:*"), settings(), looks_up(found))
        refused(await fetched(web, f"http://innocent.example:{canary.port}/gone"))
    assert site.visits == 0


async def test_a_name_that_changes_its_mind_is_looked_up_once_for_each_request(canary: Door, site: Door) -> None:
    """DNS rebinding: the first look gives an address that may be reached, every later one this machine."""
    look_up = looks_up([OPEN], [SHUT])
    answer = await fetched(Web(lambda: rules("*:*"), settings(), look_up), f"http://evil.example:{site.port}/controls")
    assert isinstance(answer, Done)
    assert (look_up.asked, site.visits) == (1, 1)


async def test_a_redirect_to_a_name_that_changed_its_mind_is_refused(canary: Door, site: Door) -> None:
    look_up = looks_up([OPEN], [SHUT])
    web = Web(lambda: rules("*:*"), settings(), look_up)
    assert "this machine" in refused(await fetched(web, f"http://evil.example:{site.port}/loop"))
    assert (look_up.asked, site.visits) == (2, 1)


async def test_a_resolver_that_breaks_hangs_or_floods_is_a_refusal(canary: Door) -> None:
    async def breaks(host: str, port: int) -> Sequence[str]:
        raise OSError(-2, "Name or service not known")

    async def cannot(host: str, port: int) -> Sequence[str]:
        raise UnicodeError("label empty or too long")

    async def hangs(host: str, port: int) -> Sequence[str]:
        await asyncio.get_running_loop().create_future()
        return []

    for look_up, part in (
        (breaks, "no such host"),
        (cannot, "no such host"),
        (hangs, "within"),
        (looks_up([]), "no such"),
    ):
        web = Web(lambda: rules("*:*"), settings(web_timeout_s=0.3), look_up)
        assert part in refused(await fetched(web, "http://evil.example/"))


@pytest.mark.parametrize("name", REFUSED)
async def test_no_answer_of_a_server_gets_through(site: Door, name: str) -> None:
    part = REFUSED[name][1]
    limit_s = 0.5 if part == "within" else 20.0
    web = Web(lambda: rules("*:*", private=[f"{OPEN}/32"]), settings(web_timeout_s=limit_s))
    line = refused(await fetched(web, f"http://{OPEN}:{site.port}/{name}"))
    assert part in line, line
    assert site.visits <= settings().web_redirects_max + 1


@pytest.mark.parametrize("name", SERVED)
async def test_text_comes_clean_and_within_bounds(site: Door, name: str) -> None:
    answer = await fetched(Web(lambda: rules("*:*"), settings(web_timeout_s=20.0)), f"http://{OPEN}:{site.port}/{name}")
    if isinstance(answer, Failed):  # a parser that gave up: in one line
        assert "no text can be made" in refused(answer) or "larger than" in answer.text
        return
    answer.text.encode()
    assert len(answer.text) <= 250_000
    head = answer.text.partition("\n\n")[0]
    assert len(head) <= 600
    assert "\n" not in head
    assert all(each in "\n\t" or unicodedata.category(each) != "Cc" for each in answer.text)
    assert "evil" not in answer.text


async def test_a_certificate_that_nobody_vouches_for_is_refused(canary: Door, tmp_path: Path) -> None:
    import shutil

    if shutil.which("openssl") is None:
        pytest.skip("no openssl here: certificates of our own cannot be made")
    for subject in ("/CN=evil.example", f"/CN={OPEN}"):
        make = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", subject)
        files = ("-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "crt"))
        await asyncio.to_thread(subprocess.run, [*make, *files], check=True, capture_output=True)
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(tmp_path / "crt", tmp_path / "key")

        async def answer(writer: Any, _: str) -> None:
            writer.write(reply(b"served"))

        async with door(OPEN, answer, tls) as at:
            web = Web(lambda: rules("*:*"), settings(), looks_up([OPEN]))
            assert "certificate" in refused(await fetched(web, f"https://evil.example:{at.port}/"))
            assert at.asked == []


def test_there_are_enough_of_them() -> None:
    assert len(ADDRESSES["urls"]) + len(ADDRESSES["answers"]) + len(REFUSED) + len(SERVED) >= 300
    assert len(set(ADDRESSES["urls"])) == len(ADDRESSES["urls"])
