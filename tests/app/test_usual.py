"""What is usual is what numpy says about the candles before."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from perpwatch.app.usual import USUAL_CANDLES, USUAL_NEEDED, usual_turnover
from perpwatch.market.candles import flat_candle
from perpwatch.model import MINUTE_MS, Candle, Finality, Trust


def candles(turnovers: list[float], missing: tuple[int, ...] = ()) -> list[Candle]:
    return [
        replace(
            flat_candle("AAA_USDT", number * MINUTE_MS, 1.0, Finality.CLOCK, Trust.STREAMED),
            turnover=turnover,
            missing_minutes=int(number in missing),
        )
        for number, turnover in enumerate(turnovers)
    ]


def test_the_usual_band_is_the_percentiles_of_the_candles_before() -> None:
    random = np.random.default_rng(7)
    turnovers = [float(value) for value in random.lognormal(3.0, 1.0, 600)]
    turnovers[100:110] = [0.0] * 10  # ties
    missing = (5, 250, 251, 480)
    found = usual_turnover(candles(turnovers, missing), 300)
    assert len(found) == 300
    for place, band in enumerate(found, start=300):
        before = [
            value
            for number, value in enumerate(turnovers[:place])
            if number >= place - USUAL_CANDLES and number not in missing
        ]
        assert band is not None
        assert (band.low, band.middle, band.high) == pytest.approx(tuple(np.percentile(before, (10, 50, 90))))


def test_too_few_candles_say_nothing_about_what_is_usual() -> None:
    found = usual_turnover(candles([1.0] * 30), 1_000)
    assert [band is None for band in found] == [True] * USUAL_NEEDED + [False] * 10
    assert usual_turnover([], 10) == []
