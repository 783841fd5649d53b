"""Trades, rush orders and taker sides, and what they confirm."""

from __future__ import annotations

import numpy as np
import pytest
from markets import START_MS, candle, drawn

from perpwatch.detect.flow import Confirmed, Flow, TradeFlow
from perpwatch.detect.rarity import VolumeRarity
from perpwatch.model import MINUTE_MS, Finality, Side, Timeframe, Trade, Trades

BUY, SELL = Side.BUY, Side.SELL


def trades(*rows: tuple[int, Side, float], symbol: str = "ABC_USDT") -> Trades:
    return Trades(symbol, [Trade(1.0, contracts, side, time_ms) for time_ms, side, contracts in rows], rows[-1][0])


def test_fills_of_one_millisecond_and_side_are_one_rush_order() -> None:
    flow = TradeFlow()
    flow.start("ABC_USDT", START_MS)
    flow.observe(trades((START_MS, BUY, 1.0), (START_MS, BUY, 1.0), (START_MS, BUY, 1.0), (START_MS, SELL, 2.0)))
    flow.observe(trades((START_MS + 1, SELL, 3.0)))
    flow.observe(trades((START_MS + 1, SELL, 2.0)))  # the rest of it came in the next frame
    assert flow.of_candle("ABC_USDT", Timeframe.Min1, START_MS) == Flow(6, 1, 1, 0.3)


def test_counts_equal_the_batch_counts_on_every_timeframe() -> None:
    random = np.random.default_rng(2)
    times = START_MS + np.cumsum(random.integers(0, 900, 8000))
    sides = [Side(int(side)) for side in random.integers(1, 3, 8000)]
    flow = TradeFlow()
    flow.start("ABC_USDT", START_MS)
    for time_ms, side in zip(times.tolist(), sides, strict=True):
        flow.observe(trades((time_ms, side, 1.0)))
    rows = list(zip(times.tolist(), sides, strict=True))
    last_ms = rows[-1][0]
    for timeframe in (Timeframe.Min1, Timeframe.Min5, Timeframe.Min15, Timeframe.Min60):
        open_ms = last_ms - last_ms % timeframe.milliseconds
        inside = [row for row in rows if row[0] >= open_ms]
        buys = sum(side is BUY for _, side in inside)
        rushes = {BUY: 0, SELL: 0}
        for n in range(1, len(inside)):
            is_second = inside[n] == inside[n - 1] and (n < 2 or inside[n] != inside[n - 2])
            rushes[inside[n][1]] += is_second
        expected = Flow(len(inside), rushes[BUY], rushes[SELL], buys / len(inside))
        assert flow.of_candle("ABC_USDT", timeframe, open_ms) == expected


def test_a_candle_that_opened_before_the_subscription_is_not_spoken_for() -> None:
    flow = TradeFlow()
    flow.observe(trades((START_MS, BUY, 1.0)))
    assert flow.of_candle("ABC_USDT", Timeframe.Min1, START_MS) is None
    flow.start("ABC_USDT", START_MS + 30_000)
    assert flow.of_candle("ABC_USDT", Timeframe.Min1, START_MS) is None
    assert flow.of_candle("ABC_USDT", Timeframe.Min1, START_MS + MINUTE_MS) == Flow(0, 0, 0, 0.5)
    flow.forget("ABC_USDT")
    assert flow.of_candle("ABC_USDT", Timeframe.Min1, START_MS + MINUTE_MS) is None


def test_an_old_minute_does_not_count_in_a_later_hour() -> None:
    flow = TradeFlow()
    flow.start("ABC_USDT", START_MS)
    flow.observe(trades((START_MS, BUY, 1.0)))
    flow.observe(trades((START_MS + 60 * MINUTE_MS, BUY, 1.0), (START_MS, BUY, 1.0)))
    assert flow.of_candle("ABC_USDT", Timeframe.Min60, START_MS + 60 * MINUTE_MS) == Flow(1, 0, 0, 1.0)


@pytest.fixture(name="confirmed")
def confirmed_detector() -> tuple[Confirmed, TradeFlow, int]:
    flow = TradeFlow()
    detector = Confirmed(VolumeRarity(), flow)
    detector.warm_up("ABC_USDT", Timeframe.Min1, drawn(2880, seed=1, bursts=0.0))
    return detector, flow, START_MS + 2880 * MINUTE_MS


def test_a_running_candle_waits_for_its_third_rush_order(confirmed: tuple[Confirmed, TradeFlow, int]) -> None:
    detector, flow, now_ms = confirmed
    flow.start("ABC_USDT", now_ms)
    surge = candle(now_ms, 150.0, 1e7, open=100.0, finality=Finality.OPEN)
    for n in range(3):
        assert detector.update(surge, now_ms, 0) is None
        flow.observe(trades((now_ms + n, BUY, 1.0), (now_ms + n, BUY, 1.0)))
    signal = detector.update(surge, now_ms, 0)
    assert signal is not None
    figures = {reason.name: reason.value for reason in signal.reasons}
    assert (figures["rush_orders"], figures["trades"], figures["taker_buy_share"]) == (3, 6, 100.0)


def test_rush_orders_of_the_other_side_confirm_nothing(confirmed: tuple[Confirmed, TradeFlow, int]) -> None:
    detector, flow, now_ms = confirmed
    flow.start("ABC_USDT", now_ms)
    for n in range(5):
        flow.observe(trades((now_ms + n, SELL, 1.0), (now_ms + n, SELL, 1.0)))
    surge = candle(now_ms, 150.0, 1e7, open=100.0, finality=Finality.OPEN)
    assert detector.update(surge, now_ms, 0) is None


def test_a_closed_candle_and_a_symbol_without_trades_pass_as_they_are(
    confirmed: tuple[Confirmed, TradeFlow, int],
) -> None:
    detector, flow, now_ms = confirmed
    running = detector.update(candle(now_ms, 150.0, 1e7, open=100.0, finality=Finality.OPEN), now_ms, 0)
    assert running is not None
    assert "trades" not in {reason.name for reason in running.reasons}
    flow.start("ABC_USDT", now_ms)
    closed = detector.update(candle(now_ms, 150.0, 3e7, open=100.0), now_ms, 0)
    assert closed is not None
    assert detector.name == "rarity"
