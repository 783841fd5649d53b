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


def main() -> None:
    name, port, count, core = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    pin(core)
    contenders = {"naive": naive, "ccxt_pro": ccxt_pro}
    asyncio.run(contenders[name](port, names(count)))


if __name__ == "__main__":
    main()
