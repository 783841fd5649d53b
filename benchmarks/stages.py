"""Where a microsecond goes: the program's stages on the same frames, in memory, each on top of the ones before.

    python benchmarks/stages.py [--runs 5] [--symbols 800] [--profile]

Frames go into the real session, engine, keeper and metrics in batches as a busy connection brings them; there is no
socket and no loop, so that what is left is the program's own work. ``--profile`` prints the functions of the whole.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import pstats
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from contender import pin
from contenders import A_CONNECTION, Answer, PushDeal, PushKline, PushTicker, flood_config
from flood import START_MS, Market
from harness import show
from rich.table import Table

from perpwatch.app.bot import Bot, adapter_for
from perpwatch.app.engine import Step
from perpwatch.app.keeper import Keeper
from perpwatch.app.metrics import Metrics
from perpwatch.exchanges.mexc.codec import decode_all
from perpwatch.feed.connection import SystemClock
from perpwatch.feed.session import Session
from perpwatch.model import (
    MINUTE_MS,
    Batch,
    Candle,
    CandleHistory,
    Contract,
    Event,
    Finality,
    Kind,
    Stream,
    StreamUp,
    Timeframe,
    Trust,
    stream_of_candles,
)
from perpwatch.store import Database, Reader, Writer

#: Frames of all connections that one turn of the loop brings.
A_READ = 2_000
HISTORY_MINUTES = 1_980


@dataclass(frozen=True, slots=True)
class Read:
    """What one socket had when it was read."""

    source: str
    frames: list[bytes]


def reads(market: Market, count: int) -> list[Read]:
    """A block of the flood, cut as connections bring it."""
    made: list[Read] = []
    parts: dict[int, list[bytes]] = {}
    for place, (number, frame) in enumerate(market.frames(count, "mexc"), 1):
        parts.setdefault(number // A_CONNECTION, []).append(frame[4:] if frame[1] == 126 else frame[2:])
        if place % A_READ == 0 or place == count:
            made += [Read(f"ws-{number}", frames) for number, frames in sorted(parts.items())]
            parts = {}
    return made


def history(market: Market, number: int, minutes: int) -> CandleHistory:
    """Minutes before the flood that are like it."""
    chance, one = random.Random(number), market.symbols[number]
    candles, close = [], one.price
    for place in range(minutes):
        open_, close = close, round(one.price * (1.0 + 0.001 * chance.gauss(0.0, 1.0)), 6)
        prices = (open_, max(open_, close), min(open_, close), close)
        turnover = 40_000.0 * chance.lognormvariate(0.0, 0.8)
        figures = (turnover / close / 0.01, turnover / close, turnover)
        open_ms = START_MS - (minutes - place) * MINUTE_MS
        candles.append(
            Candle(one.name, Timeframe.Min1, open_ms, *prices, *figures, Finality.REST, Trust.VERIFIED, *prices)
        )
    return CandleHistory(one.name, candles, START_MS - minutes * MINUTE_MS, START_MS)


def warm_bot(market: Market, folder: str, minutes: int = HISTORY_MINUTES) -> Bot:
    """A bot of default settings that watches the whole market and has its history, without a feed."""
    config = flood_config(1, len(market.symbols), folder)

    async def nothing(*_: object) -> None:
        raise AssertionError("nobody dials here")

    bot = Bot(config, adapter_for(config), nothing, nothing, SystemClock(), random.Random(1).random)  # type: ignore[arg-type]
    bot.feed.exchange_clock.observe(START_MS, bot.clock.monotonic())
    symbols = [one.name for one in market.symbols]
    bot.engine.watch([Contract(name, name[:9], "USDT", "USDT", 0.01) for name in symbols])
    for number, name in enumerate(symbols):
        source = f"ws-{number // A_CONNECTION}"
        up = StreamUp(stream_of_candles(name), source, START_MS - 1)
        bot.engine.take(Batch(source, 0, START_MS - 1, [up]))
        bot.engine.take(Batch("rest", 0, START_MS + 60_000, [history(market, number, minutes)]))
    bot.engine.take(Batch("ws-0", 0, START_MS - 1, [StreamUp(Stream(Kind.TICKERS), "ws-0", START_MS - 1)]))
    return bot


def taken(blocks: Sequence[Sequence[Read]], take: Callable[[Read], object]) -> list[float]:
    """Processor seconds of each block."""
    seconds = []
    for block in blocks:
        gc.collect()
        started_s = time.process_time()
        for read in block:
            take(read)
        seconds.append(time.process_time() - started_s)
    return seconds


class Pipeline:
    """A bot's path from frames to the store, as far as it is wanted."""

    def __init__(self, market: Market, folder: str) -> None:
        self.bot = warm_bot(market, folder)
        limits = self.bot.adapter.limits
        sources = {number // A_CONNECTION for number in range(len(market.symbols))}
        self.sessions = {
            f"ws-{number}": Session(self.bot.adapter, limits, f"ws-{number}", 0.0, START_MS) for number in sources
        }
        self.now_s = 0.0
        self.on_step: list[Callable[[Batch, Step], object]] = []

    def receive(self, read: Read) -> Batch:
        self.now_s += 0.01
        session, events = self.sessions[read.source], list[Event]()
        session.receive(read.frames, self.now_s, events)
        return Batch(read.source, 0, session.watermark_ms, events)

    def take(self, read: Read) -> None:
        batch = self.receive(read)
        step = self.bot.engine.take(batch)
        for tell in self.on_step:
            tell(batch, step)


async def measured(symbols: int, runs: int, frames: int, *, has_profile: bool) -> dict[str, list[float]]:
    """Processor seconds of each run of each stage."""
    market = Market(symbols)
    blocks = [reads(market, frames) for _ in range(runs + 1)]
    lean = msgspec.json.Decoder(PushKline | PushTicker | PushDeal | Answer).decode
    found: dict[str, list[float]] = {
        "decode, fields only": taken(blocks, lambda read: [lean(frame) for frame in read.frames]),
        "decode, checked": taken(blocks, lambda read: decode_all(read.frames)),
    }
    with tempfile.TemporaryDirectory() as folder:
        found["+ session"] = taken(blocks, Pipeline(Market(symbols), folder).receive)
        found["+ candles, ledger, detection"] = taken(blocks, Pipeline(Market(symbols), folder).take)
        metered = Pipeline(Market(symbols), folder)
        metered.on_step.append(Metrics(metered.bot).take)
        found["+ metrics"] = taken(blocks, metered.take)
        database = Database.open(f"sqlite:///{Path(folder) / 'stages.db'}")
        async with Writer(database) as writer:
            whole = Pipeline(Market(symbols), folder)
            keeper = Keeper(whole.bot.engine, Reader(database), writer)
            whole.on_step += [Metrics(whole.bot).take, keeper.note]
            found["+ store"] = taken(blocks, whole.take)
        database.close()
        if has_profile:
            profiled = Pipeline(Market(symbols), folder)
            profiler = cProfile.Profile()
            profiler.runcall(taken, blocks, profiled.take)
            pstats.Stats(profiler).sort_stats("tottime").print_stats(25)
    return {name: seconds[1:] for name, seconds in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--symbols", type=int, default=800)
    parser.add_argument("--frames", type=int, default=300_000)
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    pin(0)
    found = asyncio.run(measured(arguments.symbols, arguments.runs, arguments.frames, has_profile=arguments.profile))
    table = Table(title=f"Where a microsecond goes: {arguments.symbols} symbols, {arguments.runs} runs", box=None)
    for column in ("stage", "ns a frame", "min - max", "the stage itself"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    before = 0.0
    for name, seconds in found.items():
        costs = [second / arguments.frames * 1e9 for second in seconds]
        median = statistics.median(costs)
        alone = f"{median - before:,.0f}" if name.startswith("+") else ""
        table.add_row(name, f"{median:,.0f}", f"{min(costs):,.0f} - {max(costs):,.0f}", alone)
        before = median
    show(table)


if __name__ == "__main__":
    main()
