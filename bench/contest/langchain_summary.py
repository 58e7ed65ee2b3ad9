"""LangChain's `SummarizationMiddleware` over the script of `bench facts`, with the scripted summariser as its model.

    python -m bench.contest.langchain_summary FILE     prints a JSON line for each model call

FILE (JSON) has `system`, `turns` (what joins before each model call, as messages of ours), `window`, and the name of
the `summariser`. A line has the frame without the system message, and what a summary was made of before it (as much as
the middleware showed the summariser: its default is the last 4,000 tokens).

What is not at its default: it summarises at 80 % of the window (`trigger`) and keeps 30 % of it (`keep`), and counts
tokens as the kernel does. This module runs in the rivals' environment and imports nothing of Mains.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langchain.agents.middleware import SummarizationMiddleware
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage

from bench.facts_summary import SUMMARISERS

HIGH, KEPT = 0.8, 0.3


def tokens_of(messages: Sequence[AnyMessage]) -> int:
    """As `mains.kernel.context.tokens_of`: a token for every three bytes, and 8 for each message and call."""
    total = 0
    for message in messages:
        total += 8 - (-len(str(message.content).encode()) // 3)
        for call in getattr(message, "tool_calls", None) or ():
            total += 8 - (-len(call["name"]) // 3) - (-len(json.dumps(call["args"], separators=(",", ":"))) // 3)
    return total


def _message(given: dict[str, Any]) -> AnyMessage:
    match given["role"]:
        case "user":
            return HumanMessage(given["text"])
        case "tool":
            return ToolMessage(given["text"], tool_call_id=given["call_id"], name=given["name"])
        case _:
            calls = [
                {"name": c["name"], "args": json.loads(c["arguments"]), "id": c["id"]} for c in given.get("calls", ())
            ]
            return AIMessage(given.get("text", ""), tool_calls=calls)


def _plain(message: AnyMessage) -> dict[str, Any]:
    """A message as ours are written."""
    role = {"human": "user", "ai": "assistant", "tool": "tool"}[message.type]
    plain: dict[str, Any] = {"role": role, "text": message.content}
    if isinstance(message, ToolMessage):
        plain |= {"call_id": message.tool_call_id, "name": message.name}
    if isinstance(message, AIMessage) and message.tool_calls:
        plain["calls"] = [
            {"id": c["id"], "name": c["name"], "arguments": json.dumps(c["args"], separators=(",", ":"))}
            for c in message.tool_calls
        ]
    return plain


def main(path: str) -> None:
    """Every frame of the script."""
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    summarise, asked = SUMMARISERS[job["summariser"]], list[list[AnyMessage]]()

    def summary(messages: list[AnyMessage]) -> str:
        asked.append(messages)
        return summarise([str(message.content) for message in messages])

    system = 8 - (-len(job["system"].encode()) // 3)
    middleware: SummarizationMiddleware[Any, Any] = SummarizationMiddleware(
        FakeListChatModel(responses=["none"]),
        trigger=("tokens", round(HIGH * job["window"]) - system),  # it does not see the system message
        keep=("tokens", round(KEPT * job["window"])),
        token_counter=tokens_of,
        summarizer=summary,
    )
    messages: list[AnyMessage] = []
    for joining in job["turns"]:
        messages += [_message(each) for each in joining]
        asked.clear()
        changed = middleware.before_model({"messages": messages}, None)  # type: ignore[arg-type]
        if changed:
            messages = changed["messages"][1:]  # the first says that all are removed
        summed = [_plain(each) for each in asked[0]] if asked else []
        print(json.dumps({"frame": [_plain(each) for each in messages], "summed": summed}))


if __name__ == "__main__":
    main(sys.argv[1])
