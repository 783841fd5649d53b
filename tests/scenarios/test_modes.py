"""One market through three modes: the same candles, signals that are the same or later, and nothing lost in between."""

from __future__ import annotations

import asyncio
import functools
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from msgspec.structs import replace

from perpwatch.app.bot import Bot, adapter_for
from perpwatch.app.config import Config
from perpwatch.app.engine import Step
from perpwatch.app.freshness import freshness_of
from perpwatch.model import MINUTE_MS, Batch, Candle, Signal, Timeframe, Trust
from perpwatch.sim import (
    DEFAULT_START_MS,
    Clock,
    FaultEvent,
    Faults,
    Pump,
    SimulatedExchange,
    SimulatedNetwork,
    build,
    run_virtual,
)

CONTRACTS = 40
#: The minutes that are compared: after the histories are loaded, and early enough for the slowest read.
FROM_MINUTE, SLOWEST_READ_MINUTES = 2, 6
PUMPS = (
    Pump(DEFAULT_START_MS + 6 * MINUTE_MS, "DOGE_USDT"),
    Pump(DEFAULT_START_MS + 9 * MINUTE_MS, "1000BONK_USDT"),
)


@dataclass
class Heard:
    """What came of a run."""

    exchange: SimulatedExchange
    bot: Bot
    minutes: dict[tuple[str, int], Candle] = field(default_factory=dict)  # the last word on each
    twice: list[tuple[str, int]] = field(default_factory=list)  # minutes told again although nothing changed
    signals: dict[tuple[str, Timeframe, int], tuple[Signal, int]] = field(default_factory=dict)  # and when, ms
    repeated_signals: int = 0
    worst_ages_s: list[tuple[int, float]] = field(default_factory=list)
    taken_over: int = 0  # most at once


