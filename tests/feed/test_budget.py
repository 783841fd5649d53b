"""A token bucket that is told the time."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perpwatch.feed.budget import Budget


def test_turns_are_spaced_by_the_rate() -> None:
    budget = Budget(rate=4.0)
    assert [budget.take(100.0) for _ in range(4)] == [0.0, 0.25, 0.5, 0.75]


def test_a_burst_is_free_after_a_quiet_spell() -> None:
    budget = Budget(rate=1.0, burst=3.0)
    assert [budget.take(0.0) for _ in range(5)] == [0.0, 0.0, 0.0, 1.0, 2.0]
    assert [budget.take(100.0) for _ in range(4)] == [0.0, 0.0, 0.0, 1.0]


def test_looking_does_not_take_a_turn() -> None:
    budget = Budget(rate=2.0)
    assert budget.wait(0.0) == 0.0
    budget.take(0.0)
    assert [budget.wait(0.0), budget.wait(0.0), budget.wait(0.25), budget.wait(9.0)] == [0.5, 0.5, 0.25, 0.0]


def test_a_costly_turn_keeps_the_next_waiting_longer() -> None:
    budget = Budget(rate=2.0)
    assert budget.take(0.0, cost=3.0) == 0.0
    assert budget.take(0.0) == 1.5


def test_a_pause_holds_everybody_and_never_shortens() -> None:
    budget = Budget(rate=10.0, burst=5.0)
    budget.pause(8.0)
    budget.pause(3.0)
    assert budget.take(1.0) == 7.0


@pytest.mark.parametrize(("rate", "burst"), [(0.0, 1.0), (-1.0, 1.0), (1.0, 0.5)])
def test_an_impossible_budget_is_refused(rate: float, burst: float) -> None:
    with pytest.raises(ValueError, match="a rate above 0"):
        Budget(rate, burst)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    rate=st.floats(0.5, 20.0),
    burst=st.integers(1, 5),
    pauses_s=st.lists(st.floats(0.0, 2.0), min_size=2, max_size=40),
)
def test_no_window_holds_more_than_the_burst_and_the_rate(rate: float, burst: int, pauses_s: list[float]) -> None:
    budget = Budget(rate, float(burst))
    now_s, used_s = 0.0, list[float]()
    for pause_s in pauses_s:
        now_s += pause_s
        used_s.append(now_s + budget.take(now_s))
    used_s.sort()
    for first, start_s in enumerate(used_s):
        for count, end_s in enumerate(used_s[first:], start=1):
            assert count <= burst + rate * (end_s - start_s) + 1e-6
