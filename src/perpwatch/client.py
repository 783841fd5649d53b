"""The names of the brief, as a thin face over the program.

client = create_websocket_client(pairs_fetcher=..., message_handler=print, subscription_types=["ticker", "kline_Min1"])
await client.start()
await client.add_pairs(["BTC_USDT"])
print(client.get_statistics())
await client.stop()
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from perpwatch.app.bot import Bot
from perpwatch.app.config import Config, WebsocketConfig, load_config
from perpwatch.app.configured import adapter_for, universe_filter
from perpwatch.app.engine import Step
from perpwatch.app.freshness import freshness_of, served_by_rest
from perpwatch.app.messages import Dispatcher, Handler, Message, messages_of
from perpwatch.app.metrics import coverage_of
from perpwatch.feed.connection import State, SystemClock, dial_with
from perpwatch.feed.plan import Mode
from perpwatch.feed.pool import ConnectionStatus
from perpwatch.feed.rest import Priority, RestClient, http_over_network
from perpwatch.market.universe import choose
from perpwatch.model import Batch

logger = logging.getLogger(__name__)

__all__ = [
    "WEBSOCKET_CONFIG",
    "ConnectionMetrics",
    "Message",
    "MexcWebSocketClient",
    "PairsFetcher",
    "create_websocket_client",
    "get_pairs_fetcher",
    "get_top_volume_pairs",
]

#: The ``[websocket]`` table of the configuration with its defaults.
WEBSOCKET_CONFIG: dict[str, Any] = WebsocketConfig().model_dump()

#: A connection that brings no data for this long is not healthy.
UNHEALTHY_AFTER_S = 60.0

PairsSource = Callable[[], "Sequence[str] | Awaitable[Sequence[str]]"]


@dataclass(frozen=True, slots=True)
class ConnectionMetrics:
    """One connection, in numbers since start."""

    messages_received: int
    subscriptions_count: int  # confirmed
    is_healthy: bool
    reconnect_count: int
    errors: int  # unreadable frames, refusals and failed connections
    timeouts: int  # commands that were never answered
    last_message_age: float | None  # seconds; None before the first data


class _Done:
    """Something that is done already, and may be awaited all the same."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


