"""Contracts come, change and go while the watch runs."""

from __future__ import annotations

import asyncio
import random

import msgspec

from perpwatch.app.bot import Bot, adapter_for
from perpwatch.app.config import Config
from perpwatch.app.engine import Step
from perpwatch.model import MINUTE_MS, Batch, Candle, Gap, Timeframe
from perpwatch.sim import (
    DEFAULT_START_MS,
    Clock,
    FaultEvent,
    Faults,
    SimulatedExchange,
    SimulatedNetwork,
    build,
    run_virtual,
)


class Story:
    """A bot that watches a small market in which contracts change."""

    def __init__(self, *events: FaultEvent, symbols: list[str] | None = None, contracts_interval: float = 300) -> None:
        self.events = events
        self.symbols = symbols
        self.interval = contracts_interval
        self.candles: dict[str, list[Candle]] = {}
        self.gaps: list[Gap] = []
        self.bot: Bot
        self.exchange: SimulatedExchange

    def on_step(self, batch: Batch, step: Step) -> None:
        self.gaps.extend(event for event in batch.events if isinstance(event, Gap))
        for candle in step.outcome.closed:
            if candle.timeframe is Timeframe.Min1:
                self.candles.setdefault(candle.symbol, []).append(candle)

    def run(self, minutes: float) -> None:
        async def watch() -> None:
            self.exchange = build(5, 20, faults=Faults(events=tuple(sorted(self.events))), activity=10.0)
            clock = Clock.starting_at(DEFAULT_START_MS)
            network = SimulatedNetwork(self.exchange, clock, seed=5)
            config = Config().with_overrides(
                {"rest": {"history_minutes": 60, "contracts_interval": self.interval, "audit_share": 0.2}}
            )
            async with network:
                self.bot = Bot(
                    config,
                    adapter_for(config),
                    network.dial,
                    network.get,
                    clock,
                    random.Random(5).random,
                    self.on_step,
                    symbols=self.symbols,
                )
                async with asyncio.timeout(minutes * 60 + 60):
                    await self.bot.run(minutes * 60)

        run_virtual(watch())


def after(minutes: float) -> int:
    return DEFAULT_START_MS + int(minutes * MINUTE_MS)


def test_a_new_contract_is_watched_within_seconds_of_its_announcement() -> None:
    story = Story(FaultEvent(after(3), "listing", "FRESH_USDT"))
    story.run(6)
    series = story.bot.engine.book.series["FRESH_USDT"]
    assert series.is_up
    assert series.watched_since_ms == after(4)  # announced at 3, open for trading from 4
    assert story.gaps == []  # nobody else was touched


def test_a_new_contract_is_found_in_the_list_when_its_announcement_was_missed() -> None:
    # The connection that carries announcements is down when it is made.
    story = Story(
        FaultEvent(after(2.9), "exchange_down", duration_ms=15_000),
        FaultEvent(after(3), "listing", "FRESH_USDT"),
        contracts_interval=60,
    )
    story.run(7)
    assert "FRESH_USDT" in story.bot.watched


def test_a_delisted_contract_ends_cleanly() -> None:
    victim = build(5, 20).market.symbols[7]
    story = Story(FaultEvent(after(3), "delisting", victim), contracts_interval=60)
    story.run(7)
    assert victim not in story.bot.watched
    assert victim not in story.bot.engine.book.series
    assert len(story.bot.watched) == 19
    assert len(story.bot.engine.repairs) == 0
    assert all(not one.failures for one in story.bot.feed.pool.status())


def test_a_renamed_contract_goes_on_under_its_new_name() -> None:
    victim = build(5, 20).market.symbols[7]
    story = Story(FaultEvent(after(3), "rename", victim, text="RENAMED_USDT"), contracts_interval=60)
    story.run(7)
    assert victim not in story.bot.watched
    assert story.bot.engine.book.series["RENAMED_USDT"].is_up


def test_a_changed_contract_size_does_not_corrupt_volumes() -> None:
    symbol = build(5, 20).market.symbols[0]
    exchange = build(5, 20)
    listed = msgspec.json.decode(exchange.get("/api/v1/contract/detail", {"symbol": symbol}, DEFAULT_START_MS).body)
    before = listed["data"]["contractSize"]
    story = Story(FaultEvent(after(3), "contract_size", symbol, value=before * 10))
    story.run(7)
    sizes = {
        candle.open_time_ms: round(candle.base_volume / candle.contracts, 12)
        for candle in story.candles[symbol]
        if candle.contracts
    }
    assert {sizes[time_ms] for time_ms in sizes if time_ms < after(2)} == {round(before, 12)}
    assert {sizes[time_ms] for time_ms in sizes if time_ms > after(4)} == {round(before * 10, 12)}


def test_a_watch_of_named_symbols_takes_no_newcomers() -> None:
    symbols = build(5, 20).market.symbols[:5]
    story = Story(FaultEvent(after(2), "listing", "FRESH_USDT"), symbols=symbols, contracts_interval=60)
    story.run(5)
    assert sorted(story.bot.watched) == sorted(symbols)
