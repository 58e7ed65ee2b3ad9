"""A `Request` as the body of a call to llama.cpp's server, and its answer as a `Reply`. Pure.

    plan(request)             -> Plan: what is sent, and how the answer is read
    plan.loose()              the same with a constraint that any server takes, or None
    estimate(messages)        tokens of a prompt, from above

| the request has              | the sampler is held to             | the reply is          |
|------------------------------|------------------------------------|-----------------------|
| tools                        | an action: `actions.py`            | its calls, or its text|
| `output` with `format: sentence` | the words of the frame: `grounding.py` | the text          |
| another `output`             | its JSON Schema, loosened          | the text              |
| a plain string as `output`, or nothing | nothing                  | the text              |

llama.cpp's own `tools` are not used: its server takes them and leaves them out, and most small models know none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from mains.engines import actions, grounding
from mains.engines.actions import Move
from mains.engines.loosen import loosen
from mains.kernel.ports import Finish, Message, Reply, Request, Schema

BYTES_PER_TOKEN = 3
MESSAGE_TOKENS = 8

# Greedy where the form is fixed; elsewhere what the makers of SmolLM2 advise (its model card). The light penalty on the
# last words keeps small models from repeating themselves.
_EXACT: dict[str, Any] = {"temperature": 0.0}
_PROSE: dict[str, Any] = {"temperature": 0.2, "top_p": 0.9}
_FRESH: dict[str, Any] = {"repeat_penalty": 1.05, "repeat_last_n": 24}


class Plan(msgspec.Struct, frozen=True):
    """One call: its messages and sampling, what the sampler is held to, and the moves it may choose from."""

    messages: tuple[Message, ...]
    sampling: dict[str, Any]
    constraint: dict[str, Any] = {}
    moves: tuple[Move, ...] = ()
    prefix: str = ""

    def body(self, output_tokens_max: int, model: str, slot: Mapping[str, Any] = MappingProxyType({})) -> bytes:
        """What is sent. Always streamed: a server that is not read from would work on after we are gone.

        `slot`: which slot it is for, and whether what that holds may be used; llama.cpp decides when it is empty.
        """
        messages = [{"role": m.role, "content": m.text} for m in self.messages]
        if self.prefix:
            messages.append({"role": "assistant", "content": self.prefix.rstrip()})
        return msgspec.json.encode(
            {
                "model": model,
                "messages": messages,
                "max_tokens": output_tokens_max,
                "stream": True,
                "stream_options": {"include_usage": True},
                **self.sampling,
                **self.constraint,
                **slot,
            }
        )

    def loose(self) -> Plan | None:
        """For a server that could not take the constraint."""
        if not self.constraint:
            return None
        constraint = _json(actions.loose_schema_of(self.moves)) if self.moves else {}
        return msgspec.structs.replace(self, constraint=constraint) if constraint != self.constraint else None

    def read(self, reply: Reply) -> Reply:
        """The server's reply as what it means."""
        if not self.moves:
            return reply
        text, calls = actions.read(reply.text)
        finish = Finish.CALLS if calls and reply.finish is Finish.STOP else reply.finish
        return msgspec.structs.replace(reply, text=text, calls=calls, finish=finish)


def plan(request: Request) -> Plan:
    """How `request` is put to a model."""
    if request.tools:
        legal = actions.moves(request)
        sampling = _sampling(request, _EXACT)
        return Plan(_alternating(actions.frame_of(request)), sampling, _json(actions.schema_of(legal)), legal)
    messages = _alternating(request.messages)
    output = request.output
    if output is None or output == {"type": "string"}:
        return Plan(messages, _sampling(request, _PROSE | _FRESH))
    if output.get("type") == "string" and output.get("format") == "sentence":
        prefix = grounding.prefix_of(output)
        told = "\n\n".join(m.text for m in request.messages if m.role != "system")
        prose = "\n\n".join(m.text for m in request.messages if m.role == "system")
        grammar = grounding.grammar((told, prose), prefix)
        return Plan(messages, _sampling(request, _EXACT | _FRESH), {"grammar": grammar}, prefix=prefix)
    told = f"Reply with JSON that fits this JSON Schema: {msgspec.json.encode(output).decode()}"
    return Plan(_alternating((*messages, Message("user", told))), _sampling(request, _EXACT), _json(loosen(output)))


def _json(schema: Schema) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}}


def _sampling(request: Request, engine_default: dict[str, Any]) -> dict[str, Any]:
    asked = request.sampling
    chosen = dict(engine_default)
    if asked.temperature is not None:
        chosen["temperature"] = asked.temperature
    if asked.seed is not None:
        chosen["seed"] = asked.seed
    if asked.stop:
        chosen["stop"] = list(asked.stop)
    return chosen


def _alternating(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Messages as every chat template takes them: no role twice in a row, and the last one not the model's own.

    (llama.cpp takes a last message of the assistant for the beginning of its reply.)
    """
    merged: list[Message] = []
    for message in messages:
        if merged and merged[-1].role == message.role:
            message = Message(message.role, f"{merged.pop().text}\n\n{message.text}")
        merged.append(message)
    if merged[-1].role == "assistant":
        merged.append(Message("user", "Go on."))
    return tuple(merged)


def estimate(messages: Sequence[Message]) -> int:
    """Tokens of a prompt, from above."""
    size_bytes = sum(len(m.text.encode("utf-8", "surrogatepass")) for m in messages)
    return -(-size_bytes // BYTES_PER_TOKEN) + MESSAGE_TOKENS * len(messages)
