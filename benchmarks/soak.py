"""Half an hour of ``perpwatch run`` on a steady market: a line a minute with what it holds in memory.

    python benchmarks/soak.py [--minutes 30] [--rate 1000] [--symbols 1061] [--days 1.375]

The command itself with its defaults: store, health, API and pages on. The clock is the real one; minutes close, candles
are stored and detectors judge as on the exchange. The last line is the slope of the second half, in MB an hour, fitted
by least squares. Not part of `make bench`, which has no half hour.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from harness import flooding
from program import Flow, flood_settings, watching

REQUESTS_PER_SECOND = 20.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--minutes", type=int, default=30)
    parser.add_argument("--rate", type=int, default=1_000, help="frames a second")
    parser.add_argument("--symbols", type=int, default=1_061)
    parser.add_argument("--days", type=float, default=1.375, help="of history at the start, at most 1.38")
    arguments = parser.parse_args()
    symbols, history = arguments.symbols, int(arguments.days * 1_440)
    with flooding(symbols) as flood:
        settings = flood_settings(flood.port, symbols, REQUESTS_PER_SECOND, history_minutes=history)
        with watching(settings, core=None) as program, Flow(flood, arguments.rate):
            program.wait('contracts{state="warm"}', symbols, 120.0 + 10.0 * symbols / REQUESTS_PER_SECOND)
            print(f"{symbols} symbols warm, {arguments.rate:,} frames a second", flush=True)
            print(f"{'minute':>6}{'RSS, MB':>10}{'CPU, %':>8}{'signals':>9}{'finals':>10}", flush=True)
            began_s = time.monotonic()
            cpu_s, rows = program.cpu_s(), [program.rss_mb()]
            for minute in range(1, arguments.minutes + 1):
                time.sleep(max(0.0, began_s + 60.0 * minute - time.monotonic()))
                cpu_s, used_s = program.cpu_s(), program.cpu_s() - cpu_s
                rows.append(program.rss_mb())
                counts = program.metrics()
                print(
                    f"{minute:>6}{rows[-1]:>10.1f}{100.0 * used_s / 60.0:>8.1f}"
                    f"{counts.get('signals_total', 0.0):>9,.0f}{counts.get('candle_finals_total', 0.0):>10,.0f}",
                    flush=True,
                )
    half = rows[len(rows) // 2 :]
    if len(half) > 2:
        print(f"slope of the second half: {60.0 * np.polyfit(range(len(half)), half, 1)[0]:+.2f} MB an hour")


if __name__ == "__main__":
    main()
