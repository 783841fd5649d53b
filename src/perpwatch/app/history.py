"""Past markets as a feed: candle files, trade tapes and stored candles become the batches that a live feed would give.

A candle is pushed once, whole, at its last millisecond; a tape is pushed trade by trade, as the running candle and the
trades of one second. A minute in which the market was up and nothing was traded is pushed as a candle without volume,
and an unknown one becomes a gap, so that nothing is invented and no detector judges it. Received times are the
market's.

The engine knows nothing of all this and does what it does live.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars

from perpwatch.app.lab_files import (
    Market,
    Series,
    Tape,
    candle_files,
    grid,
    read_market,
    read_tape,
)
from perpwatch.errors import ConfigurationError
from perpwatch.market.candles import SETTLE_MS
from perpwatch.model import (
    MINUTE_MS,
    Batch,
    CandleHistory,
    CandleUpdate,
    Contract,
    Event,
    Gap,
    Kind,
    RunningCandle,
    Side,
    Stream,
    StreamUp,
    Timeframe,
    Trade,
    Trades,
    Trust,
    stream_of_candles,
)
from perpwatch.store import HOUR_MS, Reader

SOURCE = "history"

_SCHEMA = {
    "symbol": polars.String,
    "open_time": polars.Int64,
    **dict.fromkeys(("open", "high", "low", "close", "base_volume", "turnover"), polars.Float64),
}
_COLUMNS = tuple(_SCHEMA)[1:]


class HistoryFeed:
    """Series of minutes as batches, in the order of time.

    Args:
        series: one-minute candles on an unbroken grid.
        tapes: trades. There may be several series and tapes of a symbol, one after the other.
        places: where each series, and then each tape, comes from, to name what cannot be used.
    Raises:
        ConfigurationError: two of a symbol at one time.
    """

    def __init__(self, series: Sequence[Series], tapes: Sequence[Tape] = (), places: Sequence[str] = ()) -> None:
        self._series = list(series)
        self._tapes = list(tapes)
        spans = [(one.symbol, one.start_ms, one.end_ms) for one in series]
        spans += [(one.symbol, int(one.time_ms[0]), int(one.time_ms[-1])) for one in tapes]
        named = zip(spans, places or ("",) * len(spans), strict=True)
        for (before, first), (after, second) in itertools.pairwise(sorted(named)):
            if before[0] == after[0] and after[1] < before[2]:
                option = " and ".join(name for name, some in (("--candles", series), ("--trades", tapes)) if some)
                hours = (min(before[2], after[2]) - after[1]) / 3_600_000
                expected = f"{before[0]} once at a time; these overlap by {hours:.3g} h, leave one of them out"
                raise ConfigurationError(option, " and ".join(filter(None, (first, second))) or before[0], expected)
        self.contracts = [_contract(symbol) for symbol in sorted({symbol for symbol, _, _ in spans})]
        first_ms = min(start_ms for _, start_ms, _ in spans)
        self.start_ms = first_ms - first_ms % MINUTE_MS
        self.end_ms = max(end_ms for _, _, end_ms in spans)

    def batches(self) -> Iterator[Batch]:
        """Everything, from the first minute to the last. Watch :attr:`contracts` before taking the first."""
        begin_ms = self.start_ms
        histories = [CandleHistory(one.symbol, (), begin_ms, begin_ms) for one in self.contracts]
        yield Batch("rest", begin_ms * 1_000_000, begin_ms, histories)
        pushes = [_of_series(one) for one in self._series] + [_of_tape(one) for one in self._tapes]
        closed_ms = begin_ms
        for now_ms, same in itertools.groupby(heapq.merge(*pushes, key=_time_of), key=_time_of):
            ended_ms = (now_ms - SETTLE_MS) // MINUTE_MS * MINUTE_MS
            if ended_ms > closed_ms:
                # Nobody has said anything since, and yet the minute is over.
                closed_ms, at_ms = ended_ms, ended_ms + SETTLE_MS
                yield Batch(SOURCE, at_ms * 1_000_000, at_ms, ())
            events = [event for _, some in same for event in some]
            yield Batch(SOURCE, now_ms * 1_000_000, now_ms, events)
        end_ms = self.end_ms + SETTLE_MS
        yield Batch(SOURCE, end_ms * 1_000_000, end_ms, ())


def _time_of(push: tuple[int, list[Event]]) -> int:
    return push[0]


def _contract(symbol: str) -> Contract:
    base, _, quote = symbol.partition("_")
    return Contract(symbol, base, quote or "USDT", quote or "USDT", contract_size=1.0)


def _of_series(series: Series) -> Iterator[tuple[int, list[Event]]]:
    stream = stream_of_candles(series.symbol)
    yield series.start_ms, [StreamUp(stream, SOURCE, series.start_ms)]
    for place in range(len(series.missing)):
        yield _pushed(series, place)
    yield series.end_ms + SETTLE_MS, [Gap(stream, SOURCE, series.end_ms, None, "the candles end")]


def _pushed(series: Series, place: int) -> tuple[int, list[Event]]:
    """A whole minute as its last push, or as the gap that it is."""
    open_time_ms = series.start_ms + place * MINUTE_MS
    last_ms = open_time_ms + MINUTE_MS - 1
    if series.missing[place]:
        return last_ms, [Gap(stream_of_candles(series.symbol), SOURCE, open_time_ms, last_ms, "not in what was kept")]
    open_, high, low, close, volume, turnover = series.values[place].tolist()
    candle = _running(series.symbol, open_time_ms, (open_, high, low, close), volume, turnover)
    return last_ms, [CandleUpdate(candle, last_ms)]


def _running(
    symbol: str, open_time_ms: int, prices: tuple[float, float, float, float], volume: float, turnover: float
) -> RunningCandle:
    return RunningCandle(symbol, Timeframe.Min1, open_time_ms // 1_000, *prices, volume, turnover, *prices)


def _of_tape(tape: Tape) -> Iterator[tuple[int, list[Event]]]:
    """Second by second: the trades of it, and the candle so far."""
    minutes = tape.minutes()
    rows = zip(tape.time_ms.tolist(), tape.price.tolist(), tape.amount.tolist(), tape.is_buy.tolist(), strict=True)
    streams = stream_of_candles(tape.symbol), Stream(Kind.TRADES, tape.symbol)
    start_ms, end_ms = int(tape.time_ms[0]), int(tape.time_ms[-1])
    yield start_ms, [StreamUp(stream, SOURCE, start_ms) for stream in streams]
    open_time_ms, volume, turnover = -1, 0.0, 0.0
    open_ = high = low = 0.0
    for second, trades in itertools.groupby(rows, key=lambda row: row[0] // 1_000):
        told: list[Trade] = []
        minute_ms = second * 1_000 - second * 1_000 % MINUTE_MS
        if minute_ms != open_time_ms:
            if open_time_ms >= 0:
                # No trades since: what that means, the minutes of the tape know.
                between = range(open_time_ms + MINUTE_MS, minute_ms, MINUTE_MS)
                for silent_ms in between:
                    place = (silent_ms - minutes.start_ms) // MINUTE_MS
                    if 0 <= place < len(minutes.missing):  # beside its first and last minute nobody knows
                        yield _pushed(minutes, place)
            open_time_ms, volume, turnover = minute_ms, 0.0, 0.0
        for time_ms, price, amount, is_buy in trades:
            if not volume and not turnover:
                open_ = high = low = price
            high, low = max(high, price), min(low, price)
            volume, turnover = volume + amount, turnover + amount * price
            told.append(Trade(price, amount, Side.BUY if is_buy else Side.SELL, time_ms))
        close, now_ms = told[-1].price, told[-1].event_time_ms
        candle = _running(tape.symbol, open_time_ms, (open_, high, low, close), volume, turnover)
        yield now_ms, [Trades(tape.symbol, told, now_ms), CandleUpdate(candle, now_ms)]
    yield end_ms, [Gap(stream, SOURCE, end_ms, None, "the tape ends") for stream in streams]


# --- Where it comes from ----------------------------------------------------------------------------------------------


def read_history(candles: Sequence[Path], trades: Sequence[Path]) -> HistoryFeed:
    """Folders of candle files (CSV or Parquet) and of tapes.

    Raises:
        ConfigurationError: a folder or file that cannot be used, or candles that are not of one minute.
    """
    series: list[Series] = []
    places: list[str] = []
    for folder in candles:
        market = read_parquet(folder) if _has_parquet(folder) else read_market(folder)
        if market.timeframe is not Timeframe.Min1:
            expected = f"candles of one minute, as the engine is fed; `perpwatch lab` takes {market.timeframe}, too"
            raise ConfigurationError("--candles", str(folder), expected)
        series += market.series
        places += [str(folder)] * len(market.series)
    files = [path for folder in trades for path in candle_files(folder)]
    return HistoryFeed(series, [read_tape(path) for path in files], places + [str(path) for path in files])


def _has_parquet(folder: Path) -> bool:
    return folder.suffix == ".parquet" or any(folder.rglob("*.parquet"))


def read_parquet(path: Path) -> Market:
    """Minutes that `perpwatch export candles` has written, or any Parquet with its columns, in a file or folder.

    Columns: ``symbol``, ``open_time`` (a time, or epoch ms), ``open``, ``high``, ``low``, ``close``, ``base_volume``
    and ``turnover``; where there is a ``timeframe``, only ``Min1`` is taken, and where there is ``missing_minutes``
    only whole candles.

    Raises:
        ConfigurationError: unreadable, or a column is missing.
    """
    files = [path] if path.is_file() else sorted(path.rglob("*.parquet"))
    try:
        table = polars.concat([polars.read_parquet(file, hive_partitioning=False) for file in files])
        lacking = [name for name in ("symbol", *_COLUMNS) if name not in table.columns]
        if lacking:
            found = ", ".join(table.columns)
            raise ConfigurationError("--candles", str(path), f"columns {', '.join(lacking)}; there are {found}")
        if "timeframe" in table.columns:
            table = table.filter(polars.col("timeframe") == Timeframe.Min1.value)
        # Who kept it knew quiet minutes from unknown ones and wrote the quiet ones down; else a minute without a row is
        # one without trades, as long as the market was up.
        is_quiet_written = "missing_minutes" in table.columns
        if is_quiet_written:
            table = table.filter(polars.col("missing_minutes") == 0)
        time = polars.col("open_time")
        if table.schema["open_time"].is_temporal():
            time = time.dt.epoch("ms")
        figures = [polars.col(name).cast(polars.Float64) for name in _COLUMNS[1:]]
        table = table.select("symbol", time.cast(polars.Int64), *figures)
    except (OSError, polars.exceptions.PolarsError) as error:
        raise ConfigurationError("--candles", str(path), f"Parquet files that can be read ({error})") from error
    return _market_of(table, path.name, is_quiet_written=is_quiet_written)


def stored_history(reader: Reader, since_ms: int, until_ms: int) -> HistoryFeed:
    """The minutes of a store.

    Raises:
        StoreError: it cannot be read.
        ConfigurationError: it has none.
    """
    parts = []
    for from_ms in range(since_ms, until_ms, HOUR_MS):
        candles = reader.market_candles(Timeframe.Min1, from_ms, min(from_ms + HOUR_MS, until_ms))
        rows = [
            (one.symbol, one.open_time_ms, one.open, one.high, one.low, one.close, one.base_volume, one.turnover)
            for one in candles
            if not one.missing_minutes and one.trust is not Trust.UNKNOWN
        ]
        parts.append(polars.DataFrame(rows, schema=_SCHEMA, orient="row"))
    return HistoryFeed(_market_of(polars.concat(parts), "the store", is_quiet_written=True).series)


def _market_of(table: polars.DataFrame, name: str, *, is_quiet_written: bool) -> Market:
    if not table.height:
        raise ConfigurationError("--candles", name, "candles of one minute; there are none")
    table = table.unique(["symbol", "open_time"], keep="last").sort("open_time")
    times = table["open_time"].unique().sort().to_numpy().astype(np.int64)
    if (times % MINUTE_MS).any():
        raise ConfigurationError("--candles", name, "open times at whole minutes in UTC")
    known = times[:0] if is_quiet_written else times
    series = [
        grid(str(symbol), Timeframe.Min1, rows.select(_COLUMNS).to_numpy().astype(np.float64), known)
        for (symbol,), rows in sorted(table.partition_by("symbol", as_dict=True).items())
    ]
    return Market(name, Timeframe.Min1, series, times)
