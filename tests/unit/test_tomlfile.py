"""Changes of mains.toml: by several at once, and of files that are no TOML."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mains.errors import ConfigError
from mains.tomlfile import edited, put_entry


def test_those_who_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "mains.toml"
    path.write_text("# mine\n")

    def add(number: int) -> None:
        with edited(path) as document:
            put_entry(document, "things", f"n{number}", {"number": number})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(40)))
    code = (
        f"from mains.tomlfile import *; from pathlib import Path\nwith edited(Path({str(path)!r})) as d: d['last'] = 1"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    text = path.read_text()
    assert text.startswith("# mine\n") and text.count("number = ") == 40 and "last = 1" in text


def test_nothing_is_written_when_the_block_raises_or_the_file_is_no_toml(tmp_path: Path) -> None:
    path = tmp_path / "mains.toml"
    path.write_text("a = 1\n")
    with pytest.raises(KeyError), edited(path) as document:
        document["a"] = 2
        raise KeyError
    assert path.read_text() == "a = 1\n"
    path.write_text("a = \n")
    with pytest.raises(ConfigError, match=r"mains\.toml"), edited(path):
        pass
    assert path.read_text() == "a = \n"


def test_what_cannot_be_read_or_written_is_told_in_a_line(tmp_path: Path) -> None:
    for target in (tmp_path / "nowhere" / "mains.toml", tmp_path):
        with pytest.raises(ConfigError) as caught, edited(target) as document:
            put_entry(document, "devices", "box", {"command": "x"})
        assert "\n" not in str(caught.value)
    file = tmp_path / "mains.toml"
    with pytest.raises(ConfigError), edited(file) as document:
        put_entry(document, "devices", "box", {"command": "half \ud800"})
    assert not file.exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [*range(1, 33), 0x7F, 0x85, 0x2028, 0xFEFF])
def test_whatever_is_written_can_be_read_again(tmp_path: Path, code: int) -> None:
    file, value = tmp_path / "mains.toml", f"a{chr(code)}b"
    with edited(file) as document:
        put_entry(document, "devices", "box", {"command": value})
    assert tomllib.loads(file.read_text("utf-8"))["devices"]["box"]["command"] == value
