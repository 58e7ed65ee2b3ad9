"""Vectors from an endpoint that speaks OpenAI's dialect: `POST {url}/embeddings`.

It is an `Embedder` as `mains.search.vectors` asks for one (the two know nothing of each other). One `embed` is one
attempt, made in as many requests as BATCH_TEXTS demands. Errors are those of every endpoint (`faults.py`), and the
secrets are kept as `endpoint.py` keeps them: the key is read at each call, goes into one header of one request to the
configured host, and is blotted out of every error.

It takes no hold: whoever puts it to use does (`mains.embedding`).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from mains.engines import faults
from mains.engines.catalogue import EngineSpec
from mains.engines.faults import Party
from mains.kernel.ports import Usage

if TYPE_CHECKING:
    import aiohttp

BATCH_TEXTS = 16
BODY_BYTES_MAX = 16 * 1024 * 1024
CONNECT_TIMEOUT_S = 10.0
KEEPALIVE_S = 3.0
DIMENSIONS_MAX = 16_384


class _Vector(msgspec.Struct):
    index: int
    embedding: list[float]


class _Usage(msgspec.Struct):
    total_tokens: int = 0


class _Answer(msgspec.Struct):
    data: list[_Vector]
    usage: _Usage | None = None


class EndpointEmbedder:
    """See the module's header. `spec` says where; `model` is the model that makes vectors."""

    def __init__(
        self,
        spec: EngineSpec,
        model: str,
        *,
        timeout_s: float = 60.0,
        environ: Mapping[str, str] = os.environ,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.name = f"{spec.name}/{model}"
        self._spec = spec
        self._model = model
        self._url = f"{spec.url.rstrip('/')}/embeddings"
        self._timeout_s = timeout_s
        self._environ = environ
        self._now = now
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """A vector for each text. Raises EngineError."""
        return (await self.counted(texts))[0]

    async def counted(self, texts: Sequence[str]) -> tuple[list[list[float]], Usage | None]:
        """A vector for each text, and what the endpoint counted (None: not every answer says). Raises EngineError."""
        vectors: list[list[float]] = []
        tokens: list[int] = []
        for first in range(0, len(texts), BATCH_TEXTS):
            more, usage = await self._request(list(texts[first : first + BATCH_TEXTS]))
            vectors += more
            tokens += [usage.total_tokens] if usage else []
        known = len(tokens) == -(-len(texts) // BATCH_TEXTS)
        return vectors, Usage(input_tokens=sum(tokens)) if known else None

    async def _request(self, texts: list[str]) -> tuple[list[list[float]], _Usage | None]:
        import aiohttp

        spec = self._spec
        secret = self._environ.get(spec.key_env, "").strip() if spec.key_env else ""
        party = Party(spec.name, self._url, self._model, spec.key_env, secret)
        if spec.key_env and not (secret and secret.isascii() and secret.isprintable()):
            raise faults.unsent(party, f"the variable {spec.key_env} holds no key", retryable=False)
        said = {"model": self._model, "input": [_well_formed(text) for text in texts], "encoding_format": "float"}
        call = self._open().post(
            self._url,
            data=msgspec.json.encode(said),
            headers={
                "Content-Type": "application/json",
                **({"Authorization": f"Bearer {secret}"} if secret else {}),
            },
            timeout=aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=CONNECT_TIMEOUT_S),
            allow_redirects=False,
        )
        try:
            async with call as response:
                body = await _bounded(response)
                if not 200 <= response.status < 300:
                    raise faults.refused(party, response.status, response.headers, body, self._now())
        except aiohttp.ClientConnectorError as error:
            raise faults.unsent(party, f"no connection to {self._url}: {error.os_error}", retryable=True) from None
        except TimeoutError:
            raise faults.lost(party, f"{self._url} did not finish within {self._timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise faults.lost(party, f"{self._url} broke off: {type(error).__name__}") from None
        return _vectors(body, len(texts), party)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            import aiohttp

            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=2, keepalive_timeout=KEEPALIVE_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "mains"},
            )
        return self._session


def _well_formed(text: str) -> str:
    """Without lone surrogates, which no JSON takes."""
    return text.encode("utf-8", "replace").decode("utf-8")


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    """The body, at most one byte more than it may have."""
    body = bytearray()
    while len(body) <= BODY_BYTES_MAX and (chunk := await response.content.readany()):
        body += chunk
    return bytes(body[: BODY_BYTES_MAX + 1])


def _vectors(body: bytes, texts: int, party: Party) -> tuple[list[list[float]], _Usage | None]:
    """The vectors of an answer, in the order of the texts, and its count."""
    found: dict[int, list[float]] = {}
    usage = None
    with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
        answer = msgspec.json.decode(body, type=_Answer)
        found, usage = {each.index: each.embedding for each in answer.data}, answer.usage
    sizes = {len(vector) for vector in found.values()}
    if sorted(found) != list(range(texts)) or len(sizes) != 1 or not 0 < max(sizes) <= DIMENSIONS_MAX:
        raise faults.lost(party, f"{party.url} answered nonsense: no vector for each of {texts} texts")
    return [found[at] for at in range(texts)], usage
