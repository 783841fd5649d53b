"""The shortcut that spares most pushes a look loses nothing: an engine that looks at every push says the same."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from unittest import mock

import pytest

from perpwatch.app.analysis import Analysis
from perpwatch.app.engine import Engine
from perpwatch.detect.breakout import Breakout
from perpwatch.detect.build_up import BuildUp
from perpwatch.detect.rarity import VolumeRarity
from perpwatch.detect.rules import PRESETS
from perpwatch.detect.threshold import Threshold
from perpwatch.detect.volume_ratio import VolumeRatio
from perpwatch.model import (
    ANALYSED_TIMEFRAMES,
    MINUTE_MS,
    Batch,
    Candle,
    CandleHistory,
    CandleUpdate,
    Contract,
    Event,
    Finality,
    RunningCandle,
    Signal,
    StreamUp,
    Timeframe,
    Trust,
    stream_of_candles,
)

SYMBOL = "RIF_USDT"
CONTRACT = Contract(SYMBOL, "RIF", "USDT", "USDT", 10.0)
HOUR_MS = 1_791_201_600_000  # 2026-10-05 12:00 UTC
HISTORY = 1_700
USUAL = 10_000.0  # median turnover of a minute, quote coin
DETECTORS = (VolumeRarity, BuildUp, Breakout, VolumeRatio, Threshold)


def history(end_ms: int) -> CandleHistory:
    chance, close, candles = random.Random(1), 1.0, []
    for number in range(HISTORY):
        open_, close = close, 1.0 + 0.001 * chance.gauss(0.0, 1.0)
        prices = (open_, max(open_, close), min(open_, close), close)
        turnover = USUAL * chance.lognormvariate(0.0, 0.6)
        figures = (turnover / close / 10.0, turnover / close, turnover)
        open_ms = end_ms - (HISTORY - number) * MINUTE_MS
        candles.append(
            Candle(SYMBOL, Timeframe.Min1, open_ms, *prices, *figures, Finality.REST, Trust.VERIFIED, *prices)
        )
    return CandleHistory(SYMBOL, candles, candles[0].open_time_ms, end_ms)


@contextmanager
def every_push_looked_at() -> Iterator[None]:
    """No detector says from which turnover on it wants to be asked."""
    with ExitStack() as stack:
        for one in DETECTORS:
            stack.enter_context(mock.patch.object(one, "wake_turnover", return_value=0.0))
        yield


Pushes = Sequence[tuple[float, float]]  # how much turnover more, in usual minutes, and the price then


def said(first_minute: int, minutes: Sequence[Pushes]) -> tuple[list[Signal], int]:
    """What an engine with all rules says of these minutes, and at how many pushes it looked."""
    engine = Engine(Analysis(tuple(PRESETS.values())), ANALYSED_TIMEFRAMES)
    start_ms = HOUR_MS + first_minute * MINUTE_MS
    engine.watch([CONTRACT])
    engine.take(Batch("ws-1", 0, start_ms - 1, [StreamUp(stream_of_candles(SYMBOL), "ws-1", start_ms - 1)]))
    engine.take(Batch("rest", 0, start_ms + MINUTE_MS, [history(start_ms)]))
    found: list[Signal] = []
    looks = 0
    judge = engine.analysis.judge_running

    def counted(*arguments: object) -> None:
        nonlocal looks
        looks += 1
        judge(*arguments)  # type: ignore[arg-type]

    engine.analysis.judge_running = counted  # type: ignore[method-assign,assignment]
    price = 1.0
    for number, pushes in enumerate(minutes):
        open_ms = start_ms + number * MINUTE_MS
        turnover, open_, high, low = 0.0, price, price, price
        for place, (more, price) in enumerate(pushes):
            turnover += more * USUAL
            high, low = max(high, price), min(low, price)
            now_ms = open_ms + 1_000 * (place + 1)
            figures = (math.floor(turnover / price / 10.0), turnover)
            prices = (open_, high, low, price)
            candle = RunningCandle(SYMBOL, Timeframe.Min1, open_ms // 1_000, *prices, *figures, *prices)
            events: list[Event] = [CandleUpdate(candle, now_ms)]
            found += engine.take(Batch("ws-1", 0, now_ms, events)).signals
    return found, looks


def market(seed: int) -> list[Pushes]:
    """Up to eight minutes of up to six pushes, dull and wild ones."""
    chance = random.Random(seed)

    def push() -> tuple[float, float]:
        more = chance.uniform(0.01, 2.0) if chance.random() < 0.5 else chance.uniform(1.0, 60.0)
        return more, round(chance.uniform(0.93, 1.07), 4)

    return [[push() for _ in range(chance.randint(1, 6))] for _ in range(chance.randint(1, 8))]


@pytest.mark.parametrize("seed", range(10))
def test_an_engine_that_looks_at_every_push_says_the_same(seed: int) -> None:
    minutes, first_minute = market(seed), 7 * seed % 60
    short, looks = said(first_minute, minutes)
    with every_push_looked_at():
        full, all_looks = said(first_minute, minutes)
    assert short == full
    assert looks < all_looks
    # No candle is told again unless it has doubled, not even when it closes behind the next one.
    told: dict[tuple[object, ...], float] = {}
    for one in full:
        candle = (one.rule, one.detector, one.timeframe, one.open_time_ms)
        assert one.strength >= 1.9 * told.get(candle, 0.0)  # means move a little
        told[candle] = one.strength


def test_a_slow_quarter_of_an_hour_is_found_with_few_looks() -> None:
    """Fifteen minutes of five times the usual volume: only their sum is rare."""
    minutes = [[(0.8, 1.0 + 0.003 * number)] * 6 for number in range(15)]
    short, looks = said(0, minutes)
    with every_push_looked_at():
        full, all_looks = said(0, minutes)
    assert short == full
    assert {one.timeframe for one in short if one.is_running} & {Timeframe.Min5, Timeframe.Min15, Timeframe.Min60}
    assert looks < all_looks / 3
