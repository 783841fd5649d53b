"""The exchange or the bot as a process of its own, in a market that goes on while they are dead.

    python mortal.py exchange|bot PORT START_MS BEGAN_S SPEED [STORE]

Market time is START_MS plus SPEED times the wall seconds since BEGAN_S, whoever is alive.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from pathlib import Path

from perpwatch.app.bot import Bot, adapter_for
from perpwatch.app.config import Config
from perpwatch.app.kept import kept
from perpwatch.app.store_config import StoreConfig
from perpwatch.feed.connection import dial_with
from perpwatch.feed.rest import http_over_network
from perpwatch.sim import Clock, SimulatedExchange, build, run_scaled
from perpwatch.sim.server import SimulatorServer

SEED, CONTRACTS = 9, 30


def make_exchange(start_ms: int) -> SimulatedExchange:
    return build(SEED, CONTRACTS, start_ms, activity=5.0)


def market_ms(start_ms: int, began_s: float, speed: float) -> int:
    return start_ms + int((time.time() - began_s) * speed * 1_000)


async def be_exchange(port: int, start_ms: int, began_s: float, speed: float) -> None:
    exchange = make_exchange(start_ms)
    exchange.advance(market_ms(start_ms, began_s, speed))
    clock = Clock.starting_at(market_ms(start_ms, began_s, speed))
    async with SimulatorServer(exchange, clock, port=port):
        print("up", flush=True)
        await asyncio.get_running_loop().create_future()


async def be_bot(port: int, start_ms: int, began_s: float, speed: float, store: Path) -> None:
    clock = Clock.starting_at(market_ms(start_ms, began_s, speed))
    config = Config().with_overrides(
        {
            "websocket": {"base_url": f"ws://127.0.0.1:{port}/edge", "planned_subscriptions_per_connection": 12},
            "rest": {"base_url": f"http://127.0.0.1:{port}", "history_minutes": 120, "requests_per_second": 10},
        }
    )
    async with http_over_network() as get:
        bot = Bot(config, adapter_for(config), dial_with(), get, clock, random.Random().random)
        async with kept(bot, StoreConfig(url=f"sqlite:///{store}"), None):
            print("up", flush=True)
            await bot.run()


def main() -> None:
    part, port, start_ms, began_s, speed = sys.argv[1], *sys.argv[2:6]
    when = int(port), int(start_ms), float(began_s), float(speed)
    if part == "exchange":
        run_scaled(be_exchange(*when), float(speed))
    else:
        run_scaled(be_bot(*when, Path(sys.argv[6])), float(speed))


if __name__ == "__main__":
    main()
