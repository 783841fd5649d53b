"""In how many minutes of the last hour each contract traded, by the 24 h volume in the whole-market ticker.

It knows of contracts that are not watched, too, and so helps to decide which should be.
"""

from __future__ import annotations

from perpwatch.model import MINUTE_MS, Tickers

HOUR = 60
_MASK = (1 << HOUR) - 1


class Activity:
    """A bit a minute of the last hour. Cost: 0.2 µs per ticker row; 200 bytes per symbol."""

    def __init__(self) -> None:
        self._minutes: dict[str, tuple[float, int, int]] = {}  # 24 h volume, minute it was last seen in, bits
        self._first_minute = 0
        self._now_minute = 0

    def hear(self, tickers: Tickers) -> None:
        """Take a frame of the whole-market ticker. A fall of the volume says nothing: a day ago drops out of it."""
        minute = tickers.event_time_ms // MINUTE_MS
        if minute < self._now_minute:
            return
        if not self._first_minute:
            self._first_minute = minute
        self._now_minute = minute
        for ticker in tickers.tickers:
            volume = ticker.contracts_24h
            if volume is None:
                continue
            before = self._minutes.get(ticker.symbol)
            if before is None:
                self._minutes[ticker.symbol] = volume, minute, 0
                continue
            bits = before[2]
            if minute != before[1]:
                bits = (bits << min(minute - before[1], HOUR)) & _MASK
            self._minutes[ticker.symbol] = volume, minute, bits | (volume > before[0])

    def lose(self) -> None:
        """The ticker stream was interrupted: the hour begins anew."""
        self._minutes.clear()
        self._first_minute = 0

    def shares(self) -> dict[str, float]:
        """Share of the last hour's minutes with trades, by symbol; empty before a whole hour was heard."""
        if not self._first_minute or self._now_minute - self._first_minute < HOUR:
            return {}
        return {
            symbol: ((bits << min(self._now_minute - minute, HOUR)) & _MASK).bit_count() / HOUR
            for symbol, (_, minute, bits) in self._minutes.items()
        }
