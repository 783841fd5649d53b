"""The first published pump rule: volume and price both break out of their last hours."""

from __future__ import annotations

from perpwatch.detect.detector import NEVER
from perpwatch.detect.guards import is_known
from perpwatch.detect.tracks import Track, Tracks
from perpwatch.model import Candle, Direction, Finality, Level, Reason, Signal, Timeframe


class Breakout(Tracks):
    """Turnover above a multiple of its mean AND the high above a multiple of the mean close, both of the last hours.

    Formula: v > a · mean(v, H hours) and high > b · mean(close, H hours); a = 5, b = 1.10, H = 12. Up only.
        Level: notice; strong when v > 5a, extreme when v > 25a.
    Cost: 0.6 µs per closed candle. Warm-up: H hours of candles; nothing before.
    Loss: a candle with unknown minutes is neither judged nor learned; means over hours bridge it.
    False alarms, measured on four timeframes with an hour's silence per symbol, a day per 750 symbols: 16 and 31 on
        large perpetuals (July 2023, January 2026), 408 on spot pairs in a hot market (April 2021), 322 on thin BTC
        pairs (February 2020); it finds 27 of 31 labelled pumps within three minutes. Fixed percentages
        are blind on large coins and loud on small ones: a preset for people who know it, not the default.
    Differs from ``VolumeRarity`` in that it knows nothing about what is usual for the symbol.
    Source: Kamps and Kleinberg (2018), To the Moon: Defining and Detecting Cryptocurrency Pump-and-Dumps, Crime
        Science 7:18; the multiples are ours, since the paper's are not stated per candle length.
    """

    name = "breakout"

    def __init__(self, volume: float = 5.0, price: float = 1.10, hours: int = 12) -> None:
        """
        Raises:
            ValueError: a multiple that everything exceeds, or less than one hour.
        """
        if volume <= 1.0 or price <= 1.0 or hours < 1:
            raise ValueError(f"multiples must exceed 1 and hours be at least 1, not {volume}, {price}, {hours}")
        super().__init__()
        self._volume = volume
        self._price = price
        self._hours = hours

    def update(self, candle: Candle, event_time_ms: int, received_time_ns: int) -> Signal | None:
        track = self._track(candle.symbol, candle.timeframe)
        if not is_known(candle) or candle.open_time_ms < track.end_ms:
            return None
        signal = self._judge(track, candle, event_time_ms, received_time_ns)
        if candle.finality is not Finality.OPEN:
            self._learn(track, candle)
        return signal

    def wake_turnover(self, symbol: str, timeframe: Timeframe, open_time_ms: int | None = None) -> float:
        track = self._symbols.get(symbol, {}).get(timeframe)
        if track is None or not track.turnovers.is_full or track.turnovers.mean <= 0.0:
            return NEVER
        return self._volume * track.turnovers.mean

    def _window_of(self, timeframe: Timeframe) -> int:
        return max(2, self._hours * 60 // timeframe.minutes)

    def _judge(self, track: Track, candle: Candle, event_time_ms: int, received_time_ns: int) -> Signal | None:
        mean, mean_close = track.turnovers.mean, track.usual.mean
        if not track.turnovers.is_full or mean <= 0.0 or mean_close <= 0.0:
            return None
        ratio, rise = candle.turnover / mean, candle.high / mean_close
        if ratio <= self._volume or rise <= self._price:
            return None
        if track.has_told(candle.open_time_ms, ratio):
            return None
        track.tell(candle.open_time_ms, ratio)
        excess = ratio / self._volume
        return Signal(
            detector=self.name,
            symbol=candle.symbol,
            timeframe=candle.timeframe,
            open_time_ms=candle.open_time_ms,
            direction=Direction.UP,
            level=Level.EXTREME if excess > 25.0 else Level.STRONG if excess > 5.0 else Level.NOTICE,
            price=candle.close,
            strength=ratio,
            is_running=candle.finality is Finality.OPEN,
            trust=candle.trust,
            reasons=(
                Reason("turnover_ratio", ratio, "x", f"volume {ratio:.3g} × its mean of {self._hours} h"),
                Reason("rise", 100.0 * (rise - 1.0), "%", f"{rise - 1.0:+.1%} above the mean price of {self._hours} h"),
                Reason("turnover", candle.turnover, "quote"),
                Reason("mean_turnover", mean, "quote"),
            ),
            event_time_ms=event_time_ms,
            received_time_ns=received_time_ns,
        )

    def _learn(self, track: Track, candle: Candle) -> None:
        if not is_known(candle) or candle.open_time_ms < track.end_ms:
            return
        track.turnovers.push(candle.turnover)
        track.usual.push(candle.close)
        track.end_ms = candle.close_time_ms
