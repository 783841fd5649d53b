"""The contract for what watches tickers instead of candles, and the signal it gives."""

from __future__ import annotations

from typing import Protocol

from perpwatch.model import MINUTE_MS, Direction, Level, Reason, Signal, Ticker, Timeframe, Trust


class TickerDetector(Protocol):
    """What every detector on tickers promises.

    * Judges a ticker by those before it only; one that is older than the last of its symbol is ignored.
    * Having fired, measures anew from where it fired, so that a state that lasts is told once.
    """

    @property
    def name(self) -> str: ...

    def observe(self, ticker: Ticker, event_time_ms: int, received_time_ns: int) -> Signal | None:
        """Judge one row; fields that it does not carry are not judged."""
        ...

    def forget(self, symbol: str) -> None:
        """The symbol is no longer watched, or was lost for so long that nothing should span the loss."""
        ...


def ticker_signal(
    detector: str,
    symbol: str,
    price: float,
    direction: Direction,
    level: Level,
    strength: float,
    reasons: tuple[Reason, ...],
    event_time_ms: int,
    received_time_ns: int,
) -> Signal:
    """A signal that no candle caused; it is named after the minute in which it happened."""
    return Signal(
        detector=detector,
        symbol=symbol,
        timeframe=Timeframe.Min1,
        open_time_ms=event_time_ms - event_time_ms % MINUTE_MS,
        direction=direction,
        level=level,
        price=price,
        strength=strength,
        is_running=True,
        trust=Trust.STREAMED,
        reasons=reasons,
        event_time_ms=event_time_ms,
        received_time_ns=received_time_ns,
    )


def level_of(excess: float) -> Level:
    """Twice what was needed is strong, four times extreme."""
    return Level.EXTREME if excess >= 4.0 else Level.STRONG if excess >= 2.0 else Level.NOTICE
