"""A disk that is full, a file that may only be read, a lock that is held, a server that goes away."""

from __future__ import annotations

import asyncio
import resource
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from store_rows import PostgresServer, at, candle, signal

from perpwatch.model import Timeframe
from perpwatch.store import Database, Reader, Trouble, Writer
from perpwatch.store.maintenance import check


@dataclass
class Heard:
    """What a writer told."""

    troubles: list[Trouble] = field(default_factory=list)
    recoveries: list[str] = field(default_factory=list)

    def writer(self, database: Database, max_waiting: int = 100_000) -> Writer:
        return Writer(
            database,
            on_trouble=self.troubles.append,
            on_recovered=lambda trouble, seconds: self.recoveries.append(trouble.kind),
            max_waiting=max_waiting,
        )

    async def trouble(self) -> str:
        async with asyncio.timeout(20.0):
            while not self.troubles:
                await asyncio.sleep(0.01)
        return self.troubles[0].kind


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


async def test_a_full_disk_is_told_and_writing_goes_on_when_there_is_room(small_disk: Path) -> None:
    database, heard = Database.open(f"sqlite:///{small_disk}/perpwatch.db"), Heard()
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free - 200_000))
    async with heard.writer(database) as writer:
        for minute in range(20):
            await writer.put(*(candle(f"S{number:03}_USDT", minute) for number in range(200)))
        assert await heard.trouble() == "full"
        assert not await writer.flush(0.3)
        assert writer.counters.waiting > 0
        ballast.unlink()
        assert await writer.flush(20.0)
        assert writer.trouble is None
    await asyncio.sleep(0)
    assert heard.recoveries == ["full"]
    assert len(Reader(database).market_candles(Timeframe.Min1, at(0), at(20))) == 4_000
    assert check(database).problems == []
    database.close()


async def test_a_file_that_may_not_grow_is_told_and_writing_goes_on_when_it_may(tmp_path: Path) -> None:
    database, heard = Database.open(f"sqlite:///{tmp_path}/perpwatch.db"), Heard()
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with heard.writer(database) as writer:
        await writer.put(candle())
        assert await writer.flush(10.0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
        try:
            for minute in range(10):
                await writer.put(*(candle(f"S{number:03}_USDT", minute) for number in range(500)))
            assert await heard.trouble() in ("full", "broken_disk")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))
        assert await writer.flush(20.0)
    assert len(Reader(database).market_candles(Timeframe.Min1, at(0), at(10))) == 5_001
    assert check(database).problems == []
    database.close()


async def test_a_file_made_read_only_is_told_and_writing_goes_on_when_it_is_not(tmp_path: Path) -> None:
    path = tmp_path / "perpwatch.db"
    database, heard = Database.open(str(path)), Heard()
    files = [path, tmp_path / "perpwatch.db-wal"]
    async with heard.writer(database) as writer:
        await writer.put(candle(minute=0))
        assert await writer.flush(10.0)
        _make_immutable(files)
        try:
            await writer.put(candle(minute=1))
            assert await heard.trouble() in ("read_only", "unreachable", "broken_disk")
            assert not await writer.flush(0.3)
            assert len(Reader(database).market_candles(Timeframe.Min1, at(0), at(2))) == 1  # still to be read
        finally:
            _make_mutable(files)
        assert await writer.flush(20.0)
    assert len(Reader(database).market_candles(Timeframe.Min1, at(0), at(2))) == 2
    assert check(database).problems == []
    database.close()


def _make_immutable(files: list[Path]) -> None:
    # Permissions would not do: they do not count for open files, nor for root.
    made = subprocess.run(["chattr", "+i", *files], capture_output=True)
    if made.returncode:
        pytest.skip(f"files cannot be made immutable here: {made.stderr.decode().strip()}")


def _make_mutable(files: list[Path]) -> None:
    subprocess.run(["chattr", "-i", *files], check=True)


async def test_a_held_lock_stops_neither_the_loop_nor_the_records(tmp_path: Path) -> None:
    path = tmp_path / "perpwatch.db"
    database, heard = Database.open(str(path)), Heard()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    async with heard.writer(database) as writer:
        slowest_s = 0.0
        for minute in range(200):
            before_s = time.monotonic()
            await writer.put(candle(minute=minute))
            await asyncio.sleep(0)
            slowest_s = max(slowest_s, time.monotonic() - before_s)
        assert slowest_s < 1.0
        assert await heard.trouble() == "locked"
        other.execute("ROLLBACK")
        other.close()
        assert await writer.flush(20.0)
    assert len(Reader(database).market_candles(Timeframe.Min1, at(0), at(200))) == 200
    database.close()


async def test_a_full_queue_makes_puts_wait_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "perpwatch.db"
    database, heard = Database.open(str(path)), Heard()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    async with heard.writer(database, max_waiting=10) as writer:
        putting = asyncio.create_task(_put(writer, 30))
        await asyncio.sleep(0.2)
        assert not putting.done()
        assert writer.counters.waiting == 10
        other.execute("ROLLBACK")
        other.close()
        await asyncio.wait_for(putting, 20.0)
        assert await writer.flush(20.0)
    assert len(Reader(database).market_candles(Timeframe.Min1, at(0), at(30))) == 30
    database.close()


async def _put(writer: Writer, minutes: int) -> None:
    for minute in range(minutes):
        await writer.put(candle(minute=minute))


async def test_a_record_that_cannot_be_stored_does_not_hold_up_the_others(database: Database) -> None:
    heard = Heard()
    async with heard.writer(database) as writer:
        impossible = candle("ETH_USDT", close=None)  # type: ignore[arg-type]
        for record in (candle(minute=0), impossible, candle(minute=1), signal()):
            writer.put_now(record)
        assert await writer.flush(10.0)
        assert writer.counters.rejected == 1
    assert [one.kind for one in heard.troubles] == ["rejected"]
    assert len(Reader(database).market_candles(Timeframe.Min1, at(0), at(2))) == 2
    assert Reader(database).signals(0) == [signal()]


async def test_a_server_that_restarts_is_told_and_waited_for(postgres: PostgresServer) -> None:
    database, heard = Database.open(postgres.create("restarted")), Heard()
    async with heard.writer(database) as writer:
        await writer.put(candle(minute=0))
        assert await writer.flush(10.0)
        await asyncio.to_thread(postgres.stop)
        try:
            await writer.put(candle(minute=1))
            assert await heard.trouble() == "unreachable"
        finally:
            await asyncio.to_thread(postgres.start)
        assert await writer.flush(20.0)
    assert len(Reader(database).market_candles(Timeframe.Min1, at(0), at(2))) == 2
    database.close()


async def test_the_end_does_not_wait_for_ever_and_says_what_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "perpwatch.db"
    database = Database.open(str(path))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    async with Writer(database) as writer:
        writer.put_now(candle(), signal())
        assert await writer.close(0.2) == 2
    other.close()
    database.close()
