"""How many subscriptions a connection takes is learned carefully, and what is configured is never exceeded."""

from __future__ import annotations

import random

from perpwatch.app.bot import Bot, adapter_for
from perpwatch.app.config import Config
from perpwatch.feed.pool import LearnedLimit
from perpwatch.sim import DEFAULT_START_MS, Clock, Faults, SimulatedExchange, SimulatedNetwork, build, run_virtual


def watch(faults: Faults, minutes: float, learned: LearnedLimit | None = None, **websocket: object) -> Bot:
    async def run() -> tuple[Bot, SimulatedExchange]:
        exchange = build(2, 60, faults=faults)
        clock = Clock.starting_at(DEFAULT_START_MS)
        network = SimulatedNetwork(exchange, clock, seed=2)
        settings = {"max_connections": 2, "planned_subscriptions_per_connection": 12, **websocket}
        config = Config().with_overrides(
            {"websocket": settings, "rest": {"history_minutes": 60, "requests_per_second": 1}}
        )
        async with network:
            bot = Bot(config, adapter_for(config), network.dial, network.get, clock, random.Random(2).random)
            if learned is not None:
                bot.feed.pool.remember(learned)
            await bot.run(minutes * 60)
        return bot, exchange

    bot, exchange = run_virtual(run())
    assert exchange.counters.max_subscriptions <= bot.config.websocket.max_subscriptions_per_connection
    return bot


def test_nothing_is_explored_unless_asked_for() -> None:
    bot = watch(Faults(), 45)
    assert bot.feed.pool.per_connection == 12
    assert len(bot.feed.service.polled) == 37  # two connections of 12 hold the tickers and 23 candle streams


def test_room_grows_step_by_step_up_to_what_is_configured() -> None:
    bot = watch(Faults(), 45, explore_capacity=True, max_subscriptions_per_connection=25)
    assert bot.feed.pool.per_connection == 25
    assert bot.feed.pool.learned is None
    assert len(bot.feed.service.polled) == 11


def test_a_limit_that_is_met_is_learned_with_its_date_and_kept() -> None:
    bot = watch(Faults(max_subscriptions=19), 75, explore_capacity=True, max_subscriptions_per_connection=40)
    assert bot.feed.pool.per_connection == 19
    assert bot.feed.pool.learned is not None
    assert bot.feed.pool.learned.subscriptions == 19
    assert DEFAULT_START_MS < bot.feed.pool.learned.learned_ms < DEFAULT_START_MS + 75 * 60_000


def test_a_remembered_limit_is_where_the_next_start_begins() -> None:
    bot = watch(
        Faults(),
        5,
        LearnedLimit(21, DEFAULT_START_MS - 86_400_000),
        explore_capacity=True,
        max_subscriptions_per_connection=40,
    )
    assert bot.feed.pool.per_connection == 21


def test_without_exploring_a_recent_limit_is_still_respected_and_an_old_one_forgiven() -> None:
    recent = watch(Faults(), 2, LearnedLimit(10, DEFAULT_START_MS - 600_000))
    old = watch(Faults(), 2, LearnedLimit(10, DEFAULT_START_MS - 7_200_000))
    assert (recent.feed.pool.per_connection, old.feed.pool.per_connection) == (10, 12)
