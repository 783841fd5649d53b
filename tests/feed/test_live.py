"""The exchange as one iterator, over the simulated one in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from perpwatch import sim
from perpwatch.errors import ConnectionFailed
from perpwatch.exchanges.mexc import MexcFutures
from perpwatch.exchanges.mexc.limits import LIMITS
from perpwatch.feed.connection import Retries
from perpwatch.feed.live import FeedSettings, LiveFeed
from perpwatch.feed.plan import Mode, parse_wish
from perpwatch.feed.rest import Priority
from perpwatch.market.universe import turnovers
from perpwatch.model import MINUTE_MS, Batch, CandleHistory, CandleUpdate, Contract, Kind, Stream, StreamUp, Tickers

START_MS = sim.DEFAULT_START_MS


class Scene:
    def __init__(self, faults: dict[str, Any], per_connection: int, retries: Retries, mode: Mode) -> None:
        self.exchange = sim.build(3, 30, faults=sim.Faults(**faults))
        self.clock = sim.Clock.starting_at(START_MS)
        self.network = sim.SimulatedNetwork(self.exchange, self.clock, seed=3)
        limits = replace(LIMITS, max_connections=2)
        self.feed = LiveFeed(
            MexcFutures(limits=limits),
            FeedSettings(
                sim.WEBSOCKET_URL,
                sim.REST_URL,
                limits,
                per_connection,
                [parse_wish("ticker"), parse_wish("kline_Min1")],
                mode,
                retries,
            ),
            self.network.dial,
            self.network.get,
            self.clock,
            Random(3).random,
        )
        self.batches: list[Batch] = []
        self.contracts: Sequence[Contract] = ()

    async def watch_all(self) -> None:
        self.contracts, tickers = await self.feed.load_market()
        self.feed.watch(self.contracts, turnovers(self.contracts, tickers))

    def read_history(self, contracts: Sequence[Contract]) -> None:
        for contract in contracts:
            self.feed.read(contract.symbol, START_MS - 60 * MINUTE_MS, START_MS, Priority.HISTORY)

    async def listen(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                async for batch in self.feed:
                    self.batches.append(batch)
        except TimeoutError:
            pass

    def heard(self, kind: type[Any]) -> list[Any]:
        return [event for batch in self.batches for event in batch.events if isinstance(event, kind)]


def play(
    story: Callable[[Scene], Awaitable[None]],
    *,
    faults: dict[str, Any] | None = None,
    per_connection: int = 95,
    retries: Retries | None = None,
    mode: Mode = Mode.DUAL,
) -> None:
    async def main() -> None:
        scene = Scene(faults or {}, per_connection, retries or Retries(), mode)
        async with scene.network:
            async with scene.feed:
                await story(scene)
            assert len(asyncio.all_tasks()) == 2  # this one and the exchange

    sim.run_virtual(main())


def test_sockets_and_history_come_out_of_one_iterator() -> None:
    async def story(scene: Scene) -> None:
        await scene.watch_all()
        symbol = scene.contracts[0].symbol
        scene.feed.read(symbol, START_MS - 10 * MINUTE_MS, START_MS, Priority.HISTORY)
        scene.feed.read(symbol, START_MS - 20 * MINUTE_MS, START_MS - 15 * MINUTE_MS, Priority.HISTORY)
        scene.feed.read("NOPE_USDT", 0, 1, Priority.HISTORY)
        await scene.listen(20)
        assert len(scene.heard(StreamUp)) == 32
        assert scene.heard(CandleUpdate) != []
        assert scene.heard(Tickers) != []
        histories = scene.heard(CandleHistory)
        assert [(one.symbol, one.complete_from_ms) for one in histories] == [(symbol, START_MS - 20 * MINUTE_MS)]
        assert START_MS <= histories[0].complete_to_ms <= scene.feed.now_ms()
        assert abs(scene.feed.now_ms() - scene.exchange.now_ms) < 200
        assert scene.feed.reads_waiting == 0

    play(story)


def test_what_has_no_room_on_the_sockets_is_polled() -> None:
    async def story(scene: Scene) -> None:
        await scene.watch_all()
        scene.read_history(scene.contracts)
        await scene.listen(30)
        scene.batches.clear()
        await scene.listen(60)
        polled = {history.symbol for history in scene.heard(CandleHistory)}
        assert len(polled) == 11
        assert polled == set(scene.feed.polled) == set(scene.feed.service.polled)

    play(story, per_connection=10)


def test_without_sockets_everything_is_polled() -> None:
    async def story(scene: Scene) -> None:
        await scene.watch_all()
        scene.read_history(scene.contracts)
        await scene.listen(30)
        scene.batches.clear()
        await scene.listen(90)
        assert {batch.source for batch in scene.batches} == {"rest"}
        assert {history.symbol for history in scene.heard(CandleHistory)} == {one.symbol for one in scene.contracts}

    play(story, mode=Mode.REST)


def test_a_symbol_whose_stream_is_refused_is_polled() -> None:
    async def story(scene: Scene) -> None:
        await scene.watch_all()
        ghost = replace(scene.contracts[0], symbol="GHOST_USDT")
        scene.feed.watch([*scene.contracts, ghost], {})
        scene.read_history([ghost])
        await scene.listen(30)
        assert scene.feed.polled == ["GHOST_USDT"]
        assert "GHOST_USDT" in scene.feed.given_up  # REST does not have it either
        scene.feed.watch(scene.contracts, {})
        assert (scene.feed.polled, scene.feed.given_up) == ([], {})

    play(story)


def test_the_market_is_loaded_however_long_it_takes() -> None:
    async def story(scene: Scene) -> None:
        await scene.watch_all()
        assert len(scene.contracts) == 30

    play(story, faults={"rest_510": 0.3, "rest_html": 0.2, "rest_truncated": 0.2})


def test_reads_that_fail_are_tried_again_and_none_is_lost() -> None:
    async def story(scene: Scene) -> None:
        await scene.watch_all()
        for contract in scene.contracts:
            scene.feed.read(contract.symbol, START_MS - 5 * MINUTE_MS, START_MS, Priority.HISTORY)
        await scene.listen(600)
        assert {one.symbol for one in scene.heard(CandleHistory)} == {one.symbol for one in scene.contracts}
        assert scene.feed.given_up == {}

    play(story, faults={"rest_510": 0.05, "rest_empty": 0.1, "rest_timeout": 0.05})


def test_a_limit_that_was_learned_shifts_the_rest_to_polling() -> None:
    async def story(scene: Scene) -> None:
        await scene.watch_all()
        await scene.listen(120)
        assert scene.feed.pool.per_connection == 12
        assert len(scene.feed.service.rates) == 24
        assert len(scene.feed.polled) == 7

    play(story, faults={"max_subscriptions": 12})


def test_healing_asks_for_the_stream_again() -> None:
    async def story(scene: Scene) -> None:
        await scene.watch_all()
        await scene.listen(15)
        scene.batches.clear()
        scene.feed.heal(Stream(Kind.TICKERS))
        await scene.listen(2)
        assert [event.stream for event in scene.heard(StreamUp)] == [Stream(Kind.TICKERS)]

    play(story)


def test_when_attempts_are_limited_the_iterator_ends_and_says_why() -> None:
    async def story(scene: Scene) -> None:
        await scene.watch_all()
        await scene.listen(5)
        scene.exchange.schedule(sim.FaultEvent(scene.exchange.now_ms, "exchange_down"))
        with pytest.raises(ExceptionGroup) as caught:
            await scene.listen(60)
        assert caught.group_contains(ConnectionFailed)

    play(story, retries=Retries(max_attempts=3))
