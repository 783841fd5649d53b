"""How long the watch of 800 symbols takes to see again after a failure, and to know again what it missed.

    python benchmarks/healing.py [--seeds 5]

Virtual time: the figures are market seconds and do not depend on the machine. *Seeing* is the time from the failure
until every candle stream delivers again; *knowing* until no minute is unknown any more. A silent topic can only be
noticed when its symbol trades, so its figure is that of a symbol that trades all the time.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import statistics

from rich.console import Console
from rich.table import Table

from perpwatch.app.bot import Bot, adapter_for
from perpwatch.app.config import Config
from perpwatch.model import MINUTE_MS, Trust
from perpwatch.sim import DEFAULT_START_MS, Clock, FaultEvent, Faults, SimulatedNetwork, build, run_virtual

#: When things go wrong, in market seconds: after the history is loaded, and in the middle of a minute.
AT_S = 330.0
#: How long it is watched after the failure, and how old a minute must be to count.
WATCHED_S, SETTLED_MS = 400, 10_000
#: The most traded contract trades several times a second; when it says nothing for so long, it is not heard.
MUTE_MS = 4_000
STORY = {
    "connection drop": FaultEvent(0, "drop_abrupt", "connection:2"),
    "all connections drop": FaultEvent(0, "drop_abrupt", "all"),
    "silent connection (no pongs)": FaultEvent(0, "half_open", "connection:2"),
    "silent connection (pongs go on)": FaultEvent(0, "silence", "connection:2"),
    "silent topic": FaultEvent(0, "lost_topic", "kline:BTC_USDT"),
    "exchange restart (60 s down)": FaultEvent(0, "exchange_down", duration_ms=60_000),
}


async def heal(seed: int, event: FaultEvent) -> tuple[float, float]:
    """Seconds until every stream delivers again, and until no minute is unknown."""
    at_ms = DEFAULT_START_MS + int(AT_S * 1_000)
    fault = FaultEvent(at_ms, event.kind, event.target, event.duration_ms)
    exchange = build(seed, 800, faults=Faults(events=(fault,)), activity=3.0)
    clock = Clock.starting_at(DEFAULT_START_MS)
    network = SimulatedNetwork(exchange, clock, seed=seed)
    config = Config().with_overrides({"rest": {"history_minutes": 60}})
    async with network:
        bot = Bot(config, adapter_for(config), network.dial, network.get, clock, random.Random(seed).random)
        running = asyncio.create_task(bot.run())
        await asyncio.sleep(AT_S)
        times = await _watch(bot, clock)
        bot.stop()
        await running
    return times


async def _watch(bot: Bot, clock: Clock) -> tuple[float, float]:
    """The last moments at which something was not heard, and at which a minute that ended a while ago was unknown."""
    blind_s = ignorant_s = 0.0
    for passed_s in range(1, WATCHED_S + 1):
        await asyncio.sleep(1.0)
        now_ms = clock.time_ns() // 1_000_000
        series = bot.engine.book.series
        is_mute = now_ms - series["BTC_USDT"].last_push_ms > MUTE_MS
        if is_mute or any(not one.is_up or one.is_broken for one in series.values()):
            blind_s = passed_s
        end_ms = now_ms - SETTLED_MS
        if bot.engine.ledger.counts(bot.watched, DEFAULT_START_MS + 2 * MINUTE_MS, end_ms)[Trust.UNKNOWN]:
            ignorant_s = passed_s
    return blind_s, ignorant_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=5)
    seeds = parser.parse_args().seeds
    logging.getLogger("perpwatch").setLevel(logging.CRITICAL)
    table = Table(title=f"healing at 800 symbols, {seeds} seeds, market seconds", box=None)
    for column in ("failure", "seeing, median", "worst", "knowing, median", "worst"):
        table.add_column(column, justify="left" if column == "failure" else "right")
    for name, event in STORY.items():
        times = [run_virtual(heal(seed, event)) for seed in range(1, seeds + 1)]
        figures = [
            f"{measure(column):.0f}" for column in zip(*times, strict=True) for measure in (statistics.median, max)
        ]
        table.add_row(name, *figures)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
