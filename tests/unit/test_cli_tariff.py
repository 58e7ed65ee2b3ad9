"""The verbs of tariffs: what they show of a home, without a daemon."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.daemon_box import Box

ENGINES = """
[rates]
cny = 0.139

[engines.intl]
kind = "openai"
url = "https://dashscope-intl.aliyuncs.com/compatible-mode/v1"
model = "qwen-plus"

[engines.cn]
kind = "openai"
url = "https://dashscope.aliyuncs.com/compatible-mode/v1"
model = "qwen-plus"

[engines.house]
kind = "openai"
url = "https://llm.example.org/v1"
model = "m"

[[engines.house.price]]
model = "big"
input = 1.5
output = 6
request = 0.001
zone = "Asia/Shanghai"
valid_to = 2999-01-01
windows = [
  { name = "weekend", days = "sat,sun", input = 0.5, output = 2 },
  { name = "night", days = "mon-thu", from = "22:00", to = "08:00", input = 0.5, output = 2 },
]
"""


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    made.home.config.write_text(made.home.config.read_text() + ENGINES)
    yield made
    made.close()


def test_tariffs_are_listed_without_a_daemon(box: Box) -> None:
    listed = {f"{row['engine']}/{row['model']}": row for row in box.json("tariff", "ls")}
    assert {name: row["price"] for name, row in listed.items() if not name.startswith("test")} == {
        "llama/smollm2-135m-instruct": "free",
        "intl/qwen-plus": "priced",
        "cn/qwen-plus": "priced",
        "house/m": "unpriced",
        "house/big": "priced",
    }
    assert listed["intl/qwen-plus"]["now"]["input"] == 0.4
    assert (listed["cn/qwen-plus"]["currency"], listed["cn/qwen-plus"]["exchange"]) == ("cny", 0.139)
    assert "no price is known of `m`" in listed["house/m"]["why"]
    shown = box.run("tariff", "ls").stdout
    assert shown.startswith("MODEL")
    assert "unpriced" in shown
    assert not box.home.held()


def test_a_tariff_is_shown_with_its_tiers(box: Box) -> None:
    lines = box.run("tariff", "show", "cn").stdout.splitlines()
    assert lines[0] == "cn/qwen-plus: cny for a million tokens, Beijing"
    assert lines[2].split() == ["always", "<=", "128,000", "0.8", "2", "0.2", "0.8", "0.8", "8", "0"]
    assert "exchange: 1 cny = 0.139 usd" in lines
    assert any(line.startswith("source: https://help.aliyun.com/") for line in lines)


def test_a_tariff_is_shown_with_its_windows_and_dates(box: Box) -> None:
    lines = box.run("tariff", "show", "house/big").stdout.splitlines()
    assert lines[1] == "valid to 2999-01-01T00:00+08:00"
    assert [line.split()[0] for line in lines[3:6]] == ["weekend", "night", "other"]
    assert lines[6:8] == [
        "weekend: sat,sun 00:00-24:00 (Asia/Shanghai)",
        "night: mon-thu 22:00-08:00 (Asia/Shanghai)",
    ]
    view = box.json("tariff", "show", "house/big")
    (snapshot,) = view["snapshots"]
    assert snapshot["windows"][1]["days"] == ["mon", "tue", "wed", "thu"]
    assert snapshot["tiers"][0]["request"] == 0.001


def test_free_and_unpriced_are_said_plainly(box: Box) -> None:
    assert box.run("tariff", "show", "llama").stdout == "llama/smollm2-135m-instruct: free (local)\n"
    unpriced = box.run("tariff", "show", "intl/qwen-0")
    assert unpriced.stdout.startswith("intl/qwen-0: unpriced: no price is known of `qwen-0` at https://")
    assert unpriced.returncode == 0


def test_what_cannot_be_shown_is_one_line(box: Box) -> None:
    unknown = box.run("tariff", "show", "nope")
    assert unknown.returncode == 2
    assert unknown.stderr.startswith("error: there is no engine `nope`")
    empty = box.run("tariff", "show", "")
    assert (empty.returncode, empty.stderr.splitlines()[0]) == (
        2,
        "error: there is no engine `` (known: cn, house, intl, llama, test)",
    )
    box.home.config.write_text(box.home.config.read_text().replace("input = 1.5", "input = -1.5"))
    for verb in (("tariff", "ls"), ("engine", "ls"), ("up",)):
        wrong = box.run(*verb)
        assert wrong.returncode == 2, verb
        assert "[engines.house.price]: `input` is below zero" in wrong.stderr
        assert len(wrong.stderr.splitlines()) == 2
