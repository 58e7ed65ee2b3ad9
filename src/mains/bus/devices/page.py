"""A page as text: HTML is made Markdown in a child process, for no parser of what strangers wrote is trusted.

    title, text = await markdown_of(decoded(data, charset, html=True), bytes_max)

The child is `htmlchild.py`. It has no environment, and limits of memory and time; what breaks or hangs there is a
refusal here, and nothing else. Scripts, styles, comments and what elements themselves call hidden are not in the
text.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
from pathlib import Path

_TITLE_CHARACTERS_MAX = 200
_META = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([a-zA-Z0-9_.:-]{1,40})", re.IGNORECASE)
_META_BYTES = 1_024
_UNSEEN = {code: None for code in [*range(32), *range(0x7F, 0xA0)] if code not in (9, 10)}
_CHARSETS = re.compile(
    r"utf-?8|us-ascii|ascii|utf-?16(?:le|be)?|iso-?8859-?\d{1,2}|latin-?1|windows-?125[0-8]|cp125[0-8]"
    r"|gbk|gb2312|gb18030|big5|euc-jp|shift[_-]jis|sjis|iso-2022-jp|euc-kr|koi8-[ru]|macintosh"
)
_SAME = {"iso-8859-1": "cp1252", "iso8859-1": "cp1252", "latin1": "cp1252", "latin-1": "cp1252", "ascii": "cp1252",
         "us-ascii": "cp1252", "macintosh": "mac-roman", "gb2312": "gb18030", "gbk": "gb18030"}  # fmt: skip


class PageError(Exception):
    """A page that no text can be made of; says why in a few words."""


def decoded(data: bytes, charset: str, *, html: bool) -> str:
    """Bytes as text; what is wrong in them becomes U+FFFD. Only well-known encodings are used, else UTF-8."""
    for mark, name in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if data.startswith(mark):
            return data.decode(name, "replace")
    if not charset and html and (found := _META.search(data[:_META_BYTES])):
        charset = found[1].decode().lower()
        charset = "utf-8" if charset.startswith("utf-16") else charset  # it could not have been read
    if not _CHARSETS.fullmatch(charset):
        charset = "utf-8"
    with contextlib.suppress(LookupError):
        return data.decode(_SAME.get(charset, charset), "replace")
    return data.decode("utf-8", "replace")


def clean(text: str) -> str:
    """Text without control characters but tabs and line ends."""
    return text.replace("\r\n", "\n").translate(_UNSEEN)


async def markdown_of(html: str, bytes_max: int) -> tuple[str, str]:
    """The title and the text of a page. Raises PageError. Cancelled, it ends the child."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", str(Path(__file__).resolve().with_name("htmlchild.py"))),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={},
        cwd="/",
        start_new_session=True,
    )
    try:
        answer = await _answer(child, html.encode("utf-8", "replace"), 4 * bytes_max)
        title, text = json.loads(answer)
    except (ValueError, OSError) as error:
        raise PageError("no text can be made of it") from error
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
        await child.wait()
    if len(text) > bytes_max:
        raise PageError(f"its text is larger than {bytes_max:,} characters")
    return " ".join(clean(title).split())[:_TITLE_CHARACTERS_MAX], clean(text).strip()


async def _answer(child: asyncio.subprocess.Process, html: bytes, most: int) -> bytes:
    """What the child says, at most so many bytes: with more it is no JSON any longer."""
    assert child.stdin is not None and child.stdout is not None
    child.stdin.write(html)
    with contextlib.suppress(ConnectionError):
        await child.stdin.drain()
    child.stdin.close()
    answer = bytearray()
    while len(answer) <= most and (chunk := await child.stdout.read(65_536)):
        answer += chunk
    return bytes(answer[:most])
