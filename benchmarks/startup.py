"""How long ``perpwatch run`` takes until it sees everything, beside what the exchange's limits allow at best.

    python benchmarks/startup.py [--symbols 1061] [--scale 1]

The built-in exchange (``perpwatch sim``) runs in a process of its own, and the command itself against it, with its
defaults. Limits are those of MEXC Futures (dials a second, subscribe commands a second of a connection, REST requests a
second), each multiplied by ``--scale`` to measure what is left when limits are not in the way; 1 is as it is outside.
At best, all commands are sent and all histories read without a pause, and nothing else takes time: the least that a
start can take.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from harness import show
from program import COMMAND, Program, watching
from rich.table import Table

from perpwatch.exchanges.mexc.limits import LIMITS

#: Contracts, tickers and the time, before the first history.
FIRST_REQUESTS = 3


@contextmanager
def exchange(symbols: int) -> Iterator[tuple[str, str]]:
    """The built-in exchange; yields its addresses for WebSocket and REST."""
    command = [*COMMAND, "sim", "--port", "0", "--pairs", str(symbols)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        addresses = json.loads(process.stdout.readline())
        faults = urllib.request.Request(  # a scaled start asks more often than the exchange would allow
            addresses["rest"] + "/sim/faults", data=json.dumps({"rest_limits": False}).encode(), method="POST"
        )
        urllib.request.urlopen(faults, timeout=30).read()
        yield addresses["websocket"], addresses["rest"]
    finally:
        process.terminate()
        process.wait(30)


def streams(metrics: dict[str, float], state: str) -> list[int]:
    """How many streams of each connection are ``confirmed`` or ``wanted``."""
    mark = f'state="{state}"'
    return [int(value) for name, value in metrics.items() if name.startswith("subscriptions{") and mark in name]


def started(program: Program, symbols: int, limit_s: float) -> tuple[dict[str, float], list[int]]:
    """Seconds from the start of the process to each mark, and the streams of each connection."""
    began_s, marks, wanted = time.monotonic(), dict[str, float](), list[int]()
    while time.monotonic() - began_s < limit_s and len(marks) < 4:
        time.sleep(0.2)
        if program.process.poll() is not None:
            raise RuntimeError(f"the program ended: {program.log.read_text()[-500:]}")
        if not program.address("metrics"):
            continue
        now_s = time.monotonic() - began_s
        marks.setdefault("serves its health", now_s)
        metrics = program.metrics()
        have, want = streams(metrics, "confirmed"), streams(metrics, "wanted")
        if sum(have):
            marks.setdefault("first stream confirmed", now_s)
        if sum(have) >= sum(want) > sum(wanted):
            marks["all streams confirmed"], wanted = now_s, want
        if metrics.get('contracts{state="warm"}', 0.0) >= symbols:
            marks.setdefault("all contracts warm", now_s)
    return marks, wanted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--symbols", type=int, default=1_061)
    parser.add_argument("--scale", type=float, default=1.0, help="of the exchange's limits")
    parser.add_argument("--runs", type=int, default=1, help="not used: limits decide, not chance")
    arguments = parser.parse_args()
    symbols, scale = arguments.symbols, arguments.scale
    requests, commands = LIMITS.requests_per_second * scale, LIMITS.commands_per_second * scale
    least_warm_s = (FIRST_REQUESTS + symbols) / requests
    with exchange(symbols) as (websocket_url, rest_url):
        settings = {
            "websocket": {
                "base_url": websocket_url,
                "commands_per_second": commands,
                "dials_per_second": LIMITS.dials_per_second * scale,
            },
            "rest": {"base_url": rest_url, "requests_per_second": requests},
        }
        with watching(settings) as program:
            marks, wanted = started(program, symbols, 60.0 + 3.0 * least_warm_s)
    # The fullest connection is dialled first.
    dials = LIMITS.dials_per_second * scale
    ends_s = [number / dials + count / commands for number, count in enumerate(sorted(wanted, reverse=True))]
    title = f"Start: {symbols} contracts, {sum(wanted)} streams, limits of the exchange × {scale:g}"
    table = Table(title=title, box=None, title_justify="left")
    for column in ("", "seconds", "at best", "ratio"):
        table.add_column(column, justify="left" if not column else "right")
    at_best = {"all streams confirmed": max(ends_s, default=0.0), "all contracts warm": least_warm_s}
    for name in ("serves its health", "first stream confirmed", "all streams confirmed", "all contracts warm"):
        least_s = at_best.get(name, 0.0)
        if name in marks:
            best = [f"{least_s:.1f}", f"{marks[name] / least_s:.2f}"] if least_s else ["", ""]
            table.add_row(name, f"{marks[name]:.1f}", *best)
        else:
            table.add_row(name, "not reached", f"{least_s:.1f}", "")
    show(table)


if __name__ == "__main__":
    main()
