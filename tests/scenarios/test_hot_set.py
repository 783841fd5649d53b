"""The trades of the contract in which something happens are subscribed, and the running watch says what it carries."""

from __future__ import annotations

import asyncio
import random

import pytest

from perpwatch.app.bot import Bot, adapter_for
from perpwatch.app.config import Config
from perpwatch.app.planning import LivePlan, live_plan
from perpwatch.model import MINUTE_MS
from perpwatch.sim import DEFAULT_START_MS, Clock, SimulatedNetwork, build, run_virtual
from perpwatch.sim.market import Pump

#: Room for the tickers, 30 candle streams and 5 trades.
ROOM = {"max_connections": 2, "planned_subscriptions_per_connection": 18, "subscription_types": ["kline_Min1", "deals"]}


def watch(minutes: float, config: Config, pumped: str = "") -> LivePlan:
    async def run() -> LivePlan:
        pump = Pump(DEFAULT_START_MS + 3 * MINUTE_MS, pumped, volume_multiple=90.0)
        exchange = build(3, 30, pumps=[pump] if pumped else [])
        clock = Clock.starting_at(DEFAULT_START_MS)
        plans: list[LivePlan] = []
        async with SimulatedNetwork(exchange, clock, seed=3) as network:
            bot = Bot(config, adapter_for(config), network.dial, network.get, clock, random.Random(3).random)
            bot.on_step = lambda batch, step: plans.append(live_plan(bot)) if step.outcome.closed else None
            await bot.run(minutes * 60)
        return plans[-1]

    return run_virtual(run())


@pytest.fixture(scope="module")
def quiet() -> LivePlan:
    return watch(1.0, Config().with_overrides({"websocket": ROOM}))


def test_what_room_candles_leave_goes_to_trades(quiet: LivePlan) -> None:
    assert len(quiet.hot) == 5
    assert sum(one.wanted for one in quiet.connections) == 36
    assert quiet.polled == []


def test_a_contract_that_begins_to_move_gets_a_place(quiet: LivePlan) -> None:
    pumped = "CHEEMS_USDT"
    assert pumped not in quiet.hot
    plan = watch(7.5, Config().with_overrides({"websocket": ROOM}), pumped)
    assert pumped in plan.hot
    assert len(plan.hot) == 5


def test_a_pinned_contract_has_a_place_whatever_it_trades(quiet: LivePlan) -> None:
    pin = "1000RATS_USDT"
    assert pin not in quiet.hot
    plan = watch(1.0, Config().with_overrides({"websocket": ROOM, "universe": {"pins": [pin]}}))
    assert pin in plan.hot


def test_what_is_pinned_while_the_watch_runs_is_given_a_stream_at_once() -> None:
    room = {"max_connections": 1, "planned_subscriptions_per_connection": 18, "subscription_types": ["kline_Min1"]}
    config = Config().with_overrides({"websocket": room})

    async def run() -> tuple[list[str], list[str], list[str]]:
        clock = Clock.starting_at(DEFAULT_START_MS)
        async with SimulatedNetwork(build(3, 30), clock, seed=3) as network:
            bot = Bot(config, adapter_for(config), network.dial, network.get, clock, random.Random(3).random)
            watching = asyncio.create_task(bot.run(60.0))
            await asyncio.sleep(20.0)
            before = bot.feed.polled
            bot.pin(before[-1])
            pinned = bot.feed.polled
            bot.unpin(before[-1])
            after = bot.feed.polled
            bot.stop()
            await watching
        return before, pinned, after

    before, pinned, after = run_virtual(run())
    assert len(before) == len(pinned) == 13
    assert before[-1] not in pinned
    assert pinned[1:] == before[:-1]
    assert after == before
