"""The whole program against the built-in exchange, over real local sockets, on the very path that live use takes."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from msgspec.structs import replace

from perpwatch.app.bot import Bot, adapter_for
from perpwatch.app.config import Config
from perpwatch.app.engine import Step
from perpwatch.feed.connection import dial_with
from perpwatch.feed.ports import HttpGet
from perpwatch.feed.rest import http_over_network
from perpwatch.model import Batch
from perpwatch.sim import Clock, SimulatedExchange, build, demo_pumps
from perpwatch.sim.server import SimulatorServer

#: When the first move begins: connections are open by then, and the history of the most traded contracts is known.
FIRST_MOVE_MS = 5_000
#: At so many times its ordinary volume, a minute passes the threshold of 10 within 10 s of its beginning.
FIRST_VOLUME_MULTIPLE = 120.0


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the built-in exchange is like."""

    pairs: int = 800
    seed: int = 1
    speed: float = 1.0
    port: int = 0
    activity: float = 3.0  # trades per contract, relative to an ordinary day


def demo_exchange(options: DemoOptions, start_ms: int | None = None) -> SimulatedExchange:
    """A market that begins now, unless told when, with a large move on a much traded contract at once.

    The move is large enough to be a signal within half a minute, also when a minute that ends cuts it in two.
    """
    # Moves are drawn for the symbols of the same market before any trading, because what is planted while a minute runs
    # begins with the next one. Making a market takes seconds, so the first one also tells when the second is ready.
    began_s = time.monotonic()
    drawn_for = build(options.seed, options.pairs, start_ms or int(time.time() * 1_000)).market
    if start_ms is None:
        start_ms = int((time.time() + time.monotonic() - began_s) * 1_000)
    pumps = [replace(pump, start_ms=pump.start_ms - drawn_for.start_ms + start_ms) for pump in demo_pumps(drawn_for)]
    pumps[0] = replace(pumps[0], start_ms=start_ms + FIRST_MOVE_MS, volume_multiple=FIRST_VOLUME_MULTIPLE)
    return build(options.seed, options.pairs, start_ms, pumps=pumps, activity=options.activity)


@contextlib.asynccontextmanager
async def serve_exchange(options: DemoOptions) -> AsyncIterator[SimulatorServer]:
    """The built-in exchange on a local port, in the running loop's time."""
    exchange = demo_exchange(options)
    clock = Clock.starting_at(exchange.market.start_ms)
    async with SimulatorServer(exchange, clock, port=options.port) as server:
        yield server


@contextlib.asynccontextmanager
async def demo_bot(
    config: Config, server: SimulatorServer, on_step: Callable[[Batch, Step], None]
) -> AsyncIterator[tuple[Bot, HttpGet]]:
    """A bot that watches the exchange of ``server``, and its way to HTTP."""
    config = at_addresses(config, server.websocket_url, server.rest_url)
    async with http_over_network() as get:
        yield Bot(config, adapter_for(config), dial_with(), get, server.clock, random.Random().random, on_step), get


def at_addresses(config: Config, websocket_url: str, rest_url: str) -> Config:
    """The same settings for another place."""
    return config.model_copy(
        update={
            "websocket": config.websocket.model_copy(update={"base_url": websocket_url}),
            "rest": config.rest.model_copy(update={"base_url": rest_url}),
        }
    )
