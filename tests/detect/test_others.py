"""The detectors beside the default: where they fire, where they do not, and where they re-arm."""

from __future__ import annotations

import math

import numpy as np
import pytest
from markets import START_MS, candle, drawn

from perpwatch.detect.breakout import Breakout
from perpwatch.detect.build_up import BuildUp
from perpwatch.detect.detector import NEVER
from perpwatch.detect.funding import FundingJump
from perpwatch.detect.interest import SPAN_MS, OpenInterestJump
from perpwatch.detect.listing import NewListing
from perpwatch.detect.price_gap import PriceGap
from perpwatch.model import (
    MINUTE_MS,
    Contract,
    ContractUpdate,
    Direction,
    Finality,
    Level,
    Ticker,
    Timeframe,
    Trust,
)

# --- Breakout ---------------------------------------------------------------------------------------------------------


def test_breakout_equals_its_batch_formula_at_every_prefix() -> None:
    candles = drawn(2000, seed=5, bursts=0.01)
    detector = Breakout(volume=3.0, price=1.003, hours=2)
    fired = 0
    for t, one in enumerate(candles):
        signal = detector.update(one, 0, 0)
        past = candles[max(0, t - 120) : t]
        expected = False
        if len(past) == 120:
            mean = math.fsum(other.turnover for other in past) / 120
            mean_close = math.fsum(other.close for other in past) / 120
            expected = one.turnover > 3.0 * mean and one.high > 1.003 * mean_close
        assert (signal is not None) == expected, f"candle {t}"
        fired += expected
    assert fired >= 3


def test_breakout_needs_both_volume_and_price() -> None:
    detector = Breakout()
    detector.warm_up("ABC_USDT", Timeframe.Min1, [candle(START_MS + n * MINUTE_MS, 1.0, 100.0) for n in range(720)])
    now_ms = START_MS + 720 * MINUTE_MS
    assert detector.wake_turnover("ABC_USDT", Timeframe.Min1) == pytest.approx(500.0)
    assert detector.update(candle(now_ms, 1.2, 400.0, finality=Finality.OPEN), 0, 0) is None
    assert detector.update(candle(now_ms, 1.05, 4000.0, finality=Finality.OPEN), 0, 0) is None
    signal = detector.update(candle(now_ms, 1.2, 4000.0, finality=Finality.OPEN), 0, 0)
    assert signal is not None
    assert (signal.direction, signal.level) == (Direction.UP, Level.STRONG)
    assert detector.update(candle(now_ms, 1.2, 7000.0), 0, 0) is None
    detector.forget("ABC_USDT")
    assert detector.wake_turnover("ABC_USDT", Timeframe.Min1) == NEVER


def test_breakout_ignores_what_is_not_known() -> None:
    detector = Breakout()
    detector.warm_up("ABC_USDT", Timeframe.Min1, [candle(START_MS + n * MINUTE_MS, 1.0, 100.0) for n in range(720)])
    now_ms = START_MS + 720 * MINUTE_MS
    assert detector.update(candle(now_ms, 1.2, 4000.0, missing_minutes=1), 0, 0) is None
    assert detector.update(candle(now_ms, 1.2, 4000.0, trust=Trust.UNKNOWN), 0, 0) is None


# --- Build-up ---------------------------------------------------------------------------------------------------------


def test_a_lasting_rise_is_tagged_once_and_a_single_burst_never() -> None:
    random = np.random.default_rng(6)
    usual = random.lognormal(8.0, 0.5, 300).tolist()
    detector = BuildUp()

    def fired(turnovers: list[float], start: int) -> list[int]:
        found = []
        for n, turnover in enumerate(turnovers, start=start):
            one = candle(START_MS + n * 15 * MINUTE_MS, 1.0 + n / 1000, turnover, timeframe=Timeframe.Min15)
            signal = detector.update(one, 0, 0)
            if signal is not None:
                found.append(n)
                assert signal.direction is Direction.UP
        return found

    assert fired(usual, 0) == []
    assert fired([1e7, *usual[:20]], 300) == []
    rising = (random.lognormal(8.0, 0.5, 40) * 3.0).tolist()  # 2.2 standard deviations more
    tagged = fired(rising, 321)
    assert len(tagged) == 1
    assert 2 <= tagged[0] - 321 <= 25


def test_a_build_up_does_not_span_a_loss() -> None:
    random = np.random.default_rng(6)
    detector = BuildUp()
    n = 0
    for turnover in random.lognormal(8.0, 0.5, 300).tolist():
        detector.update(candle(START_MS + n * 15 * MINUTE_MS, 1.0, turnover, timeframe=Timeframe.Min15), 0, 0)
        n += 1
    for part in range(4):
        for _ in range(3):
            busy = candle(START_MS + n * 15 * MINUTE_MS, 1.0, 20_000.0, timeframe=Timeframe.Min15)
            assert detector.update(busy, 0, 0) is None
            n += 1
        if part % 2:
            detector.reset("ABC_USDT")
        else:
            n += 1
    assert detector.wake_turnover("ABC_USDT", Timeframe.Min15) == NEVER


# --- Tickers ----------------------------------------------------------------------------------------------------------


