"""How fast the store is: one table per run.

    python benchmarks/store.py                                   a file in a temporary folder
    python benchmarks/store.py postgresql://user@host/name       an empty database of a server

Everything is written as the program writes it: through the writer, beside an event loop, durable when the clock stops.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from perpwatch.app.histories import GROUP, Histories
from perpwatch.market.candles import roll_up_all
from perpwatch.model import ANALYSED_TIMEFRAMES, MINUTE_MS, Candle, Contract, Finality, Timeframe, Trust
from perpwatch.store import Database, Reader, Retention, Writer
from perpwatch.store.maintenance import check, contents

T0 = 1_791_201_600_000
SYMBOLS = [f"COIN{number:04}_USDT" for number in range(1_061)]
HOUR_MS = 60 * MINUTE_MS


def market(random_: random.Random, timeframe: Timeframe, open_time_ms: int) -> list[Candle]:
    """One candle of every symbol, with figures that no encoding can shorten."""
    candles = []
    for symbol in SYMBOLS:
        price, volume = 100.0 * random_.random(), float(random_.randrange(1_000_000))
        prices = (price, price * 1.01, price * 0.99, price * 1.003)
        figures = (volume, volume * 0.01, volume * price)
        candles.append(
            Candle(symbol, timeframe, open_time_ms, *prices, *figures, Finality.SUCCESSOR, Trust.STREAMED, *prices)
        )
    return candles


async def closing_minutes(writer: Writer, random_: random.Random, count: int, *, is_busy: bool) -> list[float]:
    """Milliseconds until all candles of a full hour, four timeframes in pieces of a connection, are on disk."""
    taken: list[float] = []
    spinning = asyncio.create_task(spin()) if is_busy else None
    for number in range(count):
        open_time_ms = T0 - (number + 1 + 1_000 * is_busy) * HOUR_MS
        candles = [one for timeframe in ANALYSED_TIMEFRAMES for one in market(random_, timeframe, open_time_ms)]
        await asyncio.sleep(1.2 if number % 10 == 0 else 0.02)  # now and then there is time for the log to be copied
        started_s = time.perf_counter()
        for first in range(0, len(candles), 400):
            writer.put_now(*candles[first : first + 400])
        assert await writer.flush(60.0)
        taken.append((time.perf_counter() - started_s) * 1e3)
    if spinning is not None:
        spinning.cancel()
    return taken


async def spin() -> None:
    """An event loop that never rests: 10 ms of work at a time."""
    while True:
        until_s = time.perf_counter() + 0.01
        while time.perf_counter() < until_s:
            pass
        await asyncio.sleep(0)


def timed(question: Callable[[int], object], count: int) -> list[float]:
    taken = []
    for number in range(count):
        started_s = time.perf_counter()
        question(number)
        taken.append((time.perf_counter() - started_s) * 1e3)
    return taken


def show(what: str, taken_ms: list[float]) -> None:
    taken = sorted(taken_ms)
    p99 = taken[min(len(taken) - 1, int(0.99 * len(taken)))]
    print(f"{what:<62}{taken[len(taken) // 2]:>10.1f}{p99:>10.1f}{taken[-1]:>10.1f}")


async def main(url: str) -> None:
    random_ = random.Random(1)
    database = Database.open(url)
    reader = Reader(database)
    print(f"{'':<62}{'median':>10}{'p99':>10}{'max':>10}  ms")
    async with Writer(database, max_waiting=50_000) as writer:
        await writer.put(*(Contract(symbol, symbol[:8], "USDT", "USDT", 1.0) for symbol in SYMBOLS))
        show("4,244 candles of a closing hour, durable", await closing_minutes(writer, random_, 100, is_busy=False))
        show("  the same beside a saturated event loop", await closing_minutes(writer, random_, 30, is_busy=True))

        minutes = [market(random_, Timeframe.Min1, T0 + minute * MINUTE_MS) for minute in range(60)]
        started_s = time.perf_counter()
        rows = 0
        for repeat in range(10):
            for candles in minutes:
                # The same figures in a later hour: making figures is not what is measured.
                shift_ms = repeat * HOUR_MS
                later = [Candle(one.symbol, one.timeframe, one.open_time_ms + shift_ms, *rest(one)) for one in candles]
                await writer.put(*later)
                rows += len(later)
        assert await writer.flush(120.0)
        seconds = time.perf_counter() - started_s
        print(f"{rows:,} candles in {seconds:.1f} s: {rows / seconds:,.0f} rows/s, making them included")

        show(
            "500 candles of a symbol",
            timed(lambda n: reader.newest_candles(SYMBOLS[n * 7 % 1_061], Timeframe.Min1, 500), 100),
        )
        show("the last candle of all symbols", timed(lambda n: reader.last_candles(Timeframe.Min1), 30))
        found = contents(database)
        print(f"{found.rows['candles']:,} candles in {found.bytes / 1e6:.0f} MB: ", end="")
        print(f"{found.bytes / found.rows['candles']:.0f} bytes each")

        started_s = time.perf_counter()
        writer.clean(Retention({Timeframe.Min1: 1.0}), T0 + 29 * HOUR_MS)
        while writer.is_cleaning:  # noqa: ASYNC110 - nobody else waits for the end of it
            await asyncio.sleep(0.01)
        seconds = time.perf_counter() - started_s
        print(f"{writer.counters.cleaned:,} old candles deleted in {seconds:.1f} s, between the writes")
        if database.is_sqlite:
            await histories(writer)
    started_s = time.perf_counter()
    assert not check(database).problems
    print(f"perpwatch db check: {time.perf_counter() - started_s:.1f} s")
    database.close()


async def histories(writer: Writer) -> None:
    """What a history of a day and nine hours costs the writer's thread and the disk, beside 200 that are stored."""
    shuffled = random.Random(2).sample(SYMBOLS, 200 + 24 + GROUP)
    stored, alone, together = shuffled[:200], shuffled[200:224], shuffled[224:]
    await learn(writer, stored)
    (thread,) = (one for one in threading.enumerate() if one.name == "perpwatch-store")
    assert thread.ident is not None
    clock = time.pthread_getcpuclockid(thread.ident)
    for some, group in ((alone, 1), (together, GROUP)):
        await asyncio.sleep(2.0)  # so that the log of what was before is copied
        began_s, began_bytes = time.clock_gettime(clock), written_bytes()
        for first in range(0, len(some), group):
            await learn(writer, some[first : first + group])
        await asyncio.sleep(2.0)
        each_ms = (time.clock_gettime(clock) - began_s) / len(some) * 1e3
        each_mb = (written_bytes() - began_bytes) / len(some) / 1e6
        print(
            f"a history, {group:>2} together: {each_ms:.0f} ms of the writer's processor time, {each_mb:.1f} MB written"
        )


