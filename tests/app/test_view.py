"""What a person sees, drawn from a bot that ran in virtual time."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterator
from io import StringIO

import msgspec
import pytest
from logging_afterwards import same_logging_afterwards
from rich.console import Console

from perpwatch.app.bot import Bot, adapter_for
from perpwatch.app.config import Config
from perpwatch.app.engine import Step
from perpwatch.app.view import Outlet, SignalFormat, movers, picture, show_live, signal_line
from perpwatch.model import Batch, Signal
from perpwatch.sim import DEFAULT_START_MS, Clock, FaultEvent, Faults, SimulatedNetwork, build, demo_pumps, run_virtual

CONTRACTS = 30


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    with same_logging_afterwards():
        yield


def watched(
    seconds: float, look: Callable[[Bot], None], faults: Faults | None = None, config: Config | None = None
) -> None:
    """Let a bot run for so long, and look at it while it still runs."""

    async def run() -> None:
        pumps = demo_pumps(build(1, CONTRACTS).market)
        exchange = build(1, CONTRACTS, pumps=pumps, activity=3.0, faults=faults)
        clock = Clock.starting_at(DEFAULT_START_MS)
        settings = config or Config()
        async with SimulatedNetwork(exchange, clock, seed=1) as network:
            bot = Bot(settings, adapter_for(settings), network.dial, network.get, clock, random.Random(1).random)
            running = asyncio.create_task(bot.run())
            await asyncio.sleep(seconds)
            look(bot)
            bot.stop()
            await running

    run_virtual(run())


def drawn(bot: Bot, width: int = 160, height: int = 50) -> str:
    console = Console(file=StringIO(), width=width, height=height, color_system=None)
    console.print(picture(bot, "built-in [exchange]", width, height))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_the_picture_shows_connections_progress_moves_and_alerts() -> None:
    def look(bot: Bot) -> None:
        text = drawn(bot)
        assert "perpwatch · built-in [exchange]" in text
        assert "market time  2026-10-05 12:00:3" in text  # what the newest frame has proven
        assert "30 watched of 30 listed" in text
        assert "30/30" in text
        assert "ws-1 open" in text
        assert any("▲ BTC_USDT" in line and "× its one-day mean" in line for line in text.splitlines())
        symbol, fraction, turnover = movers(bot)[0]
        assert symbol == "BTC_USDT"
        assert fraction > 0.05
        assert f"{fraction:+.2%}" in text
        assert f"{turnover:,.0f}" in text

    watched(40, look)


def test_before_the_market_is_known_the_picture_says_so() -> None:
    def look(bot: Bot) -> None:
        text = drawn(bot)
        assert "not known yet" in text
        assert "1970" not in text
        assert "none yet" in text

    watched(0.001, look)


def test_the_picture_fits_and_the_newest_alerts_are_in_it_whatever_the_size() -> None:
    def look(bot: Bot) -> None:
        for width, height in ((160, 50), (120, 30), (110, 24), (100, 30), (80, 24), (40, 20)):
            lines = drawn(bot, width, height).splitlines()
            assert max(map(len, lines)) <= width
            if width >= 80:
                # One line is left for the cursor.
                assert len(lines) < height
                assert any("BTC_USDT" in line and "volume" in line for line in lines)

    watched(40, look)


def test_a_connection_in_trouble_is_shown_with_its_error_and_next_try() -> None:
    down = FaultEvent(DEFAULT_START_MS + 10_000, "exchange_down", duration_ms=60_000)

    def look(bot: Bot) -> None:
        line = next(line for line in drawn(bot).splitlines() if "ws-1" in line)
        assert "waiting" in line
        assert "next try in" in line

    watched(30, look, Faults(events=(down,)))


def test_symbols_without_room_on_the_sockets_are_shown_as_polled() -> None:
    config = Config().with_overrides({"websocket": {"max_connections": 1, "planned_subscriptions_per_connection": 20}})

    def look(bot: Bot) -> None:
        line = next(line for line in drawn(bot).splitlines() if "no room on the sockets" in line)
        assert str(len(bot.feed.service.polled)) in line

    watched(20, look, config=config)


def test_a_signal_in_one_line_can_be_checked_by_hand() -> None:
    def look(bot: Bot) -> None:
        line = signal_line(bot.signals[0])
        assert line.startswith("12:00:2")
        assert "▲ BTC_USDT Min1 running" in line
        assert f"price {bot.signals[0].price:.10g} (streamed)" in line

    watched(30, look)


def test_the_last_status_line_tells_of_the_watch_as_it_was_before_it_ended(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outlet = Outlet(Config(), SignalFormat.LOG, Console(file=StringIO()))
    logging.getLogger().addHandler(caplog.handler)

    async def run() -> None:
        exchange = build(1, CONTRACTS)
        clock = Clock.starting_at(DEFAULT_START_MS)
        async with SimulatedNetwork(exchange, clock, seed=1) as network:
            config = Config()
            bot = Bot(
                config, adapter_for(config), network.dial, network.get, clock, random.Random(1).random, outlet.on_step
            )
            await outlet.show(bot, "title", 90)

    run_virtual(run())
    lines = [record.getMessage() for record in caplog.records if record.name == "perpwatch.app.view"]
    assert lines[0] == "title"
    statuses = [line for line in lines if line.startswith("watching 30 contracts: 1/1 connections, 100.0%")]
    assert len(statuses) == 2  # after 60 s, and at the end
    assert lines[-1] == statuses[-1]


def test_signals_as_json_lines_are_read_back_as_they_were(capsys: pytest.CaptureFixture[str]) -> None:
    outlet = Outlet(Config(), SignalFormat.JSONL, Console(file=StringIO()))

    def look(bot: Bot) -> None:
        outlet.on_step(Batch("ws-1", 0, 0, ()), Step(signals=bot.signals))
        printed = capsys.readouterr().out.splitlines()
        assert [msgspec.json.decode(line, type=Signal) for line in printed] == bot.signals
        assert bot.signals

    watched(40, look)


def test_the_live_picture_is_redrawn_and_leaves_its_last_state() -> None:
    console = Console(file=StringIO(), width=160, height=50, force_terminal=True, color_system=None)

    async def run() -> None:
        exchange = build(1, 10)
        clock = Clock.starting_at(DEFAULT_START_MS)
        async with SimulatedNetwork(exchange, clock, seed=1) as network:
            bot = Bot(Config(), adapter_for(Config()), network.dial, network.get, clock, random.Random(1).random)
            running = asyncio.create_task(bot.run())
            drawing = asyncio.create_task(show_live(bot, console, "title"))
            await asyncio.sleep(5)
            drawing.cancel()
            bot.stop()
            await asyncio.wait([running, drawing])

    run_virtual(run())
    assert isinstance(console.file, StringIO)
    text = console.file.getvalue()
    assert text.count("market time") >= 10  # twice a second
    assert text.rstrip().endswith("\x1b[?25h")