def watch(
    mode: str,
    minutes: float,
    faults: Faults | None = None,
    *,
    contracts: int = CONTRACTS,
    settings: dict[str, Any] | None = None,
    changes: Sequence[tuple[float, Faults]] = (),
    events: Sequence[FaultEvent] = (),
) -> Heard:
    """Watch the market for so many minutes. Only closed candles are judged: running ones never come by REST.

    Args:
        changes: other faults instead, each from a second on.
        events: what happens once.
    """

    async def run() -> Heard:
        exchange = build(3, contracts, faults=faults, pumps=PUMPS, quiet_share=0.3)
        clock = Clock.starting_at(DEFAULT_START_MS)
        config = Config().with_overrides(
            {
                "mode": mode,
                "rest": {"history_minutes": 120},
                "websocket": {"enable_real_time_analysis": False, "planned_subscriptions_per_connection": 15},
            }
        )
        config = config.with_overrides(settings or {})
        for second, others in changes:
            asyncio.get_running_loop().call_later(second, exchange.set_faults, others)
        for event in events:
            exchange.schedule(event)
        async with SimulatedNetwork(exchange, clock, seed=3) as network:

            def on_step(_batch: Batch, step: Step) -> None:
                note(heard, step, clock.time_ns() // 1_000_000)

            bot = Bot(config, adapter_for(config), network.dial, network.get, clock, random.Random(1).random, on_step)
            heard = Heard(exchange, bot)
            sampling = asyncio.ensure_future(sample(heard, clock))
            await bot.run(minutes * 60)
            sampling.cancel()
        return heard

    return run_virtual(run())


async def sample(heard: Heard, clock: Clock) -> None:
    while True:
        await asyncio.sleep(1.0)
        heard.worst_ages_s.append((clock.time_ns() // 1_000_000, freshness_of(heard.bot).all.worst_s))
        heard.taken_over = max(heard.taken_over, len(heard.bot.feed.taken_over))


def note(heard: Heard, step: Step, now_ms: int) -> None:
    for candle in step.outcome.closed:
        if candle.timeframe is Timeframe.Min1:
            key = candle.symbol, candle.open_time_ms
            if key in heard.minutes and values(heard.minutes[key]) == values(candle):
                heard.twice.append(key)
            heard.minutes[key] = candle
    for span in step.outcome.lost:
        for open_time_ms in range(span.start_ms, span.end_ms, MINUTE_MS):
            heard.minutes.pop((span.symbol, open_time_ms), None)
    for signal in step.signals:
        signal_key = signal.symbol, signal.timeframe, signal.open_time_ms
        heard.repeated_signals += signal_key in heard.signals
        heard.signals.setdefault(signal_key, (signal, now_ms))


def values(candle: Candle) -> tuple[float, ...]:
    return candle.open, candle.high, candle.low, candle.close, candle.contracts


def said(heard: Heard) -> list[Signal]:
    """All signals without the times at which they reached us."""
    return [
        replace(
            signal, received_time_ns=0, reasons=tuple(reason for reason in signal.reasons if reason.name != "latency")
        )
        for signal, _ in heard.signals.values()
    ]


def closed(heard: Heard, from_minute: float, to_minute: float) -> dict[tuple[str, int], tuple[float, ...]]:
    """The minutes within this time, as they were told last."""
    start_ms, end_ms = (DEFAULT_START_MS + int(minute * MINUTE_MS) for minute in (from_minute, to_minute))
    return {key: values(candle) for key, candle in heard.minutes.items() if start_ms <= key[1] < end_ms}


def missing(heard: Heard, from_minute: int, to_minute: int) -> list[tuple[str, int]]:
    """Minutes within this time that were not told, or not as they were on the exchange."""
    wrong = []
    told = closed(heard, from_minute, to_minute)
    first = DEFAULT_START_MS // MINUTE_MS + from_minute
    last = DEFAULT_START_MS // MINUTE_MS + to_minute - 1
    for symbol in heard.bot.watched:
        true = heard.exchange.market.columns(symbol, Timeframe.Min1, first, last).candles()
        traded = {one.open_time_ms: (one.open, one.high, one.low, one.close, one.contracts) for one in true}
        for open_time_ms in range(first * MINUTE_MS, (last + 1) * MINUTE_MS, MINUTE_MS):
            said = told.get((symbol, open_time_ms))
            if said is None or said != traded.get(open_time_ms, (said[0], said[0], said[0], said[0], 0.0)):
                wrong.append((symbol, open_time_ms))
    return wrong


@functools.cache
def undisturbed(mode: str) -> Heard:
    return watch(mode, 20)


def test_the_same_market_gives_the_same_closed_candles_in_every_mode() -> None:
    until = 20 - SLOWEST_READ_MINUTES
    by_socket = closed(undisturbed("websocket"), FROM_MINUTE, until)
    assert len(by_socket) == CONTRACTS * (until - FROM_MINUTE)
    assert closed(undisturbed("rest"), FROM_MINUTE, until) == by_socket
    assert closed(undisturbed("dual"), FROM_MINUTE, until) == by_socket
    assert missing(undisturbed("rest"), FROM_MINUTE, until) == []


def test_rest_knows_quiet_minutes_without_reading_them() -> None:
    heard = undisturbed("rest")
    quiet = [candle for candle in heard.minutes.values() if candle.trust is Trust.QUIET]
    assert len(quiet) > 50
    assert all(candle.contracts == 0 for candle in quiet)


def test_signals_of_rest_are_those_of_the_sockets_later_by_no_more_than_the_published_age() -> None:
    by_socket, by_rest = undisturbed("websocket"), undisturbed("rest")
    assert by_rest.signals
    assert by_rest.signals.keys() <= by_socket.signals.keys()
    for key, (_, told_ms) in by_rest.signals.items():
        first_ms = by_socket.signals[key][1]
        published_s = max(age_s for at_ms, age_s in by_rest.worst_ages_s if first_ms - 2_000 <= at_ms <= told_ms)
        # The age was published within the second before.
        assert told_ms - first_ms <= published_s * 1_000 + 1_000


def test_dual_is_websocket_when_nothing_fails() -> None:
    by_socket, dual = undisturbed("websocket"), undisturbed("dual")
    assert dual.taken_over == 0
    assert said(dual) == said(by_socket)
    assert closed(dual, FROM_MINUTE, 19) == closed(by_socket, FROM_MINUTE, 19)


def test_dual_loses_no_candle_while_all_sockets_are_refused_for_15_minutes() -> None:
    cut = FaultEvent(DEFAULT_START_MS + 200_100, "drop", "all")
    heard = watch("dual", 24, changes=((200.0, Faults(max_connections=0)), (1_100.0, Faults())), events=(cut,))
    assert heard.exchange.counters.refused_dials > 20
    assert heard.taken_over == CONTRACTS
    assert missing(heard, FROM_MINUTE, 22) == []
    assert heard.bot.feed.taken_over == {}
    assert heard.repeated_signals == 0
    during = {symbol for symbol, _, open_ms in heard.signals if open_ms < DEFAULT_START_MS + 18 * MINUTE_MS}
    assert {"DOGE_USDT", "1000BONK_USDT"} <= during
    # REST was heard while the sockets were not: the minutes came as they passed, not all at the end.
    ages_s = [age_s for at_ms, age_s in heard.worst_ages_s if 5 <= (at_ms - DEFAULT_START_MS) / MINUTE_MS <= 18]
    assert max(ages_s) < 120


def test_symbols_without_room_on_the_sockets_are_read_by_rest_and_it_is_said() -> None:
    room = {"websocket": {"max_connections": 1, "planned_subscriptions_per_connection": 20}}
    heard = watch("dual", 9, settings=room)
    assert missing(heard, FROM_MINUTE, 6) == []
    assert "21 read by REST (no room on the sockets)" in heard.bot.status_line()


def test_the_default_pace_is_not_refused() -> None:
    assert undisturbed("rest").exchange.rest.counters.throttled == 0
    assert undisturbed("dual").exchange.rest.counters.throttled == 0


@pytest.mark.skipif("PERPWATCH_PROOF" not in os.environ, reason="takes a minute; set PERPWATCH_PROOF=1")
def test_an_hour_at_the_default_pace_is_never_refused() -> None:
    heard = watch("rest", 60, contracts=80, settings={"rest": {"history_minutes": 60}})
    counters = heard.exchange.rest.counters
    assert counters.requests > 8_000
    assert counters.throttled == 0
    assert counters.max_requests_per_2s <= 11


def test_refusals_slow_the_reads_down_and_nothing_is_lost() -> None:
    heard = watch("rest", 16, Faults(max_requests_per_2s=4))
    counters = heard.exchange.rest.counters
    assert 0 < counters.throttled < 60
    assert heard.bot.feed.rest.rate < 5.0
    assert missing(heard, FROM_MINUTE, 9) == []
