"""Histories are stored together and in slices; nothing else waits for them, and what a crash takes is read again."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from perpwatch.app.analysis import Analysis
from perpwatch.app.engine import Engine
from perpwatch.app.histories import GATHERING_MS, GROUP, MAX_WAITING, SLICE_CANDLES
from perpwatch.app.keeper import QUIET_QUEUE, Keeper
from perpwatch.market.ledger import Span
from perpwatch.model import (
    ANALYSED_TIMEFRAMES,
    MINUTE_MS,
    Batch,
    Candle,
    CandleHistory,
    Contract,
    Event,
    Finality,
    StreamUp,
    Timeframe,
    Trust,
    stream_of_candles,
)
from perpwatch.store import HOUR_MS, Alerted, Database, Reader, Writer
from perpwatch.store.maintenance import check

T0 = 1_791_201_600_000 + 30 * MINUTE_MS
READ_MS = T0 + 10_000
MINUTES = 300


def symbols(count: int) -> list[str]:
    names = [f"COIN{number:03}_USDT" for number in range(count)]
    random.Random(3).shuffle(names)
    return names


def history(symbol: str, minutes: int = MINUTES) -> CandleHistory:
    price = 1.0 + sum(map(ord, symbol)) / 1_000.0
    candles = [
        Candle(
            symbol,
            Timeframe.Min1,
            T0 - (minutes - number) * MINUTE_MS,
            *(price, price * 1.01, price * 0.99, price),
            *(float(number + 1), 1.5, 100.0 + number),
            Finality.REST,
            Trust.VERIFIED,
            real_open=price if number % 2 else None,
        )
        for number in range(minutes)
    ]
    return CandleHistory(symbol, candles, candles[0].open_time_ms, T0)


class Kept:
    """An engine whose contracts have just come up, and its keeper."""

    def __init__(self, database: Database, writer: Writer, names: Sequence[str]) -> None:
        self.reader, self.writer = Reader(database), writer
        self.engine = Engine(Analysis(), ANALYSED_TIMEFRAMES)
        self.engine.watch([Contract(name, name[:7], "USDT", "USDT", 1.0) for name in names])
        self.keeper = Keeper(self.engine, self.reader, writer)
        self.keeper.restore(T0)
        self.take(*(StreamUp(stream_of_candles(name), "ws-1", T0) for name in names), at_ms=T0)

    def take(self, *events: Event, at_ms: int, source: str = "ws-1") -> None:
        batch = Batch(source, at_ms * 1_000_000, at_ms, events)
        self.keeper.note(batch, self.engine.take(batch))

    def learn(self, name: str) -> None:
        self.take(history(name), at_ms=READ_MS, source="rest")

    def minutes(self) -> list[Candle]:
        return self.reader.market_candles(Timeframe.Min1, 0, T0)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database.open(str(tmp_path / "perpwatch.db"))
    yield database
    database.close()


async def test_a_group_is_written_hour_by_hour_and_the_ledger_is_never_ahead(database: Database) -> None:
    names = symbols(GROUP)
    async with Writer(database, is_inline=True) as writer:
        kept = Kept(database, writer, names)
        for name in names[:-1]:
            kept.learn(name)
        assert kept.minutes() == []
        kept.learn(names[-1])
        sizes = [len(kept.minutes())]
        while sizes[-1] < GROUP * MINUTES:
            assert {one.open_time_ms for one in kept.minutes()} == set(
                range(T0 - MINUTES * MINUTE_MS, T0 - MINUTES * MINUTE_MS + sizes[-1] // GROUP * MINUTE_MS, MINUTE_MS)
            )
            findings = check(database)
            assert findings.is_clean, findings
            kept.keeper.compare()  # which must not take minutes that wait for empty ones
            kept.take(at_ms=READ_MS + len(sizes))
            sizes.append(len(kept.minutes()))
            assert sizes[-1] > sizes[-2]
            assert sizes[-1] - sizes[-2] < SLICE_CANDLES + GROUP * 60
        assert len(sizes) > 4
        for name in names:
            assert kept.reader.candles(name, Timeframe.Min1, 0, T0) == list(history(name).candles)
            assert len(kept.reader.candles(name, Timeframe.Min60, T0 - 5 * HOUR_MS, T0)) == 4
    findings = check(database)
    assert findings.is_clean, findings
    assert findings.gaps.total() == 0


async def test_one_that_comes_alone_waits_ten_seconds_and_not_for_ever(database: Database) -> None:
    first, second = symbols(2)
    async with Writer(database, is_inline=True) as writer:
        kept = Kept(database, writer, [first, second])
        kept.learn(first)
        kept.take(at_ms=READ_MS + GATHERING_MS - 1)
        assert kept.minutes() == []
        kept.take(at_ms=READ_MS + GATHERING_MS)
        assert len(kept.minutes()) == MINUTES
        kept.learn(second)
        await kept.keeper.write_histories(READ_MS + 3 * GATHERING_MS)  # no step comes any more
        assert len(kept.minutes()) == 2 * MINUTES


async def test_the_end_of_a_watch_writes_what_waits(database: Database) -> None:
    names = symbols(5)
    async with Writer(database) as writer:
        kept = Kept(database, writer, names)
        for name in names:
            kept.learn(name)
        kept.keeper.finish()
    assert len(Reader(database).market_candles(Timeframe.Min1, 0, T0)) == 5 * MINUTES
    assert check(database).is_clean


async def test_what_a_crash_takes_between_two_slices_is_unknown_and_read_again(database: Database) -> None:
    names = symbols(GROUP)
    async with Writer(database, is_inline=True) as writer:
        killed = Kept(database, writer, names)
        for name in names:
            killed.learn(name)
        killed.writer.put_now(Alerted("told", T0, names[0], b"{}"))
        stored = len(killed.minutes())
        assert 0 < stored < GROUP * MINUTES

        again = Kept(database, writer, names)
        assert [one.key for one in again.reader.alerts()] == ["told"]
        for name in names:
            unknown = list(again.engine.ledger.unknown(name, T0 - MINUTES * MINUTE_MS, T0))
            assert sum(span.minutes for span in unknown) == MINUTES - stored // GROUP
            again.learn(name)
        again.keeper.finish()
        assert len(again.minutes()) == GROUP * MINUTES
    assert check(database).is_clean
    assert check(database).gaps.total() == 0


async def test_an_alert_waits_for_one_slice_at_most(database: Database) -> None:
    names = symbols(GROUP)
    async with Writer(database) as writer:
        kept = Kept(database, writer, names)
        for name in names:
            kept.learn(name)
        most = QUIET_QUEUE + SLICE_CANDLES + GROUP * (60 + 12 + 4 + 1) + GROUP * 12
        number = 0
        while len(kept.keeper._histories):
            kept.take(at_ms=READ_MS + number)
            assert writer.counters.waiting <= most
            writer.put_now(Alerted(f"{number}", T0, names[0], b"{}"))
            assert await writer.flush(10.0)
            number += 1
        assert number > 3
        assert len(kept.reader.alerts()) == number


async def test_a_minute_that_is_lost_while_it_waits_is_not_trusted_in_the_end(database: Database) -> None:
    first, second = symbols(2)
    lost_ms = T0 - 5 * MINUTE_MS
    async with Writer(database, is_inline=True) as writer:
        kept = Kept(database, writer, [first, second])
        kept.learn(first)
        kept.learn(second)
        batch = Batch("ws-1", READ_MS * 1_000_000, READ_MS, [])
        step = kept.engine.take(batch)
        kept.engine.ledger.record(first, lost_ms, Trust.UNKNOWN)
        step.outcome.lost.append(Span(first, lost_ms, lost_ms + MINUTE_MS))
        kept.keeper.note(batch, step)
        assert {one.symbol for one in kept.minutes()} == {first}  # the other still waits
        kept.keeper.finish()
        untrusted = [one for one in kept.minutes() if one.trust is Trust.UNKNOWN]
        assert [(one.symbol, one.open_time_ms) for one in untrusted] == [(first, lost_ms)]
        assert len(kept.minutes()) == 2 * MINUTES
    assert check(database).is_clean


async def test_a_minute_that_is_closed_while_it_waits_has_the_last_word(database: Database) -> None:
    (name,) = symbols(1)
    async with Writer(database, is_inline=True) as writer:
        kept = Kept(database, writer, [name])
        kept.learn(name)
        batch = Batch("ws-1", READ_MS * 1_000_000, READ_MS, [])
        step = kept.engine.take(batch)
        corrected = msgspec.structs.replace(history(name).candles[-2], close=1.005, trust=Trust.REPAIRED)
        step.outcome.closed.append(corrected)
        kept.keeper.note(batch, step)
        kept.keeper.finish()
        assert kept.minutes()[-2] == corrected


async def test_no_more_histories_wait_than_may_while_the_disk_takes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "perpwatch.db"
    database = Database.open(str(path))
    names = symbols(MAX_WAITING + 10)
    other = sqlite3.connect(path, isolation_level=None)
    async with Writer(database) as writer:
        kept = Kept(database, writer, names)
        assert await writer.flush(10.0)
        other.execute("BEGIN IMMEDIATE")
        for name in names:
            kept.learn(name)
            await kept.keeper.room()
            assert len(kept.keeper._histories) <= MAX_WAITING
        other.execute("ROLLBACK")
        kept.keeper.finish()
        assert await writer.flush(30.0)
        assert len(kept.minutes()) == len(names) * MINUTES
    other.close()
    assert check(database).is_clean
    database.close()
