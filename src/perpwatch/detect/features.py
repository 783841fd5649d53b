"""What the score looks at: one minute against the day before it, as plain numbers that know no clock.

The same formulas exist twice, for a whole series at once (training) and for the newest minute (live); a test keeps
them equal.
"""

from __future__ import annotations

import math
import zlib
from array import array
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from perpwatch.detect.guards import is_known
from perpwatch.detect.statistics import RollingMean
from perpwatch.model import MINUTE_MS, Candle, Finality, Timeframe

Floats = npt.NDArray[np.float64]

_MIN1 = Timeframe.Min1
_OPEN = Finality.OPEN

#: Minutes remembered, and needed before a minute can be described.
DAY = 1440
MINIMUM = 360
#: A mean of few minutes is never taken below this share of the day's: thin markets are silent for an hour at a time.
MEAN_FLOOR = 0.1
MOVE_FLOOR = 0.0002

#: Name of each feature, and what a person calls it.
FEATURES: dict[str, str] = {
    "volume_20": "volume",
    "volume_60": "volume",
    "volume_240": "volume",
    "volume_1440": "volume",
    "volume_max_240": "volume",
    "volume_z": "volume",
    "body": "move",
    "high_move": "move",
    "range": "range",
    "return_5": "5-min return",
    "before_60": "the hour before",
    "move_ratio": "move against its usual",
    "volatility": "volatility",
    "body_share": "shape of the candle",
    "zero_share": "thin trading",
    "trend_15": "volume building up",
}


def features_of(candles: Floats, is_adjacent: npt.NDArray[np.bool_]) -> Floats:
    """Every minute of a series, described by the minutes before it.

    Args:
        candles: (minutes, 5): open, high, low, close, turnover; known minutes only, oldest first.
        is_adjacent: whether a minute follows directly on the row before it.
    Returns:
        (minutes, features) in the order of ``FEATURES``; NaN in rows that cannot be described.
    """
    size = len(candles)
    open_, high, low, close, turnover = candles.T
    before = np.empty(size)  # the price that the minute's return starts from
    before[:1] = open_[:1]
    before[1:] = np.where(is_adjacent[1:], close[:-1], open_[1:])
    returns = np.abs(close / before - 1.0)
    day = _mean_before(turnover, DAY)
    floor = MEAN_FLOOR * day
    with np.errstate(divide="ignore", invalid="ignore"):
        x = np.log1p(turnover / day)
        x_mean = _mean_before(np.nan_to_num(x, posinf=0.0), 240)
        x_deviation = np.sqrt(np.maximum(_mean_before(np.nan_to_num(x, posinf=0.0) ** 2, 240) - x_mean**2, 0.0))
        usual_move = _mean_before(returns, 240)
        rows = np.column_stack(
            [
                *(np.log1p(turnover / np.maximum(_mean_before(turnover, n), floor)) for n in (20, 60, 240)),
                x,
                np.log1p(turnover / np.maximum(_maximum_before(turnover, 240), floor)),
                (x - x_mean) / np.maximum(x_deviation, 0.25),
                _per_cent(close / open_ - 1.0),
                _per_cent(high / before - 1.0),
                _per_cent((high - low) / before),
                _per_cent(close / _before(close, 5, open_) - 1.0),
                _per_cent(before / _before(close, 61, open_) - 1.0),
                _signed_log((close / before - 1.0) / np.maximum(usual_move, MOVE_FLOOR)),
                np.log(np.maximum(usual_move, MOVE_FLOOR)),
                np.where(high > low, (close - open_) / np.where(high > low, high - low, 1.0), 0.0),
                _mean_before((turnover <= 0.0).astype(np.float64), 240),
                np.log(np.maximum(_mean_before(turnover, 15), floor) / np.maximum(_mean_before(turnover, 240), floor)),
            ]
        )
    rows[:MINIMUM] = np.nan
    rows[~np.isfinite(rows).all(axis=1)] = np.nan
    return rows


def _signed_log(values: Floats) -> Floats:
    return np.asarray(np.sign(values) * np.log1p(np.abs(values)))


def _per_cent(values: Floats) -> Floats:
    """Fractions on a scale on which 1 % and 10 % differ as much as 10 % and 100 % do."""
    return _signed_log(100.0 * values)


