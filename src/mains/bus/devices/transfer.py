"""One HTTP exchange with a host that was looked up once: GET, bounded in every way, and nothing followed.

    names = Names()                                 the system's resolver, in threads of its own
    got = await get(target, rules, names.look_up, bytes_max)

A host is looked up once. Every address that it has is judged, and one bad one is enough to refuse; the connection
goes to those very addresses, and the socket is told once more before it connects. No proxy of the environment is
asked, no cookie kept, no password sent. What is packed is unpacked only as far as it may be.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import zlib
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import msgspec

from mains.bus.devices.refused import Refused, shown
from mains.bus.devices.webrules import Rules, Target, check_address

if TYPE_CHECKING:
    import aiohttp

LookUp = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host, as text. Raises OSError when it has none."""

_ADDRESSES_MAX = 16
_THREADS_MAX = 16
_HEADERS = {
    "User-Agent": "Mains (the device of an agent; it fetches single pages)",
    "Accept": "text/html,application/xhtml+xml,text/plain;q=0.9,application/json;q=0.9,*/*;q=0.1",
    "Accept-Encoding": "gzip, deflate",
}
_WORD = re.compile(r"[a-z0-9.+-]{1,40}(?:/[a-z0-9.+-]{1,60})?")
_REDIRECTS = (301, 302, 303, 307, 308)


class Got(msgspec.Struct, frozen=True):
    """An answer: its status, where it leads (empty: nowhere), what it is, and its bytes, unpacked."""

    status: int
    location: str
    kind: str
    charset: str
    data: bytes


class Names:
    """The system's resolver. One that hangs holds up only who waits for it, as long as there are threads left."""

    def __init__(self) -> None:
        self._threads: ThreadPoolExecutor | None = None

    async def look_up(self, host: str, port: int) -> list[str]:
        """The addresses of a host. Raises OSError."""
        self._threads = self._threads or ThreadPoolExecutor(_THREADS_MAX, "device web: names")
        work = asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        return [str(found[4][0]) for found in await work]

    def close(self) -> None:
        """Look up nothing more."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None


async def addresses_of(target: Target, rules: Rules, look_up: LookUp) -> list[str]:
    """The addresses to connect to: all that the host has, each judged. Raises Refused."""
    if target.address is not None:
        check_address(target.host, target.address, rules)
        return [str(target.address)]
    try:
        found = list(dict.fromkeys(await look_up(target.host, target.port)))[:_ADDRESSES_MAX]
        addresses = [ipaddress.ip_address(each) for each in found]
    except (OSError, UnicodeError, ValueError) as error:
        raise Refused(f"{target.host}: no such host") from error
    if not addresses:
        raise Refused(f"{target.host}: no such host")
    for address in addresses:
        check_address(target.host, address, rules)
    return [str(address) for address in addresses]


async def get(target: Target, rules: Rules, look_up: LookUp, bytes_max: int) -> Got:
    """Ask for a page. Raises Refused; a limit of time is the caller's."""
    import aiohttp

    addresses = await addresses_of(target, rules, look_up)
    connector = _pinned(addresses)
    nowhere = aiohttp.ClientTimeout(total=None, sock_connect=None, sock_read=None)
    try:
        async with (
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=nowhere,
                trust_env=False,
                auto_decompress=False,
                headers=_HEADERS,
            ) as session,
            session.get(target.url, allow_redirects=False) as response,
        ):
            return await _got(target, response, bytes_max)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise Refused(f"{shown(target.url[:200])}: {_fault(error)}") from error


