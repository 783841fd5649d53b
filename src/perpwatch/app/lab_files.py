"""Reads what the laboratory works on: candle files, trade tapes and label lists, in the spellings they are found in.

Candle files are CSV (plain, ``.gz`` or ``.xz``), one per symbol, with an open time, open, high, low, close and volume
in base coin, in any order; other columns are ignored. Where a column of turnover in quote coin is there, it is used;
otherwise turnover is taken as volume · (open + close) / 2, which is off by no more than the candle's own range. Times
are epoch seconds, milli-, micro- or nanoseconds, or ISO. A file without a header is read as
``time,open,high,low,close,volume``. A folder's candles may be of any analysed timeframe.

A minute that is missing in every file of a folder is an outage: unknown, never judged. A minute missing only in some is
a minute without trades there, as is a minute with zero volume.

Trade tapes are CSV with ``timestamp``, ``side``, ``price`` and ``amount``, one symbol per file. A name like
``COIN_2020-11-18_18.00`` labels the announced start of a pump. Their turnover is exact. A silence far beyond the tape's
others is taken for an outage.

Whatever cannot be read is refused with the file, the line and what would be right.
"""

from __future__ import annotations

import csv
import gzip
import io
import lzma
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from perpwatch.errors import ConfigurationError
from perpwatch.model import ANALYSED_TIMEFRAMES, MINUTE_MS, Candle, Finality, Timeframe, Trust

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

DAY_MS = 1440 * MINUTE_MS
#: Starts of one symbol within this time are one event; a listed one replaces the one announced in a file's name.
SAME_EVENT_MS = 60 * MINUTE_MS

_FILE = re.compile(r"\.(csv|txt)(\.xz|\.gz)?$")


def candle_files(folder: Path) -> list[Path]:
    """The files of a folder that can be read, in order of their names.

    Raises:
        ConfigurationError: no folder, or none in it.
    """
    if folder.is_file():
        raise ConfigurationError("folder", str(folder), f"a folder; this is a file, give {folder.parent}")
    if not folder.is_dir():
        raise ConfigurationError("folder", str(folder), "a folder; there is none of this name")
    files = [path for path in sorted(folder.iterdir()) if _FILE.search(path.name) and path.is_file()]
    if not files:
        raise ConfigurationError("folder", str(folder), "a folder with .csv, .csv.gz or .csv.xz files; it holds none")
    return files


def stem(path: Path) -> str:
    """The name of a file without its endings."""
    return _FILE.sub("", path.name)


def read_text(path: Path) -> str:
    """
    Raises:
        ConfigurationError: no such file, damaged, or no text.
    """
    try:
        match path.suffix:
            case ".xz":
                with lzma.open(path, "rt", encoding="utf-8-sig") as file:
                    return file.read()
            case ".gz":
                with gzip.open(path, "rt", encoding="utf-8-sig") as file:
                    return file.read()
            case _:
                return path.read_text(encoding="utf-8-sig")
    except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise ConfigurationError("file", str(path), f"a readable CSV ({error})") from error


