"""kill -9 at any moment: what was acknowledged is there, once, and the database is sound."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from store_child import minute_of_the_market
from store_rows import at

from perpwatch.model import Timeframe
from perpwatch.store import Database, Reader
from perpwatch.store.maintenance import check

KILLS = 50


def test_fifty_kills_lose_nothing_that_was_acknowledged(url: str) -> None:
    Database.open(url).close()
    rng = random.Random(9)
    acknowledged = -1
    with Victims() as victims:
        for _ in range(KILLS):
            acknowledged = max(acknowledged, victims.kill(url, acknowledged + 1, rng.random() * 0.25))
    assert acknowledged >= KILLS

    database = Database.open(url)
    stored = Reader(database).market_candles(Timeframe.Min1, at(0), at(acknowledged + 1))
    assert stored == [one for minute in range(acknowledged + 1) for one in minute_of_the_market(minute)]
    findings = check(database)
    assert findings.problems == []
    assert findings.is_clean
    assert findings.gaps.total() == 0
    remembered = Reader(database).state("minute")
    assert remembered is not None
    assert remembered.decode() >= acknowledged
    database.close()


def test_kills_during_the_first_opening_leave_nothing_half_made(url: str) -> None:
    acknowledged = -1
    with Victims() as victims:
        for moment_ms in (5, 10, 20, 30, 40, 60, 80, 120):
            acknowledged = max(acknowledged, victims.kill(url, acknowledged + 1, moment_ms / 1_000))
    database = Database.open(url)
    assert check(database).is_clean
    database.close()


class Victims:
    """Writers that are killed."""

    def __enter__(self) -> Victims:
        program = Path(__file__).with_name("store_child.py")
        self._parent = subprocess.Popen(
            [sys.executable, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._parent.communicate(timeout=10.0)

    def kill(self, url: str, first: int, after_s: float) -> int:
        """Let one write from a minute on, kill it after a time, and return the last minute it acknowledged."""
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._parent.stdin.write(f"{url} {first}\n")
        pid = int(self._parent.stdout.readline().removeprefix("pid "))
        time.sleep(after_s)
        os.kill(pid, signal.SIGKILL)
        acknowledged = first - 1
        for line in self._parent.stdout:
            if line == "gone\n":
                break
            acknowledged = int(line)
        return acknowledged
