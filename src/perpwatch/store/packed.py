"""Candles of one symbol as rows of bytes, a third of what they take as objects, while they wait to be written."""

from __future__ import annotations

import bisect
import math
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from perpwatch.model import Candle
from perpwatch.store import schema
from perpwatch.store.records import TRUST_CODES

#: Open time, timeframe, seven figures, four real prices, missing minutes, finality, trust, whether it is synthetic.
_ROW = struct.Struct("<qi7d4diBB?")
_TIME = struct.Struct("<q")
_WIDTH = _ROW.size

_TIMEFRAME_CODES, _FINALITY_CODES = schema.TIMEFRAME_CODES, schema.FINALITY_CODES


class PackedCandles:
    """A record of many candles of one symbol, oldest first; 107 bytes each.

    A real price that is missing is NaN in here: no exchange sends that, and the database has no other word for it.
    """

    __slots__ = ("_rows", "symbol")

    def __init__(self, symbol: str, rows: bytes) -> None:
        self.symbol = symbol
        self._rows = rows

    @classmethod
    def of(cls, symbol: str, candles: Sequence[Candle]) -> PackedCandles:
        """Pack candles of a symbol, in any order."""
        rows = bytearray(_WIDTH * len(candles))
        for place, one in enumerate(sorted(candles, key=_open_time_ms)):
            real = (one.real_open, one.real_high, one.real_low, one.real_close)
            _ROW.pack_into(
                rows,
                place * _WIDTH,
                one.open_time_ms,
                _TIMEFRAME_CODES[one.timeframe],
                one.open,
                one.high,
                one.low,
                one.close,
                one.contracts,
                one.base_volume,
                one.turnover,
                *(real if None not in real else [math.nan if price is None else price for price in real]),
                one.missing_minutes,
                _FINALITY_CODES[one.finality],
                TRUST_CODES[one.trust],
                one.is_synthetic,
            )
        return cls(symbol, bytes(rows))

    def __len__(self) -> int:
        return len(self._rows) // _WIDTH

    def __repr__(self) -> str:
        return f"PackedCandles({self.symbol!r}, {len(self)} candles from {self.start_ms} on)"

    @property
    def start_ms(self) -> int:
        """The oldest open time; 0 when there is none."""
        return self._open_time_ms(0) if self._rows else 0

    def place(self, open_time_ms: int) -> int:
        """The place of the first candle that opens at this time or later."""
        return bisect.bisect_left(range(len(self)), open_time_ms, key=self._open_time_ms)

    def part(self, first: int, end: int) -> PackedCandles:
        """The candles from one place to before another."""
        return PackedCandles(self.symbol, self._rows[first * _WIDTH : end * _WIDTH])

    def minutes(self) -> Iterator[int]:
        """The open times of the minutes among them."""
        for open_time_ms, code, *_ in _ROW.iter_unpack(self._rows):
            if code == 1:
                yield open_time_ms

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """As the table of candles has them."""
        symbol = self.symbol
        for (
            time_ms,
            code,
            o,
            h,
            low,
            c,
            n,
            b,
            t,
            ro,
            rh,
            rl,
            rc,
            missing,
            finality,
            trust,
            is_synthetic,
        ) in _ROW.iter_unpack(self._rows):
            if not ro + rh + rl + rc < math.inf:
                ro, rh, rl, rc = (None if price != price else price for price in (ro, rh, rl, rc))
            yield (
                code,
                time_ms,
                symbol,
                o,
                h,
                low,
                c,
                n,
                b,
                t,
                finality,
                trust,
                ro,
                rh,
                rl,
                rc,
                int(is_synthetic),
                missing,
            )

    def _open_time_ms(self, place: int) -> int:
        (open_time_ms,) = _TIME.unpack_from(self._rows, place * _WIDTH)
        return open_time_ms  # type: ignore[no-any-return]


def _open_time_ms(candle: Candle) -> int:
    return candle.open_time_ms
