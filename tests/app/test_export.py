"""What is exported is read alike by Polars, DuckDB and pandas."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pandas
import polars
import pytest

from perpwatch.alert.outcomes import Excursion, Outcome
from perpwatch.alert.policy import Alert, MarketAlert
from perpwatch.app.export import DAY_MS, What, export
from perpwatch.model import (
    MINUTE_MS,
    Candle,
    Direction,
    Finality,
    Level,
    Reason,
    Signal,
    Timeframe,
    Trust,
)
from perpwatch.store import Alerted, AlertOutcome, Database, Delivery, DeliveryState, Reader, Writer

T0 = 1_791_244_800_000 - 5 * MINUTE_MS  # shortly before midnight
MIDNIGHT = T0 + 5 * MINUTE_MS


def candle(symbol: str, open_time_ms: int, timeframe: Timeframe = Timeframe.Min1) -> Candle:
    prices, figures = (100.0, 101.0, 99.0, 100.5), (3.0, 0.3, 1234.5)
    return Candle(
        symbol, timeframe, open_time_ms, *prices, *figures, Finality.CLOCK, Trust.QUIET, real_open=None, real_high=7.0
    )


def signal(symbol: str, time_ms: int) -> Signal:
    return Signal(
        detector="rarity",
        symbol=symbol,
        timeframe=Timeframe.Min5,
        open_time_ms=time_ms - time_ms % 300_000,
        direction=Direction.DOWN,
        level=Level.EXTREME,
        price=0.125,
        strength=9.5,
        is_running=True,
        trust=Trust.STREAMED,
        reasons=(Reason("turnover", 5e4, "USDT", "turnover 50k"), Reason("move", -3.0, "%")),
        event_time_ms=time_ms,
        received_time_ns=time_ms * 1_000_000 + 123,
        rule="pump",
    )


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    """Ten minutes around midnight of two symbols, three signals and two alerts."""
    database = Database.open(str(tmp_path / "perpwatch.db"))
    one = Alert("k1", signal("BTC_USDT", T0), T0, T0, 1, 2.5, 1e-4, rule="pump")
    crowd = MarketAlert("k2", T0, MIDNIGHT + 7, (one, msgspec.structs.replace(one, key="k3")), 800, 1e-4, "pump")
    after = (Excursion(5, 0.01, 0.02, -0.005), Excursion(15, -0.01, 0.03, -0.02), Excursion(60, 0.0, 0.04, -0.02))
    came_of_it = Outcome("k1", "pump", "BTC_USDT", T0, Direction.DOWN, 0.125, 0.001, after, ())
    records: list[Any] = [
        *(candle(symbol, T0 + minute * MINUTE_MS) for minute in range(10) for symbol in ("BTC_USDT", "ETH_USDT")),
        candle("BTC_USDT", T0 - T0 % 3_600_000, Timeframe.Min60),
        *(signal("BTC_USDT", time_ms) for time_ms in (T0, T0 + 1, MIDNIGHT)),
        Alerted("k1", T0, "BTC_USDT", msgspec.json.encode(one)),
        *(
            Delivery(
                channel=channel,
                key="k1",
                thread="k1",
                kind="alert",
                time_ms=T0,
                state=DeliveryState.SENT,
                sent_ms=sent_ms,
            )
            for channel, sent_ms in (("slow", T0 + 9_000), ("phone", T0 + 500))
        ),
        Delivery(channel="phone", key="k2", thread="k2", kind="market", time_ms=MIDNIGHT + 7),
        Alerted("k2", MIDNIGHT + 7, "", msgspec.json.encode(crowd)),
        AlertOutcome("k1", T0, "BTC_USDT", msgspec.json.encode(came_of_it)),
    ]

    async def write() -> None:
        async with Writer(database) as writer:
            await writer.put(*records)
            assert await writer.flush(20.0)

    asyncio.run(write())
    return Reader(database)


def asked(query: str) -> list[tuple[Any, ...]]:
    """What DuckDB answers."""
    answer = duckdb.sql(query)
    assert answer is not None
    return answer.fetchall()


def exported(reader: Reader, what: What, folder: Path) -> str:
    files = list(export(reader, what, T0, MIDNIGHT + DAY_MS, folder))
    assert [one.path.parent.name for one in files] == ["date=2026-10-05", "date=2026-10-06"]
    assert not list(folder.rglob("*.part"))
    return str(folder / what / "**" / "*.parquet")


def test_candles_are_the_same_in_all_three(reader: Reader, tmp_path: Path) -> None:
    files = exported(reader, What.CANDLES, tmp_path / "out")
    by_polars = polars.read_parquet(files, hive_partitioning=True)
    by_duckdb = asked(f"describe select * from '{files}'")
    by_pandas = pandas.read_parquet(tmp_path / "out" / "candles")
    assert by_polars.height == asked(f"select count(*) from '{files}'")[0][0] == len(by_pandas) == 21
    assert (
        {*by_polars.columns} == {row[0] for row in by_duckdb} == {*by_pandas.columns} >= {"date", "symbol", "open_time"}
    )
    assert by_polars["turnover"].sum() == by_pandas["turnover"].sum() == 21 * 1234.5
    query = f"""select date::varchar, count(*), min(epoch_ms(open_time)), any_value(trust), max(real_high),
        max(real_open) from '{files}' where timeframe = 'Min1' group by date order by date"""
    assert asked(query) == [
        ("2026-10-05", 10, T0, "quiet", 7.0, None),
        ("2026-10-06", 10, MIDNIGHT, "quiet", 7.0, None),
    ]
    assert by_pandas["open_time"].min() == pandas.Timestamp("2026-10-05 23:00", tz="UTC")


def test_signals_keep_their_reasons_and_both_times(reader: Reader, tmp_path: Path) -> None:
    files = exported(reader, What.SIGNALS, tmp_path / "out")
    query = f"""select epoch_ms(time), (received_time - time)::varchar, rule, level, direction, r.name, r.value
        from '{files}', unnest(reasons) as t(r) order by 1, 6"""
    rows = asked(query)
    assert len(rows) == 6
    assert (rows[0][0], *rows[0][2:]) == (T0, "pump", "extreme", "down", "move", -3.0)
    first = pandas.read_parquet(tmp_path / "out" / "signals").sort_values("time").iloc[0]
    assert first["received_time"].value == T0 * 1_000_000
    assert [reason["name"] for reason in first["reasons"]] == ["turnover", "move"]
    assert polars.read_parquet(files)["is_running"].all()


def test_alerts_say_what_came_of_them_and_name_the_crowd(reader: Reader, tmp_path: Path) -> None:
    files = exported(reader, What.ALERTS, tmp_path / "out")
    single, market = polars.read_parquet(files).sort("time").rows(named=True)
    assert (single["key"], single["symbols"], single["is_market"], single["escalation"]) == (
        "k1",
        ["BTC_USDT"],
        False,
        1,
    )
    assert (single["best_5"], single["return_15"], single["return_240"], single["is_hit"]) == (0.02, -0.01, None, True)
    assert single["delivered_time"].timestamp() * 1_000 == T0 + 500
    assert (market["symbols"], market["is_market"], market["price"]) == (["BTC_USDT"], True, None)
    assert market["delivered_time"] is None
    assert len(pandas.read_parquet(tmp_path / "out" / "alerts")) == 2


def test_an_export_again_replaces_the_day(reader: Reader, tmp_path: Path) -> None:
    files = exported(reader, What.CANDLES, tmp_path)
    assert exported(reader, What.CANDLES, tmp_path) == files
    assert polars.read_parquet(files).height == 21
