"""The laboratory: what detectors and rules would have alerted on recorded markets, and how soon they saw pumps.

It knows candle files, trade tapes and label lists, and drives the same detectors and the same policy that run live.

Candle files are CSV (plain, ``.gz`` or ``.xz``) with ``t_ms,open,high,low,close,volume``, one file per symbol, open
time in milliseconds and volume in base coin. Turnover is not in them and is taken as volume · (open + close) / 2, which
is off by no more than the candle's own range. A folder's candles may be of any analysed timeframe; longer ones are
rolled up, calendar-aligned. A minute that is missing in every file of a folder is an outage: unknown, never judged.
A minute missing only in some is a minute without trades there, as is a minute with zero volume.

Trade tapes are CSV with ``timestamp`` (ms), ``side``, ``price`` and ``amount``, one symbol per file, each a market of
its own. A name like ``COIN_2020-11-18_18.00`` labels the announced start of a pump. Their turnover is exact. A silence
far beyond the tape's others is taken for an outage.

The first day of each file warms the detectors up and is not counted.
"""

from __future__ import annotations

import csv
import gzip
import io
import lzma
import math
import re
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from perpwatch.alert.policy import Alert, Held, MarketAlert, Policy, Suppressed
from perpwatch.detect.breakout import Breakout
from perpwatch.detect.build_up import BuildUp
from perpwatch.detect.detector import Detector
from perpwatch.detect.flow import Confirmed, TradeFlow
from perpwatch.detect.rarity import VolumeRarity
from perpwatch.detect.rules import RuleFactory, read_rules
from perpwatch.detect.volume_ratio import VolumeRatio
from perpwatch.errors import ConfigurationError
from perpwatch.model import (
    ANALYSED_TIMEFRAMES,
    MINUTE_MS,
    Candle,
    Finality,
    Side,
    Signal,
    Timeframe,
    Trade,
    Trades,
    Trust,
)

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

DAY_MS = 1440 * MINUTE_MS
MARKET_SIZE = 750

#: Where an alert belongs to a labelled event, and where it still does not count as another alert.
WINDOW_BEFORE_MS = 10 * MINUTE_MS
WINDOW_AFTER_MS = 16 * MINUTE_MS
PROMPT_MS = 3 * MINUTE_MS
#: Starts of one symbol within this time are one event; a listed one replaces the one announced in a file's name.
SAME_EVENT_MS = 60 * MINUTE_MS

#: Told how much is done, how much there is, and what is being done.
Progress = Callable[[float, float, str], None]


@dataclass(frozen=True, slots=True)
class LabOptions:
    """What to run on what."""

    candles: Sequence[Path] = ()  # folders
    trades: Sequence[Path] = ()  # folders
    labels: Path | None = None
    rules: Mapping[str, RuleFactory] = field(default_factory=lambda: {"default": default_rule})
    is_intrabar: bool = False  # judge the running candle at every batch of trades
    budget: float | None = None  # alerts a day
    is_budget_scaled: bool = False  # the budget is for 750 symbols; otherwise for just the symbols of the set
    risk: float = 1e-4  # that a budget starts from; without one, every detector keeps its own
    warm_up_days: float = 1.0


class LabSet(msgspec.Struct, frozen=True):
    """One rule on one folder."""

    name: str
    rule: str
    symbols: int
    days: float  # judged; of tapes, the sum over coins
    alerts: int  # single ones, before market-wide minutes are merged
    alerts_per_day_per_750: float
    market_alerts: int
    told: int  # what a person gets: single alerts outside market-wide minutes, and market alerts
    told_by_day: dict[str, int]
    risk_at_end: float | None  # q per minute; None where no detector has one
    events_total: int
    events_found_window: int  # 10 min before to 16 min after the start
    events_found_3min: int  # 0 to 3 min after
    latency_s_median: float | None  # of official starts where there are any, else of announced ones
    latency_events: int
    other_alerts_per_coin_day: float | None


class LabAlert(msgspec.Struct, frozen=True):
    """One alert of one rule; ``time_ms`` is when it could be known."""

    set: str
    rule: str
    symbol: str
    time_ms: int
    timeframe: str
    direction: str
    level: str
    detector: str
    escalation: int
    is_merged: bool  # told as part of a market alert
    is_learning: bool
    risk: float
    reasons: list[dict[str, str | float]]


