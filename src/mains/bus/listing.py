"""The tools of a device: what its server lists, made safe.

A tool's name here has letters, digits, `_` and `-` only (at most `NAME_CHARS_MAX`), so that it can stand in a grant and
in every engine's dialect; a name that had others gets a mark of its own name's hash, so that two never become one. Two
tools of one name, a schema that is too large or too deep, that refers to something elsewhere or is no JSON Schema: that
tool is left out, with one line that says why; the others stay. A schema that is kept is kept word for word, but for
characters in its descriptions that nobody sees; a tool with such characters in the names of its arguments is left out.

What a server says of its own tools (`readOnlyHint`, `idempotentHint`) is a claim. It becomes a fact by `trust_hints`,
or by naming the tool in `read_only` or `repeatable`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from mains.arguments import Checker, price_fault
from mains.bus.spec import DeviceSpec
from mains.kernel.ports import Schema, Tool
from mains.settings import Settings

if TYPE_CHECKING:
    import mcp_types

NAME_CHARS_MAX = 64
DEPTH_MAX = 24  # of a schema
_DESCRIPTION_CHARS_MAX = 8 * 1024
_PROSE = ("description", "title", "$comment")
_VALUES = ("enum", "const", "default", "examples")
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)  # printable, says Unicode, and yet nothing is seen: words can be hidden in them
_encode = msgspec.json.Encoder(order="deterministic").encode


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One tool: its name at the server, as a model sees it, and what the server claims of it."""

    server_name: str
    tool: Tool
    claims_read_only: bool = False
    claims_idempotent: bool = False
    claims_closed: bool = False  # it reaches nothing outside (`openWorldHint` is false)


class Listing(msgspec.Struct, frozen=True, omit_defaults=True):
    """The tools of a device. `left_out`: a line for each that cannot be offered. `server`, `protocol`: who said so."""

    entries: tuple[Entry, ...] = ()
    left_out: tuple[str, ...] = ()
    server: str = ""
    protocol: str = ""
    of: str = ""  # `DeviceSpec.reach`: what was asked

    @property
    def digest(self) -> str:
        """A hash of what models are shown: another one means that the tools have changed."""
        shown = [(each.tool.name, each.tool.description, each.tool.parameters) for each in self.entries]
        return hashlib.sha256(_encode(shown)).hexdigest()[:16]

    def by_name(self) -> dict[str, Entry]:
        """The entries by the name of their tool here."""
        return {each.tool.name: each for each in self.entries}


def list_tools(
    listed: Iterable[mcp_types.Tool], settings: Settings, server: str = "", protocol: str = "", of: str = ""
) -> Listing:
    """The listing of what a server gave."""
    entries: dict[str, Entry] = {}
    left_out: list[str] = []
    for count, each in enumerate(listed):
        if count >= settings.device_tools_max:
            left_out.append(f"all after the first {settings.device_tools_max:,} tools (device_tools_max)")
            break
        name = tool_name(each.name)
        fault = f"there is another `{name}`" if name in entries else schema_fault(each.input_schema, settings)
        if fault:
            left_out.append(f"{one_line(each.name, 80)}: {fault}")
            continue
        claims = each.annotations
        entries[name] = Entry(
            each.name,
            Tool(
                name,
                printable(each.description or each.title or name, _DESCRIPTION_CHARS_MAX),
                _readable(each.input_schema),
            ),
            claims_read_only=claims is not None and claims.read_only_hint is True,
            claims_idempotent=claims is not None and claims.idempotent_hint is True,
            claims_closed=claims is not None and claims.open_world_hint is False,
        )
    return Listing(tuple(entries.values()), tuple(left_out), one_line(server, 200), one_line(protocol, 40), of)


def tools_of(listing: Listing, spec: DeviceSpec, changed: Collection[str] = ()) -> list[Tool]:
    """The tools as the user's word has them: what is repeatable, what only reads, what cannot send data out; and which
    of them have `changed`."""
    tools = []
    for each in listing.entries:
        names = {each.tool.name, each.server_name}
        read_only = bool(names & {*spec.read_only}) or (spec.trust_hints and each.claims_read_only)
        again = bool(names & {*spec.repeatable}) or (spec.trust_hints and each.claims_idempotent)
        closed = spec.trust_hints and each.claims_closed
        tools.append(
            msgspec.structs.replace(
                each.tool,
                read_only=read_only,
                idempotent=again or read_only,
                attached=True,
                open_world=not closed,
                changed=each.tool.name in changed,
            )
        )
    return tools


def tool_name(name: str) -> str:
    """A server's name for a tool, as it is here."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", name)
    if plain == name and 0 < len(name) <= NAME_CHARS_MAX:
        return name
    mark = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    return f"{plain[: NAME_CHARS_MAX - 7]}-{mark}"


def schema_fault(schema: Schema, settings: Settings) -> str:
    """Why the schema of a tool's arguments cannot be used; empty when it can."""
    if fault := _shape_fault(schema, settings.device_schema_bytes_max):
        return fault
    size = len(_encode(schema))
    if size > settings.device_schema_bytes_max:
        return f"its schema has {size:,} bytes, at most {settings.device_schema_bytes_max:,} (device_schema_bytes_max)"
    if schema.get("type", "object") != "object":
        return "its schema is not that of an object"
    try:
        Checker(schema)
    except ValueError as error:
        return f"its schema is no JSON Schema: {printable(str(error), 200)}"
    return price_fault(schema)


def _shape_fault(schema: Schema, nodes_max: int) -> str:
    """Depth, size, references and names, without recursion: a schema may be made to exhaust a stack."""
    level: list[Any] = [schema]
    nodes = 0
    for _ in range(DEPTH_MAX):
        below: list[Any] = []
        for node in level:
            if isinstance(node, dict):
                for key, value in node.items():
                    if key in ("$ref", "$dynamicRef") and isinstance(value, str) and not value.startswith("#"):
                        return "its schema refers to something elsewhere"
                    if not key.isprintable() or _INVISIBLE.search(key):
                        return "a name in its schema has characters that nobody sees"
                    below.append(value)
            elif isinstance(node, list):
                below += node
        nodes += len(below)
        if nodes > nodes_max:
            return f"its schema has more than {nodes_max:,} bytes (device_schema_bytes_max)"
        level = [node for node in below if isinstance(node, dict | list)]
        if not level:
            return ""
    return f"its schema is more than {DEPTH_MAX} levels deep"


def _readable(node: Any) -> Any:
    """A schema whose descriptions and titles, which are for readers, hide nothing. Everything else is word for word."""
    if isinstance(node, list):
        return [_readable(each) for each in node]
    if not isinstance(node, dict):
        return node
    return {
        key: printable(value, _DESCRIPTION_CHARS_MAX)
        if key in _PROSE and isinstance(value, str)
        else (value if key in _VALUES else _readable(value))
        for key, value in node.items()
    }


def printable(text: str, chars_max: int) -> str:
    """Text that a device gave, for a person or a model: no control characters, whole characters, bounded."""
    plain = _INVISIBLE.sub("", text[: 2 * chars_max].encode("utf-8", "replace").decode())
    plain = "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in plain[: chars_max + 1])
    return plain if len(plain) <= chars_max else plain[: chars_max - 3] + "..."


def one_line(text: str, chars_max: int) -> str:
    """The same, on one line."""
    return printable(" ".join(text[: 4 * chars_max].split()), chars_max)
