"""A watch that keeps what it finds and can be restarted, against an exchange of its own, both in their own processes.

Its store begins with a past that is known to the last figure, so that pages can be compared with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from running_demo import TOKEN

from perpwatch.market.candles import roll_up_all
from perpwatch.model import ANALYSED_TIMEFRAMES, MINUTE_MS, Candle, Contract, Finality, Timeframe, Trust
from perpwatch.store import HOUR_MS, TRUST_CODES, Database, LedgerHour, Record, Writer

PERPWATCH = [sys.executable, "-c", "from perpwatch.app.cli import main; main()"]


@dataclass(slots=True)
class Watch:
    """The exchange runs as long as the block around; the watch between :meth:`start` and :meth:`stop`."""

    folder: Path
    exchange: str  # its REST
    port: int
    process: subprocess.Popen[str] | None = None
    starts: int = 0
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.starts += 1
        log = self.folder / f"log-{self.starts}"
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                [*PERPWATCH, "run", "--config", "perpwatch.toml", "--format", "log"],
                stderr=errors,
                env=self.environment,
                cwd=self.folder,
                text=True,
            )
        deadline_s = time.monotonic() + 60
        while True:
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                if self.get("/api/v1/symbols?limit=1")["total"]:
                    return
            assert self.process.poll() is None, log.read_text()
            assert time.monotonic() < deadline_s, log.read_text()
            time.sleep(0.1)

    def stop(self) -> None:
        """As a supervisor would: SIGTERM, and what is not written yet is written."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(20) == 0
            self.process = None

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            return json.load(answer)

    def post(self, path: str, body: Any) -> Any:
        request = urllib.request.Request(
            self.url + path,
            json.dumps(body).encode(),
            {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)


@contextlib.contextmanager
def exchange_and_watch(folder: Path, pairs: int, renamed: dict[str, str], rules: str) -> Iterator[Watch]:
    """An exchange on which some contracts have another name, and a watch of it that is not started yet."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("PERPWATCH_")}
    process = subprocess.Popen(
        [*PERPWATCH, "sim", "--port", "0", "--pairs", str(pairs)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=others,
        text=True,
    )
    watch = None
    try:
        assert process.stdout is not None
        addresses = json.loads(process.stdout.readline())
        events = [{"at_ms": 0, "kind": "rename", "target": old, "text": new} for old, new in renamed.items()]
        faults = urllib.request.Request(f"{addresses['rest']}/sim/faults", json.dumps({"events": events}).encode())
        urllib.request.urlopen(faults, timeout=10).close()
        (folder / "rules.toml").write_text(rules)
        port = free_port()
        (folder / "perpwatch.toml").write_text(
            f"""
            websocket.base_url = "{addresses["websocket"]}"
            rest.base_url = "{addresses["rest"]}"
            rest.requests_per_second = 8
            health.port = 0
            dashboard.port = {port}
            dashboard.token = "{TOKEN}"
            store.history = false
            detection.rules = ["default", "rules.toml"]
            """
        )
        watch = Watch(folder, addresses["rest"], port, environment=others)
        yield watch
    finally:
        if watch is not None and watch.process is not None:
            watch.process.kill()
            watch.process.wait(20)
        process.terminate()
        process.wait(20)
        assert process.stdout is not None
        process.stdout.close()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def keep(folder: Path, records: Sequence[Record]) -> None:
    """Put records into the store of the watch in ``folder``."""

    async def put() -> None:
        database = Database.open(f"sqlite:///{folder / 'perpwatch.db'}")
        async with Writer(database) as writer:
            writer.put_now(*records)
        database.close()

    asyncio.run(put())


def quiet_past(symbol: str, start_ms: int, minutes: int, seed: int, bursts: dict[int, float]) -> list[Record]:
    """A market in which nothing happens but, in the minutes named, a hundredfold turnover and a rise that stays.

    Args:
        start_ms: on a whole hour.
        bursts: size as a fraction, by minute.
    """
    random = np.random.default_rng(seed)
    price = 100.0
    candles = []
    for minute in range(minutes):
        turnover, move = 1e5 * float(random.lognormal(0.0, 0.4)), float(random.normal(0.0, 0.0004))
        if minute in bursts:
            turnover, move = 1e7, bursts[minute]
        close = price * (1.0 + move)
        candles.append(
            Candle(
                symbol=symbol,
                timeframe=Timeframe.Min1,
                open_time_ms=start_ms + minute * MINUTE_MS,
                open=price,
                high=max(price, close),
                low=min(price, close),
                close=close,
                contracts=turnover / close,
                base_volume=turnover / close,
                turnover=turnover,
                finality=Finality.SUCCESSOR,
                trust=Trust.STREAMED,
            )
        )
        price = close
    end_ms = start_ms + minutes * MINUTE_MS
    longer = [one for timeframe in ANALYSED_TIMEFRAMES for one in roll_up_all(candles, timeframe, until_ms=end_ms)]
    codes = bytes([TRUST_CODES[Trust.STREAMED]] * 60)
    hours = [LedgerHour(symbol, hour_ms, codes) for hour_ms in range(start_ms, end_ms - HOUR_MS + 1, HOUR_MS)]
    return [Contract(symbol, symbol.split("_")[0], "USDT", "USDT", 1.0), *longer, *hours]
