"""Alerts as detectors give them, for tests of what people read."""

from __future__ import annotations

from msgspec.structs import replace

from perpwatch.alert.notice import Notice, NoticeKind
from perpwatch.alert.policy import Alert
from perpwatch.model import MINUTE_MS, Direction, Level, Reason, Signal, Timeframe, Trust

#: 2026-11-25 14:03:22 UTC
NOW_MS = 1_795_615_402_000

SIGNAL = Signal(
    detector="rarity",
    symbol="BEAT_USDT",
    timeframe=Timeframe.Min1,
    open_time_ms=NOW_MS - NOW_MS % MINUTE_MS,
    direction=Direction.UP,
    level=Level.STRONG,
    price=0.0123456,
    strength=1.0,
    is_running=True,
    trust=Trust.STREAMED,
    reasons=(
        Reason("move", 6.04, "%", "+6.04 % in 1 min"),
        Reason("move_ratio", 113.4, "x", "113 × its usual move"),
        Reason("turnover_ratio", 12.61, "x", "volume 12.6 × its one-day mean"),
        Reason("rarity", 1 / (11 * 1440), "per minute", "the rarest minute in about 11 days"),
        Reason("rush_orders", 31, "orders", "31 rush orders, 28 of them buys"),
        Reason("trades", 214, "trades", "214 trades"),
        Reason("taker_buy_share", 78.2, "%", "78 % taker buys"),
        Reason("open_interest_change", 2.31, "%", "open interest +2.3 % in 5 to 10 min"),
        Reason("funding_rate", 0.0125, "%", "funding +0.0125 % per settlement"),
        Reason("score", 0.914, "quantile", "pump score 0.91: mostly volume, move"),
        Reason("score: volume", 1.5, "log odds"),
        Reason("score: move", 0.5, "log odds"),
        Reason("turnover", 3_120_000.0, "USDT"),
        Reason("mean_turnover", 247_400.0, "USDT"),
        Reason("trust", 0.9, "share", "data straight from the stream"),
        Reason("latency", 16.2, "ms", "seen 16 ms after the exchange's time"),
    ),
    event_time_ms=NOW_MS,
    received_time_ns=(NOW_MS + 16) * 1_000_000,
    rule="default",
)


def signal(symbol: str = "BEAT_USDT", direction: Direction = Direction.UP, **changes: object) -> Signal:
    return replace(SIGNAL, symbol=symbol, direction=direction, **changes)


def alert(one: Signal = SIGNAL, *, escalation: int = 0, start_ms: int = NOW_MS, ratio: float = 12.61) -> Alert:
    key = f"default/rarity:{one.symbol}:{one.timeframe}:{one.open_time_ms}:{escalation}"
    return Alert(key, one, one.event_time_ms, start_ms, escalation, ratio, 1e-4, rule="default")


def notice(one: Alert, kind: NoticeKind = NoticeKind.ALERT, **more: object) -> Notice:
    return Notice(
        key=one.key,
        thread=one.key,
        kind=kind,
        time_ms=one.time_ms,
        level=one.signal.level,
        rule=one.rule,
        symbol=one.symbol,
        received_time_ns=one.signal.received_time_ns,
        alert=one,
        **more,  # type: ignore[arg-type]
    )
