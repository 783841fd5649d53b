"""The names of the brief: what each does, over real sockets against the built-in exchange."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import fields
from typing import Any

import pytest

from local_exchange import local_exchange, until
from perpwatch.app.bot import AsyncMexcAnalysisBot
from perpwatch.app.config import Config
from perpwatch.client import (
    ConnectionMetrics,
    Message,
    PairsFetcher,
    create_websocket_client,
    get_pairs_fetcher,
    get_top_volume_pairs,
)
from perpwatch.errors import ConfigurationError, ConnectionFailed, ExchangeError
from perpwatch.model import Signal
from perpwatch.sim import FaultEvent, Faults


async def test_a_client_streams_the_pairs_it_is_given_and_no_others() -> None:
    seen: dict[str, set[str]] = {}

    async def on_message(message: Message) -> None:
        seen.setdefault(message.channel, set()).add(message.symbol)

    async with asyncio.timeout(20), local_exchange() as local:
        client = create_websocket_client(
            lambda: ["BTC_USDT", "ETH_USDT"], on_message, ["ticker", "kline_Min1", "kline_Min5"], config=local.config
        )
        await client.start()
        assert sorted(client.pairs) == ["BTC_USDT", "ETH_USDT"]
        await until(lambda: seen.get("kline_Min5") == {"BTC_USDT", "ETH_USDT"} == seen.get("ticker"))
        await client.stop()
    assert seen["kline_Min1"] == {"BTC_USDT", "ETH_USDT"}


async def test_without_a_fetcher_all_contracts_are_watched() -> None:
    async with asyncio.timeout(20), local_exchange(12) as local:
        client = create_websocket_client(config=local.config)
        await client.start()
        assert len(client.pairs) == 12
        await client.stop()


async def test_pairs_are_added_and_removed_while_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    async with asyncio.timeout(30), local_exchange() as local:
        client = create_websocket_client(lambda: ["BTC_USDT"], config=local.config)
        await client.start()
        await until(lambda: client.get_statistics()["total_subscriptions"] == 3)  # and the tickers, and listings
        client.add_pairs(["ETH_USDT"])
        await client.add_pairs(["SOL_USDT", "NOPE_USDT"])
        assert sorted(client.pairs) == ["BTC_USDT", "ETH_USDT", "SOL_USDT"]
        assert "the exchange does not list NOPE_USDT" in caplog.text
        await until(lambda: client.get_statistics()["total_subscriptions"] == 5)
        await client.remove_pairs(["BTC_USDT"])
        assert sorted(client.pairs) == ["ETH_USDT", "SOL_USDT"]
        await until(lambda: client.get_statistics()["total_subscriptions"] == 4)
        assert client.get_statistics()["reconnects"] == 0
        await client.stop()
    with pytest.raises(RuntimeError, match="not running"):
        client.add_pairs(["BTC_USDT"])


async def test_metrics_health_and_statistics_tell_the_same_story() -> None:
    async with asyncio.timeout(30), local_exchange(30) as local:
        config = local.config.with_overrides({"websocket": {"planned_subscriptions_per_connection": 12}})
        client = create_websocket_client(None, lambda message: None, ["ticker", "kline_Min1"], 5, config)
        assert client.get_connection_metrics() == {}
        assert (await client.check_health())["all_healthy"] is False
        await client.start()
        await until(lambda: client.get_statistics()["total_subscriptions"] >= 31)
        await until(lambda: client.get_statistics()["messages_received"] > 50)
        metrics = client.get_connection_metrics()
        assert list(metrics) == ["ws-1", "ws-2", "ws-3"]
        assert all(
            one.is_healthy and one.reconnect_count == one.errors == one.timeouts == 0 for one in metrics.values()
        )
        assert all(0.0 <= (one.last_message_age or 0.0) < 10.0 for one in metrics.values())
        health = await client.check_health()
        assert (health["all_healthy"], health["healthy_connections"], health["unhealthy"]) == (True, 3, [])
        assert await client.restart_unhealthy_connections() == []
        statistics = client.get_statistics()
        assert statistics["active_connections"] == 3
        assert statistics["total_pairs"] == 30
        assert statistics["messages_per_minute"] > statistics["messages_received"]  # it is not a minute old
        await client.stop()
        assert (await client.check_health())["all_healthy"] is False
    assert [field.name for field in fields(ConnectionMetrics)] == [
        "messages_received",
        "subscriptions_count",
        "is_healthy",
        "reconnect_count",
        "errors",
        "timeouts",
        "last_message_age",
    ]


async def test_a_connection_that_is_cut_is_counted_and_comes_back() -> None:
    async with asyncio.timeout(30), local_exchange() as local:
        client = create_websocket_client(config=local.config)
        await client.start()
        await until(lambda: client.get_statistics()["messages_received"] > 20)
        now_ms = local.exchange.market.now_ms
        local.exchange.set_faults(Faults(events=(FaultEvent(now_ms, "drop_abrupt", "all"),)))
        await until(lambda: client.get_connection_metrics()["ws-1"].reconnect_count == 1)
        await until(lambda: client.get_connection_metrics()["ws-1"].last_message_age is not None)
        assert (await client.check_health())["all_healthy"]
        assert client.get_connection_metrics()["ws-1"].errors == 1
        await client.stop()


async def test_a_handler_that_raises_is_isolated_and_counted() -> None:
    heard: list[str] = []

    def on_message(message: Message) -> None:
        heard.append(message.symbol)
        raise RuntimeError("on purpose")

    async with asyncio.timeout(20), local_exchange() as local:
        client = create_websocket_client(None, on_message, config=local.config)
        await client.start()
        await until(lambda: len(heard) > 20)
        statistics = client.get_statistics()
        assert statistics["handler_errors"] >= 20
        assert (statistics["handled_messages"], statistics["reconnects"]) == (0, 0)
        await client.stop()


async def test_a_handler_may_stop_the_client() -> None:
    stopped = asyncio.Event()

    async def on_message(message: Message) -> None:
        stopped.set()
        await client.stop()

    async with asyncio.timeout(20), local_exchange() as local:
        client = create_websocket_client(None, on_message, config=local.config)
        await client.start()
        await stopped.wait()
        await until(lambda: not [task for task in asyncio.all_tasks() if task.get_name().startswith("ws-")])
        await client.stop()


async def test_a_client_can_be_started_twice_and_again_after_it_was_stopped() -> None:
    async with asyncio.timeout(30), local_exchange() as local:
        client = create_websocket_client(lambda: ["BTC_USDT"], config=local.config)
        await client.stop()  # nothing to do
        for _ in range(2):
            await client.start()
            await client.start()
            await until(lambda: client.get_statistics()["active_connections"] == 1)
            await client.stop()
            await client.stop()


async def test_a_start_that_is_given_up_leaves_nothing_behind() -> None:
    nowhere = Config().with_overrides(
        {"rest": {"base_url": "http://127.0.0.1:1"}, "websocket": {"base_url": "ws://127.0.0.1:1"}}
    )
    client = create_websocket_client(config=nowhere)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await client.start()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await client.stop()


async def test_an_error_that_ends_the_client_is_raised_when_it_is_stopped_and_it_can_start_again() -> None:
    async with asyncio.timeout(30), local_exchange() as local:
        hopeless = {"base_url": "ws://127.0.0.1:1/edge", "max_reconnect_attempts": 1}
        client = create_websocket_client(config=local.config.with_overrides({"websocket": hopeless}))
        await client.start()
        await asyncio.sleep(1.0)
        with pytest.raises(ConnectionFailed, match=r"127\.0\.0\.1:1"):
            await client.stop()
        await client.start()
        await asyncio.sleep(1.0)
        with pytest.raises(ConnectionFailed):
            await client.stop()


async def test_a_fetcher_that_fails_is_heard_and_the_client_can_be_started_again() -> None:
    answers: list[list[str]] = []

    async def fetch() -> list[str]:
        return answers[0]

    async with asyncio.timeout(20), local_exchange() as local:
        client = create_websocket_client(fetch, config=local.config)
        with pytest.raises(IndexError):
            await client.start()
        answers.append(["BTC_USDT"])
        await client.start()
        assert client.pairs == ["BTC_USDT"]
        await client.stop()


@pytest.mark.parametrize(
    "arguments", [{"subscription_types": ["depth"]}, {"subscription_types": []}, {"max_connections": 0}]
)
def test_a_client_that_cannot_work_is_refused_when_it_is_made(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        create_websocket_client(**arguments, config=Config())


# --- Pairs ---------------------------------------------------------------------------------------------------------


async def test_top_volume_pairs_are_the_most_traded_first() -> None:
    async with asyncio.timeout(20), local_exchange() as local:
        top = await get_top_volume_pairs(5, local.config)
        assert top[:2] == ["BTC_USDT", "ETH_USDT"]
        assert len(top) == 5
        assert len(await get_top_volume_pairs(config=local.config)) == 20


async def test_a_pairs_fetcher_tells_what_has_come_and_gone(caplog: pytest.LogCaptureFixture) -> None:
    changes: list[tuple[list[str], list[str]]] = []

    async def later(added: list[str], removed: list[str]) -> None:
        changes.append((added, removed))

    def broken(added: list[str], removed: list[str]) -> None:
        raise ValueError("on purpose")

    async with asyncio.timeout(20), local_exchange(10) as local:
        fetcher = get_pairs_fetcher(local.config)
        assert isinstance(fetcher, PairsFetcher)
        fetcher.on_change(broken)
        fetcher.on_change(later)
        assert fetcher.pairs == []
        before = await fetcher.get_pairs()
        assert len(before) == 10
        assert await fetcher() == before
        assert changes == []
        now_ms = local.exchange.market.now_ms
        local.exchange.set_faults(
            Faults(events=(FaultEvent(now_ms, "state", before[0], value=4), FaultEvent(now_ms, "delisting", before[1])))
        )
        await asyncio.sleep(0.1)
        await fetcher.refresh()
        local.exchange.set_faults(Faults(events=(FaultEvent(now_ms, "state", before[0], value=0),)))
        await asyncio.sleep(0.1)
        await fetcher.refresh()
    assert changes == [([], before[:2]), (before[:1], [])]  # paused and delisted, then one is traded again
    assert "on purpose" in caplog.text  # one broken callback does not keep the others from hearing


async def test_a_fetcher_says_where_it_could_not_reach_the_exchange() -> None:
    config = Config().with_overrides({"rest": {"base_url": "http://127.0.0.1:1"}})
    with pytest.raises(ExchangeError, match=r"http://127\.0\.0\.1:1/"):
        await get_top_volume_pairs(config=config)


# --- The bot -------------------------------------------------------------------------------------------------------


class ListeningBot(AsyncMexcAnalysisBot):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.heard: dict[str, int] = {}

    async def _handle_kline_message(self, message: Message) -> None:
        self.heard[message.channel] = self.heard.get(message.channel, 0) + 1
        assert message.data["v"] >= 0

    def _handle_ticker_message(self, message: Message) -> None:
        self.heard[message.channel] = self.heard.get(message.channel, 0) + 1

    def _handle_deals_message(self, message: Message) -> None:
        self.heard[message.channel] = self.heard.get(message.channel, 0) + len(message.data["deals"])

    def _handle_signal(self, signal: Signal) -> None:
        self.heard["signal"] = self.heard.get("signal", 0) + 1


async def test_a_bot_hears_what_it_overrides_until_it_is_stopped(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "perpwatch")
    async with asyncio.timeout(30), local_exchange() as local:
        config = local.config.with_overrides(
            {"websocket": {"subscription_types": ["ticker", "deals", "kline_Min1", "kline_Min15"]}}
        )
        bot = ListeningBot(timeframes=["Min1", "Min5"], analysis_interval=1, enable_websocket=True, config=config)
        running = asyncio.create_task(bot.run_async())
        await until(lambda: {"ticker", "deals", "kline_Min1", "kline_Min15"} <= set(bot.heard))
        await until(lambda: "watching 20 contracts" in caplog.text)  # every analysis_interval
        bot.stop()
        await running
    assert "kline_Min5" not in bot.heard  # analysed, not subscribed to


async def test_a_bot_without_sockets_hears_candles_all_the_same() -> None:
    async with asyncio.timeout(30), local_exchange(3) as local:
        bot = ListeningBot(enable_websocket=False, config=local.config)
        running = asyncio.create_task(bot.run_async())
        await until(lambda: bot.heard.get("kline_Min1", 0) > 4 and "kline_Min60" in bot.heard)
        bot.stop()
        await running


async def test_a_bot_that_is_stopped_before_it_runs_ends_at_once() -> None:
    bot = ListeningBot(config=Config())
    bot.stop()
    async with asyncio.timeout(5):
        await bot.run_async()
