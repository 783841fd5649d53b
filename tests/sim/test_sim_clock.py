"""Market time: virtual and scaled loops, and the clock on them."""

from __future__ import annotations

import asyncio
import socket
import time

import aiohttp
import picows
import pytest

from perpwatch.sim import Clock, SimulatorServer, VirtualTimeLoop, build, run_scaled, run_virtual


def test_an_hour_of_waiting_takes_no_time() -> None:
    async def wait() -> float:
        await asyncio.sleep(3_600)
        return asyncio.get_running_loop().time()

    started = time.monotonic()
    assert run_virtual(wait()) == pytest.approx(3_600)
    assert time.monotonic() - started < 0.2


def test_timers_fire_in_the_order_of_their_times() -> None:
    async def scene() -> list[tuple[float, str]]:
        loop, seen = asyncio.get_running_loop(), list[tuple[float, str]]()

        async def say(after_s: float, word: str) -> None:
            await asyncio.sleep(after_s)
            seen.append((loop.time(), word))

        async with asyncio.TaskGroup() as group:
            for after_s, word in ((30.0, "c"), (10.0, "a"), (20.0, "b")):
                group.create_task(say(after_s, word))
        return seen

    assert run_virtual(scene()) == [(10.0, "a"), (20.0, "b"), (30.0, "c")]


def test_timeouts_follow_virtual_time() -> None:
    async def scene() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time()

    assert run_virtual(scene()) == pytest.approx(5.0)


def test_a_deadlock_is_reported_at_once() -> None:
    async def wait_for_ever() -> None:
        await asyncio.Event().wait()

    loop = VirtualTimeLoop()
    task = loop.create_task(wait_for_ever())
    with pytest.raises(RuntimeError, match="deadlock"):
        loop.run_until_complete(task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()


def test_the_clock_shows_market_time_in_seconds_and_nanoseconds() -> None:
    async def scene() -> tuple[int, float, int]:
        await asyncio.sleep(7)
        clock = Clock.starting_at(1_000_000)
        before_s = clock.monotonic()
        await asyncio.sleep(2.5)
        return clock.time_ns(), clock.monotonic() - before_s, round(clock.speed)

    assert run_virtual(scene()) == (1_002_500_000_000, 2.5, 1)


def test_a_scaled_loop_waits_a_fraction_of_the_time() -> None:
    async def scene() -> tuple[float, float]:
        clock = Clock.starting_at(0)
        await asyncio.sleep(5)
        return clock.time_ns() / 1e9, clock.speed

    started = time.monotonic()
    market_s, speed = run_scaled(scene(), speed=100)
    assert 0.05 <= time.monotonic() - started < 0.2
    assert 5.0 <= market_s < 20.0
    assert speed == 100


def test_a_speed_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="speed = 0"):
        run_scaled(asyncio.sleep(1), speed=0)


class _Listener(picows.WSListener):
    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.pong = asyncio.Event()

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        payload = frame.get_payload_as_bytes()
        self.frames.append(payload)
        if b'"pong"' in payload:
            self.pong.set()


def test_picows_and_aiohttp_work_in_scaled_time() -> None:
    async def scene() -> tuple[int, bytes, float]:
        clock = Clock.starting_at(1_791_201_600_000)
        async with asyncio.timeout(200), SimulatorServer(build(1, 5), clock) as server:
            listener = _Listener()
            transport, _ = await picows.ws_connect(lambda: listener, server.websocket_url)
            transport.send(picows.WSMsgType.TEXT, b'{"method":"ping"}')
            await listener.pong.wait()
            async with aiohttp.ClientSession() as http, http.get(f"{server.rest_url}/api/v1/contract/ping") as answer:
                status = answer.status
            transport.disconnect()
            await transport.wait_disconnected()
            return status, listener.frames[0], clock.time_ns() / 1e9

    status, pong, market_s = run_scaled(scene(), speed=20)
    assert status == 200
    assert pong.startswith(b'{"channel":"pong","data":17912016')
    assert market_s > 1_791_201_600


def test_real_sockets_have_no_place_in_virtual_time() -> None:
    async def scene() -> None:
        server = socket.create_server(("127.0.0.1", 0))
        server.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_accept(server)
        finally:
            server.close()

    with _ClosedInTheEnd() as loop, pytest.raises(RuntimeError, match="deadlock"):
        loop.run_until_complete(scene())


class _ClosedInTheEnd:
    """A loop that is closed whatever its tasks were waiting for."""

    def __enter__(self) -> VirtualTimeLoop:
        self.loop = VirtualTimeLoop()
        return self.loop

    def __exit__(self, *_: object) -> None:
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
            self.loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        self.loop.close()
