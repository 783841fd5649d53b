"""The simulated exchange on real local sockets."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from perpwatch.sim import Clock, FaultEvent, Faults, Pump, SimulatorServer, build
from perpwatch.sim import server as server_module

START_MS = 1_791_201_600_000
TIME_LIMIT_S = 20


@asynccontextmanager
async def serving(
    faults: Faults | None = None, contracts: int = 10
) -> AsyncIterator[tuple[SimulatorServer, aiohttp.ClientSession]]:
    """A server and an HTTP client, for a bounded time."""
    exchange = build(1, contracts, START_MS, faults=faults, pumps=[Pump(START_MS + 60_000, "BTC_USDT")])
    async with (
        asyncio.timeout(TIME_LIMIT_S),
        SimulatorServer(exchange, Clock.starting_at(START_MS)) as server,
        aiohttp.ClientSession() as http,
    ):
        yield server, http


async def frame(socket: aiohttp.ClientWebSocketResponse, channel: str) -> dict[str, Any]:
    """The next frame on a channel."""
    while True:
        message = await socket.receive()
        assert message.type == aiohttp.WSMsgType.TEXT, message
        decoded: dict[str, Any] = json.loads(message.data)
        if decoded["channel"] == channel:
            return decoded


async def test_a_stranger_can_subscribe_and_hears_the_market() -> None:
    async with serving() as (server, http), http.ws_connect(server.websocket_url) as socket:
        await socket.send_json({"method": "ping"})
        assert (await frame(socket, "pong"))["data"] >= START_MS
        await socket.send_json({"method": "sub.tickers", "param": {}})
        await socket.send_json({"method": "sub.kline", "param": {"symbol": "BTC_USDT", "interval": "Min1"}})
        assert (await frame(socket, "rs.sub.kline"))["data"] == "success"
        assert len((await frame(socket, "push.tickers"))["data"]) == 10 + 9
        assert (await frame(socket, "push.kline"))["data"]["t"] == START_MS // 1_000


async def test_rest_is_served_under_the_exchanges_paths() -> None:
    async with serving() as (server, http):
        async with http.get(f"{server.rest_url}/api/v1/contract/detail") as answer:
            assert answer.status == 200
            assert len((await answer.json())["data"]) == 10
        url = f"{server.rest_url}/api/v1/contract/kline/BTC_USDT"
        async with http.get(url, params={"interval": "Min1", "end": START_MS // 1_000 - 60}) as answer:
            assert len((await answer.json())["data"]["time"]) == 2_000
        async with http.get(f"{server.rest_url}/ws", allow_redirects=False) as answer:
            assert answer.status == 301


async def test_the_planted_moves_and_the_state_can_be_read() -> None:
    async with serving() as (server, http):
        async with http.get(f"{server.rest_url}/sim/truth") as answer:
            (pump,) = await answer.json()
            assert (pump["symbol"], pump["start_ms"]) == ("BTC_USDT", START_MS + 60_000)
        async with http.ws_connect(server.websocket_url), http.get(f"{server.rest_url}/sim/status") as answer:
            status = await answer.json()
            assert status["contracts"] == 10
            assert status["counters"]["connections"] == len(status["connections"]) == 1


async def test_faults_can_be_changed_while_it_runs() -> None:
    async with serving() as (server, http):
        url = f"{server.rest_url}/sim/faults"
        async with http.post(url, json={"rest_html": 1.0}) as answer:
            assert (answer.status, (await answer.json())["rest_html"]) == (200, 1.0)
        async with http.get(f"{server.rest_url}/api/v1/contract/ping") as answer:
            assert answer.content_type == "text/html"
        async with http.post(url, json={"rest_htlm": 1.0}) as answer:
            assert answer.status == 400
            assert "faults.rest_htlm = 1.0: unknown; known are" in (await answer.json())["error"]
        assert server.exchange.faults.rest_html == 1.0


@pytest.mark.parametrize(
    ("hang_up", "code"),
    [("1001", 1001), ("1005", aiohttp.WSCloseCode.OK), ("abrupt", aiohttp.WSCloseCode.ABNORMAL_CLOSURE)],
)
async def test_a_dropped_connection_ends_as_ordered(hang_up: Any, code: int) -> None:
    async with serving(Faults(drop_hang_up=hang_up)) as (server, http), http.ws_connect(server.websocket_url) as socket:
        server.exchange.schedule(FaultEvent(0, "drop"))
        message = await socket.receive()
        assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
        if hang_up == "1005":
            # The library reports a close frame without a status as 0 or as none at all.
            assert not message.data
        else:
            assert socket.close_code == code
        await asyncio.sleep(0.1)
        assert server.exchange.sessions == []


async def test_a_half_open_line_answers_not_even_protocol_pings() -> None:
    async with serving() as (server, http), http.ws_connect(server.websocket_url, autoping=False) as socket:
        await socket.ping()
        assert (await socket.receive()).type == aiohttp.WSMsgType.PONG
        server.exchange.schedule(FaultEvent(0, "half_open", "all"))
        await asyncio.sleep(0.1)
        await socket.ping()
        await socket.send_json({"method": "ping"})
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await socket.receive()


async def test_compressed_frames_travel_as_binary() -> None:
    async with serving(Faults(gzip=1.0)) as (server, http), http.ws_connect(server.websocket_url) as socket:
        await socket.send_json({"method": "sub.tickers", "param": {}})
        assert (await socket.receive()).type == aiohttp.WSMsgType.TEXT
        message = await socket.receive()
        assert message.type == aiohttp.WSMsgType.BINARY
        assert message.data[:2] == b"\x1f\x8b"


@pytest.mark.parametrize(("refusal", "status"), [("403", 403), ("429", 429)])
async def test_one_connection_too_many_is_refused_at_the_upgrade(refusal: Any, status: int) -> None:
    faults = Faults(max_connections=1, dial_refusal=refusal)
    async with serving(faults) as (server, http), http.ws_connect(server.websocket_url):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(server.websocket_url)
        assert refused.value.status == status


async def test_an_exchange_that_is_down_drops_every_line() -> None:
    async with serving() as (server, http), http.ws_connect(server.websocket_url) as socket:
        server.exchange.schedule(FaultEvent(0, "exchange_down"))
        assert (await socket.receive()).type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
        with pytest.raises(aiohttp.ClientError):
            await http.ws_connect(server.websocket_url)
        with pytest.raises(aiohttp.ClientError):
            await http.get(f"{server.rest_url}/api/v1/contract/ping")


async def test_a_client_that_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_UNREAD_BYTES", 200_000)
    async with serving(contracts=400) as (server, _):
        reader, writer = await asyncio.open_connection(server.host, server.port, limit=1_024)
        writer.write(
            b"GET /edge HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
        (session,) = server.exchange.sessions
        flood = b"x" * 100_000
        while server.exchange.sessions:
            for _ in range(20):
                session.say(flood, server.exchange.now_ms)
            await asyncio.sleep(0.03)
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def test_shutting_down_takes_less_than_a_second_with_clients_connected() -> None:
    async with aiohttp.ClientSession() as http:
        async with asyncio.timeout(TIME_LIMIT_S):
            server = SimulatorServer(build(1, 5, START_MS), Clock.starting_at(START_MS))
            async with server:
                sockets = [await http.ws_connect(server.websocket_url) for _ in range(10)]
                for socket in sockets:
                    await socket.send_json({"method": "sub.tickers", "param": {}})
                await asyncio.sleep(0.1)
                started = time.monotonic()
            assert time.monotonic() - started < 1.0
            for socket in sockets:
                await socket.close()
