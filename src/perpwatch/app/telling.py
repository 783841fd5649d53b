"""What a running watch finds, told to people: from steps and troubles to notices, and from those to the channels."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import zoneinfo
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from perpwatch.alert.card import Card, card_of, digest_of
from perpwatch.alert.episodes import Developed, Episodes
from perpwatch.alert.notice import Notice, NoticeKind
from perpwatch.alert.operational import OperationalAlert, Phase
from perpwatch.alert.policy import Alert, MarketAlert
from perpwatch.alert.texts import Language, texts_of
from perpwatch.app.alerts_config import AlertsConfig
from perpwatch.app.analysis import TEST
from perpwatch.app.bot import Bot
from perpwatch.app.config import Config
from perpwatch.app.delivery import Deliveries
from perpwatch.app.engine import Step
from perpwatch.app.health import Monitor
from perpwatch.app.keeper import Keeper
from perpwatch.app.senders import folder_of, senders_of
from perpwatch.model import Batch, Level
from perpwatch.store import Delivery

logger = logging.getLogger(__name__)

#: Under this key the store remembers how far the open episodes are.
EPISODES_KEY = "alerts.episodes"
REMEMBER_EVERY_S = 60.0


class TextCards:
    """Messages without pictures."""

    def __init__(self, config: AlertsConfig) -> None:
        self._texts = texts_of(Language(config.language))
        self._zone = zoneinfo.ZoneInfo(config.time_zone)

    async def make(self, notices: Sequence[Notice], *, with_picture: bool) -> Card:
        if len(notices) == 1:
            return card_of(notices[0], self._texts, self._zone)
        return digest_of(notices, self._texts, self._zone)


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
        return self.deliveries.offer(self._notice(alert))

    def follow(self, step: Step) -> None:
        """Take what came of earlier alerts; after those of the step were taken."""
        episodes = self.episodes
        for signal in step.signals:
            episodes.hear(signal)
        for candle in step.outcome.closed:
            for developed in episodes.observe(candle):
                self._develop(developed)
        for outcome in step.outcomes:
            if (ended := episodes.ended(outcome)) is not None:
                self._develop(ended)
        for developed in episodes.advance(self._bot.engine.now_ms):
            self._develop(developed)

    def operational(self, alert: OperationalAlert) -> None:
        """Take what is wrong with the watch."""
        self.deliveries.tell(operational_notice(alert))

    def _notice(self, alert: Alert | MarketAlert) -> Notice:
        if isinstance(alert, MarketAlert):
            signals = [one.signal for one in alert.alerts]
            return Notice(
                key=alert.key,
                thread=alert.key,
                kind=NoticeKind.MARKET,
                time_ms=alert.time_ms,
                level=max((signal.level for signal in signals), key=list(Level).index, default=Level.NOTICE),
                rule=alert.rule,
                is_pinned=any(signal.symbol in self._bot.pinned for signal in signals),
                # The last one made the crowd.
                received_time_ns=max((signal.received_time_ns for signal in signals), default=0),
                market=alert,
            )
        is_test = alert.rule == TEST
        return Notice(
            key=alert.key,
            thread=alert.key if is_test else self.episodes.told(alert),
            kind=NoticeKind.TEST if is_test else NoticeKind.ALERT,
            time_ms=alert.time_ms,
            received_time_ns=alert.signal.received_time_ns,
            alert=alert,
            **self._about(alert),
        )

    def _develop(self, developed: Developed) -> None:
        alert = developed.alert
        self.deliveries.tell(
            Notice(
                key=developed.key,
                thread=alert.key,
                kind=NoticeKind.UPDATE,
                time_ms=developed.development.time_ms,
                alert=alert,
                development=developed.development,
                **self._about(alert),
            )
        )

    def _about(self, alert: Alert) -> dict[str, Any]:
        series = self._bot.engine.book.series.get(alert.symbol)
        return {
            "level": alert.signal.level,
            "rule": alert.rule,
            "symbol": alert.symbol,
            "asset_class": series.contract.asset_class if series is not None else None,
            "is_pinned": alert.symbol in self._bot.pinned,
        }


def operational_notice(alert: OperationalAlert) -> Notice:
    """A trouble of the watch, or its end, as it is told: each as a message of its own, because people wait for both."""
    return Notice(
        key=alert.key,
        thread=alert.key,
        kind=NoticeKind.OPERATIONAL,
        time_ms=alert.time_ms,
        level=Level.STRONG if alert.phase is Phase.START else Level.NOTICE,
        received_time_ns=alert.time_ms * 1_000_000,
        operational=alert,
    )


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
    if not alerts.enabled or not alerts.channels:
        yield None
        return
    senders = senders_of(alerts, folder_of(config_file), config.network.proxy)
    routes = {name: channel.route(alerts.time_zone) for name, channel in alerts.channels.items()}
    store = (keeper.writer, keeper.reader) if keeper is not None else (None, None)
    deliveries = Deliveries(senders, routes, TextCards(alerts), bot.clock, random.Random().random, *store)
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
    async with deliveries:
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
