"""Without a thread, in virtual time: the same records, the same troubles."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

from store_rows import at, candle

from perpwatch.model import Timeframe
from perpwatch.sim.clock import run_virtual
from perpwatch.store import Database, Reader, Retention, Trouble, Writer


def test_in_virtual_time_everything_is_written_when_it_is_put(tmp_path: Path) -> None:
    database = Database.open(str(tmp_path / "perpwatch.db"))
    seen: list[int] = []

    async def run() -> None:
        async with Writer(database, is_inline=True) as writer:
            for minute in range(5):
                await writer.put(candle(minute=minute))
                await asyncio.sleep(60.0)
                seen.append(len(Reader(database).market_candles(Timeframe.Min1, at(0), at(10))))
            writer.clean(Retention({Timeframe.Min1: 2 / 1_440}), at(5))
            assert writer.counters.cleaned == 3
            assert await writer.flush(1.0)

    run_virtual(run())
    assert seen == [1, 2, 3, 4, 5]
    database.close()


def test_in_virtual_time_a_lock_is_told_and_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "perpwatch.db"
    database, troubles, recovered = Database.open(str(path)), list[Trouble](), list[str]()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    async def release() -> None:
        await asyncio.sleep(0.1)
        other.execute("ROLLBACK")

    async def run() -> None:
        writer = Writer(
            database,
            max_waiting=1,
            on_trouble=troubles.append,
            on_recovered=lambda trouble, seconds: recovered.append(trouble.kind),
            is_inline=True,
        )
        async with writer, asyncio.TaskGroup() as tasks:
            tasks.create_task(release())
            await writer.put(candle())
            assert await writer.flush(10.0)

    run_virtual(run())
    assert [one.kind for one in troubles] == ["locked"]
    assert recovered == ["locked"]
    assert len(Reader(database).market_candles(Timeframe.Min1, at(0), at(1))) == 1
    other.close()
    database.close()
