"""Other programs as contenders: ``python peer_contenders.py NAME PORT SYMBOLS CORE``. Nothing of perpwatch is used."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from contender import Stopwatch, listen_for_ever, pin
from flood import names


async def naive(port: int, symbols: list[str]) -> None:
    """What one writes in an evening: a loop that reads, parses and keeps the running candle."""
    import websockets

    watch = Stopwatch()
    candles: dict[tuple[str, int], dict[str, Any]] = {}

    async def read() -> None:
        async with websockets.connect(f"ws://127.0.0.1:{port}/naive", max_size=None, compression=None) as socket:
            for symbol in symbols:
                await socket.send(json.dumps({"method": "sub.kline", "param": {"symbol": symbol, "interval": "Min1"}}))
            async for text in socket:
                message = json.loads(text)
                if message["channel"] == "push.kline":
                    bar = message["data"]
                    candles[bar["symbol"], bar["t"]] = bar
                if watch.left:
                    watch.count()

    reading = asyncio.create_task(read())
    await asyncio.sleep(2.0)
    await listen_for_ever(lambda frames, size: watch.expect(frames))
    await reading


async def ccxt_pro(port: int, symbols: list[str]) -> None:
    """A task for each symbol and stream that waits for the next state, as its documentation shows."""
    import ccxt.pro

    watch = Stopwatch()
    exchange = ccxt.pro.mexc({"options": {"defaultType": "swap"}, "enableRateLimit": False})
    exchange.urls["api"]["ws"]["swap"] = f"ws://127.0.0.1:{port}/ccxt_pro"
    markets = []
    for name in symbols:
        base = name.removesuffix("_USDT")
        raw = {"symbol": name, "baseCoin": base, "quoteCoin": "USDT", "settleCoin": "USDT", "contractSize": 0.01}
        market = exchange.safe_market_structure(
            {
                "id": name,
                "symbol": f"{base}/USDT:USDT",
                "base": base,
                "quote": "USDT",
                "settle": "USDT",
                "type": "swap",
                "swap": True,
                "contract": True,
                "linear": True,
                "contractSize": 0.01,
                "precision": {"price": 1e-6, "amount": 1.0},
                "info": raw,
            }
        )
        markets.append(market)
    exchange.set_markets(markets)

    async def follow(watched: Any, *arguments: Any) -> None:
        while True:
            await watched(*arguments)

    take = exchange.handle_message

    def counted(client: Any, message: Any) -> None:
        take(client, message)
        if watch.left:
            watch.count()

    exchange.handle_message = counted
    tasks = []
    for market in markets:
        symbol = market["symbol"]
        tasks.append(asyncio.create_task(follow(exchange.watch_ohlcv, symbol, "1m")))
        tasks.append(asyncio.create_task(follow(exchange.watch_ticker, symbol)))
        tasks.append(asyncio.create_task(follow(exchange.watch_trades, symbol)))
    await asyncio.sleep(15.0)
    for task in tasks:
        if task.done():
            task.result()
    await listen_for_ever(lambda frames, size: watch.expect(frames))


async def pymexc(port: int, symbols: list[str]) -> None:
    """The synchronous client, which has a thread for each connection, with a callback that keeps the running candle."""
    from pymexc import base_websocket, futures

    base_websocket.FUTURES = f"ws://127.0.0.1:{port}/pymexc"
    watch = Stopwatch()
    candles: dict[tuple[str, int], dict[str, Any]] = {}

    def keep(message: dict[str, Any]) -> None:
        bar = message["data"]
        candles[bar["symbol"], bar["t"]] = bar

    def pass_over(message: dict[str, Any]) -> None:
        pass

    class Counted(futures.WebSocket):  # type: ignore[misc]
        def _on_message(self, message: str) -> None:
            super()._on_message(message)
            if watch.left:
                watch.count()

    client = Counted(ping_interval=3_600)
    client.ticker_stream(pass_over, symbols[0])
    client.deal_stream(pass_over, symbols[0])
    for symbol in symbols:
        client.kline_stream(keep, symbol, "Min1")
    await asyncio.sleep(2.0)
    await listen_for_ever(lambda frames, size: watch.expect(frames))


async def cryptofeed(port: int, symbols: list[str]) -> None:
    """Binance's shapes, which it knows better than MEXC's; its objects are made and handed to a callback."""
    from cryptofeed.connection import WebsocketEndpoint
    from cryptofeed.defines import CANDLES, TICKER, TRADES
    from cryptofeed.exchanges import BinanceFutures
    from cryptofeed.symbols import Symbols

    watch = Stopwatch()
    bases = [name.removesuffix("_USDT") for name in symbols]
    Symbols.set(BinanceFutures.id, {f"{base}-USDT-PERP": f"{base}USDT" for base in bases}, {"instrument_type": {}})
    candles: dict[str, Any] = {}

    async def keep(candle: Any, received_s: float) -> None:
        candles[candle.symbol] = candle

    async def pass_over(event: Any, received_s: float) -> None:
        pass

    class Counted(BinanceFutures):  # type: ignore[misc]
        websocket_endpoints = (
            WebsocketEndpoint(f"wss://127.0.0.1:{port}/binance_cryptofeed", options={"compression": None}),
        )

        def connect(self) -> Any:
            made = super().connect()
            for connection, *_ in made:  # it insists on TLS, which costs all others nothing here
                connection.address = connection.address.replace("wss://", "ws://")
            return made

        async def message_handler(self, message: str, connection: Any, timestamp: float) -> None:
            await super().message_handler(message, connection, timestamp)
            if watch.left:
                watch.count()

    feed = Counted(
        symbols=[f"{base}-USDT-PERP" for base in bases],
        channels=[CANDLES, TICKER, TRADES],
        callbacks={CANDLES: keep, TICKER: pass_over, TRADES: pass_over},
        candle_closed_only=False,
    )
    feed.start(asyncio.get_running_loop())
    await asyncio.sleep(5.0)
    await listen_for_ever(lambda frames, size: watch.expect(frames))


async def nautilus(port: int, symbols: list[str]) -> None:
    """The Python client for Binance futures with its data engine and cache; running candles it only decodes."""
    from nautilus_trader.adapters.binance.common.enums import BinanceAccountType
    from nautilus_trader.adapters.binance.config import BinanceDataClientConfig
    from nautilus_trader.adapters.binance.futures.data import BinanceFuturesDataClient
    from nautilus_trader.adapters.binance.futures.providers import BinanceFuturesInstrumentProvider
    from nautilus_trader.adapters.binance.http.client import BinanceHttpClient
    from nautilus_trader.cache.cache import Cache
    from nautilus_trader.common.component import LiveClock, MessageBus
    from nautilus_trader.data.engine import DataEngine
    from nautilus_trader.model.identifiers import TraderId

    watch = Stopwatch()
    clock = LiveClock()
    bus, cache = MessageBus(TraderId("BENCH-001"), clock), Cache()
    engine = DataEngine(bus, cache, clock)
    http = BinanceHttpClient(clock, "key", "secret", f"http://127.0.0.1:{port}")
    account = BinanceAccountType.USDT_FUTURES
    config = BinanceDataClientConfig(use_agg_trade_ticks=True)
    provider = BinanceFuturesInstrumentProvider(http, clock, account)
    url = f"ws://127.0.0.1:{port}/binance_nautilus"
    loop = asyncio.get_running_loop()
    client = BinanceFuturesDataClient(loop, http, bus, cache, clock, provider, url, config, account)
    engine.register_client(client)
    sockets = client._ws_client
    take = sockets._handler

    def counted(raw: bytes) -> None:
        take(raw)
        if watch.left:
            watch.count()

    sockets._handler = counted
    for name in symbols:
        symbol = name.replace("_", "")
        await sockets.subscribe_bars(symbol, "1m")
        await sockets.subscribe_book_ticker(symbol)
        await sockets.subscribe_agg_trades(symbol)
    await asyncio.sleep(2.0)
    await listen_for_ever(lambda frames, size: watch.expect(frames))


def main() -> None:
    name, port, count, core = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    pin(core)
    contenders = {
        "naive": naive,
        "ccxt_pro": ccxt_pro,
        "pymexc": pymexc,
        "cryptofeed": cryptofeed,
        "nautilus": nautilus,
    }
    asyncio.run(contenders[name](port, names(count)))


if __name__ == "__main__":
    main()
