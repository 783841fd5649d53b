"""What a picture costs, and how long the event loop waits for one: in a process of its own, and in a thread.

    python benchmarks/card.py
    python benchmarks/card.py --runs 5

A task sleeps for a millisecond again and again and notes by how much more it slept: so long would a push of the
exchange have waited. Beside both ways stands a loop with nothing to do, because a busy machine holds up any process
now and then. Times of a picture are from asking for it to having it; CPU is that of the drawing alone.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Awaitable, Callable

from perpwatch.alert.chart import MOST_CANDLES, Bar, Chart, usual_band
from perpwatch.alert.drawing import draw
from perpwatch.app.painter import Painter
from perpwatch.model import MINUTE_MS, Direction

STALL_MS = 10.0
#: Asked for in one run.
PICTURES = 20


def sample() -> Chart:
    """A whole picture: a calm hour, a jump on a hundred times the volume, and what followed."""
    rng, price, bars = random.Random(1), 0.0115, []
    for number in range(MOST_CANDLES):
        open_ = price
        price *= 1.0 + rng.gauss(0.0, 0.002) + (0.06 if number == 54 else 0.0)
        high, low = max(open_, price) * 1.001, min(open_, price) * 0.999
        turnover = rng.expovariate(1 / 240e3) + (24e6 if number == 54 else 0.0)
        bars.append(Bar(number * MINUTE_MS, open_, high, low, price, turnover))
    return Chart(
        symbol="BEAT_USDT",
        span="1 min",
        span_ms=MINUTE_MS,
        bars=bars,
        usual=usual_band([bar.turnover for bar in bars[:54]]),
        usual_word="usual",
        volume_word="Volume",
        signal_ms=54 * MINUTE_MS,
        price=bars[54].close,
        ratio="101×",
        move="+6.04 %",
        direction=Direction.UP,
        utc_offset_s=0,
        zone="UTC",
    )


async def measured(name: str, pictures: int, ask: Callable[[], Awaitable[bytes | None]]) -> None:
    """Ask for pictures one after the other and print what they and the loop took."""
    stalls_ms: list[float] = []
    is_over = False

    async def beat() -> None:
        last_s = time.perf_counter()
        while not is_over:
            await asyncio.sleep(0.001)
            now_s = time.perf_counter()
            stalls_ms.append(1e3 * (now_s - last_s - 0.001))
            last_s = now_s

    beating = asyncio.create_task(beat())
    took_ms = []
    for _ in range(pictures):
        began_s = time.perf_counter()
        await ask()
        took_ms.append(1e3 * (time.perf_counter() - began_s))
    is_over = True
    await beating
    stalls_ms.sort()
    print(
        f"{name:<12} {statistics.median(took_ms):>10.0f} {max(took_ms):>10.0f} {stalls_ms[-1]:>12.1f} "
        f"{stalls_ms[int(0.99 * len(stalls_ms))]:>10.1f} {sum(stall > STALL_MS for stall in stalls_ms):>14}"
    )


async def compare(pictures: int) -> None:
    chart = sample()
    began_s = time.process_time()
    sizes = [len(draw(chart)) for _ in range(5)]
    print(f"a picture: {sizes[0] / 1e3:.1f} kB, {1e3 * (time.process_time() - began_s) / 5:.0f} ms of CPU")
    print(f"{'':<12} {'median ms':>10} {'worst ms':>10} {'stall ms':>12} {'99 % ms':>10} {'above 10 ms':>14}")

    async def idle() -> None:
        await asyncio.sleep(0.1)

    await measured("idle", pictures, idle)
    async with Painter(deadline_s=30.0) as painter:
        await painter.start()
        await measured("process", pictures, lambda: painter.draw(chart))
    await measured("thread", pictures, lambda: asyncio.to_thread(draw, chart))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=1, help=f"rounds of {PICTURES} pictures")
    asyncio.run(compare(PICTURES * parser.parse_args().runs))


if __name__ == "__main__":
    main()
