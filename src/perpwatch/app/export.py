"""What is kept, as Parquet files that DuckDB, Polars and pandas read.

``DIR/candles/date=2026-11-25/candles.parquet``, and likewise for signals and alerts: one file a UTC day. ``date``
stands in the folder's name, where all three find it as a column. A day is written whole and replaces what was there, so
that an export can be repeated every hour.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import polars

from perpwatch.alert.outcomes import HORIZONS, Outcome
from perpwatch.alert.policy import Alert, MarketAlert
from perpwatch.errors import ConfigurationError
from perpwatch.model import ANALYSED_TIMEFRAMES, Candle, Signal
from perpwatch.store import HOUR_MS, Alerted, DeliveryState, Reader

logger = logging.getLogger(__name__)

DAY_MS = 24 * HOUR_MS
#: Signals and alerts of a day that are read at most.
MOST_A_DAY = 10_000_000

_TIME, _RECEIVED = polars.Datetime("ms", "UTC"), polars.Datetime("us", "UTC")
_REASONS = polars.List(
    polars.Struct({"name": polars.String, "value": polars.Float64, "unit": polars.String, "text": polars.String})
)
CANDLES: dict[str, Any] = {
    "symbol": polars.String,
    "timeframe": polars.String,
    "open_time": _TIME,
    **dict.fromkeys(("open", "high", "low", "close", "contracts", "base_volume", "turnover"), polars.Float64),
    "finality": polars.String,
    "trust": polars.String,
    **dict.fromkeys(("real_open", "real_high", "real_low", "real_close"), polars.Float64),
    "is_synthetic": polars.Boolean,
    "missing_minutes": polars.Int32,
}
SIGNALS: dict[str, Any] = {
    "time": _TIME,  # exchange
    "received_time": _RECEIVED,  # ours
    "symbol": polars.String,
    "timeframe": polars.String,
    "open_time": _TIME,
    "rule": polars.String,
    "detector": polars.String,
    "direction": polars.String,
    "level": polars.String,
    "price": polars.Float64,
    "strength": polars.Float64,
    "is_running": polars.Boolean,
    "is_learning": polars.Boolean,
    "trust": polars.String,
    "reasons": _REASONS,
}
ALERTS: dict[str, Any] = {
    "key": polars.String,
    "time": _TIME,
    "delivered_time": _TIME,  # when the first channel acknowledged it; null when none has
    "rule": polars.String,
    "symbols": polars.List(polars.String),  # one, or those of an alert about the market
    "is_market": polars.Boolean,
    "timeframe": polars.String,  # the following are null for an alert about the market
    "direction": polars.String,
    "level": polars.String,
    "price": polars.Float64,
    "escalation": polars.Int32,
    "reasons": _REASONS,
    # What came of it after so many minutes, null until it is known: the furthest the price had gone the alert's way,
    # and where it was; fractions.
    **{f"{what}_{minutes}": polars.Float64 for minutes in HORIZONS for what in ("best", "return")},
    "is_hit": polars.Boolean,
}


class What(enum.StrEnum):
    """What can be exported."""

    CANDLES = "candles"
    SIGNALS = "signals"
    ALERTS = "alerts"


@dataclass(frozen=True, slots=True)
class Exported:
    """One file that was written."""

    path: Path
    rows: int


def export(reader: Reader, what: What, since_ms: int, until_ms: int, folder: Path) -> Iterator[Exported]:
    """Write the UTC days from the one that holds ``since_ms`` on; days without rows are left out.

    Raises:
        StoreError: the store cannot be read.
        ConfigurationError: the folder cannot be written.
    """
    frames: dict[What, Callable[[Reader, int], polars.DataFrame]] = {
        What.CANDLES: _candles,
        What.SIGNALS: _signals,
        What.ALERTS: _alerts,
    }
    for day_ms in range(since_ms - since_ms % DAY_MS, until_ms, DAY_MS):
        frame = frames[what](reader, day_ms)
        if frame.height:
            path = folder / what / f"date={datetime.fromtimestamp(day_ms / 1e3, UTC):%Y-%m-%d}" / f"{what}.parquet"
            _write(frame, path)
            yield Exported(path, frame.height)


def _write(frame: polars.DataFrame, path: Path) -> None:
    part = path.with_suffix(".part")  # whoever reads meanwhile sees the old file or the new one
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.write_parquet(part)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ConfigurationError("--to-parquet", str(path), f"a folder to write to ({error})") from error


def _candles(reader: Reader, day_ms: int) -> polars.DataFrame:
    parts = []
    for timeframe in ANALYSED_TIMEFRAMES:
        for from_ms in range(day_ms, day_ms + DAY_MS, HOUR_MS):  # as objects, an hour of the market is enough
            candles = reader.market_candles(timeframe, from_ms, from_ms + HOUR_MS)
            parts.append(_frame(map(_candle_row, candles), CANDLES))
    return polars.concat(parts).sort("timeframe", "symbol", "open_time")


def _candle_row(candle: Candle) -> tuple[Any, ...]:
    return (
        candle.symbol,
        candle.timeframe.value,
        candle.open_time_ms,
        *(candle.open, candle.high, candle.low, candle.close),
        *(candle.contracts, candle.base_volume, candle.turnover),
        candle.finality.value,
        candle.trust.value,
        *(candle.real_open, candle.real_high, candle.real_low, candle.real_close),
        candle.is_synthetic,
        candle.missing_minutes,
    )


def _signals(reader: Reader, day_ms: int) -> polars.DataFrame:
    signals = reader.signals(day_ms, limit=MOST_A_DAY, until_ms=day_ms + DAY_MS)
    return _frame(map(_signal_row, signals), SIGNALS)


def _signal_row(signal: Signal) -> tuple[Any, ...]:
    return (
        signal.event_time_ms,
        signal.received_time_ns // 1_000,
        signal.symbol,
        signal.timeframe.value,
        signal.open_time_ms,
        signal.rule,
        signal.detector,
        signal.direction.value,
        signal.level.name.lower(),
        signal.price,
        signal.strength,
        signal.is_running,
        signal.is_learning,
        signal.trust.value,
        _reasons_of(signal),
    )


def _reasons_of(signal: Signal) -> list[dict[str, Any]]:
    return [msgspec.structs.asdict(reason) for reason in signal.reasons]


def _alerts(reader: Reader, day_ms: int) -> polars.DataFrame:
    kept = reader.alerts(day_ms, limit=MOST_A_DAY, until_ms=day_ms + DAY_MS)
    sent = reader.deliveries(day_ms, [DeliveryState.SENT], limit=MOST_A_DAY, until_ms=day_ms + DAY_MS)
    acknowledged: dict[str, int] = {}
    for row in sent:
        acknowledged[row.key] = min(row.sent_ms, acknowledged.get(row.key, row.sent_ms))
    bodies = {one.alert_key: one.body for one in reader.outcomes(day_ms, day_ms + DAY_MS)}
    rows = []
    for one in kept:
        try:
            body = bodies.get(one.key)
            outcome = msgspec.json.decode(body, type=Outcome) if body is not None else None
            rows.append(_alert_row(one, acknowledged.get(one.key), outcome))
        except msgspec.MsgspecError as error:
            logger.warning("the alert %s cannot be read and is left out: %s", one.key, error)
    return _frame(rows, ALERTS)


def _alert_row(kept: Alerted, delivered_ms: int | None, outcome: Outcome | None) -> tuple[Any, ...]:
    after = {one.minutes: one for one in outcome.after} if outcome is not None else {}
    came_of_it: list[float | None] = []
    for minutes in HORIZONS:
        one = after.get(minutes)
        came_of_it += (one.best, one.forward) if one is not None else (None, None)
    is_hit = outcome.is_hit if outcome is not None else None
    head = kept.key, kept.time_ms, delivered_ms
    if kept.symbol:
        alert = msgspec.json.decode(kept.body, type=Alert)
        signal = alert.signal
        return (
            *head,
            alert.rule,
            [alert.symbol],
            False,
            signal.timeframe.value,
            signal.direction.value,
            signal.level.name.lower(),
            signal.price,
            alert.escalation,
            _reasons_of(signal),
            *came_of_it,
            is_hit,
        )
    market = msgspec.json.decode(kept.body, type=MarketAlert)
    symbols = list(dict.fromkeys(one.symbol for one in market.alerts))
    return *head, market.rule, symbols, True, None, None, None, None, None, None, *came_of_it, is_hit


def _frame(rows: Iterable[Sequence[Any]], schema: dict[str, Any]) -> polars.DataFrame:
    return polars.DataFrame(list(rows), schema=schema, orient="row")
