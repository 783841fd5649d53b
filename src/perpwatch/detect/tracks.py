"""What rules with plain limits remember of each symbol and timeframe: two means, and the candle that was last told."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

from perpwatch.detect.statistics import RollingMean
from perpwatch.model import Candle, Signal, Timeframe


class Track:
    """One symbol on one timeframe."""

    __slots__ = ("end_ms", "told_before", "told_earlier", "told_figure", "told_ms", "turnovers", "usual")

    def __init__(self, window: int) -> None:
        self.turnovers = RollingMean(window)
        self.usual = RollingMean(window)  # of the figure that is compared beside turnover
        self.end_ms = 0  # the first millisecond after the last learned candle
        self.told_ms = -1
        self.told_figure = 0.0
        self.told_before = (-1, 0.0)  # what stood there before the last signal
        self.told_earlier = (-1, 0.0)  # of the candle that was told before this one

    def has_told(self, open_time_ms: int, figure: float) -> bool:
        """Whether this candle has spoken already and its figure has not doubled since."""
        # The candle before may close after the next one was told.
        for told_ms, told_figure in ((self.told_ms, self.told_figure), self.told_earlier):
            if told_ms == open_time_ms and figure < 2.0 * told_figure:
                return True
        return False

    def tell(self, open_time_ms: int, figure: float) -> None:
        self.told_before = self.told_ms, self.told_figure
        if self.told_ms != open_time_ms:
            self.told_earlier = self.told_before
        self.told_ms, self.told_figure = open_time_ms, figure


class Tracks(ABC):
    """The tracks of all symbols; a detector says how long their means are and what it learns from a candle."""

    def __init__(self) -> None:
        self._symbols: dict[str, dict[Timeframe, Track]] = {}

    def warm_up(self, symbol: str, timeframe: Timeframe, candles: Sequence[Candle]) -> None:
        self._symbols.get(symbol, {}).pop(timeframe, None)
        for candle in candles:
            self._learn(self._track(symbol, timeframe), candle)

    def reset(self, symbol: str) -> None:  # noqa: B027 - nobody has more to do here
        """Nothing spans two candles."""

    def forget(self, symbol: str) -> None:
        self._symbols.pop(symbol, None)

    def retract(self, signal: Signal) -> None:
        """The signal was of no use: its candle may signal again."""
        track = self._symbols.get(signal.symbol, {}).get(signal.timeframe)
        if track is not None and track.told_ms == signal.open_time_ms:
            track.told_ms, track.told_figure = track.told_before

    def take_over(self, other: Self) -> None:
        """Go on with what another one, of windows of the same length, has learned."""
        self._symbols = other._symbols

    def _track(self, symbol: str, timeframe: Timeframe) -> Track:
        tracks = self._symbols.setdefault(symbol, {})
        track = tracks.get(timeframe)
        if track is None:
            track = tracks[timeframe] = Track(self._window_of(timeframe))
        return track

    @abstractmethod
    def _window_of(self, timeframe: Timeframe) -> int:
        """How many candles the means of a timeframe span."""

    @abstractmethod
    def _learn(self, track: Track, candle: Candle) -> None:
        """Take a closed candle into the means."""