class LabEvent(msgspec.Struct, frozen=True):
    """One labelled event and how it was seen."""

    set: str
    rule: str
    symbol: str
    start_ms: int
    is_official: bool
    is_found: bool
    latency_s: float | None  # None when no alert came from the start to 16 min after


class LabReport(msgspec.Struct, frozen=True):
    sets: list[LabSet]
    alerts: list[LabAlert]
    events: list[LabEvent]


def default_rule() -> Sequence[Detector]:
    """What perpwatch runs when nothing is configured."""
    return [VolumeRarity()]


def quiet_rule() -> Sequence[Detector]:
    """The default, ten times rarer and for larger moves."""
    return [VolumeRarity(risk=1e-5, move=6.0)]


#: Rules by name, to be measured side by side.
PRESETS: Mapping[str, RuleFactory] = {
    "default": default_rule,
    "quiet": quiet_rule,
    "breakout": lambda: [Breakout()],
    "build_up": lambda: [BuildUp()],
    "volume_ratio": lambda: [VolumeRatio(minimum_turnover=0.0)],
}


def rules_from_files(paths: Sequence[Path]) -> dict[str, RuleFactory]:
    """The rules of several files beside the default, which is what they are compared with.

    Raises:
        ConfigurationError: a file that cannot be read, or a wrong rule.
    """
    rules: dict[str, RuleFactory] = {"default": default_rule}
    for path in paths:
        rules.update(read_rules(_read_text(path)))
    return rules


def run_lab(options: LabOptions, progress: Progress | None = None) -> LabReport:
    """Run every rule on every folder.

    Raises:
        ConfigurationError: a folder, file or label list that cannot be used.
    """
    if not options.candles and not options.trades:
        raise ConfigurationError("candles", "", "give at least one folder with --candles or --trades")
    labels = read_labels(options.labels) if options.labels else []
    report = LabReport([], [], [])
    total = float(len(options.candles) + len(options.trades))
    for number, folder in enumerate((*options.candles, *options.trades)):
        is_tape = number >= len(options.candles)

        def tell(share: float, number: int = number, folder: Path = folder) -> None:
            if progress:
                progress(number + share, total, folder.name)

        run = _run_tapes if is_tape else _run_candles
        run(folder, options, labels, tell, report)
    return report


