"""The rule everybody knows: turnover of a candle against the mean of the last N closed ones.

    ratio = turnover / mean(turnover of the N closed candles before it)

It is easy to check by hand and fires often, because volume is heavy-tailed: at 1.5 times the mean of 20 one-minute
candles about 200,000 times a day on 750 contracts, at 10 times still about 6,000. The defaults are therefore far above
what textbooks use, and a floor keeps out contracts in which nobody trades.

Cost: O(1) per candle; one comparison per push while the candle is below its threshold. Warm-up: N closed candles.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from perpwatch.detect.detector import NEVER
from perpwatch.model import Candle, Direction, Finality, Level, Reason, Signal, Timeframe, Trust

DEFAULT_WINDOW = 20
DEFAULT_THRESHOLDS: Mapping[Timeframe, float] = {
    Timeframe.Min1: 10.0,
    Timeframe.Min5: 8.0,
    Timeframe.Min15: 6.0,
    Timeframe.Min60: 5.0,
}
DEFAULT_MINIMUM_TURNOVER = 10_000.0
#: Multiples of the threshold at which a signal is strong, and extreme.
STRONG, EXTREME = 3.0, 10.0
#: A candle that has fired speaks again when it has grown by this factor.
AGAIN = 2.0


@dataclass(slots=True)
class _Window:
    """The last closed turnovers of one symbol and timeframe."""

    turnovers: array[float]
    next: int = 0  # where the oldest is, once full
    fired_candle_ms: int = -1
    fired_turnover: float = 0.0
    fired_before: tuple[int, float] = (-1, 0.0)  # of the candle that fired before this one
    last_candle_ms: int = -1
    mean: float = field(default=0.0)

    def push(self, turnover: float, size: int) -> None:
        if len(self.turnovers) < size:
            self.turnovers.append(turnover)
        else:
            self.turnovers[self.next] = turnover
            self.next = (self.next + 1) % size
        # Summed anew: windows are short, and a running sum would drift after a candle of a billion.
        self.mean = sum(self.turnovers) / len(self.turnovers)


class VolumeRatio:
    """Turnover against its recent mean.

    Args:
        thresholds: per timeframe, how many times the mean a closed candle must reach; only these timeframes are judged.
        running_threshold: the same for a candle that still runs, all timeframes; infinite to judge closed ones only.
        window: closed candles in the mean.
        minimum_turnover: quote coin a candle must have turned over at least.
    """

    name = "volume_ratio"

    def __init__(
        self,
        thresholds: Mapping[Timeframe, float] = DEFAULT_THRESHOLDS,
        *,
        running_threshold: float = DEFAULT_THRESHOLDS[Timeframe.Min1],
        window: int = DEFAULT_WINDOW,
        minimum_turnover: float = DEFAULT_MINIMUM_TURNOVER,
    ) -> None:
        if window < 1 or min([running_threshold, *thresholds.values()]) <= 0:
            raise ValueError("a window needs at least 1 candle and thresholds must be above 0")
        self.thresholds = dict(thresholds)
        self.running_threshold = running_threshold
        self.window = window
        self.minimum_turnover = minimum_turnover
        self._windows: dict[tuple[str, Timeframe], _Window] = {}

    def warm_up(self, symbol: str, timeframe: Timeframe, candles: Sequence[Candle]) -> None:
        if timeframe not in self.thresholds:
            return
        window = self._windows[symbol, timeframe] = _Window(array("d"))
        known = [candle for candle in candles if not candle.missing_minutes and candle.trust is not Trust.UNKNOWN]
        for candle in known[-self.window :]:
            window.push(candle.turnover, self.window)
            window.last_candle_ms = candle.open_time_ms

    def update(self, candle: Candle, event_time_ms: int, received_time_ns: int) -> Signal | None:
        if candle.timeframe not in self.thresholds or candle.missing_minutes or candle.trust is Trust.UNKNOWN:
            return None
        window = self._windows.get((candle.symbol, candle.timeframe))
        if window is None:
            window = self._windows[candle.symbol, candle.timeframe] = _Window(array("d"))
        if candle.open_time_ms <= window.last_candle_ms:
            return None  # a correction of a candle that has been judged and learned
        is_running = candle.finality is Finality.OPEN
        threshold = self.running_threshold if is_running else self.thresholds[candle.timeframe]
        signal = None
        if candle.turnover >= self._least(window, candle.open_time_ms, threshold):
            signal = self._signal(window, candle, threshold, event_time_ms, received_time_ns)
        if not is_running:
            window.push(candle.turnover, self.window)
            window.last_candle_ms = candle.open_time_ms
        return signal

    def wake_turnover(self, symbol: str, timeframe: Timeframe, open_time_ms: int | None = None) -> float:
        window = self._windows.get((symbol, timeframe))
        if window is None or timeframe not in self.thresholds:
            return NEVER
        return self._least(window, open_time_ms, self.running_threshold)

    def reset(self, symbol: str) -> None:
        """Nothing to do: a mean over the last N known candles does not need them to be neighbours."""

    def forget(self, symbol: str) -> None:
        for key in [key for key in self._windows if key[0] == symbol]:
            del self._windows[key]

    def _least(self, window: _Window, candle_ms: int | None, threshold: float) -> float:
        """The turnover from which a candle fires; of the candle after the last closed one when none is named."""
        if len(window.turnovers) < self.window or window.mean <= 0.0:
            return NEVER
        least = max(self.minimum_turnover, threshold * window.mean)
        # The candle before may close after the next one has fired.
        for fired_ms, fired_turnover in ((window.fired_candle_ms, window.fired_turnover), window.fired_before):
            is_meant = fired_ms > window.last_candle_ms if candle_ms is None else fired_ms == candle_ms
            if is_meant:
                least = max(least, AGAIN * fired_turnover)
        return least

    def _signal(
        self, window: _Window, candle: Candle, threshold: float, event_time_ms: int, received_time_ns: int
    ) -> Signal:
        if window.fired_candle_ms != candle.open_time_ms:
            window.fired_before = window.fired_candle_ms, window.fired_turnover
        window.fired_candle_ms, window.fired_turnover = candle.open_time_ms, candle.turnover
        ratio = candle.turnover / window.mean
        move = candle.close / candle.open - 1.0 if candle.open else 0.0
        return Signal(
            detector=self.name,
            symbol=candle.symbol,
            timeframe=candle.timeframe,
            open_time_ms=candle.open_time_ms,
            direction=Direction.UP if move > 0 else Direction.DOWN if move < 0 else Direction.FLAT,
            level=_level(ratio / threshold),
            price=candle.close,
            strength=candle.turnover,
            is_running=candle.finality is Finality.OPEN,
            trust=candle.trust,
            reasons=(
                Reason("turnover_ratio", ratio, "x", f"turnover {ratio:.1f} times the mean of {self.window} candles"),
                Reason("move", move * 100.0, "%", f"price {move:+.2%} since the candle opened"),
                Reason("turnover", candle.turnover, "quote"),
                Reason("mean_turnover", window.mean, "quote"),
                Reason("threshold", threshold, "x"),
                Reason("window", float(self.window), "candles"),
                Reason("open", candle.open, "price"),
                Reason("close", candle.close, "price"),
            ),
            event_time_ms=event_time_ms,
            received_time_ns=received_time_ns,
        )


def _level(excess: float) -> Level:
    return Level.EXTREME if excess >= EXTREME else Level.STRONG if excess >= STRONG else Level.NOTICE
