"""Open interest, funding and best prices come by REST beside the streams, and reach the detectors."""

from __future__ import annotations

import random
from collections.abc import Callable

from perpwatch.app.api_market import MarketTable
from perpwatch.app.bot import Bot, adapter_for
from perpwatch.app.config import Config
from perpwatch.model import Ticker
from perpwatch.sim import DEFAULT_START_MS, Clock, SimulatedNetwork, build, run_virtual

SYMBOL = "BTC_USDT"


def watch(
    minutes: float, on_broken: Callable[[list[str]], None] = lambda symbols: None, **rest: float
) -> tuple[Bot, Ticker, int]:
    async def run() -> tuple[Bot, Ticker, int]:
        exchange = build(4, 10)
        clock = Clock.starting_at(DEFAULT_START_MS)
        config = Config().with_overrides({"rest": rest})
        async with SimulatedNetwork(exchange, clock, seed=4) as network:
            bot = Bot(config, adapter_for(config), network.dial, network.get, clock, random.Random(4).random)
            bot.on_step = lambda batch, step: on_broken(list(step.outcome.broken))
            await bot.run(minutes * 60)
            ticker = bot.engine.ticker(SYMBOL)
            assert ticker is not None
            return bot, ticker, bot.engine.tickers[SYMBOL].event_time_ms

    return run_virtual(run())


def test_what_no_stream_carries_is_added_to_the_newest_price() -> None:
    bot, ticker, streamed_ms = watch(2.5)
    assert ticker.event_time_ms == streamed_ms  # the price is that of the stream, which is newer
    assert ticker.last_price == bot.engine.tickers[SYMBOL].last_price
    details = bot.engine.details[SYMBOL]
    assert bot.engine.tickers[SYMBOL].open_interest is None
    assert ticker.open_interest == details.open_interest is not None
    assert ticker.funding_rate == details.funding_rate is not None
    assert ticker.best_bid is not None
    assert ticker.best_ask is not None
    assert ticker.best_bid <= ticker.best_ask
    table = MarketTable(bot)
    table.update()
    assert table.rows[SYMBOL].funding_rate == ticker.funding_rate


def test_an_interval_of_zero_asks_for_nothing_beside_the_streams() -> None:
    bot, ticker, _ = watch(2.5, ticker_interval=0.0, funding_interval=0.0)
    assert bot.engine.details == {}
    assert ticker.open_interest is None


def test_rest_rows_that_trail_the_stream_break_no_stream_and_lose_no_minute() -> None:
    broken: list[str] = []
    bot, _, _ = watch(6.0, broken.extend, ticker_interval=6.0)
    assert bot.feed.rest.counters.rate_limited == 0
    assert bot.engine.book.counters.pushes > 0
    assert broken == []
    assert len(bot.engine.repairs) == 0
