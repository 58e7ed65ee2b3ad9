"""Which of several engines takes a call: what must be read there, who waits before it, who is at work."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mains.kernel.routing import Stand, choose

STANDS = st.builds(
    Stand,
    new_tokens=st.integers(0, 9_000), queued_tokens=st.integers(0, 9_000), running=st.integers(0, 8),
    slots=st.just(8), down=st.booleans(),
)  # fmt: skip


@given(stands=st.lists(STANDS, min_size=1, max_size=6), data=st.data())
def test_the_smallest_product_that_is_up_wins(stands: list[Stand], data: st.DataObject) -> None:
    current = data.draw(st.integers(0, len(stands) - 1))
    chosen = stands[choose(stands, current)]
    up = [stand for stand in stands if not stand.down] or stands
    assert chosen in up
    best = min((s.new_tokens + s.queued_tokens) * (s.running + 1) for s in up)
    assert (chosen.new_tokens + chosen.queued_tokens) * (chosen.running + 1) == best


def test_a_process_stays_where_it_is_warm_until_another_is_much_freer() -> None:
    warm, cold = Stand(100, 0, 3, 8), Stand(1_000, 0, 0, 8)
    assert choose([cold, warm], 1) == 1
    assert choose([cold, Stand(100, 500, 3, 8)], 1) == 0
    assert choose([Stand(5, 5, 1, 8), Stand(5, 5, 1, 8)], 1) == 1
