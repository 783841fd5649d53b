"""The programs of the brief, over real sockets against the built-in exchange. None may take longer than its limit."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any, ClassVar

import pytest

from local_exchange import local_exchange, until
from perpwatch.app.bot import AsyncMexcAnalysisBot
from perpwatch.client import (
    ConnectionMetrics,
    Message,
    create_websocket_client,
    get_pairs_fetcher,
    get_top_volume_pairs,
)
from perpwatch.sim import FaultEvent, Faults

pytestmark = pytest.mark.timeout(40)


async def test_the_analysis_bot_runs_and_stops() -> None:
    class Bot(AsyncMexcAnalysisBot):
        candles: ClassVar[Counter[str]] = Counter()

        async def _handle_kline_message(self, message: Any) -> None:
            self.candles[message.symbol] += message.data["v"] > 0

    async with asyncio.timeout(20), local_exchange() as local:
        bot = Bot(
            timeframes=["Min1", "Min5", "Min15", "Min60"],
            analysis_interval=60,
            enable_websocket=True,
            config=local.config,
        )
        running = asyncio.create_task(bot.run_async())
        await until(lambda: len(bot.candles) == 20)
        bot.stop()
        async with asyncio.timeout(2):
            await running


async def test_a_client_of_many_pairs_over_several_connections() -> None:
    seen: Counter[str] = Counter()

    def handler(message: Message) -> None:
        seen[message.channel] += 1

    async with asyncio.timeout(30), local_exchange(100, activity=5.0) as local:
        config = local.config.with_overrides({"websocket": {"planned_subscriptions_per_connection": 25}})
        client = create_websocket_client(
            pairs_fetcher=get_pairs_fetcher(config),
            message_handler=handler,
            subscription_types=["ticker", "kline_Min1"],
            max_connections=5,
            config=config,
        )
        await client.start()
        await until(lambda: client.get_statistics()["total_subscriptions"] >= 101)
        metrics = client.get_connection_metrics()
        assert len(metrics) == 5
        assert all(isinstance(one, ConnectionMetrics) for one in metrics.values())
        assert max(one.subscriptions_count for one in metrics.values()) <= 25
        await until(lambda: seen["ticker"] >= 100 and seen["kline_Min1"] >= 20)
        assert (await client.check_health())["all_healthy"]
        assert local.exchange.counters.max_connections == 5
        await client.stop()


async def test_the_top_pairs_by_volume_then_fewer_and_more_of_them() -> None:
    async with asyncio.timeout(20), local_exchange(40) as local:
        pairs = await get_top_volume_pairs(limit=10, config=local.config)
        client = create_websocket_client(lambda: pairs[:8], config=local.config)
        await client.start()
        client.remove_pairs(pairs[:3])
        client.add_pairs(pairs[8:])
        assert client.pairs == pairs[3:]
        await until(lambda: client.get_statistics()["active_connections"] == 1)
        await client.stop()


async def test_unhealthy_connections_are_found_and_restarted() -> None:
    async with asyncio.timeout(30), local_exchange() as local:
        client = create_websocket_client(config=local.config)
        await client.start()
        await until(lambda: client.get_statistics()["messages_received"] > 20)
        now_ms = local.exchange.market.now_ms
        outage = FaultEvent(now_ms, "exchange_down", duration_ms=1_500)
        local.exchange.set_faults(Faults(events=(outage,)))
        await until(lambda: not client.get_connection_metrics()["ws-1"].is_healthy)
        health = await client.check_health()
        assert (health["all_healthy"], health["unhealthy"]) == (False, ["ws-1"])
        assert await client.restart_unhealthy_connections() == ["ws-1"]
        await until(lambda: client.get_connection_metrics()["ws-1"].is_healthy)
        assert client.get_statistics()["reconnects"] >= 1
        await client.stop()


async def test_loggers_have_the_names_of_packages_and_levels_work_as_people_expect(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with asyncio.timeout(30), local_exchange(5) as local:
        config = local.config.with_overrides({"websocket": {"base_url": "ws://127.0.0.1:1"}})
        for level, is_heard in ((logging.ERROR, False), (logging.WARNING, True)):
            caplog.clear()
            with caplog.at_level(level, "perpwatch.feed"):
                client = create_websocket_client(config=config)
                await client.start()
                await until(lambda client=client: client.get_connection_metrics()["ws-1"].errors >= 1)  # type: ignore[misc]
                await client.stop()
            heard = [record.getMessage() for record in caplog.records if record.name.startswith("perpwatch.feed")]
            assert any("next try in" in message for message in heard) is is_heard
