"""An HTTP answer or a broken connection as an EngineError: may it be tried again, and what did it cost. Pure.

| what happened                               | retryable | spent   | why                                    |
|---------------------------------------------|-----------|---------|----------------------------------------|
| no connection (refused, DNS, TLS, time-out) | yes (1)   | nothing | no request was sent                    |
| 408, 425, 429, 503, 529, other 5xx (2)      | yes       | nothing | the server says that it did not do it  |
| 500, 502, 504, 520-524 (a proxy's)          | yes       | unknown | the model may have run behind it       |
| 3xx, other 4xx                              | no        | nothing | the same request will be refused again |
| nonsense, half an answer, silence           | yes       | unknown | it may have run                        |
| an error within a begun answer              | by code   | unknown | it did run                             |

(1) not for a certificate that does not fit. (2) a 429 that says `insufficient_quota` is not retryable, but at
DashScope, which says so of its tokens a minute.

429 and 529 say that the backend is up and has too much to do (`throttled`).

No error text carries a secret: it is blotted out before the text is cut.
"""

from __future__ import annotations

import email.utils
import math
from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec

from mains.engines.allowances import limits_of
from mains.engines.stream import ServerError
from mains.errors import Blame, EngineError, Spent

TEXT_CHARS_MAX = 300
RETRY_AFTER_S_MAX = 24 * 3600.0
_UNKNOWN_STATUSES = frozenset({500, 502, 504, 520, 521, 522, 523, 524})
_REQUEST_STATUSES = frozenset({400, 406, 409, 415, 422, 451})
# What endpoints say with 400 of a prompt that does not fit: OpenAI and vLLM, Anthropic, llama.cpp, DashScope.
_TOO_LONG = (
    *(b"context length", b"context_length", b"prompt is too long", b"context limit", b"context window"),
    *(b"context size", b"context_size", b"input length"),
)
# What some say with 400 instead of 404 of a model that they do not have.
_NO_MODEL = (b"model_not_found", b"model not found", b"model not exist", b"invalid model", b"unsupported model")
_THROTTLED = frozenset({429, 529})  # too many calls; 529: Anthropic's "overloaded"
_RETRYABLE_4XX = frozenset({408, 425, 429})
_NO_QUOTA = (
    *("insufficient_quota", "billing_hard_limit_reached", "exceeded_current_quota_error"),
    # Anthropic says these with 400: https://platform.claude.com/docs/en/api/errors
    *("credit balance is too low", "specified API usage limits"),
    # DashScope: a bill that is overdue, the free tier used up (alibabacloud.com/help/en/model-studio/error-code)
    *("Arrearage", "BillOverdue", "FreeTierOnly", "Free allocated quota exceeded"),
)
_TOKENS_A_MINUTE = "insufficient_quota"
_TOKENS_A_MINUTE_HOST = ".aliyuncs.com"


class Party(msgspec.Struct, frozen=True):
    """Whose answers these are: the engine's name, its URL, the variable that holds its key, and the key."""

    engine: str
    url: str
    model: str
    key_env: str
    secret: str = ""

    def __repr__(self) -> str:
        return f"Party({self.engine!r})"  # the secret stays out of logs and tracebacks

    def clean(self, text: str) -> str:
        """`text` in one line of bounded length, without the secret."""
        line = " ".join(text.split())
        if self.secret:
            line = line.replace(self.secret, "***")
        return line if len(line) <= TEXT_CHARS_MAX else line[: TEXT_CHARS_MAX - 1] + "…"


def lost(party: Party, text: str, *, hint: str = "") -> EngineError:
    """The call was made and its answer is no good or did not come: it may have run."""
    text = f"engine {party.engine}: {party.clean(text)}"
    return EngineError(text, retryable=True, spent=Spent.UNKNOWN, hint=hint)


def unsent(party: Party, text: str, *, retryable: bool, hint: str = "", blame: Blame = Blame.ENGINE) -> EngineError:
    """The call was not made: nothing is spent."""
    text = f"engine {party.engine}: {party.clean(text)}"
    return EngineError(text, retryable=retryable, spent=Spent.NOTHING, hint=hint, blame=blame)


