"""The simulated exchange over memory, in virtual time."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from perpwatch.errors import ConnectionFailed, ConnectionLost, RequestFailed
from perpwatch.sim import (
    REST_URL,
    WEBSOCKET_URL,
    Clock,
    FaultEvent,
    Faults,
    MemorySocket,
    SimulatedExchange,
    SimulatedNetwork,
    build,
    run_virtual,
)

PING_URL = f"{REST_URL}/api/v1/contract/ping"


def scene(play: Callable[[SimulatedNetwork], Awaitable[Any]], faults: Faults | None = None, contracts: int = 10) -> Any:
    """Play something with a network in virtual time."""

    async def run() -> Any:
        exchange = build(1, contracts, faults=faults)
        async with SimulatedNetwork(exchange, Clock.starting_at(exchange.market.start_ms)) as network:
            return await play(network)

    return run_virtual(run())


async def listen(socket: MemorySocket, count: int) -> list[dict[str, Any]]:
    frames: list[bytes] = []
    while len(frames) < count:
        frames += await socket.receive()
    return [json.loads(frame) for frame in frames]


def test_a_ping_takes_its_way_there_and_back() -> None:
    async def play(network: SimulatedNetwork) -> tuple[float, int]:
        socket = await network.dial(WEBSOCKET_URL)
        started_s = network.clock.monotonic()
        socket.send(b'{"method":"ping"}')
        (pong,) = await listen(socket, 1)
        return network.clock.monotonic() - started_s, pong["data"] - network.clock.time_ns() // 1_000_000

    took_s, age_ms = scene(play)
    assert 0.04 <= took_s <= 0.16
    assert -80 <= age_ms <= -20


def test_frames_of_a_connection_stay_in_order() -> None:
    async def play(network: SimulatedNetwork) -> list[int]:
        socket = await network.dial(WEBSOCKET_URL)
        socket.send(b'{"method":"sub.deal","param":{"symbol":"BTC_USDT"}}')
        socket.send(b'{"method":"sub.kline","param":{"symbol":"BTC_USDT","interval":"Min1"}}')
        return [frame["ts"] for frame in await listen(socket, 300)]

    stamps = scene(play)
    assert all(before <= after for before, after in itertools.pairwise(stamps))


def test_commands_reach_the_exchange_in_order() -> None:
    async def play(network: SimulatedNetwork) -> list[str]:
        socket = await network.dial(WEBSOCKET_URL)
        for number in range(50):
            socket.send(b'{"method":"sub.deal","param":{"symbol":"N%d_USDT"}}' % number)
        return [frame["data"] for frame in await listen(socket, 50)]

    assert scene(play) == [f"Contract [N{number}_USDT] not exists" for number in range(50)]


@pytest.mark.parametrize(("kind", "code"), [("drop", 1001), ("drop_abrupt", 1006)])
def test_what_came_before_the_end_is_delivered_before_it(kind: Any, code: int) -> None:
    async def play(network: SimulatedNetwork) -> tuple[int, int]:
        socket = await network.dial(WEBSOCKET_URL)
        socket.send(b'{"method":"sub.deal","param":{"symbol":"BTC_USDT"}}')
        network.exchange.schedule(FaultEvent(network.exchange.market.start_ms + 10_000, kind))
        await asyncio.sleep(20)
        frames = await socket.receive()
        with pytest.raises(ConnectionLost) as lost:
            await socket.receive()
        with pytest.raises(ConnectionLost):
            await socket.receive()
        socket.send(b"into the void")
        return len(frames), lost.value.code

    count, seen = scene(play)
    assert count > 10
    assert seen == code


def test_a_waiting_receive_hears_of_the_end() -> None:
    async def play(network: SimulatedNetwork) -> float:
        socket = await network.dial(WEBSOCKET_URL)
        started_s = network.clock.monotonic()
        assert (await socket.receive())[0].startswith(b'{"channel":"rs.error"')
        with pytest.raises(ConnectionLost):
            await socket.receive()
        return network.clock.monotonic() - started_s

    assert 60 <= scene(play) <= 62


def test_a_closed_socket_is_forgotten_by_the_exchange() -> None:
    async def play(network: SimulatedNetwork) -> tuple[int, int]:
        socket = await network.dial(WEBSOCKET_URL)
        before = len(network.exchange.sessions)
        await socket.close()
        await socket.close()
        await asyncio.sleep(1)
        with pytest.raises(ConnectionLost):
            await socket.receive()
        return before, len(network.exchange.sessions)

    assert scene(play) == (1, 0)


def test_dials_and_requests_are_refused_while_the_exchange_is_down() -> None:
    async def play(network: SimulatedNetwork) -> int:
        network.exchange.schedule(FaultEvent(0, "exchange_down", duration_ms=5_000))
        await asyncio.sleep(1)
        with pytest.raises(ConnectionFailed):
            await network.dial(WEBSOCKET_URL)
        with pytest.raises(RequestFailed):
            await network.get(PING_URL, {})
        await asyncio.sleep(5)
        await network.dial(WEBSOCKET_URL)
        return (await network.get(PING_URL, {})).status

    assert scene(play) == 200


def test_a_refused_dial_tells_its_status() -> None:
    async def play(network: SimulatedNetwork) -> int | None:
        await network.dial(WEBSOCKET_URL)
        with pytest.raises(ConnectionFailed) as refused:
            await network.dial(WEBSOCKET_URL)
        return refused.value.status

    assert scene(play, Faults(max_connections=1)) == 429


def test_a_request_is_answered_with_status_headers_and_body() -> None:
    async def play(network: SimulatedNetwork) -> Any:
        return await network.get(f"{REST_URL}/api/v1/contract/kline/BTC_USDT", {"interval": "Min1", "end": 5})

    answer = scene(play)
    assert (answer.status, answer.headers["content-type"][:16]) == (200, "application/json")
    assert json.loads(answer.body)["data"]["time"] == []


def test_a_request_that_is_never_answered_waits_for_the_caller_to_give_up() -> None:
    async def play(network: SimulatedNetwork) -> float:
        started_s = network.clock.monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30):
                await network.get(PING_URL, {})
        return network.clock.monotonic() - started_s

    assert scene(play, Faults(rest_timeout=1.0)) == pytest.approx(30)


def test_leaving_the_network_stops_it() -> None:
    async def play() -> int:
        exchange: SimulatedExchange = build(1, 3)
        async with SimulatedNetwork(exchange, Clock.starting_at(exchange.market.start_ms)):
            await asyncio.sleep(10)
        stopped_ms = exchange.now_ms
        await asyncio.sleep(10)
        return exchange.now_ms - stopped_ms + len(asyncio.all_tasks()) - 1

    assert run_virtual(play()) == 0


def test_ten_minutes_of_a_busy_market_are_the_same_every_time_and_soon_over() -> None:
    async def play(network: SimulatedNetwork) -> str:
        digest = hashlib.sha256()

        async def watch(symbols: list[str]) -> None:
            socket = await network.dial(WEBSOCKET_URL)
            for symbol in symbols:
                socket.send(b'{"method":"sub.kline","param":{"symbol":"%s","interval":"Min1"}}' % symbol.encode())
            ping_s = 0.0
            while network.clock.monotonic() < 600:
                if network.clock.monotonic() >= ping_s:
                    socket.send(b'{"method":"ping"}')
                    ping_s = network.clock.monotonic() + 15
                for frame in await socket.receive():
                    digest.update(frame)

        symbols = network.exchange.market.symbols
        async with asyncio.TaskGroup() as group:
            for start in range(0, len(symbols), 50):
                group.create_task(watch(symbols[start : start + 50]))
        return digest.hexdigest()

    faults = Faults(duplicate=0.01, reorder=0.01, malformed=0.01)
    started = time.process_time()
    assert scene(play, faults, contracts=150) == scene(play, faults, contracts=150)
    assert time.process_time() - started < 20
