"""What mains.toml says of a device: every mistake is one clear line, and no secret is shown."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from mains.bus.spec import (
    DeviceSpec,
    checked_spec,
    environment_of,
    headers_of,
    load_devices,
    look_of,
    remove_device,
    write_device,
)
from mains.errors import ConfigError


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({}, "give it a `command` or a `url`, one of them"),
        ({"command": "a", "url": "http://h/mcp"}, "one of them"),
        ({"comand": "a"}, "unknown key `comand`"),
        ({"command": ["a"]}, "Expected `str`"),
        ({"command": "a", "headers": {"X": "y"}}, "`headers` are of a `url`"),
        ({"url": "http://h/mcp", "args": ["a"]}, "`args` is of a command"),
        ({"url": "ftp://h/mcp"}, "`url` must be http"),
        ({"url": "http://ann:hunter2@h/mcp"}, "`url` must not hold a password"),
        ({"url": "http://h/mcp", "headers": {"Content-Length": "3"}}, "`Content-Length` is no header"),
        ({"url": "http://h/mcp", "headers": {"Mcp-Session-Id": "3"}}, "is no header that a device can be given"),
        ({"url": "http://h/mcp", "headers": {"A": "hunter2\r\nB: c"}}, "a header's value is one line"),
        ({"command": "a", "env": {"A B": "c"}}, "`A B` is no name of an environment variable"),
        ({"command": "a", "env": {"A": "${B C}"}}, "names no variable"),
        ({"command": "a\0b"}, "a zero byte"),
        ({"command": "a", "args": ["x"] * 257}, "at most 256"),
        ({"command": "a", "calls": 0}, "`calls` must be above zero"),
        ({"command": "a", "start_s": -1.0}, "`start_s` must be above zero"),
        ({"command": "a", "memory_mib": 2**60}, "`memory_mib` must be above zero, and at most 16,777,216"),
        ({"command": "a", "calls": 10**30}, "calls"),
        ({"command": "a", "args": ["\udcff"]}, "a value is no UTF-8"),
        ({"url": "http://good.example\\@evil.example/mcp"}, "`url` must"),
        ({"url": "http://h/\x01mcp"}, "`url` must be http"),
        ({"command": "a", "protocol": "2024-11-05"}, "Invalid enum value"),
    ],
)
def test_a_mistake_is_named(entry: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        checked_spec("box", entry, "mains.toml: [devices.box]")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "Git", "1st", "a b", "a.b", "a" * 41, "\u0430dd"])
def test_names_are_checked(name: str) -> None:
    with pytest.raises(ConfigError, match="is no name for a device"):
        checked_spec(name, {"command": "a"}, "here")


@pytest.mark.parametrize("name", ["fi1es", "flles", "f-iles", "files_", "tirne", "vveb", "w-eb"])
def test_names_that_look_like_ours_look_alike(name: str) -> None:
    assert look_of(name) in {look_of(each) for each in ("files", "web", "time")}
    assert look_of("git") not in {look_of(each) for each in ("files", "web", "time")}


def test_no_table_is_told() -> None:
    with pytest.raises(ConfigError, match=r"write|no table"):
        load_devices([], "mains.toml")
    with pytest.raises(ConfigError, match=r"devices.git is no table"):
        load_devices({"git": "uvx"}, "mains.toml")


def test_a_child_gets_what_is_inherited_and_what_is_named() -> None:
    ours = {"PATH": "/bin", "AWS_SECRET": "s", "TOKEN": "t"}
    spec = checked_spec("box", {"command": "a", "env": {"A": "b", "T": "Bearer ${TOKEN}!"}}, "here")
    assert environment_of(spec, ours) == {"PATH": "/bin", "A": "b", "T": "Bearer t!"}


def test_a_value_is_not_read_twice() -> None:
    spec = checked_spec("box", {"command": "a", "env": {"T": "${A}"}}, "here")
    assert environment_of(spec, {"A": "${B}", "B": "secret"})["T"] == "${B}"


def test_a_variable_that_is_not_set_or_no_header_is_told() -> None:
    spec = checked_spec("box", {"url": "http://h/mcp", "headers": {"A": "${T}"}}, "here")
    with pytest.raises(ConfigError, match="the variable T is not set"):
        headers_of(spec, {})
    with pytest.raises(ConfigError, match="is no line of ASCII") as caught:
        headers_of(spec, {"T": "hunter2\nB: c"})
    assert "hunter2" not in str(caught.value)


def test_writing_keeps_what_a_person_wrote(tmp_path: Path) -> None:
    path = tmp_path / "mains.toml"
    path.write_text('# mine\n[settings]\nturns_max = 3 # few\n\n[devices.old]\ncommand = "x" # keep\n')
    spec = DeviceSpec(name="git", command="uvx", args=("a", "b"), env={"T": "${T}"})
    write_device(path, spec)
    text = path.read_text()
    assert "# mine" in text
    assert "# few" in text
    assert "# keep" in text
    assert load_devices(tomllib.loads(text)["devices"], "f")["git"] == spec
    assert (path.stat().st_mode & 0o777) == 0o600
    assert remove_device(path, "git")
    assert not remove_device(path, "git")
    assert "git" not in path.read_text()
    assert "# keep" in path.read_text()
