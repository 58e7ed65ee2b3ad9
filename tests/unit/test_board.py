"""The board of `mains top`: order, filter, speed, selection, and what fits on a screen."""

from __future__ import annotations

import time
from typing import Any

import pytest

from mains.cli.board import Board, cells_of, fitted


def view(pid: int, **other: Any) -> dict[str, Any]:
    return {
        "pid": pid, "parent": None, "program": "say", "state": "WAITING", "reason": "", "turns": 0, "tokens": 0,
        "created_at": f"2026-01-01T00:00:{pid % 60:02}.000Z", "label": "", "account": "home",
    } | other  # fmt: skip


def survey(*views: dict[str, Any], tokens: int = 0) -> dict[str, Any]:
    states: dict[str, int] = {}
    for each in views:
        states[each["state"]] = states.get(each["state"], 0) + (each["state"] != "EXITED")
    engines = [{"name": "e", "busy": 1, "slots": 2, "tokens_per_s": 7.4, "health": "ok"}]
    return {"seq": 1, "tokens": tokens, "states": states, "engines": engines, "processes": list(views)}


def pids(board: Board) -> list[int]:
    return [each["pid"] for each in board.rows()]


def drawn(board: Board, width: int = 80, height: int = 10) -> list[str]:
    return ["".join(text for _, text in line) for line in board.lines(width, height)]


@pytest.mark.parametrize(
    ("steps", "expected"), [(0, [1, 2, 3]), (1, [2, 3, 1]), (2, [3, 1, 2]), (3, [1, 3, 2]), (4, [1, 2, 3])]
)
def test_each_order_and_its_reverse(steps: int, expected: list[int]) -> None:
    board = Board()
    start = [view(1, tokens=0), view(2, state="RUNNING", tokens=0), view(3, tokens=80, state="STOPPED")]
    board.take(survey(*start), 0)
    board.take(survey(view(1, tokens=50), start[1], view(3, tokens=90, state="STOPPED")), 5)
    for _ in range(steps):
        board.sort_next()
    assert pids(board) == expected
    board.reverse = True
    assert pids(board) == expected[::-1]


def test_a_speed_is_of_the_last_seconds() -> None:
    board = Board()
    for second in range(31):
        board.take(survey(view(1, tokens=100 * second), tokens=300 * second), second)
    assert board.speed(view(1, tokens=3_000)) == pytest.approx(100)
    assert board.total_speed() == pytest.approx(300)
    board.take(survey(view(1, tokens=3_000), view(2, tokens=50), tokens=9_050), 35)  # 2 was born after the oldest look
    assert board.speed(view(1, tokens=3_000)) == pytest.approx(50)
    assert board.speed(view(2, tokens=50)) == pytest.approx(5)
    board.take(survey(view(1, tokens=3_000)), 60)
    assert board.speed(view(1, tokens=3_000)) == 0


def test_the_first_survey_has_no_speed() -> None:
    board = Board()
    board.take(survey(view(1, tokens=5_000), tokens=5_000), 3)
    assert (board.speed(view(1, tokens=5_000)), board.total_speed()) == (0, 0)


def test_a_filter_looks_at_pid_program_state_and_reason() -> None:
    board = Board()
    board.take(survey(view(1), view(22, reason="human"), view(3, label="b.md"), view(4, state="RUNNING")), 0)
    for wanted, expected in (("22", [22]), ("HUM", [22]), ("b.md", [3]), ("runn", [4]), ("nothing", [])):
        board.filter = wanted
        assert pids(board) == expected
    assert board.chosen() is None
    assert "0 listed" in drawn(board)[0]


def test_the_selected_process_stays_selected() -> None:
    board = Board()
    board.take(survey(*map(view, range(1, 6))), 0)
    board.move(2)
    assert board.selected == 3
    board.take(survey(*map(view, range(2, 9))), 1)
    assert (board.chosen() or {})["pid"] == 3
    board.take(survey(*map(view, (2, 4, 5))), 2)  # it is gone: who stands in its place
    assert (board.chosen() or {})["pid"] == 4
    board.move(-99)
    assert board.selected == 2
    board.move(99)
    assert board.selected == 5


@pytest.mark.parametrize("width", [20, 40, 80, 200])
@pytest.mark.parametrize("height", [1, 3, 4, 10])
def test_it_fits_and_shows_the_selected_row(width: int, height: int) -> None:
    board = Board()
    board.take(survey(*(view(pid, program="語" * 30, reason="r" * 90) for pid in range(1, 101))), 0)
    for by in (60, -30, 99):
        board.move(by)
        lines = drawn(board, width, height)
        assert len(lines) <= height
        if height >= 4:
            assert any(line.split()[0] == str(board.selected) for line in lines[3:])
        if width >= 80:
            assert all(cells_of(line) <= width for line in lines[2:])


def test_what_others_wrote_cannot_steer_the_terminal() -> None:
    board = Board()
    board.take(survey(view(1, program="a\x1b[2J", reason="b\nc\x07")), 0)
    assert not any(char in "".join(drawn(board)) for char in "\x1b\n\x07")


def test_ten_thousand_processes_are_drawn_quickly() -> None:
    board = Board()
    many = survey(*(view(pid, tokens=pid) for pid in range(1, 10_001)))
    for second in range(12):
        board.take(many, second)
    board.order = "tokens/s"
    begun_s = time.perf_counter()
    board.lines(100, 30)
    assert time.perf_counter() - begun_s < 1  # 25 ms on a quiet machine


def test_texts_fit_by_columns() -> None:
    assert fitted("abc", 5) == "abc  "
    assert fitted("7", 3, right=True) == "  7"
    assert fitted("abcdef", 4) == "abc…"
    assert [cells_of(fitted("語語語", width)) for width in (3, 4, 5, 6)] == [3, 4, 5, 6]
    assert fitted("abc", 0) == ""
