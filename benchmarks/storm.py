"""What a storm of alerts costs the feed: the loop's lag and the time of a batch, with and without, side by side.

    .venv/bin/python benchmarks/storm.py [--pairs 800] [--alerts 500] [--seconds 60] [--rounds 3]

A watch of so many contracts over real sockets, with a store and six channels: two chats of Telegram, two webhooks,
e-mail by apprise, and a webhook that never answers. The exchange and the services run in another process; the services
answer with 429s, 5xx, silence and cut lines (tests/alert/alert_storm.py). Calm and storm take turns, so that what else
the machine does meets both; what of the lag is our own is no longer than the processor time that the process, all its
threads together, has used meanwhile. A batch's time runs from the reading of its frames to the end of its analysis.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from perpwatch.app.bot import Bot, adapter_for
from perpwatch.app.config import load_config
from perpwatch.app.delivery import Deliveries
from perpwatch.app.demo import at_addresses
from perpwatch.app.engine import Step
from perpwatch.app.health import watch_over
from perpwatch.app.kept import kept
from perpwatch.app.telling import telling
from perpwatch.feed.connection import SystemClock, dial_with
from perpwatch.feed.rest import http_over_network
from perpwatch.model import Batch
from perpwatch.sim import Clock, SimulatorServer, build

#: The storm and the services are those of the tests.
TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path += [str(TESTS), str(TESTS / "alert")]
#: What is measured begins when the past is known.
QUICK_START = {
    "health": {"port": 0},
    "rest": {"history_minutes": 120},
    "websocket": {"commands_per_second": 100, "dials_per_second": 20},
}
#: Seconds after the last history was learned until nothing of the start is left to be done.
SETTLE_S = 10.0
#: Between two looks at the loop.
TICK_S = 0.005


# --- The other side -------------------------------------------------------------------------------------------------


async def serve(folder: Path, pairs: int) -> None:
    """Serve the exchange and the services until standard input ends; then say what the services have seen."""
    from alert_storm import GROUP, PERSON, Services, configured, letters, posted, read

    exchange = build(1, pairs, int(time.time() * 1_000))
    clock = Clock.starting_at(exchange.market.start_ms)
    async with SimulatorServer(exchange, clock) as server, Services() as services:
        configured(services, folder)
        print(json.dumps({"websocket": server.websocket_url, "rest": server.rest_url}), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        chats = {chat: read(one.text for one in services.telegram.chats[chat].shown) for chat in (PERSON, GROUP)}
        mail = read(letters(services.mail))
        seen = {
            "webhook": sum(posted(services.calm).values()),
            "rough webhook": sum(posted(services.rough).values()),
            "person": chats[PERSON].notices,
            "group": chats[GROUP].notices,
            "mail": mail.notices,
            "requests": {
                "webhook": len(services.calm.received),
                "rough webhook": len(services.rough.received),
                "dead webhook": len(services.dead.received),
                "telegram": len(services.telegram.received),
                "mail": len(services.mail.received_s),
            },
            "beyond a limit": services.calm.exceeded + services.rough.exceeded + len(services.telegram.exceeded),
        }
        print(json.dumps(seen), flush=True)


# --- This side ------------------------------------------------------------------------------------------------------


@dataclass
class Measured:
    """Milliseconds."""

    lag: list[float] = field(default_factory=list)  # of the loop, whoever is to blame
    own_lag: list[float] = field(default_factory=list)  # as far as the process, all its threads, was busy meanwhile
    batch: list[float] = field(default_factory=list)


def quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


class Meter:
    """Notes how late the loop is, and what a batch takes."""

    def __init__(self) -> None:
        self.into: Measured | None = None

    def on_step(self, batch: Batch, step: Step) -> None:
        if self.into is not None and batch.received_time_ns:
            self.into.batch.append((time.time_ns() - batch.received_time_ns) / 1e6)

    async def watch_loop(self) -> None:
        while True:
            due_s, used_s = time.perf_counter() + TICK_S, time.process_time()
            await asyncio.sleep(TICK_S)
            if self.into is not None:
                lag = (time.perf_counter() - due_s) * 1e3
                self.into.lag.append(lag)
                self.into.own_lag.append(min(lag, (time.process_time() - used_s) * 1e3))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(300):
        while not condition():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.5)


@asynccontextmanager
async def watching(folder: Path, addresses: dict[str, str], meter: Meter) -> AsyncIterator[tuple[Bot, Deliveries]]:
    """The whole program but its terminal and pages."""
    path = folder / "perpwatch.toml"
    config = at_addresses(load_config(path, QUICK_START), addresses["websocket"], addresses["rest"])
    async with http_over_network() as get:
        bot = Bot(config, adapter_for(config), dial_with(), get, SystemClock(), random.Random(1).random, meter.on_step)
        async with (
            kept(bot, config.store, path) as keeper,
            watch_over(bot, config.health, get) as monitor,
            telling(bot, config, monitor, keeper, path) as deliveries,
        ):
            assert deliveries is not None
            tasks = [asyncio.create_task(bot.run()), asyncio.create_task(meter.watch_loop())]
            yield bot, deliveries
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def measure(options: argparse.Namespace, folder: Path, addresses: dict[str, str]) -> None:
    from alert_storm import blow

    meter, calm, storm = Meter(), Measured(), Measured()
    async with watching(folder, addresses, meter) as (bot, deliveries):
        await until(lambda: len(bot.engine.warm) > 0.99 * options.pairs)
        await asyncio.sleep(SETTLE_S)
        # Such as have candles, so that there are charts to draw.
        symbols = [symbol for symbol, _ in zip(itertools.cycle(sorted(bot.engine.warm)), range(options.alerts))]
        for number in range(options.rounds):
            meter.into = calm
            await asyncio.sleep(options.seconds)
            meter.into = storm
            await blow(deliveries.tell, symbols, options.seconds, first=number * options.alerts)
            meter.into = None
            await until(lambda: not any(one.waiting for one in deliveries.status() if one.name != "dead"))
        print(f"{options.rounds} × {options.alerts} alerts in {options.seconds:g} s, {options.pairs} contracts")
        print(f"{'ms':24}{'p50':>9}{'p99':>9}{'p99.9':>9}{'longest':>9}{'count':>9}")
        for name, one in (("calm", calm), ("storm", storm)):
            for what, values in (
                ("lag of the loop", one.lag),
                ("of it our own", one.own_lag),
                ("time of a batch", one.batch),
            ):
                shown = "".join(f"{quantile(values, share):9.2f}" for share in (0.5, 0.99, 0.999, 1.0))
                print(f"{name + ', ' + what:24}{shown}{len(values):9}")
        for what, with_it, without in (
            ("lag", storm.lag, calm.lag),
            ("own lag", storm.own_lag, calm.own_lag),
            ("time of a batch", storm.batch, calm.batch),
        ):
            print(f"p99 of the {what}, storm / calm: {quantile(with_it, 0.99) / quantile(without, 0.99):.2f}")
        for status in deliveries.status():
            late = f"{status.latency_s:.2f} s" if status.latency_s is not None else "-"
            print(f"{status.name:8} sent {status.sent:5}, waiting {status.waiting:5}, mean latency {late}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=800)
    parser.add_argument("--alerts", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        uvloop.run(serve(options.serve, options.pairs))
        return
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, __file__, "--serve", name, "--pairs", str(options.pairs)]
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            addresses = json.loads(server.stdout.readline())
            uvloop.run(measure(options, Path(name), addresses))
            server.stdin.close()
            print("seen by the services:", server.stdout.readline().strip())
        finally:
            server.kill()
            server.wait()


if __name__ == "__main__":
    main()
