"""What is in the picture beside an alert. :mod:`perpwatch.alert.drawing` draws it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from perpwatch.model import Direction

#: Candles in a picture, and how many at least make one.
MOST_CANDLES, LEAST_CANDLES = 90, 5
#: Of the turnovers of ordinary candles, this share lies below the band that is called usual, and as much above it.
BEYOND_USUAL = 0.1


class Bar(msgspec.Struct, frozen=True, array_like=True):
    """One candle of a picture."""

    open_time_ms: int
    open: float
    high: float
    low: float
    close: float
    turnover: float
    is_known: bool = True  # false where minutes of it are missing: drawn as a gap


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is drawn, in the language and time zone of whoever looks at it."""

    symbol: str
    span: str  # length of a candle, in words
    span_ms: int
    bars: list[Bar]  # oldest first, at least ``LEAST_CANDLES``
    usual: tuple[
        float, float, float
    ]  # turnover of a candle: low and high end of what is usual, and its mean; 0 unknown
    usual_word: str  # what to call it
    volume_word: str
    signal_ms: int
    price: float  # of the signal; 0 when it has none
    ratio: str  # turnover against its usual, as it is told; empty when the signal has none
    move: str  # as it is told
    direction: Direction
    group: str = ","  # between thousands
    utc_offset_s: int  # of the times that are shown
    zone: str  # its name


def usual_band(turnovers: Sequence[float]) -> tuple[float, float, float]:
    """Low and high end of the turnover that is usual for a candle, and the mean; zeros where nothing is known.

    Args:
        turnovers: of the candles before the signal, a day of them where there is one.
    """
    if not turnovers:
        return 0.0, 0.0, 0.0
    ordered = sorted(turnovers)
    beyond = int(BEYOND_USUAL * len(ordered))
    return ordered[beyond], ordered[-1 - beyond], sum(ordered) / len(ordered)
