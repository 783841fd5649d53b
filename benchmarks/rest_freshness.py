"""How old data is when REST alone watches a market: the sweep beside a naive round of every symbol and timeframe.

    python benchmarks/rest_freshness.py
    python benchmarks/rest_freshness.py --symbols 1061 --rates 5 --minutes 10

Virtual time against the built-in exchange with the limits of its REST interface on (20 requests in 2 s for candles, 10
for tickers). Ages are sampled every 2 s, once every history is loaded and each symbol has come round; a figure is the
worst of all samples, a median the median of the samples' medians. The naive round reads Min1, Min5, Min15 and Min60 of
every symbol in turn through the same client; a symbol's age is the time since its four were complete.

A symbol that has just become one of the 100 most active is as old as it was before, until it is read at once; so their
worst age is printed twice, as it usually is (median of the samples) and at most.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
from dataclasses import dataclass

from perpwatch.app.bot import Bot, adapter_for
from perpwatch.app.config import Config
from perpwatch.app.freshness import Freshness, freshness_of
from perpwatch.errors import ExchangeError
from perpwatch.feed.rest import Priority, RestClient
from perpwatch.feed.sweep import SETTLE_MS
from perpwatch.model import ANALYSED_TIMEFRAMES, MINUTE_MS
from perpwatch.sim import DEFAULT_START_MS, Clock, SimulatedNetwork, build, run_virtual

SEED = 1
SAMPLE_S = 2.0
HISTORY_MINUTES = 60
#: After the histories, the time in which the sweep comes to its pace.
SETTLING_S = 300.0


@dataclass(frozen=True)
class Result:
    median_s: float
    usual_hot_s: float
    hot_s: float
    active_s: float
    worst_s: float
    refused: int


def sweep(symbols: int, rate: float, minutes: float) -> Result:
    async def run() -> Result:
        exchange = build(SEED, symbols)
        clock = Clock.starting_at(DEFAULT_START_MS)
        config = Config().with_overrides(
            {"mode": "rest", "rest": {"requests_per_second": rate, "history_minutes": HISTORY_MINUTES}}
        )
        samples: list[Freshness] = []
        async with SimulatedNetwork(exchange, clock, seed=SEED) as network:
            bot = Bot(config, adapter_for(config), network.dial, network.get, clock, random.Random(SEED).random)
            running = asyncio.create_task(bot.run())
            # Every history takes one request.
            await asyncio.sleep(symbols / rate + SETTLING_S)
            assert bot.progress.warm == bot.progress.watched == symbols
            for _ in range(int(minutes * 60 / SAMPLE_S)):
                await asyncio.sleep(SAMPLE_S)
                samples.append(freshness_of(bot))
            bot.stop()
            await running
        return Result(
            statistics.median(one.all.median_s for one in samples),
            statistics.median(one.hot.worst_s for one in samples),
            max(one.hot.worst_s for one in samples),
            max(one.active.worst_s for one in samples),
            max(one.all.worst_s for one in samples),
            exchange.rest.counters.throttled,
        )

    return run_virtual(run())


def naive(symbols: int, rate: float) -> Result:
    async def run() -> Result:
        exchange = build(SEED, symbols)
        clock = Clock.starting_at(DEFAULT_START_MS)
        adapter = adapter_for(Config())
        known_s: dict[str, float] = {}
        samples: list[list[float]] = []
        async with SimulatedNetwork(exchange, clock, seed=SEED) as network:
            rest = RestClient(adapter.rest_url, network.get, clock, rate)
            contracts = await rest.fetch(adapter.contracts(), Priority.CONTROL)
            for round_ in range(2):
                sampled_s = clock.monotonic()
                for contract in contracts:
                    asked_s = clock.monotonic()
                    now_ms = clock.time_ns() // 1_000_000
                    for timeframe in ANALYSED_TIMEFRAMES:
                        start_ms = now_ms - HISTORY_MINUTES * MINUTE_MS
                        try:
                            await rest.fetch(adapter.candles(contract, timeframe, start_ms, now_ms), Priority.POLL)
                        except ExchangeError:
                            break
                    else:
                        known_s[contract.symbol] = asked_s - SETTLE_MS / 1_000
                    if round_ and clock.monotonic() - sampled_s >= SAMPLE_S:
                        sampled_s = clock.monotonic()
                        samples.append([sampled_s - known for known in known_s.values()])
        worst = max(max(one) for one in samples)
        median = statistics.median(statistics.median(one) for one in samples)
        return Result(median, worst, worst, worst, worst, exchange.rest.counters.throttled)

    return run_virtual(run())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", type=int, nargs="+", default=[250, 750, 1061, 2000])
    parser.add_argument("--rates", type=float, nargs="+", default=[2.5, 5.0, 10.0], help="requests a second")
    parser.add_argument("--minutes", type=float, default=10.0, help="market minutes that are sampled")
    arguments = parser.parse_args()
    columns: tuple[str, ...] = ("symbols", "requests/s", "median", "100 most active: usually worst", "at most")
    columns += ("active, worst", "all, worst", "510s", "naive: median", "worst")
    print(f"| {' | '.join(columns)} |")
    print("|" + "---|" * len(columns))
    for symbols in arguments.symbols:
        for rate in arguments.rates:
            ours, plain = sweep(symbols, rate, arguments.minutes), naive(symbols, rate)
            ages_s = (ours.median_s, ours.usual_hot_s, ours.hot_s, ours.active_s, ours.worst_s)
            ages = " | ".join(f"{age_s:.0f} s" for age_s in ages_s)
            beside = f"{plain.median_s:.0f} s | {plain.worst_s:.0f} s"
            print(f"| {symbols:,} | {rate:g} | {ages} | {ours.refused} | {beside} |", flush=True)


if __name__ == "__main__":
    main()
