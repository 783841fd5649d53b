"""What is too old goes, what is left is sound, and what is not sound is found."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import sqlalchemy
from store_rows import at, candle, signal

from perpwatch.model import MINUTE_MS, Timeframe, Trust
from perpwatch.store import (
    Alerted,
    AlertOutcome,
    Database,
    Delivery,
    Label,
    LedgerHour,
    Reader,
    Record,
    Retention,
    Writer,
)
from perpwatch.store.maintenance import check, checkpoint, cleaning, contents

DAY = 1_440


async def write(database: Database, *records: Record) -> None:
    async with Writer(database) as writer:
        await writer.put(*records)
        assert await writer.flush(20.0)


async def test_each_timeframe_and_kind_is_kept_as_long_as_asked(database: Database) -> None:
    minutes = [0, 1, DAY, 2 * DAY, 3 * DAY]
    await write(
        database,
        *(candle("BTC_USDT", minute) for minute in minutes),
        *(candle("BTC_USDT", minute, Timeframe.Min60) for minute in minutes if minute % 60 == 0),
        *(LedgerHour("BTC_USDT", at(minute), bytes(60)) for minute in minutes if minute % 60 == 0),
        *(signal("BTC_USDT", minute) for minute in minutes),
        *(Alerted(f"a:{minute}", at(minute), "BTC_USDT", b"{}") for minute in minutes),
        *(AlertOutcome(f"a:{minute}", at(minute), "BTC_USDT", b"{}") for minute in minutes),
        *(Delivery(channel="a", key=f"{minute}", thread="", kind="alert", time_ms=at(minute)) for minute in minutes),
        *(Label(f"a:{minute}", "me", "wrong", at(minute)) for minute in minutes),
    )
    retention = Retention({Timeframe.Min1: 1, Timeframe.Min60: 0, Timeframe.Min5: 1}, ledger=1, signals=2, alerts=0.5)
    async with Writer(database) as writer:
        writer.clean(retention, at(3 * DAY))
        await write(database, candle("BTC_USDT", 3 * DAY + 1))  # writing goes on meanwhile
        assert await writer.flush(10.0)
        while writer.is_cleaning:
            await writer.put(candle("BTC_USDT", 3 * DAY + 2))
            assert await writer.flush(10.0)
    reader = Reader(database)
    last = [at(3 * DAY)]
    assert [one.open_time_ms for one in reader.market_candles(Timeframe.Min1, 0, at(3 * DAY) + 1)] == [
        at(2 * DAY),
        *last,
    ]
    assert len(reader.market_candles(Timeframe.Min60, 0, at(4 * DAY))) == 4
    assert [one.hour_ms for one in reader.ledger(0, at(4 * DAY))] == [at(2 * DAY), *last]
    assert [one.event_time_ms - 1_234 for one in reader.signals(0)] == [at(DAY), at(2 * DAY), *last]
    assert [one.time_ms for one in reader.alerts()] == last
    assert [one.time_ms for one in reader.outcomes()] == last
    assert [one.time_ms for one in reader.deliveries()] == last
    assert [one.time_ms for one in reader.labels()] == last


async def test_deleted_rows_make_the_file_smaller(tmp_path: Path) -> None:
    path = tmp_path / "perpwatch.db"
    database = Database.open(str(path))
    await write(database, *(candle(f"S{number:03}_USDT", minute) for minute in range(100) for number in range(200)))
    checkpoint(database)
    before = path.stat().st_size
    deleted = sum(cleaning(database, Retention({Timeframe.Min1: 90 / DAY}), at(180)))
    checkpoint(database)
    assert deleted == 90 * 200
    assert path.stat().st_size < before / 4
    assert len(Reader(database).market_candles(Timeframe.Min1, at(0), at(100))) == 10 * 200
    assert check(database).problems == []
    database.close()


async def test_a_check_tells_gaps_from_losses(database: Database) -> None:
    codes = bytearray(60)
    for minute in (0, 1, 2, 5):
        codes[minute] = 1
    await write(
        database,
        *(candle("BTC_USDT", minute) for minute in (0, 1, 5)),  # minute 2 is known and not there
        LedgerHour("BTC_USDT", at(0), bytes(codes)),  # minutes 3 and 4 are gaps
        candle("ETH_USDT", 0),  # there and not known
        candle("ETH_USDT", 1, trust=Trust.UNKNOWN),  # retracted
        LedgerHour("ETH_USDT", at(0), bytes(60)),
    )
    findings = check(database)
    assert findings.lost == {"BTC_USDT": 1}
    assert findings.gaps == {"BTC_USDT": 2, "ETH_USDT": 5}
    assert findings.unledgered == {"ETH_USDT": 1}
    assert findings.minutes == 12
    assert not findings.is_clean


async def test_a_check_reports_candles_off_the_grid_and_short_ledger_rows(database: Database) -> None:
    await write(database, candle(), LedgerHour("BTC_USDT", at(0), b"\1"))
    with database.writing() as connection:
        connection.execute(
            sqlalchemy.text("UPDATE candles SET open_time_ms = open_time_ms + 1 WHERE symbol = 'BTC_USDT'")
        )
    assert check(database).problems == [
        "1 Min1 candles do not open on a multiple of Min1",
        f"the ledger of BTC_USDT at {at(0)} has 1 minutes, not 60",
    ]


async def test_a_check_reports_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "perpwatch.db"
    database = Database.open(str(path))
    await write(database, *(candle(f"S{number:03}_USDT", minute) for minute in range(10) for number in range(200)))
    checkpoint(database)
    database.close()
    other = sqlite3.connect(path)
    page = other.execute("SELECT rootpage FROM sqlite_master WHERE name = 'alerts_by_time'").fetchone()[0]
    other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    other.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4_096)
        file.write(b"\xff" * 64)
    database = Database.open(str(path))
    findings = check(database)
    assert findings.problems
    assert not findings.is_clean
    database.close()


async def test_contents_are_counted(database: Database) -> None:
    await write(database, candle(minute=0), candle(minute=9), candle(minute=5, timeframe=Timeframe.Min5), signal())
    found = contents(database)
    assert found.bytes > 10_000
    assert (found.rows["candles"], found.rows["signals"], found.rows["alerts"]) == (3, 1, 0)
    assert [(one.timeframe, one.rows, one.first_ms, one.last_ms) for one in found.candles] == [
        (Timeframe.Min1, 2, at(0), at(9)),
        (Timeframe.Min5, 1, at(5), at(5)),
    ]
    assert found.candles[0].last_ms % MINUTE_MS == 0
