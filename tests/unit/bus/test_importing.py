"""The JSON files of desktop assistants, as their documents show them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mains.bus.importing import device_name, read_servers
from mains.bus.spec import DeviceSpec
from mains.errors import ConfigError


def read(document: Any) -> list[DeviceSpec]:
    """The devices of a document."""
    return read_servers(json.dumps(document).encode(), "file.json").specs


def test_a_command_and_a_server_elsewhere() -> None:
    specs = read(
        {
            "mcpServers": {
                "filesystem": {
                    "command": "npx",
                    "args": ["-y", "@modelcontextprotocol/server-filesystem", "/home/ann/Desktop"],
                    "env": {"DEBUG": True, "PORT": 8080, "TOKEN": "${env:TOKEN}"},
                },
                "My Tracker": {"type": "http", "url": "https://h/mcp", "headers": {"Authorization": "Bearer ${T}"}},
            }
        }
    )
    assert specs == [
        DeviceSpec(
            name="filesystem",
            command="npx",
            args=("-y", "@modelcontextprotocol/server-filesystem", "/home/ann/Desktop"),
            env={"DEBUG": "true", "PORT": "8080", "TOKEN": "${TOKEN}"},
        ),
        DeviceSpec(name="my-tracker", url="https://h/mcp", headers={"Authorization": "Bearer ${T}"}),
    ]


def test_another_spelling_of_the_table_and_a_byte_order_mark() -> None:
    data = "\ufeff" + json.dumps({"servers": {"git": {"type": "stdio", "command": "uvx", "cwd": "/tmp/x"}}})
    assert read_servers(data.encode(), "f").specs == [DeviceSpec(name="git", command="uvx", folder="/tmp/x")]


def test_trust_is_never_taken_over_and_what_is_left_out_is_told() -> None:
    found = read_servers(
        json.dumps(
            {
                "mcpServers": {
                    "a": {"command": "x", "alwaysAllow": ["*"], "trust": True, "timeout": 5},
                    "b": {"command": "y", "disabled": True},
                }
            }
        ).encode(),
        "f",
    )
    assert found.specs == [DeviceSpec(name="a", command="x")]
    assert found.left_out == ["a: alwaysAllow, timeout, trust", "b: it is disabled there"]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "it has no `mcpServers`"),
        ({"mcpServers": []}, "it has no `mcpServers`"),
        ({"mcpServers": {"a": 3}}, "a: it is no object"),
        ({"mcpServers": {"a": {"type": "sse", "url": "https://h/sse"}}}, "`sse` is no longer spoken"),
        ({"mcpServers": {"a": {"type": "carrier-pigeon"}}}, "is not known"),
        ({"mcpServers": {"a": {"command": "x", "args": ["${workspaceFolder}"]}}}, "means nothing in a command"),
        ({"mcpServers": {"a b": {"command": "x"}, "A-B": {"command": "y"}}}, "would have the name `a-b`"),
        ({"mcpServers": {"a": {"command": "x", "args": [{}]}}}, "Expected `str`"),
        ({"mcpServers": {f"a{n}": {"command": "x"} for n in range(101)}}, "at most 100"),
    ],
)
def test_a_mistake_is_named(document: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(document)
    assert said in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_is_told(data: bytes) -> None:
    with pytest.raises(ConfigError, match="no JSON"):
        read_servers(data, "f")


def test_every_title_has_a_name() -> None:
    assert device_name("GitHub (work)") == "github-work"
    assert device_name("7zip") == "d-7zip"
    assert device_name("\u65e5\u672c") == "d"
