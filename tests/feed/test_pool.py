"""The pool over the simulated exchange, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from perpwatch import sim
from perpwatch.exchanges.mexc import MexcFutures
from perpwatch.exchanges.mexc.limits import LIMITS
from perpwatch.feed.connection import Retries, State
from perpwatch.feed.outbox import Turns
from perpwatch.feed.pool import Pool
from perpwatch.model import Batch, Gap, Kind, Stream, StreamUp, stream_of_candles


class Scene:
    """A pool, the exchange it talks to, and what the pool said about its streams."""

    def __init__(self, faults: dict[str, Any], limits: dict[str, Any], contracts: int, per_connection: int) -> None:
        self.exchange = sim.build(5, contracts, faults=sim.Faults(**faults))
        self.clock = sim.Clock.starting_at(sim.DEFAULT_START_MS)
        self.network = sim.SimulatedNetwork(self.exchange, self.clock, seed=5)
        self.up: dict[Stream, set[str]] = {}
        self.gaps: list[Gap] = []
        self.most_topics: list[int] = []
        allowed = replace(LIMITS, **limits)
        self.pool = Pool(
            "wss://contract.mexc.com/edge",
            MexcFutures(limits=allowed),
            allowed,
            per_connection,
            self.network.dial,
            self.clock,
            Random(5).random,
            self._take,
            Retries(),
            turns=Turns(),
        )

    def _take(self, batch: Batch) -> None:
        for event in batch.events:
            if isinstance(event, StreamUp):
                self.up.setdefault(event.stream, set()).add(event.source)
            elif isinstance(event, Gap):
                self.gaps.append(event)

    def streams(self, first: int, end: int) -> dict[Stream, float]:
        symbols = self.exchange.market.symbols[first:end]
        return {Stream(Kind.TICKERS): 0.5} | {stream_of_candles(symbol): 1.0 for symbol in symbols}

    def subscribed(self) -> dict[str, int]:
        """How often the exchange serves each candle symbol at this moment."""
        counts: dict[str, int] = {}
        for session in self.exchange.sessions:
            for topic in session.topics:
                if topic.channel == "kline":
                    counts[topic.symbol] = counts.get(topic.symbol, 0) + 1
        return counts

    def sizes(self) -> list[int]:
        return sorted(len(session.topics) for session in self.exchange.sessions)

    def symbols(self, first: int, end: int) -> dict[str, int]:
        return dict.fromkeys(self.exchange.market.symbols[first:end], 1)


def play(
    story: Callable[[Scene], Awaitable[None]],
    *,
    faults: dict[str, Any] | None = None,
    limits: dict[str, Any] | None = None,
    contracts: int = 60,
    per_connection: int = 30,
) -> None:
    @asynccontextmanager
    async def running(scene: Scene) -> AsyncIterator[None]:
        task = asyncio.create_task(scene.pool.run())
        try:
            yield
            assert not task.done()
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def main() -> None:
        scene = Scene(faults or {}, limits or {}, contracts, per_connection)
        async with scene.network:
            async with running(scene):
                await story(scene)
            await asyncio.sleep(1)
            assert scene.exchange.sessions == []
            assert len(asyncio.all_tasks()) == 2  # this one and the exchange

    sim.run_virtual(main())


def test_everything_wanted_is_served_once() -> None:
    async def story(scene: Scene) -> None:
        scene.pool.want(scene.streams(0, 60))
        await asyncio.sleep(20)
        assert scene.subscribed() == scene.symbols(0, 60)
        assert scene.sizes() == [20, 20, 21]
        assert all(len(sources) == 1 for sources in scene.up.values())
        assert scene.pool.actions() == []
        assert scene.exchange.counters.max_commands_per_second <= 11

    play(story)


def test_a_change_of_the_wish_touches_only_what_changes() -> None:
    async def story(scene: Scene) -> None:
        scene.pool.want(scene.streams(0, 50))
        await asyncio.sleep(20)
        commands = scene.exchange.counters.commands
        scene.pool.want(scene.streams(2, 53))
        await asyncio.sleep(5)
        assert scene.subscribed() == scene.symbols(2, 53)
        assert scene.gaps == []
        assert all(len(sources) == 1 for sources in scene.up.values())
        assert scene.exchange.counters.commands - commands <= 5 + 2  # and a few pings

    play(story)


def test_a_move_makes_before_it_breaks() -> None:
    async def story(scene: Scene) -> None:
        scene.pool.want(scene.streams(0, 60))
        await asyncio.sleep(20)
        scene.pool.want(scene.streams(0, 35))  # two connections suffice now
        for _ in range(100):
            await asyncio.sleep(0.1)
            assert set(scene.subscribed()) >= set(scene.symbols(0, 35))
        assert scene.subscribed() == scene.symbols(0, 35)
        assert scene.gaps == []
        assert len(scene.pool.connections) == 2

    play(story, per_connection=29)


def test_a_heavy_connection_is_relieved_by_what_its_streams_really_bring() -> None:
    async def story(scene: Scene) -> None:
        wish = scene.streams(0, 50)
        scene.pool.want(wish)
        await asyncio.sleep(20)
        first, second = scene.pool.connections.values()
        # What was planned alike turns out to bring very different numbers of messages.
        measured = {stream: 0.1 if stream in second.wanted else 2.0 for stream in wish}
        scene.pool.want(measured)
        assert scene.pool.actions() == []  # the plan never moves what can stay
        assert scene.pool.rebalance() == 5  # the second has room for no more
        assert scene.pool.rebalance() == 0  # one thing at a time
        await asyncio.sleep(5)
        loads = [sum(measured[stream] for stream in one.wanted) for one in (first, second)]
        assert [len(first.wanted), len(second.wanted)] == [21, 30]
        assert loads[0] < 26 * 2.0
        assert scene.subscribed() == scene.symbols(0, 50)
        assert scene.gaps == []
        assert scene.pool.rebalanced == 5

    play(story)


def test_small_differences_move_nothing() -> None:
    async def story(scene: Scene) -> None:
        wish = scene.streams(0, 50)
        scene.pool.want(wish)
        await asyncio.sleep(20)
        first = next(iter(scene.pool.connections.values()))
        scene.pool.want({stream: 1.3 if stream in first.wanted else 1.0 for stream in wish})
        assert scene.pool.rebalance() == 0

    play(story)


def test_a_wish_that_ends_while_its_stream_is_moving_leaves_nothing_behind() -> None:
    async def story(scene: Scene) -> None:
        scene.pool.want(scene.streams(0, 60))
        await asyncio.sleep(20)
        scene.pool.want(scene.streams(0, 35))
        scene.pool.want(scene.streams(0, 20))
        scene.pool.want(scene.streams(0, 40))
        await asyncio.sleep(20)
        assert scene.subscribed() == scene.symbols(0, 40)
        scene.pool.want({})
        await asyncio.sleep(5)
        assert scene.pool.connections == {}

    play(story, per_connection=29)


@pytest.mark.parametrize("refusal", ["error", "silence", "close"])
def test_a_limit_nobody_told_us_is_learned_and_lived_with(refusal: str) -> None:
    async def story(scene: Scene) -> None:
        met: list[int] = []
        scene.pool.on_limit = lambda: met.append(scene.pool.per_connection)
        scene.pool.want(scene.streams(0, 60))
        await asyncio.sleep(180)
        assert met == [25]
        assert scene.subscribed() == scene.symbols(0, 60)
        assert max(scene.sizes()) <= 25
        assert scene.pool.refused == {}

    play(story, faults={"max_subscriptions": 25, "limit_refusal": refusal}, per_connection=50)


def test_an_outage_while_subscribing_is_not_taken_for_a_limit() -> None:
    async def story(scene: Scene) -> None:
        scene.pool.want(scene.streams(0, 60))
        for _ in range(4):
            await asyncio.sleep(3.5)
            down = sim.FaultEvent(scene.exchange.now_ms, "exchange_down", duration_ms=5_000)
            scene.exchange.schedule(down)
            await asyncio.sleep(11)
        await asyncio.sleep(100)
        assert scene.pool.per_connection == 40
        assert scene.subscribed() == scene.symbols(0, 60)

    play(story, per_connection=40)


def test_a_symbol_the_exchange_does_not_have_is_given_up_and_asked_for_again_when_it_returns() -> None:
    async def story(scene: Scene) -> None:
        unknown = stream_of_candles("NOPE_USDT")
        scene.pool.want({**scene.streams(0, 20), unknown: 1.0})
        await asyncio.sleep(20)
        assert scene.pool.refused == {unknown: "Contract [NOPE_USDT] not exists"}
        assert scene.subscribed() == scene.symbols(0, 20)
        scene.pool.want(scene.streams(0, 20))
        assert scene.pool.refused == {}

    play(story)


def test_too_many_connections_are_learned_and_what_is_open_stays() -> None:
    async def story(scene: Scene) -> None:
        scene.pool.want(scene.streams(0, 60))
        await asyncio.sleep(300)
        assert scene.pool.max_connections == 3
        assert scene.sizes() == [12, 12, 12]
        assert {status.state for status in scene.pool.status()} == {State.OPEN}

    play(story, faults={"max_connections": 3, "dial_refusal": "403"}, per_connection=12)


def test_every_cut_is_a_gap_and_a_return() -> None:
    async def story(scene: Scene) -> None:
        scene.pool.want(scene.streams(0, 20))
        await asyncio.sleep(20)
        scene.up.clear()
        scene.exchange.schedule(sim.FaultEvent(scene.exchange.now_ms, "drop_abrupt", "all"))
        await asyncio.sleep(20)
        assert {gap.stream for gap in scene.gaps} == set(scene.streams(0, 20)) == set(scene.up)
        assert scene.subscribed() == scene.symbols(0, 20)

    play(story)


def test_a_half_open_line_is_noticed_and_replaced() -> None:
    async def story(scene: Scene) -> None:
        scene.pool.want(scene.streams(0, 20))
        await asyncio.sleep(20)
        scene.exchange.schedule(sim.FaultEvent(scene.exchange.now_ms, "half_open", "all"))
        await asyncio.sleep(60)
        assert scene.pool.status()[0].reconnects == 1
        # A busy line is missed after seconds; the pings, which a quiet one needs, would have told after 35.
        assert "mute although open" in str(scene.pool.status()[0].last_error)
        assert scene.pool.status()[0].confirmed == 21

    play(story)