async def learn(writer: Writer, symbols: list[str]) -> None:
    """Write histories as a start does, in groups."""
    waiting, candles = Histories(), past()
    for first in range(0, len(symbols), GROUP):
        for symbol in symbols[first : first + GROUP]:
            waiting.gather(symbol, [msgspec.structs.replace(one, symbol=symbol) for one in candles], 0)
        while waiting:
            writer.put_units_now([(packed,) for packed in waiting.take_slice()])
            assert await writer.flush(60.0)


def past() -> list[Candle]:
    """The candles of a day and nine hours; each contract gets the same, which no page of the store can use."""
    random_ = random.Random(3)
    minutes = []
    for open_time_ms in range(T0 - 33 * HOUR_MS, T0, MINUTE_MS):
        price, volume = 100.0 * random_.random(), float(random_.randrange(1_000_000))
        prices = (price, price * 1.01, price * 0.99, price * 1.003)
        figures = (volume, volume * 0.01, volume * price)
        minutes.append(
            Candle("", Timeframe.Min1, open_time_ms, *prices, *figures, Finality.REST, Trust.VERIFIED, *prices)
        )
    return [one for timeframe in ANALYSED_TIMEFRAMES for one in roll_up_all(minutes, timeframe, until_ms=T0)]


def written_bytes() -> int:
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("write_bytes")))


def rest(candle: Candle) -> tuple[Any, ...]:
    return tuple(getattr(candle, name) for name in Candle.__struct_fields__[3:])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else f"sqlite:///{Path(folder)}/perpwatch.db"))
