"""What recording costs, and how fast a recording is replayed: one table per run.

    python benchmarks/replay.py [--pairs 800] [--minutes 5] [--activity 1]

A watch of the built-in exchange is recorded in virtual time, through the same sessions, engine and writer as live. What
is measured is processor time, of the loop (making records and handing them over) and of the writing thread (packing,
compressing and writing): its share of a core is that time by the time of the market. The market's traffic stands beside
it, because cost and size follow it.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from perpwatch.app.bot import Bot, adapter_for
from perpwatch.app.config import Config
from perpwatch.app.engine import Command, Step
from perpwatch.app.recorder import recorder
from perpwatch.app.replay import Replay, Replayed
from perpwatch.exchanges.mexc.codec import decode
from perpwatch.feed.recording import RecordingCounters, RecordingFile, Taken, recording_files
from perpwatch.model import Batch
from perpwatch.sim import DEFAULT_START_MS, Clock, SimulatedNetwork, build, run_virtual

#: Of each symbol at the start: less than live, so that the start is over within the minutes that are measured.
HISTORY_MINUTES = 120


class Spent:
    """Processor time of the calls that were wrapped."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0

    def step(self, call: Callable[[Batch, Step], None]) -> Callable[[Batch, Step], None]:
        def timed(batch: Batch, step: Step) -> None:
            began_s = time.thread_time()
            call(batch, step)
            self.seconds += time.thread_time() - began_s

        return timed

    def command(self, call: Callable[[Command], None]) -> Callable[[Command], None]:
        def timed(command: Command) -> None:
            began_s = time.thread_time()
            call(command)
            self.seconds += time.thread_time() - began_s

        return timed


async def record(folder: Path, pairs: int, minutes: float, activity: float) -> tuple[RecordingCounters, Spent]:
    """A recorded watch; what it wrote, and what that took of the loop."""
    clock, spent = Clock.starting_at(DEFAULT_START_MS), Spent()
    network = SimulatedNetwork(build(1, pairs, activity=activity), clock, seed=1)
    # In virtual time minutes pass in seconds, so more may wait than a disk must be given time for.
    overrides = {
        "recording": {"folder": str(folder), "max_waiting_megabytes": 2_000.0},
        "rest": {"history_minutes": HISTORY_MINUTES},
    }
    config = Config().with_overrides(overrides)
    async with network:
        with recorder(config, None, clock) as recording:
            dial, get = recording.ports(network.dial, network.get)
            bot = Bot(config, adapter_for(config), dial, get, clock, random.Random(1).random)
            recording.attach(bot)
            bot.on_step, bot.on_command = spent.step(bot.on_step), spent.command(bot.on_command)
            await bot.run(minutes * 60.0)
    return recording.writer.counters, spent


def settled(folder: Path, from_ns: int) -> tuple[int, int, int]:
    """Frames, bytes as received and bytes written after a time: what goes on once the history is loaded."""
    frames = received = written = 0
    for path in recording_files(folder):
        file = RecordingFile(path)
        written += sum(chunk.length for chunk in file.chunks() if chunk.first_ns >= from_ns)
        for record in file.records(from_ns):
            if isinstance(record, Taken) and record.received_time_ns >= from_ns:
                sizes = [len(frame) for frame in (*record.frames, *record.asides) if frame]
                frames, received = frames + len(sizes), received + sum(sizes)
    return frames, received, written


def replayed(folder: Path) -> tuple[Replayed, float, float]:
    replay = Replay(recording_files(folder), decode)
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    result = replay.run()
    return result, time.perf_counter() - wall_s, time.process_time() - cpu_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=800)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--activity", type=float, default=1.0)
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 110)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        counters, spent = run_virtual(record(folder, options.pairs, options.minutes, options.activity))
        market_s = options.minutes * 60.0
        begin_s = market_s * 2.0 / 3.0
        frames, received, written = settled(folder, DEFAULT_START_MS * 1_000_000 + int(begin_s * 1e9))
        settled_s = market_s - begin_s
        result, wall_s, cpu_s = replayed(folder)

    table = Table(title=f"{options.pairs} symbols, {options.minutes:g} minutes, activity {options.activity:g}")
    table.add_column("figure")
    table.add_column("value", justify="right")
    rows: list[tuple[str, str]] = [
        ("frames a second, last third", f"{frames / settled_s:,.0f}"),
        ("frames as received, last third", f"{received / settled_s * 86_400 / 1e9:.2f} GB/day"),
        ("recorded, last third, with REST", f"{written / settled_s * 86_400 / 1e9:.2f} GB/day"),
        ("recorded by all", f"{counters.written_bytes / 1e6:.1f} MB"),
        ("CPU of the loop for recording", f"{spent.seconds / market_s:.2%} of a core"),
        ("CPU of the writing thread", f"{counters.busy_s / market_s:.2%} of a core"),
        ("records left out", f"{counters.lost}"),
        ("replay, frames a second", f"{result.frames / wall_s:,.0f}"),
        ("replay, frames a CPU second", f"{result.frames / cpu_s:,.0f}"),
        ("replay, hours of market a minute", f"{result.seconds / 3_600 / (wall_s / 60):.2f}"),
        ("findings compared / differing", f"{result.compared} / {result.differing}"),
    ]
    for row in rows:
        table.add_row(*row)
    console.print(table)


if __name__ == "__main__":
    main()
