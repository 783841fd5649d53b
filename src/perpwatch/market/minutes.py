"""The closed minutes of one symbol, as numbers.

A thousand symbols keep two hours each. As candles that is an object and seven numbers for every minute, as a row here a
quarter of it; candles are made for whoever asks, and few ask at the close of a minute.
"""

from __future__ import annotations

import bisect
import struct
from collections.abc import Iterator, Sequence
from typing import Literal, overload

from perpwatch.model import MINUTE_MS, Candle, Finality, Timeframe, Trust

#: Closed minutes kept per symbol: the longest analysed timeframe twice, so that a repair can redo the last one.
KEPT_MINUTES = 120

#: Open time in seconds, marks, then the numbers of a candle in its order: prices, volumes, real prices.
_ROW = struct.Struct("@IH2x11d")
_WIDTH, _NUMBERS = _ROW.size, _ROW.size // 8
_TIME, _NUMBER = struct.Struct("@I"), struct.Struct("@d")
_PLACE_OF = {"open": 1, "high": 2, "low": 3, "close": 4, "contracts": 5, "base_volume": 6, "turnover": 7}

_MIN1 = Timeframe.Min1

# Marks: two bits of finality, three of trust, then a bit each. The usual ones stand first and are found first.
_FINALITIES = (Finality.SUCCESSOR, Finality.CLOCK, Finality.REST, Finality.OPEN)
_TRUSTS = (Trust.STREAMED, Trust.VERIFIED, Trust.REPAIRED, Trust.QUIET, Trust.UNKNOWN)
_SYNTHETIC, _NO_REAL_OPEN, _NO_REAL_HIGH, _NO_REAL_LOW, _NO_REAL_CLOSE = (1 << bit for bit in range(5, 10))


