"""What is printed of a frame that a model was shown: `mains show PID --at SEQ`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from mains.cli.render import clean, say

View = Mapping[str, Any]


def say_seen(seen: View) -> None:
    """A frame with its tools: texts word for word, unless a terminal would obey them."""
    terminal = sys.stdout.isatty()
    for line in lines_of(seen):
        say(clean(line, lines=True) if terminal else line)


def lines_of(seen: View) -> Iterator[str]:
    """The head, the tools, and each message below the line that says which it is."""
    attempt = f", attempt {seen['attempt']}" if seen["attempt"] > 1 else ""
    model = f" ({seen['model']})" if seen["model"] else ""
    purpose = ", for a summary of old turns" if seen["summary"] else ""
    yield f"process {seen['pid']}: {seen['program']}, turn {seen['turn']}{attempt}{purpose}"
    yield f"event    {seen['seq']} ({seen['at']})"
    yield f"engine   {seen['engine']}{model}"
    yield f"frame    {seen['made']}: {verdict(seen)}"
    yield f"tools    {', '.join(tool['name'] for tool in seen['tools']) or 'none'}"
    for tool in seen["tools"]:
        yield f"--- tool {tool['name']}: {tool['description']}"
        yield _compact(tool["parameters"])
    for place, message in zip(seen["places"], seen["messages"], strict=True):
        handle = "opening" if place["position"] < 0 else f"mem:{place['position']}" if place["page"] else "asked"
        said = " ".join(filter(None, [message["role"], message.get("name"), message.get("call_id")]))
        yield f"--- {handle} {said}{f' ({kind})' if (kind := message.get('kind')) else ''}"
        if text := message.get("text", ""):
            yield text
        for call in message.get("calls", ()):
            yield f"calls {call['name']} {call['arguments']} ({call['id']})"


def verdict(seen: View) -> str:
    """Whether what is shown is what was shown, in words."""
    if seen["agree"] is None:
        return "no hash was journalled (an older Mains)"
    if seen["agree"]:
        return "the hash that was journalled before the call"
    return f"NOT the hash that was journalled before the call ({seen['journalled']})"


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
