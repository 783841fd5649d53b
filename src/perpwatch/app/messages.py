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

from perpwatch.market.candles import CandleBook
from perpwatch.model import ANALYSED_TIMEFRAMES, Batch, Candle, CandleUpdate, Ticker, Tickers, Timeframe, Trades

logger = logging.getLogger(__name__)

#: Messages that may wait for a slow handler. Beyond it, a newer candle or ticker replaces the waiting one of the same
#: symbol; trades, which nothing can replace, are dropped oldest first. Both are counted.
MAX_WAITING = 50_000


@dataclass(frozen=True, slots=True)
class Message:
    """One thing that happened to one symbol.

    ``channel`` is a subscription type: ``ticker``, ``deals``, ``kline_Min1`` and so on. ``data`` has the field names of
    the exchange: for candles ``t`` (seconds), ``o h l c``, ``v`` and ``q`` (contracts), ``a`` (turnover in the settle
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


def _candle_messages(
    event: CandleUpdate, batch: Batch, book: CandleBook, channels: frozenset[str]
) -> Iterator[Message]:
    series = book.series.get(event.candle.symbol)
    if series is None or series.running is None:
        return
    for timeframe in ANALYSED_TIMEFRAMES:
        channel = f"kline_{timeframe.value}"
        if channel in channels:
            candle = book.running_candle(series, timeframe)
            yield Message(
                channel, candle.symbol, _candle(candle, timeframe), event.event_time_ms, batch.received_time_ns
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
        self._waiting: dict[object, tuple[Handler, Any]] = {}
        self._irreplaceable: deque[int] = deque()
        self._number = 0
        self._filled = asyncio.Event()

    def put(self, message: Message) -> None:
        """Have a message delivered soon."""
        handlers = self._handlers
        handler = handlers.get(message.channel) or handlers.get("*")
        if handler is None and message.channel.startswith("kline_"):
            handler = handlers.get("kline_*")
        if handler is None:
            return
        if message.channel == "deals":
            self.call(handler, message)
        else:
            key = (message.channel, message.symbol)
            self.conflated += self._waiting.pop(key, None) is not None
            self._waiting[key] = handler, message
            self._filled.set()

    def call(self, handler: Callable[[Any], Any], value: Any) -> None:
        """Have something delivered that nothing later can replace."""
        self._number += 1
        self._irreplaceable.append(self._number)
        if len(self._irreplaceable) > MAX_WAITING:
            self._waiting.pop(self._irreplaceable.popleft(), None)
            self.dropped += 1
        self._waiting[self._number] = handler, value
        self._filled.set()

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._waiting:
                key = next(iter(self._waiting))
                handler, value = self._waiting.pop(key)
                if self._irreplaceable and self._irreplaceable[0] == key:
                    self._irreplaceable.popleft()
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
