"""What leaves a frame: the rules that never bend, for frames of every kind, and small ones computed by hand."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mains.kernel.eviction import (
    DEFAULT,
    Entry,
    Marks,
    Misfit,
    Plan,
    Policy,
    Rates,
    Summary,
    expected_turns,
    marks_of,
    plan,
)

POLICY = Policy(stub_tokens=10, summary_tokens=30, keep_turns=2, factor=3.0, share=0.3)
WIDE = Marks(1_000_000, 1_000_000, 1_000_000)

# ------------------------------------------------------------------------------------------------- frames


def context(*grown: tuple[str, int], opening: tuple[int, ...] = (100,)) -> list[Entry]:
    """Entries in order; `result` answers the reply before it."""
    entries = [Entry(at - len(opening), at - len(opening) + 1, size, "program") for at, size in enumerate(opening)]
    return entries + [Entry(at, at + 1, size, kind, kind == "result") for at, (kind, size) in enumerate(grown)]


def applied(entries: Sequence[Entry], made: Plan, policy: Policy = POLICY) -> list[Entry]:
    """The frame after a plan, as covers make it."""
    stubs = set(made.stubs)
    changed = [
        each._replace(tokens=policy.stub_tokens, kind="stub") if each.tied and each.position in stubs else each
        for each in entries
    ]
    if made.summary is None:
        return changed
    first, until, kept = made.summary
    return [
        *(each for each in changed if each.position < first),
        *(changed[at]._replace(position=first, until=until) for at in kept),
        Entry(first, until, policy.summary_tokens, "summary"),
        *(each for each in changed if each.position >= until),
    ]


def size(entries: Sequence[Entry]) -> int:
    return sum(entry.tokens for entry in entries)


def last_turn(entries: Sequence[Entry]) -> int:
    return max((at for at, entry in enumerate(entries) if entry.kind == "reply"), default=0)


Part = st.SearchStrategy[tuple[str, list[tuple[str, int]], int]]
sizes = st.integers(1, 60) | st.integers(100, 3_000)
turn: Part = st.tuples(st.just("reply"), st.lists(st.tuples(st.just("result"), sizes), max_size=3), sizes)
other: Part = st.tuples(st.sampled_from(("message", "message", "rule", "notes", "recall")), st.just([]), sizes)


@st.composite
def frames(draw: st.DrawFn) -> list[Entry]:
    """A context of some turns; perhaps it was evicted from before, and went on."""
    grown: list[tuple[str, int]] = []
    for kind, results, tokens in draw(st.lists(turn | other, max_size=12)):
        grown += [(kind, tokens), *results]
    entries = context(*grown, opening=tuple(draw(st.lists(sizes, min_size=1, max_size=2))))
    for window in draw(st.lists(st.integers(200, 4_000), max_size=2)):
        made = plan(entries, marks_of(window, 90, 50), Rates(), 10, POLICY)
        entries = applied(entries, made) if isinstance(made, Plan) else entries
        at = entries[-1].until
        more = [("reply", draw(sizes)), ("result", draw(sizes))]
        entries += [Entry(at + n, at + n + 1, tokens, kind, kind == "result") for n, (kind, tokens) in enumerate(more)]
    return entries


windows = st.integers(50, 8_000).map(lambda window: marks_of(window, 90, 50))
prices = st.sampled_from((Rates(), Rates(1, 1, 1), Rates(1, 4, 4), Rates(0, 0, 0)))
spans = st.integers(1, 100)

# -------------------------------------------------------------------------------------------- what never bends


@given(frames(), windows, prices, spans, st.booleans())
def test_what_is_pinned_or_not_answered_stays_and_pairs_stay_whole(
    entries: list[Entry], limits: Marks, rates: Rates, left: int, warm: bool
) -> None:
    made = plan(entries, limits, rates, left, POLICY, warm=warm)
    if isinstance(made, Misfit):
        return
    after = applied(entries, made)
    assert [e.tokens for e in after if e.pinned] == [e.tokens for e in entries if e.pinned]
    assert after[-len(entries[last_turn(entries) :]) :] == entries[last_turn(entries) :]
    replies: dict[int, list[int]] = {e.position: [] for e in after if e.kind == "reply"}
    reply = None
    for entry in after:
        reply = entry.position if entry.kind == "reply" else reply if entry.tied else None
        if entry.tied:
            assert reply is not None, "a result without its call"
            replies[reply].append(entry.position)
    for at, entry in enumerate(entries):
        if entry.position in replies and entry.kind == "reply":
            results = []
            for behind in entries[at + 1 :]:
                if not behind.tied:
                    break
                results.append(behind.position)
            assert replies[entry.position] == results, "a call without its results"


@given(frames(), windows, prices, spans)
def test_ranges_are_well_formed_and_nested_or_disjoint(
    entries: list[Entry], limits: Marks, rates: Rates, left: int
) -> None:
    made = plan(entries, limits, rates, left, POLICY)
    if isinstance(made, Misfit):
        assert sorted(made.staying, key=lambda at: -entries[at].tokens) == list(made.staying)
        return
    until = 0
    if made.summary:
        first, until, kept = made.summary
        assert 0 <= first < until <= entries[last_turn(entries)].position
        assert first == min(entry.position for entry in entries if entry.position >= 0)
        for entry in entries:
            assert entry.until <= first or entry.position >= until or first <= entry.position < entry.until <= until
        inside = [at for at, entry in enumerate(entries) if first <= entry.position < until]
        assert set(kept) <= set(inside)
        assert {at for at in inside if entries[at].pinned} <= set(kept)
    assert list(made.stubs) == sorted(set(made.stubs))
    results = {e.position for e in entries if e.tied and e.kind != "stub" and e.until == e.position + 1}
    assert set(made.stubs) <= {position for position in results if position >= until}


@given(frames(), windows, prices, spans)
def test_a_plan_counts_as_the_frame_does(entries: list[Entry], limits: Marks, rates: Rates, left: int) -> None:
    made = plan(entries, limits, rates, left, POLICY)
    if isinstance(made, Misfit):
        return
    after = applied(entries, made)
    assert size(after) == made.tokens <= limits.window
    same = next((at for at, (old, new) in enumerate(zip(entries, after, strict=False)) if old != new), len(after))
    unread = size(entries[last_turn(entries) :])
    changed = bool(made.stubs or made.summary)
    kept_first = bool(made.summary and made.summary.kept and made.summary.kept[0] == same)
    assert changed or made.again == 0
    assert not changed or kept_first or made.again == size(after[same:]) - unread


@given(frames(), windows, prices, spans)
def test_it_goes_down_to_the_low_mark_or_as_far_as_it_can(
    entries: list[Entry], limits: Marks, rates: Rates, left: int
) -> None:
    made = plan(entries, limits, rates, left, POLICY)
    if isinstance(made, Misfit):
        assert least(entries, message=False) == made.tokens > limits.window
    elif made.forced:
        assert size(entries) > limits.window
        sparing = least(entries, message=True)
        reached = next((mark for mark in (limits.low, limits.high) if sparing <= mark), sparing)
        assert made.tokens <= (reached if sparing <= limits.window else least(entries, message=False))
    else:
        assert size(entries) <= limits.window


def least(entries: list[Entry], *, message: bool) -> int:
    """How small a frame can become, found by trying all cuts."""
    end = last_turn(entries)
    stay = {at for at, entry in enumerate(entries) if entry.pinned or at >= end}
    messages = [at for at, entry in enumerate(entries) if entry.kind == "message"]
    stay.update(messages[-1:] if message else ())

    def stubbed(at: int) -> int:
        entry = entries[at]
        fat = at < end and entry.tied and entry.kind != "stub" and entry.tokens >= 2 * POLICY.stub_tokens
        return POLICY.stub_tokens if fat else entry.tokens

    found = [sum(map(stubbed, range(len(entries))))]
    first = next((at for at, entry in enumerate(entries) if entry.position >= 0), end)
    for cut in range(first + 1, end + 1):
        if not entries[cut].tied and entries[cut].position >= entries[cut - 1].until:
            inside = sum(entries[at].tokens for at in range(cut) if at < first or at in stay)
            found.append(inside + POLICY.summary_tokens + sum(stubbed(at) for at in range(cut, len(entries))))
    return min(found)


@given(frames(), windows, prices, spans)
def test_what_fits_changes_only_when_that_pays(entries: list[Entry], limits: Marks, rates: Rates, left: int) -> None:
    made = plan(entries, limits, rates, left, POLICY)
    total = size(entries)
    if isinstance(made, Misfit) or made.forced or made.tokens == total:
        return
    saved, cost = total - made.tokens, made.again * rates.uncached
    if total > limits.high and made.tokens <= limits.low:
        call = 0.0
        if made.summary:
            read = size([entry for entry in entries if entry.position < made.summary.until])
            call = read * rates.cached + POLICY.summary_tokens * rates.output
        assert saved * left * rates.cached > cost + call
    else:
        assert made.summary is None
        assert saved * left * rates.cached > POLICY.factor * cost
        assert saved >= round(POLICY.share * total)


@given(frames(), windows, spans, st.integers(2, 9))
def test_the_same_frame_gives_the_same_plan_in_any_currency(
    entries: list[Entry], limits: Marks, left: int, worth: int
) -> None:
    dear = Rates(*(price * worth for price in Rates()))
    assert plan(entries, limits, Rates(), left, POLICY) == plan(list(entries), limits, dear, left, POLICY)


@given(frames(), spans)
@settings(max_examples=50)
def test_after_a_forced_plan_the_next_call_breaks_nothing(entries: list[Entry], left: int) -> None:
    limits = marks_of(max(2, size(entries) - 1), 90, 50)
    made = plan(entries, limits, Rates(), left, POLICY)
    if isinstance(made, Plan) and made.tokens <= limits.low:
        again = plan(applied(entries, made), limits, Rates(), left, POLICY._replace(share=1.0))
        assert again == Plan(made.tokens)


# ------------------------------------------------------------------------------------------- computed by hand


def turns(*results: int) -> list[tuple[str, int]]:
    return [pair for tokens in results for pair in (("reply", 20), ("result", tokens))]


def test_a_break_pays_when_its_turns_are_worth_what_is_read_again() -> None:
    """One result of 510 becomes 10: 500 are saved a turn. Behind it 290 of 310 tokens have been read before.

    Read again are the stub and those: 300, for 3,000. Six turns bring that, and eighteen three times that.
    """
    entries = context(*turns(510), ("reply", 270), ("reply", 20), ("reply", 20))
    made = plan(entries, WIDE, Rates(), 19, POLICY)
    assert made == Plan(size(entries) - 500, stubs=(1,), again=300)
    assert plan(entries, WIDE, Rates(), 18, POLICY) == Plan(size(entries))
    assert plan(entries, Marks(2_000, size(entries) - 1, 500), Rates(), 7, POLICY) == made
    assert plan(entries, Marks(2_000, size(entries) - 1, 500), Rates(), 6, POLICY) == Plan(size(entries))


def test_the_example_of_the_book() -> None:
    """Chapter 37."""
    grown = [pair for tokens in (2_600, 300, 2_600, 300, 40) for pair in (("reply", 60), ("result", tokens))]
    entries = context(*grown, opening=(1_500,))
    assert plan(entries, marks_of(31_000, 90, 50), Rates(), 10) == Plan(2_320, (1, 3, 5), None, 660)
    assert plan(entries, marks_of(2_100, 90, 50), Rates(), 10) == Plan(2_000, (), Summary(0, 8, ()), 400, forced=True)
    assert plan(entries, marks_of(1_900, 90, 50), Rates(), 10) == Misfit(2_000, 1_900, (0, 9, 10))


def test_below_the_high_mark_little_is_not_worth_a_new_prefix() -> None:
    entries = context(*turns(200, 20, 20), opening=(600,))
    assert plan(entries, WIDE, Rates(), 100, POLICY) == Plan(size(entries))
    assert plan(entries, WIDE, Rates(), 100, POLICY._replace(share=0.2)) != Plan(size(entries))


def test_old_results_stay_where_the_break_comes_after_them() -> None:
    """A small result at the beginning is not worth reading all again."""
    entries = context(*turns(30, 20), ("reply", 3_000), *turns(2_000, 20, 20))
    made = plan(entries, WIDE, Rates(), 30, POLICY)
    assert isinstance(made, Plan)
    assert made.stubs == (6,)


def test_the_last_turns_keep_their_results_as_long_as_it_fits() -> None:
    entries = context(*turns(900, 900, 900))
    relaxed = plan(entries, WIDE, Rates(), 50, POLICY)
    pressed = plan(entries, marks_of(1_200, 90, 50), Rates(), 50, POLICY)
    assert isinstance(relaxed, Plan)
    assert isinstance(pressed, Plan)
    assert (relaxed.stubs, relaxed.summary, relaxed.forced) == ((1,), None, False)
    assert (pressed.stubs, pressed.forced, pressed.tokens) == ((1, 3), True, 100 + 60 + 2 * 10 + 900)


def test_stubs_before_a_summary() -> None:
    entries = context(*turns(300, 300, 20, 20))
    stubs = plan(entries, Marks(700, 650, 400), Rates(), 10, POLICY)
    both = plan(entries, Marks(700, 650, 229), Rates(), 10, POLICY)
    assert isinstance(stubs, Plan)
    assert isinstance(both, Plan)
    assert (stubs.stubs, stubs.summary) == ((1, 3), None)
    assert both.summary is not None
    assert (both.summary[:2], both.stubs) == ((0, 4), (5,))


def test_an_older_summary_goes_into_the_next() -> None:
    entries = context(*turns(20) * 3)
    first = plan(entries, Marks(210, 200, 180), Rates(), 10, POLICY)
    assert isinstance(first, Plan)
    assert first.summary == (0, 4, ())
    entries = [*applied(entries, first), Entry(6, 7, 200, "reply"), Entry(7, 8, 200, "reply")]
    second = plan(entries, Marks(400, 390, 350), Rates(), 10, POLICY)
    assert isinstance(second, Plan)
    assert second.summary == (0, 7, ())


def test_what_one_cover_brought_goes_as_one() -> None:
    """A message that stood beside an old summary is no place to cut: the two have one range."""
    entries = context(("message", 300), ("reply", 200), ("result", 200), *turns(19))
    first = plan(entries, marks_of(500, 80, 50), Rates(), 10, POLICY)
    assert isinstance(first, Plan)
    assert first.summary == (0, 3, (1,))
    entries = [*applied(entries, first), Entry(5, 6, 10, "message"), Entry(6, 7, 20, "reply")]
    second = plan(entries, Marks(498, 490, 450), Rates(), 10, POLICY)
    assert isinstance(second, Plan)
    assert second.summary == (0, 3, ())
    assert second.tokens == size(applied(entries, second)) == 100 + 30 + 39 + 10 + 20


def test_a_stub_is_not_made_a_stub_again() -> None:
    entries = [Entry(-1, 0, 100, "program"), Entry(0, 1, 20, "reply"), Entry(1, 2, 500, "stub", tied=True)]
    entries += [Entry(2, 3, 20, "reply"), Entry(3, 4, 20, "reply")]
    assert plan(entries, WIDE, Rates(), 100, POLICY) == Plan(660)


def test_a_summary_pays_for_its_own_call() -> None:
    """470 are saved a turn; 50 are read again (500); the call reads 600 cached and writes 30 (2,100): six turns."""
    entries = context(("reply", 500), ("reply", 20), ("reply", 20))
    limits = Marks(2_000, 639, 300)
    assert plan(entries, limits, Rates(), 5, POLICY) == Plan(640)
    assert plan(entries, limits, Rates(), 6, POLICY) == Plan(170, (), Summary(0, 1, ()), 50)


def test_the_message_that_began_the_exchange_stays_until_nothing_else_helps() -> None:
    entries = context(("message", 300), *turns(400, 20))
    spared = plan(entries, marks_of(530, 90, 50), Rates(), 10, POLICY)
    assert isinstance(spared, Plan)
    assert spared.summary is None
    assert spared.tokens == 100 + 300 + 20 + 10 + 40
    gone = plan(entries, marks_of(460, 90, 50), Rates(), 10, POLICY)
    assert isinstance(gone, Plan)
    assert gone.summary == (0, 3, ())
    newer = [*entries, Entry(5, 6, 10, "message")]  # then the older one is as old as any
    made = plan(newer, marks_of(500, 90, 50), Rates(), 10, POLICY)
    assert isinstance(made, Plan)
    assert made.summary == (0, 1, ())


def test_what_is_pinned_stays_beside_the_summary() -> None:
    entries = context(("reply", 300), ("rule", 50), *turns(300, 20))
    made = plan(entries, marks_of(400, 90, 60), Rates(), 10, POLICY)
    assert isinstance(made, Plan)
    assert made.summary == (0, 4, (2,))
    assert [e.kind for e in applied(entries, made)] == ["program", "rule", "summary", "reply", "result"]


def test_an_answer_is_never_pinned() -> None:
    """Notes that came as the result of a call leave with that call, or become a stub."""
    entries = context(*turns(300, 19, 19), ("reply", 20))
    entries[2] = entries[2]._replace(kind="notes")
    made = plan(entries, marks_of(300, 90, 80), Rates(), 10, POLICY)
    gone = plan(entries, marks_of(200, 90, 60), Rates(), 10, POLICY)
    assert isinstance(made, Plan)
    assert isinstance(gone, Plan)
    assert made.stubs == (1,)
    assert gone.summary == (0, 6, ())


def test_what_cannot_fit_is_named_with_the_largest_first() -> None:
    entries = context(("rule", 700), ("message", 40), *turns(50, 900), opening=(200, 400))
    made = plan(entries, marks_of(1_500, 90, 50), Rates(), 10, POLICY)
    assert isinstance(made, Misfit)
    assert [entries[at].tokens for at in made.staying] == [900, 700, 400, 200, 20]
    assert made.tokens == 900 + 700 + 400 + 200 + 20 + POLICY.summary_tokens


def test_nothing_was_answered_yet_so_nothing_may_go() -> None:
    entries = context(("message", 700), ("message", 40))
    assert plan(entries, marks_of(500, 90, 50), Rates(), 10, POLICY) == Misfit(840, 500, (1, 0, 2))
    assert plan([], marks_of(500, 90, 50), Rates(), 10, POLICY) == Plan(0)


def test_a_cold_cache_reads_all_again_anyway() -> None:
    entries = context(*turns(900, 19, 19), ("reply", 500), ("reply", 20))
    assert plan(entries, WIDE, Rates(), 2, POLICY) == Plan(size(entries))
    made = plan(entries, WIDE, Rates(), 2, POLICY, warm=False)
    assert isinstance(made, Plan)
    assert (made.stubs, made.again) == ((1,), 0)


def test_turns_that_are_left() -> None:
    assert [expected_turns(turns, 200) for turns in (0, 3, 10, 60, 150, 199, 200)] == [10, 10, 10, 60, 50, 1, 1]
    assert marks_of(1_000, 90, 50) == Marks(1_000, 900, 500)


@pytest.mark.parametrize("limits", [WIDE, marks_of(400_000, 90, 20), marks_of(4_000, 90, 50), marks_of(2_000, 90, 50)])
def test_ten_thousand_entries_in_twenty_milliseconds(limits: Marks) -> None:
    entries = context(*turns(*[900] * 5_000))
    spans = []
    for _ in range(10):
        begun = time.process_time()
        plan(entries, limits, Rates(), 100, DEFAULT)
        spans.append(time.process_time() - begun)
    assert min(spans) < 0.02
