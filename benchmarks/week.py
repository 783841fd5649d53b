"""A week of a market in virtual time: what the process holds in memory at the end of each day.

    python benchmarks/week.py [--days 7] [--symbols 100]

Engine, detectors, ledger, alerts, outcomes, metrics and the store take three pushes of each contract a minute, one
minute after the other as fast as they can; there are no sockets and no clock that waits. After five days the detectors
remember as much as they ever do; of the random moments, with which outcomes of alerts are compared, there are more for
a fortnight (120 bytes each, ten a day and contract). Not part of `make bench`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import tempfile
import time
from pathlib import Path

from contenders import A_CONNECTION, rss_mb
from flood import START_MS, Market
from stages import warm_bot

from perpwatch.app.keeper import Keeper
from perpwatch.app.memory import give_back
from perpwatch.app.metrics import Metrics
from perpwatch.model import MINUTE_MS, Batch, CandleUpdate, RunningCandle, Timeframe
from perpwatch.store import Database, Reader, Writer

DAY_MINUTES = 1_440
#: Of a minute: when a push comes, in seconds, and which share of its turnover has been traded by then.
PUSHES = ((5, 0.1), (30, 0.6), (58, 1.0))
#: One minute of a contract in so many is wild, so that there is something to tell.
WILD_EVERY = 20_000


def pushes(market: Market, number: int, minute_ms: int) -> list[CandleUpdate]:
    """What one contract pushes in a minute."""
    one, chance = market.symbols[number], market.chance
    turnover, move = 40_000.0 * chance.lognormvariate(0.0, 0.8), 0.0005 * chance.gauss(0.0, 1.0)
    if chance.randrange(WILD_EVERY) == 0:
        turnover, move = 60.0 * turnover, 0.03
    open_ = one.price
    # Prices go nowhere in the long run.
    one.price = round(one.price * (1.0 + move) ** (1 if one.price < 2.0 * one.open or move < 0.0 else -1), 6)
    found = []
    for second, share in PUSHES:
        close = open_ + share * (one.price - open_)
        prices = (open_, max(open_, close), min(open_, close), close)
        amount = share * turnover
        candle = RunningCandle(
            one.name, Timeframe.Min1, minute_ms // 1_000, *prices, float(int(amount / close / 0.01)), amount, *prices
        )
        found.append(CandleUpdate(candle, minute_ms + second * 1_000))
    return found


async def watch(days: int, symbols: int, folder: Path) -> None:
    market = Market(symbols)
    for one in market.symbols:
        one.open = one.price
    bot = warm_bot(market, str(folder))
    database = Database.open(f"sqlite:///{folder / 'week.db'}")
    async with Writer(database, is_inline=True) as writer:
        keeper, metrics = Keeper(bot.engine, Reader(database), writer), Metrics(bot)
        told, began_s = 0, time.monotonic()
        print(f"{'day':>4}{'RSS, MB':>9}{'signals':>9}{'alerts':>8}{'rows stored':>13}{'real s':>8}")
        for day in range(days + 1):
            gc.collect()
            give_back()
            seconds = time.monotonic() - began_s
            print(
                f"{day:>4}{rss_mb():>9.1f}{bot.engine.signals:>9,}{told:>8,}{writer.counters.written:>13,}{seconds:>8.0f}",
                flush=True,
            )
            for minute in range(DAY_MINUTES if day < days else 0):
                minute_ms = START_MS + (day * DAY_MINUTES + minute) * MINUTE_MS
                made = [pushes(market, number, minute_ms) for number in range(symbols)]
                for place, (second, _) in enumerate(PUSHES):
                    for first in range(0, symbols, A_CONNECTION):
                        events = [one[place] for one in made[first : first + A_CONNECTION]]
                        source = f"ws-{first // A_CONNECTION}"
                        now_ms = minute_ms + second * 1_000
                        batch = Batch(source, now_ms * 1_000_000, now_ms, events)
                        step = bot.engine.take(batch)
                        metrics.take(batch, step)
                        keeper.note(batch, step)
                        told += len(step.alerts)
    database.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--symbols", type=int, default=100)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(watch(arguments.days, arguments.symbols, Path(folder)))


if __name__ == "__main__":
    main()
