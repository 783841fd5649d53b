"""Turnover against the mean of the candles before."""

from __future__ import annotations

import math

import pytest

from perpwatch.detect.detector import NEVER
from perpwatch.detect.volume_ratio import VolumeRatio
from perpwatch.model import MINUTE_MS, Candle, Direction, Finality, Level, Signal, Timeframe, Trust

T0 = 1_791_201_600_000
SYMBOL = "RIF_USDT"


def candle(
    minute: int,
    turnover: float,
    *,
    is_running: bool = False,
    close: float = 1.0,
    missing: int = 0,
    trust: Trust = Trust.STREAMED,
) -> Candle:
    return Candle(
        symbol=SYMBOL,
        timeframe=Timeframe.Min1,
        open_time_ms=T0 + minute * MINUTE_MS,
        open=1.0,
        high=max(1.0, close),
        low=min(1.0, close),
        close=close,
        contracts=turnover,
        base_volume=turnover,
        turnover=turnover,
        finality=Finality.OPEN if is_running else Finality.SUCCESSOR,
        trust=trust,
        missing_minutes=missing,
    )


def detector(**settings: float) -> VolumeRatio:
    return VolumeRatio(
        {Timeframe.Min1: settings.get("threshold", 5.0)},
        running_threshold=settings.get("running", 10.0),
        window=int(settings.get("window", 4)),
        minimum_turnover=settings.get("minimum", 0.0),
    )


def warm(turnovers: list[float], **settings: float) -> VolumeRatio:
    ratio = detector(**settings)
    ratio.warm_up(SYMBOL, Timeframe.Min1, [candle(minute, turnover) for minute, turnover in enumerate(turnovers)])
    return ratio


def judge(ratio: VolumeRatio, one: Candle) -> Signal | None:
    return ratio.update(one, one.open_time_ms + 1, 7)


def test_a_candle_of_five_times_the_mean_fires_and_shows_its_numbers() -> None:
    signal = judge(warm([100.0, 200.0, 300.0, 400.0]), candle(4, 1_250.0, close=1.02))
    assert signal is not None
    assert (signal.level, signal.direction, signal.strength) == (Level.NOTICE, Direction.UP, 1_250.0)
    assert {reason.name: reason.value for reason in signal.reasons} == pytest.approx(
        {
            "turnover_ratio": 5.0,
            "move": 2.0,
            "turnover": 1_250.0,
            "mean_turnover": 250.0,
            "threshold": 5.0,
            "window": 4.0,
            "open": 1.0,
            "close": 1.02,
        }
    )
    assert (signal.event_time_ms, signal.received_time_ns, signal.is_running) == (T0 + 4 * MINUTE_MS + 1, 7, False)


def test_a_candle_just_below_does_not_fire() -> None:
    assert judge(warm([100.0, 200.0, 300.0, 400.0]), candle(4, 1_249.99)) is None


@pytest.mark.parametrize(("turnover", "level"), [(1_500.0, Level.STRONG), (5_000.0, Level.EXTREME)])
def test_the_level_says_how_far_beyond_the_threshold(turnover: float, level: Level) -> None:
    signal = judge(warm([100.0] * 4), candle(4, turnover))
    assert signal is not None
    assert signal.level is level


def test_a_candle_is_judged_by_those_before_it_only() -> None:
    ratio = warm([100.0] * 4)
    assert judge(ratio, candle(4, 400.0)) is None
    signal = judge(ratio, candle(5, 1_000.0))  # the mean is now (100 + 100 + 100 + 400) / 4
    assert signal is not None
    assert signal.reasons[3].value == 175.0


def test_it_is_silent_until_its_window_is_full() -> None:
    ratio = warm([100.0] * 3)
    assert ratio.wake_turnover(SYMBOL, Timeframe.Min1) == NEVER
    assert judge(ratio, candle(3, 1e9)) is None
    assert ratio.wake_turnover(SYMBOL, Timeframe.Min1) < math.inf


