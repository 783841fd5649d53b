"""What closing a minute costs, and how long the event loop is held by it; and frames of the whole market.

    python benchmarks/minute.py [--runs 5] [--symbols 1061]

The minute is the last of an hour, so that all four timeframes close. It closes connection by connection, as each
proves that the minute is over: one batch is one piece of work between two turns of the loop.

In a frame the volume of each contract has risen, and since the frame before each watched one has pushed its candle, as
in a living market; the pushes are not counted. No real frame is that hard: the exchange's first one has all contracts,
and those that follow every two seconds the 300 to 923 that have changed.
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
CHANGED_ROWS = 600
PUSHED_MS = 30_000  # from the start of a minute to the last push


def minute_of(market: Market, open_ms: int, share: float = 1.0) -> dict[str, list[CandleUpdate]]:
    """One push for each symbol, by source, when a share of the minute has been traded."""
    pushes: dict[str, list[CandleUpdate]] = {}
    for number, one in enumerate(market.symbols):
        price = one.price
        prices = (price, price * 1.001, price * 0.999, price)
        traded = share * 4e6 / price, share * 40_000.0
        candle = RunningCandle(one.name, Timeframe.Min1, open_ms // 1_000, *prices, *traded, *prices)
        update = CandleUpdate(candle, open_ms + int(share * PUSHED_MS))
        pushes.setdefault(f"ws-{number // A_CONNECTION}", []).append(update)
    return pushes


def hours(engine: Engine, market: Market, count: int) -> list[tuple[float, float]]:
    """For each hour that closes: milliseconds in all, and of its longest piece."""
    found = []
    open_ms = START_MS - START_MS % HOUR_MS
    for number in range(count * 60):
        minute_ms = open_ms + number * MINUTE_MS
        for source, pushes in minute_of(market, minute_ms).items():
            engine.take(Batch(source, 0, minute_ms + PUSHED_MS, pushes))
        gc.collect()
        pieces = []
        for source in minute_of(market, minute_ms):
            started_s = time.process_time()
            engine.take(Batch(source, 0, minute_ms + MINUTE_MS + 2_100, []))
            pieces.append((time.process_time() - started_s) * 1e3)
        if number % 60 == 59:
            found.append((sum(pieces), max(pieces)))
    return found


def market_frame(rows: int) -> bytes:
    """A frame of the whole-market ticker."""
    encoded = [
        {
            "amount24": 157589.74, "contractId": 1156, "fairPrice": 0.04116, "high24Price": 0.04297,
            "indexPrice": 0.04119, "lastPrice": 0.04114, "lower24Price": 0.04068, "maxBidPrice": 0.04942,
            "minAskPrice": 0.03295, "riseFallRate": -0.0292, "symbol": name, "timestamp": START_MS, "volume24": 376505,
        }
        for name in names(rows)
    ]  # fmt: skip
    return msgspec.json.encode({"channel": "push.tickers", "data": encoded, "ts": START_MS})


def frames(engine: Engine, market: Market, count: int) -> dict[int, list[tuple[float, float]]]:
    """Milliseconds to decode and merge a frame, and to decode it, by its rows; all within one minute."""
    found: dict[int, list[tuple[float, float]]] = {ROWS: [], CHANGED_ROWS: []}
    frame_of = {rows: market_frame(rows) for rows in found}
    open_ms = START_MS - START_MS % HOUR_MS
    for number in range(1, 2 * count + 1):
        share = number / (2 * count + 1)
        for source, pushes in minute_of(market, open_ms, share).items():
            engine.take(Batch(source, 0, 0, pushes))
        rows = (CHANGED_ROWS, ROWS)[number % 2]
        now_ms = b"%d" % (open_ms + int(share * PUSHED_MS))
        volume = b'"volume24":%d' % (376_505 + number)
        frame = frame_of[rows].replace(b'"volume24":376505', volume).replace(b"%d" % START_MS, now_ms)
        started_s = time.process_time()
        event = decode(frame)
        decoded_s = time.process_time()
        engine.take(Batch("ws-0", 0, 0, [event]))  # type: ignore[list-item]
        found[rows].append(((time.process_time() - started_s) * 1e3, (decoded_s - started_s) * 1e3))
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
        merged = frames(engine, market, arguments.runs * 4)
        closed = hours(engine, market, arguments.runs)
    title = f"Minute and market: {arguments.symbols} symbols, {arguments.runs} runs, ms of processor time"
    table = Table(title=title, box=None, title_justify="left")
    for column in ("", "median", "min - max", "goal"):
        table.add_column(column, justify="left" if not column else "right")
    for rows, taken in merged.items():
        goal = "< 1" if rows == ROWS else ""
        row(table, f"whole-market frame of {rows:,} rows, decoded and merged", [all_ for all_, _ in taken], goal)
        row(table, "  of it decoding", [part for _, part in taken], "")
    row(table, "a minute closes on four timeframes, with detection", [all_ for all_, _ in closed], "< 50")
    row(table, "  its longest piece, for which the loop is held", [part for _, part in closed], "< 10")
    show(table)


if __name__ == "__main__":
    main()
