"""Plain limits, all in one candle."""

from __future__ import annotations

import msgspec
import pytest
from markets import START_MS, candle, drawn

from perpwatch.detect.detector import NEVER
from perpwatch.detect.threshold import Threshold
from perpwatch.model import MINUTE_MS, Candle, Direction, Finality, Level, Timeframe


def at(minute: int, close: float = 100.0, turnover: float = 100.0, *, is_open: bool = False) -> Candle:
    finality = Finality.OPEN if is_open else Finality.SUCCESSOR
    return candle(START_MS + minute * MINUTE_MS, close, turnover, open=100.0, finality=finality)


def warm(detector: Threshold, size: int = 240) -> Threshold:
    for minute in range(size):
        assert detector.update(at(minute, 100.1), 0, 0) is None
    return detector


def test_every_limit_must_be_reached() -> None:
    detector = warm(Threshold(turnover_ratio=30.0, move=5.0))
    assert detector.update(at(240, 104.9, 3000.0), 0, 0) is None
    assert detector.update(at(241, 105.1, 2900.0), 0, 0) is None
    detector = warm(Threshold(turnover_ratio=30.0, move=5.0))
    signal = detector.update(at(240, 95.0, 3000.0), 7, 8)
    assert signal is not None
    assert (signal.direction, signal.level, signal.strength) == (Direction.DOWN, Level.NOTICE, 30.0)
    assert (signal.event_time_ms, signal.received_time_ns) == (7, 8)
    figures = {reason.name: reason.value for reason in signal.reasons}
    assert figures["move"] == pytest.approx(-5.0)
    assert figures["move_ratio"] == pytest.approx(50.0, rel=1e-4)


def test_moves_may_be_counted_in_the_markets_own() -> None:
    detector = warm(Threshold(move_ratio=20.0))
    assert detector.update(at(240, 101.9), 0, 0) is None
    assert detector.update(at(241, 102.2), 0, 0) is not None


def test_the_range_is_high_to_low() -> None:
    detector = warm(Threshold(range=3.0))
    wide = msgspec.structs.replace(at(240), high=102.0, low=99.0)
    assert detector.update(wide, 0, 0) is not None


def test_nothing_is_said_before_the_window_is_full() -> None:
    detector = warm(Threshold(move=1.0), 239)
    assert detector.wake_turnover("ABC_USDT", Timeframe.Min1) == NEVER
    assert detector.update(at(239, 110.0), 0, 0) is None
    assert detector.update(at(240, 110.0), 0, 0) is not None


def test_a_candle_is_told_once_unless_it_doubles_or_is_taken_back() -> None:
    detector = warm(Threshold(turnover_ratio=10.0, move=1.0))
    first = detector.update(at(240, 102.0, 1000.0, is_open=True), 0, 0)
    assert first is not None
    assert detector.wake_turnover("ABC_USDT", Timeframe.Min1) == 2000.0
    assert detector.update(at(240, 102.0, 1999.0, is_open=True), 0, 0) is None
    second = detector.update(at(240, 102.0, 2000.0, is_open=True), 0, 0)
    assert second is not None
    detector.retract(second)
    assert detector.update(at(240, 102.0, 1999.0, is_open=True), 0, 0) is None  # the first one still stands
    assert detector.update(at(240, 102.0, 2000.0), 0, 0) is not None


def test_below_the_wake_turnover_nothing_fires() -> None:
    detector, asked = Threshold(turnover_ratio=5.0, window=50), 0
    for one in drawn(1500, seed=4):
        wake = detector.wake_turnover(one.symbol, one.timeframe)
        running = msgspec.structs.replace(one, finality=Finality.OPEN)
        if one.turnover < wake:
            asked += 1
            assert detector.update(running, 0, 0) is None
        detector.update(one, 0, 0)
    assert asked > 1000


def test_late_and_repeated_candles_are_neither_judged_nor_learned() -> None:
    detector = warm(Threshold(move=1.0))
    assert detector.update(at(100, 110.0), 0, 0) is None
    assert detector.update(msgspec.structs.replace(at(240, 110.0), missing_minutes=1), 0, 0) is None


@pytest.mark.parametrize("wrong", [{}, {"move": -1.0}, {"move": 1.0, "window": 0}])
def test_limits_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"give at least one|window must"):
        Threshold(**wrong)  # type: ignore[arg-type]
