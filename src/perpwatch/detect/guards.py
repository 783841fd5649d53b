"""What no detector on candles may judge or learn from."""

from __future__ import annotations

import math

from perpwatch.model import Candle, Trust


def is_known(candle: Candle) -> bool:
    """Every minute of the candle is known, and its figures are ones that a market can have.

    A single infinite or undefined turnover would stay in every running sum for ever.
    """
    return (
        candle.missing_minutes == 0
        and candle.trust is not Trust.UNKNOWN
        and 0.0 <= candle.turnover < math.inf
        and 0.0 < candle.close < math.inf
    )