class MexcWebSocketClient:
    """Streams of many pairs over few connections, inside the exchange's limits, surviving any failure."""

    def __init__(self, config: Config, pairs_fetcher: PairsSource | None, message_handler: Handler) -> None:
        self.config = config
        self._pairs_fetcher = pairs_fetcher
        self._channels = frozenset(config.websocket.subscription_types)
        self._dispatcher = Dispatcher({"*": message_handler})
        self._bot: Bot | None = None
        self._task: asyncio.Task[None] | None = None
        self._clock = SystemClock()
        self._started_s: float | None = None

    # --- Life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin; returns when the market is known and the subscriptions are on their way.

        Raises:
            ExchangeError: something that trying again cannot mend.
        """
        if self._task is not None:
            return
        pairs = await _fetch(self._pairs_fetcher) if self._pairs_fetcher is not None else None
        ready = asyncio.Event()
        task = self._task = asyncio.create_task(self._run(pairs, ready))
        waiting = asyncio.create_task(ready.wait())
        try:
            await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            # Whoever waited for the start does so no longer, so nobody would end what has begun.
            await self.stop()
            raise
        finally:
            waiting.cancel()
            await asyncio.wait([waiting])
        if task.done():
            await self.stop()

    async def stop(self) -> None:
        """End, and free everything.

        Raises:
            ExchangeError: what ended the client before.
        """
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            _raise_cause(task)

    async def _run(self, pairs: Sequence[str] | None, ready: asyncio.Event) -> None:
        adapter = adapter_for(self.config)
        dial = dial_with(proxy=self.config.network.proxy, max_frame_bytes=adapter.limits.max_frame_bytes)
        async with http_over_network(proxy=self.config.network.proxy) as get:
            self._bot = bot = Bot(
                self.config, adapter, dial, get, self._clock, random.Random().random, self._on_step, symbols=pairs
            )
            bot.on_ready = ready.set
            self._started_s = self._clock.monotonic()
            delivering = asyncio.create_task(self._dispatcher.run())
            try:
                await bot.run()
            finally:
                delivering.cancel()
                await asyncio.wait([delivering])

    def _on_step(self, batch: Batch, step: Step) -> None:
        assert self._bot is not None
        for message in messages_of(batch, self._bot.engine.book, self._channels):
            self._dispatcher.put(message)

    # --- Pairs ------------------------------------------------------------------------------------------------------

    def add_pairs(self, pairs: Iterable[str]) -> _Done:
        """Watch these as well; at once, and without touching the others. What the exchange does not list is logged."""
        bot = self._running()
        unlisted = bot.watch(list(dict.fromkeys([*bot.watched, *pairs])))
        if unlisted:
            logger.warning("the exchange does not list %s", ", ".join(unlisted))
        return _Done()

    def remove_pairs(self, pairs: Iterable[str]) -> _Done:
        """Watch these no longer."""
        bot, gone = self._running(), set(pairs)
        bot.watch([pair for pair in bot.watched if pair not in gone])
        return _Done()

    @property
    def pairs(self) -> list[str]:
        """What is watched, most traded first."""
        return self._bot.watched if self._bot is not None else []

    def _running(self) -> Bot:
        if self._bot is None or self._task is None:
            raise RuntimeError("the client is not running; await start() first")
        return self._bot

    # --- Health -----------------------------------------------------------------------------------------------------

    def get_connection_metrics(self) -> dict[str, ConnectionMetrics]:
        """Each connection by its id."""
        if self._bot is None:
            return {}
        return {
            one.source: ConnectionMetrics(
                messages_received=one.frames,
                subscriptions_count=one.confirmed,
                is_healthy=one.state is State.OPEN and self._silence_s(one) < UNHEALTHY_AFTER_S,
                reconnect_count=one.reconnects,
                errors=one.bad_frames + one.refusals + one.failures,
                timeouts=one.unanswered,
                last_message_age=one.data_age_s,
            )
            for one in self._bot.feed.pool.status()
        }

    def _silence_s(self, one: ConnectionStatus) -> float:
        """How long a connection has brought no data, since it was opened at most."""
        if one.data_age_s is not None:
            return one.data_age_s
        assert self._bot is not None
        opened_s = self._bot.feed.pool.connections[one.source].opened_s
        return self._clock.monotonic() - opened_s if opened_s is not None and one.wanted else 0.0

    async def check_health(self) -> dict[str, Any]:
        """Whether all is well, and what is not."""
        metrics = self.get_connection_metrics()
        unhealthy = [source for source, one in metrics.items() if not one.is_healthy]
        coverage = self._bot.engine.coverage() if self._bot is not None else 0.0
        if self._bot is not None and self.config.mode is Mode.REST:
            served = coverage_of(self._bot)
            coverage = served.covered / served.watched if served.watched else 0.0
        sees = coverage > 0.0 if self.config.mode is Mode.REST else bool(metrics)
        return {
            "all_healthy": sees and not unhealthy,
            "healthy_connections": len(metrics) - len(unhealthy),
            "total_connections": len(metrics),
            "unhealthy": unhealthy,
            "coverage": coverage,
        }

    async def restart_unhealthy_connections(self) -> list[str]:
        """Dial those anew that are not healthy; returns their ids."""
        health = await self.check_health()
        for source in health["unhealthy"]:
            self._running().feed.pool.connections[source].restart("restarted because it was unhealthy")
        return list(health["unhealthy"])

    def get_statistics(self) -> dict[str, Any]:
        """Totals over all connections since start."""
        metrics = self.get_connection_metrics().values()
        messages = sum(one.messages_received for one in metrics)
        minutes = (self._clock.monotonic() - self._started_s) / 60.0 if self._started_s is not None else 0.0
        return {
            "active_connections": sum(one.is_healthy for one in metrics),
            "total_connections": len(metrics),
            "total_subscriptions": sum(one.subscriptions_count for one in metrics),
            "total_pairs": len(self.pairs),
            "messages_received": messages,
            "messages_per_minute": messages / minutes if minutes else 0.0,
            "reconnects": sum(one.reconnect_count for one in metrics),
            "errors": sum(one.errors for one in metrics),
            "handled_messages": self._dispatcher.delivered,
            "handler_errors": self._dispatcher.errors,
            "conflated_messages": self._dispatcher.conflated,
            "read_by_rest": served_by_rest(self._bot) if self._bot is not None else {},
            "freshness": msgspec.to_builtins(freshness_of(self._bot)) if self._bot is not None else {},
        }


def create_websocket_client(
    pairs_fetcher: PairsSource | None = None,
    message_handler: Handler = lambda message: None,
    subscription_types: Sequence[str] = ("ticker", "kline_Min1"),
    max_connections: int | None = None,
    config: Config | None = None,
) -> MexcWebSocketClient:
    """A client that is not started yet.

    Args:
        pairs_fetcher: gives the pairs to watch, as a function or coroutine; all contracts when it is None.
        message_handler: told every message, as a function or coroutine.
        subscription_types: of ``ticker``, ``deals``, ``kline_Min1``, ``kline_Min5``, ``kline_Min15``, ``kline_Min60``.
        max_connections: overrides the configuration.
        config: settings to use instead of the file and the environment.
    Raises:
        ConfigurationError: an unknown subscription type, or a limit below 1.
    """
    websocket: dict[str, Any] = {"subscription_types": list(subscription_types)}
    if max_connections is not None:
        websocket["max_connections"] = max_connections
    if config is None:
        config = load_config(None, {"websocket": websocket})
    else:
        config = config.with_overrides({"websocket": websocket})
    return MexcWebSocketClient(config, pairs_fetcher, message_handler)


class PairsFetcher:
    """The pairs that the configured universe holds. Call it, or await :meth:`refresh`, to ask the exchange."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or load_config()
        self.pairs: list[str] = []  # most traded first; empty before the first refresh
        self._callbacks: list[Callable[[list[str], list[str]], Any]] = []

    async def __call__(self) -> list[str]:
        return await self.refresh()

    async def get_pairs(self) -> list[str]:
        """The pairs of the last refresh, or of a first one."""
        return self.pairs or await self.refresh()

    def on_change(self, callback: Callable[[list[str], list[str]], Any]) -> None:
        """Have ``callback(added, removed)`` called, or awaited, after a refresh that changed the pairs."""
        self._callbacks.append(callback)

    async def refresh(self) -> list[str]:
        """Ask the exchange.

        Raises:
            ExchangeError: no usable answer.
        """
        adapter = adapter_for(self.config)
        async with http_over_network(proxy=self.config.network.proxy) as get:
            rest = RestClient(adapter.rest_url, get, SystemClock(), adapter.limits.requests_per_second)
            contracts = await rest.fetch(adapter.contracts(), Priority.CONTROL)
            tickers = await rest.fetch(adapter.tickers(), Priority.CONTROL)
            now_ms = await rest.fetch(adapter.server_time(), Priority.CONTROL)
        members = choose(contracts, tickers, universe_filter(self.config), now_ms)
        before, self.pairs = self.pairs, [member.contract.symbol for member in members if member.is_watched]
        added = [pair for pair in self.pairs if pair not in set(before)]
        removed = [pair for pair in before if pair not in set(self.pairs)]
        if before and (added or removed):
            for callback in self._callbacks:
                await _call(callback, added, removed)
        return self.pairs


def get_pairs_fetcher(config: Config | None = None) -> PairsFetcher:
    return PairsFetcher(config)


async def get_top_volume_pairs(limit: int = 500, config: Config | None = None) -> list[str]:
    """The so many most traded pairs of the configured universe, by turnover of the last 24 h; pins come first.

    Raises:
        ValueError: fewer than one asked for.
        ExchangeError: no usable answer.
    """
    if limit < 1:
        raise ValueError(f"ask for at least one pair, not {limit}")
    return (await PairsFetcher(config).refresh())[:limit]


async def _call(callback: Callable[[list[str], list[str]], Any], added: list[str], removed: list[str]) -> None:
    try:
        result = callback(added, removed)
        if inspect.isawaitable(result):
            await result
    except Exception:
        # Somebody else's code: the others are told all the same.
        logger.exception("a callback failed on changed pairs")


def _raise_cause(task: asyncio.Task[None]) -> None:
    """Raise what ended ``task``: of tasks that ran together, the one error rather than the group around it."""
    error = task.exception()
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if error is not None:
        raise error


async def _fetch(source: PairsSource) -> Sequence[str]:
    result = source()
    return await result if inspect.isawaitable(result) else result