def run_lab_with_progress_bar(options: LabOptions) -> LabReport:
    """:func:`run_lab` with a bar on standard error, where that is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with RichProgress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("lab", total=None)

        def show(done: float, total: float, text: str) -> None:
            bar.update(task, completed=done, total=total, description=text)

        return run_lab(options, show)


def to_json(report: LabReport) -> bytes:
    return msgspec.json.format(msgspec.json.encode(report), indent=1)


def to_text(report: LabReport) -> str:
    """The sets side by side, one line per rule and folder."""
    head = (
        f"{'set':<28} {'rule':<16} {'symbols':>7} {'days':>6} {'alerts':>7} {'/day/750':>8} {'market':>6} "
        f"{'told':>6} {'window':>8} {'3 min':>6} {'latency':>8} {'other/coin-day':>14}"
    )
    lines = [head, "-" * len(head)]
    for row in report.sets:
        window = f"{row.events_found_window}/{row.events_total}" if row.events_total else "-"
        prompt = str(row.events_found_3min) if row.events_total else "-"
        latency = "-" if row.latency_s_median is None else f"{row.latency_s_median:.1f} s"
        other = "-" if row.other_alerts_per_coin_day is None else f"{row.other_alerts_per_coin_day:.2f}"
        lines.append(
            f"{row.name:<28} {row.rule:<16} {row.symbols:>7} {row.days:>6.1f} {row.alerts:>7} "
            f"{row.alerts_per_day_per_750:>8.0f} {row.market_alerts:>6} {row.told:>6} {window:>8} {prompt:>6} "
            f"{latency:>8} {other:>14}"
        )
    return "\n".join(lines)


# --- Reading ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Label:
    """The start of an event, from a list."""

    symbol: str  # a whole symbol or only its base coin
    start_ms: int


def read_labels(path: Path) -> list[Label]:
    """Read a CSV with ``symbol`` and a time: ``time_ms``, ``t_ms``, ``timestamp``, ``time``, ``start`` or ``date``
    (with ``hour`` beside it where the date has none). Times are UTC, ISO or epoch seconds or milliseconds.

    Raises:
        ConfigurationError: no file, no such column, or a time that cannot be read.
    """
    labels = set()
    for number, row in enumerate(csv.DictReader(io.StringIO(_read_text(path))), start=2):
        cells = {(key or "").strip().lower(): (value or "").strip() for key, value in row.items()}
        symbol = cells.get("symbol") or cells.get("coin")
        text = next((cells[name] for name in _TIME_COLUMNS if cells.get(name)), "")
        if not symbol or not text:
            raise ConfigurationError("labels", f"{path}:{number}", "columns symbol and time")
        if cells.get("hour"):
            text = f"{text[:10]} {cells['hour']}"
        try:
            labels.add(Label(symbol.replace("/", "_").upper(), _parse_time_ms(text)))
        except ValueError:
            raise ConfigurationError("labels", f"{path}:{number}: {text}", "a UTC time, ISO or epoch") from None
    # One event may be listed once for each group that announced it.
    first: dict[str, int] = {}
    events = []
    for label in sorted(labels, key=lambda label: (label.start_ms, label.symbol)):
        if label.start_ms - first.get(label.symbol, -SAME_EVENT_MS) >= SAME_EVENT_MS:
            first[label.symbol] = label.start_ms
            events.append(label)
    return events


_TIME_COLUMNS = ("time_ms", "t_ms", "start_ms", "timestamp", "time", "start", "datetime", "date")


def _parse_time_ms(text: str) -> int:
    try:
        number = float(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return round(moment.timestamp() * 1000)
    return round(number if number > 1e11 else number * 1000)


def _read_text(path: Path) -> str:
    try:
        match path.suffix:
            case ".xz":
                with lzma.open(path, "rt") as file:
                    return file.read()
            case ".gz":
                with gzip.open(path, "rt") as file:
                    return file.read()
            case _:
                return path.read_text()
    except (OSError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise ConfigurationError("file", path, f"a readable CSV ({error})") from error


def _files(folder: Path) -> list[Path]:
    files = [path for path in sorted(folder.glob("*")) if re.search(r"\.csv(\.xz|\.gz)?$", path.name)]
    if not files:
        raise ConfigurationError("folder", folder, "a folder with .csv, .csv.gz or .csv.xz files")
    return files


def _stem(path: Path) -> str:
    return path.name.partition(".csv")[0]


def read_candles(path: Path) -> Floats:
    """Rows of ``t_ms, open, high, low, close, volume``, oldest first, one per candle; other columns are ignored.

    Raises:
        ConfigurationError: a column is missing, or cells are no numbers.
    """
    text = _read_text(path)
    header = text[: text.find("\n")].strip().lower().split(",")
    if not set(_CANDLE_COLUMNS) <= set(header):
        raise ConfigurationError("candles", f"{path}: {header}", f"the columns {','.join(_CANDLE_COLUMNS)}")
    if "\n" not in text.strip():
        raise ConfigurationError("candles", path, "at least one row below the header")
    columns = [header.index(name) for name in _CANDLE_COLUMNS]
    try:
        rows = np.loadtxt(io.StringIO(text), delimiter=",", skiprows=1, usecols=columns, ndmin=2)
    except ValueError as error:
        raise ConfigurationError("candles", path, f"rows of six numbers ({error})") from error
    _, first = np.unique(rows[:, 0], return_index=True)
    return rows[first]


_CANDLE_COLUMNS = ("t_ms", "open", "high", "low", "close", "volume")


@dataclass(frozen=True, slots=True)
class _Tape:
    """Trades of one symbol, oldest first."""

    symbol: str
    time_ms: Integers
    price: Floats
    amount: Floats
    is_buy: npt.NDArray[np.bool_]


def read_trades(path: Path) -> _Tape:
    """
    Raises:
        ConfigurationError: a column is missing, or cells are no numbers.
    """
    reader = csv.reader(io.StringIO(_read_text(path)))
    header = [name.strip().lower() for name in next(reader, [])]
    try:
        time, side, price, amount = (header.index(name) for name in ("timestamp", "side", "price", "amount"))
        symbol = header.index("symbol") if "symbol" in header else None
        rows = list(reader)
        times = np.array([int(float(row[time])) for row in rows], dtype=np.int64)
        order = np.argsort(times, kind="stable")
        name = rows[0][symbol].replace("/", "_") if symbol is not None else _stem(path).partition("_")[0]
        return _Tape(
            name,
            times[order],
            np.array([float(row[price]) for row in rows])[order],
            np.array([float(row[amount]) for row in rows])[order],
            np.array([row[side].lower().startswith("b") for row in rows], dtype=np.bool_)[order],
        )
    except (ValueError, IndexError) as error:
        expected = f"columns timestamp, side, price, amount and at least one row ({error})"
        raise ConfigurationError("trades", path, expected) from error


# --- Candles of one symbol --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Series:
    """Closed candles of one symbol and timeframe on an unbroken grid."""

    symbol: str
    timeframe: Timeframe
    start_ms: int  # open time of the first
    values: Floats  # (candles, 6): open, high, low, close, base volume, turnover
    missing: Integers  # unknown minutes per candle

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


def grid(symbol: str, timeframe: Timeframe, rows: Floats, known_ms: Integers) -> _Series:
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
    return _Series(symbol, timeframe, start_ms, values, missing)


def roll_up(series: _Series, timeframe: Timeframe) -> _Series:
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
    return _Series(series.symbol, timeframe, series.start_ms - lead * base, rolled, missing.sum(axis=1))


def _all_timeframes(series: _Series) -> list[_Series]:
    """The series itself, when it is analysed, and everything longer."""
    longer = [timeframe for timeframe in ANALYSED_TIMEFRAMES if timeframe.minutes > series.timeframe.minutes]
    own = [series] if series.timeframe in ANALYSED_TIMEFRAMES else []
    return own + [roll_up(series, timeframe) for timeframe in longer]


# --- Running ----------------------------------------------------------------------------------------------------------


class _Bench:
    """One rule on one market: its detectors, its policy, and what came out."""

    def __init__(self, rule: str, factory: RuleFactory, watched: int, options: LabOptions, counted_ms: int) -> None:
        self.rule = rule
        self.flow = TradeFlow()
        self._plain = factory()
        self.detectors = [Confirmed(detector, self.flow) for detector in self._plain]
        budget = options.budget
        if budget is not None and options.is_budget_scaled:
            budget *= watched / MARKET_SIZE
        self._has_budget = budget is not None
        # Tags are measured like everything else.
        risk = options.risk if self._has_budget else self.risk or options.risk
        self.policy = Policy(watched, risk, budget, tags=frozenset())
        self.counted_ms = counted_ms
        self.alerts: list[Alert] = []
        self.merged: set[str] = set()
        self.told_ms: list[int] = []
        self.market_alerts: list[MarketAlert] = []
        self._adopt_risk()

    @property
    def risk(self) -> float | None:
        """Of the first detector that has one."""
        return next((detector.risk for detector in self._plain if isinstance(detector, VolumeRarity)), None)

    def update(self, candle: Candle, now_ms: int) -> None:
        for detector in self.detectors:
            signal = detector.update(candle, now_ms, now_ms * 1_000_000)
            if signal is not None and now_ms >= self.counted_ms:
                self.advance(now_ms)
                self._offer(signal)

    def update_running(self, candle: Candle, now_ms: int) -> None:
        for detector in self.detectors:
            if candle.turnover >= detector.wake_turnover(candle.symbol, candle.timeframe):
                signal = detector.update(candle, now_ms, now_ms * 1_000_000)
                if signal is not None and now_ms >= self.counted_ms:
                    self.advance(now_ms)
                    self._offer(signal)

    def advance(self, now_ms: int) -> None:
        if now_ms < self.counted_ms:
            return
        for alert in self.policy.advance(now_ms):
            self.told_ms.append(now_ms)
            if isinstance(alert, MarketAlert):
                self.market_alerts.append(alert)
                self.merged.update(single.key for single in alert.alerts)
        self._adopt_risk()

    def _offer(self, signal: Signal) -> None:
        decision = self.policy.offer(signal)
        match decision:
            case Alert():
                self.alerts.append(decision)
                self.told_ms.append(decision.time_ms)
            case Held(alert=alert):
                self.alerts.append(alert)
            case Suppressed(alert=Alert() as alert):
                self.alerts.append(alert)
                self.merged.add(alert.key)

    def _adopt_risk(self) -> None:
        if not self._has_budget:
            return
        for detector in self._plain:
            if isinstance(detector, VolumeRarity):
                detector.risk = self.policy.risk


def _run_candles(
    folder: Path, options: LabOptions, labels: Sequence[Label], tell: Callable[[float], None], report: LabReport
) -> None:
    """All symbols of the folder are one market: their minutes are walked through together."""
    files = _files(folder)
    tables = {_stem(path).removesuffix("_PERP"): read_candles(path) for path in files}
    everything = np.unique(np.concatenate([rows[:, 0] for rows in tables.values()])).astype(np.int64)
    timeframe = _timeframe_of(everything, folder)
    series = []
    for symbol, rows in tables.items():
        turnover = rows[:, 5] * (rows[:, 1] + rows[:, 4]) / 2.0
        series.extend(_all_timeframes(grid(symbol, timeframe, np.column_stack([rows, turnover]), everything)))
    start_ms, end_ms = int(everything[0]), int(everything[-1]) + timeframe.milliseconds
    counted_ms = start_ms + round(options.warm_up_days * DAY_MS)
    benches = [_Bench(name, factory, len(tables), options, counted_ms) for name, factory in options.rules.items()]
    for from_ms in range(start_ms, end_ms, DAY_MS):
        tell((from_ms - start_ms) / (end_ms - start_ms))
        candles = [candle for one in series for candle in one.closing(from_ms, min(from_ms + DAY_MS, end_ms))]
        candles.sort(key=_closing_order)
        for now_ms, group in groupby(candles, key=_close_time):
            closing = list(group)
            for bench in benches:
                for candle in closing:
                    bench.update(candle, now_ms)
                # Closed candles have all arrived long before the next minute ends.
                bench.advance(now_ms + Policy.HOLD_MS)
    tell(1.0)
    # Days in which the market was known, beyond the warm-up.
    days = float((everything >= counted_ms).sum()) * timeframe.milliseconds / DAY_MS
    events = [
        _Event(symbol, label.start_ms, True)
        for label in labels
        for symbol in tables
        if _is_same_market(label.symbol, symbol) and counted_ms <= label.start_ms < end_ms
    ]
    for bench in benches:
        _report(report, folder.name, [bench], len(tables), days, len(tables) * days, events)


def _run_tapes(
    folder: Path, options: LabOptions, labels: Sequence[Label], tell: Callable[[float], None], report: LabReport
) -> None:
    """Each tape is a market of its own."""
    files = _files(folder)
    benches: dict[str, list[_Bench]] = {name: [] for name in options.rules}
    events: list[_Event] = []
    days = 0.0
    for number, path in enumerate(files):
        tell(number / len(files))
        tape = read_trades(path)
        minutes = _minutes_of(tape)
        counted_ms = minutes.start_ms + round(options.warm_up_days * DAY_MS)
        end_ms = minutes.start_ms + len(minutes.missing) * MINUTE_MS
        days += max(0.0, (end_ms - counted_ms) / DAY_MS)
        # A symbol may have several tapes; its market is named by the tape's file.
        events.extend(_events_of_tape(path, tape, labels, counted_ms, end_ms))
        for name, factory in options.rules.items():
            bench = _Bench(name, factory, 1, options, counted_ms)
            benches[name].append(bench)
            _play(bench, tape, minutes, options.is_intrabar)
    tell(1.0)
    for group in benches.values():
        _report(report, folder.name, group, len(files), days, days, events)


def _play(bench: _Bench, tape: _Tape, minutes: _Series, is_intrabar: bool) -> None:
    """Closed candles at their end and, between them, the running candles after each batch of trades."""
    end_ms = minutes.start_ms + len(minutes.missing) * MINUTE_MS
    closed = [candle for one in _all_timeframes(minutes) for candle in one.closing(minutes.start_ms, end_ms)]
    closed.sort(key=_closing_order)
    if not is_intrabar:
        for candle in closed:
            bench.update(candle, candle.close_time_ms)
            bench.advance(candle.close_time_ms)
        return
    running = [_Running(tape.symbol, timeframe, minutes.start_ms) for timeframe in ANALYSED_TIMEFRAMES]
    bench.flow.start(tape.symbol, minutes.start_ms)
    next_closed = 0
    for batch in _batches(tape):
        now_ms = batch.event_time_ms
        while next_closed < len(closed) and closed[next_closed].close_time_ms <= now_ms:
            bench.update(closed[next_closed], closed[next_closed].close_time_ms)
            next_closed += 1
        bench.flow.observe(batch)
        for one in running:
            one.add(batch.trades, now_ms)
            bench.update_running(one.candle(), now_ms)
        bench.advance(now_ms)
    for candle in closed[next_closed:]:
        bench.update(candle, candle.close_time_ms)


class _Running:
    """The running candle of one timeframe, from trades."""

    def __init__(self, symbol: str, timeframe: Timeframe, known_from_ms: int) -> None:
        self.symbol = symbol
        self.timeframe = timeframe
        self.known_from_ms = known_from_ms
        self.open_time_ms = -1
        self.open = self.high = self.low = self.close = 0.0
        self.amount = self.turnover = 0.0

    def add(self, trades: Sequence[Trade], now_ms: int) -> None:
        open_time_ms = now_ms - now_ms % self.timeframe.milliseconds
        if open_time_ms != self.open_time_ms:
            self.open_time_ms = open_time_ms
            self.open = self.high = self.low = trades[0].price
            self.amount = self.turnover = 0.0
        for trade in trades:
            self.high = max(self.high, trade.price)
            self.low = min(self.low, trade.price)
            self.amount += trade.contracts
            self.turnover += trade.contracts * trade.price
        self.close = trades[-1].price

    def candle(self) -> Candle:
        missing = max(0, self.known_from_ms - self.open_time_ms) // MINUTE_MS
        return Candle(
            symbol=self.symbol,
            timeframe=self.timeframe,
            open_time_ms=self.open_time_ms,
            open=self.open,
            high=self.high,
            low=self.low,
            close=self.close,
            contracts=self.amount,
            base_volume=self.amount,
            turnover=self.turnover,
            finality=Finality.OPEN,
            trust=Trust.UNKNOWN if missing else Trust.STREAMED,
            missing_minutes=missing,
        )


def _batches(tape: _Tape) -> Iterator[Trades]:
    """Trades of the same millisecond arrive together."""
    edges = np.flatnonzero(np.diff(tape.time_ms, prepend=-1)).tolist()
    times, prices, amounts = tape.time_ms.tolist(), tape.price.tolist(), tape.amount.tolist()
    is_buy = tape.is_buy.tolist()
    for first, last in zip(edges, [*edges[1:], len(times)], strict=True):
        trades = [
            Trade(prices[i], amounts[i], Side.BUY if is_buy[i] else Side.SELL, times[i]) for i in range(first, last)
        ]
        yield Trades(tape.symbol, trades, times[first])


def _minutes_of(tape: _Tape) -> _Series:
    """One-minute candles of a tape, without its first and last minute, which are not whole."""
    minute = tape.time_ms // MINUTE_MS
    edges = np.flatnonzero(np.diff(minute, prepend=-1))
    lasts = np.append(edges[1:], len(minute)) - 1
    if len(edges) < 3:
        raise ConfigurationError("trades", tape.symbol, "a tape of several minutes")
    rows = np.column_stack(
        [
            minute[edges] * MINUTE_MS,
            tape.price[edges],
            np.maximum.reduceat(tape.price, edges),
            np.minimum.reduceat(tape.price, edges),
            tape.price[lasts],
            np.add.reduceat(tape.amount, edges),
            np.add.reduceat(tape.amount * tape.price, edges),
        ]
    )[1:-1]
    known = np.arange(int(rows[0, 0]), int(rows[-1, 0]) + 1, MINUTE_MS, dtype=np.int64)
    outage = _outage_of(rows[:, 0].astype(np.int64))
    if outage is not None:
        known = known[(known <= outage[0]) | (known >= outage[1])]
    return grid(tape.symbol, Timeframe.Min1, rows, known)


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


def _timeframe_of(open_times_ms: Integers, folder: Path) -> Timeframe:
    step = int(np.median(np.diff(open_times_ms))) if len(open_times_ms) > 1 else MINUTE_MS
    for timeframe in ANALYSED_TIMEFRAMES:
        if timeframe.milliseconds == step:
            return timeframe
    raise ConfigurationError("candles", f"{folder}: {step / MINUTE_MS:g} minutes", "candles of 1, 5, 15 or 60 minutes")


def _close_time(candle: Candle) -> int:
    return candle.close_time_ms


def _closing_order(candle: Candle) -> tuple[int, int, str]:
    return candle.close_time_ms, candle.timeframe.minutes, candle.symbol


# --- Events and figures -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Event:
    symbol: str
    start_ms: int
    is_official: bool  # from a list of labels, not from a file's name


def _is_same_market(label: str, symbol: str) -> bool:
    return label in (symbol, symbol.replace("_", ""), symbol.partition("_")[0])


def _events_of_tape(path: Path, tape: _Tape, labels: Iterable[Label], counted_ms: int, end_ms: int) -> list[_Event]:
    listed = [
        label.start_ms
        for label in labels
        if _is_same_market(label.symbol, tape.symbol) and counted_ms <= label.start_ms < end_ms
    ]
    name = re.search(r"_(\d{4}-\d{2}-\d{2})_(\d{2})[.:-](\d{2})", _stem(path))
    announced = [_parse_time_ms(f"{name[1]} {name[2]}:{name[3]}")] if name else []
    return [_Event(tape.symbol, start_ms, True) for start_ms in listed] + [
        _Event(tape.symbol, start_ms, False)
        for start_ms in announced
        if all(abs(start_ms - other_ms) > SAME_EVENT_MS for other_ms in listed)
    ]


def _report(
    report: LabReport,
    name: str,
    benches: Sequence[_Bench],
    symbols: int,
    days: float,
    coin_days: float,
    events: Sequence[_Event],
) -> None:
    rule = benches[0].rule
    alerts = [(alert, bench) for bench in benches for alert in bench.alerts]
    seen = []
    for event in events:
        times = [alert.time_ms - event.start_ms for alert, _ in alerts if alert.symbol == event.symbol]
        after = [time_ms for time_ms in times if 0 <= time_ms <= WINDOW_AFTER_MS]
        seen.append(
            LabEvent(
                set=name,
                rule=rule,
                symbol=event.symbol,
                start_ms=event.start_ms,
                is_official=event.is_official,
                is_found=any(-WINDOW_BEFORE_MS <= time_ms <= WINDOW_AFTER_MS for time_ms in times),
                latency_s=min(after) / 1000.0 if after else None,
            )
        )
    report.events.extend(seen)
    timed = [event for event in seen if event.is_official] or seen
    latencies = [event.latency_s for event in timed if event.latency_s is not None]
    others = sum(
        not any(
            event.symbol == alert.symbol and -WINDOW_BEFORE_MS <= alert.time_ms - event.start_ms <= WINDOW_AFTER_MS
            for event in events
        )
        for alert, _ in alerts
    )
    told = sorted(time_ms for bench in benches for time_ms in bench.told_ms)
    by_day: dict[str, int] = {}
    for time_ms in told:
        day = datetime.fromtimestamp(time_ms / 1000, UTC).date().isoformat()
        by_day[day] = by_day.get(day, 0) + 1
    report.sets.append(
        LabSet(
            name=name,
            rule=rule,
            symbols=symbols,
            days=days,
            alerts=len(alerts),
            alerts_per_day_per_750=len(alerts) / coin_days * MARKET_SIZE if coin_days else 0.0,
            market_alerts=sum(len(bench.market_alerts) for bench in benches),
            told=len(told),
            told_by_day=by_day,
            risk_at_end=benches[-1].risk,
            events_total=len(events),
            events_found_window=sum(event.is_found for event in seen),
            events_found_3min=sum(
                event.latency_s is not None and event.latency_s * 1000.0 <= PROMPT_MS for event in seen
            ),
            latency_s_median=statistics.median(latencies) if latencies else None,
            latency_events=len(latencies),
            other_alerts_per_coin_day=others / coin_days if coin_days and events else None,
        )
    )
    report.alerts.extend(
        LabAlert(
            set=name,
            rule=rule,
            symbol=alert.symbol,
            time_ms=alert.time_ms,
            timeframe=alert.signal.timeframe,
            direction=alert.signal.direction,
            level=alert.signal.level,
            detector=alert.signal.detector,
            escalation=alert.escalation,
            is_merged=alert.key in bench.merged,
            is_learning=alert.signal.is_learning,
            risk=alert.risk,
            reasons=[
                {"name": reason.name, "value": reason.value, "unit": reason.unit, "text": reason.text}
                for reason in alert.signal.reasons
            ],
        )
        for alert, bench in sorted(alerts, key=lambda pair: pair[0].time_ms)
    )
