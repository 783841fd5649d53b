"""What closing a minute costs, and how long the event loop is held by it; and a frame of the whole market.

    python benchmarks/minute.py [--runs 5] [--symbols 1061]

The minute is the last of an hour, so that all four timeframes close. It closes connection by connection, as each
proves that the minute is over: one batch is one piece of work between two turns of the loop.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time

import msgspec
from contender import pin
from contenders import A_CONNECTION
from flood import START_MS, Market, names
from harness import show
from rich.table import Table
from stages import warm_bot

from perpwatch.app.engine import Engine
from perpwatch.exchanges.mexc.codec import decode
from perpwatch.model import MINUTE_MS, Batch, CandleUpdate, RunningCandle, Timeframe

HOUR_MS = 60 * MINUTE_MS
ROWS = 1_269


def minute_of(market: Market, open_ms: int) -> dict[str, list[CandleUpdate]]:
    """One push for each symbol, by source."""
    pushes: dict[str, list[CandleUpdate]] = {}
    for number, one in enumerate(market.symbols):
        price = one.price
        prices = (price, price * 1.001, price * 0.999, price)
        candle = RunningCandle(one.name, Timeframe.Min1, open_ms // 1_000, *prices, 4e6 / price, 40_000.0, *prices)
        pushes.setdefault(f"ws-{number // A_CONNECTION}", []).append(CandleUpdate(candle, open_ms + 30_000))
    return pushes


def hours(engine: Engine, market: Market, count: int) -> list[tuple[float, float]]:
    """For each hour that closes: milliseconds in all, and of its longest piece."""
    found = []
    open_ms = START_MS - START_MS % HOUR_MS
    for number in range(count * 60):
        minute_ms = open_ms + number * MINUTE_MS
        for source, pushes in minute_of(market, minute_ms).items():
            engine.take(Batch(source, 0, minute_ms + 30_000, pushes))
        gc.collect()
        pieces = []
        for source in minute_of(market, minute_ms):
            started_s = time.process_time()
            engine.take(Batch(source, 0, minute_ms + MINUTE_MS + 2_100, []))
            pieces.append((time.process_time() - started_s) * 1e3)
        if number % 60 == 59:
            found.append((sum(pieces), max(pieces)))
    return found


def whole_market() -> bytes:
    """A frame as large as the first one of the exchange."""
    rows = [
        {
            "amount24": 157589.74, "contractId": 1156, "fairPrice": 0.04116, "high24Price": 0.04297,
            "indexPrice": 0.04119, "lastPrice": 0.04114, "lower24Price": 0.04068, "maxBidPrice": 0.04942,
            "minAskPrice": 0.03295, "riseFallRate": -0.0292, "symbol": name, "timestamp": START_MS, "volume24": 376505,
        }
        for name in names(ROWS)
    ]  # fmt: skip
    return msgspec.json.encode({"channel": "push.tickers", "data": rows, "ts": START_MS})


def frames(engine: Engine, count: int) -> list[tuple[float, float]]:
    """Milliseconds to decode and merge a frame of the whole market, and to decode it."""
    frame = whole_market()
    found = []
    for number in range(count):
        volume = b'"volume24":%d' % (376_506 + number)
        later = frame.replace(b'"volume24":376505', volume).replace(
            b"%d" % START_MS, b"%d" % (START_MS + number * 2_000)
        )
        started_s = time.process_time()
        event = decode(later)
        decoded_s = time.process_time()
        engine.take(Batch("ws-0", 0, 0, [event]))  # type: ignore[list-item]
        found.append(((time.process_time() - started_s) * 1e3, (decoded_s - started_s) * 1e3))
    return found


def row(table: Table, what: str, taken_ms: list[float], goal: str) -> None:
    table.add_row(what, f"{statistics.median(taken_ms):.2f}", f"{min(taken_ms):.2f} - {max(taken_ms):.2f}", goal)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--symbols", type=int, default=1_061)
    arguments = parser.parse_args()
    pin(0)
    market = Market(arguments.symbols)
    with tempfile.TemporaryDirectory() as folder:
        engine = warm_bot(market, folder).engine
        merged = frames(engine, arguments.runs * 4)
        closed = hours(engine, market, arguments.runs)
    title = f"Minute and market: {arguments.symbols} symbols, {arguments.runs} runs, ms of processor time"
    table = Table(title=title, box=None, title_justify="left")
    for column in ("", "median", "min - max", "goal"):
        table.add_column(column, justify="left" if not column else "right")
    row(table, f"whole-market frame of {ROWS:,} rows, decoded and merged", [all_ for all_, _ in merged], "< 1")
    row(table, "  of it decoding", [part for _, part in merged], "")
    row(table, "a minute closes on four timeframes, with detection", [all_ for all_, _ in closed], "< 50")
    row(table, "  its longest piece, for which the loop is held", [part for _, part in closed], "< 10")
    show(table)


if __name__ == "__main__":
    main()
