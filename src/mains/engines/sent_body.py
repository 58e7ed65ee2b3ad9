"""The body of a request, held only until it is sent. It is the whole frame as JSON, and a model may think for minutes.

aiohttp keeps what it was given to send until the answer is complete, so that it can send it again. We never send a POST
again by ourselves (it might be paid for twice), so the bytes can go: 1,000 processes that wait hold 1,000 frames less.
"""

from __future__ import annotations

import msgspec
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

from mains.engines import faults
from mains.engines.faults import Party
from mains.errors import Blame


class SentBody(Payload):
    """Bytes of JSON that can be written once."""

    _value: bytes

    def __init__(self, body: bytes) -> None:
        super().__init__(body, content_type="application/json")
        self._size = len(body)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """What has not been sent yet."""
        return self._value.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send, and forget."""
        body, self._value = self._value, b""
        await writer.write(body)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """The same: the length is always that of the whole."""
        await self.write(writer)


def encoded(body: object, party: Party) -> SentBody:
    """The object as JSON, to be sent. Raises EngineError when it holds text that is no Unicode."""
    try:
        return SentBody(msgspec.json.encode(body))
    except UnicodeEncodeError:
        text = "the frame holds text that is no Unicode"
        raise faults.unsent(party, text, retryable=False, blame=Blame.REQUEST) from None
