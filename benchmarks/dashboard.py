"""What looking at the watch costs it: time until the page is there, CPU of one open page, latency with 50 readers.

    .venv/bin/python benchmarks/dashboard.py [--pairs 1061] [--seconds 10] [--rounds 3]

A demonstration of so many contracts runs in a process of its own. Each state is measured in turn, several rounds of
them, and medians are compared, because the start of a watch costs more than what follows: nobody looks; one page is
open; 50 readers follow the market, five of which read nothing. CPU is of the whole process, the built-in exchange
included, so only differences are the page's; p99 is of the feed latency of /metrics, from the exchange's stamp to
arrival.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from statistics import median

import aiohttp
from playwright.async_api import async_playwright

READERS, SLOW = 50, 5
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
BUCKET = re.compile(r'^perpwatch_feed_latency_seconds_bucket\{le="([^"]+)"\} (\S+)$', re.MULTILINE)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def buckets(metrics: str) -> dict[float, float]:
    with urllib.request.urlopen(metrics, timeout=10) as answer:
        return {float(bound): float(count) for bound, count in BUCKET.findall(answer.read().decode())}


def p99_s(before: dict[float, float], after: dict[float, float]) -> float:
    """Interpolated within its bucket."""
    counts = {bound: after[bound] - before[bound] for bound in sorted(after)}
    wanted, lower, below = 0.99 * max(counts.values()), 0.0, 0.0
    for bound, count in counts.items():
        if count >= wanted:
            return lower + (min(bound, 60.0) - lower) * (wanted - below) / max(count - below, 1.0)
        lower, below = bound, count
    return lower


async def measured(pid: int, metrics: str, seconds: float) -> tuple[float, float]:
    """CPU in points of one core, and p99 of the latency in seconds."""
    cpu, before, began_s = cpu_s(pid), await asyncio.to_thread(buckets, metrics), time.monotonic()
    await asyncio.sleep(seconds)
    points = 100 * (cpu_s(pid) - cpu) / (time.monotonic() - began_s)
    return points, p99_s(before, await asyncio.to_thread(buckets, metrics))


async def read_all(url: str, is_slow: bool) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as socket:
        if is_slow:
            await asyncio.sleep(3_600)
        async for _ in socket:
            pass


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=1_061)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        ports = {"PERPWATCH_DASHBOARD__PORT": "0", "PERPWATCH_HEALTH__PORT": "0"}
        command = [sys.executable, "-c", "from perpwatch.app.cli import main; main()", "demo", "--format", "log"]
        with log.open("w") as errors:
            process = subprocess.Popen(  # noqa: ASYNC220
                [*command, "--pairs", str(options.pairs)], stderr=errors, env=os.environ | ports
            )
        try:
            while "dashboard at" not in log.read_text():  # noqa: ASYNC110 - a file sets no event
                await asyncio.sleep(0.2)
            url = re.search(r"dashboard at (http\S+)", log.read_text())
            metrics = re.search(r"metrics at (http\S+)", log.read_text())
            assert url
            assert metrics
            await asyncio.sleep(15)  # connections and the first histories
            market = url[1].replace("http", "ws") + "/api/v1/market"
            found: dict[str, list[tuple[float, float]]] = {"nobody looks": [], "one open page": [], "50 readers": []}
            opened_s: list[float] = []
            async with async_playwright() as playwright:
                browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
                for _ in range(options.rounds):
                    found["nobody looks"].append(await measured(process.pid, metrics[1], options.seconds))
                    page = await browser.new_page(viewport={"width": 1400, "height": 900})
                    began_s = time.monotonic()
                    await page.goto(url[1])
                    await page.wait_for_function("Number(document.body.dataset.rows) > 0")
                    opened_s.append(time.monotonic() - began_s)
                    found["one open page"].append(await measured(process.pid, metrics[1], options.seconds))
                    await page.close()
                    readers = [asyncio.create_task(read_all(market, number < SLOW)) for number in range(READERS)]
                    await asyncio.sleep(2)
                    found["50 readers"].append(await measured(process.pid, metrics[1], options.seconds))
                    for reader in readers:
                        reader.cancel()
                    await asyncio.gather(*readers, return_exceptions=True)
                await browser.close()
            print(f"page with rows after {median(opened_s):.2f} s (median of {options.rounds})")
            cpu_alone, p99_alone = (median(values) for values in zip(*found["nobody looks"], strict=True))
            for name, measures in found.items():
                cpu, p99 = (median(values) for values in zip(*measures, strict=True))
                each = ", ".join(f"{1_000 * one:.0f}" for _, one in measures)
                print(
                    f"{name:14} {cpu:5.1f} points of CPU ({cpu - cpu_alone:+.1f}), "
                    f"p99 {1_000 * p99:.0f} ms ({p99 / p99_alone - 1:+.0%}; each round {each})"
                )
        finally:
            process.terminate()
            process.wait(20)


asyncio.run(main())
