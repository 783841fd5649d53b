"""Reading what is kept, from this process or any other, also while it is being written."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, bindparam, func, select

from perpwatch.model import Candle, Contract, Reason, Signal, Timeframe
from perpwatch.store import schema
from perpwatch.store.database import Database
from perpwatch.store.records import HOUR_MS, Alerted, AlertOutcome, Delivery, DeliveryState, Label, LedgerHour, State

#: Open times looked up in one statement.
TIMES_PER_STATEMENT = 1_000
#: Made once, because each list of values that is put into a statement leaves a circle behind, which lives with all its
#: values until the collector finds it; and a start asks for twenty windows of a thousand symbols.
_OF_SYMBOL = (
    select(schema.candles)
    .where(
        schema.candles.c.timeframe == bindparam("timeframe"),
        schema.candles.c.open_time_ms.in_(bindparam("times", expanding=True)),
        schema.candles.c.symbol == bindparam("symbol"),
    )
    .order_by(schema.candles.c.open_time_ms)
)

_REASONS = msgspec.json.Decoder(tuple[Reason, ...])
_CONTRACT = msgspec.json.Decoder(Contract)


class Reader:
    """Questions to a database. Every method reads one consistent view and may be called from any thread.

    All raise StoreError.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- Candles ----------------------------------------------------------------------------------------------------

    def candles(self, symbol: str, timeframe: Timeframe, start_ms: int, end_ms: int) -> list[Candle]:
        """Candles of a symbol that open within the window, oldest first; those that are missing are left out."""
        with self._database.reading() as connection:
            if end_ms - start_ms > TIMES_PER_STATEMENT * timeframe.milliseconds:
                bounds = _bounds(connection, timeframe)
                if bounds is None:
                    return []
                start_ms, end_ms = max(start_ms, bounds[0]), min(end_ms, bounds[1] + 1)
            return _of_symbol(connection, symbol, timeframe, start_ms, end_ms)

    def oldest_open_time_ms(self, timeframe: Timeframe) -> int | None:
        """When the oldest candle of a timeframe opens, whichever symbol it is of; None when there is none."""
        with self._database.reading() as connection:
            return _oldest_ms(connection, timeframe)

    def newest_candles(self, symbol: str, timeframe: Timeframe, count: int) -> list[Candle]:
        """The last ``count`` candles of a symbol that are there, oldest first."""
        found: list[Candle] = []
        with self._database.reading() as connection:
            bounds = _bounds(connection, timeframe)
            if bounds is None:
                return []
            first_ms, end_ms = bounds[0], bounds[1] + 1
            periods = count
            while len(found) < count and end_ms > first_ms:
                start_ms = max(first_ms, end_ms - periods * timeframe.milliseconds)
                found = _of_symbol(connection, symbol, timeframe, start_ms, end_ms) + found
                # Where some are missing, look further back in strides.
                end_ms, periods = start_ms, TIMES_PER_STATEMENT
        return found[-count:]

    def last_candles(self, timeframe: Timeframe, within: int = 64) -> dict[str, Candle]:
        """The last candle of every symbol that has one among the newest ``within`` periods."""
        candles, last = schema.candles, dict[str, Candle]()
        with self._database.reading() as connection:
            bounds = _bounds(connection, timeframe)
            if bounds is None:
                return {}
            trading = set(
                connection.scalars(select(schema.contracts.c.symbol).where(schema.contracts.c.is_trading == 1))
            )
            end_ms, periods, looked_at = bounds[1] + 1, 1, 0
            while looked_at < within and (not trading or not trading <= last.keys()):
                start_ms = max(bounds[0], end_ms - periods * timeframe.milliseconds)
                window = candles.c.open_time_ms.between(start_ms, end_ms - 1)
                older: dict[str, Candle] = {}
                for candle in _select(connection, timeframe, window):
                    older[candle.symbol] = candle
                last = older | last
                looked_at, end_ms = looked_at + periods, start_ms
                periods = min(periods * 4, within - looked_at)
                if end_ms <= bounds[0]:
                    break
        return last

    def market_candles(self, timeframe: Timeframe, start_ms: int, end_ms: int) -> list[Candle]:
        """Candles of all symbols that open within the window, oldest first, then by symbol."""
        with self._database.reading() as connection:
            return _select(connection, timeframe, schema.candles.c.open_time_ms.between(start_ms, end_ms - 1))

    # --- What was found and told ------------------------------------------------------------------------------------

    def signals(
        self, since_ms: int, symbol: str | None = None, limit: int = 1_000, until_ms: int | None = None
    ) -> list[Signal]:
        """The newest signals that fired at or after an exchange time, and before another, oldest first."""
        signals = schema.signals
        query = select(signals).where(signals.c.event_time_ms >= since_ms)
        if symbol is not None:
            query = query.where(signals.c.symbol == symbol)
        if until_ms is not None:
            query = query.where(signals.c.event_time_ms < until_ms)
        query = query.order_by(*(column.desc() for column in signals.primary_key.columns)).limit(limit)
        with self._database.reading() as connection:
            return [_signal(row._mapping) for row in reversed(connection.execute(query).all())]

    def signal_counts(self, since_ms: int, until_ms: int) -> dict[str, int]:
        """How many signals of each rule fired at or after an exchange time, and before another."""
        time, rule = schema.signals.c.event_time_ms, schema.signals.c.rule
        query = select(rule, func.count()).where(time >= since_ms, time < until_ms).group_by(rule)
        with self._database.reading() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def alerts(
        self, since_ms: int = 0, symbol: str | None = None, limit: int = 1_000, until_ms: int | None = None
    ) -> list[Alerted]:
        """The newest alerts decided at or after an exchange time, and before another, oldest first."""
        alerts = schema.alerts
        query = select(alerts).where(alerts.c.time_ms >= since_ms)
        if symbol is not None:
            query = query.where(alerts.c.symbol == symbol)
        if until_ms is not None:
            query = query.where(alerts.c.time_ms < until_ms)
        query = query.order_by(alerts.c.time_ms.desc(), alerts.c.key.desc()).limit(limit)
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return [Alerted(row.key, row.time_ms, row.symbol, bytes(row.body)) for row in reversed(rows)]

    def outcomes(self, since_ms: int = 0, until_ms: int | None = None) -> list[AlertOutcome]:
        """What came of the alerts decided at or after an exchange time, and before another, oldest first."""
        outcomes = schema.outcomes
        query = select(outcomes).where(outcomes.c.time_ms >= since_ms)
        if until_ms is not None:
            query = query.where(outcomes.c.time_ms < until_ms)
        query = query.order_by(outcomes.c.time_ms, outcomes.c.alert_key)
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return [AlertOutcome(row.alert_key, row.time_ms, row.symbol, bytes(row.body)) for row in rows]

    def deliveries(
        self,
        since_ms: int = 0,
        states: Collection[DeliveryState] = (),
        channels: Collection[str] = (),
        limit: int = 1_000,
        until_ms: int | None = None,
    ) -> list[Delivery]:
        """The newest notices decided at or after a time, and before another, on each channel; oldest first.

        Args:
            states, channels: only these; all when empty.
        """
        outbox = schema.outbox
        query = select(outbox).where(outbox.c.time_ms >= since_ms)
        if states:
            query = query.where(outbox.c.state.in_(schema.DELIVERY_STATE_CODES[state] for state in states))
        if channels:
            query = query.where(outbox.c.channel.in_(channels))
        if until_ms is not None:
            query = query.where(outbox.c.time_ms < until_ms)
        query = query.order_by(outbox.c.time_ms.desc(), outbox.c.key.desc(), outbox.c.channel.desc()).limit(limit)
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return [_delivery(row._mapping) for row in reversed(rows)]

    def labels(self, since_ms: int = 0) -> list[Label]:
        """What people said of alerts at or after a time, oldest first."""
        labels = schema.labels
        query = select(labels).where(labels.c.time_ms >= since_ms).order_by(labels.c.time_ms, labels.c.alert_key)
        with self._database.reading() as connection:
            return [Label(*row) for row in connection.execute(query)]

    # --- What is known and remembered -------------------------------------------------------------------------------

    def contracts(self) -> list[Contract]:
        """All contracts ever seen, by symbol."""
        query = select(schema.contracts.c.body).order_by(schema.contracts.c.symbol)
        with self._database.reading() as connection:
            return [_CONTRACT.decode(body) for body in connection.scalars(query)]

    def ledger(self, start_ms: int, end_ms: int, symbol: str | None = None) -> list[LedgerHour]:
        """The hours that begin within the window or contain its start, oldest first."""
        ledger = schema.ledger
        query = select(ledger).where(ledger.c.hour_ms >= start_ms - start_ms % HOUR_MS, ledger.c.hour_ms < end_ms)
        if symbol is not None:
            query = query.where(ledger.c.symbol == symbol)
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(ledger.c.hour_ms, ledger.c.symbol)).all()
        return [LedgerHour(row.symbol, row.hour_ms, bytes(row.codes)) for row in rows]

    def state(self, key: str) -> State | None:
        """What was put under a key last."""
        with self._database.reading() as connection:
            row = connection.execute(select(schema.state).where(schema.state.c.key == key)).first()
        return State(row.key, bytes(row.value), row.updated_ms) if row else None

    def states(self, prefix: str = "") -> list[State]:
        """Everything remembered under keys that begin so, by key."""
        key = schema.state.c.key
        query = select(schema.state).where(key.startswith(prefix, autoescape=True)).order_by(key)
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return [State(row.key, bytes(row.value), row.updated_ms) for row in rows]