@dataclass(frozen=True, slots=True)
class _Table:
    """The text of a CSV file and where its columns are."""

    path: Path
    text: str
    delimiter: str
    header: list[str]  # empty when the file has none

    @property
    def first_line(self) -> int:
        return 2 if self.header else 1

    def column(self, what: str, names: Sequence[str], place: int | None = None) -> int:
        """Where a column is; by its place in a file without a header."""
        for name in names:
            if name in self.header:
                return self.header.index(name)
        if not self.header and place is not None:
            return place
        found = ", ".join(self.header) or "no header"
        raise ConfigurationError("file", f"{self.path}:1: {found}", f"a column {what}, called {' or '.join(names)}")

    def has(self, names: Sequence[str]) -> bool:
        return any(name in self.header for name in names)

    def lines(self) -> list[tuple[int, list[str]]]:
        """Rows with the number of their line."""
        reader = csv.reader(io.StringIO(self.text), delimiter=self.delimiter)
        rows = [(reader.line_num, row) for row in reader if row and any(cell.strip() for cell in row)]
        return rows[1:] if self.header else rows

    def numbers(self, columns: Sequence[int]) -> Floats:
        """
        Raises:
            ConfigurationError: the first cell that is no number, with its line.
        """
        try:
            return np.loadtxt(
                io.StringIO(self.text),
                delimiter=self.delimiter,
                skiprows=self.first_line - 1,
                usecols=columns,
                ndmin=2,
                comments=None,
            )
        except ValueError:
            # Slower, but it knows the line, quotes and times in words.
            return np.array(
                [[self._number(line, row, column, columns[0]) for column in columns] for line, row in self.lines()]
            )

    def _number(self, line: int, row: list[str], column: int, time: int) -> float:
        name = self.header[column] if self.header else f"column {column + 1}"
        if column >= len(row):
            raise ConfigurationError("file", f"{self.path}:{line}", f"at least {column + 1} cells, not {len(row)}")
        text = row[column].strip()
        try:
            return float(parse_time_ms(text)) if column == time and "-" in text[1:] else float(text)
        except ValueError:
            raise ConfigurationError("file", f"{self.path}:{line}: {name} = {text!r}", "a number") from None


def _table(path: Path) -> _Table:
    text = read_text(path)
    first = text.lstrip().partition("\n")[0]
    if not first.strip():
        raise ConfigurationError("file", str(path), "a header and at least one row below it; the file is empty")
    delimiter = max(",;\t", key=first.count)
    cells = [cell.strip().strip('"').lower() for cell in first.strip().split(delimiter)]
    has_header = not re.fullmatch(r"[-+0-9.eE]+", cells[0]) or len(cells) < 2
    body = text.lstrip()
    table = _Table(path, body, delimiter, cells if has_header else [])
    if has_header and not body.partition("\n")[2].strip():
        raise ConfigurationError("file", str(path), "at least one row below the header")
    return table


