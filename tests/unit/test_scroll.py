"""What an attached terminal shows: each text once, attempts never mixed, nothing that steers the terminal."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mains.cli.scroll import Scroll
from mains.cli.talkscreen import wrapped
from mains.cli.typed import goes_on, meant, open_history
from mains.errors import ConfigError


def told(scroll: Scroll, *parts: dict[str, Any]) -> list[str]:
    return [text for part in parts for _, text in scroll.hear(part)]


def delta(text: str, turn: int = 1, attempt: int = 1, *, holed: bool = False) -> dict[str, Any]:
    return {"kind": "delta", "turn": turn, "attempt": attempt, "text": text, "holed": holed}


def said(text: str, *calls: tuple[str, str], seq: int = 5) -> dict[str, Any]:
    made = [{"id": "c", "name": name, "arguments": arguments} for name, arguments in calls]
    return {"kind": "said", "seq": seq, "text": text, "calls": made}


@given(st.text(alphabet="ab \n", max_size=60), st.lists(st.integers(0, 60), max_size=5))
def test_however_it_is_cut_a_stream_is_shown_once(text: str, cuts: list[int]) -> None:
    at = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    scroll = Scroll()
    pieces = [delta(text[a:b]) for a, b in pairwise(at)]
    shown = "\n".join(told(scroll, *pieces, said(text)))
    assert shown.rstrip("\n") == text.rstrip("\n")
    assert scroll.live == ""


@given(st.text(alphabet="ab \n", min_size=1, max_size=60), st.integers(0, 60), st.integers(0, 60))
def test_a_hole_in_a_stream_is_filled_by_the_reply(text: str, lost: int, found: int) -> None:
    scroll = Scroll()
    shown = told(scroll, delta(text[:lost]), delta(text[max(lost, found) :], holed=True), said(text))
    assert "\n".join(shown).rstrip("\n") == text.rstrip("\n")


def test_what_streams_is_live_until_its_line_is_whole() -> None:
    scroll = Scroll()
    assert told(scroll, delta("one\ntw")) == ["one"]
    assert scroll.live == "tw"
    assert told(scroll, delta("o")) == []
    assert told(scroll, said("one\ntwo", ("files.read", '{"path": "a.md", "n": 3}'))) == ["two", "· files.read a.md 3"]
    assert (scroll.live, scroll.reply, scroll.seq) == ("", "one\ntwo", 5)


def test_the_middle_of_a_stream_is_only_live() -> None:
    scroll = Scroll()
    assert told(scroll, delta("two\nthree", holed=True)) == []
    assert scroll.live == "…two\nthree"
    assert told(scroll, {"kind": "failed", "text": "no", "again": False}) == []
    assert scroll.live == ""


def test_attempts_are_never_mixed() -> None:
    scroll = Scroll()
    failed = {"kind": "failed", "text": "broken", "again": True}
    assert told(scroll, delta("ha"), failed) == ["ha", "(the text above was not kept: broken; asked again)"]
    assert told(scroll, delta("whole", attempt=2), said("whole")) == ["whole"]
    assert told(scroll, delta("old", turn=2), delta("new", turn=2, attempt=2)) == [
        "old",
        "(the text above was not kept)",
    ]
    assert told(scroll, said("another")) == ["new", "(the text above was not kept)", "another"]
    assert told(scroll, failed) == ["· broken; asked again"]


def test_questions_and_doubts_are_told_when_they_are_new() -> None:
    scroll = Scroll()
    standing = {"kind": "standing", "conversation": True, "asks": ["May\nI?"], "doubts": ["press {}"]}
    assert told(scroll, standing) == ["? May", "I?", "may or may not have happened: press {}"]
    assert told(scroll, standing) == []
    assert told(scroll, {"kind": "result", "name": "ask", "text": "yes"}) == ["", "> yes"]
    assert told(scroll, {"kind": "result", "name": "files.read", "text": "a long file"}) == []
    assert told(scroll, {"kind": "result", "name": "web", "text": "error: gone"}) == ["  web: error: gone"]


def test_the_result_is_told_unless_it_was_said() -> None:
    scroll = Scroll()
    told(scroll, said("bye"))
    assert told(scroll, {"kind": "exited", "text": "bye", "code": 0}) == []
    assert told(Scroll(), {"kind": "exited", "text": "bye", "code": 0}) == ["bye"]


def test_nothing_steers_the_terminal() -> None:
    bad = "a\x1b[2J\x07b\rc"
    parts = [
        delta(bad), said(bad + "x", (bad, bad)),
        {"kind": "heard", "text": bad}, {"kind": "sent", "text": bad, "name": bad},
        {"kind": "result", "name": "ask", "text": bad}, {"kind": "result", "name": "x", "text": f"error: {bad}"},
        {"kind": "mend", "text": bad}, {"kind": "failed", "text": bad, "again": True}, {"kind": "rested", "text": bad},
        {"kind": "note", "text": bad}, {"kind": "exited", "text": bad},
        {"kind": "standing", "conversation": False, "asks": [bad], "doubts": [bad]},
    ]  # fmt: skip
    for part in parts:
        scroll = Scroll()
        shown = [*told(scroll, part), scroll.live]
        assert any("a" in line for line in shown), part
        assert not any(char in "".join(shown) for char in "\x1b\x07\r"), part


def test_rows_of_a_terminal() -> None:
    assert wrapped("abcdef\ngh", 4, 5) == ["abcd", "ef", "gh"]
    assert wrapped("abcdef\ngh", 4, 2) == ["ef", "gh"]
    assert wrapped("語語語", 5, 5) == ["語語", "語"]
    assert wrapped("the end of a row", 8, 5) == ["the end", "of a row"]
    assert wrapped("    indented words stay", 12, 5) == ["    indented", "words stay"]
    assert wrapped("a wordthatistoolong b", 6, 9) == ["a", "wordth", "atisto", "olong", "b"]
    assert wrapped("", 6, 1) == [""]
    assert len(wrapped("x" * 100_000, 80, 10)) == 10


def test_when_enter_means_another_line() -> None:
    assert goes_on("a\\") == "a\n"
    assert goes_on("a\\\\") is None
    assert goes_on("a") is None
    assert goes_on('"""') == '"""\n'
    assert goes_on('"""a\nb') == '"""a\nb\n'
    assert goes_on('"""a\nb"""') is None
    assert [meant(text) for text in (" a ", '"""\na\nb\n"""', '"""', "a\nb")] == ["a", "a\nb", '"""', "a\nb"]


def test_the_history_is_private_and_bounded(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_text("".join(f"\n# 2026-01-01\n+line {number}\n" for number in range(1_000)))
    path.chmod(0o644)
    history = open_history(path, 4_000)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_size <= 2_000
    entries = list(history.load_history_strings())
    assert entries[0] == "line 999"
    assert all(entry.startswith("line ") for entry in entries)
    with pytest.raises(ConfigError, match="history"):
        open_history(tmp_path, 4_000)
