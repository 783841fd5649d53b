"""Events as the messages that handlers of the brief expect: ``channel``, ``symbol`` and a mapping ``data``.

Handlers may be plain functions or coroutines. They run one message at a time, apart from the feed: a slow one never
delays it, and one that raises is counted and logged and gets the next message all the same.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from perpwatch.market.candles import CandleBook, roll_up
from perpwatch.model import (
    ANALYSED_TIMEFRAMES,
    Batch,
    Candle,
    CandleHistory,
    CandleUpdate,
    Contract,
    RunningCandle,
    Ticker,
    Tickers,
    Timeframe,
    Trades,
)

logger = logging.getLogger(__name__)

#: Messages that may wait for a slow handler; beyond it the oldest are dropped and counted. Long before, a newer state
#: of the same candle or ticker takes the place of the waiting one, so that only trades and ended candles pile up.
MAX_WAITING = 50_000


@dataclass(frozen=True, slots=True)
class Message:
    """One thing that happened to one symbol.

    ``channel`` is a subscription type: ``ticker``, ``deals``, ``kline_Min1`` and so on. ``data`` has the field names of
    the exchange: for candles ``t`` (seconds), ``o h l c``, ``v`` and ``q`` (contracts), ``a`` (turnover in the quote
    coin); for tickers ``lastPrice``, ``volume24``, ``amount24``, ``riseFallRate`` ...; for deals ``deals``, a list of
    mappings with ``p``, ``v`` (contracts), ``T`` (1 buyer is taker, 2 seller) and ``t`` (ms).
    """

    channel: str
    symbol: str
    data: Mapping[str, Any]
    event_time_ms: int
    received_time_ns: int


Handler = Callable[[Any], Any]


def messages_of(batch: Batch, book: CandleBook, channels: frozenset[str]) -> Iterator[Message]:
    """The messages that a batch makes, of the wanted channels and the watched symbols.

    To be called after ``book`` has taken the batch, since longer candles are formed from it.
    """
    for event in batch.events:
        match event:
            case CandleUpdate():
                yield from _candle_messages(event, batch, book, channels)
            case Tickers() if "ticker" in channels:
                for ticker in event.tickers:
                    if ticker.symbol in book.series:
                        yield Message(
                            "ticker", ticker.symbol, _ticker(ticker), event.event_time_ms, batch.received_time_ns
                        )
            case Trades() if "deals" in channels:
                yield Message("deals", event.symbol, _deals(event), event.event_time_ms, batch.received_time_ns)
            case CandleHistory():
                yield from _polled_messages(event, batch, book, channels)


def _candle_messages(
    event: CandleUpdate, batch: Batch, book: CandleBook, channels: frozenset[str]
) -> Iterator[Message]:
    series = book.series.get(event.candle.symbol)
    if series is None:
        return
    pushed = event.candle
    if "kline_Min1" in channels and any(pushed is ended for ended, _ in series.settling):
        # The minute ended within this batch: this is its last state, and the running candle is that of the next.
        data = _pushed(pushed, series.contract)
        yield Message("kline_Min1", pushed.symbol, data, event.event_time_ms, batch.received_time_ns)
    if series.running is None:
        return
    for timeframe in ANALYSED_TIMEFRAMES:
        channel = f"kline_{timeframe.value}"
        if channel in channels:
            candle = book.running_candle(series, timeframe)
            yield Message(
                channel, candle.symbol, _candle(candle, timeframe), event.event_time_ms, batch.received_time_ns
            )


def _polled_messages(
    event: CandleHistory, batch: Batch, book: CandleBook, channels: frozenset[str]
) -> Iterator[Message]:
    """The running candle and the one before it, of a symbol that is read by REST because it has no stream."""
    series = book.series.get(event.symbol)
    if series is None or series.source or not event.candles:
        return
    for timeframe in ANALYSED_TIMEFRAMES:
        channel = f"kline_{timeframe.value}"
        if channel not in channels:
            continue
        length = timeframe.milliseconds
        newest_ms = event.candles[-1].open_time_ms // length * length
        for open_time_ms in (newest_ms - length, newest_ms):
            minutes = [one for one in event.candles if open_time_ms <= one.open_time_ms < open_time_ms + length]
            if minutes and event.complete_from_ms <= open_time_ms:
                candle = roll_up(minutes, timeframe)
                yield Message(
                    channel, candle.symbol, _candle(candle, timeframe), batch.watermark_ms, batch.received_time_ns
                )


def _candle(candle: Candle, timeframe: Timeframe) -> dict[str, Any]:
    return {
        "symbol": candle.symbol,
        "interval": timeframe.value,
        "t": candle.open_time_ms // 1_000,
        "o": candle.open,
        "h": candle.high,
        "l": candle.low,
        "c": candle.close,
        "v": candle.contracts,
        "q": candle.contracts,
        "a": candle.turnover,
    }


def _pushed(candle: RunningCandle, contract: Contract) -> dict[str, Any]:
    return {
        "symbol": candle.symbol,
        "interval": candle.timeframe.value,
        "t": candle.open_time_s,
        "o": candle.open,
        "h": candle.high,
        "l": candle.low,
        "c": candle.close,
        "v": candle.contracts,
        "q": candle.contracts,
        "a": contract.turnover(candle.contracts, candle.amount),
    }


def _ticker(ticker: Ticker) -> dict[str, Any]:
    return {
        "symbol": ticker.symbol,
        "lastPrice": ticker.last_price,
        "fairPrice": ticker.fair_price,
        "indexPrice": ticker.index_price,
        "volume24": ticker.contracts_24h,
        "amount24": ticker.amount_24h,
        "riseFallRate": ticker.change_24h,
        "high24Price": ticker.high_24h,
        "lower24Price": ticker.low_24h,
    }


def _deals(event: Trades) -> dict[str, Any]:
    return {
        "deals": [
            {
                "p": trade.price,
                "v": trade.contracts,
                "T": int(trade.side),
                "t": trade.event_time_ms,
                "i": trade.trade_id,
            }
            for trade in event.trades
        ]
    }


class Dispatcher:
    """Carries messages from the feed to handlers."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        """``handlers`` by channel; ``kline_*`` stands for candles of any timeframe, ``*`` for everything."""
        self.delivered = 0
        self.errors = 0
        self.conflated = 0
        self.dropped = 0
        self._handlers = dict(handlers)
        self._waiting: dict[object, tuple[Handler, Any]] = {}  # oldest first
        self._calls: deque[tuple[Handler, Any]] = deque()
        self._number = 0
        self._filled = asyncio.Event()

    def put(self, message: Message) -> None:
        """Have a message delivered soon. A candle that has ended is delivered in its last state."""
        handlers = self._handlers
        handler = handlers.get(message.channel) or handlers.get("*")
        if handler is None and message.channel.startswith("kline_"):
            handler = handlers.get("kline_*")
        if handler is None:
            return
        key: object
        if message.channel == "deals":
            self._number += 1
            key = self._number
        else:
            key = message.channel, message.symbol, message.data.get("t")
        if key in self._waiting:
            self.conflated += 1  # it keeps its place: whoever changes often would never have its turn otherwise
        elif len(self._waiting) >= MAX_WAITING:
            del self._waiting[next(iter(self._waiting))]
            self.dropped += 1
        self._waiting[key] = handler, message
        self._filled.set()

    def call(self, handler: Callable[[Any], Any], value: Any) -> None:
        """Have something rare delivered next, which is never replaced nor dropped: a signal."""
        self._calls.append((handler, value))
        self._filled.set()

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._calls or self._waiting:
                if self._calls:
                    handler, value = self._calls.popleft()
                else:
                    handler, value = self._waiting.pop(next(iter(self._waiting)))
                await self._deliver(handler, value)

    async def _deliver(self, handler: Handler, value: Any) -> None:
        try:
            result = handler(value)
            if inspect.isawaitable(result):
                await result
            self.delivered += 1
        except Exception:
            # Somebody else's code: whatever it does must not reach the feed.
            self.errors += 1
            logger.exception("a handler failed on %s", value)
        await asyncio.sleep(0)