def test_the_window_is_filled_with_the_last_known_candles() -> None:
    """Not with the known ones among the last: a repaired history with a hole would leave the symbol unwatched."""
    ratio = detector()
    ratio.warm_up(
        SYMBOL,
        Timeframe.Min1,
        [
            candle(0, 9_999.0),
            *[candle(minute, 100.0) for minute in (1, 2, 3)],
            candle(4, 1.0, missing=1, trust=Trust.UNKNOWN),
            candle(5, 100.0),
        ],
    )
    assert ratio.wake_turnover(SYMBOL, Timeframe.Min1) == 1_000.0


def test_a_candle_with_missing_minutes_is_neither_judged_nor_learned() -> None:
    ratio = warm([100.0] * 4)
    assert judge(ratio, candle(4, 1e6, missing=1, trust=Trust.UNKNOWN)) is None
    assert judge(ratio, candle(4, 1e6, trust=Trust.UNKNOWN)) is None
    assert ratio.wake_turnover(SYMBOL, Timeframe.Min1) == 1_000.0


def test_a_correction_of_a_judged_candle_is_ignored() -> None:
    ratio = warm([100.0] * 4)
    assert judge(ratio, candle(4, 100.0)) is None
    assert judge(ratio, candle(4, 1e6)) is None
    assert judge(ratio, candle(3, 1e6)) is None


def test_a_running_candle_fires_once_and_again_when_it_has_doubled() -> None:
    ratio = warm([100.0] * 4)
    fired = [
        turnover
        for turnover in (900, 1_000, 1_500, 2_000, 3_999, 4_000)
        if judge(ratio, candle(4, turnover, is_running=True))
    ]
    assert fired == [1_000, 2_000, 4_000]


def test_the_closed_candle_does_not_repeat_what_the_running_one_said() -> None:
    ratio = warm([100.0] * 4)
    assert judge(ratio, candle(4, 1_000.0, is_running=True)) is not None
    assert judge(ratio, candle(4, 1_100.0)) is None


def test_nothing_is_learned_from_a_running_candle() -> None:
    ratio = warm([100.0] * 4)
    judge(ratio, candle(4, 500.0, is_running=True))
    assert ratio.wake_turnover(SYMBOL, Timeframe.Min1) == 1_000.0


def test_below_the_wake_turnover_nothing_fires() -> None:
    ratio = warm([100.0] * 4)
    wake = ratio.wake_turnover(SYMBOL, Timeframe.Min1)
    assert judge(ratio, candle(4, wake - 0.01, is_running=True)) is None
    assert judge(ratio, candle(4, wake, is_running=True)) is not None
    assert ratio.wake_turnover(SYMBOL, Timeframe.Min1) == 2_000.0


def test_a_floor_keeps_out_contracts_in_which_nobody_trades() -> None:
    ratio = warm([1.0] * 4, minimum=10_000.0)
    assert judge(ratio, candle(4, 9_999.0)) is None
    ratio = warm([0.0] * 4, minimum=10_000.0)
    assert judge(ratio, candle(4, 1e9)) is None  # times nothing is no number


def test_a_timeframe_without_threshold_is_not_judged() -> None:
    ratio = warm([100.0] * 4)
    ratio.warm_up(SYMBOL, Timeframe.Min5, [])
    assert ratio.wake_turnover(SYMBOL, Timeframe.Min5) == NEVER


def test_a_departed_symbol_is_forgotten_and_a_reset_forgets_nothing() -> None:
    ratio = warm([100.0] * 4)
    ratio.reset(SYMBOL)
    assert ratio.wake_turnover(SYMBOL, Timeframe.Min1) == 1_000.0
    ratio.forget(SYMBOL)
    assert ratio.wake_turnover(SYMBOL, Timeframe.Min1) == NEVER


def test_an_impossible_setting_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 candle"):
        VolumeRatio(window=0)
    with pytest.raises(ValueError, match="above 0"):
        VolumeRatio(running_threshold=0.0)
