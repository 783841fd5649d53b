"""The exchange's time from its frames."""

from __future__ import annotations

import pytest

from perpwatch.feed.exchange_clock import WINDOW_S, ExchangeClock

T0 = 1_791_201_600_000


def test_before_the_first_frame_the_time_is_not_known() -> None:
    clock = ExchangeClock()
    assert not clock.is_set
    with pytest.raises(RuntimeError, match="not known"):
        clock.now_ms(0.0)


def test_the_quickest_frame_rules() -> None:
    clock = ExchangeClock()
    latencies = [clock.observe(T0 + sent, received) for sent, received in [(0, 10.3), (1_000, 11.1), (2_000, 12.4)]]
    assert latencies == pytest.approx([0.0, 0.0, 300.0])
    assert clock.now_ms(13.1) == T0 + 3_000


def test_a_frame_that_was_quick_once_does_not_rule_for_ever() -> None:
    clock = ExchangeClock()
    clock.observe(T0 + 5_000, 0.0)  # five seconds ahead of what follows
    for second in range(1, int(2 * WINDOW_S) + 2):
        clock.observe(T0 + second * 1_000, float(second))
    assert clock.now_ms(700.0) == T0 + 700_000


def test_the_time_never_waits_for_a_frame() -> None:
    clock = ExchangeClock()
    clock.observe(T0, 0.0)
    assert clock.now_ms(86_400.0) == T0 + 86_400_000
