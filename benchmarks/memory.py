"""What ``perpwatch run`` holds in memory, and what of a core it needs, at the rate of an active market.

    python benchmarks/memory.py [--symbols 1061] [--days 5] [--minutes 2]

The command itself runs, with its defaults: store, health, API and pages on. Detectors remember five days, and the
exchange tells 33 hours of them; so the watch is one that starts again, with a store that has kept what is older. The
store is filled first, hour by hour as a watch would, with candles of all analysed timeframes drawn as the flood server
draws its histories. What the detectors then know is what they would after five days of watching; a contract counts as
warm when it has learned both. Histories are read at 40 requests a second instead of the exchange's 5, to be done in
minutes. Then the market sends 5,000 frames a second, and every ten seconds 20,000 more at once. It is flat when the
last rows of the table agree.

RSS is all that the system counts for the process, its libraries included, in MB of 10^6 bytes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import numpy as np
from flood import MINUTE_TURNOVER, SPREAD, START_MS, Market
from harness import flooding, show
from program import Flow, Program, flood_settings, watching
from rich.table import Table

from perpwatch.model import ANALYSED_TIMEFRAMES, MINUTE_MS, Finality, Timeframe, Trust
from perpwatch.store import HOUR_MS, TRUST_CODES, Database
from perpwatch.store.schema import FINALITY_CODES, TIMEFRAME_CODES, candles

REQUESTS_PER_SECOND = 40.0
RATE, BURST, BURST_EVERY_S = 5_000, 20_000, 10.0
ROWS = 4
HISTORY_MINUTES = 1_980
#: So much of what the histories will tell is kept as well: they are read some minutes of the market later.
OVERLAP_HOURS = 2
INSERT = f"INSERT INTO candles VALUES ({', '.join('?' * len(candles.columns))})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--symbols", type=int, default=1_061)
    parser.add_argument("--days", type=float, default=5.0)
    parser.add_argument("--minutes", type=float, default=2.0, help="of the active market")
    parser.add_argument("--runs", type=int, default=1, help="not used: one run is one table")
    arguments = parser.parse_args()
    symbols, minutes = arguments.symbols, int(arguments.days * 1_440)
    history = min(minutes, HISTORY_MINUTES)
    title = (
        f"Memory: {symbols} symbols, {arguments.days:g} days known, store, API and pages on; goal: below 200 MB, flat"
    )
    table = Table(title=title, box=None, title_justify="left")
    for column in ("", "RSS, MB", "peak, MB", "CPU, % of a core", "frames/s"):
        table.add_column(column, justify="left" if not column else "right")
    with tempfile.TemporaryDirectory() as folder, flooding(symbols) as flood:
        settings = flood_settings(flood.port, symbols, REQUESTS_PER_SECOND, history_minutes=history, audit_share=0.0)
        settings["store"] = {"url": f"sqlite:///{Path(folder) / 'perpwatch.db'}"}
        if minutes > history:
            fill(settings["store"]["url"], symbols, minutes - history)
        with watching(settings) as program:
            program.wait("connections", 1, 60.0)
            row(table, "connected, nothing known", program, 0.0, 0.0)
            with Flow(flood, 500):
                wait_until_warm(program, symbols)
                row(table, "all warm", program, 0.0, 0.0)
            with Flow(flood, RATE, burst=BURST, every_s=BURST_EVERY_S) as flow:
                for number in range(ROWS):
                    cpu_s, frames, began_s = program.cpu_s(), flow.frames, time.monotonic()
                    time.sleep(arguments.minutes * 60.0 / ROWS)
                    seconds = time.monotonic() - began_s
                    share = (program.cpu_s() - cpu_s) / seconds
                    name = f"active market, {(number + 1) * arguments.minutes / ROWS:g} min"
                    row(table, name, program, share, (flow.frames - frames) / seconds)
            late_s = flow.late_s
    show(table)
    print(f"the server sent at most {late_s * 1e3:.0f} ms late")


def fill(address: str, symbols: int, minutes: int) -> None:
    """A store with so many minutes of each symbol from before the histories, and the longer candles of them."""
    began_s = time.monotonic()
    database = Database.open(address)
    end_ms = START_MS - HISTORY_MINUTES * MINUTE_MS + OVERLAP_HOURS * HOUR_MS
    end_ms -= end_ms % HOUR_MS
    first_ms = end_ms - OVERLAP_HOURS * HOUR_MS - minutes * MINUTE_MS
    known = Market(symbols).symbols
    names, prices = [one.name for one in known], np.array([one.first_price for one in known])
    draws = np.random.default_rng(1)
    opens = prices
    for hour_ms in range(first_ms - first_ms % HOUR_MS, end_ms, HOUR_MS):
        closes = (prices * (1.0 + 0.001 * draws.standard_normal((60, symbols)))).round(6)
        turnover = MINUTE_TURNOVER * draws.lognormal(0.0, SPREAD, (60, symbols))
        contracts = np.maximum(1, turnover / closes / 0.01).round()
        rows = [
            row
            for timeframe in ANALYSED_TIMEFRAMES
            for row in rolled_up(timeframe, names, hour_ms, np.vstack([opens, closes]), contracts)
        ]
        with database.writing() as connection:
            connection.exec_driver_sql(INSERT, rows)
        opens = closes[-1]
    database.close()
    print(f"{minutes / 60:.0f} hours of {symbols} symbols stored in {time.monotonic() - began_s:.0f} s", flush=True)


def rolled_up(
    timeframe: Timeframe, names: list[str], hour_ms: int, prices: np.ndarray, contracts: np.ndarray
) -> Iterator[tuple[object, ...]]:
    """The rows of an hour, oldest first, from the 61 prices that its minutes lie between."""
    known = repeat(FINALITY_CODES[Finality.SUCCESSOR]), repeat(TRUST_CODES[Trust.STREAMED])
    for first in range(0, 60, timeframe.minutes):
        inside = prices[first : first + timeframe.minutes + 1]
        volume = contracts[first : first + timeframe.minutes]
        four = [column.tolist() for column in (inside[0], inside.max(0), inside.min(0), inside[-1])]
        sums = [column.sum(0).tolist() for column in (volume, 0.01 * volume, 0.01 * volume * inside[1:])]
        key = repeat(TIMEFRAME_CODES[timeframe]), repeat(hour_ms + first * MINUTE_MS), names
        yield from zip(*key, *four, *sums, *known, *four, repeat(0), repeat(0), strict=False)


def wait_until_warm(program: Program, symbols: int) -> None:
    """All that is known is learned, and nothing waits for the store any more."""
    program.wait('contracts{state="warm"}', symbols, 120.0 + symbols)
    time.sleep(5.0)


def row(table: Table, what: str, program: Program, share: float, frames: float) -> None:
    cells = [f"{100.0 * share:.0f}" if share else "", f"{frames:,.0f}" if frames else ""]
    table.add_row(what, f"{program.rss_mb():.0f}", f"{program.peak_mb():.0f}", *cells)


if __name__ == "__main__":
    main()
