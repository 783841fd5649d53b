"""A built-in exchange on a real local port, for tests of clients."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from perpwatch.app.config import Config
from perpwatch.sim import Clock, Faults, SimulatedExchange, SimulatorServer, build


@dataclass(frozen=True, slots=True)
class Local:
    """The exchange, and settings that point to it."""

    exchange: SimulatedExchange
    config: Config


@contextlib.asynccontextmanager
async def local_exchange(pairs: int = 20, faults: Faults | None = None, activity: float = 30.0) -> AsyncIterator[Local]:
    """A lively market that begins now."""
    exchange = build(1, pairs, int(time.time() * 1_000), activity=activity, quiet_share=0.0, faults=faults)
    async with SimulatorServer(exchange, Clock.starting_at(exchange.market.start_ms)) as server:
        overrides = {
            "websocket": {"base_url": server.websocket_url, "commands_per_second": 100, "dials_per_second": 20},
            "rest": {"base_url": server.rest_url, "history_minutes": 60},
        }
        yield Local(exchange, Config().with_overrides(overrides))


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until ``condition`` holds.

    Raises:
        TimeoutError: it never did.
    """
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)
