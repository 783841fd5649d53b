"""What ``perpwatch run`` holds in memory, and what of a core it needs, at the rate of an active market.

    python benchmarks/memory.py [--symbols 1061] [--days 5] [--minutes 2]

The command itself runs, with its defaults: store, health, API and pages on. The histories that it learns at its start
are made as long as the detectors remember (five days), so that its state is that of a watch that has run for so long.
They are read at 40 requests a second instead of the exchange's 5, to be done in minutes. Then the market sends 5,000
frames a second, and every ten seconds 20,000 more at once. It is flat when the last rows of the table agree.

RSS is all that the system counts for the process, its libraries included, in MB of 10^6 bytes.
"""

from __future__ import annotations

import argparse
import math
import time

from harness import flooding, show
from program import Flow, Program, flood_settings, watching
from rich.table import Table

REQUESTS_PER_SECOND = 40.0
RATE, BURST, BURST_EVERY_S = 5_000, 20_000, 10.0
ROWS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--symbols", type=int, default=1_061)
    parser.add_argument("--days", type=float, default=5.0)
    parser.add_argument("--minutes", type=float, default=2.0, help="of the active market")
    parser.add_argument("--runs", type=int, default=1, help="not used: one run is one table")
    arguments = parser.parse_args()
    symbols, minutes = arguments.symbols, int(arguments.days * 1_440)
    title = (
        f"Memory: {symbols} symbols, {arguments.days:g} days known, store, API and pages on; goal: below 200 MB, flat"
    )
    table = Table(title=title, box=None, title_justify="left")
    for column in ("", "RSS, MB", "peak, MB", "CPU, % of a core", "frames/s"):
        table.add_column(column, justify="left" if not column else "right")
    with flooding(symbols) as flood:
        settings = flood_settings(flood.port, symbols, REQUESTS_PER_SECOND, history_minutes=minutes, audit_share=0.0)
        with watching(settings) as program:
            program.wait("connections", 1, 60.0)
            row(table, "connected, nothing known", program, 0.0, 0.0)
            with Flow(flood, 500):
                wait_until_warm(program, symbols, minutes)
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


def wait_until_warm(program: Program, symbols: int, minutes: int) -> None:
    """All histories are learned, and nothing waits for the store any more."""
    requests = symbols * math.ceil(minutes / 2_000)
    program.wait('contracts{state="warm"}', symbols, 120.0 + 10.0 * requests / REQUESTS_PER_SECOND)
    time.sleep(5.0)


def row(table: Table, what: str, program: Program, share: float, frames: float) -> None:
    cells = [f"{100.0 * share:.0f}" if share else "", f"{frames:,.0f}" if frames else ""]
    table.add_row(what, f"{program.rss_mb():.0f}", f"{program.peak_mb():.0f}", *cells)


if __name__ == "__main__":
    main()
