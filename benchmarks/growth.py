"""The same figures at 100, 800, 2,000 and 10,000 symbols: what grows with the market, and how.

    python benchmarks/growth.py [--runs 5] [--symbols 100 800 2000 10000]

For each size: the whole program beside the loop that only receives and decodes, in turn on the same flood; the close of
a minute on four timeframes, on processor time and without sockets; and what the program holds in memory after the last
flood. Histories are of two hours, so that 10,000 of them are learned in a minute: memory.py has the figure with days.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile

from contender import pin
from flood import Market
from harness import CLIENT_CORE, flooding, own, race, show
from minute import hours
from rich.table import Table
from stages import warm_bot

SIZES = (100, 800, 2_000, 10_000)
HISTORY_MINUTES = 120
FRAMES = 300_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--symbols", type=int, nargs="+", default=SIZES)
    arguments = parser.parse_args()
    title = f"Growth: {arguments.runs} runs, medians; {HISTORY_MINUTES} minutes of history"
    table = Table(title=title, box=None, title_justify="left")
    columns = ("symbols", "frames/s of a core", "bare loop", "ratio", "min - max", "minute closes, ms", "RSS, MB")
    for column in columns:
        table.add_column(column, justify="right")
    for symbols in arguments.symbols:
        bare = own("bare", symbols, FRAMES)
        program = own("perpwatch", symbols, FRAMES, history_minutes=HISTORY_MINUTES)
        with flooding(symbols) as flood:
            race([bare, program], flood, arguments.runs)
        if bare.failure or program.failure:
            table.add_row(f"{symbols:,}", f"failed: {program.failure or bare.failure}"[:100])
            continue
        ratios = [own / other for own, other in zip(program.cpu_rates, bare.cpu_rates, strict=True)]
        table.add_row(
            f"{symbols:,}",
            f"{statistics.median(program.cpu_rates):,.0f}",
            f"{statistics.median(bare.cpu_rates):,.0f}",
            f"{statistics.median(ratios):.2f}",
            f"{min(ratios):.2f} - {max(ratios):.2f}",
            f"{minute_ms(symbols, arguments.runs):.1f}",
            f"{program.results[-1]['rss_mb']:.0f}",
        )
    show(table)


def minute_ms(symbols: int, runs: int) -> float:
    """The median close of the last minute of an hour."""
    pin(CLIENT_CORE)
    market = Market(symbols)
    with tempfile.TemporaryDirectory() as folder:
        bot = warm_bot(market, folder, HISTORY_MINUTES)
        return statistics.median(all_ms for all_ms, _ in hours(bot.engine, market, min(runs, 3)))


if __name__ == "__main__":
    main()
