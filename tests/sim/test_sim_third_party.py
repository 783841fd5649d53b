"""Fidelity: a client that is not ours, the ccxt package, takes the simulator for MEXC."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import ccxt.pro
import pytest

from perpwatch.sim import Clock, SimulatorServer, build

TIME_LIMIT_S = 45
HOUR_MS = 3_600_000
BITCOIN = "BTC/USDT:USDT"


@asynccontextmanager
async def third_party() -> AsyncIterator[tuple[Any, SimulatorServer]]:
    """The package's MEXC client, its addresses pointed at a simulator that runs at the present time."""
    now_ms = time.time_ns() // 1_000_000
    async with (
        asyncio.timeout(TIME_LIMIT_S),
        SimulatorServer(build(1, 60, now_ms, coin_margined=1), Clock.starting_at(now_ms)) as server,
    ):
        # Its own request pacing would make the test slow; the simulator's limits are wide enough.
        client = ccxt.pro.mexc({"enableRateLimit": False, "options": {"defaultType": "swap"}})
        addresses = client.urls["api"]
        addresses["spot"] = dict.fromkeys(("public", "private"), server.rest_url)
        addresses["contract"] = dict.fromkeys(("public", "private"), f"{server.rest_url}/api/v1/contract")
        addresses["ws"]["swap"] = server.websocket_url
        try:
            yield client, server
        finally:
            await client.close()


async def test_ccxt_lists_the_contracts_and_reads_candles() -> None:
    async with third_party() as (client, server):
        markets = await client.load_markets()
        assert len(markets) == 61
        assert markets[BITCOIN]["contractSize"] == 0.0001
        assert markets[BITCOIN]["linear"]
        assert markets["BTC/USD:BTC"]["inverse"]
        assert markets[BITCOIN]["precision"] == {"amount": 1.0, "price": 0.1}

        candles = await client.fetch_ohlcv(BITCOIN, "1m", limit=3)
        minute_ms = server.exchange.market.minute * 60_000
        assert [row[0] for row in candles][-2:] == [minute_ms - 60_000, minute_ms]
        assert candles[1][1] == candles[0][4]  # it opens where the last one closed
        hour_ms = minute_ms - minute_ms % HOUR_MS
        hours = await client.fetch_ohlcv(BITCOIN, "1h", since=hour_ms - 5 * HOUR_MS)
        assert [row[0] for row in hours] == [hour_ms - back * HOUR_MS for back in range(5, -1, -1)]
        ticker = await client.fetch_ticker(BITCOIN)
        assert ticker["bid"] == ticker["last"] == pytest.approx(candles[-1][4], rel=0.01)
        assert (await client.fetch_trades(BITCOIN))[-1]["side"] in ("buy", "sell")
        assert len((await client.fetch_order_book(BITCOIN, 5))["asks"]) == 5
        assert abs((await client.fetch_funding_rate(BITCOIN))["fundingRate"]) <= 1e-4


async def test_ccxt_watches_tickers_candles_and_trades() -> None:
    async with third_party() as (client, server):
        await client.load_markets()
        ticker = await client.watch_ticker(BITCOIN)
        assert ticker["symbol"] == BITCOIN
        assert ticker["last"] > 0
        everything = await client.watch_tickers()
        assert BITCOIN in everything

        trades = await client.watch_trades(BITCOIN)
        listing = server.exchange.market.listing("BTC_USDT")
        assert listing is not None
        known = {(trade.time_ms, trade.price, trade.contracts) for trade in listing.recent}
        assert all((trade["timestamp"], trade["price"], trade["amount"]) in known for trade in trades)

        (candle,) = await client.watch_ohlcv(BITCOIN, "1m")
        running = server.exchange.market.running("BTC_USDT")
        assert running is not None
        assert candle[0] in (running.open_time_ms, running.open_time_ms - 60_000)
        assert candle[2] >= candle[4] >= candle[3]
        book = await client.watch_order_book(BITCOIN)
        assert book["asks"][0][0] > book["bids"][0][0]
