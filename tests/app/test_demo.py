"""The demonstration: its first signal does not keep people waiting."""

from __future__ import annotations

import random

import pytest

from perpwatch.app.bot import Bot, adapter_for
from perpwatch.app.config import Config
from perpwatch.app.demo import DemoOptions, demo_exchange
from perpwatch.sim import DEFAULT_START_MS, Clock, SimulatedNetwork, run_virtual


@pytest.mark.parametrize("second", [0, 30, 45, 50])
def test_the_first_signal_comes_within_half_a_minute_whenever_the_market_begins(second: int) -> None:
    start_ms = DEFAULT_START_MS + second * 1_000

    async def first_signal_s() -> float:
        exchange = demo_exchange(DemoOptions(pairs=20), start_ms)
        clock = Clock.starting_at(start_ms)
        async with SimulatedNetwork(exchange, clock, seed=1) as network:
            config = Config()
            bot = Bot(config, adapter_for(config), network.dial, network.get, clock, random.Random(1).random)
            await bot.run(29)
        return (bot.signals[0].event_time_ms - start_ms) / 1_000

    # Room for the seconds that a slow machine needs to connect.
    assert run_virtual(first_signal_s()) < 24
