"""What turnover is usual for a candle, judged by those before it."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import msgspec

from perpwatch.model import Candle

#: Candles before one that say what is usual for it, and how many of them must be known.
USUAL_CANDLES, USUAL_NEEDED = 240, 20


class UsualTurnover(msgspec.Struct, frozen=True, gc=False):
    """The band in which eight of ten candles lay, and the middle of them; quote coin."""

    low: float  # 10th percentile
    middle: float  # 50th
    high: float  # 90th


def usual_turnover(candles: Sequence[Candle], count: int) -> list[UsualTurnover | None]:
    """The usual turnover for each of the last ``count`` candles, oldest first.

    A candle is compared with up to :data:`USUAL_CANDLES` before it, itself excluded; those with missing minutes say
    nothing. None where fewer than :data:`USUAL_NEEDED` are known. Percentiles are interpolated linearly between ranks.

    Args:
        candles: oldest first, of one timeframe; the more there are before the last ``count``, the better.
    """
    first = max(0, len(candles) - count)
    start = max(0, first - USUAL_CANDLES)
    ordered = sorted(one.turnover for one in candles[start:first] if not one.missing_minutes)
    found = []
    for place in range(first, len(candles)):
        while place - start > USUAL_CANDLES:
            if not candles[start].missing_minutes:
                del ordered[bisect.bisect_left(ordered, candles[start].turnover)]
            start += 1
        is_enough = len(ordered) >= USUAL_NEEDED
        found.append(UsualTurnover(*(_percentile(ordered, share) for share in (0.1, 0.5, 0.9))) if is_enough else None)
        if not candles[place].missing_minutes:
            bisect.insort(ordered, candles[place].turnover)
    return found


def _percentile(ordered: Sequence[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    lower = int(place)
    upper = min(lower + 1, len(ordered) - 1)
    return ordered[lower] + (place - lower) * (ordered[upper] - ordered[lower])