def _pinned(addresses: Sequence[str]) -> aiohttp.TCPConnector:
    """A connector that knows only these addresses, whatever it is asked for."""
    import aiohttp
    from aiohttp.abc import AbstractResolver, ResolveResult

    class Known(AbstractResolver):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            return [
                ResolveResult(
                    hostname=host,
                    host=address,
                    port=port,
                    family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                    proto=socket.IPPROTO_TCP,
                    flags=socket.AI_NUMERICHOST,
                )
                for address in addresses
            ]

        async def close(self) -> None:
            return

    def make(found: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, place = found
        if str(ipaddress.ip_address(place[0])) not in addresses:
            raise OSError(f"{place[0]} is none of the addresses that were judged")
        return socket.socket(family=family, type=kind, proto=protocol)

    return aiohttp.TCPConnector(
        resolver=Known(), use_dns_cache=False, force_close=True, limit=1, socket_factory=make, happy_eyeballs_delay=None
    )


async def _got(target: Target, response: aiohttp.ClientResponse, bytes_max: int) -> Got:
    location = response.headers.get("Location", "") if response.status in _REDIRECTS else ""
    kind, charset = _content_type(response.headers.get("Content-Type", ""))
    data = b""
    if response.status == 200:
        if not is_text(kind):
            raise Refused(f"{shown(target.url[:200])}: it is {_word(kind)}, and only text can be fetched")
        data = await _body(target, response, bytes_max)
    return Got(response.status, location, kind, charset, data)


def _content_type(text: str) -> tuple[str, str]:
    """The media type and the charset of a header; what has no type is taken for plain text."""
    kind, *more = (part.strip() for part in text.split(";"))
    charset = next((each[8:] for each in more if each[:8].lower() == "charset="), "")
    return kind.lower() or "text/plain", charset.strip(" \"'").lower()


def _word(text: str) -> str:
    """A word of a header for a refusal; nothing of what a stranger makes up."""
    return text if _WORD.fullmatch(text) else "something odd"


def is_text(kind: str) -> bool:
    """Whether something of this media type is text."""
    main, _, sub = kind.partition("/")
    return main == "text" or sub in _TEXTS or (main == "application" and sub.endswith(("+json", "+xml", "+yaml")))


_TEXTS = ("json", "xml", "yaml", "x-yaml", "javascript", "x-javascript", "ecmascript", "toml", "x-ndjson", "sql")


async def _body(target: Target, response: aiohttp.ClientResponse, bytes_max: int) -> bytes:
    """The bytes of an answer, unpacked. Raises Refused as soon as there are more than may be."""
    seen = shown(target.url[:200])
    unpack = _unpacker(response.headers.getall("Content-Encoding", []), seen)
    data = bytearray()
    read = 0
    async for chunk in response.content.iter_any():
        read += len(chunk)
        if read <= bytes_max:
            data += unpack.more(chunk, bytes_max + 1 - len(data))
        if read > bytes_max or len(data) > bytes_max:
            raise Refused(f"{seen}: larger than {bytes_max:,} bytes (web_bytes_max)")
    if read and not unpack.is_whole():
        raise Refused(f"{seen}: what it sends is not whole")
    return bytes(data)


class _Plain:
    def more(self, chunk: bytes, most: int) -> bytes:
        return chunk[:most]

    def is_whole(self) -> bool:
        return True


class _Packed:
    """Unpacks gzip or deflate (with or without its header), never more than it is asked for."""

    def __init__(self, seen: str, *, deflate: bool) -> None:
        self._seen = seen
        self._deflate = deflate
        self._work: Any = None

    def more(self, chunk: bytes, most: int) -> bytes:
        if self._work is None:
            raw = self._deflate and chunk[:1] and (chunk[0] & 0x0F) != zlib.DEFLATED
            self._work = zlib.decompressobj(-zlib.MAX_WBITS if raw else zlib.MAX_WBITS | 32)
        if self._work.eof or most <= 0:
            return b""
        try:
            unpacked: bytes = self._work.decompress(self._work.unconsumed_tail + chunk, most)
        except zlib.error as error:
            raise Refused(f"{self._seen}: what it sends cannot be unpacked") from error
        return unpacked

    def is_whole(self) -> bool:
        return self._work is None or bool(self._work.eof)


def _unpacker(codings: Sequence[str], seen: str) -> _Plain | _Packed:
    names = [name.strip().lower() for text in codings for name in text.split(",") if name.strip()]
    names = [name for name in names if name != "identity"]
    if not names:
        return _Plain()
    if len(names) > 1 or names[0] not in ("gzip", "x-gzip", "deflate"):
        raise Refused(f"{seen}: packed as {_word('+'.join(names))}, which nobody asked for")
    return _Packed(seen, deflate=names[0] == "deflate")


def _fault(error: Exception) -> str:
    """What went wrong, in a few words that say nothing of this machine."""
    import aiohttp

    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        return "its certificate is not to be trusted, or it speaks no TLS"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "it cannot be reached"
    if isinstance(error, aiohttp.ClientResponseError):
        return "what it answers is no HTTP"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "it broke off"
    if isinstance(error, aiohttp.ClientConnectionError):
        return "it hung up"
    return "it cannot be fetched"
