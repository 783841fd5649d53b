"""A past is learned in slices, and reaches back as far as an earlier run has kept it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from perpwatch.app.analysis import Analysis
from perpwatch.app.engine import Engine, Past, Step
from perpwatch.app.keeper import Keeper
from perpwatch.detect.detector import NEVER
from perpwatch.market.candles import roll_up_all
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
    StreamUp,
    Timeframe,
    Trust,
    stream_of_candles,
)
from perpwatch.store import Database, Reader, Writer

T0 = 1_791_201_600_000
SYMBOL = "RIF_USDT"
CONTRACT = Contract(SYMBOL, "RIF", "USDT", "USDT", 10.0)
DAY = 1_440


def market(minutes: int, seed: int = 1) -> list[Candle]:
    """Minutes that end at T0: log-normal turnover, a random walk, and now and then a burst."""
    random = np.random.default_rng(seed)
    is_burst = random.random(minutes) < 0.003
    turnovers = random.lognormal(8.0, 0.8, minutes) * np.where(is_burst, 50.0, 1.0)
    closes = 100.0 * np.exp(np.cumsum(random.normal(0.0, 0.001, minutes) * np.where(is_burst, 8.0, 1.0)))
    opens = np.concatenate([[100.0], closes[:-1]])
    return [
        Candle(
            symbol=SYMBOL,
            timeframe=Timeframe.Min1,
            open_time_ms=T0 + (number - minutes) * MINUTE_MS,
            open=open_,
            high=max(open_, close),
            low=min(open_, close),
            close=close,
            contracts=turnover / close / 10.0,
            base_volume=turnover / close,
            turnover=turnover,
            finality=Finality.REST,
            trust=Trust.VERIFIED,
        )
        for number, (open_, close, turnover) in enumerate(
            zip(opens.tolist(), closes.tolist(), turnovers.tolist(), strict=True)
        )
    ]


def history(minutes: Sequence[Candle]) -> CandleHistory:
    return CandleHistory(SYMBOL, list(minutes), minutes[0].open_time_ms, minutes[-1].close_time_ms)


def engine_of() -> Engine:
    engine = Engine(Analysis(), ANALYSED_TIMEFRAMES)
    engine.watch([CONTRACT])
    take(engine, StreamUp(stream_of_candles(SYMBOL), "ws-1", T0), at_ms=T0)
    return engine


def take(engine: Engine, *events: Event, at_ms: int, source: str = "ws-1") -> Step:
    return engine.take(Batch(source, at_ms * 1_000_000, at_ms, events))


def burst(after: Candle, at_ms: int, *, rise: float = 0.2, amount: float = 6e5) -> CandleUpdate:
    """A push in which the price has risen by 20 % at two hundred times the usual turnover."""
    price = after.close * (1.0 + rise)
    candle = RunningCandle(
        SYMBOL, Timeframe.Min1, T0 // 1_000, after.close, price, after.close, price, amount / price / 10.0, amount
    )
    return CandleUpdate(candle, at_ms)


def test_who_does_not_ask_for_slices_learns_with_the_next_batch_and_finds_the_same() -> None:
    minutes = market(1_980)
    found = []
    for is_sliced in (True, False):
        engine = engine_of()
        take(engine, history(minutes), at_ms=T0 + 10_000, source="rest")
        assert SYMBOL not in engine.warm
        if is_sliced:
            assert sum(1 for _ in engine.warming()) >= 10
            assert SYMBOL in engine.warm
        step = take(engine, burst(minutes[-1], T0 + 20_000), at_ms=T0 + 20_000)
        found.append((step.signals, engine.analysis.rules.state()))
    assert found[0] == found[1]
    assert found[0][0], "the burst was to be found"


def test_what_is_closed_by_the_batch_that_brings_the_history_is_learned_too() -> None:
    minutes = market(1_980)
    together, apart = engine_of(), engine_of()
    push, end_ms = burst(minutes[-1], T0 + 30_000, rise=0.001, amount=3e3), T0 + 65_000
    take(together, push, at_ms=T0 + 40_000)
    step = take(together, history(minutes), at_ms=end_ms)
    assert T0 in [candle.open_time_ms for candle in step.outcome.closed]
    take(apart, history(minutes), at_ms=T0 + 20_000, source="rest")
    take(apart, push, at_ms=T0 + 40_000)
    take(apart, at_ms=end_ms)
    for engine in (together, apart):
        take(engine, at_ms=end_ms + 5_000)
    states = [engine.analysis.rules.state() for engine in (together, apart)]
    assert states[0] == states[1]


def test_a_symbol_that_goes_between_two_slices_leaves_nothing_behind() -> None:
    engine = engine_of()
    take(engine, history(market(1_980)), at_ms=T0 + 10_000, source="rest")
    for number, _ in enumerate(engine.warming()):
        if number == 3:
            engine.watch([])
    assert engine.warm == {}
    assert {engine.analysis.wake_turnover(SYMBOL, timeframe) for timeframe in ANALYSED_TIMEFRAMES} == {NEVER}


def test_slices_go_on_where_they_were_left() -> None:
    minutes = market(1_980)
    whole, stopped = engine_of(), engine_of()
    for engine in (whole, stopped):
        take(engine, history(minutes), at_ms=T0 + 10_000, source="rest")
    for _ in itertools.islice(stopped.warming(), 5):
        pass
    for engine in (whole, stopped):
        take(engine, at_ms=T0 + 11_000)
    assert stopped.analysis.rules.state() == whole.analysis.rules.state()


@pytest.mark.parametrize("first_minute", [0, 17])
async def test_a_restart_knows_what_one_that_saw_everything_knows(tmp_path: Path, first_minute: int) -> None:
    minutes = market(4 * DAY)
    seen_from_the_start = engine_of()
    take(seen_from_the_start, history(minutes), at_ms=T0 + 10_000, source="rest")
    database = Database.open(f"sqlite:///{tmp_path}/perpwatch.db")
    async with Writer(database) as writer:
        for timeframe in ANALYSED_TIMEFRAMES:
            writer.put_now(*roll_up_all(minutes, timeframe, until_ms=T0))
        assert await writer.flush(10.0)
        restarted, knows_only_the_history = engine_of(), engine_of()
        restarted.past = Keeper(restarted, Reader(database), writer).past
        for engine in (restarted, knows_only_the_history):
            take(engine, history(minutes[-1_980 + first_minute :]), at_ms=T0 + 10_000, source="rest")
        states = []
        for engine in (seen_from_the_start, restarted, knows_only_the_history):
            for _ in engine.warming():
                pass
            states.append(engine.analysis.rules.state())
    database.close()
    assert states[1] == states[0]
    assert states[2] != states[0]


async def test_what_is_kept_while_it_runs_is_part_of_the_past(tmp_path: Path) -> None:
    database = Database.open(f"sqlite:///{tmp_path}/perpwatch.db")
    minutes = market(300)
    first_ms, end_ms = minutes[0].open_time_ms, minutes[-1].close_time_ms
    async with Writer(database) as writer:
        engine, reader = engine_of(), Reader(database)
        keeper = Keeper(engine, reader, writer)
        assert keeper.past(SYMBOL, Timeframe.Min5, 0, end_ms) == []  # nothing is there yet
        for some in (minutes[150:], minutes):  # the second reaches further back
            batch = Batch("rest", (T0 + 10_000) * 1_000_000, T0 + 10_000, [history(some)])
            keeper.note(batch, engine.take(batch))
            await keeper.write_histories(T0 + 60_000)
        for timeframe in (Timeframe.Min1, Timeframe.Min5):
            past = keeper.past(SYMBOL, timeframe, 0, end_ms)
            assert past == [one for one in reader.market_candles(timeframe, 0, end_ms) if one.symbol == SYMBOL]
            assert past[0].open_time_ms == -(-first_ms // timeframe.milliseconds) * timeframe.milliseconds
            assert keeper.past(SYMBOL, timeframe, 0, first_ms) == []
    database.close()


async def test_a_store_that_cannot_be_read_leaves_the_history(tmp_path: Path) -> None:
    minutes = market(1_980)
    database = Database.open(f"sqlite:///{tmp_path}/perpwatch.db")
    async with Writer(database) as writer:
        engine = engine_of()
        engine.past = Keeper(engine, Reader(database), writer).past
        with database.writing() as connection:
            connection.exec_driver_sql("DROP TABLE candles")
        take(engine, history(minutes), at_ms=T0 + 10_000, source="rest")
        for _ in engine.warming():
            pass
    database.close()
    plain = engine_of()
    take(plain, history(minutes), at_ms=T0 + 10_000, source="rest")
    take(plain, at_ms=T0 + 11_000)
    assert engine.analysis.rules.state() == plain.analysis.rules.state()


def test_no_slice_is_much_longer_than_the_others() -> None:
    """A slice that takes in all of a past would be as long as everything else together."""
    engine = engine_of()
    engine.past = _longer_past(market(6 * DAY)[:-1_980])
    take(engine, history(market(6 * DAY)[-1_980:]), at_ms=T0 + 10_000, source="rest")
    lengths = np.diff([time.process_time(), *(time.process_time() for _ in engine.warming())])
    assert len(lengths) > 40
    assert lengths.max() < 0.25 * lengths.sum()


def _longer_past(minutes: list[Candle]) -> Past:
    candles = {timeframe: roll_up_all(minutes, timeframe, until_ms=T0) for timeframe in ANALYSED_TIMEFRAMES}

    def past(symbol: str, timeframe: Timeframe, start_ms: int, end_ms: int) -> list[Candle]:
        return [one for one in candles[timeframe] if start_ms <= one.open_time_ms < end_ms]

    return past
