"""The tools that coding assistants name in their agent files, and which of ours does the same. Pure.

    Read, Write, Edit, Glob, Grep    files.read, files.write, files.edit, files.find, files.search
    WebFetch                         web.fetch

`Read(./docs/**)` limits the path, `WebFetch(domain:example.org)` the host, as those files write it. What has no equal
here (`Bash`) stays what it is: a name that nothing offers, unless a device of that name does.
"""

from __future__ import annotations

from mains.program.toolgrant import ToolGrant

_OURS = {
    "Read": "files.read",
    "Write": "files.write",
    "Edit": "files.edit",
    "Glob": "files.find",
    "Grep": "files.search",
    "WebFetch": "web.fetch",
}
_DOMAIN = "domain:"


def ours(grant: ToolGrant) -> ToolGrant:
    """The grant of our tool that a grant of a coding assistant's means; any other as it is."""
    name = _OURS.get(grant.name)
    if name is None:
        return grant
    return ToolGrant(name, tuple(_limit(name, text) for text in grant.arguments))


def _limit(name: str, text: str) -> str:
    if name == "web.fetch":
        domain = text.removeprefix(_DOMAIN)
        return f"host={domain}|*.{domain}" if text.startswith(_DOMAIN) else f"url={text}"
    path = text.removeprefix("./")
    return f"path={path.replace('**', '*')}"
