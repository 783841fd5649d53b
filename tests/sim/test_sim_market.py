"""The simulated market: trades, candles, history and planted moves."""

from __future__ import annotations

import itertools
import math
import statistics
from typing import cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perpwatch.model import MINUTE_MS, Timeframe
from perpwatch.sim import DEFAULT_START_MS, MarketCandle, MarketTrade, Pump, SimulatedMarket, demo_pumps

MINUTES = 20


def about(amount: float) -> float:
    """Compares equal to what differs only by rounding."""
    return cast(float, pytest.approx(amount, abs=1e-5))


def run(market: SimulatedMarket, minutes: int = MINUTES) -> list[MarketTrade]:
    return market.advance(market.start_ms + minutes * MINUTE_MS)


def batch_candles(market: SimulatedMarket, symbol: str, trades: list[MarketTrade]) -> list[MarketCandle]:
    """Candles the slow way: grouped by minute, each opening at the close before it."""
    listing = market.listing(symbol)
    assert listing is not None
    size, close = listing.instrument.contract_size, listing.instrument.first_price
    candles = []
    own = [trade for trade in trades if trade.symbol == symbol]
    for minute, group in itertools.groupby(own, key=lambda trade: trade.time_ms // MINUTE_MS):
        fills = list(group)
        prices = [fill.price for fill in fills]
        candles.append(
            MarketCandle(
                open_time_ms=minute * MINUTE_MS,
                open=close,
                high=max(close, *prices),
                low=min(close, *prices),
                close=prices[-1],
                contracts=sum(fill.contracts for fill in fills),
                amount=about(sum(fill.contracts * fill.price * size for fill in fills)),
                real_open=prices[0],
                real_high=max(prices),
                real_low=min(prices),
                real_close=prices[-1],
            )
        )
        close = prices[-1]
    return candles


def test_the_same_seed_gives_the_same_trades_and_another_seed_others() -> None:
    first, second, other = (run(SimulatedMarket(seed, 30)) for seed in (7, 7, 8))
    assert first == second
    assert first != other


@settings(max_examples=15, deadline=None)
@given(steps=st.lists(st.integers(1, 100_000), min_size=1, max_size=12))
def test_trades_do_not_depend_on_how_time_is_cut(steps: list[int]) -> None:
    whole, cut = SimulatedMarket(3, 12, pumps_per_hour=60), SimulatedMarket(3, 12, pumps_per_hour=60)
    trades = []
    now_ms = cut.start_ms
    for step in steps:
        now_ms += step
        trades += cut.advance(now_ms)
    assert trades == whole.advance(now_ms)
    assert [cut.truth(symbol) for symbol in cut.symbols] == [whole.truth(symbol) for symbol in whole.symbols]


def test_a_contract_does_not_depend_on_the_others() -> None:
    few, many = SimulatedMarket(3, 10), SimulatedMarket(3, 60)
    symbol = few.symbols[9]
    assert [t for t in run(few) if t.symbol == symbol] == [t for t in run(many) if t.symbol == symbol]


def test_a_pump_leaves_the_other_trades_of_its_contract_where_they_were() -> None:
    calm = SimulatedMarket(3, 10)
    pump = Pump(calm.start_ms + 5 * MINUTE_MS, calm.symbols[4])
    pumped = SimulatedMarket(3, 10, pumps=[pump])
    before = {trade.time_ms for trade in run(calm) if trade.symbol == pump.symbol}
    after = {trade.time_ms for trade in run(pumped) if trade.symbol == pump.symbol}
    assert before < after


def test_truth_equals_candles_built_from_the_trades() -> None:
    market = SimulatedMarket(5, 25, pumps_per_hour=40)
    trades = run(market)
    for symbol in market.symbols:
        assert market.truth(symbol) == batch_candles(market, symbol, trades)


def test_the_running_candle_is_the_minute_so_far() -> None:
    market = SimulatedMarket(5, 3)
    trades = market.advance(market.start_ms + 2 * MINUTE_MS + 23_456)
    symbol = market.symbols[0]
    assert [*market.truth(symbol), market.running(symbol)] == batch_candles(market, symbol, trades)


def test_candles_open_where_the_last_one_closed_through_history_and_the_seam() -> None:
    market = SimulatedMarket(2, 40)
    run(market)
    for symbol in market.symbols[::5]:
        candles = market.truth(symbol, with_history=True)
        assert all(after.open == before.close for before, after in itertools.pairwise(candles))
        assert all(candle.low <= min(candle.open, candle.real_low) for candle in candles)
        assert all(candle.high >= max(candle.open, candle.real_high) for candle in candles)


def test_amounts_fit_the_prices_of_their_candle() -> None:
    market = SimulatedMarket(2, 20)
    run(market)
    for symbol in market.symbols:
        listing = market.listing(symbol)
        assert listing is not None
        for candle in market.truth(symbol, with_history=True)[-500:]:
            mean = candle.amount / candle.contracts / listing.instrument.contract_size
            assert candle.real_low * (1 - 1e-6) <= mean <= candle.real_high * (1 + 1e-6)


def test_history_reaches_back_thirty_days_and_no_further() -> None:
    market = SimulatedMarket(2, 2)
    candles = market.truth("BTC_USDT", with_history=True)
    assert len(candles) == 30 * 1_440
    assert candles[0].open_time_ms == market.start_ms - 30 * 1_440 * MINUTE_MS
    assert not len(market.columns("BTC_USDT", Timeframe.Min1, 0, market.minute - 31 * 1_440))


def test_history_is_the_same_whichever_part_is_asked_for_first() -> None:
    first, second = SimulatedMarket(2, 3), SimulatedMarket(2, 3)
    symbol, now = first.symbols[2], first.minute
    old = first.columns(symbol, Timeframe.Min1, now - 9_000, now - 8_000)
    second.columns(symbol, Timeframe.Min1, now - 100, now)
    second.columns(symbol, Timeframe.Min1, now - 20_000, now)
    again = second.columns(symbol, Timeframe.Min1, now - 9_000, now - 8_000)
    assert old.candles() == again.candles()


def test_quiet_contracts_leave_minutes_out_and_the_top_does_not() -> None:
    market = SimulatedMarket(4, 200)
    run(market, 60)
    minutes = [len(market.truth(symbol)) for symbol in market.symbols]
    assert minutes[0] == 60
    assert min(minutes) < 10
    assert any(candle.open != candle.real_open for candle in market.truth(market.symbols[30]))


def test_turnover_is_heavy_tailed() -> None:
    market = SimulatedMarket(4, 800)
    turnovers = sorted((market.day(listing).amount for listing in market.listings()), reverse=True)
    assert turnovers[0] > 2e8
    assert turnovers[-1] < 2e4
    assert sum(turnovers[:80]) > 0.8 * sum(turnovers)


def test_contract_sizes_and_names_are_as_odd_as_the_real_ones() -> None:
    market = SimulatedMarket(4, 300)
    sizes = [listing.instrument.contract_size for listing in market.listings()]
    assert (min(sizes), max(sizes)) == (0.00001, 10_000_000.0)
    assert market.symbols[:3] == ["BTC_USDT", "ETH_USDT", "SOL_USDT"]
    assert any(symbol.startswith("1000") for symbol in market.symbols)
    assert any("mc-trade-zone-Stock" in listing.instrument.zones for listing in market.listings())
    assert len(set(market.symbols)) == 300


def test_afternoons_are_busier_than_nights() -> None:
    market = SimulatedMarket(4, 1)
    candles = market.truth("BTC_USDT", with_history=True)

    def turnover(hour: int) -> float:
        return statistics.fmean(c.amount for c in candles if c.open_time_ms // 3_600_000 % 24 == hour)

    assert turnover(14) > 2 * turnover(2)


def test_24_hour_volume_moves_with_trades_and_at_a_minutes_end_by_what_fell_out() -> None:
    market = SimulatedMarket(4, 12)
    symbol = market.symbols[8]
    listing = market.listing(symbol)
    assert listing is not None
    history = {c.open_time_ms // MINUTE_MS: c.contracts for c in market.truth(symbol, with_history=True)}
    for _ in range(40):
        before, end_ms = market.day(listing).contracts, (market.minute + 1) * MINUTE_MS
        traded = sum(trade.contracts for trade in market.advance(end_ms - 1) if trade.symbol == symbol)
        assert market.day(listing).contracts == before + traded
        fell_out = history.get(market.minute - 1_440, 0)
        first = sum(trade.contracts for trade in market.advance(end_ms) if trade.symbol == symbol)
        assert market.day(listing).contracts == before + traded - fell_out + first


def test_longer_candles_are_rolled_up_from_minutes() -> None:
    market = SimulatedMarket(4, 2)
    run(market, 7)
    minutes = market.columns("ETH_USDT", Timeframe.Min1, market.minute // 5 * 5 - 10, market.minute).candles()
    fives = market.columns("ETH_USDT", Timeframe.Min5, market.minute // 5 * 5 - 10, market.minute).candles()
    assert [five.open_time_ms // MINUTE_MS - market.minute // 5 * 5 for five in fives] == [-10, -5, 0]
    group = minutes[5:10]
    assert fives[1] == MarketCandle(
        open_time_ms=group[0].open_time_ms,
        open=group[0].open,
        high=max(c.high for c in group),
        low=min(c.low for c in group),
        close=group[-1].close,
        contracts=sum(c.contracts for c in group),
        amount=about(sum(c.amount for c in group)),
        real_open=group[0].real_open,
        real_high=max(c.real_high for c in group),
        real_low=min(c.real_low for c in group),
        real_close=group[-1].real_close,
    )


def test_weeks_begin_on_monday_and_months_on_the_first() -> None:
    market = SimulatedMarket(4, 1)  # starts on Monday 2026-10-05, 12:00 UTC
    (week,) = market.columns("BTC_USDT", Timeframe.Week1, market.minute - 1_000, market.minute).candles()
    (month,) = market.columns("BTC_USDT", Timeframe.Month1, market.minute - 7_000, market.minute).candles()
    assert week.open_time_ms == market.start_ms - 12 * 3_600_000
    assert month.open_time_ms == market.start_ms - (4 * 24 + 12) * 3_600_000


@pytest.mark.parametrize("size", [0.12, -0.15])
def test_a_planted_move_has_its_size_its_volume_and_many_fills(size: float) -> None:
    calm = SimulatedMarket(4, 30)
    symbol = calm.symbols[20]
    start_ms = calm.start_ms + 10 * MINUTE_MS
    pump = Pump(start_ms, symbol, duration_ms=60_000, size=size, volume_multiple=50.0)
    market = SimulatedMarket(4, 30, pumps=[pump])
    trades = [trade for trade in run(market) if trade.symbol == symbol]
    during = [trade for trade in trades if start_ms <= trade.time_ms < start_ms + 60_000]
    before = [trade for trade in trades if trade.time_ms < start_ms]
    assert math.log(during[-1].price / before[-1].price) == pytest.approx(math.log1p(size), abs=0.02)
    listing = market.listing(symbol)
    assert listing is not None
    usual = listing.instrument.turnover_per_day / 1_440
    turnover = sum(t.contracts * t.price for t in during) * listing.instrument.contract_size
    assert 30 * usual < turnover < 80 * usual
    assert len(during) > 50
    assert market.pumps == [pump]


def test_drawn_pumps_are_known_before_they_happen() -> None:
    market = SimulatedMarket(4, 50, pumps_per_hour=30)
    known = market.pumps
    assert len(known) > 10
    assert all(0.02 < abs(pump.size) <= 0.25 for pump in known)
    run(market, 59)
    assert market.pumps == known


def test_a_pump_planted_too_late_is_moved_to_the_next_minute() -> None:
    market = SimulatedMarket(4, 5)
    planted = market.plant(Pump(market.start_ms + 1_000, "BTC_USDT"))
    assert planted.start_ms == market.start_ms + MINUTE_MS
    assert planted in market.pumps


def test_the_demonstration_moves_a_much_traded_contract_within_half_a_minute() -> None:
    pumps = demo_pumps(SimulatedMarket(1, 300), hours=0.5)
    assert pumps[0].start_ms == DEFAULT_START_MS + 12_000
    assert all(20_000 <= b.start_ms - a.start_ms <= 40_000 for a, b in itertools.pairwise(pumps))
    market = SimulatedMarket(1, 300, pumps=pumps)
    assert market.pumps == pumps
    assert pumps[0].symbol in market.symbols[:20]
    assert {pump.symbol for pump in pumps} <= set(market.symbols[:200])
    market.advance(DEFAULT_START_MS + 30_000)
    running = market.running(pumps[0].symbol)
    listing = market.listing(pumps[0].symbol)
    assert running is not None
    assert listing is not None
    assert running.close / running.open > 1.02
    assert running.amount > 5 * listing.instrument.turnover_per_day / 1_440


def test_a_pump_may_begin_in_the_very_first_minute() -> None:
    market = SimulatedMarket(1, 30, pumps=[Pump(SimulatedMarket(1, 1).start_ms + 12_000, "SOL_USDT", 60_000, 0.1)])
    trades = [trade.price for trade in run(market, 1) if trade.symbol == "SOL_USDT"]
    assert max(trades) / trades[0] > 1.05


def test_time_does_not_go_back() -> None:
    market = SimulatedMarket(1, 2)
    run(market, 1)
    with pytest.raises(ValueError, match="cannot go back"):
        market.advance(market.start_ms)


def test_a_new_contract_trades_from_the_next_minute_and_has_no_past() -> None:
    market = SimulatedMarket(1, 5)
    market.advance(market.start_ms + 30_000)
    listing = market.list_contract("NEWCOIN_USDT", rank=3)
    assert listing.instrument.opening_time_ms == market.start_ms + MINUTE_MS
    assert market.day(listing).contracts == 0
    trades = [trade for trade in run(market, 5) if trade.symbol == "NEWCOIN_USDT"]
    assert trades[0].time_ms >= market.start_ms + MINUTE_MS
    assert market.truth("NEWCOIN_USDT", with_history=True) == batch_candles(market, "NEWCOIN_USDT", trades)


def test_a_delisted_contract_stops_at_once() -> None:
    market = SimulatedMarket(1, 5)
    market.advance(market.start_ms + 30_000)
    market.delist("ETH_USDT")
    assert not [trade for trade in run(market, 3) if trade.symbol == "ETH_USDT"]
    assert market.listing("ETH_USDT") is None
    assert "ETH_USDT" not in market.symbols


def test_a_paused_contract_keeps_the_trades_it_had() -> None:
    market = SimulatedMarket(1, 5)
    trades = market.advance(market.start_ms + 30_000)
    market.set_state("ETH_USDT", 4)
    trades += run(market, 3)
    assert market.truth("ETH_USDT") == batch_candles(market, "ETH_USDT", trades)
    market.set_state("ETH_USDT", 0)
    trades += run(market, 6)
    assert len(market.truth("ETH_USDT")) > 1
    assert market.truth("ETH_USDT") == batch_candles(market, "ETH_USDT", trades)


def test_a_renamed_contract_goes_on_where_it_was() -> None:
    renamed, same = SimulatedMarket(1, 5), SimulatedMarket(1, 5)
    for market in (renamed, same):
        market.advance(market.start_ms + 90_000)
    renamed.rename("SOL_USDT", "SOLANA_USDT")
    assert [t.price for t in run(renamed) if t.symbol == "SOLANA_USDT"] == [
        t.price for t in run(same) if t.symbol == "SOL_USDT"
    ]
    assert renamed.truth("SOLANA_USDT") == same.truth("SOL_USDT")


def test_a_new_contract_size_holds_from_the_next_minute() -> None:
    market = SimulatedMarket(1, 3)
    listing = market.set_contract_size("BTC_USDT", 0.001)
    assert listing.instrument.contract_size == 0.0001
    run(market, 3)
    assert listing.instrument.contract_size == 0.001
    candle = market.truth("BTC_USDT")[1]
    assert candle.amount / candle.contracts / 0.001 == pytest.approx(candle.close, rel=0.01)


def test_coin_margined_amounts_are_in_base_coin() -> None:
    market = SimulatedMarket(1, 2, coin_margined=1)
    run(market)
    candle = market.truth("BTC_USD")[0]
    assert candle.contracts * 100 / candle.amount == pytest.approx(candle.close, rel=0.01)
    assert "BTC_USD" in market.symbols


def test_trade_ids_rise_within_a_symbol() -> None:
    ids = [trade.trade_id for trade in run(SimulatedMarket(1, 2)) if trade.symbol == "ETH_USDT"]
    assert ids == sorted(set(ids))
    assert msgspec.json.encode(ids)