def _mean_before(values: Floats, window: int) -> Floats:
    """Mean of at most ``window`` values before each; NaN before the first."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(len(values))
    starts = np.maximum(ends - window, 0)
    # A difference of sums can miss 0 by rounding; nothing averaged here is negative.
    difference = np.maximum(total[ends] - total[starts], 0.0)
    return np.asarray(np.where(ends > 0, difference / np.maximum(ends - starts, 1), np.nan))


def _maximum_before(values: Floats, window: int) -> Floats:
    padded = np.concatenate([np.zeros(window), values])[:-1]
    return np.asarray(np.lib.stride_tricks.sliding_window_view(padded, window).max(axis=1))


def _before(values: Floats, minutes: int, default: Floats) -> Floats:
    """The value so many rows earlier; the default where there is none."""
    result = default.copy()
    result[minutes:] = values[:-minutes]
    return result


#: Minutes are taken into the means so many at a time, each symbol at a minute of its own.
TOGETHER = 16


class _Day:
    """What is kept of one symbol: everything before ``last``, the newest closed minute."""

    __slots__ = ("_closes", "_pending", "_returns", "_squares", "_turn", "_turnovers", "_xs", "close", "end_ms", "last")

    def __init__(self, symbol: str) -> None:
        self._turnovers = RollingMean(DAY)
        self._xs = RollingMean(240)
        self._squares = RollingMean(240)
        self._returns = RollingMean(240)
        self._closes = RollingMean(61)
        # Turnover, close and the price before it of minutes that are not in the means yet: added one after the other
        # they cost a third less than each in a minute of its own, and the sums are the same.
        self._pending = array("d")
        self._turn = zlib.crc32(symbol.encode()) % TOGETHER
        self.end_ms = 0
        self.close = 0.0  # of the minute that ends at ``end_ms``
        self.last: Candle | None = None

    def take_in(self, candle: Candle) -> None:
        open_time_ms, close = candle.open_time_ms, candle.close
        before = self.close if open_time_ms == self.end_ms and self.close > 0.0 else candle.open
        self._pending.extend((candle.turnover, close, before))
        self.end_ms, self.close = open_time_ms + MINUTE_MS, close
        if open_time_ms // MINUTE_MS % TOGETHER == self._turn:
            self.settle()

    def settle(self) -> None:
        """Put all minutes before ``last`` into the means."""
        pending, self._pending = self._pending, array("d")
        turnovers, xs, squares, returns = self._turnovers, [], [], []
        closes = pending[1::3]
        for turnover, close, before in zip(pending[::3], closes, pending[2::3], strict=True):
            mean = turnovers.mean
            x = math.log1p(turnover / mean) if mean > 0.0 else 0.0
            xs.append(x)
            squares.append(x * x)
            returns.append(abs(close / before - 1.0))
            turnovers.push(turnover)
        self._xs.push_all(xs)
        self._squares.push_all(squares)
        self._returns.push_all(returns)
        self._closes.push_all(closes)

    def describe(self, minute: Candle) -> Floats | None:
        """The numbers of ``FEATURES`` of a minute that follows; None with too little history."""
        self.settle()
        mean = self._turnovers.mean
        if self._turnovers.count < MINIMUM or mean <= 0.0 or not is_known(minute) or minute.open <= 0.0:
            return None
        turnovers, closes = self._turnovers.newest(240), self._closes.newest(61)
        floor = MEAN_FLOOR * mean
        means = {count: max(float(turnovers[-count:].mean()), floor) for count in (15, 20, 60, 240)}
        before = self.close if minute.open_time_ms == self.end_ms and self.close > 0.0 else minute.open
        turnover = minute.turnover
        x, x_mean = math.log1p(turnover / mean), self._xs.mean
        deviation = math.sqrt(max(self._squares.mean - x_mean * x_mean, 0.0))
        usual_move = max(self._returns.mean, MOVE_FLOOR)
        height = minute.high - minute.low
        return np.array(
            [
                *(math.log1p(turnover / means[count]) for count in (20, 60, 240)),
                x,
                math.log1p(turnover / max(float(turnovers.max()), floor)),
                (x - x_mean) / max(deviation, 0.25),
                *_per_cent(
                    np.array(
                        [
                            minute.close / minute.open - 1.0,
                            minute.high / before - 1.0,
                            height / before,
                            minute.close / float(closes[-5]) - 1.0,
                            before / float(closes[0]) - 1.0,
                        ]
                    )
                ),
                *_signed_log(np.array([(minute.close / before - 1.0) / usual_move])),
                math.log(usual_move),
                (minute.close - minute.open) / height if height > 0.0 else 0.0,
                float((turnovers <= 0.0).mean()),
                math.log(means[15] / means[240]),
            ]
        )


class FeatureBook:
    """The last day of closed minutes of every symbol, and what the newest minute looks like against it.

    Cost: 3 µs per closed minute; 60 µs per description, asked for only when there is a signal; 7 kB per symbol.
    Warm-up: 360 minutes. Candles with unknown minutes are left out.
    """

    def __init__(self) -> None:
        self._days: dict[str, _Day] = {}

    def warm_up(self, symbol: str, minutes: Sequence[Candle]) -> None:
        """Take closed minutes, oldest first, as the whole past of the symbol."""
        self._days.pop(symbol, None)
        for candle in minutes:
            self.learn(candle)

    def learn(self, candle: Candle) -> None:
        """Remember a closed minute; anything else is ignored."""
        if candle.timeframe is not _MIN1 or candle.finality is _OPEN or not is_known(candle) or candle.open <= 0.0:
            return
        day = self._days.get(candle.symbol)
        if day is None:
            day = self._days[candle.symbol] = _Day(candle.symbol)
        last = day.last
        if last is not None:
            if candle.open_time_ms <= last.open_time_ms:
                return
            day.take_in(last)
        elif candle.open_time_ms < day.end_ms:
            return
        day.last = candle

    def forget(self, symbol: str) -> None:
        self._days.pop(symbol, None)

    def features(self, symbol: str, running: Candle | None = None) -> Floats | None:
        """Describe the running minute, or the newest closed one when none is given.

        Returns:
            The numbers of ``FEATURES``; None with too little history, or when a later minute was described before.
        """
        day = self._days.get(symbol)
        if day is None:
            return None
        if running is not None:
            if day.last is not None and running.open_time_ms > day.last.open_time_ms:
                day.take_in(day.last)
                day.last = None
            return day.describe(running) if running.open_time_ms >= day.end_ms else None
        return day.describe(day.last) if day.last is not None else None
