"""What a running watch finds, told to people: from steps and troubles to notices, and from those to the channels."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from perpwatch.alert.episodes import Developed, Episodes
from perpwatch.alert.notice import Notice
from perpwatch.alert.operational import OperationalAlert
from perpwatch.alert.policy import Alert, MarketAlert
from perpwatch.app.analysis import TEST
from perpwatch.app.bot import Bot
from perpwatch.app.card_maker import card_maker_of
from perpwatch.app.config import Config
from perpwatch.app.delivery import Deliveries, end_orphans
from perpwatch.app.engine import Step
from perpwatch.app.health import Monitor
from perpwatch.app.keeper import Keeper
from perpwatch.app.notices import alert_notice, development_notice, market_notice, operational_notice
from perpwatch.app.painter import Painter
from perpwatch.app.senders import folder_of, senders_of
from perpwatch.model import AssetClass, Batch
from perpwatch.store import Delivery

logger = logging.getLogger(__name__)

#: Under this key the store remembers how far the open episodes are.
EPISODES_KEY = "alerts.episodes"
REMEMBER_EVERY_S = 60.0


class Teller:
    """Makes notices of what a bot finds, and offers them to the channels. Nothing here waits."""

    def __init__(self, bot: Bot, deliveries: Deliveries) -> None:
        self.deliveries = deliveries
        self.episodes = Episodes()
        self._bot = bot

    def restore(self, keeper: Keeper) -> None:
        """Go on with the episodes of an earlier run.

        Raises:
            StoreError: the store cannot be read.
        """
        state = keeper.recall(EPISODES_KEY)
        if state is not None:
            try:
                self.episodes.restore(state)
            except ValueError as error:
                logger.warning("%s; they are taken from the alerts themselves", error)
        for alert in keeper.followed_alerts(self._bot.clock.time_ns() // 1_000_000):
            self.episodes.told(alert)

    def alert(self, alert: Alert | MarketAlert) -> list[Delivery]:
        """Take an alert; returns what must be stored together with it."""
        rows: list[Delivery] = []
        with self._losing(alert.key):
            rows = self.deliveries.offer(self._notice(alert))
        return rows

    def follow(self, step: Step) -> None:
        """Take what came of earlier alerts; after those of the step were taken."""
        developed: list[Developed] = []
        with self._losing("how episodes went on"):
            now_ms = self._bot.engine.now_ms
            developed = self.episodes.follow(step.signals, step.outcome.closed, step.outcomes, now_ms)
        for one in developed:
            with self._losing(one.key):
                self._develop(one)

    def operational(self, alert: OperationalAlert) -> None:
        """Take what is wrong with the watch."""
        with self._losing(alert.key):
            self.deliveries.tell(operational_notice(alert))

    @contextlib.contextmanager
    def _losing(self, what: str) -> Iterator[None]:
        """An error of ours within costs what is told here, and neither the feed nor the other notices."""
        try:
            yield
        except Exception as error:
            self.deliveries.lose(what, error)

    def _notice(self, alert: Alert | MarketAlert) -> Notice:
        pinned = self._bot.pinned
        if isinstance(alert, MarketAlert):
            return market_notice(alert, is_pinned=any(one.symbol in pinned for one in alert.alerts))
        thread = alert.key if alert.rule == TEST else self.episodes.told(alert)
        return alert_notice(alert, thread, self._class_of(alert), is_pinned=alert.symbol in pinned)

    def _develop(self, developed: Developed) -> None:
        alert = developed.alert
        is_pinned = alert.symbol in self._bot.pinned
        self.deliveries.tell(development_notice(developed, self._class_of(alert), is_pinned=is_pinned))

    def _class_of(self, alert: Alert) -> AssetClass | None:
        series = self._bot.engine.book.series.get(alert.symbol)
        return series.contract.asset_class if series is not None else None


@contextlib.asynccontextmanager
async def telling(
    bot: Bot, config: Config, monitor: Monitor, keeper: Keeper | None, config_file: Path | None
) -> AsyncIterator[Deliveries | None]:
    """Tell what ``bot`` finds while this is entered, if anybody is to be told; to be entered before it runs.

    Args:
        keeper: keeps what is to be told over a restart; None keeps it in memory.
        config_file: which files with secrets lie beside.
    Raises:
        ConfigurationError: a channel cannot be made as it is configured.
        StoreError: the store cannot be read.
    """
    alerts = config.alerts
    if keeper is not None:
        end_orphans(keeper.reader, keeper.writer, alerts.channels.keys(), bot.clock.time_ns() // 1_000_000)
    if not alerts.enabled or not alerts.channels:
        yield None
        return
    senders = senders_of(alerts, folder_of(config_file), config.network.proxy)
    routes = {name: channel.route(alerts.time_zone) for name, channel in alerts.channels.items()}
    store = (keeper.writer, keeper.reader) if keeper is not None else (None, None)
    painter = Painter() if any(sender.takes_pictures for sender in senders.values()) else None
    cards = card_maker_of(bot, keeper.reader if keeper is not None else None, alerts, painter)
    deliveries = Deliveries(senders, routes, cards, bot.clock, random.Random().random, *store)
    deliveries.restore()
    teller = Teller(bot, deliveries)
    if keeper is not None:
        teller.restore(keeper)
        keeper.beside = teller.alert
    tell, monitor_alert = bot.on_step, monitor.on_alert

    def on_step(batch: Batch, step: Step) -> None:
        tell(batch, step)
        if keeper is None:
            for alert in step.alerts:
                teller.alert(alert)
        teller.follow(step)

    def on_alert(alert: OperationalAlert) -> None:
        monitor_alert(alert)
        teller.operational(alert)

    bot.on_step, monitor.on_alert, monitor.metrics.deliveries = on_step, on_alert, deliveries
    async with painter or contextlib.nullcontext(), deliveries:
        remembering = asyncio.create_task(_remember_episodes(bot, teller, keeper))
        try:
            yield deliveries
        finally:
            remembering.cancel()
            bot.on_step, monitor.on_alert = tell, monitor_alert
            if keeper is not None:
                keeper.remember(EPISODES_KEY, teller.episodes.state(), bot.engine.now_ms)
                keeper.beside = _nothing


async def _remember_episodes(bot: Bot, teller: Teller, keeper: Keeper | None) -> None:
    while keeper is not None:
        await asyncio.sleep(REMEMBER_EVERY_S)
        keeper.remember(EPISODES_KEY, teller.episodes.state(), bot.engine.now_ms)


def _nothing(alert: Alert | MarketAlert) -> Sequence[Delivery]:
    return ()
