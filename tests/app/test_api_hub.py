"""The table of the market as its readers have it, whole at first and then what changed; and our own mistakes."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
from fastapi import FastAPI
from watched_bots import run_watched

from perpwatch.app import api_market, freshness
from perpwatch.app.api import create_api
from perpwatch.app.api_hub import Hub
from perpwatch.app.api_market import MarketTable
from perpwatch.app.api_security import Access
from perpwatch.app.bot import Bot, adapter_for
from perpwatch.app.config import Config
from perpwatch.app.health import Monitor, watch_over
from perpwatch.app.health_config import HealthConfig
from perpwatch.sim import DEFAULT_START_MS, Clock, SimulatedNetwork, build, run_virtual

READERS = 40


class Reader:
    """Keeps a table of its own, as a page does."""

    def __init__(self, hub: Hub) -> None:
        self.rows: dict[str, Any] = {}
        self.differences = self.messages = 0
        self._table = hub.table
        self._take(hub.market_now().body)
        self._subscriber = hub.market.subscribe()

    def _take(self, body: bytes) -> None:
        message = msgspec.json.decode(body)
        if message["type"] == "whole":
            self.rows.clear()
        self.rows |= {row[0]: row for row in message["rows"]}
        for symbol in message["gone"]:
            del self.rows[symbol]
        self.messages += 1

    async def read(self) -> None:
        async for message in self._subscriber:
            self._take(message.body)
            self.differences += self.rows != msgspec.to_builtins(self._table.rows)


def test_whoever_joins_while_the_table_is_made_has_the_same_as_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_market, "SLICE", 3)
    monkeypatch.setattr(freshness, "SLICE", 3)

    async def run() -> list[Reader]:
        clock = Clock.starting_at(DEFAULT_START_MS)
        config = Config().with_overrides({"rest": {"history_minutes": 60}})
        async with SimulatedNetwork(build(5, 40, activity=3.0), clock, seed=5) as network:
            bot = Bot(config, adapter_for(config), network.dial, network.get, clock, random.Random(5).random)
            async with (
                watch_over(bot, HealthConfig(enabled=False), network.get) as monitor,
                asyncio.TaskGroup() as tasks,
            ):
                hub = Hub(bot, monitor, "a test", None, tick_s=1.0, max_clients=2 * READERS)
                watching = tasks.create_task(bot.run(50.0))
                ticking = tasks.create_task(hub.run())
                readers: list[Reader] = []
                for number in range(READERS):
                    await asyncio.sleep(1.0)  # when the table is made, whose slices take no time in this world
                    for pause in (number, 100):  # one somewhere within, one after it is made
                        for _ in range(pause):
                            await asyncio.sleep(0)
                        readers.append(Reader(hub))
                        tasks.create_task(readers[-1].read())
                await watching
                ticking.cancel()
                await asyncio.sleep(0.1)
                hub.market.close("the test ends")
                return readers

    readers = run_virtual(run())
    assert len(readers[0].rows) > 30
    assert [reader.differences for reader in readers] == [0] * 2 * READERS
    assert all(reader.rows == readers[0].rows for reader in readers)
    assert readers[0].messages > 40


def test_while_nobody_looks_no_picture_is_made_and_whoever_looks_has_a_new_one() -> None:
    made: dict[str, list[int]] = {"nobody": [], "a reader": [], "a question": []}

    async def visit(monitor: Monitor) -> None:
        bot = monitor.metrics.bot
        hub = Hub(bot, monitor, "a test", None, tick_s=1.0, max_clients=1)
        ticking = asyncio.create_task(hub.run())

        async def wait(who: str, seconds: int) -> None:
            for _ in range(seconds):
                await asyncio.sleep(1.0)
                made[who].append(hub.table.updated_ms)

        await asyncio.sleep(120.5)
        await wait("nobody", 120)
        reader = hub.pulse.subscribe()
        await wait("a reader", 30)
        hub.pulse.unsubscribe(reader)
        for _ in range(5):
            await asyncio.sleep(7.0)
            before, old = bot.engine.now_ms, hub.freshness()
            await asyncio.gather(*(hub.look() for _ in range(3)))
            made["a question"].append(hub.table.updated_ms - before)
            assert hub.freshness() is not old
            fresh = MarketTable(bot)
            fresh.update()
            assert [row.price for row in hub.table.rows.values()] == [row.price for row in fresh.rows.values()]
        ticking.cancel()

    run_watched(6.0, contracts=15, visitor=visit)
    assert set(made["nobody"]) == {0}
    assert len(set(made["a reader"])) >= 29
    assert made["a question"] == [0] * 5


@contextlib.asynccontextmanager
async def api_of_a_watch() -> AsyncIterator[FastAPI]:
    clock = Clock.starting_at(DEFAULT_START_MS)
    config = Config()
    async with SimulatedNetwork(build(1, 5), clock, seed=1) as network:
        bot = Bot(config, adapter_for(config), network.dial, network.get, clock, random.Random(1).random)
        async with watch_over(bot, HealthConfig(enabled=False), network.get) as monitor:
            hub = Hub(bot, monitor, "a test", None, tick_s=1.0, max_clients=1)
            yield create_api(hub, Access(config.dashboard, clock.monotonic))


async def test_a_contract_may_have_a_slash_in_its_name() -> None:
    async with api_of_a_watch() as api:
        transport = httpx.ASGITransport(api)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1/api/v1") as client:
            looks = [await client.get(f"/symbols/A%2FB{part}") for part in ("", "/candles", "/trades")]
            act = await client.post("/actions/symbols/A%2FB/pin")
            nameless = await client.get("/symbols/")
            paths = (await client.get("/openapi.json")).json()["paths"]
    assert [one.json()["detail"].partition(" is ")[0] for one in looks] == ["A/B"] * 3
    assert "'A/B'" in act.json()["detail"]
    assert nameless.status_code == 422
    assert "/api/v1/symbols/{symbol}/candles" in paths


async def test_a_mistake_of_ours_is_a_problem_that_gives_nothing_away() -> None:
    async with api_of_a_watch() as api:

        @api.get("/api/v1/mistake")
        async def mistake() -> None:
            raise RuntimeError("a secret")

        transport = httpx.ASGITransport(api, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            answer = await client.get("/api/v1/mistake")
    assert (answer.status_code, answer.headers["Content-Type"]) == (500, "application/problem+json")
    assert "secret" not in answer.text
    assert answer.json()["detail"]
