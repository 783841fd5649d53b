"""The contract between the market and whatever finds something unusual in it.

A detector is a synchronous state machine over the candles of many symbols. It is warmed up with history, told each
candle once when it is final and possibly many times while it runs, and reset when continuity is lost. No clock is read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from perpwatch.model import Candle, Signal, Timeframe

#: A ``wake_turnover`` that no candle reaches: nothing to look for.
NEVER = math.inf


class Detector(Protocol):
    """What every detector promises.

    * Judges candle *t* by candles before *t* only.
    * Never signals on a candle with ``missing_minutes`` or trust ``UNKNOWN``, nor learns from one.
    * Signals at most once per symbol, timeframe and candle, unless what it measures has doubled since.
    """

    @property
    def name(self) -> str: ...

    def warm_up(self, symbol: str, timeframe: Timeframe, candles: Sequence[Candle]) -> None:
        """Take closed candles, oldest first, as the whole past of the symbol; whatever was known is replaced."""
        ...

    def update(self, candle: Candle, event_time_ms: int, received_time_ns: int) -> Signal | None:
        """Judge a candle; ``finality`` OPEN means that it still runs, and then nothing is learned from it.

        The two times are those of the frame that brought it, and are copied into the signal.
        """
        ...

    def wake_turnover(self, symbol: str, timeframe: Timeframe, open_time_ms: int | None = None) -> float:
        """Turnover of the running candle below which :meth:`update` is certain to return None.

        The caller then compares one number per push instead of calling. Valid until the next closed candle or signal
        of this symbol and timeframe; ``NEVER`` while the detector cannot fire.

        Args:
            open_time_ms: of the running candle. Two can be open at once, for seconds: one that has ended and is not
                closed, and the next. None stands for whichever follows the last closed one.
        """
        ...

    def reset(self, symbol: str) -> None:
        """Continuity was lost: what spans the loss must not be compared. Long-run baselines may stay."""
        ...

    def forget(self, symbol: str) -> None:
        """The symbol is no longer watched."""
        ...
