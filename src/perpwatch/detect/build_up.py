"""A slow build-up: many candles a little busier than usual, none of them remarkable."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from perpwatch.detect.detector import NEVER
from perpwatch.detect.guards import is_known
from perpwatch.detect.statistics import RollingMean
from perpwatch.model import Candle, Direction, Finality, Level, Reason, Signal, Timeframe

_WINDOW = {Timeframe.Min15: 480, Timeframe.Min60: 120}
_MINIMUM = {Timeframe.Min15: 96, Timeframe.Min60: 48}

_OPEN = Finality.OPEN


@dataclass(slots=True)
class _Track:
    timeframe: Timeframe
    values: RollingMean  # of x
    squares: RollingMean  # of x²
    total: float = 0.0  # the cumulative sum g
    candles: int = 0  # since g was last 0
    start_price: float = 0.0  # where g last was 0
    start_turnover: float = 0.0  # turned over since then
    is_armed: bool = True  # false from an alarm until g is 0 again
    end_ms: int = 0


class BuildUp:
    """One-sided CUSUM of log turnover on 15 and 60 minutes; a tag, not an alarm.

    Formula: x = log(1 + v), z = min((x - m) / max(s, 0.25), 4) with m and s over five days, held as they were when the
        build-up began, since a running mean would chase the shift; g = max(0, g + z - k); tag when g > h.
        k = 1, h = 10: a rise by k + d standard deviations is seen after h / d candles, a single burst (z = 4) never.
    Level: always notice. Re-arms when g has returned to 0, so that one build-up is told once.
    Cost: 0.8 µs per closed candle; running candles are not judged. Warm-up: a day of 15-minute candles, two of hours.
    False alarms, measured with an hour's silence per symbol, a day per 750 symbols: 235 and 327 on large perpetuals
        (January 2026, July 2023), 297 on spot pairs in a hot market, 282 on thin BTC pairs. Most are true shifts of no
        consequence, since volume comes in regimes, and only 4 of 31 labelled pumps come after one in time: show the tag
        beside an alert, do not send it.
    Differs from ``VolumeRarity``, which needs one candle that is rare by itself. Organisers of pumps buy beforehand:
        70 % of the volume before the event falls in its last hour (Karbalaii 2025).
    Source: Page (1954), Continuous Inspection Schemes, Biometrika 41.
    """

    name = "build_up"

    def __init__(self, drift: float = 1.0, threshold: float = 10.0) -> None:
        """
        Raises:
            ValueError: not positive.
        """
        if drift <= 0.0 or threshold <= 0.0:
            raise ValueError(f"drift and threshold must be positive, not {drift} and {threshold}")
        self._drift = drift
        self._threshold = threshold
        self._symbols: dict[str, dict[Timeframe, _Track]] = {}

    def warm_up(self, symbol: str, timeframe: Timeframe, candles: Sequence[Candle]) -> None:
        if timeframe not in _WINDOW:
            return
        self._symbols.get(symbol, {}).pop(timeframe, None)
        for candle in candles:
            self._advance(self._track(symbol, timeframe), candle)

    def update(self, candle: Candle, event_time_ms: int, received_time_ns: int) -> Signal | None:
        if candle.timeframe not in _WINDOW or candle.finality is _OPEN:
            return None
        tracks = self._symbols.get(candle.symbol)
        track = tracks.get(candle.timeframe) if tracks else None
        if track is None:
            track = self._track(candle.symbol, candle.timeframe)
        if not self._advance(track, candle):
            return None
        move = candle.close / track.start_price - 1.0 if track.start_price > 0.0 else 0.0
        hours = track.candles * candle.timeframe.minutes / 60.0
        return Signal(
            detector=self.name,
            symbol=candle.symbol,
            timeframe=candle.timeframe,
            open_time_ms=candle.open_time_ms,
            direction=Direction.UP if move > 0.0 else Direction.DOWN if move < 0.0 else Direction.FLAT,
            level=Level.NOTICE,
            price=candle.close,
            strength=track.total,
            is_running=False,
            trust=candle.trust,
            reasons=(
                Reason("build_up", hours, "hours", f"busier than usual for {hours:.3g} h"),
                Reason("move", 100.0 * move, "%", f"{move:+.2%} since it began"),
                Reason("turnover", track.start_turnover, "quote", "since it began"),
                Reason("cusum", track.total, "standard deviations"),
            ),
            event_time_ms=event_time_ms,
            received_time_ns=received_time_ns,
        )

    def wake_turnover(self, symbol: str, timeframe: Timeframe, open_time_ms: int | None = None) -> float:
        """Running candles are not judged."""
        return NEVER

    def reset(self, symbol: str) -> None:
        """A sum over consecutive candles must not span a loss."""
        for track in self._symbols.get(symbol, {}).values():
            _restart(track)

    def forget(self, symbol: str) -> None:
        self._symbols.pop(symbol, None)

    def take_over(self, other: BuildUp) -> None:
        """Go on with what another one, of the same drift, has learned."""
        self._symbols = other._symbols

    def _track(self, symbol: str, timeframe: Timeframe) -> _Track:
        tracks = self._symbols.setdefault(symbol, {})
        track = tracks.get(timeframe)
        if track is None:
            size = _WINDOW[timeframe]
            track = tracks[timeframe] = _Track(timeframe, RollingMean(size), RollingMean(size))
        return track

    def _advance(self, track: _Track, candle: Candle) -> bool:
        """Take a closed candle; True when the sum has just passed the threshold."""
        open_time_ms = candle.open_time_ms
        if not is_known(candle) or open_time_ms < track.end_ms:
            return False
        if track.end_ms and open_time_ms != track.end_ms:
            _restart(track)
        track.end_ms = open_time_ms + track.timeframe.milliseconds
        x = math.log1p(candle.turnover)
        if track.values.count < _MINIMUM[track.timeframe]:
            self._learn(track, x)
            return False
        mean = track.values.mean
        variance = track.squares.mean - mean * mean
        deviation = math.sqrt(variance) if variance > 0.0625 else 0.25
        step = min((x - mean) / deviation, 4.0) - self._drift
        if track.total + step <= 0.0:
            track.is_armed = True
            _restart(track)
            self._learn(track, x)
            return False
        if track.total == 0.0:
            track.start_price = candle.open
        track.total = min(track.total + step, 2.0 * self._threshold)
        track.candles += 1
        track.start_turnover += candle.turnover
        if not track.is_armed:
            # A regime that stays is the new usual: after the alarm it is learned, and the sum can come down.
            self._learn(track, x)
        if track.total > self._threshold and track.is_armed:
            track.is_armed = False
            return True
        return False

    def _learn(self, track: _Track, x: float) -> None:
        track.values.push(x)
        track.squares.push(x * x)


def _restart(track: _Track) -> None:
    track.total = 0.0
    track.candles = 0
    track.start_price = track.start_turnover = 0.0
