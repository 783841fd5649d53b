"""Composition: a feed, an engine, and whoever wants to know.

:class:`Bot` is the program without its terminal. It owns no sockets and no clock; it is handed a ``dial``, a ``get``
and a clock, and so runs the same way live, against the local simulator, and in virtual time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from perpwatch.app.config import Config
from perpwatch.app.engine import Engine, Step
from perpwatch.detect.detector import Detector
from perpwatch.detect.volume_ratio import VolumeRatio
from perpwatch.exchanges.adapter import Adapter, Limits
from perpwatch.exchanges.mexc import MexcFutures, corrected_websocket_url
from perpwatch.exchanges.mexc.limits import LIMITS
from perpwatch.feed.connection import Clock, Retries
from perpwatch.feed.live import FeedSettings, LiveFeed
from perpwatch.feed.plan import parse_wish
from perpwatch.feed.ports import Dial, HttpGet
from perpwatch.feed.rest import Priority
from perpwatch.market.universe import Member, UniverseFilter, choose, turnovers
from perpwatch.model import Batch, Contract, Signal, Ticker, stream_of_candles

logger = logging.getLogger(__name__)

#: How often missing minutes are looked at.
REPAIR_EVERY_S = 1.0
#: Reads that may wait at once; beyond, repairs stay where they are merged and sorted.
MAX_READS_WAITING = 200


def adapter_for(config: Config) -> Adapter:
    """The wire language of the configured exchange, at the configured addresses."""
    url, warning = corrected_websocket_url(config.websocket.base_url)
    if warning:
        logger.warning("websocket.base_url: %s", warning)
    return MexcFutures(websocket_url=url, rest_url=config.rest.base_url, limits=limits_of(config))


def limits_of(config: Config) -> Limits:
    """The exchange's limits as the configuration has them."""
    websocket = config.websocket
    return replace(
        LIMITS,
        max_connections=websocket.max_connections,
        max_subscriptions_per_connection=websocket.max_subscriptions_per_connection,
        ping_interval_s=websocket.ping_interval,
        commands_per_second=websocket.commands_per_second,
        dials_per_second=websocket.dials_per_second,
        requests_per_second=config.rest.requests_per_second,
    )


def detectors_for(config: Config) -> list[Detector]:
    detection = config.detection
    return [
        VolumeRatio(
            detection.thresholds,
            running_threshold=config.websocket.real_time_volume_threshold,
            window=detection.window,
            minimum_turnover=detection.minimum_turnover,
        )
    ]


def feed_settings(config: Config, adapter: Adapter) -> FeedSettings:
    websocket = config.websocket
    return FeedSettings(
        websocket_url=adapter.websocket_url,
        rest_url=adapter.rest_url,
        limits=adapter.limits,
        subscriptions_per_connection=websocket.planned_subscriptions_per_connection,
        wishes=[parse_wish(name) for name in websocket.subscription_types],
        use_websocket=websocket.enabled,
        retries=Retries(first_s=websocket.reconnect_delay, max_attempts=websocket.max_reconnect_attempts),
    )


def universe_filter(config: Config) -> UniverseFilter:
    universe = config.universe
    return UniverseFilter(universe.quote, universe.include, universe.exclude, universe.limit)


@dataclass(slots=True)
class Progress:
    """How far the start has come."""

    contracts: int = 0  # that the exchange lists
    watched: int = 0
    warm: int = 0  # whose history is loaded
    started_s: float | None = None  # monotonic


