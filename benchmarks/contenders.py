"""Contenders that run in perpwatch's own environment: ``python contenders.py NAME PORT SYMBOLS CORE [MINUTES]``.

The last is how much history perpwatch reads at its start.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import random
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec
import picows
import uvloop
from contender import Stopwatch, listen, listen_for_ever, pin
from flood import names

from perpwatch.app.bot import Bot, adapter_for
from perpwatch.app.config import Config
from perpwatch.app.engine import Step
from perpwatch.app.health import watch_over
from perpwatch.app.kept import kept
from perpwatch.app.memory import tended
from perpwatch.app.watch_cli import pages_of
from perpwatch.feed.connection import HELD_BYTES, READ_BYTES, SystemClock, dial_with
from perpwatch.feed.rest import http_over_network
from perpwatch.model import Batch, Timeframe

#: As many streams as perpwatch puts on a connection.
A_CONNECTION = 95
#: All histories are stored within this time.
STORED_WITHIN_S = 300.0
#: Work of the writer's thread after the last frame counts for so long.
SETTLE_S = 0.5


def commands(symbols: list[str]) -> list[bytes]:
    return [
        json.dumps({"method": "sub.kline", "param": {"symbol": one, "interval": "Min1"}}).encode() for one in symbols
    ]


def shares(symbols: list[str]) -> list[list[str]]:
    return [symbols[first : first + A_CONNECTION] for first in range(0, len(symbols), A_CONNECTION)]


# --- Nothing but bytes ---------------------------------------------------------------------------------------------


def sink(port: int, symbols: list[str]) -> None:
    """Reads bytes off one socket and throws them away: what the flood can do at most."""
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(
        b"GET /sink HTTP/1.1\r\nHost: flood\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    for command in commands(symbols):
        client.sendall(bytes((0x81, 0x80 | len(command), 0, 0, 0, 0)) + command)
    watch = Stopwatch()
    goal = [0, 0]
    is_wanted = threading.Event()

    def take(frames: int, size: int) -> None:
        watch.expect(frames)
        goal[:] = frames, size
        is_wanted.set()

    client.settimeout(0.5)
    try:
        while client.recv(65_536):  # acknowledgements
            pass
    except TimeoutError:
        client.settimeout(None)
    listen(take)
    place = memoryview(bytearray(1 << 20))
    while True:
        is_wanted.wait()
        is_wanted.clear()
        left = goal[1]
        while left > 0:
            left -= client.recv_into(place)
            if left > 0:
                watch.count(0)
        watch.count(goal[0])


# --- Receiving and decoding ----------------------------------------------------------------------------------------


class Interval(StrEnum):
    Min1 = "Min1"


class Kline(msgspec.Struct, gc=False):
    """The fields that perpwatch uses, without its checks."""

    symbol: str
    interval: Interval
    t: int
    o: float
    h: float
    l: float  # noqa: E741
    c: float
    q: float
    a: float
    ro: float | None = None
    rh: float | None = None
    rl: float | None = None
    rc: float | None = None


class Ticker(msgspec.Struct, gc=False):
    symbol: str
    lastPrice: float
    fairPrice: float | None = None
    indexPrice: float | None = None
    volume24: float | None = None
    amount24: float | None = None
    riseFallRate: float | None = None
    high24Price: float | None = None
    lower24Price: float | None = None
    bid1: float | None = None
    ask1: float | None = None
    holdVol: float | None = None
    fundingRate: float | None = None
    timestamp: int = 0


class Deal(msgspec.Struct, gc=False):
    p: float
    v: float
    T: int
    t: int
    i: str


class PushKline(msgspec.Struct, tag_field="channel", tag="push.kline", gc=False):
    data: Kline
    ts: int


class PushTicker(msgspec.Struct, tag_field="channel", tag="push.ticker", gc=False):
    data: Ticker
    ts: int


class PushDeal(msgspec.Struct, tag_field="channel", tag="push.deal", gc=False):
    symbol: str
    data: list[Deal]
    ts: int


class Answer(msgspec.Struct, tag_field="channel", tag="rs.sub.kline", gc=False):
    data: str


class _Counting(picows.WSListener):
    """Receives with picows as perpwatch does, and decodes where told to."""

    def __init__(self, watch: Stopwatch, decode: Callable[[bytes], object] | None) -> None:
        self._watch = watch
        self._decode = decode

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        line = transport.underlying_transport.get_extra_info("socket")
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, HELD_BYTES)

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        payload = frame.get_payload_as_bytes()
        if self._decode is not None:
            self._decode(payload)
        if self._watch.left:
            self._watch.count()


async def _count(port: int, tag: str, symbols: list[str], decode: Callable[[bytes], object] | None) -> None:
    watch = Stopwatch()
    for share in shares(symbols):
        transport, _ = await picows.ws_connect(
            lambda: _Counting(watch, decode), f"ws://127.0.0.1:{port}/{tag}", read_buffer_init_size=READ_BYTES
        )
        for command in commands(share):
            transport.send(picows.WSMsgType.TEXT, command)
    await asyncio.sleep(0.5)
    await listen_for_ever(lambda frames, size: watch.expect(frames))


async def picows_only(port: int, symbols: list[str]) -> None:
    await _count(port, "picows_only", symbols, None)


async def bare(port: int, symbols: list[str]) -> None:
    """Receive and decode, every field that perpwatch uses, and nothing else."""
    decode = msgspec.json.Decoder(PushKline | PushTicker | PushDeal | Answer).decode
    await _count(port, "bare", symbols, decode)


# --- perpwatch -----------------------------------------------------------------------------------------------------


def flood_config(port: int, symbols: int, folder: str, **overrides: Any) -> Config:
    """Default settings, for an exchange without limits."""
    table: dict[str, Any] = {
        "websocket": {
            "base_url": f"ws://127.0.0.1:{port}/perpwatch",
            "max_connections": max(10, symbols // 90 + 2),
            "commands_per_second": 10_000.0,
            "dials_per_second": 100.0,
        },
        "rest": {"base_url": f"http://127.0.0.1:{port}", "requests_per_second": 1_000.0, "audit_share": 0.0},
        "store": {"url": f"sqlite:///{Path(folder) / 'flood.db'}"},
        "health": {"port": 0},
        "dashboard": {"port": 0},
    }
    return Config().with_overrides(table).with_overrides(overrides)


def rss_mb() -> float:
    """What this process holds in memory, in MB of 10^6 bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class Heard:
    """When signals of running minutes were handed over, and for how long the garbage collector held everything."""

    def __init__(self) -> None:
        self.signals: list[tuple[str, int, int]] = []  # symbol, the push's time in ms, monotonic time in ns
        self.pauses_ms: list[tuple[int, float]] = []  # generation, milliseconds
        self._began_s = 0.0
        gc.callbacks.append(self._collect)

    def take(self, step: Step) -> None:
        for signal in step.signals:
            if signal.timeframe is Timeframe.Min1 and signal.is_running:
                self.signals.append((signal.symbol, signal.event_time_ms, time.monotonic_ns()))

    def _collect(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began_s = time.perf_counter()
        else:
            self.pauses_ms.append((info["generation"], (time.perf_counter() - self._began_s) * 1e3))

    def told(self) -> dict[str, object]:
        """All since the last time."""
        signals, self.signals = self.signals, []
        pauses_ms, self.pauses_ms = self.pauses_ms, []
        return {"signals": signals, "pauses_ms": pauses_ms, "cpu_s": time.process_time()}


async def perpwatch(port: int, symbols: list[str]) -> None:
    """All of it: candles of four timeframes, ledger, default detection, metrics, store, health, API and pages."""
    watch, heard = Stopwatch(SETTLE_S), Heard()
    with tempfile.TemporaryDirectory() as folder:
        config = flood_config(port, len(symbols), folder)
        if len(sys.argv) > 5:
            config = config.with_overrides({"rest": {"history_minutes": int(sys.argv[5])}})
        adapter = adapter_for(config)

        def on_step(batch: Batch, step: Step) -> None:
            if watch.left:
                watch.count(len(batch.events))
            if step.signals:
                heard.take(step)

        async with http_over_network() as get:
            bot = Bot(config, adapter, dial_with(), get, SystemClock(), random.Random(1).random, on_step)
            async with (
                kept(bot, config.store, None) as keeper,
                watch_over(bot, config.health, get) as monitor,
                pages_of(bot, monitor, config, "flood") as address,
                tended(bot),
            ):
                running = asyncio.create_task(bot.run())
                while len(bot.engine.warm) < len(symbols) or bot.engine.coverage() < 1.0:
                    if running.done():
                        running.result()
                    await asyncio.sleep(0.1)
                # What was read is stored before the first flood, which would pay for it.
                assert keeper is not None
                keeper.finish()
                assert await keeper.writer.flush(STORED_WITHIN_S)
                await asyncio.sleep(2.0)
                watch.extra = lambda: {
                    "pushes": bot.engine.book.counters.pushes,
                    "signals": bot.engine.signals,
                    "lost": len(bot.engine.repairs),
                    "rss_mb": rss_mb(),
                }
                await listen_for_ever(
                    lambda frames, size: watch.expect(frames), lambda: {"address": address} | heard.told()
                )


COROUTINES = {"bare": bare, "picows_only": picows_only, "perpwatch": perpwatch}


def main() -> None:
    name, port, count, core = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    pin(core)
    logging.basicConfig(level=logging.ERROR)
    if name == "sink":
        sink(port, names(count))
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(COROUTINES[name](port, names(count)))


if __name__ == "__main__":
    main()
