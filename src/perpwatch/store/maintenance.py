"""Keeping the database small and knowing that it is sound."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import sqlalchemy
from sqlalchemy import Column, ColumnElement, Connection, Table, delete, func, select

from perpwatch.errors import StoreDamaged
from perpwatch.model import MINUTE_MS, Timeframe, Trust
from perpwatch.store import schema
from perpwatch.store.database import Database
from perpwatch.store.records import EMPTY_CODE, HOUR_MS, TRUST_CODES

DAY_MS = 24 * HOUR_MS

#: Periods of a timeframe deleted in one transaction: some 10 ms for the whole market.
PERIODS_PER_STEP = 8
#: Free pages beyond this share of the file are given back; the rest is refilled by the next minutes anyway.
FREE_SHARE = 0.05
PAGES_PER_STEP = 512

_UNKNOWN = TRUST_CODES[Trust.UNKNOWN]


@dataclass(frozen=True, slots=True)
class Retention:
    """How many days each kind of row is kept; 0 or absent is for ever."""

    candles: Mapping[Timeframe, float] = field(default_factory=dict)
    ledger: float = 0.0
    signals: float = 0.0
    alerts: float = 0.0  # with their outcomes, labels and deliveries


def cleaning(database: Database, retention: Retention, now_ms: int) -> Iterator[int]:
    """Delete what is older, a little at each step; yields the rows deleted by it.

    Raises from a step:
        StoreError: as any write; the steps before are done.
    """
    candles, ledger, signals = schema.candles, schema.ledger, schema.signals
    alerts, outcomes = schema.alerts, schema.outcomes
    for timeframe, days in retention.candles.items():
        if days:
            of_timeframe = candles.c.timeframe == schema.TIMEFRAME_CODES[timeframe]
            step_ms = PERIODS_PER_STEP * timeframe.milliseconds
            yield from _delete(database, candles.c.open_time_ms, _cutoff(now_ms, days), step_ms, of_timeframe)
    for column, days, step_ms in (
        (ledger.c.hour_ms, retention.ledger, PERIODS_PER_STEP * HOUR_MS),
        (signals.c.event_time_ms, retention.signals, DAY_MS),
        (alerts.c.time_ms, retention.alerts, DAY_MS),
        (outcomes.c.time_ms, retention.alerts, DAY_MS),
        (schema.outbox.c.time_ms, retention.alerts, DAY_MS),
        (schema.labels.c.time_ms, retention.alerts, DAY_MS),
    ):
        if days:
            yield from _delete(database, column, _cutoff(now_ms, days), step_ms)
    if database.is_sqlite:
        yield from _give_back(database)


def _cutoff(now_ms: int, days: float) -> int:
    return now_ms - round(days * DAY_MS)


def _delete(
    database: Database, time: Column[int], cutoff_ms: int, step_ms: int, condition: ColumnElement[bool] | None = None
) -> Iterator[int]:
    where = [] if condition is None else [condition]
    while True:
        with database.writing() as connection:
            oldest_ms = connection.scalar(select(func.min(time)).where(*where))
            if oldest_ms is None or oldest_ms >= cutoff_ms:
                return
            until_ms = min(cutoff_ms, oldest_ms + step_ms)
            deleted = connection.execute(delete(time.table).where(*where, time < until_ms)).rowcount
        yield deleted


def _give_back(database: Database) -> Iterator[int]:
    while True:
        with database.outside_transaction() as connection:
            pages = _pragma(connection, "page_count")
            if _pragma(connection, "freelist_count") <= pages * FREE_SHARE:
                return
            driver = connection.connection.driver_connection
            assert driver is not None
            # As a script, because the statement frees a page at each step and has no rows to fetch.
            driver.executescript(f"PRAGMA incremental_vacuum({PAGES_PER_STEP})")
            if _pragma(connection, "page_count") == pages:
                return  # a file from before pages could be given back
        yield 0


def checkpoint(database: Database) -> None:
    """Copy SQLite's write-ahead log into the file, as far as readers allow without waiting, and free its pages."""
    if database.is_sqlite:
        with database.outside_transaction() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            # A connection keeps up to 1 MB of pages, which the next minute, written behind them, does not ask for.
            connection.exec_driver_sql("PRAGMA shrink_memory")


def _pragma(connection: Connection, name: str) -> int:
    return int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())


