"""The device `web`: a page of the internet as clean text.

    web.py          fetch: the turns of one fetch, and its answer
    webrules.py     which hosts are allowed (`[web]` of mains.toml; none by default), and what an address says
    address.py      which IP addresses are public
    transfer.py     one exchange: looked up once, connected to that very address, bounded
    page.py         HTML to Markdown, in a child process

A redirect is followed within its host only, each time with every check made anew. One that leads to another host is
told and not followed: whoever may fetch from there asks for it, so that each host is decided by a call of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import urljoin

from mains.bus.devices import page
from mains.bus.devices.refused import Refused, shown
from mains.bus.devices.transfer import Got, LookUp, Names, get
from mains.bus.devices.webrules import Rules, Target, target_of
from mains.errors import ConfigError
from mains.kernel.ports import CallContext, Done, Failed, Tool
from mains.settings import Settings

_CHILDREN_MAX = 4  # that make text of pages at once

_FETCH = Tool(
    "fetch",
    "Fetch a page of the web and get its text (HTML as Markdown).",
    {
        "type": "object",
        "properties": {"url": {"type": "string", "description": "such as https://example.org/page"}},
        "required": ["url"],
        "additionalProperties": False,
    },
    read_only=True,  # a GET is safe and idempotent: RFC 9110, 9.2.1 and 9.2.2
    idempotent=True,
    open_world=True,  # a URL carries data
)


class Web:
    """The device. `rules` are asked for at each call, so that a change of mains.toml needs no restart.

    `look_up` gives the addresses of a host; without one, the system's resolver does.
    """

    name = "web"

    def __init__(
        self, rules: Callable[[], Rules], settings: Settings | None = None, look_up: LookUp | None = None
    ) -> None:
        self._rules = rules
        self._settings = settings or Settings()
        self._names = Names()
        self._look_up = look_up or self._names.look_up
        self._children = asyncio.Semaphore(_CHILDREN_MAX)

    def tools(self) -> Sequence[Tool]:
        """fetch."""
        return [_FETCH]

    async def call(self, tool: str, arguments: Mapping[str, Any], context: CallContext) -> Done | Failed:
        """Fetch it."""
        limit_s = self._settings.web_timeout_s
        url = arguments["url"]
        try:
            async with asyncio.timeout(limit_s):
                return Done(await self._fetch(url))
        except Refused as refused:
            return Failed(str(refused))
        except ConfigError as error:
            return Failed(f"mains.toml cannot be used: {error}")
        except TimeoutError:
            return Failed(f"{shown(url[:200])}: not all of it came within {limit_s:g} s (web_timeout_s)")

    async def close(self) -> None:
        """Look up nothing more."""
        self._names.close()

    async def _fetch(self, url: str) -> str:
        rules = self._rules()
        target = target_of(url, rules)
        for _ in range(self._settings.web_redirects_max + 1):
            got = await get(target, rules, self._look_up, self._settings.web_bytes_max)
            if not got.location:
                return await self._text(target, got)
            target = self._next(target, got.location, rules)
        raise Refused(f"{shown(url[:200])}: more than {self._settings.web_redirects_max} redirects")

    @staticmethod
    def _next(target: Target, location: str, rules: Rules) -> Target:
        """Where a redirect leads, within its host. Raises Refused."""
        seen = shown(target.url[:200])
        try:
            joined = urljoin(target.url, location)
        except ValueError as error:
            raise Refused(f"{seen}: redirects to something that is no address") from error
        try:
            onward = target_of(joined, rules)
        except Refused as refused:
            raise Refused(f"{seen}: redirects to what may not be fetched: {refused}") from refused
        if onward.host != target.host:
            raise Refused(f"{seen}: redirects to another host; fetch {shown(onward.url[:500])} if it is wanted")
        if target.scheme == "https" and onward.scheme != "https":
            raise Refused(f"{seen}: redirects from https to http: not followed")
        return onward

    async def _text(self, target: Target, got: Got) -> str:
        seen = shown(target.url[:200])
        if got.status != 200:
            raise Refused(f"{seen}: it answers {got.status}{_meaning(got.status)}")
        html = got.kind in ("text/html", "application/xhtml+xml")
        text = page.decoded(got.data, got.charset, html=html)
        title = ""
        if html:
            try:
                async with self._children:
                    title, text = await page.markdown_of(text, self._settings.web_bytes_max)
            except page.PageError as error:
                raise Refused(f"{seen}: {error}") from error
        head = f"[{seen}: {title}]" if title else f"[{seen}]"
        return f"{head}\n\n{page.clean(text).strip() or '(no text)'}"


def _meaning(status: int) -> str:
    """What a status means, in the standard's words: those of the server are a stranger's."""
    try:
        return f" {HTTPStatus(status).phrase}"
    except ValueError:
        return ""
