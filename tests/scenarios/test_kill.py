"""``kill -9`` of the exchange and of the bot at random moments: nothing wrong is kept, and nothing stays unknown."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mortal
import pytest

from perpwatch.app.ledger_cli import LedgerReport, ledger_report
from perpwatch.model import MINUTE_MS, Timeframe
from perpwatch.sim import DEFAULT_START_MS
from perpwatch.store import Database, Reader
from perpwatch.store.maintenance import check

KILLS = 20
SPEED = 20.0


class Processes:
    """Both parts, each alive again as soon as it was killed."""

    def __init__(self, store: Path) -> None:
        self.store = store
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.began_s = time.time()
        self.alive: dict[str, subprocess.Popen[str]] = {}

    def start(self, part: str) -> None:
        arguments = [part, str(self.port), str(DEFAULT_START_MS), repr(self.began_s), str(SPEED), str(self.store)]
        self.alive[part] = subprocess.Popen(
            [sys.executable, str(Path(mortal.__file__)), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        stdout = self.alive[part].stdout
        assert stdout is not None
        assert stdout.readline() == "up\n"

    def kill(self, part: str) -> None:
        process = self.alive.pop(part)
        process.send_signal(signal.SIGKILL)
        process.communicate()

    def now_ms(self) -> int:
        return mortal.market_ms(DEFAULT_START_MS, self.began_s, SPEED)


@contextmanager
def both(store: Path) -> Iterator[Processes]:
    processes = Processes(store)
    try:
        processes.start("exchange")
        processes.start("bot")
        yield processes
    finally:
        for part in list(processes.alive):
            processes.kill(part)


@pytest.mark.timeout(240)
def test_twenty_kills_leave_no_unknown_minute_and_no_wrong_candle(tmp_path: Path) -> None:
    store = tmp_path / "perpwatch.db"
    draw = random.Random("kills")
    with both(store) as processes:
        time.sleep(2.0)
        for _ in range(KILLS):
            part = draw.choice(("exchange", "bot"))
            processes.kill(part)
            time.sleep(draw.uniform(0.0, 0.5))
            processes.start(part)
            time.sleep(draw.uniform(0.1, 1.2))
        last_kill_ms = processes.now_ms()
        report = wait_until_known(processes, store, last_kill_ms)
    assert report.symbols == mortal.CONTRACTS
    assert report.gaps == []
    database = Database.open(str(store), migrate=False)
    try:
        assert check(database).is_clean
        compare_with_truth(Reader(database), last_kill_ms)
    finally:
        database.close()


def wait_until_known(processes: Processes, store: Path, last_kill_ms: int) -> LedgerReport:
    """Ten market minutes are given, as after any failure; then what the store says is taken as it is."""
    while True:
        now_ms = processes.now_ms()
        database = Database.open(str(store), migrate=False)
        try:
            report = ledger_report(Reader(database), now_ms, now_ms - DEFAULT_START_MS)
        finally:
            database.close()
        old = [gap for gap in report.gaps if gap.end_ms <= last_kill_ms]
        if (not old and report.until_ms > last_kill_ms) or now_ms > last_kill_ms + 10 * MINUTE_MS:
            return LedgerReport(report.since_ms, report.until_ms, report.symbols, report.counts, report.worst, old)
        time.sleep(0.5)


def compare_with_truth(reader: Reader, until_ms: int) -> None:
    exchange = mortal.make_exchange(DEFAULT_START_MS)
    exchange.advance(until_ms)
    first, last = DEFAULT_START_MS // MINUTE_MS, until_ms // MINUTE_MS - 1
    compared = 0
    for symbol in exchange.market.symbols:
        true = {
            candle.open_time_ms: candle
            for candle in exchange.market.columns(symbol, Timeframe.Min1, first, last).candles()
        }
        for said in reader.candles(symbol, Timeframe.Min1, DEFAULT_START_MS, until_ms // MINUTE_MS * MINUTE_MS):
            candle = true.get(said.open_time_ms)
            if candle is None:
                assert said.contracts == 0.0
            else:
                assert (said.open, said.high, said.low, said.close, said.contracts) == (
                    candle.open,
                    candle.high,
                    candle.low,
                    candle.close,
                    candle.contracts,
                )
                compared += 1
    assert compared > 200