def _bounds(connection: Connection, timeframe: Timeframe) -> tuple[int, int] | None:
    """Open times of the oldest and the newest candle of a timeframe."""
    # Two questions, because SQLite finds one end of a key at once and both only by reading everything between.
    first_ms = _oldest_ms(connection, timeframe)
    if first_ms is None:
        return None
    candles = schema.candles.c
    last_ms = connection.scalar(select(func.max(candles.open_time_ms)).where(candles.timeframe == _code(timeframe)))
    assert last_ms is not None
    return first_ms, last_ms


def _oldest_ms(connection: Connection, timeframe: Timeframe) -> int | None:
    candles = schema.candles.c
    first_ms: int | None = connection.scalar(
        select(func.min(candles.open_time_ms)).where(candles.timeframe == _code(timeframe))
    )
    return first_ms


def _of_symbol(connection: Connection, symbol: str, timeframe: Timeframe, start_ms: int, end_ms: int) -> list[Candle]:
    if timeframe.minutes > Timeframe.Day1.minutes:
        # Weeks and months begin when the exchange says; there are few.
        candles = schema.candles.c
        window = candles.open_time_ms.between(start_ms, end_ms - 1)
        return _select(connection, timeframe, window, candles.symbol == symbol)
    # The key puts symbols side by side, so each candle is looked up by its whole key: a window would read the market.
    length = timeframe.milliseconds
    times = range(-(-start_ms // length) * length, end_ms, length)
    found: list[Candle] = []
    for first in range(0, len(times), TIMES_PER_STATEMENT):
        some = list(times[first : first + TIMES_PER_STATEMENT])
        known = {"timeframe": _code(timeframe), "times": some, "symbol": symbol}
        found += _candles(connection.execute(_OF_SYMBOL, known).all())
    return found


def _select(connection: Connection, timeframe: Timeframe, *conditions: ColumnElement[bool]) -> list[Candle]:
    candles = schema.candles
    query = (
        select(candles)
        .where(candles.c.timeframe == _code(timeframe), *conditions)
        .order_by(candles.c.open_time_ms, candles.c.symbol)
    )
    return _candles(connection.execute(query).all())


def _candles(rows: Iterable[Any]) -> list[Candle]:
    return [
        Candle(
            symbol=symbol,
            timeframe=schema.TIMEFRAMES[timeframe],
            open_time_ms=open_time_ms,
            open=open_,
            high=high,
            low=low,
            close=close,
            contracts=contracts,
            base_volume=base_volume,
            turnover=turnover,
            finality=schema.FINALITIES[finality],
            trust=schema.TRUSTS[trust],
            real_open=real_open,
            real_high=real_high,
            real_low=real_low,
            real_close=real_close,
            is_synthetic=bool(is_synthetic),
            missing_minutes=missing_minutes,
        )
        for (
            timeframe,
            open_time_ms,
            symbol,
            open_,
            high,
            low,
            close,
            contracts,
            base_volume,
            turnover,
            finality,
            trust,
            real_open,
            real_high,
            real_low,
            real_close,
            is_synthetic,
            missing_minutes,
        ) in rows
    ]


def _signal(row: Any) -> Signal:
    return Signal(
        detector=row["detector"],
        symbol=row["symbol"],
        timeframe=schema.TIMEFRAMES[row["timeframe"]],
        open_time_ms=row["open_time_ms"],
        direction=schema.DIRECTIONS[row["direction"]],
        level=schema.LEVELS[row["level"]],
        price=row["price"],
        strength=row["strength"],
        is_running=bool(row["is_running"]),
        trust=schema.TRUSTS[row["trust"]],
        reasons=_REASONS.decode(row["reasons"]),
        event_time_ms=row["event_time_ms"],
        received_time_ns=row["received_time_ns"],
        is_learning=bool(row["is_learning"]),
        rule=row["rule"],
    )


@contextmanager
def open_reader(address: str) -> Iterator[Reader]:
    """A store that is there, to be read and not to be changed: an older one is not brought up to date.

    Raises:
        StoreError: there is no store, or it cannot be read.
        ConfigurationError: an address that cannot be one.
    """
    database = Database.open(address, migrate=False)
    try:
        yield Reader(database)
    finally:
        database.close()


def _delivery(row: Any) -> Delivery:
    known = {**row}
    known["state"] = schema.DELIVERY_STATES[known["state"]]
    known["is_doubtful"] = bool(known["is_doubtful"])
    known["body"] = bytes(known["body"])
    return Delivery(**known)


def _code(timeframe: Timeframe) -> int:
    return schema.TIMEFRAME_CODES[timeframe]
