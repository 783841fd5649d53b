"""In how many minutes of the last hour each contract traded, by the 24 h volume in the whole-market ticker.

It knows of contracts that are not watched, too, and so helps to decide which should be.
"""

from __future__ import annotations

from dataclasses import dataclass

from perpwatch.market.referee import Heard
from perpwatch.model import MINUTE_MS, Tickers

HOUR = 60
_MASK = (1 << HOUR) - 1


@dataclass(slots=True)
class _Hour:
    """Of one symbol."""

    volume: float  # of 24 h, contracts; where it is compared here
    minute: int  # which the lowest bit stands for
    bits: int = 0

    def trade(self, minute: int) -> None:
        if minute != self.minute:
            self.bits = (self.bits << min(minute - self.minute, HOUR)) & _MASK
            self.minute = minute
        self.bits |= 1


class Activity:
    """A bit a minute of the last hour. Cost: 0.1 µs per ticker row; 200 bytes per symbol."""

    def __init__(self) -> None:
        self._symbols: dict[str, _Hour] = {}
        self._risen: set[str] = set()  # in the present minute, not yet among the bits
        self._first_minute = 0
        self._now_minute = 0

    def hear(self, tickers: Tickers) -> None:
        """Take a frame of the whole-market ticker. A fall of the volume says nothing: a day ago drops out of it."""
        minute = tickers.event_time_ms // MINUTE_MS
        if not self._advance(minute):
            return
        symbols = self._symbols
        for ticker in tickers.tickers:
            volume = ticker.contracts_24h
            if volume is None:
                continue
            hour = symbols.get(ticker.symbol)
            if hour is None:
                symbols[ticker.symbol] = _Hour(volume, minute)
            elif volume > hour.volume:
                hour.volume = volume
                hour.trade(minute)
            else:
                hour.volume = volume

    def note(self, heard: Heard, event_time_ms: int) -> None:
        """Take what the referee has heard in a frame of the stream, instead of the frame."""
        minute = event_time_ms // MINUTE_MS
        for symbol in heard.new:
            self._symbols.setdefault(symbol, _Hour(0.0, minute))
        if not self._advance(minute):
            return
        self._risen.update(heard.risen)

    def _advance(self, minute: int) -> bool:
        """Go on to a minute; False when it is over already."""
        if minute < self._now_minute:
            return False
        if minute > self._now_minute:
            self._write_down()
            self._now_minute = minute
        self._first_minute = self._first_minute or minute
        return True

    def _write_down(self) -> None:
        """What rose in the present minute becomes bits: once a minute instead of at each rise."""
        for symbol in self._risen:
            self._symbols.setdefault(symbol, _Hour(0.0, self._now_minute)).trade(self._now_minute)
        self._risen.clear()

    def lose(self) -> None:
        """The ticker stream was interrupted: the hour begins anew."""
        self._symbols.clear()
        self._risen.clear()
        self._first_minute = 0

    def shares(self) -> dict[str, float]:
        """Share of the last hour's minutes with trades, by symbol; empty before a whole hour was heard."""
        if not self._first_minute or self._now_minute - self._first_minute < HOUR:
            return {}
        self._write_down()
        return {
            symbol: ((hour.bits << min(self._now_minute - hour.minute, HOUR)) & _MASK).bit_count() / HOUR
            for symbol, hour in self._symbols.items()
        }
