"""How long a signal takes: from the push that makes it, readable on the socket, to whoever is told.

    python benchmarks/latency.py [--seconds 20] [--symbols 1061]

The market sends at a steady rate, and 100 times a second a push that every detector must notice: a contract whose price
jumps and whose volume doubles, again and again. The server notes when it hands the push to the socket, the program
when it hands the signal over; both read the same monotonic clock. What waits in the socket because the program is busy
counts. Everything is on: store, metrics, health, API. "Open" is with the dashboard's page in a browser (Chromium,
without a window), or with a reader of the market's WebSocket where there is no browser, for as long as is measured.

The last lines are the pauses of the garbage collector: those of the start, which ends with telling it to leave alone
what stays, and those meanwhile, which are part of the figures above.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from contender import pin
from harness import SERVER_CORE, Flood, flooding, own, show, started
from playwright.sync_api import sync_playwright
from program import Flow
from rich.table import Table

RATES = (1_000, 5_000, 20_000)
WILD_A_SECOND = 100
#: Learned before, to be ready soon; how long a signal takes does not depend on it.
HISTORY_MINUTES = 400
#: For so long after the last push missing signals are waited for.
SETTLE_S = 15.0
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]


@dataclass(slots=True)
class Measure:
    """One rate, with or without a page."""

    rate: int
    is_open: bool
    taken_ms: list[float] = field(default_factory=list)
    missed: int = 0  # wild pushes without a signal
    late_ms: float = 0.0  # of the server, at worst
    cpu: float = 0.0  # share of a core
    pauses: list[tuple[int, float]] = field(default_factory=list)  # of the collector: generation, ms


class Watch:
    """The program as a contender that is asked what it has told."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def tell(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("tell\n")
        self._process.stdin.flush()
        while not (line := self._process.stdout.readline()).startswith("{"):
            if not line:
                raise RuntimeError("the program has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


def measured(flood: Flood, watch: Watch, measure: Measure, seconds: float, first: int, symbols: int) -> None:
    before = watch.tell()
    streamed = flood.stream("perpwatch", measure.rate, seconds, wild=WILD_A_SECOND, first=first, symbols=symbols)
    told: dict[tuple[str, int], int] = {}
    began_s, cpu_s = time.monotonic(), 0.0
    # A program that has fallen behind is waited for: what it tells late is no less told.
    while len(measure.taken_ms) < len(streamed.wild) and time.monotonic() - began_s < SETTLE_S:
        time.sleep(0.5)
        after = watch.tell()
        cpu_s = cpu_s or after["cpu_s"] - before["cpu_s"]
        measure.pauses += [(generation, ms) for generation, ms in after["pauses_ms"]]
        told |= {(symbol, time_ms): now_ns for symbol, time_ms, now_ns in after["signals"]}
        measure.taken_ms = [
            (told[symbol, time_ms] - sent_ns) / 1e6
            for symbol, time_ms, sent_ns in streamed.wild
            if (symbol, time_ms) in told
        ]
    measure.missed = len(streamed.wild) - len(measure.taken_ms)
    measure.late_ms = streamed.late_s * 1e3
    measure.cpu = cpu_s / (seconds + 0.5)


@contextmanager
def page_open(address: str) -> Iterator[str]:
    """The dashboard in a browser, or its WebSocket read by a program; yields which."""
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    if browser_path is None:
        with reading(f"{address.replace('http', 'ws')}/api/v1/market"):
            yield "a reader of the WebSocket"
        return
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.goto(address)
        page.wait_for_function("Number(document.body.dataset.rows) > 0")
        yield "the page in Chromium"
        browser.close()


@contextmanager
def reading(url: str) -> Iterator[None]:
    is_over = threading.Event()

    async def read() -> None:
        async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as socket:
            while not is_over.is_set():
                await socket.receive(timeout=5.0)

    thread = threading.Thread(target=lambda: asyncio.run(read()))
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each of the six")
    parser.add_argument("--symbols", type=int, default=1_061)
    parser.add_argument("--runs", type=int, default=1, help="not used: the percentiles are of all pushes")
    arguments = parser.parse_args()
    measures = [Measure(rate, is_open) for is_open in (False, True) for rate in RATES]
    share = arguments.symbols // len(measures)
    pin(SERVER_CORE)  # and the browser with it
    program = own("perpwatch", arguments.symbols, 0, history_minutes=HISTORY_MINUTES)
    with flooding(arguments.symbols) as flood, started(program, flood.port, 400.0) as process:
        if program.failure:
            raise SystemExit(program.failure)
        watch = Watch(process)
        first = watch.tell()
        address = first["address"]
        flood.stream("perpwatch", 1_000, 5.0)
        for number, measure in enumerate(measures[:3]):
            measured(flood, watch, measure, arguments.seconds, number * share, share)
        with ExitStack() as stack:
            with Flow(flood, 1_000):  # connections that bring nothing would be replaced
                viewer = stack.enter_context(page_open(address))
            for number, measure in enumerate(measures[3:], 3):
                measured(flood, watch, measure, arguments.seconds, number * share, share)
    title = f"Latency: from socket to signal, {arguments.symbols} symbols, ms; open: {viewer}"
    table = Table(title=title, box=None, title_justify="left")
    for column in ("frames/s", "page", "signals", "p50", "p99", "p99.9", "max", "missed", "CPU, %", "server late"):
        table.add_column(column, justify="right")
    for one in measures:
        table.add_row(
            f"{one.rate:,}",
            "open" if one.is_open else "closed",
            f"{len(one.taken_ms):,}",
            *(f"{percentile(one.taken_ms, part):.2f}" for part in (0.5, 0.99, 0.999, 1.0)),
            f"{one.missed}",
            f"{100.0 * one.cpu:.0f}",
            f"{one.late_ms:.0f}",
        )
    show(table)
    pauses = Table(title="Pauses of the garbage collector", box=None, title_justify="left")
    for column in ("", "generation", "pauses", "median, ms", "max, ms"):
        pauses.add_column(column, justify="right" if column else "left")
    meanwhile = [pause for one in measures for pause in one.pauses]
    for name, taken in (("while the histories are learned", first["pauses_ms"]), ("while measured", meanwhile)):
        for generation in range(3):
            taken_ms = [ms for number, ms in taken if number == generation]
            figures = [f"{statistics.median(taken_ms):.2f}", f"{max(taken_ms):.2f}"] if taken_ms else ["", ""]
            pauses.add_row(name, f"{generation}", f"{len(taken_ms)}", *figures)
    show(pauses)


if __name__ == "__main__":
    main()
