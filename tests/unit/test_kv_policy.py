"""What the embedded engine keeps: the pure decisions, against their definitions."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from mains.engines.kv_policy import (
    KEEP_S_MAX,
    PAUSES_MAX,
    TOOLS_MAX,
    Filed,
    Held,
    Pauses,
    Want,
    chain_of,
    choose,
    keep_more_s,
    least_valuable,
    shared_tokens,
    to_clear,
)
from mains.kernel.ports import Message

seconds = st.floats(0, 60)
positive = st.floats(0.001, 60)
texts = st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), st.text(max_size=12)), max_size=6)


def worth(pauses: list[float], away_s: float, gain_s: float, price: float, more_s: float) -> float:
    """What keeping a slot for `more_s` more is worth, by definition: the mean over the pauses that are not over."""
    rest = [pause - away_s for pause in pauses if pause > away_s]
    gains = [gain_s if pause <= more_s else 0.0 for pause in rest]
    costs = [price * min(pause, more_s) for pause in rest]
    return (sum(gains) - sum(costs)) / len(rest) if rest else -price * more_s


@given(st.lists(seconds, min_size=1, max_size=20), st.floats(0, 29), positive, st.floats(0.01, 20), positive)
def test_no_time_to_live_is_better(
    pauses: list[float], away_s: float, gain_s: float, price: float, other_s: float
) -> None:
    chosen_s = keep_more_s(pauses, away_s, gain_s, price)
    assert 0 <= chosen_s <= KEEP_S_MAX - away_s
    best = worth(pauses, away_s, gain_s, price, chosen_s)
    for more_s in (0.0, *(pause - away_s for pause in pauses), other_s):
        if 0 <= more_s <= KEEP_S_MAX - away_s:
            assert worth(pauses, away_s, gain_s, price, more_s) <= best + 1e-9


@given(st.lists(seconds, max_size=20), seconds, positive, positive, st.floats(0, 20))
def test_who_costs_more_to_bring_back_is_kept_as_long_or_longer(
    pauses: list[float], away_s: float, gain_s: float, more_s: float, price: float
) -> None:
    longer_s = keep_more_s(pauses, away_s, gain_s + more_s, price)
    assert longer_s >= keep_more_s(pauses, away_s, gain_s, price) - 1e-9


@given(st.floats(0, 1_000), st.floats(0.001, 20), st.floats(1, 20))
def test_without_measurements_the_loss_is_at_most_twice_that_of_foresight(
    pause_s: float, gain_s: float, price: float
) -> None:
    kept_s = keep_more_s((), 0.0, gain_s, price)
    lost = price * pause_s if pause_s <= kept_s else price * kept_s + gain_s
    assert lost <= 2 * min(price * pause_s, gain_s) + 1e-9


def test_a_tool_that_is_quick_keeps_its_slot_and_a_slow_one_does_not() -> None:
    quick, slow = [0.2] * 10, [20.0] * 10
    assert keep_more_s(quick, 0.0, gain_s=5.0, price=1) == 0.2
    assert keep_more_s(slow, 0.0, gain_s=5.0, price=1) == 0.0
    assert keep_more_s(quick, 0.3, gain_s=5.0, price=1) == 0.0, "it is away for longer than ever"
    assert keep_more_s(quick, 0.0, gain_s=0.05, price=1) == 0.0, "a file brings it back sooner"
    assert keep_more_s(slow, 0.0, gain_s=5.0, price=0) == KEEP_S_MAX, "nobody wants the slot"
    assert keep_more_s(quick, KEEP_S_MAX, gain_s=5.0, price=0) == 0.0


def test_pauses_are_bounded_and_the_newest() -> None:
    pauses = Pauses()
    for at in range(PAUSES_MAX + 5):
        pauses.note("tool", at)
    assert list(pauses.of("tool")) == list(range(5, PAUSES_MAX + 5))
    for at in range(TOOLS_MAX):
        pauses.note(f"other {at}", 1.0)
    assert list(pauses.of("tool")) == []
    pauses.note("back", -1.0)
    assert list(pauses.of("back")) == [0.0]


def test_pauses_that_are_noted_again_stay() -> None:
    pauses = Pauses()
    pauses.note("often", 1.0)
    for at in range(TOOLS_MAX - 1):
        pauses.note(f"other {at}", 1.0)
    pauses.note("often", 2.0)
    pauses.note("new", 1.0)
    assert list(pauses.of("often")) == [1.0, 2.0]
    assert list(pauses.of("other 0")) == []


# ------------------------------------------------------------------------------------------------------------- slots

helds = st.builds(
    Held,
    slot=st.just(0),
    tenant=st.integers(0, 2),
    process=st.integers(0, 4),
    tokens=st.integers(0, 500),
    tool=st.sampled_from(["", "search"]),
    used_s=st.floats(0, 10),
    saved=st.booleans(),
    doubtful=st.booleans(),
    busy=st.booleans(),
)


def numbered(slots: list[Held]) -> list[Held]:
    """Slots with their numbers; no process is in two of them."""
    seen: set[int] = set()
    made: list[Held] = []
    for number, held in enumerate(slots):
        process = 0 if held.process in seen else held.process
        seen.add(process)
        made.append(
            Held(
                **{**{name: getattr(held, name) for name in Held.__struct_fields__}, "slot": number, "process": process}
            )
        )
    return made


@given(
    st.lists(helds, min_size=1, max_size=6),
    st.integers(0, 2),
    st.integers(0, 4),
    st.lists(seconds, min_size=6, max_size=6),
)
def test_a_call_gets_its_own_slot_or_one_that_nobody_is_waited_for(
    slots: list[Held], tenant: int, process: int, keep: list[float]
) -> None:
    slots = numbered(slots)
    slot, wait_s = choose(slots, Want(tenant, process, ()), lambda held: keep[held.slot])
    own = [h for h in slots if process and (h.process, h.tenant) == (process, tenant) and not h.busy and not h.doubtful]
    if own:
        assert slot == own[0].slot
        return
    given_up = [h.slot for h in slots if not h.busy and (not h.process or h.doubtful or keep[h.slot] <= 0)]
    if given_up:
        assert slot in given_up
    else:
        assert slot is None
        assert wait_s == min((keep[h.slot] for h in slots if not h.busy), default=float("inf"))


def test_which_slot_is_given_away() -> None:
    chain = chain_of("", [Message("system", "x" * 400)])
    want = Want(1, 9, chain)
    shared = Held(slot=0, tenant=1, process=1, chain=chain, tokens=100, saved=False, used_s=9)
    empty = Held(slot=1)
    filed = Held(slot=2, tenant=1, process=2, tokens=100, used_s=5)
    answered = Held(slot=3, tenant=1, process=3, tokens=100, saved=False, used_s=5)
    away = Held(slot=4, tenant=1, process=4, tokens=100, saved=False, tool="search", used_s=1)
    younger = Held(slot=5, tenant=1, process=5, tokens=100, saved=False, tool="search", used_s=2)
    doubtful = Held(slot=6, tenant=1, tokens=100, doubtful=True)
    order = [shared, empty, filed, answered, away, younger, doubtful]
    for at in range(len(order)):
        assert choose(order[:at:-1] + order[at : at + 1], want, lambda _: 0.0)[0] == order[at].slot
    better_filed = Want(1, 9, chain, filed_tokens=200)
    assert choose(order, better_filed, lambda _: 0.0)[0] == empty.slot
    assert choose(order, Want(2, 9, chain), lambda _: 0.0)[0] == empty.slot, "another tenant shares nothing"


@given(st.lists(helds, min_size=1, max_size=6), st.integers(0, 2_000), st.integers(0, 2_000))
def test_the_slots_that_are_cleared_make_room_and_no_more(slots: list[Held], wanted: int, room: int) -> None:
    slots = numbered(slots)
    cleared = to_clear(slots, wanted, room)
    assert not any(slots[slot].busy for slot in cleared)

    def fits(gone: list[int]) -> bool:
        return sum(h.tokens for h in slots if not h.busy and h.slot not in gone) + wanted <= room

    assert fits(cleared) or all(h.busy or not h.tokens or h.slot in cleared for h in slots)
    assert not cleared or not fits(cleared[:-1])


# ------------------------------------------------------------------------------------------------------------- files

sizes = st.tuples(st.integers(1, 1_000), st.integers(0, 1_000), st.floats(0, 10_000))


@given(st.lists(sizes, max_size=12), st.integers(0, 2_000), st.integers(0, 5_000))
def test_the_files_that_go_are_the_least_valuable_and_not_too_many(
    made: list[tuple[int, int, float]], need: int, most: int
) -> None:
    files = {str(at): Filed(str(at), *each) for at, each in enumerate(made)}
    gone = least_valuable(files.values(), need, most, 10_000.0)

    def left(names: list[str]) -> int:
        return sum(file.bytes for name, file in files.items() if name not in names) + need

    assert left(gone) <= most or len(gone) == len(files)
    assert not gone or left(gone[:-1]) > most
    kept = least_valuable(files.values(), 10**9, 0, 10_000.0)
    assert kept[: len(gone)] == gone, "the order is one and the same"


def test_what_makes_a_file_valuable() -> None:
    plain = Filed("plain", 100, 100, 50.0)
    for worse in (Filed("old", 100, 100, 0.0), Filed("large", 200, 100, 50.0), Filed("short", 100, 50, 50.0)):
        assert least_valuable([plain, worse], 0, plain.bytes + worse.bytes - 1, 60.0) == [worse.name]


@given(texts, texts)
def test_prompts_share_the_messages_that_they_begin_with(
    one: list[tuple[str, str]], other: list[tuple[str, str]]
) -> None:
    first, second = ([Message(role, text) for role, text in each] for each in (one, other))  # type: ignore[arg-type]
    alike = list(itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))
    chain = chain_of("seed", first)
    assert shared_tokens(chain, chain_of("seed", second)) == (chain[len(alike) - 1][1] if alike else 0)
    assert shared_tokens(chain, chain_of("another tenant", first)) == 0