class Minutes(Sequence[Candle]):
    """Closed Min1 candles of one symbol, oldest first, gaps left out; never more than :data:`KEPT_MINUTES`.

    A ring of rows: a new minute takes the place of the oldest and touches no other. Cost: 12 kB in all; 0.8 µs to add
    a minute, 1.5 µs to make a candle.

    Candles that are put in are whole minutes (``missing_minutes`` is 0) that open at whole seconds.
    """

    __slots__ = ("_count", "_first", "_rows", "_symbol", "end_ms")

    def __init__(self, symbol: str, candles: Sequence[Candle] = ()) -> None:
        """Take the newest of some candles, which are sorted by their time."""
        #: Where the newest minute ends; 0 when there is none.
        self.end_ms = 0
        self._symbol = symbol
        self._rows = bytearray(KEPT_MINUTES * _WIDTH)
        self._first = self._count = 0
        for candle in candles[-KEPT_MINUTES:]:
            self.append(candle)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, place: int) -> Candle: ...

    @overload
    def __getitem__(self, place: slice) -> list[Candle]: ...

    def __getitem__(self, place: int | slice) -> Candle | list[Candle]:
        if isinstance(place, slice):
            return [self._candle(one) for one in range(*place.indices(self._count))]
        if not -self._count <= place < self._count:
            raise IndexError(f"minute {place} of {self._count}")
        return self._candle(place % self._count)

    def __iter__(self) -> Iterator[Candle]:
        return iter(self[:])

    # --- Looking ----------------------------------------------------------------------------------------------------

    @property
    def start_ms(self) -> int:
        """Where the oldest minute opens; 0 when there is none."""
        return self._open_time_ms(0) if self._count else 0

    @property
    def is_full(self) -> bool:
        """One more, and the oldest is forgotten."""
        return self._count == KEPT_MINUTES

    def place(self, open_time_ms: int) -> int:
        """The place of the first minute that opens at this time or later; how many there are when none does."""
        count = self._count
        if open_time_ms >= self.end_ms:
            return count
        # Without gaps the place is known; with gaps it is looked for.
        place = count + (open_time_ms - self.end_ms) // MINUTE_MS
        if place >= 0 and self._open_time_ms(place) == open_time_ms:
            return place
        return bisect.bisect_left(range(count), open_time_ms, key=self._open_time_ms)

    def find(self, open_time_ms: int) -> Candle | None:
        """The minute that opens at this time."""
        place = self.place(open_time_ms)
        return self._candle(place) if place < self._count and self._open_time_ms(place) == open_time_ms else None

    def between(self, start_ms: int, end_ms: int) -> list[Candle]:
        """The minutes that open within the window, oldest first."""
        return self[self.place(start_ms) : self.place(end_ms)] if start_ms < self.end_ms else []

    def figure(self, name: Literal["open", "close", "turnover"], open_time_ms: int) -> float | None:
        """One number of the minute that opens at this time; None when there is no such minute."""
        place = self.place(open_time_ms)
        if place == self._count or self._open_time_ms(place) != open_time_ms:
            return None
        row = (self._first + place) % KEPT_MINUTES * _WIDTH
        (number,) = _NUMBER.unpack_from(self._rows, row + 8 * _PLACE_OF[name])
        return number  # type: ignore[no-any-return]

    def column(self, name: Literal["open", "close", "turnover"], first: int) -> list[float]:
        """One number of each minute from this place on, as in a slice: -60 stands for the newest sixty."""
        first, count, _ = slice(first, None).indices(self._count)
        start, end = self._first + first, self._first + count
        numbers = memoryview(self._rows).cast("d")[_PLACE_OF[name] :: _NUMBERS]
        if start >= KEPT_MINUTES:
            start, end = start - KEPT_MINUTES, end - KEPT_MINUTES
        if end <= KEPT_MINUTES:
            return numbers[start:end].tolist()  # type: ignore[return-value]
        return numbers[start:].tolist() + numbers[: end - KEPT_MINUTES].tolist()  # type: ignore[return-value]

    # --- Changing ---------------------------------------------------------------------------------------------------

    def append(self, minute: Candle) -> None:
        """Add a minute that is newer than all; the oldest is forgotten when there are too many."""
        if self._count < KEPT_MINUTES:
            slot = (self._first + self._count) % KEPT_MINUTES
            self._count += 1
        else:
            slot = self._first
            self._first = (slot + 1) % KEPT_MINUTES
        self._write(slot, minute)
        self.end_ms = minute.open_time_ms + MINUTE_MS

    def put(self, minute: Candle) -> None:
        """File a minute where it belongs, in the place of what is known of it."""
        open_time_ms = minute.open_time_ms
        if open_time_ms >= self.end_ms:
            self.append(minute)
            return
        place = self.place(open_time_ms)
        if self._open_time_ms(place) == open_time_ms:
            self._write((self._first + place) % KEPT_MINUTES, minute)
            return
        if self._count == KEPT_MINUTES:
            if not place:
                return  # older than all that is kept
            self._first, self._count, place = (self._first + 1) % KEPT_MINUTES, self._count - 1, place - 1
        rows, cut = self._rows, self._first * _WIDTH
        rows[:] = rows[cut:] + rows[:cut]
        self._first = 0
        later = rows[place * _WIDTH : self._count * _WIDTH]
        self._count += 1
        rows[(place + 1) * _WIDTH : self._count * _WIDTH] = later
        self._write(place, minute)

    def cut(self, place: int) -> list[Candle]:
        """Take away all minutes from this place on, and return them."""
        taken = self[place:]
        self._count = min(place, self._count)
        self.end_ms = self._open_time_ms(self._count - 1) + MINUTE_MS if self._count else 0
        return taken

    # --- Rows -------------------------------------------------------------------------------------------------------

    def _open_time_ms(self, place: int) -> int:
        (open_time_s,) = _TIME.unpack_from(self._rows, (self._first + place) % KEPT_MINUTES * _WIDTH)
        return open_time_s * 1_000  # type: ignore[no-any-return]

    def _write(self, slot: int, minute: Candle) -> None:
        marks = _FINALITIES.index(minute.finality) | _TRUSTS.index(minute.trust) << 2
        if minute.is_synthetic:
            marks |= _SYNTHETIC
        real_open, real_high, real_low, real_close = (
            minute.real_open,
            minute.real_high,
            minute.real_low,
            minute.real_close,
        )
        if real_open is None:
            marks, real_open = marks | _NO_REAL_OPEN, 0.0
        if real_high is None:
            marks, real_high = marks | _NO_REAL_HIGH, 0.0
        if real_low is None:
            marks, real_low = marks | _NO_REAL_LOW, 0.0
        if real_close is None:
            marks, real_close = marks | _NO_REAL_CLOSE, 0.0
        _ROW.pack_into(
            self._rows,
            slot * _WIDTH,
            minute.open_time_ms // 1_000,
            marks,
            minute.open,
            minute.high,
            minute.low,
            minute.close,
            minute.contracts,
            minute.base_volume,
            minute.turnover,
            real_open,
            real_high,
            real_low,
            real_close,
        )

    def _candle(self, place: int) -> Candle:
        open_time_s, marks, open_, high, low, close, contracts, base_volume, turnover, *real = _ROW.unpack_from(
            self._rows, (self._first + place) % KEPT_MINUTES * _WIDTH
        )
        real_open, real_high, real_low, real_close = real
        return Candle(
            self._symbol,
            _MIN1,
            open_time_s * 1_000,
            open_,
            high,
            low,
            close,
            contracts,
            base_volume,
            turnover,
            _FINALITIES[marks & 3],
            _TRUSTS[marks >> 2 & 7],
            None if marks & _NO_REAL_OPEN else real_open,
            None if marks & _NO_REAL_HIGH else real_high,
            None if marks & _NO_REAL_LOW else real_low,
            None if marks & _NO_REAL_CLOSE else real_close,
            bool(marks & _SYNTHETIC),
        )
