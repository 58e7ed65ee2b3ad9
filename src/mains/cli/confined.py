"""What a device may touch, on the command line: the options of `device add` and `import`, and what is told of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

ReadOption = Annotated[
    list[str] | None,
    typer.Option("--read", metavar="PATH", help="A file or folder that it may read (repeatable)."),
]
WriteOption = Annotated[
    list[str] | None,
    typer.Option("--write", metavar="PATH", help="A file or folder that it may read and change (repeatable)."),
]
SocketsOption = Annotated[
    bool, typer.Option("--local-sockets", help="It may speak to services of this machine over Unix sockets.")
]
UnconfinedOption = Annotated[
    bool, typer.Option("--unconfined", help="It may touch all that you may: keys, journals, other programs.")
]
_UNCONFINED = "UNCONFINED"


def entry_of(
    read: list[str] | None, write: list[str] | None, *, local_sockets: bool, unconfined: bool
) -> dict[str, Any]:
    """These options as keys of a device's table."""
    entry = {"read": whole(read), "write": whole(write), "local_sockets": local_sockets}
    return {key: value for key, value in entry.items() if value} | ({"confined": False} if unconfined else {})


def whole(paths: list[str] | None) -> list[str]:
    """Paths that mean the same from every folder."""
    return [str(Path(path).expanduser().absolute()) for path in paths or ()]


def touches(confined: Mapping[str, Any]) -> Iterator[str]:
    """What a device that was added may touch, in lines."""
    if confined["by"] == _UNCONFINED:
        yield f"{_UNCONFINED}, it may touch all that you may: {confined['why']}"
    elif confined["by"]:
        for key, word in (("writes", "change"), ("reads", "read")):
            if confined[key]:
                yield f"it may {word}: {', '.join(confined[key])}"


def complaints(name: str, confined: Mapping[str, Any]) -> Iterator[str]:
    """Why a device is not confined, and what it was not given, in lines below a list."""
    if confined["why"]:
        yield f"{name}: {confined['by']}: {confined['why']}"
    if confined["closed"]:
        told = f"its command names {', '.join(confined['closed'])}, which it may not touch"
        yield f"{name}: {told}; `read` or `write` in [devices.{name}] opens it"
