"""Messages in the shape of the brief, and their way to handlers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterable

import pytest

from perpwatch.app import messages
from perpwatch.app.analysis import Analysis
from perpwatch.app.engine import Engine
from perpwatch.app.messages import Dispatcher, Message, messages_of
from perpwatch.model import (
    Batch,
    Candle,
    CandleHistory,
    CandleUpdate,
    Contract,
    Event,
    Finality,
    RunningCandle,
    Side,
    StreamUp,
    Ticker,
    Tickers,
    Timeframe,
    Trade,
    Trades,
    Trust,
    stream_of_candles,
)

SYMBOL = "BTC_USDT"
CONTRACT = Contract(SYMBOL, "BTC", "USDT", "USDT", contract_size=0.0001)
#: A full hour, so that all timeframes begin together.
T0_MS = 1_790_870_400_000
KLINES = frozenset(f"kline_{name}" for name in ("Min1", "Min5", "Min15", "Min60"))


def engine() -> Engine:
    made = Engine(Analysis(), [Timeframe.Min1])
    made.watch([CONTRACT])
    return made


def streaming_engine() -> Engine:
    made = engine()
    made.take(Batch("ws-1", 0, T0_MS, [StreamUp(stream_of_candles(SYMBOL), "ws-1", T0_MS)]))
    return made


def push(minute: int, second: float, contracts: float, close: float = 101.0) -> CandleUpdate:
    candle = RunningCandle(
        SYMBOL, Timeframe.Min1, T0_MS // 1_000 + 60 * minute, 100.0, 102.0, 99.0, close, contracts, contracts / 100
    )
    return CandleUpdate(candle, T0_MS + 60_000 * minute + int(second * 1_000))


def told(to: Engine, events: Iterable[Event], channels: Iterable[str] = KLINES, source: str = "ws-1") -> list[Message]:
    events = list(events)
    newest_ms = max(getattr(event, "event_time_ms", T0_MS + 300_000) for event in events)
    batch = Batch(source, 7, newest_ms, events)
    to.take(batch)
    return list(messages_of(batch, to.book, frozenset(channels)))


def test_a_candle_push_becomes_a_message_of_every_wanted_timeframe_with_volume_in_contracts() -> None:
    to = streaming_engine()
    told(to, [push(0, 59, 300.0)])
    first, *longer = told(to, [push(1, 2, 20.0, close=100.5)])
    assert first == Message(
        "kline_Min1",
        SYMBOL,
        {
            "symbol": SYMBOL,
            "interval": "Min1",
            "t": T0_MS // 1_000 + 60,
            "o": 100.0,
            "h": 102.0,
            "l": 99.0,
            "c": 100.5,
            "v": 20.0,
            "q": 20.0,
            "a": 0.2,
        },
        T0_MS + 62_000,
        7,
    )
    assert [message.channel for message in longer] == ["kline_Min5", "kline_Min15", "kline_Min60"]
    assert {message.data["v"] for message in longer} == {320.0}
    assert {message.data["t"] for message in longer} == {T0_MS // 1_000}


def test_a_minute_that_ends_within_a_batch_is_told_in_its_last_state_before_the_next() -> None:
    to = streaming_engine()
    told(to, [push(0, 30, 100.0)])
    told_now = told(to, [push(0, 59.9, 120.0), push(1, 0.1, 5.0)], ["kline_Min1"])
    volumes = {message.data["t"] - T0_MS // 1_000: message.data["v"] for message in told_now}
    assert list(volumes.items()) == [(0, 120.0), (60, 5.0)]


def test_a_push_that_is_older_than_what_is_known_tells_nothing_older() -> None:
    to = streaming_engine()
    told(to, [push(0, 30, 100.0)])
    assert [message.data["v"] for message in told(to, [push(0, 29, 90.0)], ["kline_Min1"])] == [100.0]


def test_tickers_of_watched_symbols_have_the_exchanges_field_names() -> None:
    rows = [
        Ticker(symbol=SYMBOL, last_price=100.0, fair_price=101.0, contracts_24h=5.0, amount_24h=6.0, change_24h=0.01),
        Ticker(symbol="OTHER_USDT", last_price=1.0),
    ]
    (message,) = told(streaming_engine(), [Tickers(rows, T0_MS + 1)], ["ticker"])
    assert (message.channel, message.symbol) == ("ticker", SYMBOL)
    assert message.data["lastPrice"] == 100.0
    assert (message.data["volume24"], message.data["amount24"], message.data["riseFallRate"]) == (5.0, 6.0, 0.01)
    assert told(streaming_engine(), [Tickers(rows, T0_MS + 1)], ["deals"]) == []


def test_trades_become_one_message_with_a_list_of_deals() -> None:
    trades = [Trade(100.0, 3.0, Side.BUY, T0_MS, "17"), Trade(99.0, 4.0, Side.SELL, T0_MS + 1, "18")]
    (message,) = told(streaming_engine(), [Trades(SYMBOL, trades, T0_MS + 2)], ["deals"])
    assert message.data == {
        "deals": [
            {"p": 100.0, "v": 3.0, "T": 1, "t": T0_MS, "i": "17"},
            {"p": 99.0, "v": 4.0, "T": 2, "t": T0_MS + 1, "i": "18"},
        ]
    }


def history(minutes: Iterable[int]) -> CandleHistory:
    candles = [
        Candle(
            SYMBOL,
            Timeframe.Min1,
            T0_MS + 60_000 * minute,
            *(100.0, 102.0, 99.0, 101.0),
            *(10.0 + minute, 0.001, 0.1),
            Finality.REST,
            Trust.VERIFIED,
        )
        for minute in minutes
    ]
    return CandleHistory(SYMBOL, candles, T0_MS, candles[-1].open_time_ms + 30_000)


def test_a_symbol_that_is_read_by_rest_is_told_by_its_running_candle_and_the_one_before() -> None:
    told_now = told(engine(), [history(range(12))], source="rest")
    seen = [(message.channel, (message.data["t"] * 1_000 - T0_MS) // 60_000, message.data["v"]) for message in told_now]
    assert seen == [
        ("kline_Min1", 10, 20.0),
        ("kline_Min1", 11, 21.0),
        ("kline_Min5", 5, 15.0 + 16 + 17 + 18 + 19),
        ("kline_Min5", 10, 20.0 + 21),
        ("kline_Min15", 0, sum(10.0 + minute for minute in range(12))),
        ("kline_Min60", 0, sum(10.0 + minute for minute in range(12))),
    ]


def test_a_streamed_symbol_is_not_told_by_its_history() -> None:
    assert told(streaming_engine(), [history(range(3))], source="rest") == []


# --- Delivery ------------------------------------------------------------------------------------------------------


def kline(symbol: str, volume: float, t: int = 0, channel: str = "kline_Min1") -> Message:
    return Message(channel, symbol, {"t": t, "v": volume}, 0, 0)


def deal(number: int) -> Message:
    return Message("deals", SYMBOL, {"deals": [number]}, 0, 0)


@contextlib.asynccontextmanager
async def delivering(dispatcher: Dispatcher) -> AsyncIterator[None]:
    """Lets everything that was put be delivered before it ends."""
    task = asyncio.create_task(dispatcher.run())
    try:
        yield
        before = -1
        while before != dispatcher.delivered + dispatcher.errors:
            before = dispatcher.delivered + dispatcher.errors
            await asyncio.sleep(0.02)
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_handlers_are_chosen_by_channel_and_may_be_plain_or_coroutines() -> None:
    seen: list[tuple[str, str]] = []

    async def on_kline(message: Message) -> None:
        await asyncio.sleep(0)
        seen.append(("kline", message.channel))

    dispatcher = Dispatcher({"kline_*": on_kline, "ticker": lambda message: seen.append(("ticker", message.channel))})
    async with delivering(dispatcher):
        dispatcher.put(kline("A", 1.0, channel="kline_Min5"))
        dispatcher.put(kline("A", 1.0, channel="ticker"))
        dispatcher.put(deal(1))  # nobody wants it
    assert seen == [("kline", "kline_Min5"), ("ticker", "ticker")]
    assert dispatcher.delivered == 2


async def test_a_handler_that_raises_is_counted_and_gets_the_next_message(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[float] = []

    def moody(message: Message) -> None:
        if message.data["v"] == 1.0:
            raise ZeroDivisionError("on purpose")
        seen.append(message.data["v"])

    dispatcher = Dispatcher({"*": moody})
    with caplog.at_level(logging.ERROR, "perpwatch"):
        async with delivering(dispatcher):
            dispatcher.put(kline("A", 1.0))
            dispatcher.put(kline("B", 2.0))
    assert (seen, dispatcher.errors, dispatcher.delivered) == ([2.0], 1, 1)
    assert "on purpose" in caplog.text


async def test_a_newer_state_of_a_candle_takes_the_place_of_the_waiting_one() -> None:
    seen: list[tuple[str, float]] = []
    dispatcher = Dispatcher({"*": lambda message: seen.append((message.symbol, message.data["v"]))})
    async with delivering(dispatcher):
        for symbol, volume in (("A", 1.0), ("B", 1.0), ("A", 2.0), ("A", 3.0)):
            dispatcher.put(kline(symbol, volume))
    # In the place: a symbol that changes all the time has its turn like the others.
    assert seen == [("A", 3.0), ("B", 1.0)]
    assert dispatcher.conflated == 2


async def test_the_last_state_of_an_ended_candle_is_delivered_also_to_a_slow_handler() -> None:
    seen: list[tuple[int, float]] = []
    dispatcher = Dispatcher({"*": lambda message: seen.append((message.data["t"], message.data["v"]))})
    async with delivering(dispatcher):
        for t, volume in ((0, 1.0), (0, 2.0), (60, 1.0), (60, 5.0)):
            dispatcher.put(kline("A", volume, t))
    assert seen == [(0, 2.0), (60, 5.0)]


async def test_every_trade_is_delivered_in_order() -> None:
    seen: list[int] = []
    dispatcher = Dispatcher({"deals": lambda message: seen.extend(message.data["deals"])})
    async with delivering(dispatcher):
        for number in range(100):
            dispatcher.put(deal(number))
    assert seen == list(range(100))


async def test_beyond_the_bound_the_oldest_messages_are_dropped_but_never_a_signal() -> None:
    seen: list[object] = []
    dispatcher = Dispatcher({"deals": lambda message: seen.extend(message.data["deals"])})
    async with delivering(dispatcher):
        dispatcher.call(seen.append, "signal")
        for number in range(messages.MAX_WAITING + 3):
            dispatcher.put(deal(number))
    assert (seen[0], seen[1], len(seen)) == ("signal", 3, messages.MAX_WAITING + 1)
    assert dispatcher.dropped == 3


async def test_a_slow_handler_does_not_delay_whoever_puts() -> None:
    gate = asyncio.Event()
    dispatcher = Dispatcher({"*": lambda message: gate.wait()})
    async with delivering(dispatcher):
        for number in range(10):
            dispatcher.put(deal(number))
            await asyncio.sleep(0)
        assert dispatcher.delivered == 0
        gate.set()
    assert dispatcher.delivered == 10
