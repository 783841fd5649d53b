"""Candles that wait packed are stored as if they had been put one by one."""

from __future__ import annotations

import msgspec
from store_rows import at, candle

from perpwatch.model import Finality, Timeframe, Trust
from perpwatch.store import Database, LedgerHour, PackedCandles, Reader, Writer

CANDLES = [
    candle(minute=0, trust=Trust.VERIFIED, finality=Finality.REST),
    candle(minute=0, timeframe=Timeframe.Min5),
    msgspec.structs.replace(candle(minute=1), real_open=None, real_high=None, real_low=None),
    msgspec.structs.replace(candle(minute=2), real_close=0.1 + 0.2, is_synthetic=True),
    msgspec.structs.replace(candle(minute=60, timeframe=Timeframe.Min60), missing_minutes=7),
    msgspec.structs.replace(candle(minute=61), real_close=1e308, real_open=1e308),
]


async def test_packed_candles_come_back_as_they_were(database: Database) -> None:
    packed = PackedCandles.of("BTC_USDT", CANDLES[::-1])
    async with Writer(database) as writer:
        with database.writing():  # so that nothing is committed before it is counted
            writer.put_now(packed, LedgerHour("BTC_USDT", at(0), bytes(60)))
            assert writer.counters.waiting == len(CANDLES) + 1
        assert await writer.flush(10.0)
        assert writer.counters.waiting == 0
        assert writer.counters.rejected == 0
    reader = Reader(database)
    for timeframe in (Timeframe.Min1, Timeframe.Min5, Timeframe.Min60):
        expected = [one for one in CANDLES if one.timeframe is timeframe]
        assert reader.candles("BTC_USDT", timeframe, at(0), at(120)) == expected
    assert len(reader.ledger(at(0), at(60))) == 1


def test_packed_candles_are_cut_by_time_and_take_107_bytes_each() -> None:
    packed = PackedCandles.of("BTC_USDT", CANDLES)
    assert packed.start_ms == at(0)
    place = packed.place(at(60))
    assert place == 4
    older, newer = packed.part(0, place), packed.part(place, len(packed))
    assert [*older.rows(), *newer.rows()] == list(packed.rows())
    assert list(packed.minutes()) == [at(0), at(1), at(2), at(61)]
    assert newer.start_ms == at(60)
    assert len(packed._rows) == 107 * len(CANDLES)


async def test_a_packed_history_that_cannot_be_stored_takes_no_other_with_it(database: Database) -> None:
    damaged = PackedCandles.of("ETH_USDT", [candle("ETH_USDT")])
    damaged.symbol = None  # type: ignore[assignment]
    async with Writer(database) as writer:
        writer.put_units_now([(damaged,), (PackedCandles.of("BTC_USDT", CANDLES),)])
        assert await writer.flush(10.0)
        assert writer.counters.rejected == 1
    assert len(Reader(database).market_candles(Timeframe.Min1, at(0), at(120))) == 4
