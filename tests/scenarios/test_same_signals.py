"""Live, replayed and from what was kept, one market gives one set of signals and alerts."""

from __future__ import annotations

from pathlib import Path

import pytest
from virtual_watch import SEED, START_MS, Found, watch

from perpwatch import sim
from perpwatch.app.analysis import Analysis
from perpwatch.app.bot import shipped_scorer
from perpwatch.app.engine import Engine
from perpwatch.detect.flow import TradeFlow
from perpwatch.detect.rule_set import RuleSet
from perpwatch.detect.rules import DEFAULT_RULES
from perpwatch.model import ANALYSED_TIMEFRAMES, MINUTE_MS, Signal
from perpwatch.store import Database, Reader

#: Everybody is warm by then: some thirty histories at five requests a second.
WARM_MS = START_MS + 2 * MINUTE_MS
RULES = ["default", "build_up", "volume_ratio", "breakout", "plain_pump"]
ROUGH = sim.Faults(
    reorder=0.01,
    duplicate=0.01,
    late=0.02,
    drops_per_hour=4,
    events=(
        sim.FaultEvent(START_MS + 4 * MINUTE_MS, "silence", "connection:1", 40_000),
        sim.FaultEvent(START_MS + 6 * MINUTE_MS, "silence", "kline:BTC_USDT", 90_000),
    ),
)


def test_the_batches_of_a_rough_watch_replayed_give_the_same_to_the_last_figure() -> None:
    exchange = sim.build(SEED, 30, faults=ROUGH, pumps_per_hour=40)
    live = watch(exchange, 15, {"websocket": {"subscription_types": ["ticker", "deals", "kline_Min1"]}})
    engine = Engine(Analysis(DEFAULT_RULES, shipped_scorer()), ANALYSED_TIMEFRAMES)
    assert live.bot is not None
    engine.analysis.swap(live.bot.analysis.rules.rules)
    engine.now_ms = START_MS
    engine.watch(live.contracts)
    replayed = Found()
    for batch in live.batches:
        replayed.take(engine.take(batch))
    assert len(live.found.signals) >= 20
    assert len(live.found.alerts) >= 5
    assert any(signal.is_running for signal in live.found.signals)
    assert replayed == live.found


def test_what_was_kept_gives_the_signals_on_closed_candles_that_were_given_live(tmp_path: Path) -> None:
    path = tmp_path / "perpwatch.db"
    exchange = sim.build(SEED, 30, pumps_per_hour=40, quiet_share=0.0)
    settings = {
        "websocket": {"enable_real_time_analysis": False},
        "detection": {"rules": RULES},
    }
    live = watch(exchange, 25, settings, path)
    assert live.bot is not None
    database = Database.open(str(path))
    reader = Reader(database)
    candles = [
        candle for timeframe in ANALYSED_TIMEFRAMES for candle in reader.market_candles(timeframe, 0, 2 * START_MS)
    ]
    database.close()
    candles.sort(key=lambda one: (one.close_time_ms, one.timeframe.minutes, one.symbol))
    rules = RuleSet(live.bot.analysis.rules.rules, TradeFlow(), shipped_scorer())
    rules.watch(live.contracts)
    batch = [signal for candle in candles for signal in rules.update(candle, candle.close_time_ms, 0)]
    of_batch, of_live = _by_candle(batch), _by_candle(live.found.signals)
    assert {rule for rule, *_ in of_batch} >= {"default", "volume_ratio", "plain_pump"}
    assert len(of_batch) >= 40
    assert of_live.keys() == of_batch.keys()
    for name, one in of_live.items():
        other = of_batch[name]
        assert (one.direction, one.price, one.is_learning) == (other.direction, other.price, other.is_learning)
        assert [reason.name for reason in one.reasons if reason.name not in _OF_THE_MOMENT] == [
            reason.name for reason in other.reasons if reason.name not in _OF_THE_MOMENT
        ]
        # The minute between history and stream is read back when later ones have been judged, so that a live mean of
        # twenty candles may have been made without it.
        assert one.strength == pytest.approx(other.strength, rel=0.1)


#: What is known only while it happens.
_OF_THE_MOMENT = ("open_interest_change", "funding_rate", "trust", "latency")


def _by_candle(signals: list[Signal]) -> dict[tuple[str, str, str, int], Signal]:
    return {
        (one.rule, one.symbol, one.timeframe, one.open_time_ms): one
        for one in signals
        if one.open_time_ms + one.timeframe.milliseconds > WARM_MS
    }
