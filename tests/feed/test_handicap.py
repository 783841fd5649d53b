"""A connection that lags or fails more than its peers gets less."""

from __future__ import annotations

import pytest

from perpwatch.feed.handicap import Handicaps


def measured(lags: dict[str, float], failures: dict[str, int] | None = None) -> Handicaps:
    handicaps = Handicaps()
    handicaps.measure(dict.fromkeys(lags, 0))
    for source, lag_ms in lags.items():
        for _ in range(3):
            handicaps.observe(source, lag_ms)
    handicaps.measure(failures or dict.fromkeys(lags, 0))
    return handicaps


def test_peers_that_are_alike_have_no_handicap() -> None:
    handicaps = measured({"ws-1": 80.0, "ws-2": 80.0, "ws-3": 80.0})
    assert [handicaps.of(source) for source in ("ws-1", "ws-2", "ws-3", "unknown")] == [1.0] * 4


def test_lag_beyond_that_of_the_peers_weighs() -> None:
    handicaps = measured({"ws-1": 20.0, "ws-2": 20.0, "ws-3": 520.0})
    # What was before counts for half, and that was nothing.
    assert handicaps.lag_ms("ws-3") == pytest.approx(260.0)
    assert handicaps.of("ws-3") == pytest.approx(1.5)
    assert handicaps.of("ws-1") == 1.0


def test_failures_weigh_and_are_forgotten() -> None:
    handicaps = measured({"ws-1": 0.0, "ws-2": 0.0}, {"ws-1": 2, "ws-2": 0})
    assert handicaps.of("ws-1") == 1.5
    handicaps.measure({"ws-1": 2, "ws-2": 0})
    assert handicaps.of("ws-1") == 1.25
    handicaps.measure({"ws-1": 50, "ws-2": 0})
    assert handicaps.of("ws-1") == 2.0  # and no more


def test_when_all_fail_alike_nobody_is_to_blame() -> None:
    handicaps = measured({"ws-1": 900.0, "ws-2": 900.0}, {"ws-1": 7, "ws-2": 7})
    assert (handicaps.of("ws-1"), handicaps.of("ws-2")) == (1.0, 1.0)


def test_a_connection_that_is_alone_or_gone_has_none() -> None:
    handicaps = measured({"ws-1": 0.0, "ws-2": 2_000.0})
    assert handicaps.of("ws-2") == 2.0
    handicaps.measure({"ws-2": 0})
    assert handicaps.of("ws-2") == 1.0
    assert handicaps.lag_ms("ws-1") == 0.0
