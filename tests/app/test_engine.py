"""From batches to signals."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from perpwatch import sim
from perpwatch.app.analysis import Analysis
from perpwatch.app.bot import Bot, adapter_for
from perpwatch.app.config import load_config
from perpwatch.app.engine import Engine, Step
from perpwatch.detect.rules import Condition, Rule
from perpwatch.market.ledger import Span
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
    Gap,
    RunningCandle,
    Side,
    Signal,
    StreamUp,
    Ticker,
    Tickers,
    Timeframe,
    Trade,
    Trades,
    Trust,
    stream_of_candles,
)

T0 = 1_791_201_600_000
SYMBOL = "RIF_USDT"
CONTRACT = Contract(SYMBOL, "RIF", "USDT", "USDT", 10.0)


def at(minute: int, second: float = 0.0) -> int:
    return T0 + minute * MINUTE_MS + int(second * 1_000)


def push(minute: int, second: float, amount: float) -> CandleUpdate:
    candle = RunningCandle(SYMBOL, Timeframe.Min1, at(minute) // 1_000, 1.0, 1.0, 1.0, 1.0, amount, amount)
    return CandleUpdate(candle, at(minute, second))


def past(first: int, end: int, turnover: float) -> CandleHistory:
    rows = [
        Candle(
            SYMBOL,
            Timeframe.Min1,
            at(minute),
            1.0,
            1.0,
            1.0,
            1.0,
            turnover,
            turnover,
            turnover,
            Finality.REST,
            Trust.VERIFIED,
        )
        for minute in range(first, end)
    ]
    return CandleHistory(SYMBOL, rows, at(first), at(end))


class Story:
    """An engine that watches one symbol with the simplest rule: ten times the mean of four."""

    def __init__(self, timeframes: tuple[Timeframe, ...] = (Timeframe.Min1, Timeframe.Min5)) -> None:
        settings: dict[str, Any] = {"running_threshold": 10.0, "window": 4, "minimum_turnover": 0.0}
        settings["thresholds"] = dict.fromkeys(timeframes, 10.0)
        rule = Rule("ratio", (Condition("volume_ratio", settings),))
        self.engine = Engine(Analysis([rule]), timeframes)
        self.engine.watch([CONTRACT])

    def take(self, *events: Event, at_ms: int, source: str = "ws-1") -> Step:
        return self.engine.take(Batch(source, 7, at_ms, events))

    def begin(self) -> None:
        self.take(StreamUp(stream_of_candles(SYMBOL), "ws-1", at(0)), at_ms=at(0))
        self.take(past(-60, 0, 100.0), at_ms=at(0, 10), source="rest")


def named(signals: Sequence[Signal]) -> list[tuple[Timeframe, int, float, bool]]:
    return [(one.timeframe, (one.open_time_ms - T0) // MINUTE_MS, one.strength, one.is_running) for one in signals]


def test_nothing_is_said_before_the_history_is_known() -> None:
    story = Story()
    story.take(StreamUp(stream_of_candles(SYMBOL), "ws-1", at(0)), at_ms=at(0))
    assert story.take(push(0, 5, 1e9), at_ms=at(0, 5)).signals == []
    assert story.engine.warm == {}


def test_a_running_minute_that_breaks_out_is_told_at_once() -> None:
    story = Story()
    story.begin()
    assert story.take(push(0, 20, 999.0), at_ms=at(0, 20)).signals == []
    step = story.take(push(0, 21, 1_000.0), at_ms=at(0, 21))
    assert named(step.signals) == [(Timeframe.Min1, 0, 1_000.0, True)]
    assert (step.signals[0].event_time_ms, step.signals[0].received_time_ns) == (at(0, 21), 7)


def test_a_longer_candle_breaks_out_with_its_ended_minutes() -> None:
    story = Story((Timeframe.Min5,))
    story.begin()
    signals: list[Signal] = []
    for minute in range(3):
        for second in (10, 50):
            step = story.take(push(minute, second, 20.0 * second * 2), at_ms=at(minute, second))
            signals += step.signals
    assert named(signals) == [(Timeframe.Min5, 0, 6_000.0, True)][: len(signals)]
    signals += story.take(push(3, 3, 1.0), at_ms=at(3, 3)).signals
    assert named(signals) == [(Timeframe.Min5, 0, 6_000.0, True)]


def test_without_intrabar_analysis_only_closed_candles_are_judged() -> None:
    story = Story()
    story.engine.is_intrabar = False
    story.begin()
    assert story.take(push(0, 20, 5_000.0), at_ms=at(0, 20)).signals == []
    assert named(story.take(at_ms=at(1, 3)).signals) == [(Timeframe.Min1, 0, 5_000.0, False)]


def test_minutes_that_closed_while_the_history_was_on_its_way_are_learned() -> None:
    story = Story((Timeframe.Min1,))
    story.take(StreamUp(stream_of_candles(SYMBOL), "ws-1", at(0)), at_ms=at(0))
    for minute in range(4):
        story.take(push(minute, 10, 1_000.0), at_ms=at(minute, 10))
    story.take(at_ms=at(4, 3))
    story.take(past(-60, 0, 100.0), at_ms=at(0, 10), source="rest")
    assert story.take(push(4, 20, 9_999.0), at_ms=at(4, 20)).signals == []
    assert named(story.take(push(4, 21, 10_000.0), at_ms=at(4, 21)).signals)[0] == (Timeframe.Min1, 4, 10_000.0, True)


def test_a_minute_over_a_gap_is_not_judged_and_is_repaired() -> None:
    story = Story()
    story.begin()
    story.take(push(0, 20, 500.0), at_ms=at(0, 20))
    story.take(Gap(stream_of_candles(SYMBOL), "ws-1", at(0, 20), None, "cut"), at_ms=at(0, 20))
    story.take(StreamUp(stream_of_candles(SYMBOL), "ws-1", at(0, 40)), at_ms=at(0, 40))
    step = story.take(push(1, 1, 1.0), at_ms=at(1, 3))
    assert step.signals == []
    assert step.outcome.lost == [Span(SYMBOL, at(0), at(1))]
    assert story.engine.due_repairs({SYMBOL: 0}) == []
    story.take(at_ms=at(1, 6))
    assert story.engine.due_repairs({SYMBOL: 0}) == [Span(SYMBOL, at(0), at(1))]
    step = story.take(past(0, 1, 7_000.0), at_ms=at(1, 7), source="rest")
    assert named(step.signals) == [(Timeframe.Min1, 0, 7_000.0, False)]
    assert step.signals[0].trust is Trust.REPAIRED


def test_events_for_others_are_passed_on() -> None:
    story = Story()
    trades = Trades(SYMBOL, [Trade(1.0, 1.0, Side.BUY, at(0))], at(0))
    step = story.take(trades, Tickers([Ticker(symbol=SYMBOL, last_price=2.0)], at(0)), at_ms=at(0))
    assert list(step.events) == [trades]
    assert story.engine.tickers[SYMBOL].last_price == 2.0


def test_coverage_is_the_share_of_streams_that_are_up() -> None:
    story = Story()
    assert story.engine.coverage() == 0.0
    story.begin()
    assert story.engine.coverage() == 1.0
    story.take(Gap(stream_of_candles(SYMBOL), "ws-1", at(0, 20), None, "cut"), at_ms=at(0, 20))
    assert story.engine.coverage() == 0.0


def test_a_departed_symbol_leaves_nothing_behind() -> None:
    story = Story()
    story.begin()
    story.take(push(0, 20, 500.0), at_ms=at(0, 20))
    story.take(Gap(stream_of_candles(SYMBOL), "ws-1", at(0, 20), None, "cut"), at_ms=at(1, 20))
    story.engine.watch([])
    assert (story.engine.book.series, story.engine.warm, len(story.engine.repairs)) == ({}, {}, 0)
    assert story.take(push(1, 30, 1e9), past(0, 1, 1.0), at_ms=at(2, 3)).signals == []


def test_a_minute_that_closes_wakes_the_detectors_also_when_it_is_not_analysed() -> None:
    story = Story((Timeframe.Min5,))
    story.begin()
    story.take(push(0, 20, 1.0), at_ms=at(0, 20))
    story.take(push(1, 1, 1.0), at_ms=at(1, 1))
    assert story.engine.book.series[SYMBOL].wake_amount > 0.0
    story.take(at_ms=at(1, 3))
    assert story.engine.book.series[SYMBOL].wake_amount == -1.0


# --- The whole program over the simulated exchange -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("faults", "may_miss"),
    [
        ({}, 0.0),
        ({"drops_per_hour": 30.0, "reorder": 0.02, "duplicate": 0.05, "late": 0.05}, 0.0),
        ({"malformed": 0.01, "gzip": 0.1, "odd_numbers": 0.2}, 0.0),
        ({"refuse_subscriptions": 0.2, "refusal": "silence"}, 0.0),
        ({"max_subscriptions": 20, "limit_refusal": "silence"}, 0.0),
        ({"rest_510": 0.1, "rest_html": 0.05, "rest_truncated": 0.05, "drops_per_hour": 10.0}, 0.3),
    ],
)
def test_every_minute_that_is_known_is_what_the_exchange_traded(faults: dict[str, Any], may_miss: float) -> None:
    exchange = sim.build(11, 40, faults=sim.Faults(**faults))
    closed: dict[tuple[str, int], Candle] = {}

    def on_step(batch: Batch, step: Step) -> None:
        for candle in step.outcome.closed:
            if candle.timeframe is Timeframe.Min1:
                closed[candle.symbol, candle.open_time_ms] = candle

    async def main() -> Engine:
        clock = sim.Clock.starting_at(sim.DEFAULT_START_MS)
        network = sim.SimulatedNetwork(exchange, clock, seed=11)
        config = load_config(None, {})
        async with network:
            bot = Bot(config, adapter_for(config), network.dial, network.get, clock, Random(1).random, on_step)
            await bot.run(720)
        return bot.engine

    ledger = sim.run_virtual(main()).ledger
    missing = wrong = 0
    minutes = range(sim.DEFAULT_START_MS + 2 * MINUTE_MS, exchange.now_ms - 3 * MINUTE_MS, MINUTE_MS)
    for symbol in exchange.market.symbols:
        truth = {candle.open_time_ms: candle.contracts for candle in exchange.market.truth(symbol)}
        for open_ms in minutes:
            candle = closed.get((symbol, open_ms))
            if candle is None or ledger.trust(symbol, open_ms) is Trust.UNKNOWN:
                missing += 1
            else:
                wrong += candle.contracts != truth.get(open_ms, 0)
    assert wrong == 0
    assert missing <= may_miss * len(minutes) * len(exchange.market.symbols)


def test_a_ticker_topic_that_dies_without_a_word_is_asked_for_again() -> None:
    """Pongs and candles go on; without its witness every silent minute would count as missing."""
    silence = sim.FaultEvent(sim.DEFAULT_START_MS + 60_000, "silence", "tickers", duration_ms=60_000)
    exchange = sim.build(11, 20, faults=sim.Faults(events=(silence,)))

    async def main() -> Engine:
        clock = sim.Clock.starting_at(sim.DEFAULT_START_MS)
        network = sim.SimulatedNetwork(exchange, clock, seed=11)
        config = load_config(None, {})
        async with network:
            bot = Bot(config, adapter_for(config), network.dial, network.get, clock, Random(1).random)
            await bot.run(240)
        return bot.engine

    engine = sim.run_virtual(main())
    assert exchange.counters.commands > 240 // 15 + 21 + 2  # pings, subscriptions, and the tickers anew
    counts = engine.ledger.counts(exchange.market.symbols, sim.DEFAULT_START_MS, sim.DEFAULT_START_MS + 3 * MINUTE_MS)
    assert counts[Trust.UNKNOWN] == 0


def test_the_minutes_between_the_history_and_the_stream_are_read_back() -> None:
    # The stream came up two seconds into a minute; the history was read at once, when the last minute had not settled.
    engine = Engine(Analysis(), ANALYSED_TIMEFRAMES)
    engine.watch([CONTRACT])
    start_ms = 1_700_000_040_000 // MINUTE_MS * MINUTE_MS
    up = StreamUp(stream_of_candles(CONTRACT.symbol), "ws-1", start_ms + 2_000)
    engine.take(Batch("ws-1", 0, start_ms + 2_000, [up]))
    history = CandleHistory(CONTRACT.symbol, [], start_ms - 10 * MINUTE_MS, start_ms)
    engine.take(Batch("rest", 0, start_ms + 2_500, [history]))
    due = engine.repairs.due(start_ms + 10_000, lambda symbol: 0)
    assert [(span.symbol, span.end_ms) for span in due] == [(CONTRACT.symbol, start_ms)]
    assert due[0].start_ms <= start_ms - MINUTE_MS