def parse_time_ms(text: str) -> int:
    """
    Raises:
        ValueError: neither an epoch nor ISO.
    """
    try:
        number = float(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return round(moment.timestamp() * 1000)
    if not math.isfinite(number):
        raise ValueError(f"no time: {text}")
    return round(number * _to_ms(number))


def _to_ms(number: float) -> float:
    """By its size: 1e9 seconds, 1e12 milli-, 1e15 micro- and 1e18 nanoseconds are all this century."""
    for limit, factor in ((1e11, 1e3), (1e14, 1.0), (1e17, 1e-3)):
        if abs(number) < limit:
            return factor
    return 1e-6


# --- Labels -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Label:
    """The start of an event, from a list."""

    symbol: str  # a whole symbol or only its base coin
    start_ms: int


@dataclass(frozen=True, slots=True)
class Event:
    """A labelled start within recorded data."""

    symbol: str
    start_ms: int
    is_official: bool  # from a list of labels, not from a file's name


_LABEL_TIMES = ("time_ms", "t_ms", "start_ms", "timestamp", "time", "start", "datetime", "date")


def read_labels(path: Path) -> list[Label]:
    """Read a CSV with ``symbol`` (or ``coin``) and a time: ``time_ms``, ``t_ms``, ``timestamp``, ``time``, ``start`` or
    ``date`` (with ``hour`` beside it where the date has none). Times are UTC, ISO or an epoch.

    Raises:
        ConfigurationError: no file, no such column, or a time that cannot be read.
    """
    table = _table(path)
    symbol = table.column("symbol", ("symbol", "coin", "pair", "market"))
    times = [table.header.index(name) for name in _LABEL_TIMES if name in table.header]
    if not times:
        table.column("time", _LABEL_TIMES)
    hour = table.header.index("hour") if "hour" in table.header else None
    labels = set()
    for line, row in table.lines():
        cells = [cell.strip() for cell in row]
        text = next((cells[place] for place in times if place < len(cells) and cells[place]), "")
        if symbol >= len(cells) or not cells[symbol] or not text:
            raise ConfigurationError("labels", f"{path}:{line}", "a symbol and a time")
        if hour is not None and hour < len(cells) and cells[hour]:
            text = f"{text[:10]} {cells[hour]}"
        try:
            labels.add(Label(cells[symbol].replace("/", "_").replace("-", "_").upper(), parse_time_ms(text)))
        except ValueError:
            raise ConfigurationError("labels", f"{path}:{line}: {text}", "a UTC time, ISO or epoch") from None
    # One event may be listed once for each group that announced it.
    first: dict[str, int] = {}
    events = []
    for label in sorted(labels, key=lambda label: (label.start_ms, label.symbol)):
        if label.start_ms - first.get(label.symbol, -SAME_EVENT_MS) >= SAME_EVENT_MS:
            first[label.symbol] = label.start_ms
            events.append(label)
    return events


def is_same_market(label: str, symbol: str) -> bool:
    """Whether a label, a symbol or only its base coin, means this symbol."""
    return label in (symbol, symbol.replace("_", ""), symbol.partition("_")[0])


# --- Candles of one symbol --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Series:
    """Closed candles of one symbol and timeframe on an unbroken grid."""

    symbol: str
    timeframe: Timeframe
    start_ms: int  # open time of the first
    values: Floats  # (candles, 6): open, high, low, close, base volume, turnover
    missing: Integers  # unknown minutes per candle

    @property
    def end_ms(self) -> int:
        return self.start_ms + len(self.missing) * self.timeframe.milliseconds

    def closing(self, after_ms: int, until_ms: int) -> list[Candle]:
        """Those that close in (after_ms, until_ms]; wholly unknown ones are left out."""
        step = self.timeframe.milliseconds
        first = max(0, (after_ms - self.start_ms) // step)
        last = max(first, min(len(self.missing), (until_ms - self.start_ms) // step))
        candles = []
        rows = zip(self.values[first:last].tolist(), self.missing[first:last].tolist(), strict=True)
        for number, (row, missing) in enumerate(rows, start=first):
            if missing < self.timeframe.minutes:
                candles.append(self._candle(self.start_ms + number * step, row, missing))
        return candles

    def _candle(self, open_time_ms: int, row: list[float], missing: int) -> Candle:
        open_, high, low, close, volume, turnover = row
        trust = Trust.UNKNOWN if missing else Trust.VERIFIED if volume > 0.0 else Trust.QUIET
        return Candle(
            symbol=self.symbol,
            timeframe=self.timeframe,
            open_time_ms=open_time_ms,
            open=open_,
            high=high,
            low=low,
            close=close,
            contracts=volume,
            base_volume=volume,
            turnover=turnover,
            finality=Finality.REST,
            trust=trust,
            missing_minutes=missing,
        )


_TIMES = ("t_ms", "time_ms", "open_time_ms", "open_time", "timestamp", "time", "t", "date", "datetime", "start")
_TURNOVERS = ("turnover", "quote_volume", "quote_asset_volume", "quotevolume")


def read_candles(path: Path) -> Floats:
    """Rows of ``t_ms, open, high, low, close, volume, turnover``, oldest first, one per candle.

    Raises:
        ConfigurationError: a column is missing, or a cell is no number or one that no market can have.
    """
    table = _table(path)
    columns = [
        table.column("open time", _TIMES, 0),
        table.column("open", ("open", "o"), 1),
        table.column("high", ("high", "h"), 2),
        table.column("low", ("low", "l"), 3),
        table.column("close", ("close", "c"), 4),
        table.column("volume", ("volume", "base_volume", "vol", "v"), 5),
    ]
    has_turnover = table.has(_TURNOVERS)
    if has_turnover:
        columns.append(table.column("turnover", _TURNOVERS))
    rows = table.numbers(columns)
    _check(table, rows)
    rows[:, 0] = np.round(rows[:, 0] * _to_ms(float(np.median(rows[:, 0]))))
    if not has_turnover:
        rows = np.column_stack([rows, rows[:, 5] * (rows[:, 1] + rows[:, 4]) / 2.0])
    _, first = np.unique(rows[:, 0], return_index=True)
    return np.asarray(rows[first])


def _check(table: _Table, rows: Floats) -> None:
    with np.errstate(invalid="ignore"):
        is_good = np.isfinite(rows).all(axis=1) & (rows[:, :5] > 0.0).all(axis=1) & (rows[:, 5:] >= 0.0).all(axis=1)
        is_good &= rows[:, 2] >= rows[:, 3]
    if not is_good.all():
        number = int(np.argmin(is_good))
        line, row = table.lines()[number]
        expected = "a time and prices above 0, a volume of at least 0, and a high not below the low"
        raise ConfigurationError("candles", f"{table.path}:{line}: {','.join(row)}", expected)


def grid(symbol: str, timeframe: Timeframe, rows: Floats, known_ms: Integers) -> Series:
    """Lay rows on an unbroken grid.

    Args:
        rows: (n, 7): t_ms, open, high, low, close, base volume, turnover.
        known_ms: sorted open times at which the market is known to have been up; a row missing there had no trade.
    """
    step = timeframe.milliseconds
    start_ms = int(rows[0, 0])
    size = (int(rows[-1, 0]) - start_ms) // step + 1
    place = ((rows[:, 0].astype(np.int64) - start_ms) // step).astype(np.int64)
    values = np.full((size, 6), np.nan)
    values[place] = rows[:, 1:]
    has_row = np.zeros(size, dtype=np.bool_)
    has_row[place] = True
    opens = start_ms + np.arange(size, dtype=np.int64) * step
    is_quiet = ~has_row & np.isin(opens, known_ms)
    # A quiet minute is drawn flat at the close before it.
    last_row = np.maximum.accumulate(np.where(has_row, np.arange(size), 0))
    close = values[last_row, 3]
    for column in range(4):
        values[is_quiet, column] = close[is_quiet]
    values[is_quiet, 4:] = 0.0
    missing = np.where(has_row | is_quiet, 0, timeframe.minutes).astype(np.int64)
    return Series(symbol, timeframe, start_ms, values, missing)


def roll_up(series: Series, timeframe: Timeframe) -> Series:
    """Longer candles, exact and aligned to the calendar; minutes outside the series count as unknown.

    The same as ``market.candles.roll_up`` candle by candle, for whole files at once.
    """
    step, base = timeframe.milliseconds, series.timeframe.milliseconds
    parts = step // base
    lead = series.start_ms % step // base
    size = lead + len(series.missing)
    tail = -size % parts
    values = np.pad(series.values, ((lead, tail), (0, 0)), constant_values=np.nan).reshape(-1, parts, 6)
    missing = np.pad(series.missing, (lead, tail), constant_values=series.timeframe.minutes).reshape(-1, parts)
    is_known = missing == 0
    first, last = is_known.argmax(axis=1), parts - 1 - is_known[:, ::-1].argmax(axis=1)
    everything = np.arange(len(values))
    rolled = np.column_stack(
        [
            values[everything, first, 0],
            np.where(is_known, values[:, :, 1], -np.inf).max(axis=1),
            np.where(is_known, values[:, :, 2], np.inf).min(axis=1),
            values[everything, last, 3],
            # Added oldest first, as the live roll-up does, so that both agree to the bit.
            np.where(is_known, values[:, :, 4], 0.0).cumsum(axis=1)[:, -1],
            np.where(is_known, values[:, :, 5], 0.0).cumsum(axis=1)[:, -1],
        ]
    )
    return Series(series.symbol, timeframe, series.start_ms - lead * base, rolled, missing.sum(axis=1))


def all_timeframes(series: Series) -> list[Series]:
    """The series itself, when it is analysed, and everything longer."""
    longer = [timeframe for timeframe in ANALYSED_TIMEFRAMES if timeframe.minutes > series.timeframe.minutes]
    own = [series] if series.timeframe in ANALYSED_TIMEFRAMES else []
    return own + [roll_up(series, timeframe) for timeframe in longer]


@dataclass(frozen=True, slots=True)
class Market:
    """All symbols of a folder, which share their minutes."""

    name: str
    timeframe: Timeframe
    series: list[Series]
    open_times_ms: Integers  # at which the market is known to have been up

    @property
    def start_ms(self) -> int:
        return int(self.open_times_ms[0])

    @property
    def end_ms(self) -> int:
        return int(self.open_times_ms[-1]) + self.timeframe.milliseconds

    def events(self, labels: Iterable[Label], from_ms: int) -> list[Event]:
        """Labels that fall into the recorded time of one of the symbols, from a time on."""
        return [
            Event(series.symbol, label.start_ms, True)
            for label in labels
            for series in self.series
            if is_same_market(label.symbol, series.symbol)
            and max(from_ms, series.start_ms) <= label.start_ms < series.end_ms
        ]


def read_market(folder: Path) -> Market:
    """
    Raises:
        ConfigurationError: a folder or file that cannot be used, or candles of another length than perpwatch analyses.
    """
    tables: dict[str, Floats] = {}
    for path in candle_files(folder):
        symbol = stem(path).removesuffix("_PERP")
        if symbol in tables:
            raise ConfigurationError("folder", str(path), f"one file per symbol; there are two of {symbol}")
        tables[symbol] = read_candles(path)
    everything = np.unique(np.concatenate([rows[:, 0] for rows in tables.values()])).astype(np.int64)
    timeframe = _timeframe_of(everything, folder)
    if (everything % timeframe.milliseconds != 0).any():
        odd = int(everything[everything % timeframe.milliseconds != 0][0])
        raise ConfigurationError("candles", f"{folder}: {odd}", f"open times at whole {timeframe} in UTC")
    series = [grid(symbol, timeframe, rows, everything) for symbol, rows in tables.items()]
    return Market(folder.name, timeframe, series, everything)


def _timeframe_of(open_times_ms: Integers, folder: Path) -> Timeframe:
    step = int(np.median(np.diff(open_times_ms))) if len(open_times_ms) > 1 else MINUTE_MS
    for timeframe in ANALYSED_TIMEFRAMES:
        if timeframe.milliseconds == step:
            return timeframe
    expected = "candles of 1, 5, 15 or 60 minutes"
    raise ConfigurationError("candles", f"{folder}: {step / MINUTE_MS:g} minutes", expected)


# --- Tapes ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tape:
    """Trades of one symbol, oldest first."""

    path: Path
    symbol: str
    time_ms: Integers
    price: Floats
    amount: Floats
    is_buy: npt.NDArray[np.bool_]

    def minutes(self) -> Series:
        """One-minute candles, without the first and last minute, which are not whole.

        Raises:
            ConfigurationError: the tape is too short.
        """
        minute = self.time_ms // MINUTE_MS
        edges = np.flatnonzero(np.diff(minute, prepend=-1))
        lasts = np.append(edges[1:], len(minute)) - 1
        if len(edges) < 3:
            raise ConfigurationError("trades", str(self.path), "a tape of several minutes")
        rows = np.column_stack(
            [
                minute[edges] * MINUTE_MS,
                self.price[edges],
                np.maximum.reduceat(self.price, edges),
                np.minimum.reduceat(self.price, edges),
                self.price[lasts],
                np.add.reduceat(self.amount, edges),
                np.add.reduceat(self.amount * self.price, edges),
            ]
        )[1:-1]
        known = np.arange(int(rows[0, 0]), int(rows[-1, 0]) + 1, MINUTE_MS, dtype=np.int64)
        outage = _outage_of(rows[:, 0].astype(np.int64))
        if outage is not None:
            known = known[(known <= outage[0]) | (known >= outage[1])]
        return grid(self.symbol, Timeframe.Min1, rows, known)

    def events(self, labels: Iterable[Label], from_ms: int, until_ms: int) -> list[Event]:
        """Starts within a time, from a list and from the file's name."""
        listed = [
            label.start_ms
            for label in labels
            if is_same_market(label.symbol, self.symbol) and from_ms <= label.start_ms < until_ms
        ]
        name = re.search(r"_(\d{4}-\d{2}-\d{2})_(\d{2})[.:-](\d{2})", stem(self.path))
        announced = [parse_time_ms(f"{name[1]} {name[2]}:{name[3]}")] if name else []
        return [Event(self.symbol, start_ms, True) for start_ms in listed] + [
            Event(self.symbol, start_ms, False)
            for start_ms in announced
            if all(abs(start_ms - other_ms) > SAME_EVENT_MS for other_ms in listed)
        ]


def read_tape(path: Path) -> Tape:
    """
    Raises:
        ConfigurationError: a column is missing, or a cell is not what it should be.
    """
    table = _table(path)
    time = table.column("time", ("timestamp", "time_ms", "t_ms", "time", "t", "transact_time", "datetime", "date"))
    price = table.column("price", ("price", "p"))
    amount = table.column("amount", ("amount", "quantity", "qty", "size", "volume", "q"))
    is_maker_side = not table.has(("side", "taker_side")) and table.has(("is_buyer_maker",))
    side = table.column("side", ("side", "taker_side", "is_buyer_maker"))
    symbol = table.header.index("symbol") if "symbol" in table.header else None
    rows = table.numbers([time, price, amount])
    times = np.round(rows[:, 0] * _to_ms(float(np.median(rows[:, 0])))).astype(np.int64)
    lines = table.lines()
    with np.errstate(invalid="ignore"):
        is_good = np.isfinite(rows).all(axis=1) & (rows[:, 1] > 0.0) & (rows[:, 2] >= 0.0)
    if not is_good.all():
        line, row = lines[int(np.argmin(is_good))]
        raise ConfigurationError("trades", f"{path}:{line}: {','.join(row)}", "a price above 0 and an amount")
    is_buy = np.array([_is_buy(path, line, row, side, is_maker_side) for line, row in lines], dtype=np.bool_)
    order = np.argsort(times, kind="stable")
    name = lines[0][1][symbol].replace("/", "_").replace("-", "_") if symbol is not None else stem(path).split("_")[0]
    return Tape(path, name, times[order], rows[order, 1], rows[order, 2], is_buy[order])


_SIDES = {"buy": True, "b": True, "bid": True, "1": True, "sell": False, "s": False, "ask": False, "2": False}


def _is_buy(path: Path, line: int, row: Sequence[str], place: int, is_maker_side: bool) -> bool:
    text = row[place].strip().lower() if place < len(row) else ""
    if is_maker_side and text in ("true", "false"):
        return text == "false"
    if text not in _SIDES:
        raise ConfigurationError("trades", f"{path}:{line}: side {text!r}", "buy or sell")
    return _SIDES[text]


def _outage_of(traded_ms: Integers) -> tuple[int, int] | None:
    """The last minute with trades before an outage and the first after it, as far as one tape can tell.

    A tape has no witness for its silences. One that chance would give less than once in a million such tapes, were
    minutes independent, and that is twice as long as every other one, is taken for the exchange's and not the market's.
    """
    silences = np.diff(traded_ms) // MINUTE_MS - 1
    if len(silences) < 2:
        return None
    size = (int(traded_ms[-1]) - int(traded_ms[0])) // MINUTE_MS + 1
    share = len(traded_ms) / size
    if share >= 1.0:
        return None
    improbable = math.log(1e6 * size) / -math.log1p(-share)
    longest = int(silences.argmax())
    second = int(np.partition(silences, -2)[-2])
    if silences[longest] < max(improbable, 2.0 * second):
        return None
    return int(traded_ms[longest]), int(traded_ms[longest + 1])
