"""The whole market over real sockets, with the limits of the brief enforced by the exchange."""

from __future__ import annotations

import asyncio
import random

from perpwatch.app.bot import Bot, adapter_for
from perpwatch.app.config import Config
from perpwatch.app.demo import at_addresses
from perpwatch.feed.connection import dial_with
from perpwatch.feed.rest import http_over_network
from perpwatch.model import Kind
from perpwatch.sim import DEFAULT_START_MS, Clock, Faults, build, run_scaled
from perpwatch.sim.server import SimulatorServer


def test_800_contracts_are_served_within_10_connections_of_100_subscriptions() -> None:
    async def watch() -> None:
        limits = Faults(max_connections=10, max_subscriptions=100, max_commands_per_second=20, limit_refusal="close")
        exchange = build(1, 800, faults=limits)
        clock = Clock.starting_at(DEFAULT_START_MS)
        async with SimulatorServer(exchange, clock) as server, http_over_network() as get:
            config = at_addresses(Config(), server.websocket_url, server.rest_url)
            # An hour of history is learned in little time: a slow machine has to keep up with ten times market speed.
            config = config.with_overrides(
                {
                    "websocket": {"subscription_types": ["ticker", "kline_Min1", "deals"]},
                    "rest": {"history_minutes": 60},
                }
            )
            bot = Bot(config, adapter_for(config), dial_with(), get, clock, random.Random(1).random)
            running = asyncio.create_task(bot.run(600))
            async with asyncio.timeout(580):
                while bot.engine.coverage() < 1.0 or any(one.confirmed < one.wanted for one in bot.feed.pool.status()):
                    await asyncio.sleep(1.0)
            status = bot.feed.pool.status()
            confirmed = [
                stream
                for connection in bot.feed.pool.connections.values()
                if connection.session is not None
                for stream in connection.session.confirmed
            ]
            bot.stop()
            await running
        assert len(status) == 10
        assert sum(stream.kind is Kind.CANDLES for stream in confirmed) == 800
        assert sum(stream.kind is Kind.TICKERS for stream in confirmed) == 1
        assert sum(stream.kind is Kind.TRADES for stream in confirmed) == 149
        assert len(confirmed) == len(set(confirmed)) == 950
        assert exchange.counters.max_subscriptions == 95
        assert exchange.counters.max_connections == 10
        assert exchange.counters.refused_dials == 0
        assert all(one.failures == 0 and one.refusals == 0 for one in status)

    # Ten times market speed: subscribing at ten commands a second takes one real second instead of ten.
    run_scaled(watch(), 10.0)
