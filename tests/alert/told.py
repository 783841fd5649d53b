"""Things to tell, as the program makes them."""

from __future__ import annotations

from msgspec.structs import replace

import cards
from perpwatch.alert.card import Card
from perpwatch.alert.notice import Development, Notice, NoticeKind
from perpwatch.alert.operational import OperationalAlert, Phase, Trouble
from perpwatch.alert.outcomes import Excursion, Outcome
from perpwatch.alert.policy import Alert, MarketAlert
from perpwatch.model import AssetClass, Direction, Level, Reason

TIME_MS = 1_760_000_040_000


def alert(symbol: str = "MOG_USDT", *, value: float = 113.0, time_ms: int = TIME_MS) -> Alert:
    signal = cards.signal(
        symbol,
        level=Level.EXTREME,
        price=0.0000004123,
        reasons=(Reason("turnover_ratio", value, "x", f"volume {value:g} × its usual"),),
        open_time_ms=time_ms - 40_000,
        event_time_ms=time_ms,
        received_time_ns=time_ms * 1_000_000,
    )
    return replace(cards.alert(signal, start_ms=time_ms, ratio=value), key=f"{symbol}:Min1:0", rule="pump")


def notice(number: int = 0, symbol: str = "MOG_USDT", time_ms: int = TIME_MS) -> Notice:
    """An alert about one symbol."""
    one = alert(symbol, time_ms=time_ms)
    key = f"{one.key}:{number}"
    return replace(cards.notice(one, asset_class=AssetClass.COIN), key=key, thread=key)


def update(number: int = 0) -> Notice:
    """How the episode of an alert ended."""
    after = (Excursion(5, 0.01, 0.02, float("nan")), Excursion(60, 0.05, 0.09, -0.01))
    outcome = Outcome("k", "pump", "MOG_USDT", TIME_MS, Direction.UP, 1.0, 0.001, after, ())
    first = notice(number)
    return Notice(
        key=f"{first.key}:over",
        thread=first.thread,
        kind=NoticeKind.UPDATE,
        time_ms=TIME_MS + 60_000,
        level=Level.EXTREME,
        symbol="MOG_USDT",
        alert=first.alert,
        development=Development(TIME_MS, 2.0, 0.14, 0.15, 120.0, is_over=True, outcome=outcome),
    )


def market_notice() -> Notice:
    market = MarketAlert("m", TIME_MS, TIME_MS, (alert("A_USDT"), alert("B_USDT", value=float("inf"))), 800, 1e-4)
    return Notice(
        key="m", thread="m", kind=NoticeKind.MARKET, time_ms=TIME_MS, level=Level.STRONG, rule="pump", market=market
    )


def operational_notice(phase: Phase = Phase.END) -> Notice:
    trouble = OperationalAlert(
        key=f"data_delayed:{TIME_MS}:{phase}",
        trouble=Trouble.DELAY,
        phase=phase,
        time_ms=TIME_MS,
        start_ms=TIME_MS - 100_000,
        text="data delayed: back after 1 m 40 s, 3 minutes repaired, 0 unknown",
        duration_s=100.0,
        repaired_minutes=3,
        unknown_minutes=0,
    )
    return Notice(
        key=trouble.key,
        thread=trouble.key,
        kind=NoticeKind.OPERATIONAL,
        time_ms=TIME_MS,
        level=Level.NOTICE,
        operational=trouble,
    )


def card(title: str = "▲ MOG_USDT +4.4 % in 1 min", picture: bytes | None = None) -> Card:
    return Card(
        title,
        ("volume 113 × its usual", "the rarest minute in 11 days"),
        "data straight from the stream · 0.3 s",
        "https://futures.mexc.com/exchange/MOG_USDT",
        picture,
    )
