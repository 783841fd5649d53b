"""What no detector on candles may judge or learn from."""

from __future__ import annotations

from math import inf

from perpwatch.model import Candle, Trust

# Asked for every candle: naming a member through its class takes ten times as long.
_UNKNOWN = Trust.UNKNOWN


def is_known(candle: Candle) -> bool:
    """Every minute of the candle is known, and its figures are ones that a market can have.

    A single infinite or undefined turnover would stay in every running sum for ever.
    """
    return (
        candle.missing_minutes == 0
        and candle.trust is not _UNKNOWN
        and 0.0 <= candle.turnover < inf
        and 0.0 < candle.close < inf
    )
