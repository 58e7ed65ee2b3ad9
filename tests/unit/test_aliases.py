"""Aliases of models and engines that serve one model together, as a home's mains.toml says."""

from __future__ import annotations

from pathlib import Path

import pytest

from mains.compose import Engines
from mains.errors import ConfigError
from mains.home import Home

TWO = """
[engines.a]
kind = "openai"
url = "http://127.0.0.1:9/v1"
model = "m"
[engines.b]
kind = "openai"
url = "http://127.0.0.1:8/v1"
model = "m"
[engines.c]
kind = "openai"
url = "http://127.0.0.1:7/v1"
model = "big"
"""


def engines(folder: Path, models: str) -> Engines:
    (folder / "mains.toml").write_text(f"{TWO}\n[models]\n{models}\n")
    return Engines.of(Home(folder))


def test_an_alias_stands_for_an_engine_a_model_or_several(tmp_path: Path) -> None:
    home = engines(tmp_path, 'fast = "a"\nsmart = ["c", "a"]')
    assert [(r.engine, r.model, r.group) for r in home.chain(("fast",))[0]] == [("a", "m", "")]
    assert [r.engine for r in home.chain(("smart",))[0]] == ["c", "a"]
    assert [r.engine for r in home.chain(("fast", "smart"))[0]] == ["a", "c"]
    assert home.chain(("fast",))[1] == [], "what was asked for"


def test_a_name_that_is_not_in_the_table_runs_on_the_default_engine_and_says_so(tmp_path: Path) -> None:
    routes, notes = engines(tmp_path, "").chain(("smart",))
    assert [r.engine for r in routes] == ["llama"]
    assert "`smart` is no engine or model" in notes[0]


def test_engines_with_one_model_serve_it_together(tmp_path: Path) -> None:
    home = engines(tmp_path, 'fast = "m"')
    assert [(r.engine, r.group) for r in home.chain(("m",))[0]] == [("a", "m"), ("b", "m")]
    assert [(r.engine, r.group) for r in home.chain(("fast",))[0]] == [("a", "m"), ("b", "m")]
    assert [(r.engine, r.group) for r in home.chain(("b",))[0]] == [("b", "")], "who names an engine gets that one"


@pytest.mark.parametrize(
    ("models", "told"),
    [
        ("fast = 3", "`fast` must be a name in quotes"),
        ("fast = []", "`fast` stands for 0 models"),
        ('fast = ["a", 1]', "`fast` must be a name in quotes"),
        ('a = "c"', "`a` is an engine already"),
        ('fast = "smart"\nsmart = "a"', "`fast` stands for the alias `smart`"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, models: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        engines(tmp_path, models)
    assert told in str(caught.value)


def test_of_a_table_that_was_broken_meanwhile_nothing_is_taken(tmp_path: Path) -> None:
    home = engines(tmp_path, 'fast = "a"')
    before = dict(home.specs), dict(home.aliases), home.default
    (tmp_path / "mains.toml").write_text(
        TWO.replace("engines.a", "engines.d") + '[models]\nfast = "quick"\nquick = "c"\n'
    )
    with pytest.raises(ConfigError, match="stands for the alias"):
        home.force("new")
    assert (dict(home.specs), dict(home.aliases), home.default) == before
