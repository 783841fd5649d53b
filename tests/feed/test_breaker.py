"""A circuit breaker that is told the time."""

from __future__ import annotations

from perpwatch.feed.breaker import Breaker, BreakerState


def opened(now_s: float = 0.0) -> Breaker:
    breaker = Breaker(threshold=3, first_open_s=5.0, max_open_s=15.0)
    for _ in range(3):
        assert breaker.allows(now_s)
        breaker.fail(now_s, "no answer")
    return breaker


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    breaker = opened()
    assert breaker.state(4.9) is BreakerState.OPEN
    assert not breaker.allows(4.9)
    assert breaker.last_reason == "no answer"


def test_a_success_in_between_starts_the_count_anew() -> None:
    breaker = Breaker(threshold=3)
    breaker.fail(0.0, "x")
    breaker.fail(0.0, "x")
    breaker.succeed()
    breaker.fail(0.0, "x")
    breaker.fail(0.0, "x")
    assert breaker.state(0.0) is BreakerState.CLOSED


def test_half_open_lets_one_try_through() -> None:
    breaker = opened()
    assert breaker.state(5.0) is BreakerState.HALF_OPEN
    assert [breaker.allows(5.0), breaker.allows(5.0), breaker.allows(6.0)] == [True, False, False]


def test_the_try_closes_it_or_opens_it_for_longer_up_to_a_bound() -> None:
    breaker = opened()
    opened_until_s = []
    now_s = 5.0
    for _ in range(3):
        assert breaker.allows(now_s)
        breaker.fail(now_s, "still dead")
        opened_until_s.append(breaker.open_until_s - now_s)
        now_s = breaker.open_until_s
    assert opened_until_s == [10.0, 15.0, 15.0]
    assert breaker.allows(now_s)
    breaker.succeed()
    assert [breaker.allows(now_s), breaker.allows(now_s)] == [True, True]


def test_a_try_that_was_not_made_can_be_made_by_another() -> None:
    breaker = opened()
    assert breaker.allows(5.0)
    breaker.give_back()
    assert breaker.allows(5.0)
