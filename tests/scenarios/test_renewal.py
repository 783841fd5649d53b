"""Connections are renewed before their time ends, without losing or doubling a candle or a trade."""

from __future__ import annotations

import random
from collections import Counter

from perpwatch.app.bot import Bot, adapter_for
from perpwatch.app.config import Config
from perpwatch.app.engine import Step
from perpwatch.model import MINUTE_MS, Batch, Gap, Trades
from perpwatch.sim import DEFAULT_START_MS, Clock, Faults, SimulatedNetwork, build, run_virtual


def test_every_connection_hands_over_within_its_lifetime_and_nothing_is_lost_or_doubled() -> None:
    trades: Counter[tuple[str, object]] = Counter()
    traded: Counter[tuple[str, int]] = Counter()
    gaps: list[Gap] = []

    def on_step(batch: Batch, step: Step) -> None:
        gaps.extend(event for event in batch.events if isinstance(event, Gap))
        for event in batch.events:
            if isinstance(event, Trades):
                for trade in event.trades:
                    trades[event.symbol, trade.trade_id] += 1
                    traded[event.symbol, trade.event_time_ms // MINUTE_MS * MINUTE_MS] += int(trade.contracts)

    async def watch() -> tuple[Bot, dict[tuple[str, int], int]]:
        # The server cuts after six minutes; the connections must be gone from it before.
        exchange = build(3, 40, faults=Faults(lifetime_s=360), activity=20.0)
        clock = Clock.starting_at(DEFAULT_START_MS)
        network = SimulatedNetwork(exchange, clock, seed=3)
        config = Config().with_overrides(
            {
                "websocket": {
                    "subscription_types": ["ticker", "kline_Min1", "deals"],
                    "planned_subscriptions_per_connection": 30,
                    "connection_lifetime": 240,
                },
                "rest": {"history_minutes": 60},
            }
        )
        async with network:
            bot = Bot(config, adapter_for(config), network.dial, network.get, clock, random.Random(3).random, on_step)
            await bot.run(20 * 60)
        true = {
            (symbol, candle.open_time_ms): int(candle.contracts)
            for symbol in bot.watched
            for candle in exchange.market.truth(symbol)
        }
        return bot, true

    bot, true = run_virtual(watch())
    assert bot.feed.pool.renewed >= 9  # three connections, each every three to four minutes
    assert gaps == []
    assert set(trades.values()) == {1}
    # From the second minute on, when all trades were subscribed, to the last whole one.
    inside = [key for key in true if DEFAULT_START_MS + 2 * MINUTE_MS <= key[1] < DEFAULT_START_MS + 19 * MINUTE_MS]
    assert len(inside) > 500
    assert {key: traded[key] for key in inside} == {key: true[key] for key in inside}
    assert bot.engine.book.counters.retracted == 0
