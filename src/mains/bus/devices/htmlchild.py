"""A child process that makes Markdown of HTML: HTML on its standard input, `[title, text]` as JSON on its output.

It is run as a file of its own (`page.py`), imports nothing of Mains, and sets limits on itself before it reads a byte.
"""

from __future__ import annotations

import contextlib
import html
import json
import re
import sys

_CPU_S = 10
_MEMORY_BYTES = 1024 * 1024 * 1024
_RAW = re.compile(r"<!--(?:-?>|.*?(?:--!?>|\Z))|<(script|style)\b.*?(?:</\1\s*>|\Z)", re.IGNORECASE | re.DOTALL)
_TITLE = re.compile(r"<title[^<>]{0,500}>([^<]{0,2000})", re.IGNORECASE)


def _limit() -> None:
    import resource

    for limit, most in ((resource.RLIMIT_CPU, _CPU_S), (resource.RLIMIT_AS, _MEMORY_BYTES), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(ValueError, OSError):  # a platform that does not know it
            resource.setrlimit(limit, (most, most))


def main() -> None:
    """Read, convert, write."""
    _limit()
    import html_to_markdown

    page = sys.stdin.buffer.read().decode("utf-8", "replace")
    page = _RAW.sub(" ", page)  # as a browser reads it: what is never closed goes on to the end
    options = html_to_markdown.ConversionOptions(extract_metadata=False, hidden_content="drop", skip_images=True)
    found = _TITLE.search(page)
    title = html.unescape(found[1]) if found else ""
    text = html_to_markdown.convert(page, options).content or ""
    sys.stdout.buffer.write(json.dumps([title, text]).encode())


if __name__ == "__main__":
    main()