# --- Knowing ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CandleRange:
    """The candles of one timeframe."""

    timeframe: Timeframe
    rows: int
    first_ms: int
    last_ms: int


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in a database."""

    name: str
    revision: str
    bytes: int  # with the write-ahead log
    rows: dict[str, int]  # by table
    candles: list[CandleRange]


@dataclass(slots=True)
class Findings:
    """What :func:`check` found. Gaps are known to the ledger and no fault of the database."""

    problems: list[str] = field(default_factory=list)
    minutes: int = 0  # (symbol, minute) pairs looked at
    gaps: Counter[str] = field(default_factory=Counter)  # minutes nobody knows, by symbol
    lost: Counter[str] = field(default_factory=Counter)  # minutes the ledger knows without a candle, by symbol
    unledgered: Counter[str] = field(default_factory=Counter)  # candles of minutes the ledger does not know

    @property
    def is_clean(self) -> bool:
        return not self.problems and not self.lost and not self.unledgered


def contents(database: Database) -> Contents:
    """Count everything; takes a second for ten million rows."""
    candles = schema.candles
    with database.reading() as connection:
        rows = {
            table.name: connection.scalar(select(func.count()).select_from(table)) or 0
            for table in schema.metadata.sorted_tables
        }
        ranges = [
            CandleRange(schema.TIMEFRAMES[code], count, first_ms, last_ms)
            for code, count, first_ms, last_ms in connection.execute(
                select(
                    candles.c.timeframe,
                    func.count(),
                    func.min(candles.c.open_time_ms),
                    func.max(candles.c.open_time_ms),
                )
                .group_by(candles.c.timeframe)
                .order_by(candles.c.timeframe)
            )
        ]
        size = _bytes(database, connection)
    return Contents(database.name, database.revision() or "", size, rows, ranges)


def _bytes(database: Database, connection: Connection) -> int:
    path = database.path
    if path is None:
        return int(connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar_one())
    files = (path, path.with_name(path.name + "-wal"))
    return sum(file.stat().st_size for file in files if file.exists())


def check(database: Database) -> Findings:
    """Look at every page and every minute.

    A minute that the ledger knows must have its candle, and the other way round, because both are written together.
    """
    findings = Findings()
    for part in (_check_pages, _check_tables, _check_candles, _check_ledger):
        try:
            with database.reading() as connection:
                part(connection, findings)
        except StoreDamaged as error:
            findings.problems.append(error.reason)
    return findings


def _check_pages(connection: Connection, findings: Findings) -> None:
    if connection.dialect.name == "sqlite":
        answers = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA integrity_check")]
        findings.problems += [answer for answer in answers if answer != "ok"]


def _check_tables(connection: Connection, findings: Findings) -> None:
    present = sqlalchemy.inspect(connection).get_table_names()
    missing: list[Table] = [table for table in schema.metadata.sorted_tables if table.name not in present]
    findings.problems += [f"the table {table.name} is missing" for table in missing]


def _check_candles(connection: Connection, findings: Findings) -> None:
    candles = schema.candles
    for timeframe, code in schema.TIMEFRAME_CODES.items():
        if timeframe.minutes > Timeframe.Day1.minutes:
            continue  # weeks and months begin when the exchange says
        wrong = connection.scalar(
            select(func.count())
            .select_from(candles)
            .where(candles.c.timeframe == code, candles.c.open_time_ms % timeframe.milliseconds != 0)
        )
        if wrong:
            findings.problems.append(f"{wrong} {timeframe} candles do not open on a multiple of {timeframe}")


def _check_ledger(connection: Connection, findings: Findings) -> None:
    candles, ledger = schema.candles, schema.ledger
    minutes = candles.c.timeframe == schema.TIMEFRAME_CODES[Timeframe.Min1]
    first_ms, last_ms = connection.execute(
        select(func.min(candles.c.open_time_ms), func.max(candles.c.open_time_ms)).where(minutes)
    ).one()
    if first_ms is None:
        return
    for hour_ms in range(first_ms - first_ms % HOUR_MS, last_ms + 1, HOUR_MS):
        stored: dict[str, set[int]] = {}
        is_trusted = candles.c.trust != _UNKNOWN
        in_hour = candles.c.open_time_ms.between(hour_ms, hour_ms + HOUR_MS - 1)
        for symbol, open_time_ms in connection.execute(
            select(candles.c.symbol, candles.c.open_time_ms).where(minutes, in_hour, is_trusted)
        ):
            stored.setdefault(symbol, set()).add((open_time_ms - hour_ms) // MINUTE_MS)
        of_hour = select(ledger.c.symbol, ledger.c.codes).where(ledger.c.hour_ms == hour_ms)
        known = {row.symbol: row.codes for row in connection.execute(of_hour)}
        # What lies before the oldest candle was deleted by age, what lies behind the newest has not happened.
        looked_at = range(max(0, (first_ms - hour_ms) // MINUTE_MS), min(60, (last_ms - hour_ms) // MINUTE_MS + 1))
        for symbol in stored.keys() | known.keys():
            codes, present = known.get(symbol, bytes(60)), stored.get(symbol, set())
            if len(codes) != 60:
                findings.problems.append(f"the ledger of {symbol} at {hour_ms} has {len(codes)} minutes, not 60")
                continue
            expected = {minute for minute in looked_at if codes[minute] not in (_UNKNOWN, EMPTY_CODE)}
            empty = sum(codes[minute] == EMPTY_CODE for minute in looked_at)
            findings.minutes += len(looked_at)
            for counter, count in (
                (findings.gaps, len(looked_at) - len(expected | present) - empty),
                (findings.lost, len(expected - present)),
                (findings.unledgered, len(present - expected)),
            ):
                if count:
                    counter[symbol] += count