def test_open_interest_that_jumps_is_told_once_from_where_it_fired() -> None:
    random = np.random.default_rng(8)
    detector = OpenInterestJump()
    interest = 1e6
    now_ms = START_MS
    for _ in range(60):
        interest *= 1.0 + float(random.normal(0.0, 0.002))
        assert detector.observe(Ticker(symbol="ABC_USDT", last_price=1.0, open_interest=interest), now_ms, 0) is None
        now_ms += SPAN_MS
    jumped = Ticker(symbol="ABC_USDT", last_price=1.0, open_interest=interest * 1.1)
    signal = detector.observe(jumped, now_ms, 0)
    assert signal is not None
    assert (signal.direction, signal.level) == (Direction.UP, Level.STRONG)
    assert detector.observe(jumped, now_ms + 1000, 0) is None
    fallen = Ticker(symbol="ABC_USDT", last_price=1.0, open_interest=interest)
    back = detector.observe(fallen, now_ms + 2000, 0)
    assert back is not None
    assert back.direction is Direction.DOWN


def test_open_interest_is_not_compared_across_a_hole() -> None:
    detector = OpenInterestJump()
    for n in range(60):
        detector.observe(Ticker(symbol="ABC_USDT", last_price=1.0, open_interest=1e6), START_MS + n * SPAN_MS, 0)
    late_ms = START_MS + 90 * SPAN_MS
    assert detector.observe(Ticker(symbol="ABC_USDT", last_price=1.0, open_interest=2e6), late_ms, 0) is None
    out_of_order = Ticker(symbol="ABC_USDT", last_price=1.0, open_interest=9e6)
    assert detector.observe(out_of_order, late_ms - 1, 0) is None
    assert detector.observe(Ticker(symbol="ABC_USDT", last_price=1.0), late_ms + 1, 0) is None


def test_funding_that_jumps_is_told_and_funding_that_drifts_is_not() -> None:
    detector = FundingJump()
    assert detector.observe(Ticker(symbol="ABC_USDT", last_price=1.0, funding_rate=0.0001), START_MS, 0) is None
    signal = detector.observe(Ticker(symbol="ABC_USDT", last_price=1.0, funding_rate=-0.0025), START_MS + 1000, 0)
    assert signal is not None
    assert (signal.direction, signal.level) == (Direction.DOWN, Level.STRONG)
    assert detector.observe(Ticker(symbol="ABC_USDT", last_price=1.0, funding_rate=-0.0030), START_MS + 2000, 0) is None
    slow = FundingJump()
    for hour in range(100):
        at_ms = START_MS + hour * 60 * MINUTE_MS
        assert slow.observe(Ticker(symbol="ABC_USDT", last_price=1.0, funding_rate=hour * 0.0001), at_ms, 0) is None


def test_a_price_gap_is_told_again_when_it_has_doubled_from_its_lowest() -> None:
    detector = PriceGap()
    n = 0

    def push(last: float) -> bool:
        nonlocal n
        n += 1
        ticker = Ticker(symbol="ABC_USDT", last_price=last, fair_price=100.0)
        return detector.observe(ticker, START_MS + n, 0) is not None

    assert not any(push(100.01) for _ in range(100))
    assert push(102.0)
    assert not push(102.0)
    assert not push(103.9)
    assert push(104.1)
    assert not push(102.0)
    assert not push(103.0)
    assert not push(100.1)
    assert push(102.0)


def test_a_wide_spread_is_told_without_a_direction() -> None:
    detector = PriceGap()
    for n in range(100):
        detector.observe(Ticker(symbol="ABC_USDT", last_price=100.0, best_bid=99.99, best_ask=100.01), START_MS + n, 0)
    wide = Ticker(symbol="ABC_USDT", last_price=100.0, best_bid=99.0, best_ask=101.0)
    signal = detector.observe(wide, START_MS + 100, 0)
    assert signal is not None
    assert (signal.direction, signal.level) == (Direction.FLAT, Level.EXTREME)
    assert [reason.name for reason in signal.reasons] == ["spread"]
    crossed = Ticker(symbol="ABC_USDT", last_price=100.0, best_bid=101.0, best_ask=99.0)
    assert detector.observe(crossed, START_MS + 101, 0) is None


def test_a_new_contract_is_told_once() -> None:
    detector = NewListing()
    detector.know(["BTC_USDT"])

    def push(symbol: str, *, is_hidden: bool = False) -> str | None:
        contract = Contract(symbol, "A", "USDT", "USDT", 1.0, opening_time_ms=START_MS, is_hidden=is_hidden)
        signal = detector.observe(ContractUpdate(contract, START_MS), 0)
        return signal.reasons[0].text if signal else None

    assert push("BTC_USDT") is None
    assert push("HID_USDT", is_hidden=True) is None
    assert push("NEW_USDT") == "new contract, trades from 2021-04-05 00:00 UTC"
    assert push("NEW_USDT") is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: Breakout(volume=1.0),
        lambda: BuildUp(drift=0.0),
        lambda: OpenInterestJump(times=0.0),
        lambda: FundingJump(step=0.0),
        lambda: PriceGap(times=-1.0),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=r"must"):
        make()