def reported(party: Party, error: ServerError) -> EngineError:
    """The server reported an error within an answer that it had begun with 200."""
    retryable = not 400 <= error.code < 500 or error.code in _RETRYABLE_4XX
    text = f"engine {party.engine}: the server broke off: {party.clean(str(error))}"
    blame = _blame(error.code, str(error).encode("utf-8", "replace"))
    throttled = error.code in _THROTTLED
    return EngineError(text, retryable=retryable, spent=Spent.UNKNOWN, blame=blame, throttled=throttled)


def refused(party: Party, status: int, headers: Mapping[str, str], body: bytes, now: float) -> EngineError:
    """The server answered with a status other than 200."""
    no_quota = _no_quota(party, body)
    retryable = status >= 500 or (status in _RETRYABLE_4XX and not no_quota)
    said = headers.get("Location", "") if 300 <= status < 400 else message_of(body)
    text = f"engine {party.engine}: {status} from {party.url}"
    return EngineError(
        f"{text}: {party.clean(said)}" if said else text,
        retryable=retryable,
        spent=Spent.UNKNOWN if status in _UNKNOWN_STATUSES else Spent.NOTHING,
        retry_after_s=retry_after_s(headers, now) if retryable else 0.0,
        blame=_blame(status, body),
        throttled=status in _THROTTLED and retryable,
        limits=limits_of(headers, now),
        hint=_hint(party, status, no_quota),
    )


def _no_quota(party: Party, body: bytes) -> bool:
    """Whether nobody has paid. DashScope calls its tokens a minute `insufficient_quota`, too: those come back."""
    host = urlsplit(party.url).hostname or ""
    marks = [mark for mark in _NO_QUOTA if mark != _TOKENS_A_MINUTE or not host.endswith(_TOKENS_A_MINUTE_HOST)]
    return any(mark.encode() in body for mark in marks)


def _blame(status: int, body: bytes) -> Blame:
    """Whether another engine may serve the same request. A wrong key, model or URL is the engine's own matter."""
    said = body.lower()
    if status == 413 or (status in _REQUEST_STATUSES and any(mark in said for mark in _TOO_LONG)):
        return Blame.LENGTH
    if status not in _REQUEST_STATUSES or any(mark in said for mark in _NO_MODEL):
        return Blame.ENGINE
    return Blame.ENGINE if any(mark.encode().lower() in said for mark in _NO_QUOTA) else Blame.REQUEST


def _hint(party: Party, status: int, no_quota: bool) -> str:
    if no_quota or status == 402:
        return "the account behind this key has no credit left"
    if status in (401, 403):
        if party.key_env:
            return f"is the key in ${party.key_env} the right one, and may it use `{party.model}`?"
        return f"name the variable that holds the key: key_env in [engines.{party.engine}] of mains.toml"
    if status in (404, 405) or 300 <= status < 400:
        return f"are `url` and `model` ({party.model}) in [engines.{party.engine}] of mains.toml right?"
    if status == 413:
        return "the frame is too large for this endpoint: set a smaller context_tokens"
    if status in (400, 422):
        return (
            f"if the endpoint does not know a field: tokens_field, json_schema, stream and thinking in "
            f"[engines.{party.engine}] of mains.toml change what is sent"
        )
    return ""


def message_of(body: bytes) -> str:
    """What an error's body says: the message where the dialect (or FastAPI) puts it, else the whole text."""
    try:
        value: object = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return body.decode("utf-8", "replace")
    for key in ("error", "message", "detail", "msg"):
        while isinstance(value, list) and value:
            value = value[0]
        if isinstance(value, dict) and value.get(key):
            value = value[key]
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def retry_after_s(headers: Mapping[str, str], now: float) -> float:
    """The wait that the server asks for: `retry-after-ms`, or Retry-After in seconds or as a date, else 0.

    A date is compared with the answer's own Date where there is one, so that a wrong clock does no harm.
    """
    millis = _number(headers.get("retry-after-ms", ""))
    if millis is not None:
        return _bounded(millis / 1_000)
    value = headers.get("Retry-After", "").strip()
    seconds = _number(value)
    if seconds is not None:
        return _bounded(seconds)
    until = _timestamp(value)
    if until is None:
        return 0.0
    sent = _timestamp(headers.get("Date", ""))
    return _bounded(until - (now if sent is None else sent))


def _bounded(seconds: float) -> float:
    return min(max(0.0, seconds), RETRY_AFTER_S_MAX)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _timestamp(text: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text).timestamp() if text else None
    except (ValueError, OverflowError):
        return None
