"""How many attacks there are, by what they attack; and that the test of each wants one clear line for an answer."""

from __future__ import annotations

from collections.abc import Callable, Collection

import pytest
from tests.unit import test_arguments
from tests.unit.bus.attacks import test_files_attacks, test_raw_attacks, test_web_attacks
from tests.unit.bus.attacks.answers import REFUSED, SERVED
from tests.unit.bus.attacks.rawattacks import ANSWERS, HELLOS, LISTS, STARTS

from mains.kernel.ports import Failed

FILES, ADDRESSES = test_files_attacks.DATA, test_web_attacks.ADDRESSES
CORPUS: dict[str, tuple[Collection[object], int, Callable[[str], object]]] = {
    # what is attacked: its attacks, how many there are at least, and what the answer to each goes through
    "paths": (FILES["paths"], 50, test_files_attacks.one_line),
    "names that look like a way out": (FILES["harmless"], 5, test_files_attacks.one_line),
    "links": (test_files_attacks.LINKS, 15, test_files_attacks.one_line),
    "races of links": (test_files_attacks.NAMES, 10, test_files_attacks.one_line),
    "patterns": (test_files_attacks.BOMBS, 20, test_files_attacks.one_line),
    "spellings of addresses": (ADDRESSES["urls"], 150, lambda text: test_web_attacks.refused(Failed(text))),
    "answers of resolvers": (ADDRESSES["answers"], 25, lambda text: test_web_attacks.refused(Failed(text))),
    "answers over HTTP": (REFUSED, 80, lambda text: test_web_attacks.refused(Failed(text))),
    "pages": (SERVED, 30, lambda text: test_web_attacks.refused(Failed(text))),
    "answers to calls": (ANSWERS, 85, test_raw_attacks.one_line),
    "lists of tools": (LISTS, 40, test_raw_attacks.one_line),
    "starts": ({*STARTS, *HELLOS}, 20, test_raw_attacks.one_line),
    "schemas": (test_arguments.BOMBS, 25, test_arguments.one_line),
}
ATTACKS_MIN = 200  # issue 6
LINE_MAX = 5_000  # of a path that is named whole; everything else is far shorter


def test_there_are_enough_attacks() -> None:
    few = {name: len(attacks) for name, (attacks, least, _) in CORPUS.items() if len(attacks) < least}
    assert not few
    assert all(len({str(each) for each in attacks}) == len(attacks) for attacks, _, _ in CORPUS.values())
    assert sum(len(attacks) for attacks, _, _ in CORPUS.values()) >= 3 * ATTACKS_MIN


@pytest.mark.parametrize("name", CORPUS)
@pytest.mark.parametrize("text", ["", "a\nb", "a\x1b[2J", "a\u2028b", "x" * (LINE_MAX + 1)], ids=ascii)
def test_the_answer_to_each_must_be_one_clear_line(name: str, text: str) -> None:
    clear = CORPUS[name][2]
    clear("no such host")
    with pytest.raises(AssertionError):
        clear(text)
