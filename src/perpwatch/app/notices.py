"""Notices of what was found: an alert, a crowd, how an episode went on, a trouble of the watch."""

from __future__ import annotations

from perpwatch.alert.episodes import Developed
from perpwatch.alert.notice import Notice, NoticeKind
from perpwatch.alert.operational import OperationalAlert, Phase
from perpwatch.alert.policy import Alert, MarketAlert
from perpwatch.app.analysis import TEST
from perpwatch.model import AssetClass, Level


def alert_notice(
    alert: Alert, thread: str, asset_class: AssetClass | None = None, *, is_pinned: bool = False
) -> Notice:
    """An alert about one symbol; a test when nothing but a person's wish is behind it."""
    is_test = alert.rule == TEST
    return Notice(
        key=alert.key,
        thread=alert.key if is_test else thread,
        kind=NoticeKind.TEST if is_test else NoticeKind.ALERT,
        time_ms=alert.time_ms,
        level=alert.signal.level,
        rule=alert.rule,
        symbol=alert.symbol,
        asset_class=asset_class,
        is_pinned=is_pinned,
        received_time_ns=alert.signal.received_time_ns,
        alert=alert,
    )


def market_notice(alert: MarketAlert, *, is_pinned: bool = False) -> Notice:
    """An alert about many symbols, as unusual as the most unusual of them."""
    signals = [one.signal for one in alert.alerts]
    return Notice(
        key=alert.key,
        thread=alert.key,
        kind=NoticeKind.MARKET,
        time_ms=alert.time_ms,
        level=max((signal.level for signal in signals), key=lambda level: level.rank, default=Level.NOTICE),
        rule=alert.rule,
        is_pinned=is_pinned,
        # The last one made the crowd.
        received_time_ns=max((signal.received_time_ns for signal in signals), default=0),
        market=alert,
    )


def development_notice(
    developed: Developed, asset_class: AssetClass | None = None, *, is_pinned: bool = False
) -> Notice:
    """How an episode went on; never urgent."""
    alert = developed.alert
    return Notice(
        key=developed.key,
        thread=alert.key,
        kind=NoticeKind.UPDATE,
        time_ms=developed.development.time_ms,
        level=alert.signal.level,
        rule=alert.rule,
        symbol=alert.symbol,
        asset_class=asset_class,
        is_pinned=is_pinned,
        alert=alert,
        development=developed.development,
    )


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
