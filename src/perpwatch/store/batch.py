"""What a batch of records does to the database: which rows, in which order, by which statements.

Many rows travel in one statement. The SQLite driver gives the interpreter away at every statement and gets it back
late when the event loop is busy, which is exactly when minutes close: beside a busy loop a row per statement took
three times as long. PostgreSQL gets whole columns as arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, assert_never

import msgspec
from sqlalchemy import BigInteger, Connection, Double, Integer, LargeBinary, SmallInteger, Table, Text

from perpwatch.model import Candle, Contract, Reason, Signal, Timeframe, Trust
from perpwatch.store import schema
from perpwatch.store.finite_json import finite_json
from perpwatch.store.packed import PackedCandles
from perpwatch.store.records import (
    TRUST_CODES,
    Alerted,
    AlertOutcome,
    Delivery,
    Label,
    LedgerHour,
    Record,
    Retracted,
    State,
)

Row = tuple[Any, ...]

#: Rows per statement on SQLite, largest first; few sizes, so that each is compiled once.
CHUNKS = (1_024, 128, 16, 1)
#: SQLite allows this many values in a statement.
MAX_VALUES = 32_766

_UNTRUSTED = TRUST_CODES[Trust.UNKNOWN]
_TRUST_COLUMN = schema.candles.c.keys().index("trust")
_STATE_COLUMN = schema.outbox.c.keys().index("state")
_DOUBT_COLUMN = schema.outbox.c.keys().index("is_doubtful")
_TIMEFRAME_CODES, _FINALITY_CODES = schema.TIMEFRAME_CODES, schema.FINALITY_CODES


class Batch:
    """Records of one transaction, boiled down to the rows they leave behind; the last word about a row wins."""

    def __init__(self) -> None:
        self._candles: dict[Row, Row] = {}
        self._ledger: dict[Row, Row] = {}
        self._contracts: dict[Row, Row] = {}
        self._signals: dict[Row, Row] = {}
        self._alerts: dict[Row, Row] = {}
        self._outcomes: dict[Row, Row] = {}
        self._outbox: dict[Row, Row] = {}
        self._labels: dict[Row, Row] = {}
        self._state: dict[Row, Row] = {}
        self._retracted: list[Retracted] = []

    def add(self, records: Iterable[Record | PackedCandles]) -> None:
        for record in records:
            if isinstance(record, Candle):
                row = _candle_row(record)
                self._candles[row[:3]] = row
            elif isinstance(record, PackedCandles):
                for row in record.rows():
                    self._candles[row[:3]] = row
            else:
                self._add_other(record)

    def _add_other(self, record: Record) -> None:
        match record:
            case LedgerHour():
                self._ledger[record.hour_ms, record.symbol] = (record.hour_ms, record.symbol, record.codes)
            case Signal():
                row = _signal_row(record)
                self._signals[row[:7]] = row
            case Retracted():
                self._retract(record)
            case Contract():
                self._contracts[(record.symbol,)] = _contract_row(record)
            case Alerted():
                row = (record.key, record.time_ms, record.symbol, record.body)
                self._alerts.setdefault((record.key,), row)
            case AlertOutcome():
                row = (record.alert_key, record.time_ms, record.symbol, record.body)
                self._outcomes[row[:1]] = row
            case Delivery():
                row = _delivery_row(record)
                self._outbox[row[:2]] = row
            case Label():
                row = msgspec.structs.astuple(record)
                self._labels[row[:2]] = row
            case State():
                self._state[(record.key,)] = (record.key, record.value, record.updated_ms)
            case Candle():
                raise AssertionError("candles are taken above")
            case _:
                assert_never(record)

    def _retract(self, retracted: Retracted) -> None:
        self._retracted.append(retracted)
        for key in _retracted_keys(retracted):
            row = self._candles.get(key)
            if row is not None:
                self._candles[key] = (*row[:_TRUST_COLUMN], _UNTRUSTED, *row[_TRUST_COLUMN + 1 :])

    def write(self, connection: Connection) -> int:
        """Run the statements; returns the rows written."""
        # Retractions first: a candle of this batch that came after one was added above in its final form.
        for retracted in self._retracted:
            for timeframe, start_ms, end_ms in _retracted_ranges(retracted):
                connection.execute(
                    schema.candles.update()
                    .where(schema.candles.c.timeframe == timeframe)
                    .where(schema.candles.c.open_time_ms.in_(range(start_ms, end_ms, timeframe * 60_000)))
                    .where(schema.candles.c.symbol == retracted.symbol)
                    .values(trust=_UNTRUSTED)
                )
        rows = 0
        for table, by_key in (
            (schema.candles, self._candles),
            (schema.ledger, self._ledger),
            (schema.contracts, self._contracts),
            (schema.signals, self._signals),
            (schema.alerts, self._alerts),
            (schema.outcomes, self._outcomes),
            (schema.outbox, self._outbox),
            (schema.labels, self._labels),
            (schema.state, self._state),
        ):
            if by_key:
                # In key order: neighbours on disk, and no two processes that lock rows crosswise.
                upsert(connection, table, [by_key[key] for key in sorted(by_key)])
                rows += len(by_key)
        return rows + len(self._retracted)


def upsert(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    """Insert rows, or replace those of the same key; keys must not repeat within ``rows``."""
    if connection.dialect.name != "sqlite":
        connection.exec_driver_sql(_postgresql_upsert(table), tuple(map(list, zip(*rows, strict=True))))
        return
    start = 0
    for size in CHUNKS:
        if size * len(table.columns) > MAX_VALUES:
            continue
        while len(rows) - start >= size:
            values = [value for row in rows[start : start + size] for value in row]
            connection.exec_driver_sql(_sqlite_upsert(table, size), tuple(values))
            start += size


@cache
def _sqlite_upsert(table: Table, rows: int) -> str:
    one = f"({', '.join('?' * len(table.columns))})"
    return f"{_insert(table)} VALUES {', '.join([one] * rows)} {_on_conflict(table)}"


@cache
def _postgresql_upsert(table: Table) -> str:
    arrays = ", ".join(f"%s::{_POSTGRESQL_TYPES[type(column.type)]}[]" for column in table.columns)
    return f"{_insert(table)} SELECT * FROM unnest({arrays}) {_on_conflict(table)}"


_POSTGRESQL_TYPES = {
    SmallInteger: "smallint",
    Integer: "integer",
    BigInteger: "bigint",
    Double: "double precision",
    Text: "text",
    LargeBinary: "bytea",
}


def _insert(table: Table) -> str:
    return f"INSERT INTO {table.name} ({', '.join(_quoted(column.name) for column in table.columns)})"


def _on_conflict(table: Table) -> str:
    key = [column.name for column in table.primary_key.columns]
    target = f"ON CONFLICT ({', '.join(map(_quoted, key))})"
    if table is schema.alerts:
        return f"{target} DO NOTHING"  # what was told stays told
    others = [_quoted(column.name) for column in table.columns if column.name not in key]
    return f"{target} DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in others)}"


def _quoted(name: str) -> str:
    return f'"{name}"'


def _candle_row(candle: Candle) -> Row:
    return (
        _TIMEFRAME_CODES[candle.timeframe],
        candle.open_time_ms,
        candle.symbol,
        candle.open,
        candle.high,
        candle.low,
        candle.close,
        candle.contracts,
        candle.base_volume,
        candle.turnover,
        _FINALITY_CODES[candle.finality],
        TRUST_CODES[candle.trust],
        candle.real_open,
        candle.real_high,
        candle.real_low,
        candle.real_close,
        int(candle.is_synthetic),
        candle.missing_minutes,
    )


def _signal_row(signal: Signal) -> Row:
    return (
        signal.event_time_ms,
        signal.symbol,
        signal.detector,
        signal.rule,
        _TIMEFRAME_CODES[signal.timeframe],
        signal.open_time_ms,
        int(signal.is_running),
        schema.DIRECTION_CODES[signal.direction],
        schema.LEVEL_CODES[signal.level],
        signal.price,
        signal.strength,
        TRUST_CODES[signal.trust],
        int(signal.is_learning),
        signal.received_time_ns,
        finite_json(signal.reasons, tuple[Reason, ...]),
    )


def _delivery_row(delivery: Delivery) -> Row:
    row = list(msgspec.structs.astuple(delivery))
    row[_STATE_COLUMN] = schema.DELIVERY_STATE_CODES[delivery.state]
    row[_DOUBT_COLUMN] = int(delivery.is_doubtful)
    return tuple(row)


def _contract_row(contract: Contract) -> Row:
    body = {name: getattr(contract, name) for name in Contract.__struct_fields__}
    return contract.symbol, int(contract.is_trading), contract.opening_time_ms, msgspec.json.encode(body)


#: Those that a minute can be part of and that are aligned to the epoch.
_HOLDING_A_MINUTE = tuple(timeframe for timeframe in Timeframe if timeframe.minutes <= Timeframe.Day1.minutes)


def _retracted_ranges(retracted: Retracted) -> Iterable[tuple[int, int, int]]:
    """Timeframe code, first and end open time of the candles that a retraction touches."""
    for timeframe in _HOLDING_A_MINUTE:
        length = timeframe.milliseconds
        yield _TIMEFRAME_CODES[timeframe], retracted.start_ms - retracted.start_ms % length, retracted.end_ms


def _retracted_keys(retracted: Retracted) -> Iterable[Row]:
    for code, start_ms, end_ms in _retracted_ranges(retracted):
        for open_time_ms in range(start_ms, end_ms, code * 60_000):
            yield code, open_time_ms, retracted.symbol