class Bot:
    """Watches a market until told to stop.

    Args:
        jitter: random numbers in [0, 1) for back-off.
        on_step: told every batch and what it led to, in order.
    """

    def __init__(
        self,
        config: Config,
        adapter: Adapter,
        dial: Dial,
        get: HttpGet,
        clock: Clock,
        jitter: Callable[[], float],
        on_step: Callable[[Batch, Step], None] = lambda batch, step: None,
    ) -> None:
        self.config = config
        self.adapter = adapter
        self.clock = clock
        self.engine = Engine(
            detectors_for(config), config.timeframes, is_intrabar=config.websocket.enable_real_time_analysis
        )
        self.feed = LiveFeed(adapter, feed_settings(config, adapter), dial, get, clock, jitter)
        self.members: list[Member] = []
        self.progress = Progress()
        self.signals: list[Signal] = []  # the newest, bounded
        self.on_step = on_step
        self._contracts: dict[str, Contract] = {}
        self._rest_tickers: list[Ticker] = []
        self._rank: dict[str, int] = {}
        self._stopped = asyncio.Event()

    # --- Life -------------------------------------------------------------------------------------------------------

    async def run(self, duration_s: float | None = None) -> None:
        """Watch until :meth:`stop`, or for so many seconds.

        Raises:
            ExchangeError: something that trying again cannot mend.
        """
        try:
            async with asyncio.timeout(duration_s), asyncio.TaskGroup() as tasks:
                watching = tasks.create_task(self._watch())
                await self._stopped.wait()
                watching.cancel()
        except TimeoutError:
            if duration_s is None:
                raise

    def stop(self) -> None:
        """End :meth:`run` soon."""
        self._stopped.set()

    async def _watch(self) -> None:
        async with self.feed:
            self.progress.started_s = self.clock.monotonic()
            contracts, tickers = await self.feed.load_market()
            self._contracts = {contract.symbol: contract for contract in contracts}
            self._rest_tickers = list(tickers)
            self.members = choose(contracts, tickers, universe_filter(self.config), self.feed.now_ms())
            self.progress.contracts = len(self.members)
            self.watch([member.contract.symbol for member in self.members if member.is_watched])
            repairing = asyncio.create_task(self._repair())
            try:
                async for batch in self.feed:
                    self._take(batch)
            finally:
                repairing.cancel()

    def _take(self, batch: Batch) -> None:
        step = self.engine.take(batch)
        for symbol in step.outcome.broken:
            logger.warning("%s trades but its candle stream is silent: subscribing again", symbol)
            self.feed.heal(stream_of_candles(symbol))
        if step.signals:
            self.signals.extend(step.signals)
            del self.signals[:-1_000]
        self.progress.warm = len(self.engine.warm)
        self.on_step(batch, step)

    async def _repair(self) -> None:
        while True:
            await asyncio.sleep(REPAIR_EVERY_S)
            if self.feed.reads_waiting < MAX_READS_WAITING:
                for span in self.engine.due_repairs(self._rank):
                    self.feed.read(span.symbol, span.start_ms, span.end_ms, Priority.REPAIR)

    # --- What is watched --------------------------------------------------------------------------------------------

    @property
    def watched(self) -> list[str]:
        """Symbols, most traded first."""
        return list(self._rank)

    def watch(self, symbols: Sequence[str]) -> list[str]:
        """Watch exactly these from now on; others that are watched already are not interrupted by it.

        Returns:
            Those of them that the exchange does not list.
        """
        contracts = [self._contracts[symbol] for symbol in symbols if symbol in self._contracts]
        turnover = turnovers(contracts, self._rest_tickers)
        contracts.sort(key=lambda contract: (-turnover[contract.symbol], contract.symbol))
        new = [contract.symbol for contract in contracts if contract.symbol not in self.engine.book.series]
        self._rank = {contract.symbol: rank for rank, contract in enumerate(contracts)}
        self.engine.now_ms = max(self.engine.now_ms, self.feed.now_ms())
        self.engine.watch(contracts)
        self.feed.watch(contracts, turnover)
        start_ms, end_ms = self.engine.history_window_ms(self.config.rest.history_minutes)
        for symbol in new:
            self.feed.read(symbol, start_ms, end_ms, Priority.HISTORY)
        self.progress.watched = len(contracts)
        return [symbol for symbol in symbols if symbol not in self._contracts]
