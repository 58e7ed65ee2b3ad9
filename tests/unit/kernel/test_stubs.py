"""What stands for pages that have left a frame."""

from __future__ import annotations

import pytest

from mains.kernel import stubs
from mains.kernel.context import tokens_of
from mains.kernel.ports import Message
from mains.program import BYTES_PER_TOKEN

EARLIER = "\n".join(["The task is to price line 5.", *[f"Fact {n} of the way." for n in range(200)], "Berlin is open."])


def entries(summary: str, results: int) -> list[tuple[int, Message]]:
    """An earlier summary of the first ten positions, and results behind it."""
    said = [(10 + n, Message(role="tool", text=f"result {n} says so\nand more", name="look")) for n in range(results)]
    return [(0, stubs.summary(summary, 0, 10)), *said]


def test_an_extract_carries_the_earlier_summary_whole_where_it_fits() -> None:
    text = stubs.extract(entries("The task is to price line 5.\nThe key is K77.", 3), 200)
    assert text.split("\n") == [
        "The task is to price line 5.",
        "The key is K77.",
        *[f"- mem:{10 + n} result of look: result {n} says so and more" for n in range(3)],
    ]


@pytest.mark.parametrize("results", [1, 4, 200])
@pytest.mark.parametrize("tokens", [100, 400])
def test_an_earlier_summary_and_what_is_new_share_the_room(results: int, tokens: int) -> None:
    text = stubs.extract(entries(EARLIER, results), tokens)
    room = tokens * BYTES_PER_TOKEN
    assert len(text.encode()) <= room + len("- (198 more)\n")
    earlier, _, _ = text.partition("- mem:")
    assert earlier.startswith("The task is to price line 5.\n") and earlier.endswith("\nBerlin is open.\n")
    assert len(earlier.encode()) > room * 2 // 5, "half of the room is the earlier one's"
    assert f"- mem:{9 + results} " in text, "and the newest stands at the end"
    assert room * 3 // 4 < len(text.encode()), "what the one leaves is the other's"


def test_an_extract_of_extracts_still_says_what_it_is_about() -> None:
    said = [(n, Message(role="user", text=f"message {n}: " + "word " * 40)) for n in range(8)]
    page = stubs.summary(stubs.extract([(0, Message(role="user", text="Price line 5.")), *said], 200), 0, 8)
    for turn in range(1, 20):
        page = stubs.summary(stubs.extract([(0, page), (8 * turn, Message(role="user", text="On."))], 200), 0, 8 * turn)
    assert page.text.split("\n")[1] == "- mem:0 message: Price line 5."
    assert page.text.endswith("- mem:152 message: On.") and page.text.count("[Summary of") == 1
    assert tokens_of(page) < 260
