"""What looking at the watch costs it: time until the page is there, CPU of an open page, latency with 50 readers.

    .venv/bin/python benchmarks/dashboard.py [--pairs 1061] [--seconds 10] [--rounds 8]

The built-in exchange, two watches of it, a browser and the readers are processes of their own. One watch has no
dashboard and is the control: what happens to it happens to the machine. The other is looked at, in turn, by nobody, by
one page in Chromium, and by 50 readers: 20 WebSockets with the market table, 15 WebSockets and 15 server-sent streams
with signals and alerts; five of them have stopped reading. Latency is of each event, from the exchange's stamp to
reception, above the smallest of the run. Rounds take turns and their events are put together, because the moods of a
machine last longer than a round.

Where other work makes the latency of the control jump, look at the table of the loop: it is measured in processor time,
which others cannot take. A round of the event loop holds up what arrives meanwhile; *wait* is how long a frame that
arrives at any moment waits for the round to end, in 99 of 100 cases. Beside the time until the page is there stands the
processor time of the browser, for the same reason.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

PATHS = 20 * ["/api/v1/market"] + 15 * ["/api/v1/stream"] + 15 * ["/api/v1/events"]
#: Which of them stop reading: three of the table, one of each other.
STUCK = (0, 1, 2, 20, 35)
TOKEN = "a-token-of-the-benchmark"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
ME = [sys.executable, str(Path(__file__).resolve())]
SETTINGS = {
    "PERPWATCH_DASHBOARD__PORT": "0",
    "PERPWATCH_DASHBOARD__TOKEN": TOKEN,
    "PERPWATCH_HEALTH__PORT": "0",
    "PERPWATCH_STORE__ENABLED": "false",
    "PERPWATCH_REST__REQUESTS_PER_SECOND": "60",
    "PERPWATCH_REST__HISTORY_MINUTES": "90",
    "PERPWATCH_REST__TICKER_INTERVAL": "10",
}


# --- A watch ---------------------------------------------------------------------------------------------------------


async def watch() -> None:
    """A watch that answers each line on standard input with what it cost and how late it heard since the last one."""
    from perpwatch.app.bot import Bot, adapter_for
    from perpwatch.app.config import load_config
    from perpwatch.app.engine import Step
    from perpwatch.app.health import watch_over
    from perpwatch.app.watch_cli import pages_of
    from perpwatch.feed.connection import SystemClock, dial_with
    from perpwatch.feed.rest import http_over_network
    from perpwatch.model import Batch, StreamUp

    config, delays_ms = load_config(), list[float]()
    rounds_ms = rounds_of(asyncio.get_running_loop())
    adapter = adapter_for(config)

    def on_step(batch: Batch, _step: Step) -> None:
        if batch.source == "rest":
            return
        for event in batch.events:
            if not isinstance(event, StreamUp) and (event_time_ms := getattr(event, "event_time_ms", 0)):
                delays_ms.append(batch.received_time_ns / 1e6 - event_time_ms)

    async with http_over_network() as get:
        bot = Bot(config, adapter, dial_with(), get, SystemClock(), random.Random().random, on_step)
        async with watch_over(bot, config.health, get) as monitor, pages_of(bot, monitor, config, "benchmark") as url:
            running = asyncio.create_task(bot.run())
            lines = asyncio.StreamReader()
            await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
            print(json.dumps({"url": url}), flush=True)
            while await lines.readline():
                used = resource.getrusage(resource.RUSAGE_SELF)
                answer = {
                    "cpu_s": used.ru_utime + used.ru_stime,
                    "warm": bot.progress.warm,
                    "delays_ms": delays_ms[:],
                    "rounds_ms": rounds_ms[:],
                }
                delays_ms.clear()
                rounds_ms.clear()
                print(json.dumps(answer), flush=True)
            bot.stop()
            await running


def rounds_of(loop: Any) -> list[float]:
    """Processor time of each round of a loop from now on, in ms: all that happens between two looks at its sockets."""
    rounds_ms, look, began_s = list[float](), loop._selector.select, time.thread_time()

    def select(timeout_s: float | None = None) -> Any:
        nonlocal began_s
        rounds_ms.append(1_000 * (time.thread_time() - began_s))
        found = look(timeout_s)
        began_s = time.thread_time()
        return found

    loop._selector.select = select
    return rounds_ms


def wait_ms(rounds_ms: list[float], seconds: float, share: float = 0.99) -> float:
    """How long whoever comes at a random moment waits for the end of a round, in this share of cases at most."""
    lower, upper = 0.0, max(rounds_ms)
    for _ in range(40):
        middle = (lower + upper) / 2
        longer_ms = sum(max(0.0, one - middle) for one in rounds_ms)
        lower, upper = (middle, upper) if longer_ms > (1.0 - share) * 1_000 * seconds else (lower, middle)
    return upper


@dataclass(slots=True)
class Watch:
    process: subprocess.Popen[str]
    url: str
    cpu_s: float = 0.0
    asked_s: float = 0.0

    def ask(self) -> dict[str, Any]:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        now_s = time.monotonic()
        answer["points"] = 100 * (answer["cpu_s"] - self.cpu_s) / (now_s - self.asked_s)
        self.cpu_s, self.asked_s = answer["cpu_s"], now_s
        return answer


@contextlib.contextmanager
def watching(exchange: dict[str, str], *, is_looked_at: bool) -> Iterator[Watch]:
    env = os.environ | SETTINGS
    env["PERPWATCH_WEBSOCKET__BASE_URL"], env["PERPWATCH_REST__BASE_URL"] = exchange["websocket"], exchange["rest"]
    env["PERPWATCH_DASHBOARD__ENABLED"] = str(is_looked_at).lower()
    with subprocess.Popen(
        [*ME, "watch"], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        try:
            yield Watch(process, json.loads(process.stdout.readline())["url"])
        finally:
            process.stdin.close()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


# --- Who looks -------------------------------------------------------------------------------------------------------


async def read(url: str) -> None:
    """Fifty readers, until standard input ends; says then what they took."""
    host, _, port = url.removeprefix("http://").partition(":")
    taken, began_s = 0, time.monotonic()

    async def one(path: str, is_stuck: bool) -> None:
        nonlocal taken
        reader, writer = await asyncio.open_connection(host, int(port))
        socket = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        socket += "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        extra = "" if path.endswith("events") else socket
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n{extra}\r\n".encode())
        try:
            while more := await reader.read(1 << 18):
                taken += len(more)
                if is_stuck:
                    await asyncio.sleep(3_600)
        finally:
            writer.close()

    readers = [asyncio.create_task(one(path, place in STUCK)) for place, path in enumerate(PATHS)]
    await asyncio.to_thread(sys.stdin.read)
    for task in readers:
        task.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    print(json.dumps(taken / (time.monotonic() - began_s)))


@contextlib.contextmanager
def reading(url: str, rates: list[float]) -> Iterator[None]:
    """Fifty readers; notes how many bytes a second they took."""
    with subprocess.Popen([*ME, "read", url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        try:
            yield
        finally:
            process.stdin.close()
            rates.append(json.loads(process.stdout.readline()))
            process.wait(20)


async def exchange(pairs: int, activity: float) -> None:
    """The built-in exchange, until standard input ends."""
    from perpwatch.app.demo import DemoOptions, serve_exchange

    async with serve_exchange(DemoOptions(pairs, activity=activity)) as server:
        print(json.dumps({"websocket": server.websocket_url, "rest": server.rest_url}), flush=True)
        await asyncio.to_thread(sys.stdin.read)


@contextlib.contextmanager
def exchange_of(pairs: int, activity: float) -> Iterator[dict[str, str]]:
    command = [*ME, "exchange", str(pairs), str(activity)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        try:
            addresses: dict[str, str] = json.loads(process.stdout.readline())
            # Two watches read the past of every contract; that is not what is measured.
            tell(addresses["rest"] + "/sim/faults", {"rest_limits": False})
            yield addresses
        finally:
            process.stdin.close()
            process.wait(20)


def tell(url: str, what: object | None = None, **headers: str) -> Any:
    data = json.dumps(what).encode() if what is not None else b""
    request = urllib.request.Request(url, data, headers, method="POST")
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def browser_cpu_s() -> float:
    """Processor time of all processes of the browser, which are all that have its name."""
    ticks = 0
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, _, fields = file.read_text().rpartition(")")
            if "chrom" in name:
                ticks += sum(map(int, fields.split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def status(looked_at: Watch) -> dict[str, Any]:
    with urllib.request.urlopen(f"{looked_at.url}/api/v1/status", timeout=20) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def until_looked_at_by(looked_at: Watch, readers: int) -> None:
    """Wait until so many are connected, and a little longer."""
    while status(looked_at)["stream_clients"] != readers:
        time.sleep(0.2)
    time.sleep(1)


# --- The measurement -------------------------------------------------------------------------------------------------


STATES = ("nobody", "one page", "50 readers")
SHARES = (0.5, 0.9, 0.99)


@dataclass(slots=True)
class Measure:
    points: float  # of a core
    control_points: float
    delays_ms: list[float]
    control_delays_ms: list[float]
    rounds_ms: list[float]
    seconds: float


def measured(looked_at: Watch, control: Watch, seconds: float) -> Measure:
    looked_at.ask()
    control.ask()
    until_s = time.monotonic() + seconds
    while (left_s := until_s - time.monotonic()) > 0:
        # So that there is something to read for those who read alerts.
        tell(f"{looked_at.url}/api/v1/actions/test-alert", Authorization=f"Bearer {TOKEN}")
        time.sleep(min(2.0, left_s))
    ours, theirs = looked_at.ask(), control.ask()
    return Measure(ours["points"], theirs["points"], ours["delays_ms"], theirs["delays_ms"], ours["rounds_ms"], seconds)


def report(found: dict[str, list[Measure]], opened_s: list[tuple[float, float]]) -> None:
    seconds, cpu_s = (median(one) for one in zip(*opened_s, strict=True))
    each = ", ".join(f"{one:.2f}" for one, _ in opened_s)
    print(f"page interactive after {seconds:.2f} s ({each}), processor time of the browser {cpu_s:.2f} s\n")
    print(f"{'':12}{'points of a core':>18}{'more than control':>19}{'events':>9}" + "".join(map(heading, SHARES)))
    quiet = {share: latencies(found["nobody"], share) for share in SHARES}
    for name, measures in found.items():
        points = median(one.points for one in measures)
        more = median(one.points - one.control_points for one in measures)
        events = sum(len(one.delays_ms) for one in measures)
        text = f"{name:12}{points:18.1f}{more:+19.1f}{events:9}"
        for share in SHARES:
            ours, theirs = latencies(measures, share)
            text += f"{ours:8.1f} ms {ours / quiet[share][0] - 1:+5.0%} ({theirs / quiet[share][1] - 1:+4.0%})"
        print(text)
    print("In parentheses: how the same figure moved for the control, which nobody can look at.\n")
    print(f"{'':12}{'loop busy':>12}{'longest round':>16}{'wait, p99':>12}{'of the p99 of nobody':>23}")
    alone_ms = quiet[0.99][0]
    waits: list[float] = []
    for name, measures in found.items():
        rounds_ms = [value for one in measures for value in one.rounds_ms]
        seconds = sum(one.seconds for one in measures)
        waits.append(wait_ms(rounds_ms, seconds))
        print(
            f"{name:12}{sum(rounds_ms) / seconds / 1_000:12.1%}{max(rounds_ms):13.1f} ms{waits[-1]:9.2f} ms"
            f"{(waits[-1] - waits[0]) / alone_ms:+23.1%}"
        )


def heading(share: float) -> str:
    return f"{f'p{100 * share:g} of the latency':>24}"


def latencies(measures: list[Measure], share: float) -> tuple[float, float]:
    """Of the watch that is looked at, and of the control."""
    ours = sorted(value for one in measures for value in one.delays_ms)
    theirs = sorted(value for one in measures for value in one.control_delays_ms)
    return tuple(one[int(share * len(one))] - one[0] for one in (ours, theirs))  # type: ignore[return-value]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=1_061)
    parser.add_argument("--activity", type=float, default=10.0, help="trades of a contract, in ordinary days")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    found: dict[str, list[Measure]] = {name: [] for name in STATES}
    opened_s: list[tuple[float, float]] = []
    rates: list[float] = []
    with (
        exchange_of(options.pairs, options.activity) as addresses,
        watching(addresses, is_looked_at=False) as control,
        watching(addresses, is_looked_at=True) as looked_at,
        sync_playwright() as playwright,
    ):
        while min(control.ask()["warm"], looked_at.ask()["warm"]) < options.pairs * 0.95:
            time.sleep(1.0)
        time.sleep(10)  # what follows the start
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for _ in range(options.rounds):
            found["nobody"].append(measured(looked_at, control, options.seconds))
            page = browser.new_page(viewport={"width": 1400, "height": 900})
            before_s, began_s = browser_cpu_s(), time.monotonic()
            page.goto(looked_at.url)
            page.wait_for_function("Number(document.body.dataset.rows) > 0")
            opened_s.append((time.monotonic() - began_s, browser_cpu_s() - before_s))
            found["one page"].append(measured(looked_at, control, options.seconds))
            page.close()
            until_looked_at_by(looked_at, 0)
            with reading(looked_at.url, rates):
                until_looked_at_by(looked_at, len(PATHS))
                found["50 readers"].append(measured(looked_at, control, options.seconds))
            until_looked_at_by(looked_at, 0)
        browser.close()
        report(found, opened_s)
        print(f"\nThe readers took {median(rates) / 1e6:.2f} MB/s.")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["watch"]:
            asyncio.run(watch())
        case ["exchange", pairs, activity]:
            asyncio.run(exchange(int(pairs), float(activity)))
        case ["read", url]:
            asyncio.run(read(url))
        case _:
            main()
