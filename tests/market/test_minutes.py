"""Closed minutes are given back as they were put in, in their order, and the oldest give way."""

from __future__ import annotations

import math
from bisect import bisect_left

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perpwatch.market.minutes import KEPT_MINUTES, Minutes
from perpwatch.model import MINUTE_MS, Candle, Finality, Timeframe, Trust

T0 = 1_791_201_600_000
SYMBOL = "RIF_USDT"
PRICES = st.floats(allow_nan=False)


def at(minute: int) -> int:
    return T0 + minute * MINUTE_MS


def candle(minute: int, close: float = 1.0) -> Candle:
    figures = (1.5, 2.0, 0.5, close, 7.0, 70.0, 10.0 * close)
    return Candle(
        SYMBOL, Timeframe.Min1, at(minute), *figures, Finality.SUCCESSOR, Trust.STREAMED, 1.5, 2.0, 0.5, close
    )


CANDLES = st.builds(
    Candle,
    symbol=st.just(SYMBOL),
    timeframe=st.just(Timeframe.Min1),
    open_time_ms=st.integers(-400, 400).map(at),
    **dict.fromkeys(("open", "high", "low", "close", "contracts", "base_volume", "turnover"), PRICES),
    finality=st.sampled_from(Finality),
    trust=st.sampled_from(Trust),
    **dict.fromkeys(("real_open", "real_high", "real_low", "real_close"), st.none() | PRICES),
    is_synthetic=st.booleans(),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(CANDLES, max_size=40), st.integers(0, 250), st.lists(st.integers(-450, 450), max_size=6))
def test_minutes_are_what_a_sorted_list_of_candles_would_be(
    filed: list[Candle], before: int, looked_for: list[int]
) -> None:
    listed = [candle(minute, 1.0 + minute) for minute in range(-before, 0, 2)][-KEPT_MINUTES:]
    minutes = Minutes(SYMBOL, listed)
    times = [one.open_time_ms for one in listed]
    for one in filed:
        minutes.put(one)
        place = bisect_left(times, one.open_time_ms)
        if times[place : place + 1] == [one.open_time_ms]:
            listed[place] = one
        else:
            listed.insert(place, one)
        listed = listed[-KEPT_MINUTES:]
        times = [one.open_time_ms for one in listed]
    assert list(minutes) == listed
    assert len(minutes) == len(listed)
    assert minutes.is_full == (len(listed) == KEPT_MINUTES)
    assert minutes.start_ms == (times[0] if times else 0)
    assert minutes.end_ms == (listed[-1].close_time_ms if listed else 0)
    assert minutes[-3:] == listed[-3:]
    for first in (0, 1, -60):
        assert minutes.column("open", first) == [one.open for one in listed[first:]]
        assert minutes.column("turnover", first) == [one.turnover for one in listed[first:]]
    by_time = dict(zip(times, listed, strict=True))
    for minute in looked_for:
        for open_time_ms in (at(minute), at(minute) + 1):
            known = by_time.get(open_time_ms)
            assert minutes.place(open_time_ms) == bisect_left(times, open_time_ms)
            assert minutes.find(open_time_ms) == known
            assert minutes.figure("close", open_time_ms) == (known.close if known is not None else None)
            assert minutes.between(open_time_ms, at(200)) == [
                one for one in listed if open_time_ms <= one.open_time_ms < at(200)
            ]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.integers(0, 120))
def test_minutes_that_are_cut_off_are_returned_and_others_follow(count: int, place: int) -> None:
    minutes, listed = Minutes(SYMBOL), [candle(minute) for minute in range(count)]
    for one in listed:
        minutes.append(one)
    listed = listed[-KEPT_MINUTES:]
    assert minutes.cut(place) == listed[place:]
    assert list(minutes) == listed[:place]
    assert minutes.end_ms == (listed[:place][-1].close_time_ms if place else 0)
    minutes.append(candle(500))
    assert list(minutes) == [*listed[:place], candle(500)][-KEPT_MINUTES:]


def test_what_is_no_number_stays_none() -> None:
    odd = Candle(
        SYMBOL, Timeframe.Min1, at(0), math.nan, math.inf, -0.0, 1.0, 0.0, 0.0, 0.0, Finality.REST, Trust.QUIET
    )
    (found,) = Minutes(SYMBOL, [odd])
    assert math.isnan(found.open)
    assert (found.high, math.copysign(1.0, found.low)) == (math.inf, -1.0)
    assert (found.real_open, found.real_high, found.real_low, found.real_close) == (None, None, None, None)


def test_there_is_no_minute_beyond_the_last() -> None:
    minutes = Minutes(SYMBOL, [candle(0), candle(1)])
    assert minutes[-2] == candle(0)
    for place in (2, -3):
        with pytest.raises(IndexError):
            minutes[place]
